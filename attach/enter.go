package attach

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
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

// place is an open file or directory of the container's, and the mount that it is on.
type place struct {
	fd    int
	mount *mountinfo.Info
}

// open opens name in the directory at, without asking the file system that is mounted on it: only those it walks through are. No link is followed.
// The process's root is AT_FDCWD with no name.
func (w *work) open(at int, name string, resolve uint64) (p place, err error) {
	if name == "" {
		p.fd, err = unix.Openat(w.dir, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return p, fmt.Errorf("its root directory: %w", err)
		}
	} else {
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve | unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
		for range 16 { // EAGAIN: renames elsewhere unsettle RESOLVE_BENEATH
			if p.fd, err = unix.Openat2(at, name, &how); !errors.Is(err, unix.EAGAIN) {
				break
			}
		}
		if err != nil {
			return p, err
		}
	}
	p.mount, err = w.mountOf(p.fd)
	return p, err
}

// mountOf says which mount an open file is on. While it is open, the mount's number is no other's.
func (w *work) mountOf(fd int) (*mountinfo.Info, error) {
	info, err := readAt(w.fdinfo, strconv.Itoa(fd))
	if err != nil {
		return nil, fmt.Errorf("fdinfo: %w", err)
	}
	id := ""
	for line := range strings.Lines(string(info)) {
		if n, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id = strings.TrimSpace(n)
		}
	}
	text, err := readAt(w.dir, "mountinfo")
	if err != nil {
		return nil, fmt.Errorf("its mounts: %w", err)
	}
	mounts, err := parseMounts(text, func(line string) bool { return strings.HasPrefix(line, id+" ") })
	if err != nil {
		return nil, fmt.Errorf("its mounts: %w", err)
	}
	if id == "" || len(mounts) != 1 {
		return nil, errors.New("its mount is not among those of the container any more")
	}
	return mounts[0], nil
}

// mayChange says with an error that what is mounted on p's mount, or is taken off it, would be on the host too.
func (w *work) mayChange(p place) error {
	for tag := range strings.FieldsSeq(p.mount.Optional) {
		if group, ok := strings.CutPrefix(tag, "shared:"); ok && w.peers[group] {
			return fmt.Errorf("the mount on %s is shared with the host: what is put there would be on the host as well", p.mount.Mountpoint)
		}
	}
	return nil
}

// overProc puts the views over the files of /proc. It fails where nothing can be put.
func (w *work) overProc(root place, views *sources) error {
	proc, err := w.kernels(root, "proc", "proc")
	if err != nil {
		return err
	}
	for _, s := range views.proc {
		w.put(proc, s, "/proc", false)
	}
	return nil
}

// kernels opens the directory beneath the root where the container has the kernel's file system of that type.
func (w *work) kernels(root place, name, fstype string) (place, error) {
	p, err := w.open(root.fd, name, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return p, fmt.Errorf("its /%s is a symbolic link, which is not followed", name)
	case errors.Is(err, unix.ENOENT):
		return p, fmt.Errorf("it has no /%s", name)
	case errors.Is(err, unix.EACCES):
		return p, fmt.Errorf("its root file system does not let the host's root through to /%s: %w", name, err)
	case err != nil:
		return p, fmt.Errorf("its /%s: %w", name, err)
	}
	if p.mount.Mountpoint != "/"+name || p.mount.FSType != fstype || p.mount.Root != "/" {
		return p, fmt.Errorf("its /%s is not the kernel's, but of a file system of type %s: views are put over the kernel's files alone", name, p.mount.FSType)
	}
	return p, w.mayChange(p)
}

// overCPUs puts the views over the directory of CPUs. A container need not have one.
func (w *work) overCPUs(root place, views *sources) {
	const dir = "/" + cpuDir
	sys, err := w.kernels(root, "sys", "sysfs")
	if err != nil {
		w.skip(dir, err)
		return
	}
	system, err := w.open(sys.fd, "devices/system", unix.RESOLVE_NO_XDEV)
	if err != nil {
		w.skip(dir, err)
		return
	}
	cpu, err := w.open(system.fd, "cpu", 0)
	if err != nil {
		w.skip(dir, err)
		return
	}
	if views.cpus == nil {
		for _, s := range views.cpu {
			w.put(cpu, s, dir, false)
		}
		return
	}
	// LXCFS's files, where it has not got the whole directory, would be left behind beneath ours.
	single := w.singles(sys, cpu)
	if !w.put(system, views.cpus, path.Dir(dir), len(single) > 0) {
		return
	}
	for _, p := range single {
		if err := w.detach(p); err != nil {
			w.fail(p.mount.Mountpoint, err)
		}
	}
	if cpu, err = w.open(system.fd, "cpu", 0); err != nil || !w.plan.Served.has(cpu.mount) {
		w.fail(dir, errors.Join(errors.New("it was taken away again"), err))
		return
	}
	for _, s := range views.cpu {
		w.put(cpu, s, dir, false)
	}
}

// singles opens the views of others over single files of sysfs's directory of CPUs.
func (w *work) singles(sys, cpu place) (open []place) {
	if cpu.mount.ID != sys.mount.ID {
		return nil // a mount over the whole directory, whose server must not be asked
	}
	text, err := readAt(w.dir, "mountinfo")
	if err != nil {
		return nil
	}
	mounts, err := parseMounts(text, func(line string) bool { return strings.Contains(line, " /"+cpuDir+"/") })
	if err != nil {
		return nil
	}
	for _, m := range mounts {
		if m.FSType != fsType || w.plan.Served.has(m) || m.Parent != cpu.mount.ID || path.Dir(m.Mountpoint) != "/"+cpuDir {
			continue
		}
		if p, err := w.open(cpu.fd, path.Base(m.Mountpoint), 0); err == nil && p.mount.ID == m.ID {
			open = append(open, p)
		}
	}
	return open
}

// overTree puts the shared tree where the managers of containers in this container look for it, as the mount hook does: on a directory that is there.
func (w *work) overTree(root place, s *source) {
	lib, err := w.open(root.fd, "var/lib", unix.RESOLVE_NO_XDEV)
	if err != nil || w.mayChange(lib) != nil {
		return
	}
	dir, err := w.open(lib.fd, s.name, 0)
	if err != nil {
		return
	}
	// A container may have mounted one of its own there.
	if dir.mount.ID == lib.mount.ID || dir.mount.FSType == fsType && w.old[device(dir.mount)] {
		w.put(lib, s, "/var/lib", false)
	}
}

func (w *work) skip(path string, err error) { w.Skipped = append(w.Skipped, path+": "+err.Error()) }
func (w *work) fail(path string, err error) { w.Failed = append(w.Failed, path+": "+err.Error()) }

// record notes a path once: of what is in the directory of CPUs, the directory.
func record(list *[]string, path string) {
	if strings.HasPrefix(path, "/"+cpuDir+"/") {
		path = "/" + cpuDir
	}
	if !slices.Contains(*list, path) {
		*list = append(*list, path)
	}
}
