package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// osctld is vpsAdminOS's daemon for containers. These tests do what it did with LXCFS, file by file and with its layout of cgroups.

// osctldRun is the script from which runit starts a worker.
const osctldRun = `#!/bin/sh
mkdir -p "$1/mount"
umount "$1/mount" 2>/dev/null
exec %s --runtime-dir="$1" --pidfile="$1/pid" --enable-loadavg --enable-cfs "$1/mount"
`

// startOsctld starts a daemon so, and waits for it as osctld does: until the first line of cpuinfo can be read.
func startOsctld(t *testing.T) *daemon {
	t.Helper()
	dir := tempDir(t)
	script := filepath.Join(dir, "run")
	if err := os.WriteFile(script, fmt.Appendf(nil, osctldRun, lxcfsLink(t)), 0o755); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "mount")
	d := startDaemon(t, tree, dir, exec.Command(script, dir))
	if line, err := commandFor(20*time.Second, "head", "-n", "1", filepath.Join(tree, "proc/cpuinfo")); err != nil || !strings.HasPrefix(line, "processor") {
		t.Fatalf("cpuinfo begins with %q, %v", line, err)
	}
	if pid, err := os.ReadFile(filepath.Join(dir, "pid")); err != nil || strings.TrimSpace(string(pid)) != fmt.Sprint(d.cmd.Process.Pid) {
		t.Errorf("the pidfile says %q, %v; runit started %d", pid, err, d.cmd.Process.Pid)
	}
	return d
}

// mountFiles is Dir.glob("proc/*", base: mountpoint).
func (d *daemon) mountFiles() (files []string) {
	d.t.Helper()
	for _, name := range strings.Fields(command(d.t, "ls", filepath.Join(d.tree, "proc"))) {
		files = append(files, "proc/"+name)
	}
	return files
}

// osctldMount writes what osctld's hook ct-post-mount does: each file is bound where there is one, and the whole tree where there is a place for it.
func (d *daemon) osctldMount() string {
	d.t.Helper()
	script := fmt.Sprintf("#!/bin/sh -e\nfor f in %s; do\n\tif [ -e \"$LXC_ROOTFS_MOUNT/$f\" ]; then mount --bind \"%s/$f\" \"$LXC_ROOTFS_MOUNT/$f\"; fi\ndone\n",
		strings.Join(d.mountFiles(), " "), d.tree)
	script += fmt.Sprintf("if [ -d \"$LXC_ROOTFS_MOUNT/var/lib/lxcfs\" ]; then mount --bind %s \"$LXC_ROOTFS_MOUNT/var/lib/lxcfs\"; fi\n", d.tree)
	path := filepath.Join(tempDir(d.t), "ct-post-mount")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// osctlGroup makes the groups of a container, with limits on "ct.C" alone, and gives that one's path.
func osctlGroup(t *testing.T, user, ct string) string {
	t.Helper()
	path := filepath.Join("/osctl/pool."+uniqueName(), "group.default", "user."+user, "ct."+ct)
	var tops []string
	roots, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, root := range append(roots, "/sys/fs/cgroup") {
		tops = append(tops, filepath.Join(root, "osctl"))
	}
	t.Cleanup(func() {
		for _, top := range tops {
			removeEmpty(t, filepath.Join(top, strings.Split(path, "/")[2]))
			unix.Rmdir(top) // another run may have groups in it
		}
	})
	for _, controller := range usedControllers {
		dir, v2 := groupDir(t, "/", controller)
		for _, name := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
			if v2 && controller != "cpuacct" {
				writeFile(t, filepath.Join(dir, "cgroup.subtree_control"), "+"+controller)
			}
			above := dir
			dir = filepath.Join(dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
			if v2 || controller != "cpuset" {
				continue
			}
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				text, err := os.ReadFile(filepath.Join(above, file))
				if err != nil {
					t.Fatal(err)
				}
				writeFile(t, filepath.Join(dir, file), string(text))
			}
			writeFile(t, filepath.Join(dir, "cgroup.clone_children"), "1") // LXC fills them in beneath its own groups only
		}
	}
	limit := func(controller, v1, v1Value, v2, v2Value string) {
		dir, is2 := groupDir(t, path, controller)
		if is2 {
			v1, v1Value = v2, v2Value
		}
		writeFile(t, filepath.Join(dir, v1), v1Value)
	}
	limit("memory", "memory.limit_in_bytes", "314572800", "memory.max", "314572800")
	limit("cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000")
	return path
}

// removeEmpty removes a group and those beneath it: LXC leaves those that it made above its own.
func removeEmpty(t *testing.T, top string) {
	t.Helper()
	var dirs []string
	filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		poll(t, 10*time.Second, dir+" can be removed", func() bool {
			err := unix.Rmdir(dir)
			return err == nil || err == unix.ENOENT
		})
	}
}

