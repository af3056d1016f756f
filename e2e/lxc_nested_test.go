package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLXCNested starts a container in a container, with LXC in both. The inner one is shown its own limits, through the tree that the outer one was given
// for its containers, and by the outer one's hook: it has no other way to the host's daemon.
func TestLXCNested(t *testing.T) {
	lockLXC(t)
	d := serveAt(t, lxcTree, tempDir(t))
	forEachHookAs(t, true, func(t *testing.T, o lxcOptions) {
		o.memory, o.cpuset = 300<<20, "0-1"
		c := newMachine(t, d, o, "/usr/bin/python3 /observe.py init", "lxc.mount.auto = cgroup:rw:force")
		c.start()
		sees := machine{memory: 300 << 20, cpus: 2}
		sees.check(t, c.byInit())

		inner := innerLXC(t, c, o.hook)
		c.attach("sh", "-euc", moveAside+"lxc-start -P /inner -n inner -l DEBUG -o /inner/log")
		within := machine{memory: 100 << 20, firstCPU: 1, cpus: 1}
		within.check(t, inner.byInit())
		within.check(t, inner.parse(c.attach("lxc-attach", "-P", "/inner", "-n", "inner", "--clear-env", "--", "/usr/bin/python3", "/observe.py")))
		sees.check(t, c.attached())

		init := innerInit(t, c)
		setMemory(t, init, 150<<20)
		setCPUs(t, init, "0-1")
		within = machine{memory: 150 << 20, cpus: 2}
		within.check(t, inner.parse(c.attach("lxc-attach", "-P", "/inner", "-n", "inner", "--clear-env", "--", "/usr/bin/python3", "/observe.py")))
		c.attach("lxc-stop", "-P", "/inner", "-n", "inner", "-k")
	})
}

// moveAside moves the outer container's processes out of the cgroup in which LXC is to make those of containers: in v2, what has processes cannot pass
// controllers on. In a container with systemd that has been done already; LXC knows the name that it gives.
const moveAside = `
if cd /sys/fs/cgroup && [ -f cgroup.procs ]; then
mkdir -p init.scope
for pid in $(cat cgroup.procs); do echo $pid >init.scope/cgroup.procs || true; done 2>/dev/null
echo +memory +cpu +cpuset >cgroup.subtree_control
fi
`

// innerInit gives the init of a container in c, as the host numbers it.
func innerInit(t *testing.T, c *lxcContainer) int {
	t.Helper()
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		groups, _ := os.ReadFile(p + "/cgroup")
		status, _ := os.ReadFile(p + "/status")
		_, rest, _ := strings.Cut(string(status), "NSpid:")
		line, _, _ := strings.Cut(rest, "\n")
		if f := strings.Fields(line); strings.Contains(string(groups), c.name+"/") && len(f) > 2 && f[len(f)-1] == "1" {
			pid, _ := strconv.Atoi(f[0])
			return pid
		}
	}
	t.Fatal("the inner container has no init")
	return 0
}

// innerLXC makes a container for the LXC in c, of the root file system that the machine has for containers.
func innerLXC(t *testing.T, c *lxcContainer, hook string) *lxcContainer {
	t.Helper()
	inner := &lxcContainer{t: t, name: "inner", rootfs: filepath.Join(c.rootfs, debian(t))}
	if err := os.WriteFile(filepath.Join(inner.rootfs, "observe.py"), []byte(observe), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(c.rootfs, "inner/inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := []string{"lxc.include = " + lxcCommon, "lxc.apparmor.profile = unconfined", "lxc.uts.name = inner", "lxc.rootfs.path = dir:" + debian(t),
		"lxc.net.0.type = empty", "lxc.init.cmd = /usr/bin/python3 /observe.py init", lxcOptions{memory: 100 << 20, cpuset: "1"}.limits()}
	if hook != "" {
		text, err := os.ReadFile(hook)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.rootfs, "inner/hook"), text, 0o755); err != nil {
			t.Fatal(err)
		}
		config = append(config, "lxc.hook.mount =", "lxc.hook.mount = /inner/hook")
	}
	if err := os.WriteFile(filepath.Join(c.rootfs, "inner/inner/config"), []byte(strings.Join(config, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(c.rootfs, "inner/log"))
			t.Logf("the log of the inner container:\n%s", log)
		}
	})
	return inner
}

