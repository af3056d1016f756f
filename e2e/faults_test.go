package e2e

import (
	"errors"
	"fmt"
	"io"
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

// LXCFS counts the CPUs that cpuset.cpus asks for, where those above have fewer to give, and numbers them from 0 in cpuinfo alone.
func TestFaultRequestedCPUs(t *testing.T) {
	needRoot(t)
	cpus := hostCPUs(t)
	if len(cpus) < 2 {
		skip(t, "needs two CPUs")
	}
	last := cpus[len(cpus)-1:]
	d := serve(t)
	above := newGroup(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: list(last)}})
	c := idle(d, "--cgroup-parent", above, "--cpuset", list(last))
	// Version 1 refuses what version 2 takes without giving it.
	if err := os.WriteFile(cgroupFile(t, c.init, "cpuset", "cpuset.cpus", "cpuset.cpus"), []byte(list(cpus)), 0); err != nil && memoryIsV2(t) {
		t.Fatal(err)
	}
	if got := command(t, "grep", "Cpus_allowed_list", fmt.Sprintf("/proc/%d/status", c.init)); strings.Fields(got)[1] != list(last) {
		t.Fatalf("the kernel lets it run on %s", got)
	}
	for _, root := range []string{"/", d.tree} {
		online := strings.TrimSpace(enter(t, c.init, "cat", filepath.Join(root, "sys/devices/system/cpu/online")))
		processors, err := parseCpuinfo(enter(t, c.init, "cat", filepath.Join(root, "proc/cpuinfo")))
		if err != nil {
			t.Fatal(err)
		}
		if online != list(last) || !slices.Equal(processors, last) {
			t.Errorf("it can run on %v; online is %s, cpuinfo has %v", last, online, processors)
		}
	}
}

func memoryIsV2(t *testing.T) bool {
	t.Helper()
	_, v2 := cgroupDir(t, os.Getpid(), "memory")
	return v2
}

// LXCFS issues 56, 60, 115, 170, 695: SwapFree of 2^64 when less is allowed than is used; 534: none at all when no group had swap as it started.
func TestFaultSwap(t *testing.T) {
	needRoot(t)
	d := serve(t)
	host := hostSwap(t)
	t.Run("limit", func(t *testing.T) {
		m := meminfo(t, d.run([]string{"--memory", "64M", "--swap", "32M"}, "cat", "/proc/meminfo"))
		if want := min(32<<10, host); m["SwapTotal"] != want || m["SwapFree"] != want {
			t.Errorf("SwapTotal %d, SwapFree %d; %d is allowed, the host has %d", m["SwapTotal"], m["SwapFree"], 32<<10, host)
		}
	})
	t.Run("below its use", func(t *testing.T) {
		if host < 128<<10 {
			t.Skip("this machine has no swap, or too little")
		}
		c := d.container([]string{"--memory", "64M", "--swap", "256M"}, asRole("ballast", "96")...)
		c.line()
		used := number(t, cgroupRead(t, c.init, "memory", "memory.memsw.usage_in_bytes", "memory.swap.current"))
		if memoryIsV2(t) {
			if used < 16<<20 {
				t.Fatalf("only %d bytes have been swapped out", used)
			}
			cgroupWrite(t, c.init, "memory", "", "memory.swap.max", "0")
			used = number(t, cgroupRead(t, c.init, "memory", "", "memory.swap.current"))
		} else { // refused as long as so much is in use
			used -= number(t, cgroupRead(t, c.init, "memory", "memory.usage_in_bytes", ""))
			os.WriteFile(cgroupFile(t, c.init, "memory", "memory.memsw.limit_in_bytes", ""), []byte(strconv.Itoa(64<<20)), 0)
		}
		m := meminfo(t, enter(t, c.init, "cat", "/proc/meminfo"))
		const slack = 4 << 10
		if m["SwapTotal"] > host || m["SwapTotal"]-m["SwapFree"]+slack < used>>10 || memoryIsV2(t) && m["SwapFree"] > slack {
			t.Errorf("SwapTotal %d, SwapFree %d with %d bytes swapped out", m["SwapTotal"], m["SwapFree"], used)
		}
	})
}

