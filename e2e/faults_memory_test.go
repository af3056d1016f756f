package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

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
