package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
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
	for deadline := time.Now().Add(patience(5 * time.Second)); len(left) > 0 && time.Now().Before(deadline); left = leftovers() {
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
