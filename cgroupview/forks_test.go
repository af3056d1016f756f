package cgroupview

import "testing"

// TestForks lets the numbers begin anew: the count never goes back, and is never more than were given.
func TestForks(t *testing.T) {
	var k knownTasks
	k.tasks.LastPid = 1
	for _, step := range []struct {
		pid  uint32
		want uint64
	}{{1, 1}, {21, 21}, {32760, 32760}, {300, 32761}, {310, 32771}, {32767, 65228}, {4000, 68929}, {7, 68930}, {8, 68931}} {
		k.fork(step.pid)
		k.tasks.LastPid = step.pid
		if k.forks != step.want {
			t.Errorf("%d: %d forks, not %d", step.pid, k.forks, step.want)
		}
	}
}
