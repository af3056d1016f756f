package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func links(t *testing.T) (a, b *Link) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*Link
	for i, fd := range pair {
		if ends[i], err = NewLink(fd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// Descriptors come with the message that they were sent with, however many messages are on their way, and however long these are.
func TestLinkKeepsDescriptorsWithTheirMessage(t *testing.T) {
	a, b := links(t)
	var files []*os.File
	for i := range 3 {
		f, err := os.Create(filepath.Join(t.TempDir(), fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	long := strings.Repeat("x", 40_000)
	var sender sync.WaitGroup
	defer sender.Wait() // before the files are closed
	sender.Go(func() {
		a.Send(Message{Op: "none"})
		a.Send(Message{Op: "one", Error: long}, int(files[0].Fd()))
		a.Send(Message{Op: "none again"})
		a.Send(Message{Op: "two"}, int(files[1].Fd()), int(files[2].Fd()))
		a.Close()
	})
	next := 0
	for _, want := range []struct {
		op  string
		fds int
	}{{"none", 0}, {"one", 1}, {"none again", 0}, {"two", 2}} {
		m, fds, err := b.Receive()
		if err != nil || m.Op != want.op || len(fds) != want.fds {
			t.Fatalf("%q with %d descriptors, %v; want %+v", m.Op, len(fds), err, want)
		}
		for _, fd := range fds {
			var got, sent unix.Stat_t
			if err := unix.Fstat(fd, &got); err != nil {
				t.Fatal(err)
			}
			unix.Fstat(int(files[next].Fd()), &sent)
			if got.Ino != sent.Ino {
				t.Errorf("%s has another's descriptor", want.op)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s: flags %x, %v: it would pass an exec", want.op, flags, err)
			}
			next++
			unix.Close(fd)
		}
	}
	if _, _, err := b.Receive(); err == nil {
		t.Error("there is no end")
	}
}

func TestHandoverNamesDescriptors(t *testing.T) {
	h := Handover{Format: handoverFormat}
	h.Tree.Agreed.Minor = 31
	d := Descriptors{FdTree: 100, FdTexts: 101, FdOpened: 102, FdTreeRequests: 103, "of a later version": 104}
	named, fds := h.named(d)
	again, err := named.descriptors(fds)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(d) {
		t.Errorf("%v, %v; want %v", again, err, d)
	}
	delete(d, FdTexts)
	if err := h.check(d); err == nil || !strings.Contains(err.Error(), FdTexts) {
		t.Errorf("one is missing: %v", err)
	}
	h.Format++
	if err := h.check(d); err == nil {
		t.Error("another format is taken")
	}
}
