package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
	}).within(t, 5*time.Second)
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
