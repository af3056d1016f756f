package cgroupview

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// thread is a task in state that began at start, of a process that is there or not.
func thread(tid int, nspid string, ns uint64, state string, start uint64) tree {
	dir := fmt.Sprintf("proc/%d/", tid)
	return tree{
		fmt.Sprintf("%stask/%d/stat", dir, tid): strings.Replace(statOf(tid, "a) b (c", 100, start), ") S ", ") "+state+" ", 1),
		dir + "status":                          "Name:\tx\nNSpid:\t" + nspid + "\n",
		dir + "ns/pid":                          fmt.Sprintf("-> pid:[%d]", ns),
	}
}

const webDir = "sys/fs/cgroup/web/"

// busyTasks has five tasks at several depths: the list's name is that of v2 or v1.
func busyTasks(dir, list string) tree {
	f := thread(100, "100\t1", webNS, "S", 400000)
	maps.Copy(f, thread(120, "120\t21", webNS, "R", 400100))
	maps.Copy(f, thread(121, "121\t22", webNS, "D", 400101))
	maps.Copy(f, thread(130, "130\t31", webNS, "R", 400400))
	maps.Copy(f, thread(131, "131\t30", webNS, "I", 400300))
	maps.Copy(f, tree{dir + list: "100\n", dir + "a/" + list: "120\n121\n", dir + "a/b/c/d/e/" + list: "130\n131\n", dir + "empty/" + list: ""})
	return f
}

// asked makes the tree's container, whose tasks are looked at anew each time.
func asked(t testing.TB, f tree) (c *Container, root string, clock *time.Duration) {
	t.Helper()
	r, root := f.resolver(t)
	now := r.boottime()
	r.boottime = func() time.Duration { return now }
	return r.Of(100), root, &now
}

func TestTasks(t *testing.T) {
	const v1Dir = "sys/fs/cgroup/cpu,cpuacct/web/"
	busy := busyTasks(webDir, "cgroup.threads")
	const freezerDir = "sys/fs/cgroup/freezer/web/"
	freezer := tree{"proc/100/cgroup": "4:freezer:/web\n2:cpu,cpuacct:/web\n",
		"proc/self/mountinfo": v1()["proc/self/mountinfo"] + "43 31 0:33 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"}
	for _, test := range []struct {
		name string
		tree tree
		want Tasks
	}{
		{"v2", v2(web(), busy), Tasks{5, 2, 1, 31}},
		{"v1", v1(web1(), busyTasks(v1Dir, "tasks")), Tasks{5, 2, 1, 31}},
		{"zombies are in the total", v2(web(), busy, tree{"sys/fs/cgroup/cgroup.controllers": "cpu pids\n", webDir + "pids.current": "7\n"}), Tasks{7, 2, 1, 31}},
		{"a total below what runs", v2(web(), busy, tree{"sys/fs/cgroup/cgroup.controllers": "cpu pids\n", webDir + "pids.current": "0\n"}), Tasks{5, 2, 1, 31}},
		{"a total that is not the container's", v1(web1(), busyTasks(v1Dir, "tasks"), tree{"proc/100/cgroup": "4:pids:/docker/aa\n2:cpu,cpuacct:/web\n",
			"proc/self/mountinfo":             v1()["proc/self/mountinfo"] + "43 31 0:33 /docker/aa /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
			"sys/fs/cgroup/pids/pids.current": "99\n"}), Tasks{5, 2, 1, 31}},
		{"a link in the place of a group", v2(web(), busy, tree{webDir + "link": "-> a", webDir + "out": "-> /proc"}), Tasks{5, 2, 1, 31}},
		{"one ends while it is looked for, and stands for those begun meanwhile", v2(web(), busy, tree{webDir + "cgroup.threads": "100\n199\n"}), Tasks{6, 3, 1, 31}},
		{"nobody", v2(web(), tree{webDir + "cgroup.threads": ""}), Tasks{0, 0, 0, 1}},
		{"not the kernel's list", v2(web(), tree{webDir + "cgroup.threads": "x\n-1\n0\n99999999999999999999\n\n"}), Tasks{0, 0, 0, 1}},
		{"no state", v2(web(), tree{webDir + "cgroup.threads": "100\n", "proc/100/task/100/stat": "100 (x)"}), Tasks{1, 0, 0, 1}},
		{"a group in one hierarchy only", v1(web1(), busyTasks("sys/fs/cgroup/memory/web/", "tasks"),
			tree{"proc/100/cgroup": "3:memory:/web\n2:cpu,cpuacct:/\n1:cpuset:/\n"}), Tasks{5, 2, 1, 31}},
		{"frozen: in state D, and no load", v1(web1(), busyTasks(v1Dir, "tasks"), thread(120, "120\t21", webNS, "D", 400100), freezer, tree{freezerDir + "freezer.state": "FROZEN\n"}), Tasks{5, 1, 0, 31}},
		{"not frozen", v1(web1(), busyTasks(v1Dir, "tasks"), freezer, tree{freezerDir + "freezer.state": "THAWED\n"}), Tasks{5, 2, 1, 31}},
		{"no group: as wide as the host", v2(web(), busy, tree{"proc/100/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.threads": "100\n"}), Tasks{6, 2, 1, 31}},
		{"no group that we see", v2(web(), busy, tree{"proc/100/cgroup": "0::/../b\n"}), Tasks{1, 0, 0, 1}},
	} {
		c, _, _ := asked(t, test.tree)
		got, err := c.Tasks()
		if got != test.want || err != nil {
			t.Errorf("%s: got %+v, %v; want %+v", test.name, got, err, test.want)
		}
	}
}

