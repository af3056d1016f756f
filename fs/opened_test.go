package fs

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nextOpened is what the next worker finds in the memory of one that was killed.
func nextOpened(t *testing.T, o *opened) *opened {
	t.Helper()
	next := &opened{mem: o.mem, texts: o.texts}
	for n := uint32(o.used().Load()); n > 0; n-- {
		if next.at(n-1).fh().Load() == 0 {
			next.free = append(next.free, n-1)
		}
	}
	return next
}

// A reader goes on with his text where the worker before has left him, whatever the file is by then.
func TestReaderGoesOnAtTheNextWorker(t *testing.T) {
	first := newHandles(testOpened(t))
	middle, whole, fresh := first.add(), first.add(), first.add()
	const text = "one two three\n"
	if got := readAt(t, first.get(middle), 4, 0, source(text)); got != "one " {
		t.Fatal(got)
	}
	if got := readAt(t, first.get(whole), 100, 0, source("short\n")); got != "short\n" {
		t.Fatal(got)
	}
	next := newHandles(nextOpened(t, first.kept))
	other := source("of another time, and longer\n")
	for at := 4; at < len(text); at += 3 {
		if got, want := readAt(t, next.get(middle), 3, uint64(at), other), text[at:min(at+3, len(text))]; got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
	// The last part may not have arrived: it is there for one worker more.
	third := newHandles(nextOpened(t, next.kept))
	if got := readAt(t, third.get(middle), 100, 10, other); got != text[10:] {
		t.Errorf("the last part again: %q", got)
	}
	for name, fh := range map[string]uint64{"middle": middle, "whole": whole} {
		if got := readAt(t, third.get(fh), 100, uint64(len(text)), other); got != "" {
			t.Errorf("%s: at the end: %q", name, got)
		}
	}
	if got := readAt(t, third.get(fresh), 100, 0, other); !strings.HasPrefix(got, "of another") {
		t.Errorf("one who has read nothing: %q", got)
	}
	third.release(middle)
	third.release(middle) // RELEASE answered, and come again
	if again := third.add(); again == middle {
		t.Error("a number is given twice")
	} else if size, kept := third.kept.seen(again); size != 0 || kept != nil {
		t.Errorf("a new handle has seen %q", kept)
	}
	if size, _ := third.kept.seen(middle); size != 0 {
		t.Error("what was closed is known still")
	}
}

// What is kept takes no memory when its reader has seen the end.
func TestKeptTextsAreGivenBack(t *testing.T) {
	hs := newHandles(testOpened(t))
	long := strings.Repeat("a line of text\n", 10_000)
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(hs.kept.texts, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks
	}
	seen, closed := hs.add(), hs.add()
	for _, fh := range []uint64{seen, closed} {
		readAt(t, hs.get(fh), 10, 0, source(long))
	}
	if blocks() == 0 {
		t.Error("nothing is kept")
	}
	readAt(t, hs.get(seen), 1, uint64(len(long)), source(long))
	hs.release(closed)
	if n := blocks(); n != 0 {
		t.Errorf("%d blocks are held", n)
	}
	tooLong := hs.add()
	readAt(t, hs.get(tooLong), 10, 0, source(strings.Repeat("x", maxText+1)))
	if n := blocks(); n != 0 {
		t.Errorf("%d blocks are held of a text that is too long to be kept", n)
	}
}

// More files may be open than there is room for: of these nothing is remembered, and that is all.
func TestOpenFilesWithoutRoom(t *testing.T) {
	o := testOpened(t)
	o.used().Store(1<<entryBits - 1)
	hs := newHandles(o)
	a, b := hs.add(), hs.add()
	if a == b {
		t.Fatal("two files have one handle")
	}
	for _, fh := range []uint64{a, b} {
		if got := readAt(t, hs.get(fh), 3, 0, source("text")) + readAt(t, hs.get(fh), 3, 3, source("other")); got != "text" {
			t.Errorf("%q", got)
		}
		if size, _ := o.seen(fh); size != 0 {
			t.Error("it is remembered")
		}
		hs.release(fh)
	}
}
