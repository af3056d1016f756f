package cgroupview

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPressure(t *testing.T) {
	inner := process(120, 90, "120\t1", webNS, "0::/a/b\n")
	const dir = "sys/fs/cgroup/"
	system := tree{dir + "cpu.pressure": "wrong", dir + "io.pressure": "wrong", "proc/pressure/cpu": "host"}
	for _, test := range []struct {
		name      string
		tree      tree
		has       bool
		cpu, disk string
	}{
		{"its own", v2(inner, system, tree{dir + "a/b/cpu.pressure": "b", dir + "a/cpu.pressure": "a", dir + "a/b/io.pressure": "bi"}), true, "b", "bi"},
		{"of the group above", v2(inner, system, tree{dir + "a/cpu.pressure": "a", dir + "a/b/io.pressure": "bi"}), true, "a", "bi"},
		{"none below the root", v2(inner, system), true, "", ""},
		{"in the root", v2(process(120, 90, "120\t1", webNS, "0::/\n"), system, tree{"proc/pressure/io": "host's io"}), true, "host", "host's io"},
		{"outside of what is mounted", v2(process(120, 90, "120\t1", webNS, "0::/..\n"), system), true, "", ""},
		{"v1", v1(web1(), system, tree{dir + "blkio/web/io.pressure": "wrong"}), false, "", ""},
	} {
		r, _ := test.tree.resolver(t)
		for p, want := range map[Pressure]string{PressureCPU: test.cpu, PressureIO: test.disk} {
			if got, err := r.Of(120).Pressure([]byte("before "), p); string(got) != "before "+want || err != nil {
				t.Errorf("%s: %s: got %q, %v; want %q", test.name, p, got, err, want)
			}
			if got := r.HasPressure(p); got != test.has {
				t.Errorf("%s: %s: there is one: %v", test.name, p, got)
			}
		}
	}
	r, _ := v2(inner, tree{dir + "a/b/memory.pressure/x": ""}).resolver(t)
	if got, err := r.Of(120).Pressure(nil, PressureMemory); len(got) != 0 || !errors.Is(err, unix.EISDIR) || !strings.Contains(err.Error(), "a/b/memory.pressure") {
		t.Errorf("a file that cannot be read: %q, %v", got, err)
	}
}
