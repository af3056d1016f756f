package attach

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

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