func TestOsctld(t *testing.T) {
	lockLXC(t)
	d := startOsctld(t)
	if files := d.mountFiles(); slices.ContainsFunc(files, func(f string) bool { return strings.HasPrefix(f, "proc/.") }) || !slices.Contains(files, "proc/uptime") {
		t.Errorf("osctld would mount %q", files)
	}
	for name, start := range map[string]func(t *testing.T, o lxcOptions) *lxcContainer{
		"ct-post-mount": func(t *testing.T, o lxcOptions) *lxcContainer {
			o.hook = d.osctldMount()
			c := newLXC(t, d, o)
			c.nest()
			c.start()
			return c
		},
		"post-mount": d.postMount,
	} {
		t.Run(name, func(t *testing.T) {
			group := osctlGroup(t, "alice", "web")
			begin := time.Now()
			c := start(t, lxcOptions{group: strings.TrimPrefix(group, "/") + "/user-owned"})
			if name == "post-mount" {
				if device := c.attach("stat", "-c", "%d", "/proc/uptime"); device == c.attach("stat", "-c", "%d", "/var/lib/lxcfs/proc/uptime") {
					t.Errorf("/proc/uptime is the shared tree's (device %s), not the container's own", device)
				}
			}
			for _, o := range []observation{c.byInit(), c.attached()} {
				if o.MemTotal != 300<<20 || !slices.Equal(o.Processors, []int{0}) || o.Uptime < 0 || o.Uptime > time.Since(begin).Seconds() {
					t.Errorf("limits of 300 MiB and half a CPU on %s: MemTotal %d, processors %v, up %v s", group, o.MemTotal, o.Processors, o.Uptime)
				}
				var mounted []string
				for _, line := range o.Mounts {
					if f := strings.Fields(line); f[0] == "lxcfs" && f[2] == "fuse.lxcfs" {
						mounted = append(mounted, f[1])
					}
				}
				for _, file := range d.mountFiles() {
					if !slices.Contains(mounted, "/"+file) {
						t.Errorf("/%s is not among the mounts %q", file, mounted)
					}
				}
			}
			d.checkLoadavgs(t, c, group)
			c.stop()
		})
	}
}

// osctldScript is a mount hook of LXC's that waits for osctld, which runs the operator's script hooks.
const osctldScript = `#!/bin/sh
echo "$LXC_ROOTFS_MOUNT" >%[1]s/new && mv %[1]s/new %[1]s/mounted
while [ ! -e %[1]s/bound ]; do sleep 0.05; done
`

// postMount starts a container whose script hook "post-mount" is ours. As in osctld, it runs in the container's mount namespace alone.
func (d *daemon) postMount(t *testing.T, o lxcOptions) *lxcContainer {
	t.Helper()
	script, err := filepath.Abs("../share/vpsadminos/post-mount")
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	o.hook = filepath.Join(dir, "hook")
	if err := os.WriteFile(o.hook, fmt.Appendf(nil, osctldScript, dir), 0o755); err != nil {
		t.Fatal(err)
	}
	c := newLXC(t, d, o)
	c.nest()
	hook, done := ourHook(t), make(chan error, 1)
	go func() {
		var rootfs []byte
		for deadline := time.Now().Add(lxcLimit); len(rootfs) == 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			rootfs, _ = os.ReadFile(filepath.Join(dir, "mounted"))
		}
		cmd := exec.Command("nsenter", "--target", fmt.Sprint(initOf("lxc.payload."+c.name)), "--mount", script)
		cmd.Env = append(os.Environ(), "OSCTL_CT_ROOTFS_MOUNT="+strings.TrimSpace(string(rootfs)), fmt.Sprint("OSCTL_CT_NS_PID=", initOf("lxc.payload."+c.name)),
			"LENSFS_HOOK="+hook, "LENSFS_TREE="+d.tree, "LENSFS_VIEWS="+d.views)
		out, err := cmd.CombinedOutput()
		if err == nil && len(out) > 0 {
			err = fmt.Errorf("the hook says %q", out)
		}
		done <- errors.Join(err, os.WriteFile(filepath.Join(dir, "bound"), nil, 0o644))
	}()
	c.start()
	if err := <-done; err != nil {
		t.Errorf("%s: %v", script, err)
	}
	return c
}

// initOf finds the first process of the pid namespace of a group of this name.
func initOf(group string) int {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		groups, _ := os.ReadFile(p + "/cgroup")
		status, _ := os.ReadFile(p + "/status")
		if strings.Contains(string(groups), group) && regexp.MustCompile(`(?m)^NSpid:\s\d+\s1$`).Match(status) {
			pid, _ := strconv.Atoi(filepath.Base(p))
			return pid
		}
	}
	return 0
}

// checkLoadavgs reads proc/.loadavgs, which is the host's.
func (d *daemon) checkLoadavgs(t *testing.T, c *lxcContainer, group string) {
	t.Helper()
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(group) + `/user-owned/lxc\.payload\.` + regexp.QuoteMeta(c.name) + ` \d+\.\d\d \d+\.\d\d \d+\.\d\d \d+/\d+ \d+$`)
	if text := command(t, "cat", filepath.Join(d.tree, "proc/.loadavgs")); !line.MatchString(text) {
		t.Errorf(".loadavgs has no line like %s:\n%s", line, text)
	}
	out := c.attach("sh", "-c", "cat /proc/.loadavgs 2>&1; cat /var/lib/lxcfs/proc/.loadavgs 2>&1; true")
	if _, nested := os.Stat(filepath.Join(c.rootfs, "var/lib/lxcfs")); nested == nil && !strings.Contains(out, "Operation not permitted") || strings.Contains(out, "payload") {
		t.Errorf("a container reads of .loadavgs %q", out)
	}
}
