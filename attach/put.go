package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// layers is how many mounts over each other are taken off a file.
const layers = 32

// moveMountBeneath puts a mount under the one on the target: MOVE_MOUNT_BENEATH, Linux 6.5.
const moveMountBeneath = 0x200

// put puts a view over its namesake in a directory, dir by name, in place of LXCFS's or a dead one, and says whether it has. Nothing is done where a
// living one of the daemon's is. replaced says that it comes in the place of others also when none is found on it. Each turn of its loop looks anew: the
// container may be changing its mounts at the same time.
func (w *work) put(in place, s *source, dir string, replaced bool) (done bool) {
	path, moved := filepath.Join(dir, s.name), false
	for range layers {
		at, err := w.open(in.fd, s.name, 0)
		if errors.Is(err, unix.ENOENT) {
			return false // the container has no such file
		}
		if err != nil {
			w.fail(path, err)
			return false
		}
		switch old := at.mount.FSType == fsType && at.mount.ID != in.mount.ID; {
		case old && w.plan.Served.has(at.mount):
			unix.Close(at.fd)
			switch {
			case !moved:
				record(&w.Kept, path)
			case replaced:
				record(&w.Replaced, path)
			default:
				record(&w.Put, path)
			}
			return moved
		case at.mount.ID != in.mount.ID && !old:
			unix.Close(at.fd)
			w.skip(path, fmt.Errorf("left alone, since a file system of type %s is mounted on it", at.mount.FSType))
			return false
		case w.plan.Dry && (old || replaced):
			record(&w.Replaced, path)
			return false
		case w.plan.Dry:
			record(&w.Put, path)
			return false
		case old:
			err = w.replace(in, at, s, &moved)
			replaced = true
		case moved:
			err = errors.New("it was taken away again while it was being put there")
		default:
			err = w.move(s, at, 0)
			moved = true
		}
		unix.Close(at.fd)
		if err != nil {
			w.fail(path, err)
			return false
		}
	}
	w.fail(path, fmt.Errorf("more than %d mounts lie over each other there", layers))
	return false
}

// replace takes the view of another off, and sees to it that nobody reads the kernel's own file meanwhile, if the kernel can help with that.
func (w *work) replace(in, at place, s *source, moved *bool) error {
	w.old[device(at.mount)] = true
	if !*moved && at.mount.Parent == in.mount.ID && w.move(s, at, moveMountBeneath) == nil {
		*moved = true
	}
	err := w.detach(at)
	if !errors.Is(err, unix.EINVAL) || *moved {
		return err
	}
	// Locked: the container was made with a user namespace by somebody who had it already. It is covered instead.
	*moved = true
	return w.move(s, at, 0)
}

// move puts the view in its place.
func (w *work) move(s *source, to place, how int) error {
	const both = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	return os.NewSyscallError("move_mount", unix.MoveMount(s.fd, "", to.fd, "", both|how))
}

// detach takes a mount off, without asking its server. What it has of mounts on it goes with it, from this container alone.
func (w *work) detach(p place) error {
	if err := makePrivate(p.fd); err != nil {
		return os.NewSyscallError("mount_setattr", err)
	}
	return os.NewSyscallError("umount2", unix.Unmount(strconv.Itoa(p.fd), unix.MNT_DETACH))
}
