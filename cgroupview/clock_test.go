package cgroupview

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func setOf(t testing.TB, list string) *CPUSet {
	t.Helper()
	s, err := ParseCPUSet([]byte(list))
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

// look is one reading of a clock, in seconds.
type look struct {
	age       float64
	shown     string
	used      [][2]float64 // user and system: one of all CPUs together, or more, of each by its number
	throttled float64
	want      string // user/system/steal/idle of each CPU
}

func (k *cpuClock) look(t testing.TB, l look) []CPUTime {
	t.Helper()
	k.now = cpuCount{throttled: seconds(l.throttled)}
	for _, u := range l.used {
		k.now.cpus = append(k.now.cpus, cpuUsage{user: seconds(u[0]), system: seconds(u[1])})
	}
	if len(l.used) == 1 {
		k.now.total, k.now.cpus = k.now.cpus[0], nil
	}
	k.advance(seconds(l.age), setOf(t, l.shown))
	return k.times
}

// inWords gives the times in seconds, to the millisecond.
func inWords(times []CPUTime) string {
	var words []string
	for _, t := range times {
		word := ""
		for _, d := range []time.Duration{t.User, t.System, t.Steal, t.Idle} {
			word += fmt.Sprintf("/%g", d.Round(time.Millisecond).Seconds())
		}
		words = append(words, word[1:])
	}
	return fmt.Sprint(words)
}

func all(s float64) [][2]float64 { return [][2]float64{{s, 0}} }

func TestClock(t *testing.T) {
	for _, test := range []struct {
		name  string
		looks []look
	}{
		{"idle", []look{{10, "0-1", all(0), 0, "[0/0/0/10 0/0/0/10]"}, {11, "0-1", all(0), 0, "[0/0/0/11 0/0/0/11]"}}},
		{"no CPU at all", []look{{10, "", [][2]float64{{3, 1}}, 2, "[]"}, {20, "1", [][2]float64{{4, 2}}, 2, "[0/0/0/0 1/1/0/8]"}}},
		{"spread evenly", []look{{10, "0-1", [][2]float64{{3, 1}}, 0, "[1.5/0.5/0/8 1.5/0.5/0/8]"}, {20, "0-1", [][2]float64{{19, 5}}, 0, "[9.5/2.5/0/8 9.5/2.5/0/8]"}}},
		{"the same moment twice", []look{{10, "0", all(4), 1, "[4/0/1/5]"}, {10, "0", all(4), 1, "[4/0/1/5]"}}},
		{"age goes back", []look{{10, "0", all(4), 0, "[4/0/0/6]"}, {9, "0", all(4), 0, "[4/0/0/6]"}, {11, "0", all(4), 0, "[4/0/0/7]"}}},
		{"fewer CPUs", []look{{10, "0-2", all(3), 0, "[1/0/0/9 1/0/0/9 1/0/0/9]"}, {20, "1", all(8), 0, "[1/0/0/9 6/0/0/14 1/0/0/9]"}}},
		{"more CPUs", []look{{10, "0", all(5), 0, "[5/0/0/5]"}, {20, "0-1", all(25), 0, "[15/0/0/5 10/0/0/0]"}}},
		{"others", []look{{10, "1", all(5), 0, "[0/0/0/0 5/0/0/5]"}, {20, "0", all(9), 0, "[4/0/0/6 5/0/0/5]"}, {30, "1", all(9), 0, "[4/0/0/6 5/0/0/15]"}}},
		{"usage goes back: another group counts", []look{{10, "0", all(8), 0, "[8/0/0/2]"}, {12, "0", all(1), 0, "[8/0/0/4]"}, {14, "0", all(2), 0, "[9/0/0/5]"}}},
		{"a group that was used before", []look{{10, "0", all(1), 0, "[1/0/0/9]"}, {12, "0", all(500), 0, "[3/0/0/9]"}, {14, "0", all(500), 0, "[3.1/0/0/10.9]"}}},
		// The rest came before the quota: it is forgotten, but for a period's.
		{"usage above the CPUs shown", []look{{10, "0", [][2]float64{{20, 10}}, 0, "[6.667/3.333/0/0]"}, {20, "0", [][2]float64{{20, 10}}, 0, "[6.733/3.367/0/9.9]"}}},
		{"user goes back, the sum does not: the halves are worked out", []look{{10, "0", [][2]float64{{4, 2}}, 0, "[4/2/0/4]"}, {20, "0", [][2]float64{{3, 4}}, 0, "[4/3/0/13]"},
			{30, "0", [][2]float64{{6, 4}}, 0, "[6/4/0/20]"}}},
		{"half a CPU, always wanted", []look{{1000, "0", all(500), 450, "[500/0/450/50]"}, {1002, "0", all(501), 451, "[501/0/451/50]"}}},
		// Four threads, of which each is throttled, give three and a half seconds a second: no more than the CPU can be stolen ...
		{"more throttled than there is", []look{{100, "0", all(50), 350, "[50/0/50/0]"}, {110, "0", all(55), 385, "[55/0/55/0]"},
			// ... and nothing more once the container is idle, but for the last period, which the kernel may count late.
			{120, "0", all(55), 385, "[55/0/55.1/9.9]"}, {130, "0", all(55), 385, "[55/0/55.1/19.9]"}}},
		{"throttled goes back: another group counts", []look{{10, "0", all(5), 5, "[5/0/5/0]"}, {20, "0", all(5), 1, "[5/0/5/10]"}, {30, "0", all(5), 4, "[5/0/8/17]"}}},

		{"by CPU: each its own", []look{{10, "0-1", [][2]float64{{4, 2}, {0, 1}}, 0, "[4/2/0/4 0/1/0/9]"}, {20, "0-1", [][2]float64{{4, 2}, {10, 1}}, 0, "[4/2/0/14 10/1/0/9]"}}},
		{"by CPU: one is not shown", []look{{10, "0-1", [][2]float64{{4, 0}, {0, 0}, {4, 0}}, 0, "[5.5/0/0/4.5 2.5/0/0/7.5 0/0/0/0]"}}}, // room is 6 and 10
		{"by CPU: more than one can have done", []look{{10, "0-1", [][2]float64{{14, 0}, {1, 0}}, 0, "[10/0/0/0 5/0/0/5]"}}},
		{"by CPU: more than all can have done", []look{{10, "0,2", [][2]float64{{14, 0}, {8, 0}, {1, 0}}, 0, "[10/0/0/0 0/0/0/0 10/0/0/0]"}}},
		{"by CPU: stolen from each what it has", []look{{10, "0-1", [][2]float64{{10, 0}, {2, 0}}, 4, "[10/0/0/0 2/0/4/4]"}}},
		{"by CPU: one goes back", []look{{10, "0-1", [][2]float64{{4, 0}, {4, 0}}, 0, "[4/0/0/6 4/0/0/6]"}, {20, "0-1", [][2]float64{{1, 0}, {5, 0}}, 0, "[4/0/0/16 5/0/0/15]"}}},
		{"by CPU: hidden and shown again", []look{{10, "0-1", [][2]float64{{4, 0}, {4, 0}}, 0, "[4/0/0/6 4/0/0/6]"}, {20, "0", [][2]float64{{4, 0}, {6, 0}}, 0, "[6/0/0/14 4/0/0/6]"},
			{30, "0-1", [][2]float64{{4, 0}, {7, 0}}, 0, "[6/0/0/24 5/0/0/15]"}}},
	} {
		var k cpuClock
		for i, l := range test.looks {
			if got := inWords(k.look(t, l)); got != l.want {
				t.Errorf("%s: look %d: got %s, want %s", test.name, i, got, l.want)
			}
		}
	}
}

// TestClockCountedLate looks each tick at a container that wants more than its half CPU. The kernel counts the 50 ms for which it was kept
// waiting when they are over: they must be stolen all the same, not idle.
func TestClockCountedLate(t *testing.T) {
	var k cpuClock
	one := setOf(t, "0")
	for i := range 1000 {
		if i%10 < 5 {
			k.now.total.user += tick
		} else if i%10 == 9 {
			k.now.throttled += 5 * tick
		}
		k.advance(time.Duration(i+1)*tick, one)
	}
	if got := k.times[0]; got.User != 5*time.Second || got.Steal < 4900*time.Millisecond || got.Idle > quotaPeriod {
		t.Errorf("of 10 s: %+v", got)
	}
}

// TestClockUsedAhead looks each tick at four threads on four CPUs with a quota of one, which is all that is shown: they use up each period's share in
// its first quarter. They used all of one CPU.
func TestClockUsedAhead(t *testing.T) {
	for _, byCPU := range []bool{false, true} {
		var k cpuClock
		one := setOf(t, "0")
		k.now.cpus = make([]cpuUsage, 4)
		if !byCPU {
			k.now.cpus = nil
		}
		for i := range 1000 {
			if i%10 < 2 || i%10 == 2 && i/10%2 == 0 {
				for n := range k.now.cpus {
					k.now.cpus[n].user += tick
				}
				if !byCPU {
					k.now.total.user += 4 * tick
				}
			}
			k.advance(time.Duration(i+1)*tick, one)
		}
		if got := k.times[0]; got.User < 9900*time.Millisecond || got.User+got.Idle != 10*time.Second {
			t.Errorf("by CPU: %v: of 10 s: %+v", byCPU, got)
		}
	}
}

// TestClockOfGarbage has counters jump as no kernel's do.
func TestClockOfGarbage(t *testing.T) {
	var k cpuClock
	var rng uint64 = 1
	random := func() time.Duration {
		rng = rng*6364136223846793005 + 1442695040888963407
		return time.Duration(rng >> (rng >> 59))
	}
	shown := setOf(t, "0-2,5")
	last := make([]CPUTime, 8)
	for i := range 10000 {
		k.now = cpuCount{total: cpuUsage{random(), random()}, throttled: random(), cpus: make([]cpuUsage, i%8)}
		for n := range k.now.cpus {
			k.now.cpus[n] = cpuUsage{random(), random()}
		}
		k.advance(time.Duration(i)*tick, shown)
		for n, now := range k.times {
			if went(last[n], now) != shownTime(shown, n, tick) && i > 0 {
				t.Fatalf("look %d: CPU %d: %+v after %+v", i, n, now, last[n])
			}
		}
		copy(last, k.times)
	}
}

// went gives the time between two looks at a CPU; -1 where a number has gone back.
func went(last, now CPUTime) time.Duration {
	if now.User < last.User || now.System < last.System || now.Steal < last.Steal || now.Idle < last.Idle {
		return -1
	}
	return now.User - last.User + now.System - last.System + now.Steal - last.Steal + now.Idle - last.Idle
}

func shownTime(shown *CPUSet, n int, wall time.Duration) time.Duration {
	if !shown.Has(n) {
		return 0
	}
	return wall
}

// TestClockOfALargeMachine has a first look at 512 CPUs after two years: more time than a Duration holds.
func TestClockOfALargeMachine(t *testing.T) {
	const years = 2 * 365 * 24 * time.Hour
	var k cpuClock
	k.now.total = cpuUsage{user: years * 20, system: years * 5}
	k.advance(years, setOf(t, "0-511"))
	for n, got := range k.times {
		want := CPUTime{User: years * 20 / 512, System: years * 5 / 512}
		if (got.User-want.User).Abs() > time.Second || (got.System-want.System).Abs() > time.Second || got.Idle != years-got.User-got.System {
			t.Fatalf("CPU %d: %+v, want %+v", n, got, want)
		}
	}
	if i := slices.IndexFunc(k.times, func(t CPUTime) bool { return t != k.times[0] }); i >= 0 {
		t.Errorf("CPU %d: %+v, the first: %+v", i, k.times[i], k.times[0])
	}
}

func TestClockAllocs(t *testing.T) {
	for _, cpus := range []int{0, 16} {
		var k cpuClock
		k.keep.slot = make([]byte, ClockBytes(16))
		k.now.cpus = make([]cpuUsage, cpus)
		shown, age := setOf(t, "0-3,15"), time.Duration(0)
		look := func() { age += tick; k.now.total.user += tick; k.advance(age, shown) }
		look()
		if n := testing.AllocsPerRun(100, look); n != 0 && !raceEnabled {
			t.Errorf("%d CPUs counted: %v allocations", cpus, n)
		}
	}
}
