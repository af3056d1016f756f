package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestIncus starts instances as users of Incus do: with one daemon for all, and with an LXCFS of each instance's own, which is our binary under that name.
func TestIncus(t *testing.T) {
	needMachine(t, incusd, "incus")
	lockLXC(t)
	i := startIncus(t)
	t.Run("one daemon for all", func(t *testing.T) { i.of(t).oneForAll() })
	i.run("config", "set", "instances.lxcfs.per_instance=true")
	t.Run("one for each", func(t *testing.T) {
		hookOfIncus(t, filepath.Join(tempDir(t), "none"))
		i.of(t).oneForEach()
	})
}

// oneForAll has an instance look at itself while its limits change, and read while the daemon is killed and upgraded.
func (i *incus) oneForAll() {
	t := i.t
	d := serveAt(t, lxcTree, tempDir(t))
	d.warnings = true
	hookOfIncus(t, d.views)
	set := i.launch("limits.memory=300MiB", "limits.cpu=2")
	i.sees(set, 300, 2)
	// Incus 6.0.4 shares out the CPUs before it has noted the new number; it does it again when another instance starts.
	i.run("config", "set", set, "limits.memory=260MiB", "limits.cpu=3")
	quota := i.launch("limits.memory=200MiB", "limits.cpu.allowance=150ms/100ms", "security.privileged=true")
	i.sees(quota, 200, 2)
	i.sees(set, 260, 3)
	i.run("config", "set", quota, "limits.memory=220MiB", "limits.cpu.allowance=310ms/100ms")
	i.sees(quota, 220, 4)

	c := talk(t, i.command("exec", "-T", "--env", "LENSFS_TEST_ROLE=load", set, "--", "/bin/e2e"))
	c.say("%s", encode(loadPlan{Tree: lxcTree, Threads: 2, Total: 260 << 10, Pace: 50e6}))
	if l := c.line(); l != "reading" {
		t.Fatalf("the instance says %q", l)
	}
	d.killWorker()
	if out, err := d.command("upgrade").CombinedOutput(); err != nil {
		t.Errorf("upgrade: %v: %s", err, out)
	}
	d.killKeeper()
	d.again()
	d.killWorker()
	r := decode[loadResult](t, c.ask("stop"))
	t.Log(r)
	if r.Failed > 0 || r.Reads < 20 {
		t.Errorf("%d of %d reads failed:\n%s", r.Failed, r.Reads, strings.Join(r.Failures, "\n"))
	}
	c.close()
	i.sees(set, 260, 3)
	i.sees(quota, 220, 4)
	d.unharmedMounts()
	i.run("restart", "--force", set)
	i.sees(set, 260, 3)
}

// oneForEach has Incus start a daemon for each instance, kill it with the instance, and start it again with it.
func (i *incus) oneForEach() {
	t := i.t
	a := i.launch("limits.memory=300MiB", "limits.cpu=2")
	b := i.launch("limits.memory=200MiB", "limits.cpu=3", "security.privileged=true")
	i.sees(a, 300, 2)
	i.sees(b, 200, 3)
	keepers, workers := i.lxcfs()
	if len(keepers) != 2 || len(workers) != 2 {
		t.Fatalf("keepers %v and workers %v, of two instances", keepers, workers)
	}
	for n, pid := range keepers {
		t.Logf("a daemon has %s and %s resident; its process began at %.2f s, the instances' inits at %.2f s and %.2f s: Incus does not wait for it",
			residentOf(pid), residentOf(workers[n]), started(t, pid), started(t, i.initOf(a)), started(t, i.initOf(b)))
	}
	i.run("restart", "--force", a)
	i.sees(a, 300, 2)
	i.run("stop", "--force", b)
	i.sees(a, 300, 2)
	i.onlyLxcfs(1)
	i.run("start", b)
	i.sees(b, 200, 3)
	i.onlyLxcfs(2)
	_, workers = i.lxcfs()
	for _, pid := range workers {
		unix.Kill(pid, unix.SIGKILL)
	}
	i.sees(a, 300, 2)
	i.sees(b, 200, 3)
	i.run("delete", "--force", a, b)
	i.onlyLxcfs(0)
}

// needMachine skips a test that wants a machine with systemd and these programs: the virtual one. There it must run.
func needMachine(t *testing.T, programs ...string) {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("needs a machine with systemd and cgroup v2: the virtual one") // runs there in CI
	}
	needRoot(t)
	needCommand(t, programs...)
}
