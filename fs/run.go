package fs

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"lensfs/fs/keeper"

	"golang.org/x/sys/unix"
)

// Given are the descriptors that a worker has from its keeper at the start.
type Given struct {
	Link   int
	Stderr int // the keeper's
	Held   int // see keeper.Holder
	Life   int // the other end of it
}

// Run is a worker's life: it does what its keeper says over the link, and goes on alone when the keeper ends, until another adopts it. It returns when
// it is told to end.
func Run(given Given, version string, tune func()) error {
	w := &running{version: version, given: given, tune: tune}
	var err error
	if w.holder, err = keeper.NewHolder(given.Held, given.Stderr); err != nil {
		return err
	}
	if w.link, err = keeper.NewLink(given.Link); err != nil {
		return err
	}
	for {
		m, fds, err := w.link.Receive()
		if err != nil {
			w.link.Close()
			if w.serving == nil {
				return nil // there is nothing to go on with
			}
			select {
			case <-w.serving.Ended(): // which the keeper may have been told, and not have heard
				w.abandon(w.hand, err)
			default:
			}
			slog.Warn("the keeper has ended: going on alone, until \"lensfs serve\" is started again", "pid", os.Getpid())
			link, err := keeper.Orphan(w.hand, w.fds, w.holder, w.given.Life, w.me())
			if err != nil {
				return err
			}
			w.mu.Lock()
			w.link = link
			w.mu.Unlock()
			slog.Info("there is a keeper again")
			continue
		}
		answer, end := w.do(m, fds)
		if end {
			return w.serving.Close()
		}
		w.send(answer) //nolint: the next Receive tells
	}
}

// running is a worker and its link.
type running struct {
	mu        sync.Mutex // to send
	abandoned sync.Once
	link      *keeper.Link
	version   string
	given     Given
	holder    *keeper.Holder
	tune      func()

	config  json.RawMessage
	nice    int
	serving *Worker // nil: not yet
	ready   *Worker
	since   time.Time
	hand    keeper.Handover
	fds     keeper.Descriptors
}

func (w *running) send(m keeper.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.link.Send(m)
}

func (w *running) me() keeper.Worker {
	return keeper.Worker{Pid: os.Getpid(), Version: w.version, Cgroups: w.ready.String(), Since: w.since, Config: w.config}
}

// do does what a message says.
func (w *running) do(m keeper.Message, fds []int) (answer keeper.Message, end bool) {
	var err error
	switch {
	case m.Op == keeper.OpPing:
		return keeper.Message{Op: keeper.OpPong}, false
	case m.Op == keeper.OpPrepare && w.ready == nil:
		if err = w.prepare(m.Config, m.Nice); err == nil {
			me := w.me()
			return keeper.Message{Op: keeper.OpPrepared, Worker: &me}, false
		}
	case m.Op == keeper.OpServe && w.ready != nil && w.serving == nil:
		if err = w.serve(m, fds); err == nil {
			return keeper.Message{Op: keeper.OpServing}, false
		}
	case m.Op == keeper.OpEnd && w.serving != nil:
		return m, true
	case m.Op == keeper.OpUnveil && w.serving != nil:
		w.serving.Unveil(m.Unveiled)
		w.hand.Unveiled = m.Unveiled
		return keeper.Message{Op: keeper.OpDone}, false
	case m.Op == keeper.OpStatus && w.serving != nil:
		var text []byte
		if text, err = json.Marshal(w.serving.Report()); err == nil {
			return keeper.Message{Op: keeper.OpDone, Status: text}, false
		}
	case m.Op == keeper.OpView && w.serving != nil:
		var v keeper.View
		if v, err = w.serving.View(m.Caller); err == nil {
			return keeper.Message{Op: keeper.OpDone, View: &v}, false
		}
	default:
		err = fmt.Errorf("%q is not known here, or not now", m.Op)
	}
	return keeper.Message{Op: keeper.OpFailed, Error: err.Error()}, false
}

func (w *running) prepare(config json.RawMessage, nice int) error {
	var cfg Config
	if err := json.Unmarshal(config, &cfg); err != nil {
		return fmt.Errorf("what the keeper wants: %w", err)
	}
	w.tune()
	var err error
	if w.ready, err = Prepare(cfg); err != nil {
		return err
	}
	w.config, w.nice = config, nice
	// What was said until now is the keeper's to tell; from here on it goes where the keeper's own words go.
	return unix.Dup3(w.given.Stderr, 2, 0)
}

func (w *running) serve(m keeper.Message, fds []int) error {
	h, d, err := keeper.ReceiveHandover(m, fds)
	if err != nil {
		return err
	}
	if err := w.holder.Hold(d); err != nil {
		return err
	}
	if err := w.ready.Serve(h, d); err != nil {
		return err
	}
	w.hand, w.fds, w.serving, w.since = h, d, w.ready, time.Now()
	go w.tellEnd(h)
	time.AfterFunc(calmAfter, func() {
		if err := keeper.Calm(w.nice); err != nil {
			slog.Warn("the worker keeps the priority with which it took over", "err", err)
		}
		if err := keeper.ForgetStart(); err != nil {
			slog.Warn("the worker is larger than it has to be", "err", err)
		}
	})
	return nil
}

// calmAfter is how long a worker that took over goes before others.
const calmAfter = time.Second

// abandon ends a worker whose connection the kernel has ended, and that has no keeper. It does not return.
func (w *running) abandon(h keeper.Handover, err error) {
	w.abandoned.Do(func() {
		slog.Error("ending", "err", errors.Join(errors.New("the kernel has ended the connection, and there is no keeper"), err, keeper.Abandon(h)))
		os.Exit(1)
	})
}

// tellEnd ends the worker when the kernel has ended the connection. Its keeper is told, and does the rest; without one, the worker does.
func (w *running) tellEnd(h keeper.Handover) {
	<-w.serving.Ended()
	if err := w.send(keeper.Message{Op: keeper.OpGone}); err != nil {
		w.abandon(h, err)
	}
}
