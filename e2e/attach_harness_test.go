package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
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