// TestLXCSystemd has systemd as init of a container, privileged and not: what it starts sees what all of the container does, and so does what is sent in.
func TestLXCSystemd(t *testing.T) {
	needCommand(t, systemdInit, "systemctl", "systemd-run")
	lockLXC(t)
	d := serveAt(t, lxcTree, tempDir(t))
	for _, privileged := range []bool{true, false} {
		if privileged && testing.Short() {
			continue // half a minute of an emulated machine
		}
		t.Run(fmt.Sprintf("privileged %v", privileged), func(t *testing.T) {
			o := lxcOptions{privileged: privileged, hook: ourHook(t), memory: 300 << 20, cpuset: "0-1", quota: 1.5}
			c := newMachine(t, d, o, systemdInit+" systemd.unit=basic.target") // and not the services of this machine
			c.start()
			poll(t, lxcLimit, "systemd has started", func() bool {
				state, _ := tryCommand("lxc-attach", "-P", c.dir, "-n", c.name, "--clear-env", "--", "systemctl", "is-system-running")
				return strings.Contains(state, "running") || strings.Contains(state, "degraded")
			})
			t.Logf("systemd: %q failed", c.attach("systemctl", "list-units", "--failed", "--no-legend", "--plain"))
			sees := machine{memory: 300 << 20, cpus: 2}
			sees.check(t, c.attached())
			sees.check(t, c.parse(c.attach("systemd-run", "--quiet", "--wait", "--pipe", "-p", "MemoryMax=200M", "-p", "AllowedCPUs=1", "/usr/bin/python3", "/observe.py")))
			if virt := strings.TrimSpace(c.attach("systemd-detect-virt")); virt != "lxc" {
				t.Errorf("systemd takes it for %q", virt)
			}
		})
	}
}

const systemdInit = "/lib/systemd/systemd"

// newMachine is newLXC with a rootfs like the machine's own, with all programs that this has: LXC, systemd.
func newMachine(t *testing.T, d *daemon, o lxcOptions, init string, more ...string) *lxcContainer {
	t.Helper()
	dir := tempDir(t)
	c := &lxcContainer{t: t, name: uniqueName(), dir: dir, rootfs: filepath.Join(dir, "rootfs"), views: d.views, log: filepath.Join(dir, "log")}
	lower, upper := filepath.Join(dir, "lower"), filepath.Join(dir, "upper")
	for _, sub := range []string{lower, upper, c.rootfs} {
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	owner := 0
	options := "bind"
	if !o.privileged {
		needIDs(t)
		owner = lxcIDs
		options += fmt.Sprintf(",X-mount.idmap=b:0:%d:%d", lxcIDs, lxcIDCount)
	}
	command(t, "mount", "-o", options, "/", lower)
	unmountWithTest(t, lower)
	if err := unix.Mount(c.name, upper, "tmpfs", 0, "mode=755"); err != nil { // not in the file system that lies below
		t.Fatal(err)
	}
	unmountWithTest(t, upper)
	for _, sub := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(upper, sub), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(upper, sub), owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(c.name, c.rootfs, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%[2]s/work", lower, upper)); err != nil {
		t.Fatalf("mount an overlay on /: %v", err)
	}
	unmountWithTest(t, c.rootfs)
	c.nest()
	if err := os.WriteFile(filepath.Join(c.rootfs, "observe.py"), []byte(observe), 0o755); err != nil {
		t.Fatal(err)
	}
	c.configure(o, init, more...)
	return c
}

func unmountWithTest(t *testing.T, dir string) {
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Error(err)
		}
	})
}
