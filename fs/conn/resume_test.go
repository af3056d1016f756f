package conn

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// leave puts a request into memory as a process that was ended has left it.
func leave(t *testing.T, s *Slots, op uint32, unique uint64, in any, tries uint32) slot {
	t.Helper()
	place, ok := s.take()
	if !ok {
		t.Fatal("no slot")
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, in); err != nil {
		t.Fatal(err)
	}
	m := b.Bytes()
	binary.NativeEndian.PutUint32(m[4:], op)
	binary.NativeEndian.PutUint64(m[8:], unique)
	binary.NativeEndian.PutUint64(m[16:], 2) // the node
	copy(place.request(), m)
	place.tries().Store(tries)
	place.length().Store(uint32(len(m)))
	return place
}

// taken makes a connection on memory that another process has left, and gives the answers that the kernel gets: status by unique number.
func taken(t *testing.T, mem []byte, want int) (map[uint64]int32, *answers, *Stats) {
	t.Helper()
	s, err := newSlots(mem)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	h, stats := &answers{forgotten: map[uint64]uint64{}, stuck: make(chan struct{})}, &Stats{}
	close(h.stuck)
	c, err := New(fds[1], s, h, stats, false)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		c.Serve()
		close(served)
	}()
	got := map[uint64]int32{}
	for buf := make([]byte, 1<<17); len(got) < want; {
		n, err := unix.Read(fds[0], buf)
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		if n < outHeaderBytes {
			t.Fatalf("%d bytes", n)
		}
		if unique := binary.NativeEndian.Uint64(buf[8:]); unique&1 == 0 { // not the question whether it is waited for
			got[unique] = int32(binary.NativeEndian.Uint32(buf[4:]))
		}
	}
	unix.Close(fds[0])
	<-served
	return got, h, stats
}

func TestNextProcessAnswers(t *testing.T) {
	mem := make([]byte, SlotsBytes)
	s, err := newSlots(mem)
	if err != nil {
		t.Fatal(err)
	}
	leave(t, s, opStatfs, 2, fuse.InHeader{}, 0)
	leave(t, s, opRead, 4, fuse.ReadIn{Size: 100}, 0)
	leave(t, s, opGetattr, 6, fuse.GetAttrIn{}, tooMuch-1)
	leave(t, s, opGetattr, 8, fuse.GetAttrIn{}, tooMuch) // it has ended two processes
	leave(t, s, opForget, 10, fuse.ForgetIn{Nlookup: 3}, 0)
	leave(t, s, opForget, 12, fuse.ForgetIn{Nlookup: 5}, 0).begun().Store(1)
	free, _ := s.take()
	s.give(free)

	if busy := s.Busy(nil); len(busy) != 6 {
		t.Errorf("unanswered: %v", busy)
	}
	got, h, stats := taken(t, mem, 4)
	for unique, status := range map[uint64]int32{2: 0, 4: 0, 6: 0, 8: -int32(unix.EIO)} {
		if s, ok := got[unique]; !ok || s != status {
			t.Errorf("request %d: status %d, %v; want %d", unique, s, ok, status)
		}
	}
	if h.forgotten[2] != 3 {
		t.Errorf("forgotten: %v", h.forgotten)
	}
	if stats.Resumed.Load() != 4 || stats.Refused.Load() != 1 {
		t.Errorf("resumed %d, refused %d", stats.Resumed.Load(), stats.Refused.Load())
	}
	again, err := newSlots(mem)
	if err != nil {
		t.Fatal(err)
	}
	if busy := again.Busy(nil); len(busy) != 0 || len(again.free) != slotCount {
		t.Errorf("left: %v, %d slots free", busy, len(again.free))
	}
}

// A request that hangs holds up neither the others that were left nor new ones; and its keeper can blame it.
func TestOneThatWasLeftHangs(t *testing.T) {
	k := connect(t)
	s := testSlots(t)
	place := leave(t, s, opRead, 2, fuse.ReadIn{Size: 100}, 0)
	s.Blame(4)
	s.Blame(2)
	if n := place.tries().Load(); n != onceEnded {
		t.Errorf("%d counts against it", n)
	}
	s.BlameBegun()
	if n := place.tries().Load(); n != onceEnded {
		t.Errorf("%d counts against it: it was not begun", n)
	}
	stuck := &answers{forgotten: map[uint64]uint64{}, stuck: make(chan struct{})}
	binary.NativeEndian.PutUint64(place.request()[16:], 3) // the node whose READ waits
	leave(t, s, opStatfs, 6, fuse.InHeader{}, 0)
	c := &Conn{fd: uintptr(k.fd), slots: s, handler: stuck, stats: &Stats{}}
	began := time.Now()
	c.resume()
	s.BlameBegun() // the process crashes
	if n := place.tries().Load(); n != 2*onceEnded {
		t.Errorf("%d counts against it when a process had to be ended, and another crashed", n)
	}
	if took := time.Since(began); took < patience || took > 10*time.Second {
		t.Errorf("it went on after %v", took)
	}
	close(stuck.stuck)
	c.running.Wait()
	if busy := s.Busy(nil); len(busy) != 0 {
		t.Errorf("left: %v", busy)
	}
}

func TestSlotsRunOut(t *testing.T) {
	s := testSlots(t)
	var all []slot
	for {
		place, ok := s.take()
		if !ok {
			break
		}
		all = append(all, place)
	}
	if len(all) != slotCount {
		t.Errorf("%d slots", len(all))
	}
	s.give(all[7])
	if place, ok := s.take(); !ok || place.number != all[7].number {
		t.Errorf("given back %d, taken %d, %v", all[7].number, place.number, ok)
	}
	if _, err := newSlots(append([]byte("of another version"), make([]byte, SlotsBytes)...)); err == nil {
		t.Error("another layout is taken")
	}
}
