package kfile

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Walker goes through a directory and all below it, breadth first. Its zero value is ready; it allocates no more once it has grown.
type Walker struct {
	paths   []byte // of the directories found so far, each ended by a zero byte
	next    int    // where in paths the next one begins
	room    int    // how many more are taken up
	Cut     bool   // some were left out
	stat    unix.Stat_t
	entries [4096]byte
}

// Start begins at dir. At most so many directories are visited, for whoever owns them may make them without end.
func (w *Walker) Start(dir string, most int) {
	w.paths = append(append(w.paths[:0], dir...), 0)
	w.next, w.room, w.Cut = 0, most-1, false
}

// Next gives the path of the next directory, beneath d, and has looked what directories are in it. It stands until the Next after.
// One that has gone in between, or is longer than a path can be, is given and has nothing in it.
func (w *Walker) Next(d *Dir, b *Buffer) (dir string, ok bool) {
	if w.next == len(w.paths) {
		return "", false
	}
	from := w.next
	length := bytes.IndexByte(w.paths[from:], 0)
	w.next += length + 1
	path := w.paths[from : from+length]
	dir = unsafe.String(unsafe.SliceData(path), length)
	w.list(d, b, dir)
	return dir, true
}

// list adds the directories within dir.
func (w *Walker) list(d *Dir, b *Buffer, dir string) {
	fd, errno := d.open(b, dir, "")
	if errno != 0 {
		return
	}
	defer unix.Close(fd)
	// kernfs counts a directory's sub-directories in its links: to know that there are none takes no listing of its 50 files.
	if err := unix.Fstat(fd, &w.stat); err == nil && w.stat.Nlink == 2 {
		return
	}
	for {
		n, err := unix.ReadDirent(fd, w.entries[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		// struct linux_dirent64, getdents64(2): the record's length is at 16, the type at 18, the name from 19 to a zero byte.
		for rest := w.entries[:n]; len(rest) > 19; {
			size := int(binary.NativeEndian.Uint16(rest[16:]))
			if size <= 19 || size > len(rest) {
				return
			}
			name, _, _ := bytes.Cut(rest[19:size], []byte{0})
			if rest[18] == unix.DT_DIR && string(name) != "." && string(name) != ".." {
				w.add(dir, name)
			}
			rest = rest[size:]
		}
	}
}

func (w *Walker) add(dir string, name []byte) {
	if w.room <= 0 || len(dir)+1+len(name) >= unix.PathMax {
		w.Cut = true
		return
	}
	w.room--
	w.paths = append(append(w.paths, dir...), '/')
	w.paths = append(append(w.paths, name...), 0)
}

// Task writes the name of a thread's own directory in /proc, "7/task/7". Like the text it stands until the next use.
func (b *Buffer) Task(tid uint32) string {
	name := strconv.AppendUint(b.digits[:0], uint64(tid), 10)
	digits := len(name)
	name = append(append(name, "/task/"...), name[:digits]...)
	return unsafe.String(&name[0], len(name))
}

// Head returns the beginning of the text of a file, at most so many bytes, and whether that is all of it. The text stands in b until its next use.
func (d *Dir) Head(b *Buffer, dir, name string, most int) (text []byte, all bool, err error) {
	fd, errno := d.open(b, dir, name)
	if errno != 0 {
		return nil, false, errno
	}
	defer rawClose(fd)
	b.text = b.text[:0]
	for {
		if len(b.text) == cap(b.text) {
			b.text = append(b.text, 0)[:len(b.text)]
		}
		n, err := rawRead(fd, b.text[len(b.text):min(cap(b.text), most)])
		if err == unix.EINTR {
			continue
		}
		if err != 0 {
			return nil, false, err
		}
		b.text = b.text[:len(b.text)+n]
		if n == 0 {
			return b.text, len(b.text) < most, nil
		}
	}
}
