// Package e2e holds the tests that need root: real mounts, real cgroups, real containers. They run the lensfs binary and look at it from outside.
//
//	LENSFS_BIN       the binary to test; built from this tree when not set
//	LENSFS_MUST_RUN  1: a test that would have to be skipped fails instead (as in CI)
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Set by TestMain.
var (
	binary string
	runDir string // all files and mounts of this run are beneath it
)

func TestMain(m *testing.M) {
	if role := os.Getenv("LENSFS_TEST_ROLE"); role != "" {
		os.Exit(play(role)) // this process is a reader inside of a container
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if runDir, err = os.MkdirTemp("", "lensfs-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(runDir)
	if err := os.Chmod(runDir, 0o755); err != nil { // other users read there too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if binary = os.Getenv("LENSFS_BIN"); binary == "" {
		binary = filepath.Join(runDir, "lensfs")
		// With the race detector: these tests are what drives the daemon hard.
		build := exec.Command("go", "build", "-race", "-o", binary, "lensfs/cmd/lensfs")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector's runtime holds up every exit by a second
	code := m.Run()
	left := leftovers()
	for deadline := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(deadline); left = leftovers() {
		time.Sleep(20 * time.Millisecond)
	}
	for _, l := range left {
		fmt.Fprintln(os.Stderr, "left behind:", l)
		code = 1
	}
	return code
}

// runName is in the name of everything that this run makes, and of nothing that another run does: two may go on at the same time.
func runName() string { return filepath.Base(runDir) }

var names atomic.Int32

// uniqueName gives a name for a container or a cgroup. The check for leftovers knows it.
func uniqueName() string { return fmt.Sprintf("%s-%d", runName(), names.Add(1)) }

// leftovers lists what is there of this run: mounts, cgroups and processes.
func leftovers() []string {
	var found []string
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return []string{err.Error()}
	}
	for _, m := range mounts {
		if strings.Contains(m.Mountpoint, runName()) {
			found = append(found, "mount "+m.Mountpoint)
		}
	}
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), runName()) {
			found = append(found, "cgroup "+path)
		}
		return nil
	})
	found = append(found, advertised(runName())...)
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		cmdline, _ := os.ReadFile(p + "/cmdline")
		groups, _ := os.ReadFile(p + "/cgroup")
		if strings.Contains(string(cmdline)+string(groups), runName()) {
			found = append(found, fmt.Sprintf("process %s %q", p, cmdline))
		}
	}
	return found
}

// advertised lists the names under which commands find daemons whose state is in a directory of this name.
func advertised(dir string) (paths []string) {
	all, _ := filepath.Glob("/run/lensfs.state/*.sock")
	for _, path := range all {
		if to, _ := os.Readlink(path); strings.Contains(to, dir) {
			paths = append(paths, path)
		}
	}
	return paths
}

// needRoot skips a test where it cannot run, but in CI, where it must.
func needRoot(t *testing.T) {
	t.Helper()
	var why string
	if os.Getuid() != 0 {
		why = "needs root"
	} else if _, err := os.Stat("/dev/fuse"); err != nil {
		why = err.Error()
	}
	skip(t, why)
}

// needCommand is needRoot for programs of other packages.
func needCommand(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			skip(t, "needs the program "+name)
		}
	}
}

// skipEmulated leaves out of the virtual machine what nobody has seen pass there reliably yet: on emulated CPUs a take-over takes seconds.
func skipEmulated(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not yet seen to pass reliably on an emulated machine")
	}
}

// skipSlow leaves out of the virtual machine what passes there, takes long on emulated CPUs, and does not depend on what that machine has.
func skipSlow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("passes on an emulated machine too, and takes a minute there")
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if why == "" {
		return
	}
	if os.Getenv("LENSFS_MUST_RUN") == "1" {
		t.Fatal("may not be skipped here: " + why)
	}
	t.Skip(why)
}

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

// endWithTest has a command told to end, and if need be killed, when the test is over.
func endWithTest(t *testing.T, c *exec.Cmd) {
	t.Cleanup(func() {
		t.Helper()
		c.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() {
			c.Process.Kill()
			t.Errorf("%v did not end when it was told to", c.Args)
		})
		c.Wait()
		kill.Stop()
	})
}

// command runs a program, for no longer than half a minute, in the virtual machine two, and fails the test if it does not succeed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tryCommand(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return out
}

func tryCommand(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rounds(30, 120))*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), errors.Join(err, ctx.Err(), errors.New(strings.TrimSpace(errs.String()+out.String())))
	}
	return out.String(), nil
}

// tempDir is t.TempDir beneath runDir, with a mode that other users get through.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(runDir, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// logFile is what a daemon writes. Not a pipe: its worker may hold that for longer than the daemon is there.
type logFile struct{ file *os.File }

func newLogFile(t *testing.T) *logFile {
	t.Helper()
	file, err := os.CreateTemp(runDir, "log-")
	if err != nil {
		t.Fatal(err)
	}
	return &logFile{file}
}

func (l *logFile) String() string {
	text, err := os.ReadFile(l.file.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// logBuffer is what a command writes, readable while it does.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
