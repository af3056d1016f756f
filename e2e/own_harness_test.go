package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests in the own_* files are about own views: what the kernel keeps for a container, and whose it is. With -test.short, as on an emulated
// machine, they go fewer rounds, and measure time with wider bounds.

// rounds is how often something is done.
func rounds(n, short int) int {
	if testing.Short() {
		return short
	}
	return n
}

// patience is how long something may take before it counts as never.
func patience(limit time.Duration) time.Duration {
	if testing.Short() {
		return 4 * limit
	}
	return limit
}

// plain is the binary without the race detector, for tests that measure.
var plain = sync.OnceValues(func() (string, error) {
	if os.Getenv("LENSFS_BIN") != "" {
		return binary, nil
	}
	path := filepath.Join(runDir, "lensfs-plain")
	out, err := exec.Command("go", "build", "-o", path, "lensfs/cmd/lensfs").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, err
})

// servePlain is serve for tests that measure. What is like GOGC=10 is for the daemon's environment.
func servePlain(t *testing.T, env ...string) *daemon {
	t.Helper()
	path, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	tree := filepath.Join(dir, "tree")
	cmd := exec.Command(path, "serve", "--tree", tree, "--views", viewsIn(dir), "--runtime-dir", dir)
	cmd.Env = append(os.Environ(), env...)
	return startDaemon(t, tree, dir, cmd)
}

// hurry has all threads of a process go before the machine's other work.
func hurry(t *testing.T, pid int) {
	t.Helper()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		var tid int
		fmt.Sscan(filepath.Base(task), &tid)
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, -20); err != nil && err != unix.ESRCH {
			t.Fatal(err)
		}
	}
}

// encode is for what roles are told and answer.
func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	return v
}

// controls are the files that hold a container's limits, and what to write into them. Unlike setMemory and its like they can be used by any goroutine.
type controls struct {
	memory, cpuset, quota string
	v2                    bool // the quota's
}

func controlsOf(t *testing.T, pid int) controls {
	t.Helper()
	for _, controller := range []string{"memory", "cpuset", "cpu"} {
		if dir, _ := cgroupDir(t, pid, controller); !strings.Contains(dir, runName()) {
			t.Fatalf("process %d is in %s, which is not ours", pid, dir)
		}
	}
	_, v2 := cgroupDir(t, pid, "cpu")
	return controls{
		memory: cgroupFile(t, pid, "memory", "memory.limit_in_bytes", "memory.max"),
		cpuset: cgroupFile(t, pid, "cpuset", "cpuset.cpus", "cpuset.cpus"),
		quota:  cgroupFile(t, pid, "cpu", "cpu.cfs_quota_us", "cpu.max"),
		v2:     v2,
	}
}

func (c controls) setMemory(kb uint64) error {
	return os.WriteFile(c.memory, []byte(fmt.Sprint(kb<<10)), 0)
}

func (c controls) setCPUs(cpus []int) error { return os.WriteFile(c.cpuset, []byte(list(cpus)), 0) }

func (c controls) setQuota(cpus int) error {
	value := fmt.Sprint(cpus * 100_000)
	if c.v2 {
		value += " 100000"
	}
	return os.WriteFile(c.quota, []byte(value), 0)
}

// namesIn lists a directory, which a daemon of ours may serve, from another process.
func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	names := strings.Fields(command(t, "ls", "-A", dir))
	slices.Sort(names)
	return names
}

// linkOf reads a link that a daemon of ours may serve.
func linkOf(t *testing.T, path string) string {
	t.Helper()
	return strings.TrimSpace(command(t, "readlink", path))
}

// totalOf gives the MemTotal line of a command's output, in kB.
func totalOf(t *testing.T, text string) string {
	t.Helper()
	m := memTotal.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no MemTotal in %q", text)
	}
	return m[1]
}

// decodeLine reads what a role is told.
func decodeLine(in *bufio.Reader, v any) error {
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(line), v)
}
