package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// daemon is a running lensfs.
type daemon struct {
	t     *testing.T
	tree  string
	views string
	dir   string    // its runtime directory
	cmd   *exec.Cmd // the keeper
	log   *logFile  // of keeper and worker
	done  chan error

	killed   bool // by the test: it need not have ended well
	warnings bool // are expected in its log
}

// serve starts a daemon on directories of its own and ends it with the test, which fails if it did not end well.
func serve(t *testing.T, flags ...string) *daemon {
	t.Helper()
	dir := tempDir(t)
	return serveAt(t, filepath.Join(dir, "tree"), dir, flags...)
}

func serveAt(t *testing.T, tree, runtimeDir string, flags ...string) *daemon {
	t.Helper()
	args := append([]string{"serve", "--tree", tree, "--views", viewsIn(runtimeDir), "--runtime-dir", runtimeDir}, flags...)
	return startDaemon(t, tree, runtimeDir, exec.Command(binary, args...))
}

// viewsIn is where the own views are mounted: where LXCFS's command line has them too.
func viewsIn(runtimeDir string) string { return filepath.Join(runtimeDir, "lensfs") }

// startDaemon starts a daemon with any command line.
func startDaemon(t *testing.T, tree, runtimeDir string, cmd *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{t: t, tree: tree, views: viewsIn(runtimeDir), dir: runtimeDir, cmd: cmd, log: newLogFile(t), done: make(chan error, 1)}
	d.start()
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	d.cmd.Stderr = d.log.file
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() { d.done <- d.cmd.Wait() }()
	d.t.Cleanup(d.stop)
	poll(d.t, 20*time.Second, "the daemon is ready", func() bool {
		select {
		case err := <-d.done:
			d.done <- err
			d.t.Fatalf("the daemon ended at once: %v\n%s", err, d.log)
		default:
		}
		return strings.Contains(d.log.String(), " ready ")
	})
}

// stop ends the daemon and looks at how it ended.
func (d *daemon) stop() {
	d.t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Process.Signal(syscall.SIGCONT) // the test may have stopped it
	if err := d.wait(20 * time.Second); err != nil && !d.killed {
		d.t.Errorf("the daemon ended badly: %v\n%s", err, d.log)
	}
	if left := d.workers(); len(left) > 0 {
		if !d.killed {
			d.t.Errorf("worker %v goes on, with a container that uses the views?\n%s", left, d.log)
		}
		d.killWorkers()
	}
	bad := []string{"DATA RACE", "panic"}
	if !d.warnings {
		bad = append(bad, "WARN")
	}
	for _, bad := range bad {
		if strings.Contains(d.log.String(), bad) {
			d.t.Errorf("the daemon's log has %q:\n%s", bad, d.log)
		}
	}
	for _, path := range advertised(d.dir + "/") {
		if !d.killed {
			d.t.Errorf("the daemon left %s", path)
		}
		os.Remove(path)
	}
	for _, dir := range []string{d.tree, d.views} {
		for mountedOn(d.t, dir) != "" {
			if !d.killed {
				d.t.Errorf("the daemon left a mount on %s", dir)
			}
			if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				d.t.Fatal(err)
			}
		}
	}
}

// wait waits until the daemon has ended, and kills it when that takes too long.
func (d *daemon) wait(limit time.Duration) error {
	d.t.Helper()
	limit = patience(limit)
	select {
	case err := <-d.done:
		d.done <- err
		return err
	case <-time.After(limit):
		d.cmd.Process.Kill()
		d.t.Errorf("the daemon did not end within %v\n%s", limit, d.log)
		return errors.New("killed")
	}
}

// kill ends the daemon with -9, keeper and worker. Its mount stays until the end of the test.
func (d *daemon) kill() {
	d.t.Helper()
	d.killed, d.warnings = true, true
	d.cmd.Process.Kill()
	d.wait(10 * time.Second)
	d.killWorkers()
}

// workers gives the processes that serve the daemon's tree, or are about to.
func (d *daemon) workers() (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		if text, _ := os.ReadFile(p + "/cmdline"); string(text) == "lensfs\x00worker\x00"+d.tree+"\x00" {
			pid, _ := strconv.Atoi(filepath.Base(p))
			pids = append(pids, pid)
		}
	}
	return pids
}

// worker gives the one that there is.
func (d *daemon) worker() (pid int) {
	d.t.Helper()
	poll(d.t, 20*time.Second, "there is one worker", func() bool {
		pids := d.workers()
		if len(pids) == 1 {
			pid = pids[0]
		}
		return len(pids) == 1
	})
	return pid
}

// killWorkers ends those that no keeper watches any more, and waits for it: they are nobody's children that we could wait for.
func (d *daemon) killWorkers() {
	d.t.Helper()
	poll(d.t, 10*time.Second, "the workers have ended", func() bool {
		pids := d.workers()
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		return len(pids) == 0
	})
}

// onlyOn lets the mounts on one directory through, the one that is seen last.
func onlyOn(dir string) mountinfo.FilterFunc {
	return func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != dir, false }
}

// mountsOn gives all mounts on a directory, one over the other.
func mountsOn(t *testing.T, dir string) []*mountinfo.Info {
	t.Helper()
	mounts, err := mountinfo.GetMounts(onlyOn(dir))
	if err != nil {
		t.Fatal(err)
	}
	return mounts
}

// mountedOn gives the type of what is mounted on dir, "" for nothing. It does not look at the directory: its server may be dead.
func mountedOn(t *testing.T, dir string) string {
	t.Helper()
	mounts := mountsOn(t, dir)
	if len(mounts) == 0 {
		return ""
	}
	return mounts[len(mounts)-1].FSType
}

// poll waits until ok.
func poll(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	limit = patience(limit)
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// alive checks that the daemon still answers.
func (d *daemon) alive() {
	d.t.Helper()
	if out := command(d.t, "cat", filepath.Join(d.tree, "proc/uptime")); len(strings.Fields(out)) != 2 {
		d.t.Errorf("uptime of a living daemon: %q", out)
	}
}

// runArgs is the command line of "lensfs run" on this daemon, with own views unless the flags give a --tree. The container gets a name of its own
// unless the flags give one.
func (d *daemon) runArgs(flags []string, cmd ...string) []string {
	args := append([]string{"run", "--views", d.views, "--name", uniqueName()}, flags...)
	return append(append(args, "--"), cmd...)
}

// run runs a command in a container made by "lensfs run" and gives what it wrote to its standard output.
func (d *daemon) run(flags []string, cmd ...string) string {
	d.t.Helper()
	return command(d.t, binary, d.runArgs(flags, cmd...)...)
}
