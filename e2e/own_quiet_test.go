package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["reader"] = reader }

// A container that reads its own view in a loop asks the daemon once a tick, however fast it reads, and costs it a few hundredths of a CPU.
func TestOwnViewsLeaveTheDaemonAlone(t *testing.T) {
	needRoot(t)
	skipSlow(t)
	const reads = 100_000
	t.Run("time", func(t *testing.T) {
		d := servePlain(t)
		c := d.container([]string{"--memory", "256M"}, asRole("reader")...)
		for _, name := range []string{"meminfo", "uptime"} {
			before := cpuTime(t, d.worker())
			var took time.Duration
			n := 0
			for ; n < reads || took < 2*time.Second; n += reads {
				some, err := time.ParseDuration(c.ask("/proc/%s %d", name, reads))
				if err != nil {
					t.Fatal(err)
				}
				took += some
			}
			used := cpuTime(t, d.worker()) - before
			share := float64(used) / float64(took)
			t.Logf("%s: %d reads in %v, %v each; the daemon used %v: %.2f %%", name, n, took, took/time.Duration(n), used, 100*share)
			if share > 0.05 && !testing.Short() { // an emulated machine takes milliseconds for what is to be done once a tick
				t.Errorf("%s: the daemon used %v in %v", name, used, took)
			}
		}
		c.close()
	})
	t.Run("requests", func(t *testing.T) {
		d := serve(t, "--debug")
		c := d.container([]string{"--memory", "256M"}, asRole("reader")...)
		c.ask("/proc/meminfo 1")
		before := requests(d)
		took, err := time.ParseDuration(c.ask("/proc/meminfo %d", reads))
		if err != nil {
			t.Fatal(err)
		}
		after := requests(d)
		t.Logf("%d reads in %v: requests before %v, after %v", reads, took, before, after)
		most := int(took/(10*time.Millisecond)) + 10
		for _, what := range []string{"GETATTR", "READ"} {
			if n := after[what] - before[what]; n > most {
				t.Errorf("%d reads in %v made %d %s requests; there were %d ticks", reads, took, n, what, most)
			}
		}
		for _, what := range []string{"OPEN", "FLUSH", "RELEASE", "LOOKUP", "ACCESS", "GETXATTR", "POLL"} {
			if n := after[what] - before[what]; n > 5 { // the other mount may be looked at by anybody
				t.Errorf("%d reads made %d %s requests", reads, n, what)
			}
		}
		c.close()
	})
}

var request = regexp.MustCompile(` request op=([A-Z_]+) `)

// requests counts what a daemon that was started with --debug was asked.
func requests(d *daemon) map[string]int {
	count := map[string]int{}
	for _, found := range request.FindAllStringSubmatch(d.log.String(), -1) {
		count[found[1]]++
	}
	return count
}

// cpuTime is what a process has used, by its own clock.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	const scheduled = 2 // MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// reader opens, reads and closes a file so many times, and tells how long that took.
func reader([]string) error {
	time.Sleep(1200 * time.Millisecond) // of younger containers nothing is kept
	buf := make([]byte, 8192)
	for {
		var path string
		var n int
		if _, err := fmt.Scanln(&path, &n); err != nil {
			return nil // the test is over
		}
		begin := time.Now()
		for range n {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if got, err := unix.Read(fd, buf); err != nil || got == 0 {
				return fmt.Errorf("%d bytes, %w", got, err)
			}
			unix.Close(fd)
		}
		fmt.Println(time.Since(begin))
	}
}

// What does not fit into a page on a large host is not kept: its name in the own view is a link to the shared tree, and can be bound as if it were not.
func TestOwnViewOfALargeHost(t *testing.T) {
	needRoot(t)
	const cpus = 256
	root := tempDir(t)
	for _, name := range []string{"meminfo", "cpuinfo", "uptime", "stat", "loadavg"} {
		text, err := os.ReadFile("/proc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "cpuinfo" {
			text = largeCpuinfo(text, cpus)
		}
		large(t, filepath.Join(root, "proc", name), string(text))
	}
	large(t, filepath.Join(root, "sys/devices/system/cpu/online"), fmt.Sprintf("0-%d\n", cpus-1))
	d := serve(t, "--host-root", root)
	host := hostCPUs(t)

	if info, err := parseCpuinfo(command(t, "cat", d.tree+"/proc/cpuinfo")); err != nil || len(info) != len(host) && len(info) != cpus {
		t.Errorf("the host has the CPUs %v, %v", info, err)
	}
	c := d.container([]string{"--memory", "256M", "--cpuset", list(host[:1])}, "sh", "-c", `while read -r line; do eval "$line"; done`)
	cpuinfo := filepath.Join(d.views, "self/proc/cpuinfo")
	if got, want := c.ask("readlink %s", cpuinfo), filepath.Join(d.tree, "proc/cpuinfo"); got != want {
		t.Errorf("%s leads to %q, not %q", cpuinfo, got, want)
	}
	for _, name := range []string{"meminfo", "uptime"} {
		if got := c.ask("readlink %s || echo no link", filepath.Join(d.views, "self/proc", name)); got != "no link" {
			t.Errorf("%s is a link to %q", name, got)
		}
	}
	bound := filepath.Join(tempDir(t), "bound")
	writeFile(t, bound, "")
	if got := c.ask("mount --bind %s %s && echo bound", cpuinfo, bound); got != "bound" { // as any hook does
		t.Errorf("it cannot be bound: %s %s", got, c.errs)
	}
	// "lensfs run" has bound it too.
	for _, path := range []string{"/proc/cpuinfo", bound, cpuinfo} {
		check := func(want []int) bool {
			text := strings.ReplaceAll(c.ask("cat %s | tr '\\n' '@'; echo", path), "@", "\n")
			got, err := parseCpuinfo(text)
			if err != nil {
				t.Fatal(err)
			}
			return slices.Equal(got, want)
		}
		if !check(host[:1]) {
			t.Errorf("%s is not of CPU %v", path, host[:1])
		}
		if len(host) > 1 { // and it is not kept
			setCPUs(t, c.init, list(host[:2]))
			poll(t, time.Second, path+" shows two CPUs", func() bool { return check(host[:2]) })
			setCPUs(t, c.init, list(host[:1]))
			poll(t, time.Second, path+" shows one CPU", func() bool { return check(host[:1]) })
		}
	}
	if got := totalOf(t, c.ask("grep MemTotal /proc/meminfo")); got != strconv.Itoa(256<<10) {
		t.Errorf("MemTotal is %s", got)
	}
	if got, want := c.ask("stat -f -c %%T /proc/cpuinfo"), "fuseblk fuse"; !strings.Contains(want, got) {
		t.Errorf("/proc/cpuinfo is on a %s file system", got)
	}
	c.close()
}

// largeCpuinfo writes the first CPU's block for many.
func largeCpuinfo(text []byte, cpus int) []byte {
	block, _, _ := bytes.Cut(text, []byte("\n\n"))
	_, rest, _ := bytes.Cut(block, []byte("\n"))
	var all bytes.Buffer
	number := regexp.MustCompile(`(?m)^(core id|apicid|initial apicid)(\s*): \d+$`)
	counts := regexp.MustCompile(`(?m)^(siblings|cpu cores)(\s*): \d+$`)
	for n := range cpus {
		lines := number.ReplaceAll(rest, fmt.Appendf(nil, "$1$2: %d", n))
		lines = counts.ReplaceAll(lines, fmt.Appendf(nil, "$1$2: %d", cpus))
		fmt.Fprintf(&all, "processor\t: %d\n%s\n\n", n, lines)
	}
	return all.Bytes()
}

func large(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, text)
}
