package sysview

import (
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
	_, c, root := newDir(t, hostOf(upTo(8)...), "2-5", false)
	quota := func(text string) {
		write(t, root, map[string]string{"sys/fs/cgroup/a/cpu.max": text + "\n"})
		wait()
	}
	quota("150000 100000")
	if got, err := Online([]byte("x"), c); string(got) != "x2-3\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	quota("150000")
	if got, err := Online([]byte("x"), c); string(got) != "x" || err == nil {
		t.Errorf("after an error: got %q, %v", got, err)
	}
}

// wait lets time go by: what was read together with the last is the same.
func wait() { time.Sleep(10 * time.Millisecond) }

// TestOffline: possible CPUs that are not shown, and what the host has switched off is among them.
func TestOffline(t *testing.T) {
	for _, c := range []struct {
		online, possible, shown, want string
		hide                          bool
	}{
		{"0-7", "0-7", "2-5", "0-1,6-7\n", false},
		{"0-7", "0-7", "0-7", "\n", false},
		{"0-2", "0-7", "1", "0,2-7\n", false},
		{"0,2-3,7", "0-15", "0,3", "1-2,4-15\n", false},
		{"0-7", "0-7", "2-5", "\n", true},
		{"0", "", "0", "\n", false}, // a tree of files without possible
	} {
		files := hostOf(0)
		files["online"], files["possible"] = c.online+"\n", c.possible+"\n"
		if c.possible == "" {
			delete(files, "possible")
		}
		_, container, _ := newDir(t, files, c.shown, c.hide)
		if got, err := Offline([]byte("x"), container); string(got) != "x"+c.want || err != nil {
			t.Errorf("%+v: got %q, %v", c, got, err)
		}
	}
}

func BenchmarkOnline(b *testing.B) {
	set, dst := cpus(b, "0,2-3,7,64-127"), make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		appendList(dst, &set)
	}
}
