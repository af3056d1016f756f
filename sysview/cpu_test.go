package sysview

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"lensfs/cgroupview"
)

func cpus(t testing.TB, list string) cgroupview.CPUSet {
	t.Helper()
	set, err := cgroupview.ParseCPUSet([]byte(list))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestAppendList(t *testing.T) {
	for list, want := range map[string]string{"0": "0\n", "0,2-3,7": "0,2-3,7\n", "0-255": "0-255\n", "1,2,3": "1-3\n", "": "\n"} {
		set := cpus(t, list)
		if got := string(appendList(nil, &set)); got != want {
			t.Errorf("%s: got %q", list, got)
		}
		if got := string(appendList([]byte("before "), &set)); got != "before "+want {
			t.Errorf("%s: got %q", list, got)
		}
	}
}

func TestAppendListAllocs(t *testing.T) {
	set, dst := cpus(t, "0,2-3,7,64-127"), make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { appendList(dst, &set) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestOnline is about what fails; what is shown is among the cases of package procview.
func TestOnline(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"proc/self/mountinfo":              "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"proc/uptime":                      "5000.00 30000.00\n",
		"proc/50/cgroup":                   "0::/a\n",
		"sys/devices/system/cpu/online":    "0-7\n",
		"sys/fs/cgroup/cgroup.controllers": "cpuset cpu\n",
		"sys/fs/cgroup/a/cpu.max":          "150000 100000\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range []string{"self", "50"} {
		dir := filepath.Join(root, "proc", pid, "ns")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("pid:[4026531836]", filepath.Join(dir, "pid")); err != nil {
			t.Fatal(err)
		}
	}
	r, err := cgroupview.New(cgroupview.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Online([]byte("x"), r.Of(50)); string(got) != "x0-1\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(root, "sys/fs/cgroup/a/cpu.max"), []byte("150000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond) // what was read together with the last is the same
	if got, err := Online([]byte("x"), r.Of(50)); string(got) != "x" || err == nil {
		t.Errorf("after an error: got %q, %v", got, err)
	}
}

func BenchmarkOnline(b *testing.B) {
	set, dst := cpus(b, "0,2-3,7,64-127"), make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		appendList(dst, &set)
	}
}
