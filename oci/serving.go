package oci

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Serving knows at every moment whether a daemon answered lately.
type Serving struct {
	answered atomic.Int64 // when it last did, Unix time in nanoseconds
}

// The daemon is asked every second. One that has not answered for three is taken for gone.
const (
	asked    = time.Second
	patience = 3 * asked
)

// Now says whether the daemon answered lately. It waits for nothing.
func (s *Serving) Now() bool { return time.Since(time.Unix(0, s.answered.Load())) < patience }

// Watch asks the daemon that serves own views on a directory until ctx ends. The first answer is waited for, for as long as patience goes.
func Watch(ctx context.Context, views string) *Serving {
	s := &Serving{}
	first := make(chan struct{})
	go func() { // which hangs when the daemon does: nobody waits for it
		s.ask(views)
		close(first)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(asked):
			}
			s.ask(views)
		}
	}()
	select {
	case <-first:
	case <-ctx.Done():
	case <-time.After(patience):
	}
	return s
}

func (s *Serving) ask(views string) {
	if _, err := os.Readlink(filepath.Join(views, "self")); err == nil { // the daemon's answer, never kept by the kernel
		s.answered.Store(time.Now().UnixNano())
	} else {
		s.answered.Store(0)
	}
}
