package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// opened is memory in which what readers of the shared tree have seen outlives the daemon: whoever has read a text to its end is to find the end there,
// and whoever is in the middle of one is to get the rest of it. The texts are in a file of their own, each at the place of its handle.
//
//	header   magic, entries ever used, handles ever given      one page
//	entry    handle's number (0: free), size of its text and whether that is kept
type opened struct {
	mem   []byte
	texts int // descriptor
	free  []uint32
}

const (
	openedMagic = 0x316e706f736e6c // "lnsopn1"
	entryBytes  = 16
	// entryBits is for how many files that are open at a time there is room. What is opened beyond it, nothing is remembered of.
	entryBits = 18
	// OpenedBytes is the size of the memory.
	OpenedBytes = pageSize + entryBytes<<entryBits
	// maxText is the longest text that is kept for a reader who is in the middle of it. A host of a thousand CPUs has a cpuinfo of about 1.5 MB.
	maxText = 2 << 20
)

// openOpened maps the memory behind fd, all zero at the first time, and takes the file behind texts.
func openOpened(fd, texts int) (*opened, error) {
	mem, err := unix.Mmap(fd, 0, OpenedBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("memory of open files: %w", err)
	}
	o := &opened{mem: mem, texts: texts}
	switch binary.NativeEndian.Uint64(mem) {
	case openedMagic:
	case 0:
		binary.NativeEndian.PutUint64(mem, openedMagic)
	default:
		return nil, errors.New("memory of open files: its layout is not known to this version")
	}
	for n := uint32(o.used().Load()); n > 0; n-- {
		if o.at(n-1).fh().Load() == 0 {
			o.free = append(o.free, n-1)
		}
	}
	return o, nil
}

func (o *opened) used() *atomic.Uint64  { return (*atomic.Uint64)(unsafe.Pointer(&o.mem[8])) }
func (o *opened) given() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&o.mem[16])) }

type entry []byte

func (o *opened) at(n uint32) entry {
	begin := pageSize + int(n)*entryBytes
	return entry(o.mem[begin : begin+entryBytes : begin+entryBytes])
}

func (e entry) fh() *atomic.Uint64    { return (*atomic.Uint64)(unsafe.Pointer(&e[0])) }
func (e entry) state() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&e[8])) }

const entryKept = 1 << 63

// add gives the number of a new handle: where its entry is, and above that a number of its own, so that a RELEASE which comes twice is
// nobody else's. The caller is the only one.
func (o *opened) add() uint64 {
	n, number := uint32(0), o.given().Add(1)<<entryBits
	switch used := o.used().Load(); {
	case len(o.free) > 0:
		n = o.free[len(o.free)-1]
		o.free = o.free[:len(o.free)-1]
	case used < 1<<entryBits-1:
		n = uint32(used)
		o.used().Store(used + 1)
	default:
		return number | (1<<entryBits - 1) // that of no entry
	}
	fh := number | uint64(n)
	e := o.at(n)
	e.state().Store(0)
	e.fh().Store(fh)
	return fh
}

// entry gives a handle's, nil if it has none.
func (o *opened) entry(fh uint64) entry {
	if o == nil {
		return nil
	}
	if e := o.at(uint32(fh & (1<<entryBits - 1))); e.fh().Load() == fh {
		return e
	}
	return nil
}

// release frees a handle's entry. The caller is the only one.
func (o *opened) release(fh uint64) {
	e := o.entry(fh)
	if e == nil {
		return
	}
	if e.state().Load()&entryKept != 0 {
		o.drop(fh)
	}
	e.fh().Store(0)
	o.free = append(o.free, uint32(fh&(1<<entryBits-1)))
}

// begun writes down that a reader has got the beginning of a text, and with more the text, of which he has not seen the end.
func (o *opened) begun(fh uint64, text []byte, more bool) {
	e := o.entry(fh)
	if e == nil {
		return
	}
	state := uint64(len(text))
	if more && len(text) <= maxText {
		if e.state().Load() != 0 {
			e.state().Store(0)
		}
		if n, err := unix.Pwrite(o.texts, text, o.place(fh)); n == len(text) && err == nil {
			state |= entryKept
		}
	} else if e.state().Load()&entryKept != 0 {
		o.drop(fh)
	}
	e.state().Store(state)
}

// ended writes down that a reader has seen the end of his text.
func (o *opened) ended(fh uint64) {
	e := o.entry(fh)
	if e == nil || e.state().Load()&entryKept == 0 {
		return
	}
	e.state().Store(e.state().Load() &^ entryKept)
	o.drop(fh)
}

// seen gives what a reader saw of a text before we came: its size, 0 for none, and all of it if he is in the middle of it.
func (o *opened) seen(fh uint64) (size int, text []byte) {
	e := o.entry(fh)
	if e == nil {
		return 0, nil
	}
	state := e.state().Load()
	size = int(state &^ entryKept)
	if state&entryKept == 0 || size > maxText {
		return size, nil
	}
	text = make([]byte, size)
	if n, err := unix.Pread(o.texts, text, o.place(fh)); n != size || err != nil {
		return size, nil
	}
	return size, text
}

func (o *opened) place(fh uint64) int64 { return int64(fh&(1<<entryBits-1)) * maxText }

// drop gives the memory of a text back.
func (o *opened) drop(fh uint64) {
	unix.Fallocate(o.texts, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, o.place(fh), maxText)
}
