// Package keeper is the process that outlives all others: it mounts, holds the descriptors of /dev/fuse and the memory with unanswered requests, and
// sees to it that there is always a worker, a process that answers. The worker may be killed or be replaced by one of another version at any time:
// the kernel's connection and what the containers hold of it remain. If the keeper itself ends, the worker goes on, and the next keeper adopts it.
//
// The keeper does next to nothing, so that next to nothing can go wrong in it. It never waits for the descriptors of /dev/fuse, nor looks at a file of
// its mounts: both would be to wait for its worker.
package keeper

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"time"

	"lensfs/fs/conn"

	"golang.org/x/sys/unix"
)

// Config is what a keeper has to know.
type Config struct {
	Tree     string          // where the shared tree is mounted
	OwnViews string          // where each container's own view is mounted; "" for none
	OwnSpare bool            // do without own views where they cannot be had
	StateDir string          // where claims, and what containers have been shown, are kept
	Worker   json.RawMessage // what the worker has to know
	Program  string          // the binary from which an upgrade starts
	Version  string          // ours
	Opened   int64           // bytes of memory that the worker wants for open files
}

// Keeper is made by Start.
type Keeper struct {
	cfg      Config
	hand     Handover
	fds      Descriptors
	claims   []*claim
	listener *net.UnixListener
	requests chan request
	started  time.Time
	done     <-chan struct{} // told to end
	nice     int             // of the worker

	worker   *process // nil: there is none, see retry
	retry    <-chan time.Time
	restarts int
	quick    int    // workers in a row that ended as soon as they served
	lastEnd  string // why the last one was replaced
	slots    []*conn.Slots
	busy     map[uint64]time.Time // requests that were unanswered at the last look, and since when
}

// ownProgram is what runs just now, also when its file has been replaced or removed.
const ownProgram = "/proc/self/exe"

// Worker says who serves now.
func (k *Keeper) Worker() Worker {
	if k.worker == nil {
		return Worker{}
	}
	return k.worker.Worker
}

// Signals are for signals that ask what commands may ask too.
type Signals struct{ Toggle, Upgrade chan os.Signal }

// What Run takes them from.
const (
	upgradeSignal = unix.SIGUSR1 // LXCFS reloads itself on it
	toggleSignal  = unix.SIGUSR2 // and shows everybody the host's values: its test-suite does that
)

// Notify has the signals sent to where Run sees them.
func (s Signals) Notify() {
	signal.Notify(s.Toggle, toggleSignal)
	signal.Notify(s.Upgrade, upgradeSignal)
}

// Run keeps until ctx is done, or a command or the kernel ends it. If containers use the views when ctx is done, the worker goes on without a keeper.
func (k *Keeper) Run(ctx context.Context, signals Signals) error {
	k.done = ctx.Done()
	if err := ForgetStart(); err != nil {
		slog.Warn("the keeper is larger than it has to be", "err", err)
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		var messages <-chan Message
		var died <-chan struct{}
		if k.worker != nil {
			messages, died = k.worker.messages, k.worker.died
		}
		select {
		case <-ctx.Done():
			return k.Leave()
		case m, ok := <-messages:
			if !ok {
				k.replace("")
			} else if m.Op == OpGone {
				return k.gone()
			} else if m.Op == OpPong {
				k.worker.unponged = time.Time{}
			}
		case <-died:
			k.replace("")
		case <-k.retry:
			k.launch()
		case <-ticker.C:
			k.look()
		case <-signals.Toggle:
			slog.Info("told to by a signal", "containers are shown the host's values", k.toggle())
		case <-signals.Upgrade:
			if err := k.upgrade(); err != nil {
				slog.Error("the upgrade failed: the version before goes on", "err", err)
			} else {
				k.execute(nil)
			}
		case r := <-k.requests:
			if end, err := k.do(r); end {
				return err
			}
		}
	}
}

// toggle has the containers shown the host's values, or their own again.
func (k *Keeper) toggle() bool {
	k.hand.Unveiled = !k.hand.Unveiled
	if k.worker != nil {
		if _, err := k.worker.tell(Message{Op: OpUnveil, Unveiled: k.hand.Unveiled}, hungAfter); err != nil {
			k.replace(err.Error()) // the next one is told with the handover
		}
	}
	return k.hand.Unveiled
}
