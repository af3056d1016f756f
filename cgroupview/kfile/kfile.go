// Package kfile reads the small text files of /proc, /sys and cgroupfs.
//
// It does what os.ReadFile does for them at a fraction of the cost: os.Open tries to put every file into the runtime's epoll,
// io.ReadAll asks a 1500-byte meminfo four times, and what is read often stays open. Nothing here allocates once its Buffer has grown.
//
// Paths come, in part, from the kernel's description of other people's processes. They are always resolved beneath an
// open directory (openat2, Linux 5.6, RESOLVE_BENEATH) and never through a magic link.
package kfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Dir is an open directory. Names given to its methods never leave it.
type Dir struct {
	fd   int
	path string // for error messages and OpenDir
	how  unix.OpenHow
	kept *kept // nil: every file is opened each time
}

// Open opens the directory at path. With sameMount its files must be of its own mount: a file that something else has been
// mounted over gives EXDEV.
func Open(path string, sameMount bool) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	d := &Dir{fd: fd, path: path}
	d.how = unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	if sameMount {
		d.how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	d.kept = newKept(fd)
	return d, nil
}

// Close closes the directory and what is kept open of it.
func (d *Dir) Close() error {
	if d.kept != nil {
		d.kept.close(func(string, *keptFile) bool { return true })
	}
	return unix.Close(d.fd)
}

// Path is the path d was opened by.
func (d *Dir) Path() string { return d.path }

// Buffer holds a path while a file is opened and then its text. Its zero value is ready; it is not for concurrent use.
type Buffer struct {
	path   []byte
	text   []byte
	name   []byte
	digits [26]byte // of "4294967295/task/4294967295"
}

// Pid writes the name of a process's directory in /proc. Like the text it stands until the next use.
func (b *Buffer) Pid(pid uint32) string {
	digits := strconv.AppendUint(b.digits[:0], uint64(pid), 10)
	return unsafe.String(&digits[0], len(digits))
}

// Numbered writes a directory's name that ends in a number, as in "cpu12". It stands until the next use.
func (b *Buffer) Numbered(prefix string, n int) string {
	b.name = strconv.AppendInt(append(b.name[:0], prefix...), int64(n), 10)
	return unsafe.String(&b.name[0], len(b.name))
}

var buffers = sync.Pool{New: func() any { return &Buffer{path: make([]byte, 0, 512), text: make([]byte, 0, 4096)} }}

// GetBuffer lends a Buffer; give it back with Put.
func GetBuffer() *Buffer { return buffers.Get().(*Buffer) }

// Put gives the buffer back. What was read into it is gone then.
func (b *Buffer) Put() {
	if cap(b.text) > 1<<20 {
		return // one huge file must not pin its memory for good
	}
	buffers.Put(b)
}

// maxText bounds what one file may hold: twice the cpuinfo of the 8192 CPUs that a kernel can be built for.
const maxText = 32 << 20

// shortText is a length at which a read(2) that gives less than asked has given all. The kernel's sequence files give whole records of at most a
// page together, so only one whose next record is longer than this could have more; those that Read is for have one, or numbers.
const shortText = 2048

// Read returns the text of the file name in the directory dir (which may be empty) beneath d. The text stands in b until its next use.
// It is for files of short records, and saves them the read(2) that finds the end; Append is for all.
// The error is the bare errno, for the caller knows the subject: ENOENT and ENODEV for a cgroup that has gone, ESRCH for such a process.
func (d *Dir) Read(b *Buffer, dir, name string) ([]byte, error) {
	var err error
	b.text, err = d.read(b, b.text[:0], dir, name, shortText)
	if err != nil {
		b.text = b.text[:0]
	}
	return b.text, err
}

// Append appends the text of the file to dst. It uses b for the path only.
func (d *Dir) Append(b *Buffer, dst []byte, dir, name string) ([]byte, error) {
	text, err := d.read(b, dst, dir, name, 0)
	if err != nil {
		return dst, err
	}
	return text, nil
}