func TestTasksHost(t *testing.T) {
	r, _ := v2(web()).resolver(t)
	if got, err := r.Host().Tasks(); got != (Tasks{}) || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTasksGone(t *testing.T) {
	c, root, clock := asked(t, v2(web(), busyTasks(webDir, "cgroup.threads")))
	if _, err := c.Tasks(); err != nil {
		t.Fatal(err)
	}
	remove(t, root, "sys/fs/cgroup/web")
	*clock += time.Second
	if got, err := c.Tasks(); got != (Tasks{}) || !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "web/cgroup.threads") {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestTasksFresh asks within a second, and after.
func TestTasksFresh(t *testing.T) {
	c, root, clock := asked(t, v2(web(), busyTasks(webDir, "cgroup.threads")))
	running := func() int {
		t.Helper()
		got, err := c.Tasks()
		if err != nil {
			t.Fatal(err)
		}
		return got.Running
	}
	if n := running(); n != 2 {
		t.Errorf("%d", n)
	}
	thread(120, "120\t21", webNS, "S", 400100).write(t, root)
	*clock += tasksEvery - 1
	if n := running(); n != 2 {
		t.Errorf("looked again too soon: %d", n)
	}
	*clock++
	if n := running(); n != 1 {
		t.Errorf("after a second: %d", n)
	}
}

// TestTasksIdle shows that a container whose group used no CPU time since nobody ran costs one read(2) and needs one file, and what ends that.
func TestTasksIdle(t *testing.T) {
	const v1Dir = "sys/fs/cgroup/cpu,cpuacct/web/"
	for _, test := range []struct {
		name, dir, list, usage, more string
		tree                         tree
	}{
		{"v2", webDir, "cgroup.threads", "cpu.stat", "usage_usec 2500001\nthrottled_usec 500000\n", v2(web())},
		{"v2, throttled", webDir, "cgroup.threads", "cpu.stat", "usage_usec 2500000\nthrottled_usec 500001\n", v2(web())},
		{"v1", v1Dir, "tasks", "cpuacct.usage", "2500000001\n", v1(web1())},
	} {
		f := busyTasks(test.dir, test.list)
		maps.Copy(f, thread(120, "120\t21", webNS, "S", 400100))
		maps.Copy(f, thread(130, "130\t31", webNS, "S", 400400))
		maps.Copy(test.tree, f)
		c, root, _ := asked(t, test.tree)
		look := func() {
			t.Helper()
			if _, _, err := c.sample(sampledBudget); err != nil {
				t.Fatal(err)
			}
		}
		look()
		// 121 is blocked and stays so: it would have to run before it could be anything else.
		if want := (Tasks{5, 0, 1, 31}); c.tasks.tasks != want {
			t.Fatalf("%s: %+v", test.name, c.tasks.tasks)
		}
		thread(120, "120\t21", webNS, "R", 400100).write(t, root)
		runtime.LockOSThread()
		const n = 100
		before := reads(t)
		for range n {
			look()
		}
		if got := reads(t) - before - 1; got != n { // the one that read the number itself
			t.Errorf("%s: %d looks made %d reads", test.name, n, got)
		}
		runtime.UnlockOSThread()
		if c.tasks.tasks.Running != 0 {
			t.Errorf("%s: the tasks were looked at", test.name)
		}
		tree{test.dir + test.usage: test.more}.write(t, root)
		look()
		look()
		if c.tasks.tasks.Running != 1 {
			t.Errorf("%s: it has run, and %+v is seen", test.name, c.tasks.tasks)
		}
		// As long as one runs or waits for a CPU, usage tells nothing.
		thread(130, "130\t31", webNS, "R", 400400).write(t, root)
		look()
		if c.tasks.tasks.Running != 2 {
			t.Errorf("%s: a second one runs, and %+v is seen", test.name, c.tasks.tasks)
		}
	}
}

// reads is how often this thread has called read(2), and it costs one.
func reads(t *testing.T) (n int) {
	t.Helper()
	fd, err := unix.Open("/proc/thread-self/io", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	text := make([]byte, 512)
	size, err := unix.Read(fd, text)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text[:size]), "syscr: ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTasksIdleWithoutUsage: a group that does not say what it used is looked at each time.
func TestTasksIdleWithoutUsage(t *testing.T) {
	f := thread(100, "100\t1", webNS, "S", 400000)
	f[webDir+"cgroup.threads"] = "100\n"
	c, root, clock := asked(t, v2(web(), f, tree{webDir + "cpu.stat": "nr_periods 0\n"}))
	for _, state := range []string{"S", "R", "D"} {
		thread(100, "100\t1", webNS, state, 400000).write(t, root)
		*clock += tasksEvery
		got, err := c.Tasks()
		if err != nil || got.Running == 1 != (state == "R") || got.Blocked == 1 != (state == "D") {
			t.Errorf("%s: %+v, %v", state, got, err)
		}
	}
	if err := os.Remove(root + "/" + webDir + "cpu.stat"); err != nil {
		t.Fatal(err)
	}
	*clock += tasksEvery
	if got, err := c.Tasks(); got.Blocked != 1 || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}
