package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// lxcOptions say what a container is like; for limits, 0 and "" are none.
type lxcOptions struct {
	privileged bool
	hook       string // "": that of Debian's package lxcfs, which LXC's own configuration names
	inner      string // cgroup below the limits
	group      string // of the host, in which LXC makes the container's
	memory     int64
	swap       int64 // beside the memory
	cpuset     string
	quota      float64 // CPUs
}

// limits writes them for the version of cgroups that is mounted.
func (l lxcOptions) limits() string {
	keys := [4]string{"lxc.cgroup.memory.limit_in_bytes = %d\n", "lxc.cgroup.cpuset.cpus = %s\n", "lxc.cgroup.cpu.cfs_period_us = 100000\nlxc.cgroup.cpu.cfs_quota_us = %d\n",
		"lxc.cgroup.memory.memsw.limit_in_bytes = %d\n"}
	swap := l.memory + l.swap // v1 limits the two together
	if cgroups.Mode() == cgroups.Unified {
		keys = [4]string{"lxc.cgroup2.memory.max = %d\n", "lxc.cgroup2.cpuset.cpus = %s\n", "lxc.cgroup2.cpu.max = %d 100000\n", "lxc.cgroup2.memory.swap.max = %d\n"}
		swap = l.swap
	}
	var s string
	if l.memory > 0 {
		s += fmt.Sprintf(keys[0], l.memory)
	}
	if l.swap > 0 {
		s += fmt.Sprintf(keys[3], swap)
	}
	if l.cpuset != "" {
		s += fmt.Sprintf(keys[1], l.cpuset)
	}
	if l.quota > 0 {
		s += fmt.Sprintf(keys[2], int(l.quota*100000))
	}
	return s
}

// lxcContainer is a container of Debian's LXC. It ends with the test.
type lxcContainer struct {
	t      *testing.T
	name   string
	dir    string // of lxc-start -P
	rootfs string // an overlay on the cached Debian
	views  string // for our hook
	tree   string // for our hook too
	log    string
}

// newLXC makes a container, to be served by d if there is one.
func newLXC(t *testing.T, d *daemon, o lxcOptions) *lxcContainer {
	t.Helper()
	dir := tempDir(t)
	c := &lxcContainer{t: t, name: uniqueName(), dir: dir, rootfs: filepath.Join(dir, "rootfs"), views: filepath.Join(dir, "none"), tree: lxcTree, log: filepath.Join(dir, "log")}
	if d != nil {
		c.views = d.views
	}
	c.mountRootfs(debian(t))
	if err := os.WriteFile(filepath.Join(c.rootfs, "observe.py"), []byte(observe), 0o755); err != nil {
		t.Fatal(err)
	}
	if !o.privileged {
		c.command("chown", "-R", "--no-dereference", fmt.Sprintf("%d:%[1]d", lxcIDs), c.rootfs)
	}
	c.configure(o, "/usr/bin/python3 /observe.py init")
	return c
}

// configure writes the container's configuration, and has it end with the test.
func (c *lxcContainer) configure(o lxcOptions, init string, more ...string) {
	t := c.t
	t.Helper()
	// Without LXC's AppArmor profile: a machine may have AppArmor in its kernel and nothing that loads profiles.
	config := []string{"lxc.include = " + lxcCommon, "lxc.apparmor.profile = unconfined"}
	if o.hook != "" {
		config = append(config, "lxc.hook.mount =", "lxc.hook.mount = "+o.hook)
	}
	if o.inner != "" {
		config = append(config, "lxc.cgroup.dir.monitor = monitor."+c.name, "lxc.cgroup.dir.container = container."+c.name, "lxc.cgroup.dir.container.inner = "+o.inner)
	}
	if o.group != "" {
		config = append(config, "lxc.cgroup.dir = "+o.group)
	}
	if !o.privileged {
		needIDs(t)
		ids := fmt.Sprintf("0 %d %d", lxcIDs, lxcIDCount)
		config = append(config, "lxc.include = "+lxcUserNS, "lxc.idmap = u "+ids, "lxc.idmap = g "+ids)
	}
	config = append(config, more...)
	config = append(config, "lxc.uts.name = "+c.name, "lxc.rootfs.path = dir:"+c.rootfs, "lxc.net.0.type = empty", "lxc.init.cmd = "+init, o.limits())
	if err := os.Mkdir(filepath.Join(c.dir, c.name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, c.name, "config"), []byte(strings.Join(config, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(c.log)
			t.Logf("the log of container %s:\n%s", c.name, log)
		}
		c.stop()
	})
}

