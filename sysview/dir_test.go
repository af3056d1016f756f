package sysview

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lensfs/cgroupview"

	"golang.org/x/sys/unix"
)

// container is the process whose view is tested.
const container = 50

// newDir makes a host with these files in its directory of CPUs, and a container of the CPUs shown.
func newDir(t testing.TB, files map[string]string, shown string, hide bool) (*Dir, *cgroupview.Container, string) {
	t.Helper()
	root := t.TempDir()
	cpu := filepath.Join(root, "sys/devices/system/cpu")
	write(t, cpu, files)
	write(t, root, map[string]string{
		"proc/self/mountinfo":              "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
		"proc/uptime":                      "5000.00 30000.00\n",
		"proc/50/cgroup":                   "0::/a\n",
		"sys/fs/cgroup/cgroup.controllers": "cpuset cpu\n",
		"sys/fs/cgroup/a/cpu.max":          "max 100000\n",

		"sys/fs/cgroup/a/cpuset.cpus.effective": shown + "\n",
	})
	for _, pid := range []string{"self", "50"} {
		dir := filepath.Join(root, "proc", pid, "ns")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink("pid:[4026531836]", filepath.Join(dir, "pid"))); err != nil {
			t.Fatal(err)
		}
	}
	r, err := cgroupview.New(cgroupview.Options{Root: root, HideCPUs: hide})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(cpu, hide)
	if err != nil {
		t.Fatal(err)
	}
	return d, r.Of(container), root
}

func write(t testing.TB, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// hostOf has CPUs, each with a few files, a policy, and links; of cpu0 no file online, as on most hosts.
func hostOf(cpus ...int) map[string]string {
	files := map[string]string{"online": "", "uevent": "", "kernel_max": "8191\n", "power/control": "auto\n", "cpufreq/boost": "1\n"}
	var set cgroupview.CPUSet
	for _, n := range cpus {
		set.Add(n)
		files[fmt.Sprintf("cpu%d/topology/core_id", n)] = fmt.Sprintf("%d\n", n/2)
		files[fmt.Sprintf("cpu%d/cache/index0/size", n)] = "32K\n"
		files[fmt.Sprintf("cpufreq/policy%d/scaling_cur_freq", n)] = fmt.Sprintf("%d\n", 2_000_000+n)
		if n > 0 {
			files[fmt.Sprintf("cpu%d/online", n)] = "1\n"
		}
	}
	for _, name := range []string{"online", "possible", "present"} {
		files[name] = string(appendList(nil, &set))
	}
	return files
}

func upTo(n int) (cpus []int) {
	for i := range n {
		cpus = append(cpus, i)
	}
	return cpus
}

func (d *Dir) mustFind(t testing.TB, c *cgroupview.Container, file string) uint64 {
	t.Helper()
	n, err := d.Find(file, c)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return n
}

func (d *Dir) names(t testing.TB, c *cgroupview.Container, dir uint64) (names []string) {
	t.Helper()
	entries, err := d.List(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

func TestReadPassesThrough(t *testing.T) {
	d, c, root := newDir(t, hostOf(0, 2, 3, 7), "0,3", false)
	for file, want := range map[string]string{
		"kernel_max":                       "8191\n",
		"uevent":                           "",
		"possible":                         "0,2-3,7\n",
		"present":                          "0,2-3,7\n",
		"power/control":                    "auto\n",
		"cpu7/topology/core_id":            "3\n", // a hidden CPU's files stay
		"cpufreq/policy2/scaling_cur_freq": "2000002\n",
		"cpu2/online":                      "0\n",
		"cpu3/online":                      "1\n",
		"cpu7/online":                      "0\n",
	} {
		got, err := d.Read([]byte("x"), d.mustFind(t, c, file), c)
		if string(got) != "x"+want || err != nil {
			t.Errorf("%s: got %q, %v", file, got, err)
		}
	}
	for _, file := range []string{"cpu0/online", "cpu1", "cpu1/online", "cpu07", "cpu-1", "cpu+1", "cpu", "no", "cpu2/../cpu3", "..", ".", "", "cpu2/", "/", "kernel_max/x"} {
		if n, err := d.Find(file, c); err == nil {
			t.Errorf("%q is found: %x", file, n)
		}
	}
	dir := d.mustFind(t, c, "cpu2/topology")
	if got, err := d.Read([]byte("x"), dir, c); string(got) != "x" || err != unix.EISDIR {
		t.Errorf("a directory: %q, %v", got, err)
	}
	gone := d.mustFind(t, c, "kernel_max")
	if err := os.Remove(filepath.Join(root, "sys/devices/system/cpu/kernel_max")); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if got, err := d.Read([]byte("x"), gone, c); string(got) != "x" || err != unix.ENOENT {
		t.Errorf("a file that has gone: %q, %v", got, err)
	}
	if err := d.Attr(gone, &st); err != unix.ENOENT {
		t.Errorf("its attributes: %v", err)
	}
}

func TestListIsTheHosts(t *testing.T) {
	d, c, root := newDir(t, hostOf(upTo(256)...), "0,8", false)
	f, err := os.Open(filepath.Join(root, "sys/devices/system/cpu"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := f.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.names(t, c, Top); !slices.Equal(got, want) {
		t.Errorf("listed: %v\nthe host: %v", got, want)
	}
	if _, err := d.List(d.mustFind(t, c, "kernel_max"), c); err != unix.ENOTDIR {
		t.Errorf("a file is listed: %v", err)
	}
}

// With hide the other CPUs do not exist, and which those are may change.
func TestHiddenCPUs(t *testing.T) {
	d, c, root := newDir(t, hostOf(0, 1, 2, 3), "1,3", true)
	var st unix.Stat_t
	check := func(shown string, there, not []string) {
		t.Helper()
		list := d.names(t, c, Top)
		for _, name := range there {
			if _, fleeting, err := d.Lookup(Top, name, c, &st); !fleeting || err != nil || !slices.Contains(list, name) {
				t.Errorf("%s: fleeting %v, %v; listed: %v", name, fleeting, err, list)
			}
		}
		for _, name := range not {
			if _, fleeting, err := d.Lookup(Top, name, c, &st); !fleeting || err != unix.ENOENT || slices.Contains(list, name) {
				t.Errorf("%s: fleeting %v, %v; listed: %v", name, fleeting, err, list)
			}
		}
		for _, name := range []string{"possible", "present"} {
			if got, err := d.Read(nil, d.mustFind(t, c, name), c); string(got) != shown+"\n" || err != nil {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		if got, err := Offline(nil, c); string(got) != "\n" || err != nil {
			t.Errorf("offline: %q, %v", got, err)
		}
	}
	check("1,3", []string{"cpu1", "cpu3"}, []string{"cpu0", "cpu2", "cpu4"})
	write(t, root, map[string]string{"sys/fs/cgroup/a/cpuset.cpus.effective": "2\n"})
	wait()
	check("2", []string{"cpu2"}, []string{"cpu0", "cpu1", "cpu3"})
	for _, name := range []string{"cpufreq", "kernel_max", "nothing"} {
		if _, fleeting, _ := d.Lookup(Top, name, c, &st); fleeting {
			t.Errorf("%s is fleeting", name)
		}
	}
	if list := d.names(t, c, Top); !slices.Contains(list, "cpufreq") || !slices.Contains(list, "power") {
		t.Errorf("listed: %s", strings.Join(list, " "))
	}
}
