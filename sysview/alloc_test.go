//go:build !race

package sysview

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadDoesNotAllocate(t *testing.T) {
	d, c, _ := newDir(t, hostOf(upTo(12)...), "0,3", true)
	dst := make([]byte, 0, 4096)
	for _, file := range []string{"uevent", "possible", "present", "kernel_max", "cpu3/online", "cpu3/topology/core_id", "cpufreq/policy11/scaling_cur_freq"} {
		n := d.mustFind(t, c, file)
		if got := testing.AllocsPerRun(100, func() { d.Read(dst, n, c) }); got != 0 {
			t.Errorf("%s: %v allocations", file, got)
		}
	}
	if got := testing.AllocsPerRun(100, func() { Offline(dst, c) }); got != 0 {
		t.Errorf("offline: %v allocations", got)
	}
	// Attributes are asked for at every open.
	n := d.mustFind(t, c, "cpu3/topology/core_id")
	var st unix.Stat_t
	if got := testing.AllocsPerRun(100, func() { d.Attr(n, &st) }); got > 2 {
		t.Errorf("attributes: %v allocations", got)
	}
}
