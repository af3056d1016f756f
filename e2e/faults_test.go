package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each test here is a fault that LXCFS has, or had, in the files that lensfs serves too: seen in its 5.0 or 7.0, or reported to github.com/lxc/lxcfs.

func init() {
	roles["hold"] = hold
	roles["ballast"] = ballast
	roles["afterStart"] = afterStart
	roles["openToWrite"] = openToWrite
	roles["readAll"] = readAll
}

// LXCFS counts the fields of /proc/PID/stat from its beginning: a name with a space shifts them, and uptime is garbage.
func TestFaultInitName(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, name := range []string{"a) (b c", "Z) S 0 0 0 0 (", "two words", "))))", "((((", "1 2 3 4 5 6 7 8", "new\nline"} {
		t.Run(name, func(t *testing.T) {
			init := filepath.Join(tempDir(t), name)
			if err := os.Symlink("/bin/sh", init); err != nil {
				t.Fatal(err)
			}
			for _, root := range []string{d.tree, d.views + "/self"} {
				script := fmt.Sprintf("cat %[1]s/proc/uptime; grep MemTotal %[1]s/proc/meminfo; cat /proc/1/comm; :", root)
				begin := time.Now()
				out := d.run([]string{"--memory", "128M"}, "unshare", "--fork", "--pid", "--mount-proc", init, "-c", script)
				uptime, rest, _ := strings.Cut(out, "\n")
				beganAfter(t, uptime, begin)
				if want := "MemTotal:         131072 kB\n" + name + "\n"; rest != want {
					t.Errorf("%s: got %q, want %q", root, rest, want)
				}
			}
		})
	}
}

// beganAfter checks the uptime of a container that did not exist at begin.
func beganAfter(t *testing.T, text string, begin time.Time) {
	t.Helper()
	up, idle, err := parseUptime(strings.TrimSpace(text) + "\n")
	if err != nil {
		t.Fatal(err)
	}
	const tick = 0.02
	age := time.Since(begin).Seconds() + tick
	if up < 0 || up > age || idle < 0 || idle > float64(len(hostCPUs(t)))*age {
		t.Errorf("a container that is not older than %.2f s has been up for %v s, and idle for %v", age, up, idle)
	}
}

// LXCFS issue 732: "-184467440737095488.00 -184467440737095488.00" when init cannot be found in time.
func TestFaultUptime(t *testing.T) {
	needRoot(t)
	d := serve(t)
	file := d.tree + "/proc/uptime"

	// The first reads of very young containers, whose namespaces' numbers the kernel soon uses again.
	t.Run("many", func(t *testing.T) {
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
			begin := time.Now()
			beganAfter(t, command(t, "unshare", "--fork", "--pid", "cat", file), begin)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		begin := time.Now()
		c := idle(d)
		stop(t, c.init, syscall.SIGSTOP)
		defer stop(t, c.init, syscall.SIGCONT)
		beganAfter(t, enter(t, c.init, "cat", file), begin)
		beganAfter(t, enter(t, c.init, "cat", "/proc/uptime"), begin)
	})
	t.Run("time namespace", func(t *testing.T) {
		begin := time.Now()
		beganAfter(t, command(t, "unshare", "--time", "--boottime", "1000000", "--fork", "--pid", "cat", file), begin)
	})
	// LXCFS gives processes of the host the age of the host's pid 1.
	t.Run("host", func(t *testing.T) {
		var up [3]float64
		for i, path := range []string{"/proc/uptime", file, "/proc/uptime"} {
			var err error
			if up[i], _, err = parseUptime(command(t, "cat", path)); err != nil {
				t.Fatal(err)
			}
		}
		const ticks = 0.03 // it may be one old, so may what it was made from, and is cut to one
		if up[1] < up[0]-ticks || up[1] > up[2] {
			t.Errorf("the host has been up for %v s; it sees %v", up[0], up[1])
		}
	})
	// LXCFS takes what was used from the age of the container as if it had one CPU, and jumps back to the age when that becomes negative.
	t.Run("busy", func(t *testing.T) {
		cpus := hostCPUs(t)
		cpus = cpus[:min(2, len(cpus))]
		n := float64(len(cpus))
		spin := strings.Repeat("while :; do :; done & ", len(cpus))
		c := d.container([]string{"--cpuset", list(cpus)}, "sh", "-c", spin+"echo up; read wait")
		c.line()
		last := 0.0
		for range 6 {
			time.Sleep(300 * time.Millisecond)
			age1, busy1 := age(t, c.init), busy(t, c.init)
			_, idle, err := parseUptime(enter(t, c.init, "cat", file))
			if err != nil {
				t.Fatal(err)
			}
			age2, busy2 := age(t, c.init), busy(t, c.init)
			const slack = 0.03 // two CPUs for a tick and a half
			if least, most := max(0, n*age1-busy2)-slack, n*age2-busy1+slack; idle < least || idle > most || idle < last {
				t.Errorf("%v CPUs have been idle for %v s, before that for %v; it should be between %v and %v", n, idle, last, least, most)
			}
			last = idle
		}
	})
}

// idle starts a container that does nothing, and waits until it has its views.
func idle(d *daemon, flags ...string) *container {
	d.t.Helper()
	c := d.container(flags, "sh", "-c", "echo up; sleep 60")
	c.line()
	return c
}

func stop(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// enter runs a command in the pid and mount namespaces of a process.
func enter(t *testing.T, pid int, cmd ...string) string {
	t.Helper()
	return command(t, "nsenter", append([]string{"-t", strconv.Itoa(pid), "-p", "-m", "--"}, cmd...)...)
}

// age is how long a process has existed, in seconds.
func age(t *testing.T, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	start, err := strconv.ParseFloat(strings.Fields(string(text[strings.LastIndex(string(text), ")"):]))[22-2], 64)
	if err != nil {
		t.Fatal(err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano()).Seconds() - start/100
}

// busy is the CPU time that the cgroup of a process has used, in seconds.
func busy(t *testing.T, pid int) float64 {
	t.Helper()
	text, unit := cgroupRead(t, pid, "cpuacct", "cpuacct.usage", "cpu.stat"), 1e-9
	if after, ok := strings.CutPrefix(text, "usage_usec "); ok {
		text, unit = strings.Fields(after)[0], 1e-6
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * unit
}
