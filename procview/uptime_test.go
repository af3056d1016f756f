package procview

import (
	"math"
	"slices"
	"testing"
	"time"

	"lensfs/cgroupview"
)

// idle is a machine of CPUs that were idle for so long.
func idle(d ...time.Duration) (times []cgroupview.CPUTime) {
	for _, d := range d {
		times = append(times, cgroupview.CPUTime{User: time.Hour, Idle: d})
	}
	return times
}

func TestAppendUptime(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, test := range []struct {
		age  time.Duration
		idle []cgroupview.CPUTime
		want string
	}{
		{0, idle(), "0.00 0.00\n"},
		{9999 * time.Microsecond, idle(10 * time.Millisecond), "0.00 0.01\n"},
		{time.Second + 90*time.Millisecond, idle(59*time.Second + 999*time.Millisecond), "1.09 59.99\n"},
		{time.Second, idle(19*time.Millisecond, 19*time.Millisecond), "1.00 0.02\n"}, // as in stat: ticks, then the sum
		{3 * year, slices.Repeat(idle(3*year), 256), "94608000.00 24219648000.00\n"}, // more than fits into a Duration
		{-time.Second, idle(-1), "0.00 0.00\n"},
		{math.MaxInt64, idle(math.MaxInt64), "9223372036.85 9223372036.85\n"},
	} {
		if got := string(appendUptime(nil, test.age, test.idle)); got != test.want {
			t.Errorf("%v, %v: got %q, want %q", test.age, test.idle, got, test.want)
		}
	}
}

func TestAppendUptimeAllocs(t *testing.T) {
	dst, times := make([]byte, 0, 64), idle(350000*time.Second)
	if n := testing.AllocsPerRun(100, func() { appendUptime(dst, 90061*time.Second, times) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkUptime(b *testing.B) {
	dst, times := make([]byte, 0, 64), idle(350000*time.Second)
	b.ReportAllocs()
	for b.Loop() {
		appendUptime(dst, 90061*time.Second, times)
	}
}
