package cgroupview

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"lensfs/cgroupview/kfile"
)

// look is one reading of the clock. All in seconds.
type look struct {
	age, busy, throttled float64
	n                    int
	want                 [3]float64 // busy, steal, idle
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func TestClock(t *testing.T) {
	for _, test := range []struct {
		name  string
		looks []look
	}{
		{"idle", []look{{10, 0, 0, 2, [3]float64{0, 0, 20}}, {11, 0, 0, 2, [3]float64{0, 0, 22}}}},
		{"busy", []look{{10, 4, 0, 2, [3]float64{4, 0, 16}}, {20, 24, 0, 2, [3]float64{24, 0, 16}}}},
		{"the same moment twice", []look{{10, 4, 1, 2, [3]float64{4, 1, 15}}, {10, 4, 1, 2, [3]float64{4, 1, 15}}}},
		{"age goes back", []look{{10, 4, 0, 1, [3]float64{4, 0, 6}}, {9, 4, 0, 1, [3]float64{4, 0, 6}}, {11, 4, 0, 1, [3]float64{4, 0, 7}}}},
		{"fewer CPUs", []look{{10, 0, 0, 8, [3]float64{0, 0, 80}}, {20, 5, 0, 1, [3]float64{5, 0, 85}}}},
		{"more CPUs", []look{{10, 5, 0, 1, [3]float64{5, 0, 5}}, {20, 45, 0, 4, [3]float64{45, 0, 5}}}},
		{"usage goes back: another group counts", []look{{10, 8, 0, 1, [3]float64{8, 0, 2}}, {12, 1, 0, 1, [3]float64{8, 0, 4}}}},
		{"usage above the CPUs shown", []look{{10, 30, 0, 1, [3]float64{30, 0, 0}}, {20, 30, 0, 1, [3]float64{30, 0, 0}}, {40, 30, 0, 1, [3]float64{30, 0, 10}}}},
		{"half a CPU, always wanted", []look{{1000, 500, 450, 1, [3]float64{500, 450, 50}}, {1002, 501, 451, 1, [3]float64{501, 451, 50}}}},
		// Four threads, of which each is throttled, give three and a half seconds a second: no more than the CPU can be stolen ...
		{"more throttled than there is", []look{{100, 50, 350, 1, [3]float64{50, 50, 0}}, {110, 55, 385, 1, [3]float64{55, 55, 0}},
			// ... and nothing more once the container is idle, but for the last period, which the kernel may count late.
			{120, 55, 385, 1, [3]float64{55, 55.1, 9.9}}, {130, 55, 385, 1, [3]float64{55, 55.1, 19.9}}}},
		{"throttled goes back: another group counts", []look{{10, 5, 5, 1, [3]float64{5, 5, 0}}, {20, 5, 1, 1, [3]float64{5, 5, 10}}}},
	} {
		var k cpuClock
		for i, l := range test.looks {
			got := k.advance(seconds(l.age), l.n, seconds(l.busy), seconds(l.throttled))
			want := CPUTime{Busy: seconds(l.want[0]), Steal: seconds(l.want[1]), Idle: seconds(l.want[2])}
			near := func(a, b time.Duration) bool { return (a - b).Abs() < time.Microsecond }
			if !near(got.Busy, want.Busy) || !near(got.Steal, want.Steal) || !near(got.Idle, want.Idle) {
				t.Errorf("%s: look %d: got %+v, want %+v", test.name, i, got, want)
			}
		}
	}
}

const tick = 10 * time.Millisecond // one USER_HZ

// TestClockCountedLate looks each tick at a container that wants more than its half CPU. The kernel counts the 50 ms for which it was kept
// waiting when they are over: they must be stolen all the same, not idle.
func TestClockCountedLate(t *testing.T) {
	var k cpuClock
	var busy, throttled time.Duration
	for i := range 1000 {
		at := time.Duration(i+1) * tick
		if i%10 < 5 {
			busy += tick
		} else if i%10 == 9 {
			throttled += 5 * tick
		}
		k.advance(at, 1, busy, throttled)
	}
	if k.last.Busy != 5*time.Second || k.last.Steal < 4900*time.Millisecond || k.last.Idle > quotaPeriod {
		t.Errorf("of 10 s: %+v", k.last)
	}
}

// TestClockProperties has limits, use and throttling jump: nothing ever goes back, and as long as no more is used than there is, the sum is what there is.
func TestClockProperties(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var k cpuClock
		var age, busy, throttled, capacity time.Duration
		var last CPUTime
		fair := seed%2 == 0 // never uses more than the CPUs shown give
		for range 300 {
			n := 1 + rng.IntN(8)
			step := time.Duration(rng.IntN(int(200 * time.Millisecond)))
			age += step
			capacity += step * time.Duration(n)
			used := time.Duration(rng.Int64N(int64(step)*int64(n) + 1))
			if !fair {
				used *= time.Duration(rng.IntN(4))
			}
			busy += used
			throttled += time.Duration(rng.IntN(3)) * step
			got := k.advance(age, n, busy, throttled)
			if got.Busy < last.Busy || got.Steal < last.Steal || got.Idle < last.Idle {
				t.Fatalf("seed %d: %+v after %+v", seed, got, last)
			}
			sum := got.Busy + got.Steal + got.Idle
			if sum < capacity || fair && sum != capacity {
				t.Fatalf("seed %d: %+v is %v of %v", seed, got, sum, capacity)
			}
			if got.Busy != busy || got.Steal > throttled {
				t.Fatalf("seed %d: %+v of %v used and %v throttled", seed, got, busy, throttled)
			}
			last = got
		}
	}
}

func TestCPUTime(t *testing.T) {
	for name, f := range map[string]tree{
		"v2": v2(web(), tree{"sys/fs/cgroup/cpu.stat": "usage_usec 1\nthrottled_usec 999999999\n"}), // the host's own does not count
		"v1": v1(web1(), tree{"sys/fs/cgroup/cpu,cpuacct/cpu.stat": "throttled_time 999999999999\n"}),
	} {
		r, _ := f.resolver(t)
		got, err := r.Of(120).CPUTime(2) // two CPUs for 1000 s
		if want := (CPUTime{Busy: seconds(2.5), Steal: seconds(0.5), Idle: seconds(1997)}); got != want || err != nil {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
		if got, err := r.Host().CPUTime(8); got != (CPUTime{}) || err != nil {
			t.Errorf("%s: the host: %+v, %v", name, got, err)
		}
	}
}

func TestCPUTimeErrors(t *testing.T) {
	for _, test := range []struct {
		name, file, text string
		want             error
	}{
		{"gone", "cpu.stat", "", fs.ErrNotExist},
		{"usage", "cpu.stat", "usage_usec x\n", kfile.ErrSyntax},
		{"throttled", "cpu.stat", "usage_usec 1\nthrottled_usec -5\n", kfile.ErrSyntax},
	} {
		r, root := v2(web()).resolver(t)
		c := r.Of(120)
		path := "sys/fs/cgroup/web/" + test.file
		if test.text == "" {
			remove(t, root, path)
		} else {
			tree{path: test.text}.write(t, root)
		}
		if _, err := c.CPUTime(1); !errors.Is(err, test.want) || !strings.Contains(err.Error(), "web/"+test.file) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
