package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lensfs/fs/conn"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// fsName is what the mounts are called: "lxcfs DIR fuse.lxcfs" in /proc/mounts. LXC, util-linux, pam_cgfs and osctld's tests look for it.
const fsName = "lxcfs"

// mount mounts a file system on dir and agrees with the kernel on the protocol. Nothing that this process or its worker does later may touch a
// file beneath dir: it would wait for itself.
func mount(dir string) (m Mount, fd int, err error) {
	fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return m, -1, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	if m, err = mountFd(dir, fd); err != nil {
		return m, -1, errors.Join(err, unix.Close(fd))
	}
	if m.Agreed, err = conn.Initialize(fd); err != nil {
		return m, -1, errors.Join(fmt.Errorf("mount on %s: %w", dir, err), m.unmount(), unix.Close(fd))
	}
	return m, fd, nil
}

// mountFd mounts the connection behind fd. If it is mounted already, or was, that is the same file system once more.
func mountFd(dir string, fd int) (Mount, error) {
	// Read-only as a whole: writing fails in the kernel with EROFS, and reads do not make it ask for attributes anew (atime).
	// default_permissions: it checks the modes, without an ACCESS request. allow_other: containers are other users.
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", fd, conn.MaxRead)
	if err := unix.Mount(fsName, dir, "fuse."+fsName, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, options); err != nil {
		return Mount{}, fmt.Errorf("mount on %s: %w", dir, err)
	}
	top, err := topMount(dir)
	if err != nil || top == nil {
		return Mount{}, errors.Join(fmt.Errorf("mount on %s: it is not among the mounts of this process", dir), err, unix.Unmount(dir, unix.MNT_DETACH))
	}
	return Mount{Dir: dir, ID: top.ID, Device: deviceOf(top)}, nil
}

// remount sees to it that a file system that was taken over is on its directory. Somebody may have unmounted it (LXCFS's unit does, when it is stopped)
// while containers still have its files.
func (m *Mount) remount(fd int) error {
	top, err := topMount(m.Dir)
	if err != nil {
		return err
	}
	if top != nil && deviceOf(top) == m.Device {
		m.ID = top.ID // it may have been mounted again since the handover was written
		return nil
	}
	again, err := mountFd(m.Dir, fd)
	if err != nil {
		return err
	}
	m.ID, m.Device = again.ID, again.Device
	return nil
}

// unmount takes the mount off its directory, unless somebody has put another over it. Containers that still hold files of it find them dead.
func (m *Mount) unmount() error {
	top, err := topMount(m.Dir)
	if err != nil {
		return err
	}
	if top == nil || top.ID != m.ID {
		return nil // gone already, or not ours
	}
	if err := unix.Unmount(m.Dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", m.Dir, err)
	}
	return nil
}

// deviceOf gives the device number of a mount's file system, as a Mount has it.
func deviceOf(m *mountinfo.Info) string { return fmt.Sprintf("%d:%d", m.Major, m.Minor) }

// topMount gives the mount that is on dir now, nil if there is none. It reads a list: to look at the directory would be to ask its server.
func topMount(dir string) (*mountinfo.Info, error) {
	// One may be over another. The list begins with the lowest.
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != dir, false })
	if err != nil {
		return nil, fmt.Errorf("mounts of this process: %w", err)
	}
	if len(mounts) == 0 {
		return nil, nil
	}
	return mounts[len(mounts)-1], nil
}

// answers is how long a mount that we find may take to show that it lives.
const answers = 2 * time.Second

// clearDead makes dir ready to be mounted on. A FUSE mount whose server has died is taken off; one that lives is somebody's, and stays. ended is the
// device of one whose server is known to have died.
func clearDead(dir, ended string) error {
	for {
		top, err := topMount(dir)
		if err != nil {
			return err
		}
		if top == nil || !strings.HasPrefix(top.FSType, "fuse") {
			return nil
		}
		dead, silent := isDead(dir)
		if silent && ended == deviceOf(top) { // such numbers are used again, so another's would answer
			if err := abort(top.Minor); err != nil {
				return fmt.Errorf("%s is mounted by a lensfs that has ended, and whose connection the kernel does not end: %w", dir, err)
			}
			slog.Warn("the daemon before was killed, keeper and worker: its connection is ended, and what containers have of it is dead until they are started again", "dir", dir)
		} else if !dead {
			return fmt.Errorf("%s: a %s file system is mounted there already, and its server lives (is lxcfs running?): stop it, or choose another directory", dir, top.FSType)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount the dead file system on %s: %w", dir, err)
		}
	}
}

// abort ends a connection. A thread of its server that was killed may keep it open, see kill: then its readers would wait for ever. Its number is its
// device's (fs/fuse/control.c). The control file system is mounted nowhere that anybody sees: it need not be mounted by others.
func abort(number int) error {
	context, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return os.NewSyscallError("fsconfig", err)
	}
	root, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, fmt.Sprintf("%d/abort", number), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // it has ended
	}
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("1"))
	return os.NewSyscallError("write", err)
}

// isDead says whether the server of the file system on dir has ended, and whether it does not answer in time; then it is not known.
func isDead(dir string) (dead, silent bool) {
	done := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		done <- unix.Statfs(dir, &st)
	}()
	select {
	case err := <-done:
		return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED), false
	case <-time.After(answers):
		return false, true
	}
}

// mountDir gives the directory as /proc/self/mountinfo will name it. Its last part is not looked at: a dead or hung mount may be on it.
func mountDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(abs), 0o755); err != nil {
		return "", err
	}
	up, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(up, filepath.Base(abs)), nil
}
