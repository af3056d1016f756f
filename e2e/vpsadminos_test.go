package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The meaning of vpsAdminOS's tests of its kernel (tests/suite/kernel: cpu-view, memory-view, loadavg, uptime, misc), for files. What of it is another
// meaning here is in docs/vpsadminos.md.

// shell is a container that runs the commands it is told, and answers each with one line: the lines of its output, with blanks between.
func (d *daemon) shell(flags ...string) *container {
	d.t.Helper()
	return d.container(flags, "sh", "-c", `while read -r c; do eval "$c" 2>&1 | tr '\n' ' '; echo; done`)
}

func serveVpsAdminOS(t *testing.T) *daemon {
	t.Helper()
	needRoot(t)
	return serve(t, "--cpu-quota", "first", "--hide-cpus")
}

// seesCPUs wants n CPUs in each place that tells of them.
func (c *container) seesCPUs(n int) {
	c.t.Helper()
	online, dirs, lines := "0", []string{}, []string{}
	if n > 1 {
		online = fmt.Sprintf("0-%d", n-1)
	}
	for i := range n {
		dirs, lines = append(dirs, fmt.Sprint("cpu", i)), append(lines, fmt.Sprint("cpu", i))
	}
	slices.Sort(dirs)
	for command, want := range map[string]string{
		"cat /sys/devices/system/cpu/online":                               online,
		"LC_ALL=C ls -d /sys/devices/system/cpu/cpu[0-9]* | sed 's,.*/,,'": strings.Join(dirs, " "),
		"grep -o '^cpu[0-9]*' /proc/stat | tail -n +2":                     strings.Join(lines, " "),
		"grep -c ^processor /proc/cpuinfo":                                 fmt.Sprint(n),
		"getconf _NPROCESSORS_ONLN":                                        fmt.Sprint(n),
	} {
		if got := strings.TrimSpace(c.ask("%s", command)); got != want {
			c.t.Errorf("%d CPUs: %s says %q, not %q", n, command, got, want)
		}
	}
}

// quota limits the container's CPU time to percent of one CPU; 0: not at all.
func (c *container) quota(percent int) {
	c.t.Helper()
	v1, v2 := fmt.Sprint(percent*1000), fmt.Sprintf("%d 100000", percent*1000)
	if percent == 0 {
		v1, v2 = "-1", "max 100000"
	}
	dir, is2 := cgroupDir(c.t, c.init, "cpu")
	if is2 {
		writeFile(c.t, filepath.Join(dir, "cpu.max"), v2)
	} else {
		writeFile(c.t, filepath.Join(dir, "cpu.cfs_quota_us"), v1)
	}
	time.Sleep(20 * time.Millisecond) // that soon it must be seen
}

// cpu-view: as many CPUs as the quota is worth, from 0 on, changed while it runs.
func TestVpsAdminOSCPUView(t *testing.T) {
	d := serveVpsAdminOS(t)
	host := hostCPUs(t)
	if len(host) < 2 || host[0] != 0 || host[len(host)-1] != len(host)-1 {
		skip(t, "needs two CPUs, all of them on")
	}
	c := d.shell("--tree", d.tree)
	c.ask("while [ $(cut -d. -f1 /proc/uptime) -lt 1 ]; do sleep 0.1; done") // its limits count from then on
	c.seesCPUs(len(host))
	for _, percent := range []int{300, 250, 201, 200, 150, 100, 50} {
		c.quota(percent)
		c.seesCPUs(min(len(host), int(math.Ceil(float64(percent)/100))))
	}
	c.quota(0)
	c.seesCPUs(len(host))
	c.close()
	beyond := d.shell("--tree", d.tree, "--cpuset", fmt.Sprint(len(host)-1), "--cpus", fmt.Sprint(len(host)))
	if got := strings.TrimSpace(beyond.ask("grep -c ^processor /proc/cpuinfo")); got != fmt.Sprint(len(host)) {
		t.Errorf("a quota of %d CPUs and a cpuset of one: %s are shown", len(host), got)
	}
	beyond.close()
}

