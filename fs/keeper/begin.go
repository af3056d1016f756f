package keeper

import (
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"lensfs/fs/conn"

	"golang.org/x/sys/unix"
)

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
	for until := time.Now().Add(endLimit); errors.As(err, &taken) && taken.dir == k.cfg.Tree; err = k.claim() {
		if err = k.adopt(taken); err == nil || !taken.ending(err) || time.Now().After(until) {
			kept.close()
			return k, err
		}
		time.Sleep(endLimit / 1000)
	}
	if err != nil {
		kept.close()
		return nil, errors.Join(err, k.release())
	}
	if err := k.begin(kept); err != nil {
		return nil, errors.Join(err, k.release())
	}
	return k, nil
}

// endLimit is how long a worker without keeper may take to end when its connection has ended.
const endLimit = 5 * time.Second

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
	unprepared := p.link.Send(Message{Op: OpPrepare, Config: k.cfg.Worker, Nice: k.nice})
	// Meanwhile: Incus, which may start one for each instance, does not wait until it is ready, and what is mounted waits for the worker.
	if len(kept) == 0 {
		if err := k.mountAll(); err != nil {
			p.kill()
			return err
		}
	}
	if err := p.prepared(k.cfg.Worker, unprepared); err != nil {
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
	for _, c := range k.claims {
		if c.device = k.hand.Tree.Device; k.hand.Views != nil && c.dir == k.hand.Views.Dir {
			c.device = k.hand.Views.Device
		}
		if err := c.sign(); err != nil {
			return err
		}
	}
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
	tree, err := k.mountOne(k.cfg.Tree, FdTree, FdTreeRequests, k.claims[0].device)
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
	if err := remove(StateFile(k.cfg.StateDir, k.cfg.OwnViews, "table")); err != nil {
		return err // nodes of a connection that is no more
	}
	views, err := k.mountOne(k.cfg.OwnViews, FdViews, FdViewsRequests, k.claims[1].device)
	if err != nil {
		return k.spare(err)
	}
	k.hand.Views = &views
	return nil
}

// mountOne mounts on dir. ended is the device of the one who served it before, and has ended.
func (k *Keeper) mountOne(dir, name, requests, ended string) (Mount, error) {
	if err := clearDead(dir, ended); err != nil {
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
