package e2e

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A container has the same view afterwards, under the same name, and its numbers go on.
func TestViewsOutliveEverything(t *testing.T) {
	needRoot(t)
	d, path := serveCopy(t)
	c := d.container([]string{"--memory", "300M"}, "sh", "-c", `exec 3</proc/meminfo; while read -r _; do echo $(readlink `+d.views+`/self) $(grep MemTotal /proc/meminfo) $(cut -d' ' -f1 /proc/uptime) $(head -1 /proc/stat) $(ls -i /proc/meminfo); done`)
	other := d.container([]string{"--memory", "200M"}, "sh", "-c", "cat /proc/uptime; read wait || :")
	other.line()
	look := func() (name, total string, up, idle float64, inode string) {
		f := strings.Fields(c.ask(""))
		up, err1 := strconv.ParseFloat(f[4], 64)
		idle, err2 := strconv.ParseFloat(f[9], 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(f, err)
		}
		return f[0], f[2], up, idle, f[len(f)-2]
	}
	name, total, up, idle, inode := look()
	if total != strconv.Itoa(300<<10) {
		t.Fatalf("it sees %s kB", total)
	}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"worker killed", d.killWorker},
		{"upgraded", func() {
			d.replaceBinary(path, d.cmd.Path)
			if out, err := d.command("upgrade").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}},
		{"keeper killed", func() { d.killKeeper(); d.again() }},
		{"both, in turn", func() { d.killWorker(); d.killKeeper(); d.again(); d.killWorker() }},
		{"told to end, and started again", func() {
			if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := d.wait(10 * time.Second); err != nil {
				t.Errorf("it ended with %v", err)
			}
			look() // while there is no keeper
			d.again()
		}},
		{"told to end, unmounted, and started again", func() { // as LXCFS's unit does
			if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			d.wait(10 * time.Second)
			for _, dir := range []string{d.tree, d.views} {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Fatal(err)
				}
			}
			d.again()
		}},
	} {
		step.do()
		n, kb, u, i, ino := look()
		if n != name || kb != total || u < up || i < idle || ino != inode {
			t.Errorf("%s: %s, %s kB, up %v, idle %v, inode %s; it was %s, %s kB, up %v, idle %v, inode %s", step.name, n, kb, u, i, ino, name, total, up, idle, inode)
		}
		up, idle = u, i
		d.unharmedMounts()
	}
	if now := totalOf(t, command(t, "cat", filepath.Join(d.views, "ct", strings.TrimPrefix(name, "ct/"), "proc/meminfo"))); now != total {
		t.Errorf("the host sees %s kB under its name", now)
	}
	setMemory(t, c.init, 250<<20)
	poll(t, 5*time.Second, "a new limit is seen", func() bool { _, kb, _, _, _ := look(); return kb == strconv.Itoa(250<<10) })
	c.close()
	other.close()
	d.swept()
}

// What ends the daemon, and what does not, while a container uses the views and when none does.
func TestStop(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	c := d.container([]string{"--memory", "300M"}, "sh", "-c", "echo up; while read -r _; do grep MemTotal /proc/meminfo || echo dead; done")
	c.line()
	sees := func() string { return c.ask("") }
	want := "MemTotal:         307200 kB"
	refused := func(when string) {
		t.Helper()
		out, err := d.command("stop").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "1 container still uses") || !strings.Contains(string(out), "--force") {
			t.Errorf("%s: stop: %v: %s", when, err, out)
		}
		if got := sees(); got != want {
			t.Errorf("%s: it sees %q", when, got)
		}
	}
	refused("with a keeper")
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.wait(10 * time.Second); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if !strings.Contains(d.log.String(), "containers=1") {
		t.Errorf("it does not say that a container goes on:\n%s", d.log)
	}
	refused("without a keeper")
	refused("asked again")
	d.again()
	refused("with a keeper again")
	if out, err := d.command("stop", "--force").CombinedOutput(); err != nil {
		t.Errorf("stop --force: %v: %s", err, out)
	}
	if err := d.wait(10 * time.Second); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if got := sees(); got != "dead" {
		t.Errorf("the container sees %q", got)
	}
	c.close()
	if out, err := d.command("stop").CombinedOutput(); err == nil || !strings.Contains(string(out), "no lensfs serves") {
		t.Errorf("stop of what is not there: %v: %s", err, out)
	}
}
