package cgroupview

import (
	"bytes"
	"slices"
	"testing"
)

// TestForks lets the numbers begin anew: the count never goes back, and is never more than were given.
func TestForks(t *testing.T) {
	var k knownTasks
	k.tasks.LastPid = 1
	for _, step := range []struct {
		pid  uint32
		want uint64
	}{{1, 1}, {21, 21}, {32760, 32760}, {300, 32761}, {310, 32771}, {32767, 65228}, {4000, 68929}, {7, 68930}, {8, 68931}} {
		k.fork(task{}, step.pid)
		if k.forks != step.want {
			t.Errorf("%d: %d forks, not %d", step.pid, k.forks, step.want)
		}
	}
}

// TestKeepForks kills the daemon at each byte of a write: the next one goes on from before it or after, and takes no task for a younger one that is not.
func TestKeepForks(t *testing.T) {
	f := v2(web(), busyTasks(webDir, "cgroup.threads"))
	first, _, _ := asked(t, f)
	slot := make([]byte, ForkBytes)
	if first.KeepForks(slot) {
		t.Error("something was found in an empty slot")
	}
	k := &first.tasks
	k.tasks.LastPid = 1
	var before uint64
	for i, pid := range []uint32{21, 32760, 300, 310} {
		old := bytes.Clone(slot)
		before = k.forks
		k.fork(task{start: 500000 + uint64(i), tid: 120}, pid)
		k.keepForks(first.ID())
		for cut := range ForkBytes + 1 {
			next, _, _ := asked(t, f)
			restored := next.KeepForks(slices.Concat(slot[:cut], old[cut:]))
			if got := next.Forks(); restored != (i > 0 || got > 0) || got != before && got != k.forks || got < before && i > 0 {
				t.Fatalf("%d, cut at %d: %d forks, not %d or %d", pid, cut, got, before, k.forks)
			}
		}
	}
	next, _, _ := asked(t, f)
	if !next.KeepForks(slot) {
		t.Fatal("nothing was found")
	}
	tasks, err := next.Tasks() // all of them older
	if err != nil || tasks.LastPid != 310 || next.Forks() != 32771 {
		t.Errorf("the next daemon shows %d forks, last pid %d, %v", next.Forks(), tasks.LastPid, err)
	}
	for bit := range ForkBytes * 8 {
		bad := bytes.Clone(slot)
		bad[bit/8] ^= 1 << (bit % 8)
		next, _, _ := asked(t, f)
		if next.KeepForks(bad); next.Forks() != k.forks && next.Forks() != before {
			t.Errorf("bit %d: %d forks", bit, next.Forks())
		}
	}
	other, _, _ := asked(t, f)
	other.start++
	if other.KeepForks(slot) || other.KeepForks(slot[1:]) {
		t.Error("another container's, or part of a slot, was taken")
	}
}
