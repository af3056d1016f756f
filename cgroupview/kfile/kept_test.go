package kfile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors gives how many are open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// openKeeping opens a directory that keeps files from the first read on.
func openKeeping(path string) (*Dir, error) {
	d, err := Open(path, path == "/proc")
	if err == nil {
		d.kept.later = 0
	}
	return d, err
}

// TestKeptFiles reads the kernel's own files, which anybody may: they are opened once, are fresh each time, and closed when nobody reads them any more.
func TestKeptFiles(t *testing.T) {
	proc, err := openKeeping("/proc")
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	var b Buffer
	seen := map[string]bool{}
	for i := 0; i < 200 && len(seen) < 3; i++ {
		text, err := proc.Read(&b, "", "uptime")
		if err != nil || len(text) == 0 || text[len(text)-1] != '\n' {
			t.Fatalf("%q, %v", text, err)
		}
		seen[string(text)] = true
		unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil)
	}
	if len(seen) < 3 {
		t.Errorf("uptime stands still: %v", seen)
	}
	if n := descriptors(t); n != before+1 {
		t.Errorf("%d descriptors, with one file kept %d", n, before+1)
	}
	if _, err := proc.Read(&b, fmt.Sprint(os.Getpid()), "stat"); err != nil {
		t.Error(err)
	}
	if n := descriptors(t); n != before+1 {
		t.Errorf("%d descriptors: a process's file is kept", n)
	}
	proc.Sweep(nil)
	if n := descriptors(t); n != before+1 {
		t.Errorf("%d descriptors: what is in use is closed", n)
	}
	proc.Sweep(nil)
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors after what nobody reads was swept, before %d", n, before)
	}
	if text, err := proc.Read(&b, "", "uptime"); err != nil || len(text) == 0 {
		t.Errorf("%q, %v", text, err)
	}
	proc.Close()
	if n := descriptors(t); n != before-1 {
		t.Errorf("%d descriptors after the end, before the beginning %d", n, before-1)
	}
}

// TestKeptLong reads a kept file in pieces: the text is that of one that is opened.
func TestKeptLong(t *testing.T) {
	proc, err := openKeeping("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	want, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	var b Buffer
	for range 3 {
		got, err := proc.Append(&b, make([]byte, 0, 7), "", "filesystems")
		if err != nil || string(got) != string(want) {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
	}
}

// TestKeptDirectoryGone: what a sweep is told has gone is closed at once.
func TestKeptDirectoryGone(t *testing.T) {
	sys, err := openKeeping("/sys")
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	before := descriptors(t)
	var b Buffer
	for range 2 {
		if _, err := sys.Read(&b, "/kernel", "uevent_seqnum"); err != nil {
			t.Fatal(err)
		}
		if _, err := sys.Read(&b, "/devices/system/cpu", "online"); err != nil {
			t.Fatal(err)
		}
	}
	if n := descriptors(t); n != before+2 {
		t.Errorf("%d descriptors, with two files kept %d", n, before+2)
	}
	sys.Sweep(map[string]bool{"/devices/system/cpu": true})
	if n := descriptors(t); n != before+1 {
		t.Errorf("%d descriptors after one directory has gone, with the other's file %d", n, before+1)
	}
}

// TestKeptGone has what is kept fail, as the files of a group do that was removed: the name is looked up again.
func TestKeptGone(t *testing.T) {
	proc, err := openKeeping("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	var b Buffer
	for range 2 {
		if _, err := proc.Read(&b, "", "uptime"); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // read(2) of it fails
	if err != nil {
		t.Fatal(err)
	}
	f := proc.kept.files["uptime\x00"]
	unix.Close(int(f.fd))
	f.fd = int32(dir)
	if text, err := proc.Read(&b, "", "uptime"); err != nil || len(strings.Fields(string(text))) != 2 {
		t.Errorf("%q, %v", text, err)
	}
	if again := proc.kept.files["uptime\x00"]; f.fd != -1 || again == nil || again == f {
		t.Errorf("kept is %v, was %v", again, f)
	}
}

// TestKeptBound: beyond it files are read all the same.
func TestKeptBound(t *testing.T) {
	proc, err := openKeeping("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	proc.kept.most = 1
	before := descriptors(t)
	var b Buffer
	for _, name := range slices.Repeat([]string{"uptime", "version"}, 3) {
		if text, err := proc.Read(&b, "", name); err != nil || len(text) == 0 {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if n := descriptors(t); n != before+1 {
		t.Errorf("%d descriptors, with one file kept %d", n, before+1)
	}
}

// TestReadAtOnce: what is read several times in a moment is not worth a descriptor; what is read again later is.
func TestReadAtOnce(t *testing.T) {
	proc, err := Open("/proc", true)
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	var b Buffer
	read := func() {
		if _, err := proc.Read(&b, "", "uptime"); err != nil {
			t.Fatal(err)
		}
	}
	before := descriptors(t)
	for range 10 {
		read()
	}
	f := proc.kept.files["uptime\x00"]
	if n := descriptors(t); n != before && time.Since(proc.kept.began)-f.first < later {
		t.Errorf("%d descriptors, before %d", n, before)
	}
	f.first, f.last = f.first-2*seldom, f.last-2*seldom // too long ago
	read()
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, before %d: what is seldom read is kept", n, before)
	}
	f.first -= later
	read()
	if n := descriptors(t); n != before+1 {
		t.Errorf("%d descriptors, with one file kept %d", n, before+1)
	}
}

// TestOrdinaryFilesAreNotKept: one that has been replaced would go on being read.
func TestOrdinaryFilesAreNotKept(t *testing.T) {
	root := t.TempDir()
	d, err := Open(root, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var b Buffer
	for _, text := range []string{"one\n", "two\n"} {
		os.Remove(filepath.Join(root, "f"))
		os.WriteFile(filepath.Join(root, "f"), []byte(text), 0o600)
		if got, err := d.Read(&b, "", "f"); err != nil || string(got) != text {
			t.Errorf("%q, %v; want %q", got, err, text)
		}
	}
}

// TestKeptTogether reads and sweeps at the same time; the race detector looks on.
func TestKeptTogether(t *testing.T) {
	proc, err := openKeeping("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			var b Buffer
			for range 500 {
				text, err := proc.Read(&b, "", "uptime")
				if err != nil || len(strings.Fields(string(text))) != 2 {
					t.Errorf("%q, %v", text, err)
					return
				}
			}
		})
	}
	for range 500 {
		proc.Sweep(nil)
	}
	all.Wait()
}
