package attach

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Enter is the child of Attach: it carries out the plan that it reads from in, for the process whose directory in /proc is open as dir, and writes a
// Result. It leaves its thread in the container's mount namespace: the program must end then.
func Enter(in io.Reader, out io.Writer, dir *os.File) error {
	runtime.LockOSThread()
	w := &work{dir: int(dir.Fd())}
	if err := json.NewDecoder(in).Decode(&w.plan); err != nil {
		return fmt.Errorf("the plan: %w", err)
	}
	views, err := openSources(&w.plan)
	if err != nil {
		return fmt.Errorf("views: %w", err)
	}
	if err := w.enter(); err != nil {
		return err
	}
	root, err := w.open(unix.AT_FDCWD, "", 0)
	if err != nil {
		return err
	}
	if err := w.overProc(root, views); err != nil {
		return err
	}
	w.overCPUs(root, views)
	if len(w.Put)+len(w.Replaced) > 0 {
		w.overTree(root, views.tree)
	}
	return json.NewEncoder(out).Encode(w.Result)
}

// work is what Enter has open and has done.
type work struct {
	plan   Plan
	dir    int             // the process's directory in /proc
	fds    int             // /proc/self/fd of the host's /proc
	fdinfo int             // and /proc/self/fdinfo
	peers  map[string]bool // of the host's mounts: who mounts on a mount of one of these groups, mounts on the host's
	old    map[string]bool // devices of the views that were replaced
	Result
}

// enter goes into the mount namespace. What is needed of the host's has to be open by then.
func (w *work) enter() (err error) {
	if w.peers, err = hostPeers(); err != nil {
		return err
	}
	w.old = map[string]bool{}
	for dir, fd := range map[string]*int{"/proc/self/fd": &w.fds, "/proc/self/fdinfo": &w.fdinfo} {
		if *fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return &os.PathError{Op: "open", Path: dir, Err: err}
		}
	}
	ns, err := unix.Openat(w.dir, "ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("its mount namespace: %w", err)
	}
	defer unix.Close(ns)
	var its, ours unix.Stat_t
	if err := errors.Join(unix.Fstat(ns, &its), unix.Stat("/proc/self/ns/mnt", &ours)); err != nil {
		return fmt.Errorf("mount namespaces: %w", err)
	}
	if its.Ino == ours.Ino { // it was another when our parent looked
		return errors.New("its mount namespace is the host's")
	}
	// Go's threads share their root and working directories, with which none of them may change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter its mount namespace: %w", err)
	}
	// Magic links are followed from here: the container's own /proc may be anything.
	return os.NewSyscallError("fchdir", unix.Fchdir(w.fds))
}

// hostPeers gives the peer groups that the host's mounts belong to or receive from.
func hostPeers() (map[string]bool, error) {
	peers := map[string]bool{}
	for _, file := range []string{"/proc/1/mountinfo", "/proc/self/mountinfo"} {
		text, err := os.ReadFile(file)
		if errors.Is(err, unix.EACCES) && strings.HasPrefix(file, "/proc/1/") {
			continue // as in LookAtHost
		}
		if err != nil {
			return nil, err
		}
		mounts, err := parseMounts(text, func(string) bool { return true })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, m := range mounts {
			for tag := range strings.FieldsSeq(m.Optional) {
				if _, group, ok := strings.Cut(tag, ":"); ok {
					peers[group] = true
				}
			}
		}
	}
	return peers, nil
}
