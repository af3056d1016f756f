package nri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/nri/pkg/stub"
)

// retry is how long a runtime that has gone, or is not there yet, is left alone.
const retry = time.Second

// Run is the plugin until ctx ends. It connects again whenever the runtime has been restarted.
func Run(ctx context.Context, c Config) error {
	a := &answers{Config: c}
	last := ""
	for {
		connected, err := a.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if connected {
			last = ""
		}
		if text := err.Error(); text != last { // once, not every second
			c.Log.Warn("not connected to the runtime: containers start without views", "err", err)
			last = text
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}

// connect is the plugin for as long as the runtime lives. A stub is for one connection: one that failed to register cannot be used again.
func (a *answers) connect(ctx context.Context) (connected bool, err error) {
	s, err := stub.New(a, stub.WithPluginName("lensfs"), stub.WithPluginIdx(a.Index), stub.WithSocketPath(a.Socket), stub.WithOnClose(func() {}), stub.WithLogger(quiet{a.Log}))
	if err != nil {
		return false, err
	}
	if err := s.Start(ctx); err != nil {
		return false, err
	}
	ended := make(chan struct{})
	go func() {
		s.Wait()
		close(ended)
	}()
	select {
	case <-ctx.Done():
		s.Stop()
		<-ended
		return true, ctx.Err()
	case <-ended:
		s.Stop()
		return true, errors.New("the runtime has closed the connection")
	}
}

// quiet is a log of what goes wrong in the library: of the rest we tell ourselves.
type quiet struct{ log *slog.Logger }

func (q quiet) Debugf(context.Context, string, ...any) {}
func (q quiet) Infof(context.Context, string, ...any)  {}
func (q quiet) Warnf(_ context.Context, format string, args ...any) {
	q.log.Warn(fmt.Sprintf(format, args...))
}
func (q quiet) Errorf(_ context.Context, format string, args ...any) {
	q.log.Error(fmt.Sprintf(format, args...))
}
