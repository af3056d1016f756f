package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// newGroup makes a cgroup with limits, beneath another if one is given, and removes it after the test. It gives its path.
func newGroup(t *testing.T, r *specs.LinuxResources, above ...string) string {
	t.Helper()
	path := filepath.Join("/", filepath.Join(above...), uniqueName())
	if memoryIsV2(t) {
		if _, err := cgroup2.NewManager(hierarchy(t, ""), path, cgroup2.ToResources(r)); err != nil {
			t.Fatal(err)
		}
	} else if _, err := cgroup1.New(cgroup1.StaticPath(path), r, cgroup1.WithHierarchy(usedV1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, controller := range usedControllers {
			dir, _ := groupDir(t, path, controller)
			removeGroup(t, dir)
		}
	})
	return path
}

func memoryLimit(bytes int64) *specs.LinuxResources {
	return &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{Limit: &bytes}}
}

var usedControllers = []string{"memory", "cpu", "cpuacct", "cpuset"}

func usedV1() ([]cgroup1.Subsystem, error) {
	all, err := cgroup1.Default()
	return slices.DeleteFunc(all, func(s cgroup1.Subsystem) bool { return !slices.Contains(usedControllers, string(s.Name())) }), err
}

// groupDir gives the directory of a cgroup in the hierarchy of a controller, and whether that is version 2.
func groupDir(t *testing.T, path, controller string) (dir string, v2 bool) {
	t.Helper()
	if memoryIsV2(t) {
		return filepath.Join(hierarchy(t, ""), path), true
	}
	return filepath.Join(hierarchy(t, controller), path), false
}

// processesOf gives the files through which a process joins a cgroup.
func processesOf(path string) []string {
	var files []string
	mounts, _ := mountinfo.GetMounts(nil)
	for _, m := range mounts {
		if !strings.HasPrefix(m.FSType, "cgroup") {
			continue // not to be looked at: its server may hang
		}
		file := filepath.Join(m.Mountpoint, path, "cgroup.procs")
		if _, err := os.Stat(file); err == nil {
			files = append(files, file)
		}
	}
	return files
}

// rootGroups is processesOf of the root of each hierarchy.
func rootGroups(t *testing.T) []string {
	t.Helper()
	files := processesOf("/")
	if len(files) == 0 {
		t.Fatal("no cgroups")
	}
	return files
}

// memoryDir makes a group below another.
func memoryDir(t *testing.T, group, name string) string {
	t.Helper()
	dir, _ := groupDir(t, group, "memory")
	dir = filepath.Join(dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return dir
}

// memoryGroup makes a group below another, which is to count memory of its own.
func memoryGroup(t *testing.T, group, name string) string {
	t.Helper()
	if dir, v2 := groupDir(t, group, "memory"); v2 {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			t.Fatal(err)
		}
	}
	return memoryDir(t, group, name)
}

// removeGroup removes a cgroup and those below it, as soon as their last processes are gone.
func removeGroup(t *testing.T, dir string) {
	t.Helper()
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeGroup(t, filepath.Join(dir, e.Name()))
		}
	}
	poll(t, 30*time.Second, dir+" is removed", func() bool {
		err := unix.Rmdir(dir)
		return err == nil || errors.Is(err, unix.ENOENT)
	})
}

// joining is a command line that joins cgroups and then runs a command.
func joining(files []string, cmd ...string) []string {
	script := `while [ "$1" != -- ]; do echo $$ >"$1" || exit 99; shift; done; shift; exec "$@"`
	return append(append(append([]string{"sh", "-c", script, "sh"}, files...), "--"), cmd...)
}

// shell writes a command line for a shell.
func shell(cmd []string) string {
	var s []string
	for _, word := range cmd {
		s = append(s, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	return strings.Join(s, " ")
}

// tool runs a command line and gives its output.
func tool(t *testing.T, cmd []string) string {
	t.Helper()
	return command(t, cmd[0], cmd[1:]...)
}

// start starts a command line that says on its first line that it is ready, unless it is a sleep, and ends it and its children with the test.
func start(t *testing.T, cmd []string) int {
	t.Helper()
	c := exec.Command(cmd[0], cmd[1:]...)
	log := &logBuffer{}
	c.Stdout, c.Stderr = log, log
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() {
		for _, pid := range children(c.Process.Pid) { // of a pid namespace: the others go with it
			syscall.Kill(pid, syscall.SIGKILL)
		}
		in.Close()
		select {
		case <-ended:
		case <-time.After(patience(30 * time.Second)):
			c.Process.Kill()
			t.Errorf("%v did not end: %s", cmd, log)
		}
	})
	if !slices.Contains(cmd, "sleep") {
		poll(t, 20*time.Second, fmt.Sprintf("%v is ready", cmd), func() bool {
			select {
			case err := <-ended:
				ended <- err
				t.Fatalf("%v ended: %v %s", cmd, err, log)
			default:
			}
			return strings.Contains(log.String(), "\n")
		})
	}
	return c.Process.Pid
}

// child waits for a child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	poll(t, 20*time.Second, "it has a child", func() bool { return len(children(pid)) > 0 })
	return children(pid)[0]
}

func children(pid int) []int {
	var pids []int
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	for word := range strings.FieldsSeq(string(text)) {
		if n, err := strconv.Atoi(word); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}
