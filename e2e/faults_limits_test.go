package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

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
