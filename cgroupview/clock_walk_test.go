package cgroupview

import (
	"math/rand/v2"
	"testing"
	"time"
)

// walk is a container whose CPUs, use and throttling change at random.
type walk struct {
	*rand.Rand
	byCPU bool // v1
	hosts int  // CPUs of the host
	age   time.Duration
	shown CPUSet
	now   cpuCount
}

func (w *walk) duration(limit time.Duration) time.Duration {
	return time.Duration(w.Int64N(int64(limit) + 1))
}

// step lets some time pass, in which no CPU of the host does more than it can; but the container may use more of them than are shown.
func (w *walk) step() {
	wall := w.duration([]time.Duration{time.Microsecond, tick, time.Second, time.Hour}[w.IntN(4)])
	w.age += wall
	if w.IntN(10) == 0 || w.shown.Count() == 0 {
		w.shown = CPUSet{}
		for range 1 + w.IntN(w.hosts) {
			w.shown.Add(w.IntN(w.hosts))
		}
	}
	most := wall
	if w.IntN(3) == 0 {
		most /= 10
	}
	for n := range w.hosts {
		user := w.duration(most)
		u := cpuUsage{user: user, system: w.duration(most - user)}
		if w.byCPU {
			w.now.cpus[n] = w.now.cpus[n].plus(u)
		} else {
			w.now.total = w.now.total.plus(u)
		}
	}
	if w.IntN(4) == 0 {
		w.now.throttled += w.duration(4 * wall)
	}
	if w.IntN(50) == 0 { // it is moved to another cgroup
		w.now.throttled = w.duration(w.now.throttled)
		w.now.total = cpuUsage{user: w.duration(2 * w.now.total.user), system: w.duration(2 * w.now.total.system)}
		for n := range w.now.cpus {
			w.now.cpus[n].user = w.duration(2 * w.now.cpus[n].user)
		}
	}
}

// TestClockWalk: at each look every CPU shown has grown by the time that passed, and every other by nothing; nothing has gone back; and a clock that goes
// on from a record shows what the one before it would.
func TestClockWalk(t *testing.T) {
	for seed := range uint64(100) {
		w := walk{Rand: rand.New(rand.NewPCG(seed, 0)), byCPU: seed%2 == 0, hosts: 1 + int(seed%9)}
		if w.byCPU {
			w.now.cpus = make([]cpuUsage, w.hosts)
		}
		slot := make([]byte, ClockBytes(w.hosts))
		k := new(cpuClock)
		k.keep.slot = slot
		last := make([]CPUTime, w.hosts)
		for range 300 {
			before := w.age
			w.step()
			k.now = w.now
			k.advance(w.age, &w.shown)
			for n, now := range k.times {
				if got, want := went(last[n], now), shownTime(&w.shown, n, w.age-before); got != want {
					t.Fatalf("seed %d: CPU %d: %v in %v: %+v after %+v", seed, n, got, want, now, last[n])
				}
			}
			copy(last, k.times)
			if w.IntN(20) == 0 {
				k = reopen(t, slot, w.age)
				for n, now := range k.times {
					if now != last[n] {
						t.Fatalf("seed %d: CPU %d: %+v in the record, %+v before", seed, n, now, last[n])
					}
				}
			}
		}
	}
}

// TestClockCountsAll: as long as a container uses no more than the CPUs shown have, all that it used is shown, of the kind that it was, and all that was
// throttled and had room.
func TestClockCountsAll(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		cpus := 1 + rng.IntN(8)
		var shown CPUSet
		for n := range cpus {
			shown.Add(2 * n)
		}
		var k cpuClock
		var age, throttled time.Duration
		var used cpuUsage
		if seed%2 == 0 {
			k.now.cpus = make([]cpuUsage, 2*cpus)
		}
		for range 300 {
			wall := time.Duration(rng.Int64N(int64(time.Second)))
			age += wall
			for n := range cpus {
				user := time.Duration(rng.Int64N(int64(wall)/2 + 1))
				u := cpuUsage{user: user, system: time.Duration(rng.Int64N(int64(wall)/2 + 1))}
				if used = used.plus(u); seed%2 == 0 {
					k.now.cpus[2*n] = k.now.cpus[2*n].plus(u)
				} else {
					k.now.total = used
				}
			}
			throttled += time.Duration(rng.Int64N(int64(wall)))
			k.now.throttled = throttled
			k.advance(age, &shown)
		}
		var all CPUTime
		for n, got := range k.times {
			all.User += got.User
			all.System += got.System
			all.Steal += got.Steal
			if shown.Has(n) != (got != CPUTime{}) {
				t.Errorf("seed %d: CPU %d: %+v", seed, n, got)
			}
		}
		// What division leaves over waits for the next look.
		if (all.User-used.user).Abs() > time.Microsecond || (all.System-used.system).Abs() > time.Microsecond || all.Steal > throttled+time.Microsecond {
			t.Errorf("seed %d: %+v of %+v used and %v throttled", seed, all, used, throttled)
		}
	}
}

// TestClockTicks has one CPU's time used, half of it, and half of it throttled, on machines of many. The ticks of all CPUs together are those used and
// throttled, at each moment: top(1) never sees more or less in a second. And each CPU has its share.
func TestClockTicks(t *testing.T) {
	for _, cpus := range []int{1, 3, 256} {
		for _, step := range []time.Duration{time.Second, 333333 * time.Microsecond, tick, 1234567} {
			var shown CPUSet
			for n := range cpus {
				shown.Add(n)
			}
			var k cpuClock
			for range 5000 {
				k.now.total.user += step / 2
				k.now.throttled += step - step/2
				k.advance(k.at+step, &shown)
				var got [kinds]int64
				least, greatest := k.times[0].User, k.times[0].User
				for _, c := range k.times {
					got[user] += int64(c.User / tick)
					got[steal] += int64(c.Steal / tick)
					least, greatest = min(least, c.User), max(greatest, c.User)
				}
				for what, want := range map[kind]time.Duration{user: k.now.total.user, steal: k.now.throttled} {
					if d := int64(want/tick) - got[what]; d < 0 || d > 1 {
						t.Fatalf("%d CPUs, each %v: %d ticks for %v", cpus, step, got[what], want)
					}
				}
				if greatest-least > tick {
					t.Fatalf("%d CPUs, each %v: between %v and %v", cpus, step, least, greatest)
				}
			}
		}
	}
}
