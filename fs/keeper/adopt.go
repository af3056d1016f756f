package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// adopt becomes the keeper of a worker that has lost its own. taken is who has the directory, if that is not the case.
func (k *Keeper) adopt(taken *errTaken) error {
	h, d, w, link, err := askToAdopt(k.cfg.StateDir, k.cfg.Tree)
	if errors.Is(err, errNobody) {
		return taken
	}
	if err != nil {
		return fmt.Errorf("%w (%w)", taken, err)
	}
	if h.Tree.Dir != k.cfg.Tree || k.cfg.OwnViews != "" && h.Views == nil && !k.cfg.OwnSpare || h.Views != nil && h.Views.Dir != k.cfg.OwnViews {
		views := "none"
		if h.Views != nil {
			views = h.Views.Dir
		}
		d.close()
		link.Close() // its worker goes on alone
		return fmt.Errorf("worker %d, whose keeper has ended, serves %s and own views on %s: give the same --tree and --views, or end it with \"lensfs stop\"", w.Pid, h.Tree.Dir, views)
	}
	if hasEnded(h.Tree, d[FdTree]) {
		d.close()
		link.Close()
		return errEnded
	}
	wanted := k.cfg.Worker
	if err := k.takeOver(h, d, w, link); err != nil {
		return err
	}
	k.cfg.Worker = wanted
	slog.Info("took over from a keeper that has ended", "worker", w.Pid, "version", w.Version)
	if k.suits(w) {
		return nil
	}
	p, err := k.start(ownProgram)
	if err == nil {
		p.mayHurry(false, k.nice)
		if err = p.prepare(k.cfg.Worker, k.nice); err == nil {
			err = k.exchange(p)
		}
	}
	if err != nil {
		slog.Error("the worker stays what it is, with the flags that it has", "err", err)
	}
	return nil
}

// errEnded says that the kernel has ended the connection that a worker without keeper serves: it is about to end too.
var errEnded = errors.New("its connection has ended")

// hasEnded says whether the kernel has ended a connection. If somebody has taken its mount away, it may be about to: it is given a moment.
func hasEnded(m Mount, fd int) bool {
	moment := 0
	if top, err := topMount(m.Dir); err == nil && (top == nil || deviceOf(top) != m.Device) {
		moment = 100 // ms
	}
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, moment)
	return err == nil && n == 1 && p[0].Revents&unix.POLLERR != 0
}

// ending says whether the one who could not be adopted is a worker that is about to end: its keeper has.
func (e *errTaken) ending(err error) bool {
	if errors.Is(err, errEnded) {
		return true
	}
	pid, convErr := strconv.Atoi(e.pid)
	return convErr == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) && (errors.As(err, new(*errTaken)))
}

// errNobody says that no worker is to be adopted: there is a keeper, or neither.
var errNobody = errors.New("nobody to adopt")

// adoptLimit is how long a worker may take to give everything over; on a busy emulated machine two seconds were too few.
const adoptLimit = 8 * time.Second

// askToAdopt asks the one who serves dir to be adopted.
func askToAdopt(stateDir, dir string) (h Handover, d Descriptors, w Worker, link *Link, err error) {
	link, err = dial(stateDir, dir)
	if err != nil {
		return h, nil, w, nil, errNobody
	}
	m, fds, err := link.ask(Message{Op: opAdopt}, adoptLimit)
	if err == nil && (m.Handover == nil || m.Worker == nil) {
		err = errors.New("the answer has nothing in it")
	}
	if err == nil {
		h, w = *m.Handover, *m.Worker
		d, err = h.descriptors(fds)
	}
	if err != nil {
		link.Close()
		if m.Op == OpFailed {
			err = errNobody
		}
		return h, nil, w, nil, err
	}
	return h, d, w, link, nil
}

// dial connects to who serves dir.
func dial(stateDir, dir string) (*Link, error) {
	var c *net.UnixConn
	err := inDir(stateDir, func(path string) (err error) {
		c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(path, socketName(dir)), Net: "unix"})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Link{conn: c}, nil
}

// Orphan is what a worker does when its keeper has ended: it waits at the control socket for the next one, and gives the link to it. Nobody else is
// told more than that. life is the reading end of the pipe that ends with this process.
func Orphan(h Handover, d Descriptors, holder *Holder, life int, w Worker) (*Link, error) {
	for {
		fd, err := holder.next()
		if errors.Is(err, errEnd) {
			return nil, err
		}
		if err != nil { // no descriptors left, perhaps
			time.Sleep(pause)
			continue
		}
		link, m := greet(NewLink(fd))
		if link == nil {
			continue
		}
		if m.Op != opAdopt {
			link.Send(failed(errors.New("the keeper has ended, and its worker goes on alone: start \"lensfs serve\" again with the same flags")))
			link.Close()
			continue
		}
		if err := h.giveTo(link, d, holder, life, w); err != nil {
			link.Close()
			continue
		}
		return link, nil
	}
}

// giveTo gives the next keeper all that it needs.
func (h Handover) giveTo(link *Link, d Descriptors, holder *Holder, life int, w Worker) error {
	all, held, err := holder.with(d)
	if err != nil {
		return err
	}
	defer held.close()
	all[fdLife] = life
	full, fds := h.named(all)
	return link.Send(Message{Op: opAdopt, Handover: &full, Worker: &w}, fds...)
}

// ReceiveHandover reads a message from the keeper; with OpServe there are descriptors, which are named.
func ReceiveHandover(m Message, fds []int) (Handover, Descriptors, error) {
	if m.Handover == nil {
		return Handover{}, nil, errors.New("there is nothing to take over")
	}
	d, err := m.Handover.descriptors(fds)
	return *m.Handover, d, err
}
