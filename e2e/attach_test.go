package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Attached twice, a container is left as it is the second time; and the directory for containers of its own gets the tree.
func TestAttach(t *testing.T) {
	needRoot(t)
	d := serve(t)
	b := newBare(t, newGroup(t, memoryLimit(200<<20)), "mkdir var/lib/lxcfs")
	pid := strconv.Itoa(b.init)
	host := b.memory()
	if out, err := d.attach("--dry-run", pid); err != nil || !strings.Contains(out, "would be put over the kernel's files") {
		t.Errorf("%v %s", err, out)
	}
	if got := views(t, b.init); len(got) > 0 || b.memory() != host {
		t.Fatalf("a dry run has put views over %d files", len(got))
	}
	if out := d.attached(b.init); !strings.Contains(out, " put over the kernel's files\n") {
		t.Errorf("it says %q", out)
	}
	d.servesAll(b.init)
	if got := b.memory(); got != strconv.Itoa(200<<10) {
		t.Errorf("it sees %s kB of memory", got)
	}
	if got := totalOf(t, tool(t, b.command("cat", lxcTree+"/proc/meminfo"))); got != strconv.Itoa(200<<10) {
		t.Errorf("a container in it would see %s kB of memory", got)
	}
	setCPUs(t, b.init, strconv.Itoa(hostCPUs(t)[0]))
	time.Sleep(50 * time.Millisecond)
	if got := strings.TrimSpace(tool(t, b.command("cat", "/sys/devices/system/cpu/online"))); got != strconv.Itoa(hostCPUs(t)[0]) {
		t.Errorf("it sees the CPUs %s", got)
	}
	before := mountinfoOf(t, b.init)
	if out := d.attached(b.init); !strings.Contains(out, "has them already") {
		t.Errorf("the second time it says %q", out)
	}
	if after := mountinfoOf(t, b.init); after != before {
		t.Errorf("the second time it has changed\n%s\nto\n%s", before, after)
	}
	d.onHostOnce()
}

// In a container with systemd mounts are shared, and its services have mount namespaces that receive them.
func TestAttachReachesServices(t *testing.T) {
	needRoot(t)
	needCommand(t, "lxcfs")
	d := serve(t)
	lxcfs, _ := startLXCFSProcess(t, "lxcfs")
	b := newBare(t, newGroup(t, memoryLimit(200<<20)), fmt.Sprintf("mount --bind %s/proc/meminfo proc/meminfo", lxcfs))
	tool(t, b.command("mount", "--make-rshared", "/"))
	service := start(t, append(b.command("unshare", "--mount", "--propagation", "slave"), "sleep", "600"))
	poll(t, 20*time.Second, "the service has a mount namespace", func() bool {
		pids := children(service)
		if len(pids) == 1 {
			ours, err1 := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", b.init))
			its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pids[0]))
			return err1 == nil && err2 == nil && ours != its
		}
		return false
	})
	pid := child(t, service)
	time.Sleep(100 * time.Millisecond) // it makes its mounts slaves
	out := d.attached(b.init)
	if !strings.Contains(out, "1 put in place of LXCFS's") {
		t.Errorf("it says %q", out)
	}
	for _, pid := range []int{b.init, pid} {
		d.servesAll(pid)
		if got := totalOf(t, command(t, "nsenter", "-t", strconv.Itoa(pid), "-p", "-m", "cat", "/proc/meminfo")); got != strconv.Itoa(200<<10) {
			t.Errorf("process %d sees %s kB", pid, got)
		}
	}
	if out := d.attached(pid); !strings.Contains(out, "has them already") {
		t.Errorf("of the service it says %q", out)
	}
	d.onHostOnce()
}

func mountinfoOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A daemon without own views gives the shared tree.
func TestAttachSharedTree(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	tree := filepath.Join(dir, "tree")
	d := startDaemon(t, tree, dir, exec.Command(binary, "serve", "--tree", tree, "--views", "", "--runtime-dir", dir))
	b := newBare(t, newGroup(t, memoryLimit(200<<20)), "")
	d.attached(b.init)
	if got := b.memory(); got != strconv.Itoa(200<<10) {
		t.Errorf("it sees %s kB of memory", got)
	}
	if out := d.attached(b.init); !strings.Contains(out, "has them already") {
		t.Errorf("the second time it says %q", out)
	}
}

