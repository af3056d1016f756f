package e2e

import (
	"bytes"
	"errors"
	"fmt"
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

func TestRunShowsItsOwnMachine(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, views := range [][]string{nil, {"--tree", d.tree}} {
		flags := append([]string{"--memory", "512M", "--cpus", "1"}, views...)
		out := d.run(flags, "sh", "-c", "grep MemTotal /proc/meminfo; grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online")
		if want := "MemTotal:         524288 kB\n1\n0\n"; out != want {
			t.Errorf("%v: got %q, want %q", views, out, want)
		}
		if up := d.run(views, "cat", "/proc/uptime"); !strings.HasPrefix(up, "0.") {
			t.Errorf("%v: a container that has just begun has been up for %q", views, up)
		}
	}
}

// outcome is what came of a command that may fail.
type outcome struct {
	out, errs string
	status    int
}

// finish runs a command to its end, for no longer than half a minute, in the virtual machine two.
func finish(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	return finishWithin(t, time.Duration(rounds(30, 120))*time.Second, cmd)
}

func finishWithin(t *testing.T, limit time.Duration, cmd *exec.Cmd) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer kill.Stop()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func TestRunPassesTheStatusOn(t *testing.T) {
	needRoot(t)
	d := serve(t)
	dir := tempDir(t)
	plain, garbage := filepath.Join(dir, "plain"), filepath.Join(dir, "garbage")
	if err := errors.Join(os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644), os.WriteFile(garbage, []byte{1, 2, 3}, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		command []string
		want    int
	}{
		{[]string{"true"}, 0},
		{[]string{"false"}, 1},
		{[]string{"sh", "-c", "exit 7"}, 7},
		{[]string{"sh", "-c", "exit 255"}, 255},
		{[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9},
		{[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{[]string{"no-such-command"}, 127},
		{[]string{"/no/such/command"}, 127},
		{[]string{plain}, 126},
		{[]string{garbage}, 126},
		{[]string{dir}, 126},
	} {
		got := finish(t, exec.Command(binary, d.runArgs(nil, c.command...)...))
		if got.status != c.want || got.out != "" {
			t.Errorf("%v: status %d, want %d: %+v", c.command, got.status, c.want, got)
		}
		if told := strings.Contains(got.errs, c.command[0]); told != (c.want == 126 || c.want == 127) {
			t.Errorf("%v: wrote %q", c.command, got.errs)
		}
	}
}

func TestRunPassesInputAndOutput(t *testing.T) {
	needRoot(t)
	d := serve(t)
	cmd := exec.Command(binary, d.runArgs(nil, "sh", "-c", "echo to the other >&2; exec cat")...)
	in := strings.Repeat("a line\n", 100_000)
	cmd.Stdin = strings.NewReader(in)
	if got := finish(t, cmd); got.out != in || got.errs != "to the other\n" || got.status != 0 {
		t.Errorf("%d bytes of %d came out, status %d, %q", len(got.out), len(in), got.status, got.errs)
	}
	c := d.container(nil, "sh", "-c", "echo $container $(hostname)")
	if got, want := c.line(), "lensfs "+c.name; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRunSetsTheLimits(t *testing.T) {
	needRoot(t)
	d := serve(t)
	cpu := strconv.Itoa(slices.Max(hostCPUs(t)))
	c := d.container([]string{"--memory", "256M", "--swap", "64M", "--cpus", "1.5", "--cpuset", cpu}, "sh", "-c", "grep Cpus_allowed_list /proc/self/status; cat")
	if got := strings.Fields(c.line()); got[len(got)-1] != cpu {
		t.Errorf("it may run on %v, not on %s", got, cpu)
	}
	if got := cgroupRead(t, c.init, "memory", "memory.limit_in_bytes", "memory.max"); got != strconv.Itoa(256<<20) {
		t.Errorf("memory: %s", got)
	}
	swap := strconv.Itoa(64 << 20)
	dir, v2 := cgroupDir(t, c.init, "memory")
	file := filepath.Join(dir, "memory.swap.max")
	if !v2 {
		file, swap = filepath.Join(dir, "memory.memsw.limit_in_bytes"), strconv.Itoa((256+64)<<20)
	}
	if text, err := os.ReadFile(file); !errors.Is(err, os.ErrNotExist) && strings.TrimSpace(string(text)) != swap { // swapaccount=0 has none
		t.Errorf("swap: %q, %v", text, err)
	}
	if got := cgroupRead(t, c.init, "cpuset", "cpuset.cpus", "cpuset.cpus"); got != cpu {
		t.Errorf("cpuset: %s", got)
	}
	quota := "150000"
	if _, v2 := cgroupDir(t, c.init, "cpu"); v2 {
		quota += " 100000"
	}
	if got := cgroupRead(t, c.init, "cpu", "cpu.cfs_quota_us", "cpu.max"); got != quota {
		t.Errorf("quota: %s", got)
	}
	c.close()
}

func TestRunEnforcesTheLimits(t *testing.T) {
	needRoot(t)
	d := serve(t)
	greedy := []string{"sh", "-c", "head -c 300000000 /dev/zero | tail | wc -c"} // tail keeps a line without an end
	if got := finish(t, exec.Command(binary, d.runArgs([]string{"--memory", "64M", "--swap", "0"}, greedy...)...)); strings.TrimSpace(got.out) == "300000000" {
		t.Errorf("a container of 64M has held 300: %+v", got)
	}
	c := d.container([]string{"--cpus", "0.2"}, "sh", "-c", "while :; do :; done")
	poll(t, 10*time.Second, "the quota throttles", func() bool {
		stat := cgroupRead(t, c.init, "cpu", "cpu.stat", "cpu.stat")
		return strings.Contains(stat, "nr_throttled ") && !strings.Contains(stat, "nr_throttled 0")
	})
}

// The views of a container are mounted in its own mount namespace, whatever the host shares with others.
func TestRunLeavesTheHostsMountsAlone(t *testing.T) {
	needRoot(t)
	d := serve(t)
	count := func() (n int) {
		mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("fuse.lxcfs"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mounts {
			if strings.HasPrefix(m.Mountpoint, "/proc/") || strings.HasPrefix(m.Mountpoint, "/sys/") || strings.Contains(m.Mountpoint, runName()) {
				n++
			}
		}
		return n
	}
	before := count()
	if before < 2 {
		t.Fatalf("%d mounts found: this test sees nothing", before)
	}
	c := d.container(nil, "sh", "-c", "grep -c lxcfs /proc/self/mounts; cat")
	if n, _ := strconv.Atoi(c.line()); n < before+4 {
		t.Errorf("%d mounts in the container, of %d and its own", n, before)
	}
	if n := count(); n != before {
		t.Errorf("%d mounts, of %d before", n, before)
	}
	c.close()
}

func TestRunRefuses(t *testing.T) {
	needRoot(t)
	d := serve(t)
	taken := d.container(nil, "sleep", "1000")
	for _, c := range []struct {
		flags []string
		want  []string // in what it says
	}{
		{[]string{"--memory", "12Q"}, []string{"--memory", `"12Q"`, "k, M, G or T"}},
		{[]string{"--memory", "x"}, []string{"--memory", `"x"`, "number of bytes"}},
		{[]string{"--memory", "-1"}, []string{"--memory", `"-1"`}},
		{[]string{"--memory", "0"}, []string{"--memory 0"}},
		{[]string{"--swap", "lots"}, []string{"--swap", `"lots"`, "number of bytes"}},
		{[]string{"--cpus", "-1"}, []string{"--cpus -1", "0.01 and more"}},
		{[]string{"--cpus", "0.001"}, []string{"--cpus 0.001", "0.01 and more"}},
		{[]string{"--cpus", "NaN"}, []string{"--cpus NaN", "0.01 and more"}},
		{[]string{"--cpus", "1e30"}, []string{"--cpus 1e+30"}},
		{[]string{"--cpus", "two"}, []string{"--cpus", "two"}},
		{[]string{"--cpuset", "abc"}, []string{"--cpuset", `"abc"`, "as in 0-1,4"}},
		{[]string{"--cpuset", "8000"}, []string{"--cpuset", `"8000"`, "this host has"}},
		{[]string{"--name", "a/b"}, []string{"--name", `"a/b"`, "no slashes"}},
		{[]string{"--name", ".."}, []string{"--name", `".."`}},
		{[]string{"--name", ""}, []string{"--name", `""`}},
		{[]string{"--name", strings.Repeat("x", 65)}, []string{"--name", "64"}},
		{[]string{"--name", taken.name}, []string{taken.name, "--name"}},
		{[]string{"--cgroup-parent", "/" + runName() + "-nowhere"}, []string{"--cgroup-parent", runName() + "-nowhere"}},
		{[]string{"--tree", "/nowhere"}, []string{"/nowhere", "lensfs serve"}},
		{[]string{"--tree", d.dir}, []string{d.dir, "lensfs serve"}},
		{[]string{"--views", "/nowhere"}, []string{"/nowhere", "lensfs serve"}},
		{[]string{"--colour", "red"}, []string{"--colour"}},
	} {
		got := finish(t, exec.Command(binary, d.runArgs(c.flags, "echo", "run all the same")...))
		for _, want := range c.want {
			if !strings.Contains(got.errs, want) {
				t.Errorf("%q: it does not say %q but %q", c.flags, want, got.errs)
			}
		}
		if got.status != 1 || got.out != "" || strings.Count(got.errs, "\n") > 2 {
			t.Errorf("%q: %+v", c.flags, got)
		}
	}
	if _, v2 := cgroupDir(t, os.Getpid(), "memory"); !v2 {
		if got := finish(t, exec.Command(binary, d.runArgs([]string{"--swap", "1G"}, "true")...)); got.status != 1 || !strings.Contains(got.errs, "give --memory too") {
			t.Errorf("swap without memory: %+v", got)
		}
	}
	if got := finish(t, exec.Command(binary, "run", "--views", d.views)); got.status != 1 || !strings.Contains(got.errs, "arg") {
		t.Errorf("no command: %+v", got)
	}
	if len(groupsAndProcesses(taken.name)) == 0 {
		t.Error("the container whose name was wanted has gone")
	}
}

func TestRunBeneathALimitedParent(t *testing.T) {
	needRoot(t)
	d := serve(t)
	parent := makeCgroup(t, func(pid int) {
		setMemory(t, pid, 400<<20)
		setQuota(t, pid, 1)
	})
	for _, c := range []struct{ memory, want string }{{"300M", "307200"}, {"500M", "409600"}, {"", "409600"}} {
		flags := []string{"--cgroup-parent", parent}
		if c.memory != "" {
			flags = append(flags, "--memory", c.memory)
		}
		for _, tree := range [][]string{nil, {"--tree", d.tree}} {
			out := d.run(append(flags, tree...), "sh", "-c", "grep MemTotal /proc/meminfo; cat /sys/devices/system/cpu/online")
			if want := fmt.Sprintf("MemTotal:         %s kB\n%d\n", c.want, hostCPUs(t)[0]); out != want {
				t.Errorf("memory %q %v: %q, not %q", c.memory, tree, out, want)
			}
		}
	}
}
