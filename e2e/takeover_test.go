package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kills is how often something is ended: LENSFS_KILLS times, or as often as there is time for in CI.
func kills(t *testing.T, n, short int) int {
	t.Helper()
	if text := os.Getenv("LENSFS_KILLS"); text != "" {
		k, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	return rounds(n, short)
}

// serveWarned is servePlain for tests that have the daemon say warnings.
func serveWarned(t *testing.T, env ...string) *daemon {
	t.Helper()
	d := servePlain(t, env...)
	d.warnings = true
	return d
}

// command gives a command of lensfs for this daemon.
func (d *daemon) command(name string, flags ...string) *exec.Cmd {
	return exec.Command(d.cmd.Path, append([]string{name, "--tree", d.tree, "--runtime-dir", d.dir}, flags...)...)
}

// nextWorker waits for another worker than the one that was.
func (d *daemon) nextWorker(was int) int {
	d.t.Helper()
	is := was
	poll(d.t, 20*time.Second, "another worker serves", func() bool {
		pids := d.workers()
		if len(pids) == 1 {
			is = pids[0]
		}
		return is != was
	})
	return is
}

// killWorker ends the worker and waits for the next.
func (d *daemon) killWorker() {
	d.t.Helper()
	pid := d.worker()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
	d.nextWorker(pid)
}

// within checks how long the longest read took. It is a bound for failing only: what a read takes is measured by the benchmark, on a quiet machine.
func (r loadResult) within(t *testing.T, limit time.Duration) {
	t.Helper()
	t.Log(r)
	if len(r.Stalls) > 0 && r.Stalls[0] > limit && !testing.Short() {
		t.Errorf("the longest read took %v; it may take %v", r.Stalls[0], limit)
	}
}

const loadContainers, loadThreads = 8, 4 // on each mount

// theLoad is 64 threads that read in 8 containers, on both mounts.
var theLoad = loadPlan{Threads: loadThreads, Pace: 5 * time.Millisecond}

// Nobody who reads notices that the worker is killed.
func TestWorkerKilled(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	d.underLoad(loadContainers, theLoad, func() {
		for range kills(t, 40, 10) {
			d.killWorker()
			time.Sleep(50*time.Millisecond + rand.N(200*time.Millisecond))
		}
	}).within(t, 3*time.Second)
}

// Nor that it has been replaced by one of the binary now on disk.
func TestUpgrades(t *testing.T) {
	needRoot(t)
	d, path := serveCopy(t)
	d.underLoad(loadContainers, theLoad, func() {
		for n := range kills(t, 20, 5) {
			d.replaceBinary(path, d.cmd.Path)
			was := d.worker()
			if n%2 == 0 {
				if out, err := d.command("upgrade").CombinedOutput(); err != nil {
					t.Fatalf("upgrade: %v: %s", err, out)
				}
			} else if err := d.cmd.Process.Signal(unix.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			d.nextWorker(was)
			poll(t, 20*time.Second, "the keeper is of the new binary too", func() bool { return sameFile(t, fmt.Sprintf("/proc/%d/exe", d.cmd.Process.Pid), path) })
			time.Sleep(rand.N(100 * time.Millisecond))
		}
	}).within(t, 3*time.Second)
	d.alive()
}

// serveCopy is serveWarned of a copy of the binary, which may be replaced.
func serveCopy(t *testing.T) (*daemon, string) {
	t.Helper()
	from, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	path, tree := filepath.Join(dir, "lensfs-copy"), filepath.Join(dir, "tree")
	copyFile(t, from, path)
	d := startDaemon(t, tree, dir, exec.Command(path, "serve", "--tree", tree, "--views", viewsIn(dir), "--runtime-dir", dir))
	d.warnings = true
	return d, path
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o755); err != nil {
		t.Fatal(err)
	}
}

// replaceBinary puts a copy of another file in the place of a binary, as a package manager does.
func (d *daemon) replaceBinary(path, with string) {
	d.t.Helper()
	copyFile(d.t, with, path+".new")
	if err := os.Rename(path+".new", path); err != nil {
		d.t.Fatal(err)
	}
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// An upgrade to what does not work leaves the version before serving, and says why.
func TestFailingUpgrades(t *testing.T) {
	needRoot(t)
	d, path := serveCopy(t)
	good := filepath.Join(filepath.Dir(path), "good")
	copyFile(t, path, good)
	bad := filepath.Join(filepath.Dir(path), "bad")
	for _, c := range []struct {
		name, script string
		want         []string
	}{
		{"false", "#!/bin/false\n", []string{"exit status 1"}},
		{"says why", "#!/bin/sh\necho this is broken >&2; exit 3\n", []string{"this is broken", "exit status 3"}},
		{"crashes", "#!/bin/sh\nkill -SEGV $$\n", []string{"segmentation fault"}},
		{"is no program", "garbage", []string{"exec format error"}},
		{"is not there", "", []string{"no such file"}},
		{"another version", "#!/bin/sh\necho '{\"Op\":\"failed\",\"Error\":\"too old for this\"}' >&3; sleep 1\n", []string{"too old for this"}},
		{"talks nonsense", "#!/bin/sh\necho nonsense >&3; sleep 60\n", []string{"ended before it was ready"}},
	} {
		if err := os.WriteFile(bad, []byte(c.script), 0o755); err != nil {
			t.Fatal(err)
		}
		d.replaceBinary(path, bad)
		if c.script == "" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		was := d.worker()
		cmd := d.command("upgrade")
		cmd.Path = good
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%s: the upgrade says that it succeeded: %s", c.name, out)
		}
		for _, want := range append(c.want, "the version before goes on") {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: it does not say %q but %q", c.name, want, out)
			}
		}
		d.alive()
		if now := d.worker(); now != was {
			t.Errorf("%s: worker %d has taken the place of %d", c.name, now, was)
		}
	}
	// A worker that dies now is replaced by one of the version that serves, whatever is on disk.
	d.killWorker()
	d.alive()
	d.replaceBinary(path, good)
	if out, err := d.command("upgrade").CombinedOutput(); err != nil {
		t.Errorf("a good one: %v: %s", err, out)
	}
	d.alive()
}