// Keeper and worker have been killed, and nobody kept their connections: the next daemon heals what containers have of them.
func TestAttachHeals(t *testing.T) {
	needRoot(t)
	d := serve(t)
	above := newGroup(t, memoryLimit(500<<20))
	say := []string{"sh", "-c", `while read -r line; do eval "$line"; done`}
	const ask = `grep MemTotal /proc/meminfo 2>&1 || echo; cut -d. -f1 /proc/uptime`
	containers := []*container{
		d.container([]string{"--memory", "100M", "--cgroup-parent", above}, say...),
		d.container([]string{"--memory", "200M", "--cgroup-parent", above, "--tree", d.tree}, say...),
	}
	for _, c := range containers {
		c.ask("echo up")
	}
	d.kill()
	for _, c := range containers {
		if got := c.ask("cat /proc/meminfo 2>&1"); !strings.Contains(got, "not connected") {
			t.Errorf("the daemon is dead, and a container reads %q", got)
		}
	}
	d.again()
	out, err := d.attach("--all", "--lxcfs-only", "--beneath", above)
	if err != nil || strings.Count(out, "put in place of LXCFS's or dead ones") != len(containers) {
		t.Errorf("%v %s", err, out)
	}
	for i, c := range containers {
		d.servesAll(c.init)
		if got, want := totalOf(t, c.ask(ask)+"\n"), strconv.Itoa((i+1)*100<<10); got != want {
			t.Errorf("healed, it sees %s kB, not %s", got, want)
		}
		c.line()
	}
	out, err = d.attach("--all", "--lxcfs-only", "--beneath", above)
	if err != nil || !strings.Contains(out, "there is no such container") {
		t.Errorf("%v %s", err, out)
	}
	d.onHostOnce()
	for _, c := range containers {
		c.close()
	}
}

// stopProcess has a server hang until the test is over.
func stopProcess(t *testing.T, p *os.Process) {
	t.Helper()
	if err := p.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Signal(unix.SIGCONT) })
}

// attachWords gives what the command said of a process.
func attachWords(out string, pid int) string {
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == strconv.Itoa(pid) {
			return strings.Join(f[2:], " ")
		}
	}
	return ""
}

// noneLeft waits until no process is in a container any more to attach it.
func noneLeft(t *testing.T) {
	t.Helper()
	poll(t, 30*time.Second, "what went into containers has ended", func() bool {
		procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range procs {
			if text, _ := os.ReadFile(p); string(text) == "lensfs\x00attach-child\x00" {
				return false
			}
		}
		return true
	})
}

// With --all a container that fails stops nobody, and what is none is left alone.
func TestAttachAll(t *testing.T) {
	skipSlow(t)
	needRoot(t)
	needCommand(t, "lxcfs")
	d := serve(t)
	above := newGroup(t, memoryLimit(500<<20))
	group := func() string { return newGroup(t, memoryLimit(100<<20), above) }
	lxcfs, _ := startLXCFSProcess(t, "lxcfs")
	hung, server := startLXCFSProcess(t, "lxcfs")
	first := newBare(t, group(), "")
	stuck := startBare(t, group(), fmt.Sprintf("set -e; mount --bind %s %[1]s; cd %[1]s; pivot_root . .; cd /; echo ready; read wait || :", hung))
	old := newBare(t, group(), fmt.Sprintf("mount --bind %s/proc/meminfo proc/meminfo", lxcfs))
	last := newBare(t, group(), "")
	has := d.container([]string{"--memory", "100M", "--cgroup-parent", above}, "sh", "-c", "echo up; sleep 600")
	has.line()
	// As systemd's services: PrivateMounts, and PrivatePIDs.
	mounts := child(t, start(t, joining(processesOf(group()), "unshare", "--mount", "--fork", "sleep", "600")))
	pids := child(t, start(t, joining(processesOf(group()), "unshare", "--pid", "--fork", "--mount", "--mount-proc", "sleep", "600")))
	everything, _ := d.attach("--all", "--dry-run") // others may have containers here, which may be ending
	for pid, listed := range map[int]bool{first.init: true, stuck.init: true, has.init: true, mounts: false, pids: false, 1: false, d.worker(): false} {
		if got := attachWords(everything, pid); (got != "") != listed {
			t.Errorf("of process %d among all it says %q", pid, got)
		}
	}
	stopProcess(t, server)
	time.Sleep(time.Second) // LXCFS lets the kernel keep names for half of one

	only, err := d.attach("--all", "--dry-run", "--lxcfs-only", "--beneath", above)
	if err != nil || strings.Count(only, "\n") != 2 || !strings.Contains(attachWords(only, old.init), "1 would be put in place") {
		t.Errorf("%v: only one container has views of LXCFS:\n%s", err, only)
	}
	cmd := d.command("attach", "--all", "--beneath", above)
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	begin := time.Now()
	err = cmd.Run()
	out := log.String()
	t.Logf("after %v:\n%s", time.Since(begin), out)
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "1 of 5 containers") {
		t.Errorf("one of five must have failed: %v", err)
	}
	if took := time.Since(begin); took > time.Minute*time.Duration(rounds(1, 3)) {
		t.Errorf("it waited %v for one that does not answer", took)
	}
	for pid, want := range map[int]string{first.init: "put over", old.init: "1 put in place", last.init: "put over", has.init: "has them already", stuck.init: "did not answer", mounts: "", pids: ""} {
		if got := attachWords(out, pid); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("of process %d it says %q, not %q", pid, got, want)
		}
	}
	for _, b := range []*bare{first, old, last} {
		d.servesAll(b.init)
		if got := b.memory(); got != strconv.Itoa(100<<10) {
			t.Errorf("process %d sees %s kB", b.init, got)
		}
	}
	for _, pid := range []int{mounts, pids, stuck.init} {
		if got := views(t, pid); len(got) > 0 {
			t.Errorf("process %d has %d views", pid, len(got))
		}
	}
	d.onHostOnce()
	noneLeft(t)
}
