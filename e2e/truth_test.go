package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// growth is by how many seconds the columns grew together.
func growth(before, after statTimes, columns ...string) float64 {
	var ticks int64
	for _, c := range columns {
		ticks += after.all[c] - before.all[c]
	}
	return float64(ticks) / userHZ
}

// settle waits longer than looks at the clock are held together, so that the next reading is a new one.
const settle = 50 * time.Millisecond

func within(t *testing.T, what string, got, want, off float64) {
	t.Helper()
	if math.Abs(got-want) > off || math.IsNaN(got) {
		t.Errorf("%s: %.2f, not %.2f ± %v", what, got, want, off)
	}
}

// Three seconds of work are three seconds in stat, and the time of all columns goes with the clock; half of it is stolen by a quota of a half.
func TestWorkIsShownInStat(t *testing.T) {
	needRoot(t)
	d := serve(t)
	one := list(hostCPUs(t)[:1])
	for name, mount := range d.bothMounts() {
		for _, quota := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, quota %v", name, quota), func(t *testing.T) {
				flags, limit, clock := append(mount, "--cpuset", one), 3*time.Second, "cpu"
				if quota {
					flags, limit, clock = append(flags, "--cpus", "0.5"), 2*time.Second, "wall"
				}
				c := d.spender(flags...)
				// It goes before the machine's other work: else that, and not the quota, may be what keeps it from its time.
				cgroupWrite(t, c.init, "cpu", "cpu.shares", "cpu.weight", "10000")
				asked := time.Now()
				before := statCPUs(t, c.read("proc/stat"))
				told := time.Now()
				used := c.burn(limit, clock)
				time.Sleep(settle)
				least := time.Since(told).Seconds()
				after := statCPUs(t, c.read("proc/stat"))
				most := time.Since(asked).Seconds()
				within(t, "user and system", growth(before, after, "user", "system"), used, 0.1)
				within(t, "all columns", growth(before, after, "user", "system", "steal", "idle"), (least+most)/2, (most-least)/2+0.1)
				if steal := growth(before, after, "steal"); (steal > 0) != quota {
					t.Errorf("%v s stolen", steal)
				}
				c.close()
			})
		}
	}
}

// What a container holds is in the lines of meminfo that are about its kind.
func TestMemoryHeldIsShown(t *testing.T) {
	needRoot(t)
	d := serve(t)
	dir := diskDir(t)
	for name, mount := range d.bothMounts() {
		c := d.spender(append(mount, "--memory", "1G")...)
		for range 5 { // what the program itself needs to hold something
			c.ask("hold file %d %s", 1<<20, filepath.Join(dir, "file"))
			c.read("proc/meminfo")
		}
		if err := os.Remove(filepath.Join(dir, "file")); err != nil {
			t.Fatal(err)
		}
		before, err := parseMeminfo(c.read("proc/meminfo"))
		if err != nil {
			t.Fatal(err)
		}
		c.ask("hold anon %d -", 200<<20)
		c.ask("hold file %d %s", 100<<20, filepath.Join(dir, "file"))
		c.ask("hold file %d %s", 50<<20, "/dev/shm/"+c.name)
		t.Cleanup(func() { os.Remove("/dev/shm/" + c.name) })
		for line, want := range map[string]float64{"AnonPages": 200, "Shmem": 50, "Cached": 150, "MemFree": -350} {
			var grown float64
			text := ""
			// The kernel adds up what each CPU counts every two seconds.
			for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(settle) {
				text = c.read("proc/meminfo")
				after, err := parseMeminfo(text)
				if err != nil {
					t.Fatal(err)
				}
				if grown = (float64(after[line]) - float64(before[line])) / 1024; math.Abs(grown-want) <= 2 {
					break
				}
			}
			if line == "MemFree" { // the kernel's own bookkeeping of files is in it
				within(t, name+": "+line, grown, want, 8)
				continue
			}
			within(t, name+": "+line, grown, want, 2)
		}
		c.close()
	}
}

// diskDir makes a directory whose files are not memory of the kind that Shmem counts, as they may be in /tmp.
func diskDir(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{"/var/tmp", "/root", "/"} {
		var st unix.Statfs_t
		if err := unix.Statfs(parent, &st); err != nil || st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
			continue
		}
		dir, err := os.MkdirTemp(parent, "lensfs-e2e-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	t.Fatal("no file system of this machine is on a disk")
	return ""
}
