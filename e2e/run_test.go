package e2e

import (
	"strings"
	"testing"
)

func TestRunShowsItsOwnMachine(t *testing.T) {
	needRoot(t)
	d := serve(t)
	out := d.run([]string{"--memory", "512M", "--cpus", "1"}, "sh", "-c", "grep MemTotal /proc/meminfo; grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online")
	if want := "MemTotal:         524288 kB\n1\n0\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if up := d.run(nil, "cat", "/proc/uptime"); !strings.HasPrefix(up, "0.") {
		t.Errorf("a container that has just begun has been up for %q", up)
	}
}