// nest makes the place where hooks give a container the whole tree, for containers of its own.
func (c *lxcContainer) nest() {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Join(c.rootfs, lxcTree), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// debian gives the root file system that containers are made of; it must not be changed.
func debian(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("LENSFS_ROOTFS"); dir != "" {
		return dir
	}
	out, err := exec.Command("./rootfs.sh").Output() // takes a minute the first time
	if err != nil {
		skip(t, fmt.Sprintf("needs a root file system: set LENSFS_ROOTFS, or see why rootfs.sh failed: %v", err))
	}
	return strings.TrimSpace(string(out))
}

// mountRootfs makes a root file system of the container's own, which shares with debian what it does not change:
// metacopy keeps the content shared when the owner changes.
func (c *lxcContainer) mountRootfs(debian string) {
	c.t.Helper()
	upper, work := filepath.Join(c.dir, "upper"), filepath.Join(c.dir, "work")
	for _, dir := range []string{upper, work, c.rootfs} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	options := fmt.Sprintf("metacopy=on,lowerdir=%s,upperdir=%s,workdir=%s", debian, upper, work)
	if err := unix.Mount(c.name, c.rootfs, "overlay", 0, options); err != nil {
		c.t.Fatalf("mount an overlay on %s: %v", debian, err)
	}
	c.t.Cleanup(func() {
		if err := unix.Unmount(c.rootfs, unix.MNT_DETACH); err != nil {
			c.t.Error(err)
		}
	})
}

// needIDs looks for what root must have been allowed for unprivileged containers.
func needIDs(t *testing.T) {
	t.Helper()
	line := fmt.Sprintf("root:%d:%d", lxcIDs, lxcIDCount)
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		text, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(text), "\n"), line) {
			t.Fatalf("%s has no line %s: run e2e/setup.sh", file, line)
		}
	}
}

func (c *lxcContainer) start() {
	c.t.Helper()
	os.Remove(filepath.Join(c.rootfs, "observed"))
	c.command("env", "LENSFS_VIEWS="+c.views, "LENSFS_TREE="+c.tree, "lxc-start", "-P", c.dir, "-n", c.name, "-l", "DEBUG", "-o", c.log)
}

// stop kills the container, if it runs, and waits until LXC has removed its cgroups.
func (c *lxcContainer) stop() {
	c.t.Helper()
	if state, _ := tryCommand("lxc-info", "-P", c.dir, "-n", c.name, "-s", "-H"); strings.TrimSpace(state) != "STOPPED" {
		c.command("lxc-stop", "-P", c.dir, "-n", c.name, "-k")
	}
	poll(c.t, lxcLimit, "the cgroups of "+c.name+" are gone", func() bool {
		one, _ := filepath.Glob("/sys/fs/cgroup/*" + c.name)
		each, _ := filepath.Glob("/sys/fs/cgroup/*/*" + c.name)
		return len(one)+len(each) == 0
	})
}

// lxcLimit is how long anything may take; in the virtual machine, with others beside it, a second becomes many.
const lxcLimit = 3 * time.Minute

// command runs a program. If that takes too long, it tells what the container's processes are waiting for.
func (c *lxcContainer) command(name string, args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), lxcLimit)
	if c.t.Context().Err() != nil { // the test is over, and cleans up
		ctx, cancel = context.WithTimeout(context.Background(), lxcLimit)
	}
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, time.Second
	cmd.Cancel = func() error {
		c.t.Log(c.processes())
		return cmd.Process.Kill()
	}
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &errs, &out)
	}
	return out.String()
}

// processes tells of those in the container, and of LXC's that have to do with it.
func (c *lxcContainer) processes() string {
	var s strings.Builder
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		cmdline, _ := os.ReadFile(p + "/cmdline")
		groups, _ := os.ReadFile(p + "/cgroup")
		if !strings.Contains(string(cmdline)+string(groups), c.name) {
			continue
		}
		stat, _ := os.ReadFile(p + "/stat")
		stack, _ := os.ReadFile(p + "/stack")
		fmt.Fprintf(&s, "%s: %q\n%s%s", p, cmdline, stat, stack)
	}
	return s.String()
}

// attach runs a command in the container, sent in from outside.
func (c *lxcContainer) attach(cmd ...string) string {
	c.t.Helper()
	return c.command("lxc-attach", append([]string{"-P", c.dir, "-n", c.name, "--clear-env", "--"}, cmd...)...)
}

// attached gives what a process sent in sees.
func (c *lxcContainer) attached() observation {
	c.t.Helper()
	return c.parse(c.attach("/usr/bin/python3", "/observe.py"))
}

// byInit gives what the container's init saw when it started.
func (c *lxcContainer) byInit() observation {
	c.t.Helper()
	var text []byte
	poll(c.t, lxcLimit, "init has written what it saw", func() bool {
		var err error
		text, err = os.ReadFile(filepath.Join(c.rootfs, "observed"))
		return err == nil
	})
	return c.parse(string(text))
}

func (c *lxcContainer) parse(text string) observation {
	c.t.Helper()
	var o observation
	if err := json.Unmarshal([]byte(text), &o); err != nil || o.Error != "" {
		c.t.Fatalf("container %s could not look at itself: %v %s\n%s", c.name, err, o.Error, text)
	}
	return o
}