// memory-view: limits are the machine's size; without any it is the host.
func TestVpsAdminOSMemoryView(t *testing.T) {
	d := serveVpsAdminOS(t)
	host, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	unlimited := d.run(nil, "cat", "/proc/meminfo")
	if got, want := meminfo(t, unlimited), meminfo(t, string(host)); len(got) != len(want) || got["MemTotal"] != want["MemTotal"] || got["SwapTotal"] != want["SwapTotal"] {
		t.Errorf("without limits: %d lines, MemTotal %d, SwapTotal %d; the host has %d, %d, %d", len(got), got["MemTotal"], got["SwapTotal"], len(want), want["MemTotal"], want["SwapTotal"])
	}
	hosts := meminfo(t, string(host))
	text := d.run([]string{"--memory", "256M", "--swap", "64M"}, "sh", "-c", "cat /observed /etc/passwd >/dev/null 2>&1; cat /proc/meminfo; echo --; cat /proc/swaps")
	mem, swaps, _ := strings.Cut(text, "--\n")
	m := meminfo(t, mem)
	swap := min(64<<10, hosts["SwapTotal"])
	if m["MemTotal"] != 256<<10 || m["SwapTotal"] != swap || m["SwapFree"] > swap || m["Buffers"] != 0 {
		t.Errorf("256 MiB and %d kB of swap: MemTotal %d, SwapTotal %d, SwapFree %d, Buffers %d", swap, m["MemTotal"], m["SwapTotal"], m["SwapFree"], m["Buffers"])
	}
	for name := range m {
		if _, ok := hosts[name]; !ok {
			t.Errorf("the host's meminfo has no %s", name)
		}
	}
	rows := strings.Split(strings.TrimSpace(swaps), "\n")[1:]
	if swap > 0 && (len(rows) != 1 || strings.Fields(rows[0])[2] != fmt.Sprint(swap)) || swap == 0 && len(rows) != 0 {
		t.Errorf("swaps has %q; SwapTotal is %d", rows, swap)
	}
}

// loadavg and uptime: each container its own; they begin anew when it starts again. The tests in truth_load_test.go hold the averages against the kernel's.
func TestVpsAdminOSUptimeAndLoad(t *testing.T) {
	d := serveVpsAdminOS(t)
	first := d.shell()
	first.ask("true")
	time.Sleep(1100 * time.Millisecond)
	second := d.shell()
	up := func(c *container) (seconds, idle float64) {
		t.Helper()
		if _, err := fmt.Sscan(c.ask("cat /proc/uptime"), &seconds, &idle); err != nil {
			t.Fatal(err)
		}
		return seconds, idle
	}
	older, idle := up(first)
	younger, _ := up(second)
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	var host float64
	fmt.Sscan(string(text), &host)
	if older-younger < 1 || younger < 0 || older >= host || idle <= 0 {
		t.Errorf("up %v s (idle %v) and %v s; the second began a second later, the host has been up for %v s", older, idle, younger, host)
	}
	second.close()
	again := d.shell()
	if anew, _ := up(again); anew >= older {
		t.Errorf("a container that has just started has been up for %v s", anew)
	}
	again.ask("for i in 1 2 3; do sh -c 'while :; do :; done' >/dev/null 2>&1 & done; sleep 12")
	load := func(c *container) (one float64, fields []string) {
		t.Helper()
		fields = strings.Fields(c.ask("cat /proc/loadavg"))
		if len(fields) != 5 {
			t.Fatalf("loadavg %q", fields)
		}
		fmt.Sscan(fields[0], &one)
		return one, fields
	}
	busy, fields := load(again)
	quiet, _ := load(first)
	var running, tasks int
	fmt.Sscanf(fields[3], "%d/%d", &running, &tasks)
	const others = 3 // cat, and threads of the container's init that wake just then
	if busy < 0.2 || quiet >= busy/2 || running < 3 || running > 3+others || tasks < running {
		t.Errorf("three tasks have run for 12 s: load %v (%q); that of an idle container is %v", busy, fields, quiet)
	}
	again.close()
	first.close()
}
