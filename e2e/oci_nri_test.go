package e2e

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
)

// TestNRI has containerd make containers as Kubernetes does, by the CRI, with "lensfs nri" beside it. Debian 13's containerd (1.7) asks plugins about
// no others: those of ctr it makes without.
func TestNRI(t *testing.T) {
	needRoot(t)
	if cgroups.Mode() != cgroups.Unified {
		t.Skip("Debian 12's containerd has no NRI: in the virtual machine")
	}
	needCommand(t, "containerd", "ctr", "busybox", "runc")
	d := serve(t)
	k := newContainerd(t)
	k.start()
	k.importImage()
	pod := k.pod("plain", nil)
	plain := pod.container("before")
	if got := plain.sees(); got.views != 0 {
		t.Errorf("without the plugin: %+v", got)
	}

	log := k.plugin(d)
	poll(t, time.Minute, "the plugin has heard of the container that runs", func() bool {
		return strings.Contains(log.String(), "runs without views") && strings.Contains(log.String(), "connected")
	})
	first := pod.container("first")
	first.check(first.sees(), 10)
	if got := first.own(); got != 1 {
		t.Errorf("its /proc/meminfo is an own view %d times: %s", got, first.exec("cat", "/proc/self/mountinfo"))
	}
	annotated := k.pod("annotated", map[string]string{"views.lensfs.dev": "off", "views.lensfs.dev/container.other": "on"})
	off := annotated.container("off")
	if got := off.sees(); got.views != 0 || got.total == first.memory {
		t.Errorf("annotated off: %+v", got)
	}
	other := annotated.container("other")
	other.check(other.sees(), 10)

	// The runtime is restarted: the plugin is there for the next container.
	k.stop()
	k.start()
	poll(t, time.Minute, "the plugin is connected again", func() bool { return strings.Count(log.String(), "INFO connected") == 2 })
	if !strings.Contains(log.String(), `"with views"=2`) {
		t.Errorf("it has not learned of those that have views:\n%s", log)
	}
	again := pod.container("again")
	again.check(again.sees(), 10)
	first.check(first.sees(), 10)

	// The plugin is killed, then there is one with a hook, then nobody serves.
	k.killPlugin()
	without := pod.container("without")
	if got := without.sees(); got.views != 0 {
		t.Errorf("the plugin is dead: %+v", got)
	}
	log = k.plugin(d, "--hook", binary)
	poll(t, time.Minute, "the plugin is connected", func() bool { return strings.Contains(log.String(), "INFO connected") })
	hooked := pod.container("hooked")
	hooked.check(hooked.sees(), 14)
	k.killPlugin()

	log = k.plugin(d)
	poll(t, time.Minute, "the plugin is connected", func() bool { return strings.Contains(log.String(), "INFO connected") })
	d.kill()
	time.Sleep(4 * time.Second) // after three it is taken for gone
	last := pod.container("last")
	if got := last.sees(); got.views != 0 || !strings.Contains(log.String(), "no daemon answers") {
		t.Errorf("nobody serves: %+v\n%s", got, log)
	}
}

func TestNRISaysWhatIsWrong(t *testing.T) {
	for _, bad := range []struct{ flag, value, says string }{
		{"--default", "maybe", "on or off"}, {"--index", "7", "two digits"}, {"--views", "run", "absolute paths"}, {"--hook", "lensfs", "absolute paths"},
	} {
		if _, err := tryCommand(binary, "nri", bad.flag, bad.value); err == nil || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s %s: %v", bad.flag, bad.value, err)
		}
	}
}

// criSight is what a container sees.
type criSight struct {
	total uint64 // kB, of the first command
	cpus  string
	views int // mounts of them
}

func (c *criContainer) sees() criSight {
	c.k.t.Helper()
	log, err := os.ReadFile(c.log())
	if err != nil {
		c.k.t.Fatal(err)
	}
	var s criSight
	for line := range strings.Lines(string(log)) { // TIME stdout F MemTotal: N kB
		if _, rest, ok := strings.Cut(line, "MemTotal:"); ok {
			s.total, _ = strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		}
	}
	s.cpus = strings.TrimSpace(c.exec("cat", "/sys/devices/system/cpu/online"))
	s.views = strings.Count(c.exec("cat", "/proc/mounts"), " fuse.lxcfs ")
	return s
}

func (c *criContainer) check(got criSight, atLeast int) {
	c.k.t.Helper()
	if got.total != c.memory || got.cpus != strconv.Itoa(hostCPUs(c.k.t)[0]) || got.views < atLeast {
		c.k.t.Errorf("%s, with %d kB and half a CPU, sees %+v", c.name, c.memory, got)
	}
}

// own counts the mounts of an own view's meminfo.
func (c *criContainer) own() int {
	c.k.t.Helper()
	return len(slices.DeleteFunc(strings.Split(c.exec("cat", "/proc/self/mountinfo"), "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) < 5 || !strings.HasPrefix(f[3], "/ct/") || f[4] != "/proc/meminfo"
	}))
}
