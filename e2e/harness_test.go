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
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
)

var binary string // set by TestMain

func TestMain(m *testing.M) {
	if role := os.Getenv("LENSFS_TEST_ROLE"); role != "" {
		os.Exit(play(role)) // this process is a reader inside of a container
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lensfs-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary = os.Getenv("LENSFS_BIN"); binary == "" {
		binary = filepath.Join(dir, "lensfs")
		// With the race detector: these tests are what drives the daemon hard.
		build := exec.Command("go", "build", "-race", "-o", binary, "lensfs/cmd/lensfs")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
	}
	before := leftovers()
	code := m.Run()
	for _, l := range leftovers() {
		if !slices.Contains(before, l) {
			fmt.Fprintln(os.Stderr, "left behind:", l)
			code = 1
		}
	}
	return code
}

// leftovers lists what these tests might leave: our mounts, and our cgroups.
func leftovers() []string {
	var found []string
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return []string{err.Error()}
	}
	for _, m := range mounts {
		if strings.Contains(m.FSType, "lxcfs") || strings.Contains(m.Mountpoint, "lensfs") {
			found = append(found, "mount "+m.Mountpoint)
		}
	}
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), "lensfs") {
			found = append(found, "cgroup "+path)
		}
		return nil
	})
	return found
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
	t    *testing.T
	tree string
	dir  string // its runtime directory
	cmd  *exec.Cmd
	log  *logBuffer
	done chan error
}

// serve starts a daemon on directories of its own and ends it with the test, which fails if it did not end well.
func serve(t *testing.T, flags ...string) *daemon {
	t.Helper()
	dir := tempDir(t)
	return serveAt(t, filepath.Join(dir, "tree"), dir, flags...)
}

func serveAt(t *testing.T, tree, runtimeDir string, flags ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, tree: tree, dir: runtimeDir, log: &logBuffer{}, done: make(chan error, 1)}
	d.cmd = exec.Command(binary, append([]string{"serve", "--tree", tree, "--runtime-dir", runtimeDir}, flags...)...)
	d.start()
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() { d.done <- d.cmd.Wait() }()
	d.t.Cleanup(d.stop)
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(d.log.String(), " ready "); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-d.done:
			d.done <- err
			d.t.Fatalf("the daemon ended at once: %v\n%s", err, d.log)
		default:
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("the daemon is not ready\n%s", d.log)
		}
	}
}

// stop ends the daemon and looks at how it ended.
func (d *daemon) stop() {
	d.t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-d.done:
		d.done <- err
		if err != nil {
			d.t.Errorf("the daemon ended badly: %v\n%s", err, d.log)
		}
	case <-time.After(20 * time.Second):
		d.cmd.Process.Kill()
		d.t.Errorf("the daemon did not end when it was told to\n%s", d.log)
	}
	for _, bad := range []string{"DATA RACE", "panic", "WARN"} {
		if strings.Contains(d.log.String(), bad) {
			d.t.Errorf("the daemon's log has %q:\n%s", bad, d.log)
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

// run runs a command in a container made by "lensfs run" and gives what it wrote to its standard output.
func (d *daemon) run(flags []string, cmd ...string) string {
	d.t.Helper()
	args := append([]string{"run", "--tree", d.tree}, flags...)
	return command(d.t, binary, append(append(args, "--"), cmd...)...)
}

// spawn starts a command in a container and ends it with the test.
func (d *daemon) spawn(flags []string, cmd ...string) *exec.Cmd {
	d.t.Helper()
	args := append([]string{"run", "--tree", d.tree}, flags...)
	c := exec.Command(binary, append(append(args, "--"), cmd...)...)
	if err := c.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	})
	return c
}

// command runs a program, for no longer than half a minute, and fails the test if it does not succeed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tryCommand(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return out
}

func tryCommand(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
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

// tempDir is t.TempDir with a name that leftovers recognises and a mode that other users get through.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lensfs-test-")
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

// logBuffer is what the daemon writes, readable while it does.
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
