package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"lensfs/cgroupview"

	"golang.org/x/sys/unix"
)

// table is the file in which the meaning of node numbers outlives the daemon: which container has which number, what it is called, what the kernel
// remembers of it. It is mapped, and lies in /run:
//
//	header   magic, last number given     one page
//	chunk    chunkSlots slots             whole pages
//
// A number is written last, and erased first: a daemon that is killed leaves a slot that is somebody's whole, or nobody's.
type table struct {
	file   *os.File
	header []byte
	chunks [][]byte
	free   []tableSlot
	used   map[uint64]tableSlot // by number
}

// tableSlot is a container's place in the table:
//
//	number (0: free), ID, lookups     five uint64
//	sizes                             maxNumber uint32, what the kernel was last told of each file
//	name                              one byte of length, and as many as there are
type tableSlot []byte

const (
	tableMagic  = 0x326c626174736e6c // "lnstabl2"
	slotSizes   = 5 * 8
	slotName    = slotSizes + 4*maxNumber
	maxSlotName = 255 // NAME_MAX: it is a directory's
	slotBytes   = 448 // a multiple of 64, so that a chunk is one of pages
)

// openTable opens the table at path, and tells of each container in it.
func openTable(path string, known func(tableSlot)) (*table, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	t := &table{file: file, used: map[uint64]tableSlot{}}
	if err := t.read(known); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), t.close())
	}
	return t, nil
}

func (t *table) read(known func(tableSlot)) error {
	st, err := t.file.Stat()
	if err != nil {
		return err
	}
	if st.Size() == 0 {
		if err := unix.Fallocate(int(t.file.Fd()), 0, 0, pageSize); err != nil {
			return err
		}
	} else if st.Size() < pageSize {
		return errNoTable
	}
	if t.header, err = t.mapped(0, pageSize); err != nil {
		return err
	}
	switch binary.NativeEndian.Uint64(t.header) {
	case tableMagic:
	case 0:
		binary.NativeEndian.PutUint64(t.header, tableMagic)
	default:
		return errNoTable
	}
	for at := int64(pageSize); at+chunkSlots*slotBytes <= st.Size(); at += chunkSlots * slotBytes {
		if err := t.mapChunk(at, known); err != nil {
			return err
		}
	}
	return nil
}

var errNoTable = errors.New("not a table of containers that this version knows")

func (t *table) mapped(at int64, size int) ([]byte, error) {
	return unix.Mmap(int(t.file.Fd()), at, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func (t *table) mapChunk(at int64, known func(tableSlot)) error {
	chunk, err := t.mapped(at, chunkSlots*slotBytes)
	if err != nil {
		return err
	}
	t.chunks = append(t.chunks, chunk)
	for i := chunkSlots - 1; i >= 0; i-- { // the first is taken first
		s := tableSlot(chunk[i*slotBytes : (i+1)*slotBytes : (i+1)*slotBytes])
		number := s.number().Load()
		if number == 0 {
			t.free = append(t.free, s)
			continue
		}
		t.used[number] = s
		t.last().Store(max(t.last().Load(), number))
		known(s)
	}
	return nil
}

// last is the last number given.
func (t *table) last() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&t.header[8])) }

// put writes a container down under a new number, before anybody is told of it.
func (t *table) put(number uint64, id cgroupview.ID, name string) (tableSlot, error) {
	if len(name) > maxSlotName {
		return nil, fmt.Errorf("%q: longer than a file's name can be", name)
	}
	if len(t.free) == 0 {
		if err := t.grow(); err != nil {
			return nil, err
		}
	}
	s := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	clear(s[8:])
	for i, n := range [...]uint64{id.Namespace, id.Start, uint64(id.Init)} {
		binary.NativeEndian.PutUint64(s[8+8*i:], n)
	}
	s[slotName] = byte(len(name))
	copy(s[slotName+1:], name)
	t.last().Store(max(t.last().Load(), number))
	s.number().Store(number)
	t.used[number] = s
	return s, nil
}

func (t *table) grow() error {
	st, err := t.file.Stat()
	if err != nil {
		return err
	}
	// Allocated, not only made longer: a full /run is an error here, and would be a SIGBUS at the first write to the memory.
	if err := unix.Fallocate(int(t.file.Fd()), 0, st.Size(), chunkSlots*slotBytes); err != nil {
		return err
	}
	return t.mapChunk(st.Size(), func(tableSlot) {})
}

// remove frees a number's slot. The number itself is not given again.
func (t *table) remove(number uint64) {
	if s, ok := t.used[number]; ok {
		delete(t.used, number)
		s.number().Store(0)
		t.free = append(t.free, s)
	}
}

// close leaves the table to the next daemon.
func (t *table) close() error {
	var errs []error
	for _, m := range append(t.chunks, t.header) {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(append(errs, t.file.Close())...)
}

func (s tableSlot) number() *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&s[0])) }

// lookups is what the kernel remembers of the container's nodes: LOOKUPs answered less FORGETs.
func (s tableSlot) lookups() *atomic.Int64 { return (*atomic.Int64)(unsafe.Pointer(&s[32])) }

// size is what the kernel was last told that a file's size is; 0: nothing yet.
func (s tableSlot) size(f *file) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&s[slotSizes+4*f.number]))
}

func (s tableSlot) id() cgroupview.ID {
	return cgroupview.ID{
		Namespace: binary.NativeEndian.Uint64(s[8:]),
		Start:     binary.NativeEndian.Uint64(s[16:]),
		Init:      uint32(binary.NativeEndian.Uint64(s[24:])),
	}
}

func (s tableSlot) name() string { return string(s[slotName+1 : slotName+1+int(s[slotName])]) }
