package e2e

import (
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

// lxcfsServer is an LXCFS, and a directory by which our hook takes it for own views.
type lxcfsServer struct {
	tree, views string
	process     *os.Process
}

func newLXCFSServer(t *testing.T) *lxcfsServer {
	t.Helper()
	l := &lxcfsServer{views: tempDir(t)}
	l.tree, l.process = startLXCFSProcess(t, "lxcfs", "--enable-cfs")
	if err := os.Symlink(l.tree, filepath.Join(l.views, "self")); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestAttachLXC gives views to LXC's containers that run without any, or with LXCFS's, be it alive, dead or hung.
func TestAttachLXC(t *testing.T) {
	lockLXC(t)
	needCommand(t, "lxcfs")
	d := serveAt(t, lxcTree, tempDir(t))
	hook := ourHook(t)
	for _, kind := range []struct {
		name       string
		privileged bool
	}{{"privileged", true}, {"unprivileged", false}} {
		if kind.privileged && testing.Short() {
			continue // on the emulated machine each takes 20 s
		}
		o := lxcOptions{privileged: kind.privileged, hook: hook, memory: 300 << 20, cpuset: "1"}
		t.Run("no views, "+kind.name, func(t *testing.T) {
			c := newLXC(t, nil, o)
			c.tree = c.views // none
			c.nest()
			c.start()
			if seen := c.byInit(); len(seen.Mounts) > 0 || seen.MemTotal == 300<<20 {
				t.Fatalf("it was to start without views, and sees %+v", seen)
			}
			d.takesOver(c, "put over the kernel's files")
		})
		t.Run("LXCFS, "+kind.name, func(t *testing.T) {
			c := d.onLXCFS(t, newLXCFSServer(t), o)
			stop := c.reader()
			d.takesOver(c, "in place of LXCFS's")
			if got := stop(); got != "300\n" {
				t.Errorf("while LXCFS was replaced, the container read that it had these MB: %q", got)
			}
		})
		t.Run("dead LXCFS, "+kind.name, func(t *testing.T) {
			l := newLXCFSServer(t)
			c := d.onLXCFS(t, l, o)
			if err := l.process.Kill(); err != nil {
				t.Fatal(err)
			}
			poll(t, 20*time.Second, "LXCFS is dead", func() bool {
				out, err := tryCommand("lxc-attach", "-P", c.dir, "-n", c.name, "--", "cat", "/proc/uptime")
				return err != nil && strings.Contains(err.Error()+out, "not connected")
			})
			d.takesOver(c, "in place of LXCFS's")
		})
		t.Run("hung LXCFS, "+kind.name, func(t *testing.T) {
			l := newLXCFSServer(t)
			c := d.onLXCFS(t, l, o)
			stopProcess(t, l.process)
			time.Sleep(time.Second) // what the kernel keeps of names and attributes is old then
			begin := time.Now()
			d.takesOver(c, "in place of LXCFS's")
			if took := time.Since(begin); took > 15*time.Second*time.Duration(rounds(1, 8)) {
				t.Errorf("it took %v", took)
			}
		})
	}
	d.onHostOnce()
	noneLeft(t)
}

// onLXCFS starts a container with LXCFS's views, and with its tree for containers of its own.
func (d *daemon) onLXCFS(t *testing.T, l *lxcfsServer, o lxcOptions) *lxcContainer {
	t.Helper()
	c := newLXC(t, nil, o)
	c.views, c.tree = l.views, l.tree
	c.nest()
	c.start()
	seen := c.byInit()
	if len(seen.Mounts) < 8 || seen.MemTotal != 300<<20 {
		t.Fatalf("it was to start on LXCFS, and sees %+v", seen)
	}
	ours := d.devices()
	for _, m := range views(t, c.init()) {
		if ours[fmt.Sprintf("%d:%d", m.Major, m.Minor)] {
			t.Fatalf("%s is lensfs's already", m.Mountpoint)
		}
	}
	return c
}

// takesOver attaches the container, and looks at it from inside.
func (d *daemon) takesOver(c *lxcContainer, says string) {
	c.t.Helper()
	pid := c.init()
	if out := d.attached(pid); !strings.Contains(out, says) || !strings.Contains(out, c.name) {
		c.t.Errorf("it says %q", out)
	}
	d.servesAll(pid)
	sees := machine{memory: 300 << 20, firstCPU: 1, cpus: 1}
	sees.check(c.t, c.attached())
	if got := totalOf(c.t, c.attach("cat", lxcTree+"/proc/meminfo")); got != strconv.Itoa(300<<10) {
		c.t.Errorf("a container in it would see %s kB of memory", got)
	}
	if got := strings.TrimSpace(c.attach("nproc")); got != "1" {
		c.t.Errorf("nproc says %s", got)
	}
	before := mountinfoOf(c.t, pid)
	if out := d.attached(pid); !strings.Contains(out, "has them already") {
		c.t.Errorf("the second time it says %q", out)
	}
	if after := mountinfoOf(c.t, pid); after != before {
		c.t.Errorf("the second time it has changed\n%s\nto\n%s", before, after)
	}
	d.onHostOnce()
}

// init gives the container's first process, as the host numbers it.
func (c *lxcContainer) init() int {
	c.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(c.command("lxc-info", "-P", c.dir, "-n", c.name, "-p", "-H")))
	if err != nil {
		c.t.Fatal(err)
	}
	return pid
}

// reader reads in the container how much memory there is, over and over until it is stopped, and gives the different answers in MB.
func (c *lxcContainer) reader() (stop func() string) {
	c.t.Helper()
	const script = `
import os
print("reading", flush=True)
seen = set()
while not os.path.exists("/stop"):
    try:
        with open("/proc/meminfo") as f:
            seen.add(str(int(f.read().split()[1]) // 1024))
    except OSError as e:
        seen.add(str(e))
for text in sorted(seen):
    print(text)
`
	cmd := exec.Command("lxc-attach", "-P", c.dir, "-n", c.name, "--clear-env", "--", "python3", "-c", script)
	out := &logBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	endWithTest(c.t, cmd)
	poll(c.t, lxcLimit, "it reads", func() bool { return strings.HasPrefix(out.String(), "reading") })
	return func() string {
		c.t.Helper()
		if err := os.WriteFile(filepath.Join(c.rootfs, "stop"), nil, 0o644); err != nil {
			c.t.Fatal(err)
		}
		kill := time.AfterFunc(lxcLimit, func() { cmd.Process.Signal(unix.SIGKILL) })
		cmd.Wait()
		kill.Stop()
		return strings.TrimPrefix(strings.ReplaceAll(out.String(), "\r", ""), "reading\n")
	}
}
