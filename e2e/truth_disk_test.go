package e2e

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a container moves to and from a disk is in its line of diskstats, and in no other container's.
func TestDiskUseIsShown(t *testing.T) {
	needRoot(t)
	dir := diskDir(t)
	name, number := diskOf(t, dir)
	countOnV1(t, number)
	d := serve(t)
	for mount, flags := range d.bothMounts() {
		c, idle := d.spender(flags...), d.spender(flags...)
		file := filepath.Join(dir, c.name) // v2 counts what goes through the page cache for the group whose memory the page is: the first that wrote it
		before := diskLine(t, c.read("proc/diskstats"), name)
		for _, step := range []struct {
			how         string
			mib         int
			read, wrote float64 // MiB
		}{{"write", 64, 0, 64}, {"sync", 64, 0, 64}, {"fetch", 32, 32, 0}} {
			counted := writtenOnV2(t, c.init, number)
			c.ask("%s %d %s", step.how, step.mib<<20, file)
			time.Sleep(settle)
			after := diskLine(t, c.read("proc/diskstats"), name)
			// Where memory has long been in use, the kernel (6.12) may not find room for a group's own writeback at once, and counts a part for the host.
			if mib := writtenOnV2(t, c.init, number) - counted; step.how == "sync" && mib >= 0 && mib < step.wrote {
				t.Logf("%s: the kernel has counted %v MiB of %v for the container", mount, mib, step.wrote)
				step.wrote = mib
			}
			// What the file system writes beside is a little, if it is written in the container's name at all.
			within(t, mount+": MiB read by "+step.how, after.mib(sectorsRead)-before.mib(sectorsRead), step.read+0.5, 0.5)
			within(t, mount+": MiB written by "+step.how, after.mib(sectorsWritten)-before.mib(sectorsWritten), step.wrote+0.5, 0.5)
			if step.read > 0 && after[reads] <= before[reads] || step.wrote > 0 && after[writes] <= before[writes] {
				t.Errorf("%s: requests of %s: %v, then %v", mount, step.how, before, after)
			}
			before = after
		}
		if line := diskLine(t, idle.read("proc/diskstats"), name); line.mib(sectorsWritten) > 1 {
			t.Errorf("%s: a container that wrote nothing shows %v", mount, line)
		}
		c.close()
		idle.close()
	}
}

// Columns of /proc/diskstats, counted from behind the name.
const (
	reads          = 0
	sectorsRead    = 2
	writes         = 4
	sectorsWritten = 6
)

type diskColumns [20]uint64

func (c diskColumns) mib(column int) float64 { return float64(c[column]) * 512 / (1 << 20) }

// diskLine gives the numbers of one disk, all 0 where it has no line.
func diskLine(t *testing.T, text, name string) (columns diskColumns) {
	t.Helper()
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 14 {
			t.Fatalf("a line of diskstats is %q", line)
		}
		if f[2] != name {
			continue
		}
		for i, word := range f[3:min(len(f), 3+len(columns))] {
			n, err := strconv.ParseUint(word, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			columns[i] = n
		}
	}
	return columns
}

// writtenOnV2 gives the MiB that the kernel has counted for the process's group; on v1 nothing that is comparable.
func writtenOnV2(t *testing.T, pid int, number string) float64 {
	t.Helper()
	dir, v2 := cgroupDir(t, pid, "blkio")
	if !v2 {
		return math.NaN()
	}
	text, err := os.ReadFile(filepath.Join(dir, "io.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, number+" "); ok {
			_, rest, _ = strings.Cut(rest, "wbytes=")
			n, _ := strconv.ParseFloat(strings.Fields(rest + " 0")[0], 64)
			return n / (1 << 20)
		}
	}
	return 0
}

// diskOf gives name and number of the whole disk that a directory's file system is on.
func diskOf(t *testing.T, dir string) (name, number string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	number = strconv.Itoa(int(unix.Major(st.Dev))) + ":" + strconv.Itoa(int(unix.Minor(st.Dev)))
	path, err := filepath.EvalSymlinks("/sys/dev/block/" + number)
	if errors.Is(err, fs.ErrNotExist) {
		skip(t, "needs a directory on a block device: "+dir+" is on "+number)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "partition")); err == nil {
		path = filepath.Dir(path)
	}
	text, err := os.ReadFile(filepath.Join(path, "dev"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(path), strings.TrimSpace(string(text))
}

// countOnV1 has blkio of cgroup v1 count what is done with a disk: since Linux 6.10 it begins with the first rule that any group has for that disk. It is
// a limit that nothing reaches, of a group that nobody is in.
func countOnV1(t *testing.T, number string) {
	t.Helper()
	dir, v2 := cgroupDir(t, os.Getpid(), "blkio")
	if v2 {
		return
	}
	dir = filepath.Join(dir, uniqueName())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(dir); err != nil {
			t.Error(err)
		}
	})
	writeFile(t, filepath.Join(dir, "blkio.throttle.read_bps_device"), number+" 1000000000000000")
}
