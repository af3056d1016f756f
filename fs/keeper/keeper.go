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
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
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
	nice     int // of the worker

	worker   *process // nil: there is none, see retry
	retry    <-chan time.Time
	restarts int
	quick    int    // workers in a row that ended as soon as they served
	lastEnd  string // why the last one was replaced
	slots    []*conn.Slots
	busy     map[uint64]time.Time // requests that were unanswered at the last look, and since when
}

const (
	lookEvery = time.Second // at the worker
	// A worker that says nothing for this long, or has not answered a request, is replaced. A request takes well below a millisecond.
	hungAfter  = 3 * time.Second
	stuckAfter = 5 * time.Second
	// A worker that ends this soon counts as one that does not start; after maxQuick of them there is a pause before each.
	quickEnd = 100 * time.Millisecond
	maxQuick = 10
	pause    = time.Second
	// settleTime is how long the worker of an upgrade has to live, before the keeper becomes of its version too.
	settleTime = 200 * time.Millisecond
)

// errGone is the end of it all.
var errGone = errors.New("the kernel has ended the connection")

// ownProgram is what runs just now, also when its file has been replaced or removed.
const ownProgram = "/proc/self/exe"

// Start makes a keeper, and sees to it that the files can be read. It takes over what there is: from itself before it was executed anew, from a worker
// whose keeper has ended, or from systemd, which may have kept the descriptors of both. Otherwise it mounts.
func Start(cfg Config) (*Keeper, error) {
	k := &Keeper{cfg: cfg, started: time.Now(), requests: make(chan request), fds: Descriptors{}, busy: map[uint64]time.Time{}}
	var err error
	if k.cfg.Tree, err = mountDir(cfg.Tree); err != nil {
		return nil, err
	}
	if cfg.OwnViews != "" {
		if k.cfg.OwnViews, err = mountDir(cfg.OwnViews); err != nil {
			return nil, err
		}
	}
	k.nice = hasten()
	kept := takeKept()
	if state := os.Getenv(envState); state != "" {
		kept.close()
		return k, k.goOn(state)
	}
	k.hand = Handover{Format: handoverFormat, StateDir: cfg.StateDir, Tree: Mount{Dir: k.cfg.Tree}}
	err = k.claim()
	var taken *errTaken
	switch {
	case errors.As(err, &taken) && taken.dir == k.cfg.Tree:
		kept.close()
		return k, k.adopt(taken)
	case err != nil:
		kept.close()
		return nil, errors.Join(err, k.release())
	}
	if err := k.begin(kept); err != nil {
		return nil, errors.Join(err, k.release())
	}
	return k, nil
}

// claim claims the directories.
func (k *Keeper) claim() error {
	tree, err := newClaim(k.cfg.StateDir, k.cfg.Tree)
	if err != nil {
		return err
	}
	k.claims = append(k.claims, tree)
	k.fds[fdTreeClaim] = int(tree.file.Fd())
	if k.cfg.OwnViews == "" {
		return nil
	}
	views, err := newClaim(k.cfg.StateDir, k.cfg.OwnViews)
	if err != nil {
		return k.spare(err)
	}
	k.claims = append(k.claims, views)
	k.fds[fdViewsClaim] = int(views.file.Fd())
	return nil
}

// spare does without own views, if that is allowed.
func (k *Keeper) spare(err error) error {
	if !k.cfg.OwnSpare {
		return err
	}
	slog.Warn("there are no own views: every reader asks the daemon", "err", err)
	k.cfg.OwnViews = ""
	return nil
}

// begin serves directories that are ours: from descriptors that systemd has kept, or mounted now.
func (k *Keeper) begin(kept Descriptors) error {
	p, err := k.start(ownProgram)
	if err != nil {
		kept.close()
		return err
	}
	if err := p.prepare(k.cfg.Worker, k.nice); err != nil {
		kept.close()
		return err
	}
	if err := k.restore(kept); err != nil {
		slog.Warn("what systemd has kept of the last daemon is of no use", "err", err)
		err = nil
	}
	if _, ok := k.fds[FdTree]; !ok {
		if err := k.mountAll(); err != nil {
			p.kill()
			return err
		}
	}
	if err := k.listen(); err != nil {
		p.kill()
		return err
	}
	if err := p.serve(k.hand, k.fds); err != nil {
		return err
	}
	k.worker = p
	k.keep()
	return k.watch()
}

