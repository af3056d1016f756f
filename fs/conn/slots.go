package conn

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Slots is memory that outlives the process: the kernel writes each request into it, and it stays there until it has been answered. What a process
// leaves there when it ends is answered by the next one, on every kernel; FUSE_NOTIFY_RESEND came with Linux 6.9 only.
//
//	page 0   magic, number of slots that were ever in use
//	slot     what counts against it, whether it began, and the request, whose first word is its length: 0 for none
//
// Few of them are ever touched: the one given back last is taken first. A memfd of this size costs what is touched.
type Slots struct {
	mem  []byte
	mu   sync.Mutex
	free []int
}

const (
	slotsMagic = 0x31736c6f6c736e6c // "lnslols1"
	slotHeader = 64
	slotBytes  = 3 * 4096
	// slotCount bounds how many requests are being answered at a time, those included that wait for another one, see maxStoring in package fs.
	slotCount = 2048
	// SlotsBytes is the size of the memory.
	SlotsBytes = 4096 + slotCount*slotBytes
)

// slot is the place of one request.
type slot struct {
	number int
	mem    []byte
}

// OpenSlots maps the memory behind fd, SlotsBytes long and all zero at the first time.
func OpenSlots(fd int) (*Slots, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size < SlotsBytes {
		return nil, fmt.Errorf("memory of requests: %d bytes, not %d", st.Size, SlotsBytes)
	}
	mem, err := unix.Mmap(fd, 0, SlotsBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("memory of requests: %w", err)
	}
	return newSlots(mem)
}

func newSlots(mem []byte) (*Slots, error) {
	s := &Slots{mem: mem}
	switch magic := binary.NativeEndian.Uint64(mem); magic {
	case slotsMagic:
	case 0:
		binary.NativeEndian.PutUint64(mem, slotsMagic)
	default:
		return nil, fmt.Errorf("memory of requests: its layout is %x, not %x", magic, uint64(slotsMagic))
	}
	used := int(s.used().Load())
	for n := slotCount - 1; n >= 0; n-- {
		if n >= used || s.at(n).length().Load() == 0 {
			s.free = append(s.free, n)
		}
	}
	return s, nil
}

func (s *Slots) used() *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&s.mem[8])) }

func (s *Slots) at(n int) slot {
	begin := 4096 + n*slotBytes
	return slot{n, s.mem[begin : begin+slotBytes : begin+slotBytes]}
}

// take gives an empty slot; not ok when all are in use.
func (s *Slots) take() (_ slot, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		return slot{}, false
	}
	n := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	if uint32(n) >= s.used().Load() {
		s.used().Store(uint32(n) + 1)
	}
	return s.at(n), true
}

func (s *Slots) give(t slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, t.number)
}

// left gives the slots with requests that the process before us has not answered, those of READs first: what others wait for.
func (s *Slots) left() (reads, others []slot) {
	for n := range int(s.used().Load()) {
		t := s.at(n)
		switch {
		case t.length().Load() == 0:
		case (&request{in: t.request()}).header().Opcode == opRead:
			reads = append(reads, t)
		default:
			others = append(others, t)
		}
	}
	return reads, others
}

// Busy appends the unique numbers of the requests that are in the slots now. It may be called by another process than the one that answers them.
func (s *Slots) Busy(dst []uint64) []uint64 {
	for n := range int(s.used().Load()) {
		if t := s.at(n); t.length().Load() != 0 {
			dst = append(dst, t.unique().Load())
		}
	}
	return dst
}

// tries is what counts against the request, see tooMuch.
func (t slot) tries() *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&t.mem[0])) }

// begun says that a request without an answer has had its effect, or that one which was left by another process is taken up.
func (t slot) begun() *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&t.mem[4])) }

func (t slot) length() *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&t.mem[slotHeader])) }

// request is the room for a request.
func (t slot) request() []byte { return t.mem[slotHeader : slotHeader+minReadBuffer] }

// Blame counts against a request that the process which was to answer it had to be ended. Like Busy, it is for another process.
func (s *Slots) Blame(unique uint64) {
	for n := range int(s.used().Load()) {
		if t := s.at(n); t.length().Load() != 0 && t.unique().Load() == unique {
			t.tries().Add(onceEnded)
		}
	}
}

// BlameBegun counts it against the requests which were taken up when the process ended by itself.
func (s *Slots) BlameBegun() {
	for n := range int(s.used().Load()) {
		if t := s.at(n); t.length().Load() != 0 && t.begun().Load() != 0 {
			t.tries().Add(onceEnded - onceKilled)
		}
	}
}

func (t slot) unique() *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&t.mem[slotHeader+8]))
}
