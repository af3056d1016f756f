package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRunForwardsSignals(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2} {
		name := strings.TrimPrefix(unix.SignalName(s), "SIG")
		c := d.container(nil, "sh", "-c", "trap 'echo got "+name+"; exit 5' "+name+"; echo ready; while :; do sleep 0.01; done")
		if got := c.line(); got != "ready" {
			t.Fatal(got)
		}
		if err := c.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if got := c.line(); got != "got "+name {
			t.Errorf("%v: %q", s, got)
		}
		c.cmd.Wait()
		if got := c.cmd.ProcessState.ExitCode(); got != 5 {
			t.Errorf("%v: status %d", s, got)
		}
	}
}

// groupsAndProcesses lists what there is of a container: its cgroups, and the processes in them.
func groupsAndProcesses(name string) []string {
	found := leftGroups(name)
	procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, p := range procs {
		if text, _ := os.ReadFile(p); strings.Contains(string(text), "/lensfs.run."+name) {
			found = append(found, p)
		}
	}
	return found
}

func leftGroups(name string) (found []string) {
	for _, l := range leftovers() {
		if strings.Contains(l, "lensfs.run."+name) {
			found = append(found, l)
		}
	}
	return found
}

// TestRunEndsBeforeItBegins: what is told to end while the container is still being made does not get lost. With a hundredth of a CPU that takes a while.
func TestRunEndsBeforeItBegins(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, time.Second} {
		name := uniqueName()
		cmd := exec.Command(binary, d.runArgs([]string{"--name", name, "--cpus", "0.01"}, "sleep", "1000")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		poll(t, 10*time.Second, "there is a process in its cgroup", func() bool { return len(groupsAndProcesses(name)) > len(leftGroups(name)) })
		time.Sleep(after)
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		lost := time.AfterFunc(patience(10*time.Second), func() { cmd.Process.Kill() })
		cmd.Wait()
		lost.Stop()
		if got := cmd.ProcessState.ExitCode(); got != 128+int(unix.SIGTERM) {
			t.Errorf("told to end %v after it was in its cgroup: %v", after, cmd.ProcessState)
		}
		poll(t, 5*time.Second, "the container has gone", func() bool { return len(groupsAndProcesses(name)) == 0 })
	}
}

// However run ends, there is nothing left of the container a moment later.
func TestRunKilled(t *testing.T) {
	needRoot(t)
	d := serve(t)
	c := d.container([]string{"--memory", "256M"}, "sh", "-c", "setsid sleep 1000 & sh -c 'trap \"\" TERM HUP; sleep 1000 & sleep 1000 & echo ready; wait'; wait")
	if got := c.line(); got != "ready" {
		t.Fatal(got)
	}
	if len(groupsAndProcesses(c.name)) == 0 {
		t.Fatal("a running container is not found: this test sees nothing")
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.cmd.Wait()
	poll(t, 5*time.Second, "the killed container has gone", func() bool { return len(groupsAndProcesses(c.name)) == 0 })
	d.alive()
}

// When the command ends, what it has left in the background ends too.
func TestRunEndsTheRest(t *testing.T) {
	needRoot(t)
	d := serve(t)
	name := uniqueName()
	d.run([]string{"--name", name}, "sh", "-c", "(trap '' TERM HUP; setsid sleep 1000) >/dev/null 2>&1 & exit 0")
	if left := groupsAndProcesses(name); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Init reaps the orphans that it is handed.
func TestRunReaps(t *testing.T) {
	needRoot(t)
	d := serve(t)
	d.run(nil, "sh", "-c", `for i in $(seq 150); do (sleep 0.1 & exec true) & done; wait
		for i in $(seq 100); do sleep 0.05; cat /proc/[0-9]*/status 2>/dev/null | grep -q -e '^State:.*Z' -e '^Name:.*sleep' || exit 0; done; ps ax; exit 1`)
}