func (d *Dir) read(b *Buffer, dst []byte, dir, name string, short int) ([]byte, error) {
	keeps := d.keeps(dir, name)
	if keeps {
		b.join(dir, name)
		if f := d.kept.get(b.path); f != nil {
			text, errno := readAll(int(f.fd), dst, short)
			if errno == 0 {
				f.mu.Unlock()
				return text, nil
			}
			d.kept.drop(b.path, f) // the group has gone; there may be another in its place
		}
	}
	fd, errno := d.open(b, dir, name)
	if errno != 0 {
		return dst, errno
	}
	text, errno := readAll(fd, dst, short)
	if errno != 0 || !keeps || !d.kept.add(b.path, fd) {
		rawClose(fd)
	}
	if errno != 0 {
		return dst, errno
	}
	return text, nil
}

// readAll appends the text of an open file to dst. Where its position is does not matter.
func readAll(fd int, dst []byte, short int) ([]byte, unix.Errno) {
	start := len(dst)
	for {
		if len(dst) == cap(dst) {
			if len(dst)-start > maxText {
				return dst[:start], unix.EFBIG
			}
			dst = append(dst, 0)[:len(dst)]
		}
		// A seq_file that is read where the last read ended goes on there, and begins anew at 0; one that gives everything at once (meminfo, memory.stat)
		// is asked for its end once.
		n, err := rawPread(fd, dst[len(dst):cap(dst)], len(dst)-start)
		if err == unix.EINTR {
			continue
		}
		if err != 0 {
			return dst[:start], err
		}
		if n == 0 {
			return dst, 0
		}
		full := n == cap(dst)-len(dst)
		dst = dst[:len(dst)+n]
		if !full && len(dst)-start <= short {
			return dst, 0
		}
	}
}

// Readlink returns the target of the symbolic link name in dir beneath d, in b's text.
// dir must not hold links itself: readlinkat(2) has no RESOLVE_BENEATH. Callers pass directories they made from numbers.
func (d *Dir) Readlink(b *Buffer, dir, name string) ([]byte, error) {
	b.join(dir, name)
	b.text = b.text[:cap(b.text)]
	if len(b.text) < 64 {
		b.text = make([]byte, 256)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(d.fd), uintptr(unsafe.Pointer(&b.path[0])), uintptr(unsafe.Pointer(&b.text[0])), uintptr(len(b.text)), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	b.text = b.text[:n]
	return b.text, nil
}

// Exists says whether dir is there. An error other than its absence counts as there.
func (d *Dir) Exists(b *Buffer, dir string) bool {
	fd, errno := d.open(b, dir, "")
	if errno == 0 {
		rawClose(fd)
		return true
	}
	return errno != unix.ENOENT && errno != unix.ENODEV
}

// OpenFile opens name in dir beneath d for the caller to use and close; the error names the file.
func (d *Dir) OpenFile(dir, name string) (int, error) {
	var b Buffer
	fd, errno := d.open(&b, dir, name)
	if errno != 0 {
		return -1, &os.PathError{Op: "open", Path: filepath.Join(d.path, dir, name), Err: errno}
	}
	return fd, nil
}

// Wrap gives err the name of the file as its subject.
func (d *Dir) Wrap(err error, dir, name string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", filepath.Join(d.path, dir, name), err)
}

func (d *Dir) open(b *Buffer, dir, name string) (int, unix.Errno) {
	b.join(dir, name)
	for try := 0; ; try++ {
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT2, uintptr(d.fd), uintptr(unsafe.Pointer(&b.path[0])), uintptr(unsafe.Pointer(&d.how)), unsafe.Sizeof(d.how), 0, 0)
		// EAGAIN: a rename may unsettle RESOLVE_BENEATH; openat2(2) says to try again. Not for ever: others may rename in a loop.
		if errno == unix.EINTR || errno == unix.EAGAIN && try < 16 {
			continue
		}
		return int(fd), errno
	}
}

// join puts dir/name, ended by a zero byte, into b.path. A leading slash goes away: everything is beneath the directory.
func (b *Buffer) join(dir, name string) {
	for len(dir) > 0 && dir[0] == '/' {
		dir = dir[1:]
	}
	b.path = append(b.path[:0], dir...)
	if len(dir) > 0 && len(name) > 0 {
		b.path = append(b.path, '/')
	}
	b.path = append(b.path, name...)
	if len(b.path) == 0 {
		b.path = append(b.path, '.')
	}
	b.path = append(b.path, 0)
}
