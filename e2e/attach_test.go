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

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// bare is a container without a container manager: a cgroup, pid and mount namespaces, a small root file system of its own.
type bare struct {
	t    *testing.T
	init int
}

// newBare starts one in a cgroup. before is done by the shell that is to become its init, when its root is made in the current directory and not yet
// gone into.
func newBare(t *testing.T, group, before string) *bare {
	t.Helper()
	script := fmt.Sprintf(`set -e
mount -t tmpfs %s %s
cd %[2]s
mkdir usr proc sys var var/lib tmp
mount --bind %[3]s/usr usr
for dir in bin sbin lib lib64; do [ ! -e %[3]s/$dir ] || ln -s usr/$dir $dir; done
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
%[4]s
pivot_root . .
cd /
umount -l . || :
echo ready
read wait || :
`, runName(), tempDir(t), debian(t), before)
	return startBare(t, group, script)
}

func startBare(t *testing.T, group, script string) *bare {
	t.Helper()
	outer := start(t, joining(processesOf(group), "unshare", "--pid", "--fork", "--mount", "sh", "-c", script))
	return &bare{t, child(t, outer)}
}

// command is what runs a command in the container.
func (b *bare) command(cmd ...string) []string {
	return append([]string{"nsenter", "-t", strconv.Itoa(b.init), "-p", "-m", "--"}, cmd...)
}

// memory gives what the container takes for its memory, in kB.
func (b *bare) memory() string {
	b.t.Helper()
	return totalOf(b.t, tool(b.t, b.command("cat", "/proc/meminfo")))
}

// views gives the mounts of a process that are views.
func views(t *testing.T, pid int) []*mountinfo.Info {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all, err := mountinfo.GetMountsFromReader(file, func(m *mountinfo.Info) (skip, stop bool) {
		onPath := strings.HasPrefix(m.Mountpoint, "/proc/") || strings.HasPrefix(m.Mountpoint, "/sys/") || m.Mountpoint == lxcTree
		return m.FSType != "fuse.lxcfs" || !onPath, false
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// attach runs the command and gives what it said.
func (d *daemon) attach(args ...string) (string, error) {
	d.t.Helper()
	cmd := d.command("attach", args...)
	return tryCommand(cmd.Path, cmd.Args[1:]...)
}

// attached attaches one container. It must succeed.
func (d *daemon) attached(pid int) string {
	d.t.Helper()
	out, err := d.attach(strconv.Itoa(pid))
	if err != nil {
		d.t.Fatalf("attach %d: %v", pid, err)
	}
	return out
}

// devices gives those of the two mounts of the daemon on the host.
func (d *daemon) devices() map[string]bool {
	d.t.Helper()
	found := map[string]bool{}
	for _, dir := range []string{d.tree, d.views} {
		mounts := mountsOn(d.t, dir)
		if len(mounts) == 0 {
			d.t.Fatalf("nothing is mounted on %s", dir)
		}
		m := mounts[len(mounts)-1]
		found[fmt.Sprintf("%d:%d", m.Major, m.Minor)] = true
	}
	return found
}

// onHostOnce checks that the host has nothing of the daemon but its two mounts.
func (d *daemon) onHostOnce() {
	d.t.Helper()
	devices := d.devices()
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !devices[fmt.Sprintf("%d:%d", m.Major, m.Minor)], false
	})
	if err != nil || len(mounts) != 2 {
		d.t.Errorf("the host has %d mounts of the daemon, not 2 (%v)", len(mounts), err)
		for _, m := range mounts {
			d.t.Log(m.Mountpoint)
		}
	}
}

// servesAll checks that all views of a process are of the daemon, and that none lies over another.
func (d *daemon) servesAll(pid int) {
	d.t.Helper()
	ours, seen, on := d.devices(), map[string]bool{}, map[int]string{}
	for _, m := range views(d.t, pid) {
		if !ours[fmt.Sprintf("%d:%d", m.Major, m.Minor)] {
			d.t.Errorf("%s is still another's", m.Mountpoint)
		}
		if on[m.Parent] == m.Mountpoint {
			d.t.Errorf("two views lie over each other on %s", m.Mountpoint)
		}
		seen[m.Mountpoint], on[m.ID] = true, m.Mountpoint
	}
	names := strings.Fields(command(d.t, "ls", d.tree+"/proc"))
	for _, name := range names {
		if !seen["/proc/"+name] {
			d.t.Errorf("/proc/%s is not served", name)
		}
	}
	if len(names) == 0 || !seen["/sys/devices/system/cpu"] {
		d.t.Errorf("served are %v", seen)
	}
}

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
