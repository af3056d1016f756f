package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLxcfsOfOneInstance does to it what Incus does to the LXCFS of an instance that has stopped (instances.lxcfs.per_instance): kills the process that
// it started, and takes the tree away. The worker, which it knows nothing of, has to go, and everything of it; the same command line works again at once.
func TestLxcfsOfOneInstance(t *testing.T) {
	needRoot(t)
	d := lxcfs(t, "-f", "-p", "DIR/lxcfs.pid")
	for round := range 3 {
		if round > 0 {
			d.again()
		}
		d.alive()
		d.killed = true
		d.killKeeper()
		if err := unix.Unmount(d.tree, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		poll(t, 20*time.Second, "the worker has ended", func() bool { return len(d.workers()) == 0 })
		for _, dir := range []string{d.tree, d.views} {
			if on := mountedOn(t, dir); on != "" {
				t.Errorf("a %s file system is left on %s", on, dir)
			}
		}
		if left := advertised(d.dir + "/"); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		left, err := filepath.Glob(filepath.Join(d.dir, "lensfs.state/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range left {
			if filepath.Ext(file) != ".kept" { // what containers have been shown, for the next daemon
				t.Errorf("left: %s", file)
			}
		}
		os.Remove(filepath.Join(d.dir, "lxcfs.pid")) // its keeper was killed
	}
}
