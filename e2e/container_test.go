package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
)

// container is a running "lensfs run" whose command is spoken to by lines.
type container struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	init  int // as the host numbers it
	in    io.WriteCloser
	lines chan string // what it writes to its standard output
	errs  *logBuffer
}

// container starts a command in a container and ends it with the test.
func (d *daemon) container(flags []string, cmd ...string) *container {
	d.t.Helper()
	name := uniqueName()
	c := talk(d.t, exec.Command(binary, d.runArgs(append([]string{"--name", name}, flags...), cmd...)...))
	c.name = name
	poll(d.t, time.Duration(rounds(20, 120))*time.Second, "the container has an init in its cgroup", func() bool {
		c.init = childIn(c.cmd.Process.Pid, "lensfs.run."+c.name)
		return c.init != 0
	})
	return c
}

// talk starts a command that is spoken to by lines, and ends it with the test.
func talk(t *testing.T, cmd *exec.Cmd) *container {
	t.Helper()
	c := &container{t: t, cmd: cmd, lines: make(chan string, 1024), errs: &logBuffer{}}
	c.cmd.Stderr = c.errs
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Not StdoutPipe: Wait, which the test may call at any time, closes that.
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.cmd.Stdout = in, w
	err = c.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	endWithTest(t, c.cmd)
	go func() {
		defer out.Close()
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
		close(c.lines)
	}()
	return c
}

// childIn finds the child of pid that is in a cgroup of this name: run's other child, the janitor, is not. On v1 it is put into one hierarchy after
// the other, and until it is in all of them a test that writes its limits would write them to the group of the tests themselves.
func childIn(pid int, group string) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, child := range strings.Fields(string(text)) {
			groups, _ := os.ReadFile("/proc/" + child + "/cgroup")
			if inAll(string(groups), group) {
				n, _ := strconv.Atoi(child)
				return n
			}
		}
	}
	return 0
}

// inAll says whether /proc/PID/cgroup has the group in every hierarchy that "lensfs run" uses.
func inAll(groups, group string) bool {
	found := false
	for line := range strings.Lines(groups) {
		_, rest, _ := strings.Cut(line, ":")
		controllers, path, _ := strings.Cut(rest, ":")
		in := strings.Contains(path, "/"+group)
		used := slices.ContainsFunc(strings.Split(controllers, ","), func(c string) bool {
			return c == "memory" || c == "cpu" || c == "cpuacct" || c == "cpuset"
		})
		if used && !in {
			return false
		}
		found = found || in
	}
	return found
}

// line gives the next line that the container writes.
func (c *container) line() string {
	c.t.Helper()
	select {
	case l, ok := <-c.lines:
		if !ok {
			c.t.Fatalf("the container has ended: %s", c.errs)
		}
		return l
	case <-time.After(2 * time.Minute):
		c.t.Fatalf("the container writes nothing: %s", c.errs)
	}
	return ""
}

// say writes a line to the container.
func (c *container) say(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		c.t.Fatalf("the container does not listen: %v\n%s", err, c.errs)
	}
}

// ask is say and line.
func (c *container) ask(format string, args ...any) string {
	c.t.Helper()
	c.say(format, args...)
	return c.line()
}

// close ends the container's input, and waits for it to end well.
func (c *container) close() {
	c.t.Helper()
	c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("the container ended badly: %v\n%s", err, c.errs)
	}
}

// cgroupDir gives the directory of a process's cgroup in the hierarchy of a controller, and whether that is v2.
func cgroupDir(t *testing.T, pid int, controller string) (dir string, v2 bool) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	var unified string
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if part[1] == "" {
			unified = part[2]
		} else if slices.Contains(strings.Split(part[1], ","), controller) {
			return filepath.Join(hierarchy(t, controller), part[2]), false
		}
	}
	return filepath.Join(hierarchy(t, ""), unified), true
}

// hierarchy gives the mount point of a v1 controller, or of v2 where it has no name.
func hierarchy(t *testing.T, controller string) string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		if controller == "" {
			return m.FSType != "cgroup2", false
		}
		return m.FSType != "cgroup" || !slices.Contains(strings.Split(m.VFSOptions, ","), controller), false
	})
	if err != nil || len(mounts) == 0 {
		t.Fatalf("no hierarchy of controller %q: %v", controller, err)
	}
	return mounts[0].Mountpoint
}

// hostSwap is the host's SwapTotal in kB.
func hostSwap(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMeminfo(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return m["SwapTotal"]
}

// cgroupRead gives what a file of a process's cgroup says.
func cgroupRead(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	text, err := os.ReadFile(cgroupFile(t, pid, controller, v1, v2))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func cgroupWrite(t *testing.T, pid int, controller, v1, v2, value string) {
	t.Helper()
	if err := os.WriteFile(cgroupFile(t, pid, controller, v1, v2), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func cgroupFile(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	dir, is2 := cgroupDir(t, pid, controller)
	if is2 {
		return filepath.Join(dir, v2)
	}
	return filepath.Join(dir, v1)
}

// setMemory changes the memory limit of a process's cgroup.
func setMemory(t *testing.T, pid int, bytes uint64) {
	t.Helper()
	cgroupWrite(t, pid, "memory", "memory.limit_in_bytes", "memory.max", strconv.FormatUint(bytes, 10))
}

// setCPUs changes its cpuset.
func setCPUs(t *testing.T, pid int, cpus string) {
	t.Helper()
	cgroupWrite(t, pid, "cpuset", "cpuset.cpus", "cpuset.cpus", cpus)
}

// setQuota changes its quota, in CPUs; 0 is none.
func setQuota(t *testing.T, pid int, cpus float64) {
	t.Helper()
	const period = 100_000
	v1, v2 := "-1", "max 100000"
	if cpus > 0 {
		v1 = strconv.Itoa(int(cpus * period))
		v2 = v1 + " 100000"
	}
	value := v1
	if _, is2 := cgroupDir(t, pid, "cpu"); is2 {
		value = v2
	}
	cgroupWrite(t, pid, "cpu", "cpu.cfs_quota_us", "cpu.max", value)
}

// hostCPUs gives the numbers of the host's CPUs that are switched on.
func hostCPUs(t *testing.T) []int {
	t.Helper()
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Fatal(err)
	}
	cpus, err := parseList(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return cpus
}
