package sysview

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"lensfs/cgroupview"

	"golang.org/x/sys/unix"
)

// TestThisMachine goes through the kernel's own directory: what is found, its attributes, the order and the texts are the kernel's.
func TestThisMachine(t *testing.T) {
	const cpu = "/sys/devices/system/cpu"
	d, err := Open(cpu, false)
	if err != nil {
		t.Fatal(err)
	}
	_, c, _ := newDir(t, hostOf(0, 1), "0", false)
	files := 0
	var walk func(dir string, n uint64)
	walk = func(dir string, n uint64) {
		f, err := os.Open(filepath.Join(cpu, dir))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		names, err := f.Readdirnames(-1)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := d.List(n, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			file := filepath.Join(dir, name)
			info, err := os.Lstat(filepath.Join(cpu, file))
			if err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			number, fleeting, err := d.Lookup(n, name, c, &st)
			if info.Mode()&0o004 == 0 {
				if err != unix.ENOENT || len(entries) > 0 && entries[0].Name == name {
					t.Errorf("%s is for root only: %v", file, err)
				}
				continue
			}
			if err != nil || fleeting || len(entries) == 0 || entries[0].Name != name || entries[0].Number != number {
				t.Fatalf("%s: number %#x, fleeting %v, %v; listed %v", file, number, fleeting, err, entries[:min(1, len(entries))])
			}
			entries = entries[1:]
			host := info.Sys().(*syscall.Stat_t)
			if st.Mode != host.Mode || st.Size != host.Size || st.Nlink != host.Nlink || st.Mtim != unix.Timespec(host.Mtim) || st.Uid != host.Uid {
				t.Errorf("%s: %+v, the host's is %+v", file, st, host)
			}
			files++
			switch {
			case info.IsDir():
				walk(file, number)
			case info.Mode().Type() == os.ModeSymlink:
				target, _ := os.Readlink(filepath.Join(cpu, file))
				if got, err := d.Target(number); got != target || err != nil {
					t.Errorf("%s leads to %q, not %q: %v", file, got, target, err)
				}
			default:
				sameText(t, d, c, number, filepath.Join(cpu, file))
			}
		}
		if len(entries) > 0 {
			t.Errorf("%s: the host has no %v", dir, entries)
		}
	}
	walk("", Top)
	if files < 20 {
		t.Errorf("only %d files", files)
	}
	if len(d.places) > files {
		t.Errorf("%d places of %d files", len(d.places), files)
	}
}

// sameText wants the host's text, or its error. Counters may go on between: such a file is tried again.
func sameText(t *testing.T, d *Dir, c *cgroupview.Container, number uint64, file string) {
	t.Helper()
	for try := 0; ; try++ {
		before, errBefore := os.ReadFile(file)
		got, err := d.Read(nil, number, c)
		if at, _, _ := d.place(number); at == (place{"cpu", "online"}) {
			return // the container's
		}
		if (err == nil) == (errBefore == nil) && string(got) == string(before) {
			return
		}
		if try == 100 {
			t.Errorf("%s: got %q %v, the host's is %q %v", file, got, err, before, errBefore)
			return
		}
	}
}

// A text longer than one read(2) gives is whole.
func TestLongText(t *testing.T) {
	long := make([]byte, 100_000)
	for i := range long {
		long[i] = 'a' + byte(i%26)
	}
	files := hostOf(0, 1)
	files["cpu1/long"] = string(long)
	d, c, _ := newDir(t, files, "0", false)
	if got, err := d.Read([]byte("x"), d.mustFind(t, c, "cpu1/long"), c); string(got) != "x"+string(long) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestViewThatFails: where the container's CPUs cannot be read its host's text stands in, and no CPU is hidden.
func TestViewThatFails(t *testing.T) {
	d, c, root := newDir(t, hostOf(0, 1), "0", true)
	n, present := d.mustFind(t, c, "cpu0"), d.mustFind(t, c, "present")
	if n == 0 || present == 0 {
		t.Fatal("no numbers")
	}
	write(t, root, map[string]string{"sys/fs/cgroup/a/cpu.max": "nonsense\n"})
	wait()
	if got, err := d.Read(nil, present, c); string(got) != "0-1\n" || err != nil {
		t.Errorf("present: %q, %v", got, err)
	}
	if got, err := d.Read(nil, d.mustFind(t, c, "cpu1/online"), c); string(got) != "1\n" || err != nil {
		t.Errorf("cpu1/online: %q, %v", got, err)
	}
	if got, err := Offline([]byte("x"), c); string(got) != "x" || err == nil {
		t.Errorf("offline after an error: %q, %v", got, err)
	}
}

func BenchmarkRead(b *testing.B) {
	d, c, _ := newDir(b, hostOf(0, 1), "0", false)
	n, dst := d.mustFind(b, c, "cpu1/topology/core_id"), make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		d.Read(dst, n, c)
	}
}
