package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// upgrade has a worker of the binary that is now on disk take over. The one before serves until the new one is ready, and its version again if the new one
// then does not serve: that is the error.
func (k *Keeper) upgrade() error {
	p, err := k.start(k.cfg.Program)
	if err != nil {
		return fmt.Errorf("%s: %w", k.cfg.Program, err)
	}
	p.mayHurry(false, k.nice)
	if err := p.prepare(k.cfg.Worker, k.nice); err != nil {
		return fmt.Errorf("%s: %w", k.cfg.Program, err)
	}
	return k.exchange(p)
}

// exchange has a worker that is prepared take the place of the present one. That is killed: what it has not answered is in the slots, and what the
// containers may not lose is in memory that stays. It would be no different if it ended well.
func (k *Keeper) exchange(p *process) error {
	p.mayHurry(true, k.nice)
	if old := k.worker; old != nil {
		k.worker = nil
		old.kill()
	}
	err := p.serve(k.hand, k.fds)
	if err == nil {
		err = p.settles()
	}
	if err != nil {
		k.launch()
		return err
	}
	k.worker, k.retry, k.quick, k.busy = p, nil, 0, map[uint64]time.Time{}
	slog.Info("upgraded", "version", p.Version, "pid", p.Pid)
	return nil
}

// settles waits whether the worker lives on.
func (p *process) settles() error {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	for {
		select {
		case _, ok := <-p.messages:
			if !ok {
				return fmt.Errorf("the new worker ended as soon as it served (%s)", p.kill())
			}
		case <-p.died:
			return fmt.Errorf("the new worker ended as soon as it served (%s)", p.kill())
		case <-timer.C:
			return nil
		}
	}
}

// envState tells a keeper that it has been one before it was executed anew. Its value is the descriptor of a state.
const envState = "LENSFS_KEEPER_STATE"

// state is what a keeper remembers over an exec.
type state struct {
	Handover    Handover
	Descriptors Descriptors
	Worker      Worker
	Link        int // descriptors
	Life        int
	Asker       int // who ordered the upgrade; 0: a signal did
	Started     time.Time
	Nice        int
	Restarts    int
	LastEnd     string
}

// execute makes this process one of the binary on disk. The worker and the descriptors remain; if it does not succeed, so does everything else.
//
// Whoever ordered it is told when all is done: what he does next, as to end the keeper by a signal, is then for the new image. (Go's runtime lets SIGTERM,
// SIGINT and SIGHUP through before a program can ask for them, however they were blocked, and they end it.)
func (k *Keeper) execute(asker *Link) {
	select {
	case <-k.done: // told to end meanwhile: the next image would not know
	default:
		err := k.tryExecute(asker)
		slog.Error("the keeper stays what it is; its worker is upgraded", "err", err)
	}
	if asker != nil {
		asker.Send(Message{Op: OpDone, Worker: &k.worker.Worker})
	}
}

// tryExecute comes back with an error, or not at all.
func (k *Keeper) tryExecute(asker *Link) error {
	link, err := k.worker.link.fd()
	if err != nil {
		return err
	}
	defer unix.Close(link)
	all := Descriptors{"link": link, fdLife: k.worker.life}
	if asker != nil {
		if all["asker"], err = asker.fd(); err != nil {
			return err
		}
		defer unix.Close(all["asker"])
	}
	text, err := json.Marshal(state{k.hand, k.fds, k.worker.Worker, link, k.worker.life, all["asker"], k.started, k.nice, k.restarts, k.lastEnd})
	if err != nil {
		return err
	}
	fd, err := memory("state", 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, text); err != nil {
		return err
	}
	all["state"] = fd
	for name, fd := range k.fds {
		all[name] = fd
	}
	if err := all.inherit(true); err != nil {
		return err
	}
	// Until the new image asks for these two, they would do what they do by default, and end it. Blocked ones wait. The thread that executes is the one
	// that is left.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var asked, before unix.Sigset_t
	for _, s := range []unix.Signal{upgradeSignal, toggleSignal} {
		asked.Val[0] |= 1 << (s - 1)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &asked, &before); err != nil {
		return err
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	// The new image starts as slowly as any program, and nobody waits for it. It hastens again when there is something to keep.
	unix.Setpriority(unix.PRIO_PROCESS, 0, k.nice)
	defer unix.Setpriority(unix.PRIO_PROCESS, 0, min(k.nice, hurry))
	env := append(os.Environ(), envState+"="+strconv.Itoa(fd))
	err = unix.Exec(k.cfg.Program, os.Args, env)
	all.inherit(false)
	return fmt.Errorf("execute %s: %w", k.cfg.Program, err)
}

// inherit has the descriptors pass an exec, or not.
func (d Descriptors) inherit(pass bool) error {
	flags := unix.FD_CLOEXEC
	if pass {
		flags = 0
	}
	for _, fd := range d {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags); err != nil {
			return err
		}
	}
	return nil
}

