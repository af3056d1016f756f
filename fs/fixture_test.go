package fs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// testPid is a process of the container in testTree, whose init it is.
const testPid = 42

// testTree is a host with one container: v2, 100 MB of memory, one CPU of two.
var testTree = map[string]string{
	"proc/self/mountinfo":  "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
	"proc/42/cgroup":       "0::/web\n",
	"proc/42/mountinfo":    "",
	"proc/42/status":       "Name:\tinit\nPPid:\t1\nNSpid:\t42\t1\n",
	"proc/42/stat":         "42 (init) S 1 42 42 0 -1 4194560 1 1 0 0 1 1 0 0 20 0 1 0 100 1 1\n",
	"proc/meminfo":         "MemTotal:        1000000 kB\nMemFree:          500000 kB\nSwapTotal:             0 kB\n",
	"proc/cpuinfo":         "processor\t: 0\nsiblings\t: 2\n\nprocessor\t: 1\nsiblings\t: 2\n\n",
	"proc/uptime":          "1000.00 2000.00\n",
	"proc/stat":            "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 9 9 9 9 9 9 9 9 9 9\nintr 99 1 2 3\nctxt 9\nbtime 99\nprocesses 9\nprocs_running 9\nprocs_blocked 9\nsoftirq 9 9 9\n",
	"proc/42/task/42/stat": "42 (init) S 1 42 42 0 -1 4194560 1 1 0 0 1 1 0 0 20 0 1 0 100 1 1\n",
	"proc/diskstats":       "   8       0 sda 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n",
	"proc/swaps":           "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
	"proc/slabinfo":        "slabinfo - version: 2.1\n# name            <active_objs>\nkmalloc-8 9 9\n",
	"proc/pressure/cpu":    "some avg10=9.00 avg60=9.00 avg300=9.00 total=9\n",
	"proc/pressure/io":     "some avg10=9.00 avg60=9.00 avg300=9.00 total=9\n",
	"proc/pressure/memory": "some avg10=9.00 avg60=9.00 avg300=9.00 total=9\n",
	"proc/loadavg":         "0.50 0.25 0.10 1/300 4711\n",

	"sys/devices/system/cpu/online":                "0-1\n",
	"sys/devices/system/cpu/possible":              "0-1\n",
	"sys/devices/system/cpu/uevent":                "",
	"sys/devices/system/cpu/cpu0/topology/core_id": "0\n",
	"sys/devices/system/cpu/cpu1/topology/core_id": "7\n",
	"sys/devices/system/cpu/cpu1/online":           "1\n",
	"sys/devices/system/cpu/cpufreq/policy1/cur":   "2400000\n",
	"sys/fs/cgroup/cgroup.controllers":             "cpuset cpu io memory pids\n",
	"sys/fs/cgroup/web/cgroup.threads":             "42\n",
	"sys/fs/cgroup/web/pids.current":               "1\n",
	"sys/fs/cgroup/web/io.stat":                    "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
	"sys/fs/cgroup/web/cpu.pressure":               "some avg10=1.00 avg60=1.00 avg300=1.00 total=1\n",
	"sys/fs/cgroup/web/io.pressure":                "some avg10=1.00 avg60=1.00 avg300=1.00 total=1\n",
	"sys/fs/cgroup/web/memory.pressure":            "some avg10=1.00 avg60=1.00 avg300=1.00 total=1\n",
	"sys/fs/cgroup/web/memory.current":             "1048576\n",
	"sys/fs/cgroup/web/memory.stat":                "anon 1000000\nfile 2000\n",
	"sys/fs/cgroup/web/memory.max":                 "104857600\n",
	"sys/fs/cgroup/web/cpu.stat":                   "usage_usec 1000000\n",
	"sys/fs/cgroup/web/cpuset.cpus.effective":      "1\n",
}

func writeTree(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pid, ns := range map[string]string{"self": "pid:[1]", "42": "pid:[2]"} {
		dir := filepath.Join(root, "proc", pid, "ns")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(ns, filepath.Join(dir, "pid")); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// testServers gives both file systems over testTree, without a mount.
func testServers(t testing.TB) (*shared, *own, string) {
	t.Helper()
	return testServersOf(t, Views{})
}

func testServersOf(t testing.TB, views Views) (*shared, *own, string) {
	t.Helper()
	root := writeTree(t, testTree)
	views.Root = root
	resolver, host, err := views.open()
	if err != nil {
		t.Fatal(err)
	}
	cpus, err := views.openCPUs()
	if err != nil {
		t.Fatal(err)
	}
	tree := newTree(files, host, false)
	r := &renderer{resolver: resolver, host: host, cpus: cpus, stats: &Stats{}}
	records, err := openRecords(filepath.Join(t.TempDir(), "table"), r.recall)
	if err != nil {
		t.Fatal(err)
	}
	o := &own{tree: tree, render: r, shared: "/tree", records: records, notify: &toldKernel{}, outdated: newOutdated(func(uint64) {})}
	return newShared(tree, r, largeFiles{}, testOpened(t)), o, root
}

// testOpened is memory for open files.
func testOpened(t testing.TB) *opened {
	t.Helper()
	var fds [2]int
	for i, size := range []int64{OpenedBytes, 0} {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Ftruncate(fd, size); err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	o, err := openOpened(fds[0], fds[1])
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// toldKernel writes down what the kernel was told.
type toldKernel struct {
	stored    []int64 // offsets
	forgotten []string
}

func (k *toldKernel) Aside(wait func()) { wait() }

func (k *toldKernel) InodeNotifyStoreCache(_ uint64, offset int64, _ []byte) fuse.Status {
	k.stored = append(k.stored, offset)
	return fuse.OK
}

func (k *toldKernel) EntryNotify(_ uint64, name string) fuse.Status {
	k.forgotten = append(k.forgotten, name)
	return fuse.OK
}

func check(t *testing.T, f func()) {
	t.Helper()
	f() // the first time may grow buffers
	if n := testing.AllocsPerRun(200, f); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func writeFile(t testing.TB, root, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