// again starts the daemon's command line once more: its keeper has ended.
func (d *daemon) again() {
	d.t.Helper()
	env := d.cmd.Env
	d.cmd = exec.Command(d.cmd.Path, d.cmd.Args[1:]...)
	d.cmd.Env = env
	d.startAgain()
}

// startAgain starts d.cmd, which is a new one.
func (d *daemon) startAgain() {
	d.t.Helper()
	ready := strings.Count(d.log.String(), " ready ")
	cmd, done := d.cmd, make(chan error, 1)
	cmd.Stderr, d.done = d.log.file, done
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() { done <- cmd.Wait() }()
	poll(d.t, 20*time.Second, "there is a keeper again", func() bool {
		select {
		case err := <-done:
			done <- err
			d.t.Fatalf("the keeper ended at once: %v\n%s", err, d.log)
		default:
		}
		return strings.Count(d.log.String(), " ready ") > ready
	})
}

// killKeeper ends the keeper with -9, while there is a worker that has taken over: to end both at once would be to end the connection.
func (d *daemon) killKeeper() {
	d.t.Helper()
	d.alive()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	d.wait(10 * time.Second)
}

// Nobody who reads notices that the keeper is killed, nor that both are, in turn.
func TestKeeperKilled(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	d.underLoad(loadContainers, theLoad, func() {
		for range kills(t, 10, 4) {
			worker := d.worker()
			d.killKeeper()
			time.Sleep(rand.N(100 * time.Millisecond))
			d.again()
			if now := d.worker(); now != worker {
				t.Errorf("worker %d serves; it was %d", now, worker)
			}
			if rand.N(2) == 0 {
				d.killWorker()
			}
		}
		for range kills(t, 5, 2) {
			d.killWorker()
			d.killKeeper()
			d.again()
		}
	}).within(t, 3*time.Second)
	d.unharmedMounts()
}

func (d *daemon) unharmedMounts() {
	d.t.Helper()
	for _, dir := range []string{d.tree, d.views} {
		if n := len(mountsOn(d.t, dir)); n != 1 {
			d.t.Errorf("%d mounts on %s", n, dir)
		}
	}
	d.alive()
}

// A worker that hangs is replaced.
func TestWorkerHangs(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	d.underLoad(loadContainers, theLoad, func() {
		for range rounds(2, 1) {
			time.Sleep(200 * time.Millisecond)
			pid := d.worker()
			if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			d.nextWorker(pid)
		}
	}).within(t, 10*time.Second)
}

// Readers that are killed while workers are leave nothing stuck.
func TestReadersAndWorkersKilled(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	for _, root := range []string{"/", d.tree} {
		c := exec.Command(binary, d.runArgs([]string{"--memory", "256M"}, asRole("killer", filepath.Join(root, "proc/meminfo"), "3s")...)...)
		errs := &logBuffer{}
		c.Stderr = errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		for ended := false; !ended; {
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%v: %s", err, errs)
				}
				ended = true
			case <-time.After(rand.N(100 * time.Millisecond)):
				d.killWorker()
			}
		}
	}
	noneStuck(t)
	d.alive()
}

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
