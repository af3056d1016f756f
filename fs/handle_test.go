package fs

import (
	"strings"
	"syscall"
	"testing"
)

// source gives a handle the texts one after the other, each time it asks for a snapshot.
func source(texts ...string) func() (*snapshot, error) {
	n := 0
	return func() (*snapshot, error) {
		s := &snapshot{text: []byte(texts[min(n, len(texts)-1)])}
		n++
		s.mu.Lock()
		return s, nil
	}
}

func readAt(t *testing.T, h *handle, size int, off uint64, lock func() (*snapshot, error)) string {
	t.Helper()
	buf := make([]byte, size)
	n, err := h.read(buf, off, lock)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestHandleGivesOneSnapshotToOneReader(t *testing.T) {
	h, lock := &handle{}, source("first text\n", "second, a longer text\n")
	var got strings.Builder
	for off := 0; ; {
		part := readAt(t, h, 3, uint64(off), lock)
		if part == "" {
			break
		}
		got.WriteString(part)
		off += len(part)
	}
	if got.String() != "first text\n" {
		t.Errorf("read in pieces: %q", got.String())
	}
	if again := readAt(t, h, 100, 0, lock); again != "second, a longer text\n" {
		t.Errorf("back at the beginning: %q", again)
	}
}

func TestHandleOffsets(t *testing.T) {
	const text = "0123456789"
	for _, c := range []struct {
		name string
		off  uint64
		want string
	}{
		{"beginning", 0, "0123"},
		{"middle", 4, "4567"},
		{"last", 9, "9"},
		{"end", 10, ""},
		{"past the end", 11, ""},
		{"far past the end", 1 << 62, ""},
		{"the largest", 1<<64 - 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := readAt(t, &handle{}, 4, c.off, source(text)); got != c.want {
				t.Errorf("first read: %q, want %q", got, c.want)
			}
			h := &handle{}
			readAt(t, h, 2, 0, source(text))
			if got := readAt(t, h, 4, c.off, source(text)); got != c.want {
				t.Errorf("after a part: %q, want %q", got, c.want)
			}
			h = &handle{}
			readAt(t, h, 100, 0, source(text))
			if got := readAt(t, h, 4, c.off, source(text)); got != c.want {
				t.Errorf("after all of it: %q, want %q", got, c.want)
			}
		})
	}
}

// The end is the end of what was read, not of what the file has become: else the reader would get the tail of another text.
func TestHandleEndStays(t *testing.T) {
	h, lock := &handle{}, source("9.99 9.99\n", "10.00 10.00\n")
	readAt(t, h, 100, 0, lock)
	if got := readAt(t, h, 100, 10, lock); got != "" {
		t.Errorf("behind the end of the text read: %q", got)
	}
}

func TestHandlesAreReusedClean(t *testing.T) {
	hs := newHandles(testOpened(t))
	fh := hs.add()
	readAt(t, hs.get(fh), 3, 0, source("of one container\n"))
	hs.release(fh)
	for range 100 {
		h := hs.get(hs.add())
		if h.size != 0 || len(h.text) != 0 {
			t.Fatalf("a new handle knows %q", h.text)
		}
	}
	if got := readAt(t, hs.get(fh+1000), 3, 0, source("abc")); got != "abc" { // opened at an earlier daemon
		t.Errorf("unknown handle: %q", got)
	}
}

// readText keeps what this reader has not had yet, and nothing of a text that could not be made.
func TestHandleTextOfItsOwn(t *testing.T) {
	h, made := &handle{}, 0
	read := func(size int, off uint64, text string, err error) string {
		t.Helper()
		buf := make([]byte, size)
		n, got := h.readText(buf, off, func(dst []byte) ([]byte, error) { made++; return append(dst, text...), err })
		if got != err {
			t.Errorf("error %v, not %v", got, err)
		}
		return string(buf[:n])
	}
	if got := read(3, 0, "first\n", nil) + read(3, 3, "other\n", nil) + read(3, 6, "other\n", nil); got != "first\n" || made != 1 {
		t.Errorf("read in pieces: %q, made %d times", got, made)
	}
	if got := read(10, 0, "second\n", nil) + read(10, 7, "x\n", nil) + read(10, 1<<63, "x\n", nil); got != "second\n" || made != 2 {
		t.Errorf("read again: %q, made %d times", got, made)
	}
	if got := read(2, 0, "third\n", nil) + read(10, 0, "ignored", syscall.EBUSY) + read(10, 2, "fourth\n", nil); got != "thurth\n" || made != 5 {
		t.Errorf("after an error: %q, made %d times", got, made)
	}
	if got := read(10, 3, "", nil); got != "" {
		t.Errorf("an empty text: %q", got)
	}
}
