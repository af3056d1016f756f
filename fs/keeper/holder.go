package keeper

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Holder is a thread of a worker that holds what has to end with it at once: the pipe by which its keeper knows that it lives, the claims, and the
// control socket.
//
// A worker that is killed may have a thread that waits in the kernel for the answer of the next worker, see kill. As long as there is that thread, the
// process has not ended, and its descriptors are open: neither its end of the link nor its pidfd tells that it is no more, and if its keeper is
// killed with it, the directories would be claimed for ever by nobody. The holder waits for nothing of the kind, so it dies at once; and its table of
// descriptors, which is its own, with it.
type Holder struct {
	pair  int      // a socket whose other end is the thread's
	names []string // of what it holds, in its order
}

// What a holder is told to do.
const (
	holdThese = 'h' // hold the descriptors that come with it
	takeNext  = 'a' // take the next connection from the control socket, which is the first of them, and give it
	giveAll   = 'g' // give copies of all
)

// NewHolder makes a thread that holds life, the writing end of a pipe. It is to be called before there are many descriptors. What Go's runtime has to say
// when it ends the process goes to stderr, also from this thread.
func NewHolder(life, stderr int) (*Holder, error) {
	if err := startPoller(); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	alone := make(chan error, 1)
	go hold([]int{life, pair[1]}, stderr, alone)
	err = <-alone
	unix.Close(life)
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	return &Holder{pair: pair[0]}, nil
}

// hold is the thread.
func hold(own []int, stderr int, alone chan<- error) {
	runtime.LockOSThread() // for good: this thread is of use for nothing else
	if unix.Gettid() == os.Getpid() {
		// Not the first one: what /proc/self/fd shows are its descriptors.
		again := make(chan error, 1)
		go hold(own, stderr, again)
		err := <-again
		runtime.UnlockOSThread()
		alone <- err
		return
	}
	if err := unshareAll(own, stderr); err != nil {
		alone <- err
		return
	}
	alone <- nil
	var held []int
	for pair := own[1]; ; {
		op, fds, err := receiveFds(pair)
		if err == nil && op == holdThese {
			held, err = append(held, fds...), sendFds(pair, op)
		} else if err == nil && op == takeNext && len(held) > 0 {
			err = passNext(pair, held[0])
		} else if err == nil && op == giveAll {
			err = sendFds(pair, op, held...)
		}
		if err != nil {
			select {} // the other end has gone: the process ends
		}
	}
}

// passNext takes a connection from the control socket and gives it to the other end.
func passNext(pair, control int) error {
	unix.Poll([]unix.PollFd{{Fd: int32(control), Events: unix.POLLIN}}, -1) // it does not block, and who came may have gone
	fd, _, err := unix.Accept4(control, unix.SOCK_CLOEXEC)
	if err != nil {
		return sendFds(pair, takeNext) // with nothing: it may be asked again
	}
	defer unix.Close(fd)
	return sendFds(pair, takeNext, fd)
}

// unshareAll gives the thread a table of descriptors of its own: these, stderr in its place, and those of the runtime's poller. Any thread that starts a
// collection of garbage looks at the poller when the others go on (startTheWorldWithSema), and ends the process if it is not there.
func unshareAll(own []int, stderr int) error {
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if stderr != 2 {
		if err := unix.Dup3(stderr, 2, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	const dir = "/proc/thread-self/fd"
	open, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range open {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd == 2 || slices.Contains(own, fd) {
			continue
		}
		if what, _ := os.Readlink(filepath.Join(dir, e.Name())); what != "anon_inode:[eventpoll]" && what != "anon_inode:[eventfd]" {
			unix.Close(fd)
		}
	}
	return nil
}

// startPoller has Go's runtime make the descriptors of its poller, which it does for the first file that can be polled.
func startPoller() error {
	r, w, err := os.Pipe()
	return errors.Join(err, r.Close(), w.Close())
}

// Hold has the thread hold the claims and the control socket among the descriptors, and takes them out.
func (h *Holder) Hold(d Descriptors) error {
	h.names = nil
	var fds []int
	for _, name := range []string{fdControl, fdTreeClaim, fdViewsClaim} {
		if fd, ok := d[name]; ok {
			h.names, fds = append(h.names, name), append(fds, fd)
		}
	}
	if _, err := h.ask(holdThese, fds...); err != nil {
		return fmt.Errorf("hold the claims: %w", err)
	}
	for i, name := range h.names {
		unix.Close(fds[i])
		delete(d, name)
	}
	return nil
}

// next waits for somebody to connect to the control socket, and gives his descriptor.
func (h *Holder) next() (int, error) {
	fds, err := h.ask(takeNext)
	if err == nil && len(fds) != 1 {
		err = errors.New("nobody came")
	}
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// with gives d with copies of what the thread holds; held is these alone.
func (h *Holder) with(d Descriptors) (all, held Descriptors, err error) {
	fds, err := h.ask(giveAll)
	if err != nil {
		return nil, nil, err
	}
	all, held = maps.Clone(d), Descriptors{}
	for i, fd := range fds {
		all[h.names[i]], held[h.names[i]] = fd, fd
	}
	return all, held, nil
}

// ask tells the thread what to do, and waits for what it gives.
func (h *Holder) ask(op byte, fds ...int) ([]int, error) {
	if err := sendFds(h.pair, op, fds...); err != nil {
		return nil, err
	}
	_, fds, err := receiveFds(h.pair)
	return fds, err
}

func sendFds(socket int, op byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(socket, []byte{op}, rights, nil, unix.MSG_NOSIGNAL)
}

func receiveFds(socket int) (op byte, fds []int, err error) {
	text, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*maxFds))
	for {
		n, oobn, _, _, err := unix.Recvmsg(socket, text, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, nil, os.NewSyscallError("recvmsg", err)
		case n == 0:
			return 0, nil, errEnd
		case oobn == 0:
			return text[0], nil, nil
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return 0, nil, err
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		return text[0], fds, err
	}
}

// watchLife closes died when the pipe behind fd, which it takes over, has lost its writing end.
func watchLife(fd int, died chan<- struct{}) {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			break
		}
	}
	unix.Close(fd)
	close(died)
}