// watch maps the memory of requests, to see which are not answered, and takes commands.
func (k *Keeper) watch() error {
	for _, name := range []string{FdTreeRequests, FdViewsRequests} {
		if fd, ok := k.fds[name]; ok {
			s, err := conn.OpenSlots(fd)
			if err != nil {
				return err
			}
			k.slots = append(k.slots, s)
		}
	}
	go k.accept()
	return nil
}

// mountAll mounts, and makes the memory that goes with it.
func (k *Keeper) mountAll() error {
	tree, err := k.mountOne(k.cfg.Tree, FdTree, FdTreeRequests)
	if err != nil {
		return err
	}
	k.hand.Tree = tree
	for name, size := range map[string]int64{FdOpened: k.cfg.Opened, FdTexts: 0} {
		if k.fds[name], err = memory(name, size); err != nil {
			delete(k.fds, name)
			return err
		}
	}
	if k.cfg.OwnViews == "" {
		return nil
	}
	if err := os.Remove(StateFile(k.cfg.StateDir, k.cfg.OwnViews, "table")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // nodes of a connection that is no more
	}
	views, err := k.mountOne(k.cfg.OwnViews, FdViews, FdViewsRequests)
	if err != nil {
		return k.spare(err)
	}
	k.hand.Views = &views
	return nil
}

func (k *Keeper) mountOne(dir, name, requests string) (Mount, error) {
	if err := clearDead(dir); err != nil {
		return Mount{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Mount{}, err
	}
	mem, err := memory(requests, conn.SlotsBytes)
	if err != nil {
		return Mount{}, err
	}
	m, fd, err := mount(dir)
	if err != nil {
		unix.Close(mem)
		return Mount{}, err
	}
	k.fds[name], k.fds[requests] = fd, mem
	return m, nil
}

// StateFile gives the path of what is to be known of the mount on dir by the next who serves it.
func StateFile(stateDir, dir, what string) string {
	return filepath.Join(stateDir, url.PathEscape(dir)+"."+what)
}

// Worker says who serves now.
func (k *Keeper) Worker() Worker {
	if k.worker == nil {
		return Worker{}
	}
	return k.worker.Worker
}

// Signals are for signals that ask what commands may ask too.
type Signals struct {
	Toggle  <-chan os.Signal
	Upgrade <-chan os.Signal
}

// Run keeps until ctx is done, or a command or the kernel ends it. If containers use the views when ctx is done, the worker goes on without a keeper.
func (k *Keeper) Run(ctx context.Context, signals Signals) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		var messages <-chan Message
		if k.worker != nil {
			messages = k.worker.messages
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
				k.execute()
			}
		case r := <-k.requests:
			if end, err := k.do(r); end {
				return err
			}
		}
	}
}

func (k *Keeper) gone() error {
	return errors.Join(fmt.Errorf("the kernel has ended the connection of %s: somebody unmounted or aborted it", k.hand.Tree.Dir), k.Close())
}

// look checks that the worker lives and answers.
func (k *Keeper) look() {
	p := k.worker
	if p == nil {
		return
	}
	now := time.Now()
	switch {
	case p.unponged.IsZero():
		p.unponged = now
		if err := p.link.Send(Message{Op: OpPing}); err != nil {
			k.replace("it does not listen")
			return
		}
	case now.Sub(p.unponged) > hungAfter-lookEvery:
		k.replace(fmt.Sprintf("no sign of life for %v", now.Sub(p.unponged).Round(time.Second)))
		return
	}
	if k.stuck(now) {
		k.replace(fmt.Sprintf("a request has not been answered for %v", stuckAfter))
	}
}

