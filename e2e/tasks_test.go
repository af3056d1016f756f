package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lensfs/cgroupview"

	"golang.org/x/sys/unix"
)

// taskGroups makes a group in the hierarchy of CPU time, where every container has one, and another two levels below, and puts nobody into them.
func taskGroups(t *testing.T) (dir, below string) {
	t.Helper()
	root, v2 := cgroupDir(t, os.Getpid(), "cpuacct")
	if v2 {
		root = hierarchy(t, "")
	}
	dir = filepath.Join(root, uniqueName())
	below = filepath.Join(dir, "a/b")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range []string{below, filepath.Join(dir, "a"), dir} {
			poll(t, 10*time.Second, "the cgroup "+d+" can be removed", func() bool {
				err := unix.Rmdir(d)
				return err == nil || err == unix.ENOENT
			})
		}
	})
	return dir, below
}

// TestTasks counts the tasks of a real pid namespace: threads, in groups at two depths, that run, sleep and are blocked.
func TestTasks(t *testing.T) {
	needRoot(t)
	needCommand(t, "python3")
	dir, below := taskGroups(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// init sleeps in four threads. Told to, it has a child spin in the group below, and one that waits for its own child as posix_spawn(3) does: in state D.
	c := exec.Command("python3", "-c", `
import os, sys, threading, time
for line in sys.stdin:
    if line == "threads\n":
        for i in range(3): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    elif line == "spin\n":
        pid = os.fork()
        if pid == 0:
            while True: pass
    elif line == "vfork\n":
        pid = os.fork()
        if pid == 0:
            # The child that it spawns waits for a writer of the pipe, and it for the child.
            os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)])
            os._exit(0)
    elif line == "end\n":
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    print(open("/proc/sys/kernel/ns_last_pid").read().strip(), flush=True)
`, fifo)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill() // init: all others end with it
		c.Wait()
	})
	answers := bufio.NewScanner(out)
	// tell has something done, and gives the last pid of the namespace, which only one who is inside can know.
	tell := func(what string) uint32 {
		t.Helper()
		if _, err := fmt.Fprintln(in, what); err != nil || !answers.Scan() {
			t.Fatalf("%s: %v, %v", what, err, answers.Err())
		}
		n, err := strconv.ParseUint(answers.Text(), 10, 32)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return uint32(n)
	}
	tell("nothing") // the interpreter may be a script that forks until it has begun
	pid := strconv.Itoa(c.Process.Pid)
	writeFile(t, filepath.Join(dir, "cgroup.procs"), pid)
	r, err := cgroupview.New(cgroupview.Options{Root: "/"})
	if err != nil {
		t.Fatal(err)
	}
	container := r.Of(uint32(c.Process.Pid))
	if container.IsHost() {
		t.Fatal("no container")
	}
	shows := func(what string, want func(cgroupview.Tasks) bool) {
		t.Helper()
		var last cgroupview.Tasks
		poll(t, 10*time.Second, what, func() bool {
			tasks, err := container.Tasks()
			if err != nil {
				t.Fatal(err)
			}
			if tasks != last {
				t.Logf("%s: %+v", what, tasks)
			}
			last = tasks
			return want(tasks)
		})
	}
	shows("one task that sleeps", func(s cgroupview.Tasks) bool { return s == cgroupview.Tasks{Total: 1, LastPid: 1} })
	last := tell("threads")
	shows("four threads", func(s cgroupview.Tasks) bool { return s == cgroupview.Tasks{Total: 4, LastPid: last} })
	last = tell("spin")
	children := strings.Fields(command(t, "cat", fmt.Sprintf("/proc/%s/task/%s/children", pid, pid)))
	if len(children) != 1 {
		t.Fatalf("children %q", children)
	}
	writeFile(t, filepath.Join(below, "cgroup.procs"), children[0])
	shows("one that runs, two groups below", func(s cgroupview.Tasks) bool {
		return s == cgroupview.Tasks{Total: 5, Running: 1, LastPid: last}
	})
	tell("end")
	shows("it has ended, and was the last", func(s cgroupview.Tasks) bool { return s == cgroupview.Tasks{Total: 4, LastPid: last} })
	last = tell("vfork")
	shows("one blocked", func(s cgroupview.Tasks) bool {
		return s.Total == 6 && s.Running == 0 && s.Blocked == 1 && s.LastPid >= last // the child's child may have begun after the answer
	})
}
