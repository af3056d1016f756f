package kfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenTree is Open for a directory that is shown whole: its files are of its own mount, and no symbolic link in a name is followed (RESOLVE_NO_SYMLINKS).
func OpenTree(path string) (*Dir, error) {
	d, err := Open(path, true)
	if err == nil {
		d.how.Resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	return d, err
}

// Stat gives the attributes of the file name beneath d, of a symbolic link its own. It opens nothing that could block. The error is the bare errno.
func (d *Dir) Stat(b *Buffer, name string, st *unix.Stat_t) error {
	fd, errno := d.openAs(b, name, itself)
	if errno != 0 {
		return errno
	}
	defer unix.Close(fd)
	return unix.Fstat(fd, st)
}

// Target gives where the symbolic link name beneath d leads; EINVAL or ENOENT where it is none.
func (d *Dir) Target(b *Buffer, name string) (string, error) {
	fd, errno := d.openAs(b, name, itself)
	if errno != 0 {
		return "", errno
	}
	defer unix.Close(fd)
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", text)
	if err != nil {
		return "", err
	}
	return string(text[:n]), nil
}

// List gives the entries of the directory name beneath d in the kernel's order. The name and the type are all that is known of them: do not call Info.
func (d *Dir) List(b *Buffer, name string) ([]os.DirEntry, error) {
	fd, errno := d.openAs(b, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, errno
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	return dir.ReadDir(-1)
}

// itself opens a file or a link only to ask about it.
const itself = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC

func (d *Dir) openAs(b *Buffer, name string, flags uint64) (int, unix.Errno) {
	as := Dir{fd: d.fd, how: unix.OpenHow{Flags: flags, Resolve: d.how.Resolve}}
	return as.open(b, "", name)
}
