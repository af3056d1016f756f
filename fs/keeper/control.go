package keeper

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// request is what somebody asks over the control socket. The answer goes to link, which is then closed.
type request struct {
	Message
	link *Link
}

// socketName is short, whatever the directory: a path in a socket's address has 107 bytes.
func socketName(dir string) string { return fmt.Sprintf("%x.sock", sha256.Sum256([]byte(dir)))[48:] }

// inDir calls f with a short path to dir.
func inDir(dir string, f func(path string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return f(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// listen makes the control socket, under a name for each directory: in the state directory, which is root's alone.
func (k *Keeper) listen() error {
	names := k.socketNames()
	if err := k.removeSockets(k.cfg.StateDir); err != nil {
		return err
	}
	err := inDir(k.cfg.StateDir, func(dir string) (err error) {
		k.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, names[0]), Net: "unix"})
		return err
	})
	if err != nil {
		return fmt.Errorf("control socket in %s: %w", k.cfg.StateDir, err)
	}
	k.listener.SetUnlinkOnClose(false) // its name is one that only we understand
	if len(names) > 1 {
		if err := os.Symlink(names[0], filepath.Join(k.cfg.StateDir, names[1])); err != nil {
			return err
		}
	}
	k.advertise()
	return k.ownListener()
}

// DefaultStateDir is where commands look which are told a directory of views alone.
const DefaultStateDir = "/run/lensfs.state"

// advertise makes the control socket known there too, if the state is kept elsewhere.
func (k *Keeper) advertise() {
	if k.cfg.StateDir == DefaultStateDir {
		return
	}
	err := os.MkdirAll(DefaultStateDir, 0o700)
	k.removeSockets(DefaultStateDir) // of one that served the same directory, and was killed
	names := k.socketNames()
	for _, name := range names {
		err = errors.Join(err, os.Symlink(filepath.Join(k.cfg.StateDir, names[0]), filepath.Join(DefaultStateDir, name)))
	}
	if err != nil {
		slog.Warn("commands have to be given --runtime-dir", "err", err)
	}
}

// conceal ends that.
func (k *Keeper) conceal() {
	if k.cfg.StateDir == DefaultStateDir {
		return
	}
	k.removeSockets(DefaultStateDir)
	os.Remove(DefaultStateDir) // fails while others are in it
}

// ownListener puts a copy of the listener's descriptor among those that are handed over.
func (k *Keeper) ownListener() error {
	raw, err := k.listener.SyscallConn()
	if err != nil {
		return err
	}
	var dupErr error
	err = raw.Control(func(fd uintptr) { k.fds[fdControl], dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	return errors.Join(err, dupErr)
}

func (k *Keeper) socketNames() []string {
	names := []string{socketName(k.hand.Tree.Dir)}
	if k.hand.Views != nil {
		names = append(names, socketName(k.hand.Views.Dir))
	}
	return names
}

// unlisten removes the control socket, if it is ours.
func (k *Keeper) unlisten() {
	if k.listener == nil {
		return
	}
	k.listener.Close()
	k.removeSockets(k.cfg.StateDir)
	k.conceal()
}

// removeSockets removes the names of the control socket from a directory, where they are in it.
func (k *Keeper) removeSockets(dir string) error {
	var errs []error
	for _, name := range k.socketNames() {
		errs = append(errs, remove(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// listenAgain makes a listener of a descriptor that was handed over.
func listenAgain(fd int) (*net.UnixListener, error) {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(copied), "control")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, errors.New("the control socket is not a Unix socket")
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

// greet hears what somebody asks who has connected. He may not be allowed to, or say nothing: then there is no link.
func greet(link *Link, err error) (*Link, Message) {
	if err != nil {
		return nil, Message{}
	}
	if err := link.ofRoot(); err != nil {
		link.Close()
		return nil, Message{}
	}
	link.conn.SetReadDeadline(time.Now().Add(sendLimit))
	m, fds, err := link.Receive()
	for _, fd := range fds {
		unix.Close(fd)
	}
	if err != nil {
		link.Close()
		return nil, Message{}
	}
	link.conn.SetReadDeadline(time.Time{})
	return link, m
}

// accept takes requests for Run to answer, until the listener is closed.
func (k *Keeper) accept() {
	for {
		c, err := k.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors left, perhaps
			time.Sleep(pause)
			continue
		}
		if link, m := greet(&Link{conn: c}, nil); link != nil {
			k.requests <- request{m, link}
		}
	}
}

// do answers a request. Its end is the keeper's.
func (k *Keeper) do(r request) (end bool, err error) {
	defer r.link.Close()
	switch r.Op {
	case OpStatus:
		r.link.Send(k.status())
	case OpView:
		r.link.Send(k.view(r.Message))
	case opUpgrade:
		if err := k.upgrade(); err != nil {
			slog.Error("the upgrade failed: the version before goes on", "err", err)
			r.link.Send(failed(err))
			return false, nil
		}
		k.execute(r.link)
	case opStop:
		if err := k.mayStop(r.Force); err != nil {
			r.link.Send(failed(err))
			return false, nil
		}
		slog.Info("ending: told to by a command")
		err := k.Close()
		if err != nil {
			r.link.Send(failed(err))
		} else {
			r.link.Send(Message{Op: OpDone})
		}
		return true, err
	case opAdopt:
		r.link.Send(failed(&errTaken{k.hand.Tree.Dir, fmt.Sprint(os.Getpid())}))
	default:
		r.link.Send(failed(fmt.Errorf("%q is not known here: is the command of another version?", r.Op)))
	}
	return false, nil
}

func failed(err error) Message { return Message{Op: OpFailed, Error: err.Error()} }

// mayStop says with an error why not to end now.
func (k *Keeper) mayStop(force bool) error {
	users, err := k.users()
	if force || err == nil && users == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("whether containers use the views cannot be seen (%w): give --force to end all the same", err)
	}
	return fmt.Errorf("%d %s the views: their files would be dead until they are started again; end those first, or give --force",
		users, map[bool]string{true: "container still uses", false: "containers still use"}[users == 1])
}