// meminfo parses, and so checks that nothing is negative or above its total.
func meminfo(t *testing.T, text string) map[string]uint64 {
	t.Helper()
	m, err := parseMeminfo(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// LXCFS shows Mapped, Dirty (v2) and AnonHugePages (both) as 0, and leaves locked pages out of AnonPages.
func TestFaultZeroes(t *testing.T) {
	needRoot(t)
	d := serve(t)
	// Beside the system's own files: /tmp may be in memory, where nothing is ever dirty.
	dir, err := os.MkdirTemp("/var/tmp", runName())
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		skip(t, "needs a disk file system in /var/tmp")
	}
	c := d.container([]string{"--memory", "512M"}, asRole("hold", dir)...)
	if got := c.line(); got != "holding" {
		t.Fatal(got)
	}
	type line struct {
		name, v1, v2 string // of meminfo, of memory.stat
		least        uint64 // MB
	}
	lines := []line{
		{"Mapped", "total_mapped_file", "file_mapped", 16},
		{"Dirty", "total_dirty", "file_dirty", 4},
		{"AnonPages", "total_rss", "anon", holdHuge + holdLocked},
		{"Unevictable", "total_unevictable", "unevictable", holdLocked},
	}
	if huge, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err == nil && !strings.Contains(string(huge), "[never]") {
		lines = append(lines, line{"AnonHugePages", "total_rss_huge", "anon_thp", holdHuge / 2})
	}
	var bad []string
	for range 5 { // writeback may come in between
		if got := c.ask("dirty"); got != "dirty" {
			t.Fatal(got)
		}
		before := memoryStat(t, c.init)
		m := meminfo(t, enter(t, c.init, "cat", "/proc/meminfo"))
		after := memoryStat(t, c.init)
		bad = nil
		for _, l := range lines {
			key := l.v1
			if memoryIsV2(t) {
				key = l.v2
			}
			const slack = 2 << 20 // the kernel's own counters lag by as much
			least, most := min(before[key], after[key]), max(before[key], after[key])+slack
			if got := m[l.name] << 10; got+slack < least || got > most || got < l.least<<20 {
				bad = append(bad, fmt.Sprintf("%s is %d bytes; memory.stat says %d, and it is at least %d MB", l.name, got, after[key], l.least))
			}
		}
		// What LXCFS takes for AnonPages.
		if lru := m["Active(anon)"] + m["Inactive(anon)"] - m["Shmem"]; m["AnonPages"] < lru+holdLocked<<10-512 {
			bad = append(bad, fmt.Sprintf("AnonPages is %d kB with %d kB on the lists and %d MB locked", m["AnonPages"], lru, holdLocked))
		}
		if bad == nil {
			break
		}
	}
	for _, b := range bad {
		t.Error(b)
	}
	c.close()
}

func memoryStat(t *testing.T, pid int) map[string]uint64 {
	t.Helper()
	stat := map[string]uint64{}
	for line := range strings.Lines(cgroupRead(t, pid, "memory", "memory.stat", "memory.stat") + "\n") {
		key, value, _ := strings.Cut(line, " ")
		stat[key] = number(t, value)
	}
	return stat
}

// MB that hold holds.
const (
	holdMapped = 16
	holdDirty  = 8
	holdHuge   = 64
	holdLocked = 4
)

// hold has some of every kind of memory, and dirties a file when told to.
func hold(args []string) error {
	path := filepath.Join(args[0], "mapped")
	if err := os.WriteFile(path, make([]byte, holdMapped<<20), 0o600); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	mapped, err := unix.Mmap(int(file.Fd()), 0, holdMapped<<20, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	const hugePage = 2 << 20 // of x86; elsewhere the least that is wanted
	huge, err := anonymous(holdHuge<<20 + hugePage)
	if err != nil {
		return err
	}
	if err := unix.Madvise(huge, unix.MADV_HUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	locked, err := anonymous(holdLocked << 20)
	if err != nil {
		return err
	}
	if err := unix.Mlock(locked); err != nil {
		return err
	}
	sum := byte(0)
	for i := 0; i < len(mapped); i += 4096 {
		sum += mapped[i]
	}
	touch(huge)
	touch(locked)
	fmt.Println("holding")
	for n := 0; ; n++ {
		if _, err := fmt.Scanln(new(string)); err != nil {
			return nil // the test is over
		}
		// Each time another file: ext4 writes at once what replaces a text.
		if err := os.WriteFile(filepath.Join(args[0], strconv.Itoa(n)), make([]byte, holdDirty<<20), 0o600); err != nil {
			return err
		}
		fmt.Println("dirty")
	}
}

func anonymous(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

// touch makes every page of its own, with content that zswap cannot take for a page of zeroes.
func touch(mem []byte) {
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = byte(i>>12) | 1
	}
}

// ballast holds so many MB until its input ends.
func ballast(args []string) error {
	mb, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	mem, err := anonymous(mb << 20)
	if err != nil {
		return err
	}
	touch(mem)
	fmt.Println("holding")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// LXCFS shows more memory available than there is: to processes of the root cgroup, and where the page cache fills the rest.
func TestFaultAvailableAboveTotal(t *testing.T) {
	needRoot(t)
	d := serve(t)
	real := meminfo(t, command(t, "cat", "/proc/meminfo"))
	root := meminfo(t, tool(t, joining(rootGroups(t), "cat", d.tree+"/proc/meminfo")))
	if root["MemTotal"] != real["MemTotal"] || root["MemFree"] > real["MemFree"]+real["MemTotal"]/8 {
		t.Errorf("a process of the root cgroup sees %d free of %d; the host has %d of %d", root["MemFree"], root["MemTotal"], real["MemFree"], real["MemTotal"])
	}
	dir, err := os.MkdirTemp("/var/tmp", runName())
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "cached")
	m := meminfo(t, d.run([]string{"--memory", "64M"}, "sh", "-c", "dd if=/dev/zero of="+file+" bs=1M count=48 conv=fsync 2>/dev/null; cat "+file+" >/dev/null; cat /proc/meminfo"))
	if m["MemAvailable"] > m["MemTotal"] || m["MemAvailable"] < m["MemTotal"]/2 || m["Cached"] < 32<<10 {
		t.Errorf("MemTotal %d, MemAvailable %d, Cached %d", m["MemTotal"], m["MemAvailable"], m["Cached"])
	}
}

// LXCFS issue 389 and others: MemFree underflows when the limit is lowered below what is used.
func TestFaultFreeUnderflow(t *testing.T) {
	needRoot(t)
	d := serve(t)
	c := d.container([]string{"--memory", "256M", "--swap", "0"}, asRole("ballast", "96")...)
	c.line()
	limit := cgroupFile(t, c.init, "memory", "memory.limit_in_bytes", "memory.max")
	if memoryIsV2(t) {
		// None of it may be killed for its memory, or the kernel would make room.
		for pid := range strings.FieldsSeq(cgroupRead(t, c.init, "memory", "", "cgroup.procs")) {
			if err := os.WriteFile("/proc/"+pid+"/oom_score_adj", []byte("-1000"), 0); err != nil {
				t.Fatal(err)
			}
		}
		defer setMemory(t, c.init, 256<<20) // else it could not even end
		setMemory(t, c.init, 64<<20)
	} else { // refuses a limit below what is used: as low as it takes
		for mb := 64; ; mb++ {
			if err := os.WriteFile(limit, []byte(strconv.Itoa(mb<<20)), 0); err == nil {
				break
			} else if !errors.Is(err, unix.EBUSY) {
				t.Fatal(err)
			}
		}
	}
	total := number(t, cgroupRead(t, c.init, "memory", "memory.limit_in_bytes", "memory.max"))
	used := number(t, cgroupRead(t, c.init, "memory", "memory.usage_in_bytes", "memory.current"))
	if used+4<<20 < total || memoryIsV2(t) && used < total {
		t.Fatalf("%d bytes are in use, the limit is %d", used, total)
	}
	for _, root := range []string{"", d.tree} {
		m := meminfo(t, enter(t, c.init, "cat", root+"/proc/meminfo"))
		if m["MemTotal"] != total>>10 || m["MemFree"] > 4<<10 || memoryIsV2(t) && m["MemFree"] != 0 || m["MemAvailable"] > m["MemTotal"] {
			t.Errorf("with %d of %d bytes in use: MemTotal %d, MemFree %d, MemAvailable %d", used, total, m["MemTotal"], m["MemFree"], m["MemAvailable"])
		}
	}
}

// LXCFS issue 299: a second one started by mistake harms the first; it takes the pidfile away, and mounts over it.
func TestFaultSecondInstance(t *testing.T) {
	needRoot(t)
	dir, other := tempDir(t), tempDir(t)
	tree, pidfile := filepath.Join(dir, "tree"), filepath.Join(dir, "pid")
	lxcfs := filepath.Join(dir, "lxcfs")
	if err := os.Symlink(binary, lxcfs); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, tree, dir, exec.Command(lxcfs, "-f", "-p", pidfile, "--runtime-dir", dir, tree))
	for _, second := range [][]string{
		{"-f", "-p", pidfile, "--runtime-dir", dir, tree},
		{"-f", "-p", pidfile, "--runtime-dir", dir, other + "/tree"},
		{"-f", "-p", pidfile, "--runtime-dir", other, tree},
		{"-f", "-p", other + "/pid", "--runtime-dir", dir, tree},
		{"-f", "-p", other + "/pid", "--runtime-dir", other, tree},
	} {
		if out, err := tryCommand(lxcfs, second...); err == nil || !strings.Contains(err.Error(), "another directory") && !strings.Contains(err.Error(), "another --pidfile") {
			t.Errorf("lxcfs %v: %q, %v", second, out, err)
		}
		if got, err := os.ReadFile(pidfile); string(got) != fmt.Sprintln(d.cmd.Process.Pid) {
			t.Errorf("after lxcfs %v the pidfile has %q, %v", second, got, err)
		}
		if n := len(mountsOn(t, tree)); n != 1 {
			t.Errorf("after lxcfs %v there are %d mounts on %s", second, n, tree)
		}
		if mountedOn(t, other+"/tree") != "" {
			t.Errorf("lxcfs %v left a mount", second)
		}
		d.alive()
	}
	// Two that are meant to be there live side by side, and end alone.
	beside := startDaemon(t, other+"/tree", other, exec.Command(lxcfs, "-f", "-p", other+"/pid", "--runtime-dir", dir, other+"/tree"))
	beside.warnings = true // it has no own views: those in dir are the first one's
	beside.alive()
	beside.stop()
	d.alive()
	for _, root := range []string{"", tree} {
		if m := meminfo(t, d.run([]string{"--memory", "128M"}, "cat", root+"/proc/meminfo")); m["MemTotal"] != 128<<10 {
			t.Errorf("the first one shows %d", m["MemTotal"])
		}
	}
	d.stop()
	if _, err := os.Stat(pidfile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the first one left its pidfile: %v", err)
	}
}

// mountsOn gives all mounts on a directory, one over the other.
func mountsOn(t *testing.T, dir string) []*mountinfo.Info {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	return mounts
}

// LXCFS refuses to mount where one that was killed has left its mount: "Transport endpoint is not connected".
func TestFaultDeadMountpoint(t *testing.T) {
	needRoot(t)
	d := serve(t)
	d.kill()
	if out, err := tryCommand("cat", d.tree+"/proc/uptime"); err == nil {
		t.Fatalf("killed, it answers: %q", out)
	}
	again := serveAt(t, d.tree, d.dir)
	again.alive()
	if n := len(mountsOn(t, d.tree)); n != 1 {
		t.Errorf("%d mounts on one directory: the dead one is still there", n)
	}
	if m := meminfo(t, again.run([]string{"--memory", "128M"}, "cat", "/proc/meminfo")); m["MemTotal"] != 128<<10 {
		t.Errorf("the new one shows %d", m["MemTotal"])
	}
}

// LXCFS reads everything as root for everybody: uid 1000 gets the host's slabinfo, and crash_notes.
func TestFaultRootsFiles(t *testing.T) {
	needRoot(t)
	d := serve(t)
	const cpus = "/sys/devices/system/cpu"
	paths := []string{d.tree + "/proc/slabinfo"}
	err := filepath.WalkDir(cpus, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := e.Info(); err == nil && e.Type().IsRegular() && info.Mode()&0o004 == 0 {
			paths = append(paths, d.tree+path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths[1:] {
		if _, err := tryCommand("stat", path); err == nil || !strings.Contains(err.Error(), "No such file") {
			t.Errorf("root alone may read %s on the host, and it is served: %v", path, err)
		}
	}
	for line := range strings.Lines(d.run([]string{"--memory", "128M"}, asRole("readAll", append([]string{"1000"}, paths...)...)...)) {
		path, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		// The header of slabinfo may be shown.
		if text, err := strconv.Unquote(text); err != nil || !strings.HasSuffix(path, "slabinfo") || strings.Count(text, "\n") > 2 || strings.Contains(text, "kmalloc") {
			t.Errorf("uid 1000 read %s: %q", path, text)
		}
	}
}

// readAll becomes another user, and prints what it can read of the files.
func readAll(args []string) error {
	if err := become(args[0]); err != nil {
		return err
	}
	for _, path := range args[1:] {
		if text, err := os.ReadFile(path); err == nil {
			fmt.Printf("%s\t%q\n", path, text)
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func become(uid string) error {
	id, err := strconv.Atoi(uid)
	if err != nil || id == 0 {
		return err
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
}

// LXCFS answers EINVAL past the end, and nothing at all when the first read of a descriptor is not at 0.
func TestFaultOffsets(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, root := range []string{"/", d.tree} {
		d.run([]string{"--memory", "128M"}, asRole("afterStart", root)...)
	}
	d.alive()
}

func afterStart(args []string) error {
	for _, name := range []string{"proc/meminfo", "proc/cpuinfo", "proc/uptime"} {
		f, err := os.Open(filepath.Join(args[0], name))
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, 1<<20)
		n, err := unix.Pread(int(f.Fd()), buf, 5)
		if err != nil || n <= 0 {
			return fmt.Errorf("%s: the first read, at 5: %d bytes, %v", name, n, err)
		}
		// A text that grows meanwhile does so by a few digits.
		for _, at := range []int64{int64(n) + 50, 1 << 20, 1 << 40} {
			if got, err := unix.Pread(int(f.Fd()), buf, at); got != 0 || err != nil {
				return fmt.Errorf("%s: of %d bytes, at %d: %d bytes, %v", name, n+5, at, got, err)
			}
		}
	}
	return nil
}

// LXCFS lets everybody open everything for writing; a trigger written by uid 1000 and closed without a poll ends it, for all containers.
func TestFaultOpenToWrite(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, uid := range []string{"0", "1000"} {
		for _, root := range []string{"", d.tree} {
			files := strings.Fields(command(t, "find", d.tree, "-type", "f", "-printf", root+"/%P\n"))
			files = append(files, d.tree+"/proc/pressure/cpu", d.tree+"/proc/pressure/memory")
			d.run([]string{"--memory", "128M"}, asRole("openToWrite", append([]string{uid}, files...)...)...)
		}
	}
	d.alive()
}

func openToWrite(args []string) error {
	if err := become(args[0]); err != nil {
		return err
	}
	for _, path := range args[1:] {
		for _, flags := range []int{unix.O_RDWR, unix.O_WRONLY, unix.O_WRONLY | unix.O_TRUNC, unix.O_RDONLY | unix.O_TRUNC, unix.O_RDWR | unix.O_APPEND} {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
			if err == nil {
				_, err := unix.Write(fd, []byte("some 150000 2000000"))
				unix.Close(fd)
				return fmt.Errorf("uid %s opened %s with flags %#x, and wrote: %v", args[0], path, flags, err)
			}
			if err != unix.EROFS && err != unix.EACCES && err != unix.ENOENT {
				return fmt.Errorf("uid %s, %s, flags %#x: %w", args[0], path, flags, err)
			}
		}
	}
	return nil
}

// LXCFS issues 608, 636, PR 637: every file is EACCES, or empty, to all where the daemon may not look into other processes (Yama, a container
// without CAP_SYS_PTRACE). lensfs could only show everybody the host, so it does not start, and says what it wants.
func TestFaultWithoutPtrace(t *testing.T) {
	needRoot(t)
	needCommand(t, "setpriv")
	dir := tempDir(t)
	out, err := tryCommand("setpriv", "--bounding-set", "-sys_ptrace", binary, "serve", "--tree", filepath.Join(dir, "tree"), "--views", viewsIn(dir), "--runtime-dir", dir)
	if err == nil || !strings.Contains(err.Error(), "CAP_SYS_PTRACE") {
		t.Errorf("%q, %v", out, err)
	}
}

// LXCFS issue 44 and others: whose values a process sees is decided by the innermost pid namespace that it is in.
func TestFaultNested(t *testing.T) {
	needRoot(t)
	d := serve(t)
	above := newGroup(t, memoryLimit(256<<20))
	inner := newGroup(t, memoryLimit(128<<20), above)
	look := fmt.Sprintf("grep MemTotal %[1]s/proc/meminfo; cat %[1]s/proc/uptime; ", d.tree)
	nested := shell(joining(processesOf(inner), "unshare", "--fork", "--pid", "--mount-proc", "sh", "-c", look+":"))
	begin := time.Now()
	out := d.run([]string{"--memory", "512M", "--cgroup-parent", above}, "sh", "-c", look+"sleep 1; "+nested+"; "+look)
	got := strings.Split(out, "\n")
	if len(got) != 7 {
		t.Fatalf("%q", out)
	}
	for i, want := range []string{"262144 kB", "131072 kB", "262144 kB"} { // the limit above counts too
		if !strings.HasSuffix(got[2*i], " "+want) {
			t.Errorf("%q: MemTotal should be %s", got, want)
		}
	}
	beganAfter(t, got[1], begin)
	beganAfter(t, got[3], begin.Add(time.Second))
	outer, _, err := parseUptime(got[5] + "\n")
	if err != nil || outer < 1 {
		t.Errorf("the outer container's uptime after a second: %q", got[5])
	}
}

// A process sent in from the root cgroup sees the container (LXCFS does that well), one that is in its mount namespace only what its own cgroup allows.
func TestFaultSentIn(t *testing.T) {
	needRoot(t)
	d := serve(t)
	host := meminfo(t, command(t, "cat", "/proc/meminfo"))["MemTotal"]
	c := idle(d, "--memory", "256M")
	small := newGroup(t, memoryLimit(96<<20))
	init := strconv.Itoa(c.init)
	for _, test := range []struct {
		what   string
		groups []string
		flags  []string
		want   uint64 // of the shared tree; whoever reads the container's own view sees the container
	}{
		{"pid and mount namespace, root cgroup", rootGroups(t), []string{"-p", "-m"}, 256 << 10},
		{"pid and mount namespace, a cgroup elsewhere", processesOf(small), []string{"-p", "-m"}, 256 << 10},
		{"mount namespace, root cgroup", rootGroups(t), []string{"-m"}, host},
		{"mount namespace, a cgroup elsewhere", processesOf(small), []string{"-m"}, 96 << 10},
	} {
		for _, root := range []string{d.tree, ""} {
			want := test.want
			if root == "" {
				want = 256 << 10
			}
			cmd := append(append([]string{"nsenter", "-t", init}, test.flags...), "cat", root+"/proc/meminfo")
			if got := meminfo(t, tool(t, joining(test.groups, cmd...)))["MemTotal"]; got != want {
				t.Errorf("%s, %s/proc/meminfo: MemTotal is %d, not %d", test.what, root, got, want)
			}
		}
	}
}

// LXCFS takes what is used from the group that init is in, though the container's other processes are in groups beside it: it knows /init.scope alone.
func TestFaultInitInLeaf(t *testing.T) {
	needRoot(t)
	d := serve(t)
	// As systemd does.
	t.Run("init.scope", func(t *testing.T) {
		group := newGroup(t, memoryLimit(256<<20))
		scope, load := memoryGroup(t, group, "init.scope"), memoryGroup(t, group, "load")
		start(t, joining([]string{load + "/cgroup.procs"}, asRole("ballast", "64")...))
		init := child(t, start(t, joining([]string{scope + "/cgroup.procs"}, "unshare", "--fork", "--pid", "sleep", "60")))
		checkUse(t, d, init, group)
	})
	// As OpenRC, supervisors and lxc.cgroup.dir.container.inner do: the container knows the root of its cgroups by what it has mounted.
	t.Run("any name", func(t *testing.T) {
		group := newGroup(t, memoryLimit(256<<20))
		mnt := tempDir(t)
		mount := "mount -t cgroup -o memory cgroup " + mnt
		if memoryIsV2(t) {
			mount = "mount -t cgroup2 cgroup " + mnt
		}
		outside := start(t, joining(processesOf(group), "unshare", "--cgroup", "--mount", "--fork", "--pid", "--mount-proc", "sh", "-c", mount+" && echo mounted && sleep 60"))
		init := child(t, outside)
		checkUse(t, d, init, group) // known to the daemon before it moves
		leaf, load := memoryDir(t, group, "leaf"), memoryDir(t, group, "load")
		for _, pid := range append([]int{outside, init}, children(init)...) {
			if err := os.WriteFile(leaf+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Fatal(err)
			}
		}
		memoryGroup(t, group, "leaf") // now that nobody is in the group itself
		start(t, joining([]string{load + "/cgroup.procs"}, asRole("ballast", "64")...))
		checkUse(t, d, init, group)
		time.Sleep(1100 * time.Millisecond) // by now the daemon has looked where init is
		checkUse(t, d, init, group)
	})
}

// checkUse compares what a container shows as used with what its group says.
func checkUse(t *testing.T, d *daemon, init int, group string) {
	t.Helper()
	read := func() uint64 {
		dir, v2 := groupDir(t, group, "memory")
		name := "memory.usage_in_bytes"
		if v2 {
			name = "memory.current"
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return number(t, string(text)) >> 10
	}
	before := read()
	for _, root := range []string{d.tree, d.views + "/self"} {
		m := meminfo(t, enter(t, init, "cat", root+"/proc/meminfo"))
		after := read()
		const slack = 2 << 10
		used := m["MemTotal"] - m["MemFree"]
		if m["MemTotal"] != 256<<10 || used+slack < min(before, after) || used > max(before, after)+slack {
			t.Errorf("%s: %d of %d kB are used; the container's group has used %d", root, used, m["MemTotal"], after)
		}
	}
}

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
		file := filepath.Join(m.Mountpoint, path, "cgroup.procs")
		if _, err := os.Stat(file); strings.HasPrefix(m.FSType, "cgroup") && err == nil {
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
		case <-time.After(30 * time.Second):
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
