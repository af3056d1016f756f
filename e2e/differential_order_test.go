package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDifferentialOrder compares what directories list, and in which order, with this machine's LXCFS.
func TestDifferentialOrder(t *testing.T) {
	needRoot(t)
	program := os.Getenv("LXCFS")
	if program == "" {
		program = "lxcfs"
	}
	needCommand(t, program)
	theirs, ours := startLXCFS(t, program), serve(t, "--cgroup-dir").tree
	version := lxcfsVersion(t, program)
	for _, dir := range []string{"", "proc", "proc/pressure", "sys", "sys/devices", "sys/devices/system", "sys/devices/system/cpu"} {
		want, err := listedNames(filepath.Join(theirs, dir))
		if dir == "proc/pressure" && err == unix.ENOENT {
			continue // LXCFS before 6.0, and a host without
		}
		if err != nil {
			t.Fatalf("LXCFS: %s: %v", dir, err)
		}
		got, err := listedNames(filepath.Join(ours, dir))
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		t.Logf("LXCFS %s lists %q: %v", version, dir, want)
		more := map[string][]string{"": {"cgroup"}, "proc": {"pressure"}}[dir] // of which some versions have none
		if dir == "sys/devices/system/cpu" {
			// LXCFS lists "online" before the host's whole list, which has it too (docs/differences.md), and what root alone may read.
			want = want[max(0, slices.Index(want[1:], ".")+1):]
			want = slices.DeleteFunc(want, func(name string) bool { return unix.Access(filepath.Join(ours, dir, name), unix.F_OK) == unix.ENOENT })
		}
		got = slices.DeleteFunc(got, func(name string) bool { return slices.Contains(more, name) && !slices.Contains(want, name) })
		if !slices.Equal(got, want) {
			t.Errorf("%q lists %v; LXCFS %s %v", dir, got, version, want)
		}
	}
}

func listedNames(dir string) (names []string, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	entries, err := getdents(fd, 32<<10)
	for _, e := range entries {
		names = append(names, e.name)
	}
	return names, err
}
