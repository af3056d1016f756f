package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Keeper and worker are killed while a reader waits for the page that a thread of the worker has the kernel drop: that thread cannot die. The next
// daemon begins all the same. With a descriptor store the reader gets his text, without it an error; he does not hang.
func TestKilledOverAPage(t *testing.T) {
	needRoot(t)
	path, err := faulty()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("store", func(t *testing.T) {
		d, store, args := serveHolding(t, path)
		c := d.overAPage()
		d.cmd = store.start(args...)
		d.startAgain()
		if l := c.line(); l != "read" {
			t.Errorf("the reader says %q", l)
		}
		c.close()
		d.unharmedMounts()
	})
	t.Run("none", func(t *testing.T) {
		d, _, args := serveHolding(t, path)
		c := d.overAPage()
		d.cmd = newDescriptorStore(t).start(args...) // of another machine, so to speak
		d.startAgain()
		if l := c.line(); l != "failed" {
			t.Errorf("the reader says %q", l)
		}
		c.close()
		if !strings.Contains(d.log.String(), "its connection is ended") {
			t.Errorf("the log does not say what happened:\n%s", d.log)
		}
		d.unharmedMounts()
	})
}

// serveHolding starts a daemon that hangs over a READ of swaps, and gives the command line of one that does not.
func serveHolding(t *testing.T, path string) (*daemon, *descriptorStore, []string) {
	t.Helper()
	store := newDescriptorStore(t)
	dir := tempDir(t)
	tree := filepath.Join(dir, "tree")
	args := []string{path, "serve", "--tree", tree, "--views", viewsIn(dir), "--runtime-dir", dir}
	cmd := store.start(args...)
	cmd.Env = append(cmd.Env, "LENSFS_FAULT=proc/swaps held")
	d := startDaemon(t, tree, dir, cmd)
	d.warnings = true
	poll(t, 10*time.Second, "everything is in the store", func() bool { return len(store.names()) == 7 })
	return d, store, args
}

// overAPage has a container wait for a page of swaps, and kills keeper and worker when the kernel has been told to drop that page.
func (d *daemon) overAPage() *container {
	d.t.Helper()
	c := d.container(nil, "sh", "-c", "read go; cat /proc/swaps >/dev/null && echo read || echo failed; read wait || :")
	worker := d.worker()
	c.say("go")
	poll(d.t, 20*time.Second, "a thread of the worker waits in the kernel", func() bool { return waitsInKernel(worker) })
	d.cmd.Process.Kill()
	unix.Kill(worker, unix.SIGKILL)
	d.wait(10 * time.Second)
	time.Sleep(100 * time.Millisecond)
	if !waitsInKernel(worker) {
		d.t.Fatal("the worker has ended: this test tests nothing")
	}
	return c
}

// waitsInKernel says whether a thread of a process is in state D.
func waitsInKernel(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range stats {
		text, _ := os.ReadFile(path)
		if i := strings.LastIndexByte(string(text), ')'); i > 0 && strings.HasPrefix(string(text[i:]), ") D") {
			return true
		}
	}
	return false
}