// goOn makes the keeper again what it was before the exec.
func (k *Keeper) goOn(where string) error {
	os.Unsetenv(envState)
	fd, err := strconv.Atoi(where)
	if err != nil {
		return fmt.Errorf("%s: %w", envState, err)
	}
	defer unix.Close(fd)
	text := make([]byte, 1<<20)
	n, err := unix.Pread(fd, text, 0)
	if err != nil {
		return fmt.Errorf("what the keeper was before: %w", err)
	}
	var s state
	if err := json.Unmarshal(text[:n], &s); err != nil {
		return fmt.Errorf("what the keeper was before: %w", err)
	}
	s.Descriptors.inherit(false)
	unix.CloseOnExec(s.Link)
	unix.CloseOnExec(s.Life)
	s.Descriptors[fdLife] = s.Life
	link, err := NewLink(s.Link)
	if err != nil {
		return err
	}
	k.started, k.nice, k.restarts, k.lastEnd = s.Started, s.Nice, s.Restarts, s.LastEnd
	if err := k.takeOver(s.Handover, s.Descriptors, s.Worker, link); err != nil || s.Asker == 0 {
		return err
	}
	asker, err := NewLink(s.Asker)
	if err != nil {
		return err
	}
	asker.Send(Message{Op: OpDone, Worker: &k.worker.Worker}) // he may have gone
	return asker.Close()
}

// takeOver becomes the keeper of a worker that serves.
func (k *Keeper) takeOver(h Handover, d Descriptors, w Worker, link *Link) error {
	if err := h.check(d); err != nil {
		return err
	}
	var err error
	k.hand, k.fds = h, d
	k.cfg.Tree, k.cfg.OwnViews, k.cfg.StateDir = h.Tree.Dir, "", h.StateDir
	claimed := map[string]Mount{fdTreeClaim: h.Tree}
	if h.Views != nil {
		k.cfg.OwnViews = h.Views.Dir
		claimed[fdViewsClaim] = *h.Views
	}
	for name, m := range claimed {
		if fd, ok := d[name]; ok {
			c, err := takenOver(k.cfg.StateDir, m, fd)
			if err != nil {
				return err
			}
			k.claims = append(k.claims, c)
		}
	}
	if k.listener, err = listenAgain(d[fdControl]); err != nil {
		return err
	}
	if k.worker, err = attach(w, link, d[fdLife]); err != nil {
		return err
	}
	unix.Close(d[fdLife])
	delete(d, fdLife)
	if err := k.remount(); err != nil {
		slog.Warn("what containers have goes on, but new ones find nothing", "err", err)
	}
	k.keep()
	return k.watch()
}

// remount sees to it that both mounts are where they belong.
func (k *Keeper) remount() error {
	err := k.hand.Tree.remount(k.fds[FdTree])
	if k.hand.Views != nil {
		err = errors.Join(err, k.hand.Views.remount(k.fds[FdViews]))
	}
	return err
}

// suits says whether a worker does what this keeper was told to have done, and is of its version.
func (k *Keeper) suits(w Worker) bool {
	return string(w.Config) == string(k.cfg.Worker) && w.Version == k.cfg.Version && sameProgram(w.Pid)
}

// sameProgram says whether a process runs the file that we do.
func sameProgram(pid int) bool {
	ours, err1 := os.Stat(ownProgram)
	theirs, err2 := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	return err1 == nil && err2 == nil && os.SameFile(ours, theirs)
}