// stuck looks for requests that the worker does not answer, and counts that against them.
func (k *Keeper) stuck(now time.Time) (found bool) {
	still := map[uint64]time.Time{}
	for i, s := range k.slots {
		for _, unique := range s.Busy(nil) {
			key := unique<<1 | uint64(i) // the two connections number their requests alike
			since, known := k.busy[key]
			if !known {
				since = now
			}
			still[key] = since
			if now.Sub(since) >= stuckAfter {
				s.Blame(unique)
				delete(still, key)
				found = true
			}
		}
	}
	k.busy = still
	return found
}

// replace ends the worker, if it has not ended by itself, and starts another.
func (k *Keeper) replace(why string) {
	p := k.worker
	k.worker = nil
	how := p.kill()
	if why == "" {
		why = "it ended: " + how
	}
	slog.Warn("the worker is replaced", "pid", p.Pid, "why", why)
	k.lastEnd = why
	k.restarts++
	if time.Since(p.Since) < quickEnd {
		k.quick++
	} else {
		k.quick = 0
	}
	if k.quick < maxQuick {
		k.launch()
		return
	}
	if k.quick == maxQuick {
		slog.Error("workers end as soon as they start: trying again every second", "since", maxQuick)
	}
	k.retry = time.After(pause)
}

// launch starts a worker of our own version and hands over. What it must never do is to give up.
func (k *Keeper) launch() {
	k.retry = nil
	begun := time.Now()
	p, err := k.start(ownProgram)
	if err == nil {
		// All at once: if the keeper ends before the worker is ready, that has what it needs to go on.
		unprepared := p.link.Send(Message{Op: OpPrepare, Config: k.cfg.Worker, Nice: k.nice})
		unserved := p.handOver(k.hand, k.fds)
		if err = p.prepared(k.cfg.Worker, unprepared); err == nil {
			err = p.served(unserved)
		}
	}
	if err == nil {
		k.worker, k.busy = p, map[uint64]time.Time{}
		slog.Info("a worker serves", "pid", p.Pid, "after", time.Since(begun).Round(time.Microsecond))
		return
	}
	k.quick++
	k.lastEnd = err.Error()
	again := 10 * time.Millisecond
	if k.quick >= maxQuick {
		again = pause
	}
	if k.quick <= maxQuick {
		slog.Error("a worker does not start", "err", err, "again in", again)
	}
	k.retry = time.After(again)
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

// Leave ends the keeper: everything with it if no container uses the views, else it alone.
func (k *Keeper) Leave() error {
	users, err := k.users()
	if err == nil && users == 0 {
		slog.Info("ending: told to by a signal")
		return k.Close()
	}
	if k.worker == nil {
		k.launch()
	}
	if k.worker == nil {
		return errors.Join(err, errors.New("there is no worker that could go on, so the views of the containers are dead"))
	}
	pid := k.worker.Pid
	slog.Info("the keeper ends; containers use the views, so the worker goes on: \"lensfs serve\" takes over again, \"lensfs stop --force\" ends it",
		"containers", users, "worker", pid)
	return err
}

// Close unmounts, ends the worker and gives the directories free.
func (k *Keeper) Close() error {
	errs := []error{k.hand.Tree.unmount()}
	if k.hand.Views != nil {
		errs = append(errs, k.hand.Views.unmount())
	}
	if k.worker != nil {
		k.worker.end()
		k.worker = nil
	}
	return errors.Join(append(errs, k.release())...)
}

// release gives up what Start has taken, and what it has mounted.
func (k *Keeper) release() error {
	var errs []error
	if _, ok := k.fds[FdTree]; ok {
		errs = append(errs, k.hand.Tree.unmount())
	}
	if _, ok := k.fds[FdViews]; ok && k.hand.Views != nil {
		errs = append(errs, k.hand.Views.unmount())
		if err := os.Remove(StateFile(k.cfg.StateDir, k.hand.Views.Dir, "table")); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	k.unkeep()
	k.unlisten()
	delete(k.fds, fdTreeClaim) // closed with the claims
	delete(k.fds, fdViewsClaim)
	k.fds.close()
	for _, c := range k.claims {
		errs = append(errs, c.release())
	}
	return errors.Join(errs...)
}
