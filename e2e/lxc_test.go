package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lxcTree is where Debian's hook, which these tests run as it is, looks for the views.
const lxcTree = "/var/lib/lxcfs"

const (
	lxcHook   = "/usr/share/lxcfs/lxc.mount.hook"
	lxcCommon = "/usr/share/lxc/config/common.conf" // includes common.conf.d, where the package lxcfs puts its hook
	lxcUserNS = "/usr/share/lxc/config/userns.conf"
)

// lxcIDs is the first id of the host that an unprivileged container of root gets, and how many there are.
const (
	lxcIDs     = 666000
	lxcIDCount = 65536
)

// TestLXC starts containers as users of LXC do, two at a time, and has each look at itself from its own init and from a process sent in.
func TestLXC(t *testing.T) {
	lockLXC(t)
	d := serveAt(t, lxcTree, tempDir(t))
	forEachHook(t, func(t *testing.T, o lxcOptions) {
		n := len(hostCPUs(t))
		o.memory, o.cpuset = 300<<20, fmt.Sprintf("1-%d", n-1)
		left, seesLeft := newLXC(t, d, o), machine{memory: 300 << 20, firstCPU: 1, cpus: n - 1}
		o.memory, o.cpuset, o.quota = 700<<20, "", float64(n)/2-0.5
		right, seesRight := newLXC(t, d, o), machine{memory: 700 << 20, firstCPU: 0, cpus: n / 2}
		right.nest()

		left.start()
		right.start()
		seesLeft.check(t, left.byInit())
		seesRight.check(t, right.byInit())
		seesLeft.check(t, left.attached())
		seesRight.check(t, right.attached())
		if out := right.attach("grep", "MemTotal", lxcTree+"/proc/meminfo"); out != fmt.Sprintf("MemTotal:       %8d kB\n", 700<<10) {
			t.Errorf("the tree that a container was given for containers of its own shows %q", out)
		}

		left.stop()
		begin := time.Now()
		left.start()
		again := left.byInit()
		seesLeft.check(t, again)
		if age := time.Since(begin).Seconds(); again.Uptime > age {
			t.Errorf("started again under the same name %v s ago, the container has been up for %v s", age, again.Uptime)
		}
		seesLeft.check(t, left.attached())
		seesRight.check(t, right.attached()) // has not noticed
	})
}

// TestLXCInnerGroup has LXC put the container's processes deeper than the limits are, as its documentation recommends for systemd in it.
func TestLXCInnerGroup(t *testing.T) {
	lockLXC(t)
	d := serveAt(t, lxcTree, tempDir(t))
	forEachHookAs(t, true, func(t *testing.T, o lxcOptions) {
		o.memory, o.cpuset, o.inner = 300<<20, "1", "inner"
		c := newLXC(t, d, o)
		c.start()
		sees := machine{memory: 300 << 20, firstCPU: 1, cpus: 1}
		sees.check(t, c.byInit())
		sees.check(t, c.attached())
	})
}

// TestLXCWithoutDaemon: the hooks let a container start that gets no views.
func TestLXCWithoutDaemon(t *testing.T) {
	lockLXC(t)
	check := func(t *testing.T, c *lxcContainer) {
		c.start()
		o := c.byInit()
		if len(o.Mounts) > 0 {
			t.Errorf("nobody serves %s, but a container has views: %q", lxcTree, o.Mounts)
		}
		if o.MemTotal <= 300<<20 {
			t.Errorf("nobody serves %s, but a container has a machine of its own: MemTotal %d", lxcTree, o.MemTotal)
		}
		c.stop()
	}
	var d *daemon
	starts := func(t *testing.T, o lxcOptions) {
		o.memory = 300 << 20
		check(t, newLXC(t, d, o))
		if o.hook == "" {
			return // Debian's fails where it has a place for a tree of its own
		}
		nested := newLXC(t, d, o)
		nested.nest()
		check(t, nested)
	}
	t.Run("never started", func(t *testing.T) { forEachHookAs(t, true, starts) })
	d = serveAt(t, lxcTree, tempDir(t))
	d.kill()
	t.Run("killed", func(t *testing.T) { forEachHookAs(t, false, starts) })
}

// forEachHook runs a test with Debian's hook and with ours, privileged and not.
func forEachHook(t *testing.T, test func(*testing.T, lxcOptions)) {
	for _, privileged := range []bool{true, false} {
		forEachHookAs(t, privileged, test)
	}
}

// ourHook puts our hook where an unprivileged container may read it.
func ourHook(t *testing.T) string {
	t.Helper()
	ours, err := os.ReadFile("../share/lxc/lxc.mount.hook")
	if err != nil {
		t.Fatal(err)
	}
	hook := filepath.Join(tempDir(t), "hook")
	if err := os.WriteFile(hook, ours, 0o755); err != nil {
		t.Fatal(err)
	}
	return hook
}

func forEachHookAs(t *testing.T, privileged bool, test func(*testing.T, lxcOptions)) {
	hook := ourHook(t)
	kind := "unprivileged"
	if privileged {
		kind = "privileged"
	}
	t.Run("LXCFS hook, "+kind, func(t *testing.T) { test(t, lxcOptions{privileged: privileged}) })
	t.Run("lensfs hook, "+kind, func(t *testing.T) { test(t, lxcOptions{privileged: privileged, hook: hook}) })
}

// lockLXC waits until no other run of these tests uses the one directory that the hook knows, and keeps them waiting until this test is over.
func lockLXC(t *testing.T) {
	t.Helper()
	needRoot(t)
	needCommand(t, "lxc-start", "lxc-attach", "lxc-stop")
	for _, file := range []string{lxcHook, lxcCommon} {
		if _, err := os.Stat(file); err != nil {
			skip(t, fmt.Sprintf("needs the packages lxc and lxcfs (its daemon must not run): %v", err))
		}
	}
	if len(hostCPUs(t)) < 2 {
		skip(t, "needs two CPUs")
	}
	lock, err := os.Open(filepath.Dir(lxcTree))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	poll(t, 5*time.Minute, "no other run uses "+lxcTree, func() bool {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		return err == nil
	})
	if on := mountedOn(t, lxcTree); on != "" {
		t.Fatalf("somebody has a %s file system on %s: stop it (service lxcfs stop; a lensfs of yours), or umount what a dead one left", on, lxcTree)
	}
}
