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
	for round := range 4 {
		if round > 0 {
			d.again()
		}
		d.alive()
		d.killed = true
		takeAway := func() {
			if err := unix.Unmount(d.tree, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
		if round%2 == 0 {
			d.killKeeper()
			takeAway()
		} else { // the other way round, and the keeper, busy with something else, does not come to hear of it from the worker
			d.cmd.Process.Signal(unix.SIGSTOP)
			takeAway()
			time.Sleep(200 * time.Millisecond)
			d.cmd.Process.Kill()
			d.wait(10 * time.Second)
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
