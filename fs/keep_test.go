package fs

import (
	"os"
	"path/filepath"
	"testing"

	"lensfs/cgroupview"
	"lensfs/procview"
)

// keptUptime gives what /proc/uptime says of the idle time of testTree's container, as shown by a daemon that keeps its numbers at path.
func keptUptime(t *testing.T, root, path string) (string, *keep, *cgroupview.Container) {
	t.Helper()
	resolver, host, err := Views{Root: root}.open()
	if err != nil {
		t.Fatal(err)
	}
	k, err := openKeep(path, resolver.MaxCPUs(), resolver.Runs)
	if err != nil {
		t.Fatal(err)
	}
	c := resolver.Of(testPid)
	if err := k.adopt(c); err != nil {
		t.Fatal(err)
	}
	text, err := procview.Uptime(nil, host, c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), k, c
}

// TestKeep has a second daemon show what the first one did: the container has used more in between, which it owes, and one CPU is idle as before.
func TestKeep(t *testing.T) {
	root, path := writeTree(t, testTree), filepath.Join(t.TempDir(), "kept")
	first, k, _ := keptUptime(t, root, path)
	writeFile(t, root, "sys/fs/cgroup/web/cpu.stat", "usage_usec 900000000\nuser_usec 900000000\nsystem_usec 0\n") // of 999 s, the clock standing still
	if second, _, _ := keptUptime(t, root, path); second != first {                                                // the first one was killed
		t.Errorf("after %q: %q", first, second)
	}
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	if other, _, _ := keptUptime(t, root, filepath.Join(t.TempDir(), "kept")); other == first {
		t.Errorf("without a record too: %q", other)
	}
}

func TestKeepForgets(t *testing.T) {
	root, path := writeTree(t, testTree), filepath.Join(t.TempDir(), "kept")
	_, k, c := keptUptime(t, root, path)
	all := len(k.free) + 1
	k.release(c)
	k.release(c)
	if len(k.free) != all || len(k.used) != 0 {
		t.Errorf("of %d slots %d are free, %d used", all, len(k.free), len(k.used))
	}
	if err := k.adopt(c); err != nil {
		t.Fatal(err)
	}
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	if err := k.adopt(c); err != nil || k.used[c] != nil {
		t.Errorf("adopted after it was closed: %v", err)
	}
	k, err := openKeep(path, 2, func(cgroupview.ID) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if len(k.left) != 0 || len(k.free) != all {
		t.Errorf("of a container that has ended: %d left, %d free", len(k.left), len(k.free))
	}
	k.close()
}

// TestKeepGrows takes more slots than a chunk has; each is another container's, as far as its memory is.
func TestKeepGrows(t *testing.T) {
	root := writeTree(t, testTree)
	_, k, _ := keptUptime(t, root, filepath.Join(t.TempDir(), "kept"))
	for range 3 * chunkSlots {
		resolver, _, err := Views{Root: root}.open()
		if err != nil {
			t.Fatal(err)
		}
		if err := k.adopt(resolver.Of(testPid)); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[*byte]bool{}
	for _, slot := range k.used {
		seen[&slot[0]] = true
	}
	if len(seen) != 3*chunkSlots+1 || len(k.chunks) != 4 {
		t.Errorf("%d slots in %d chunks", len(seen), len(k.chunks))
	}
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
}

// TestKeepOfAnotherLayout begins anew: more CPUs, or no file of ours.
func TestKeepOfAnotherLayout(t *testing.T) {
	root, path := writeTree(t, testTree), filepath.Join(t.TempDir(), "kept")
	_, k, _ := keptUptime(t, root, path)
	k.close()
	for _, cpus := range []int{2, 64} {
		k, err := openKeep(path, cpus, func(cgroupview.ID) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		if want := map[int]int{2: 1}[cpus]; len(k.left) != want {
			t.Errorf("%d CPUs: %d left, not %d", cpus, len(k.left), want)
		}
		k.close()
	}
	if err := os.WriteFile(path, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := openKeep(path, 2, func(cgroupview.ID) bool { return true })
	if err != nil || len(k.left) != 0 {
		t.Errorf("of another file: %v", err)
	}
	k.close()
}
