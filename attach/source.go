package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const cpuDir = "sys/devices/system/cpu"

// source is a view that is not mounted anywhere yet.
type source struct {
	name string // of the file that it goes over, in its directory
	fd   int    // -1: it has gone to its place, or nothing is to be changed
}

// sources are the views for one container.
type sources struct {
	proc []*source
	cpus *source   // the whole directory of the shared tree; nil where the files are put one by one
	cpu  []*source // in it, or each by itself
	tree *source   // for containers in the container
}

// openSources opens what is to be put: what the mount hook binds. From here on they are in nobody's mount namespace.
func openSources(plan *Plan) (*sources, error) {
	var s sources
	var err error
	if s.proc, err = openAll(plan, filepath.Join(plan.From, "proc")); err != nil {
		return nil, err
	}
	if s.tree, err = openSource(plan, "lxcfs", plan.Served.Tree.Dir); err != nil {
		return nil, err
	}
	cpus := filepath.Join(plan.From, cpuDir)
	// Own views have links to the shared tree, whose directory has everything, and files of their own that go over it.
	uevent, err := filepath.EvalSymlinks(filepath.Join(cpus, "uevent"))
	if errors.Is(err, os.ErrNotExist) { // the daemon's host has no such directory
		s.cpu, err = openAll(plan, cpus)
		return &s, err
	}
	if err != nil {
		return nil, err
	}
	if s.cpus, err = openSource(plan, "cpu", filepath.Dir(uevent)); err != nil || filepath.Dir(uevent) == cpus {
		return &s, err
	}
	for _, name := range []string{"online", "offline"} {
		one, err := openSource(plan, name, filepath.Join(cpus, name))
		if err != nil {
			return nil, err
		}
		s.cpu = append(s.cpu, one)
	}
	return &s, nil
}

func openAll(plan *Plan, dir string) ([]*source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []*source
	for _, e := range entries {
		s, err := openSource(plan, e.Name(), filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// openSource makes a mount of what is at path, which must be of the daemon.
func openSource(plan *Plan, name, path string) (*source, error) {
	if plan.Dry {
		return &source{name, -1}, nil
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	// The copy of a shared mount is its peer: what were mounted on it would be on the host's too.
	if err := makePrivate(fd); err != nil {
		return nil, &os.PathError{Op: "mount_setattr", Path: path, Err: err}
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return nil, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if d := fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor); d != plan.Served.Tree.Device && d != plan.Served.Views.Device {
		return nil, fmt.Errorf("%s is not of the daemon that serves it: something else has been mounted there", path)
	}
	return &source{name, fd}, nil
}

func makePrivate(fd int) error {
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
}
