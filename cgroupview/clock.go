package cgroupview

import (
	"sync"
	"time"
)

// CPUTime is what has become of the time of one CPU of a container's. None of the four goes backwards; together they grow by a second a second while
// the CPU is shown, and stand still while it is not.
type CPUTime struct {
	User, System time.Duration // used
	Steal        time.Duration // wanted but refused by a quota, as far as there was room beside what was used
	Idle         time.Duration // the rest
}

// LockTimes looks at the clock, shown being the CPUs that the container sees at the moment (Container.CPUs), and gives the time of each CPU by its
// number: those shown and all that ever were. It stands until UnlockTimes, which is due when err is nil; the host has none.
//
// The numbers are of v2 cpu.stat, v1 cpuacct.usage_all, usage_percpu and cpu.stat; an error names the file.
func (c *Container) LockTimes(shown *CPUSet) ([]CPUTime, error) {
	k := &c.clock
	k.mu.Lock()
	if c.IsHost() {
		return nil, nil
	}
	age := c.Age()
	if k.at > 0 && age-k.at < together {
		k.fit(shown)
		return k.times, nil
	}
	if err := c.count(&k.now); err != nil {
		k.mu.Unlock()
		return nil, err
	}
	k.advance(age, shown)
	return k.times, nil
}

// UnlockTimes gives back what LockTimes gave.
func (c *Container) UnlockTimes() { c.clock.mu.Unlock() }

// cpuClock keeps a container's CPU time steady while its limits, its CPUs and its cgroup change.
type cpuClock struct {
	mu   sync.Mutex
	keep clockKeep

	clockState
	times []CPUTime  // by CPU number
	cpus  []cpuUsage // by CPU number: counted by the last look, where the kernel counts by CPU

	now  cpuCount        // what the kernel has counted by now
	room []time.Duration // by CPU number, during a look: time that nothing has taken yet
}

// clockState is what a clock remembers beside that of each CPU. It is written as it stands: clockVersion changes with it.
type clockState struct {
	at        time.Duration // the container's age at the last look
	total     cpuUsage      // counted by the last look, where not by CPU
	throttled time.Duration // counted by the last look
	owed      cpuUsage      // used, but not shown yet for want of room
	owedSteal time.Duration // throttled, but not shown yet
	next      [kinds]int64  // the CPU whose turn it is
}

// kind is what a CPU's time is dealt out to; the rest is idle.
type kind int

const (
	user kind = iota
	system
	steal
	kinds
)

func (t *CPUTime) of(k kind) *time.Duration {
	return [...]*time.Duration{&t.User, &t.System, &t.Steal}[k]
}

// cpuCount is what the kernel has counted of a container.
type cpuCount struct {
	total     cpuUsage   // where it counts all CPUs together
	cpus      []cpuUsage // where it counts each, by number
	throttled time.Duration
}

// quotaPeriod is the period of a quota, if nobody chose another. The kernel counts a throttled stretch when it is over, which is at the end of a
// period; and threads on more CPUs than are shown use up a period's share before that much time has passed.
const quotaPeriod = 100 * time.Millisecond

// advance takes up what was counted since the last look. Each CPU shown has the time that passed to give: first to what ran on it, then to what ran on
// CPUs not shown, or cannot have run on one alone, then to what was throttled. What is left is idle.
func (k *cpuClock) advance(age time.Duration, shown *CPUSet) {
	k.fit(shown)
	wall := max(0, age-k.at)
	k.at += wall
	for n := shown.Next(0); n >= 0; n = shown.Next(n + 1) {
		k.room[n] = wall
	}
	used := k.owed.plus(k.total.advance(k.now.total))
	for n, now := range k.now.cpus {
		grown := k.cpus[n].advance(now)
		if shown.Has(n) {
			own := grown.atMost(wall)
			k.give(n, user, own.user)
			k.give(n, system, own.system)
			grown = grown.minus(own)
		}
		used = used.plus(grown)
	}
	stolen := k.owedSteal + min(most, max(0, k.now.throttled-k.throttled))
	k.throttled = k.now.throttled
	used, stolen = k.spread(shown, used, stolen)

	// What found no room is forgotten, but for what may have been counted late or ahead: else a container whose quota came after it had used more
	// would see itself busy, or robbed, long after it fell idle. (Each thread is throttled for itself, which makes more than there is to steal.)
	late := time.Duration(shown.Count()) * quotaPeriod
	k.owed, k.owedSteal = used.atMost(late), min(stolen, late)
	k.save()
}

// spread deals what was used and stolen out to the CPUs shown, lets the rest of their time be idle, and gives back what found no room.
func (k *cpuClock) spread(shown *CPUSet, used cpuUsage, stolen time.Duration) (cpuUsage, time.Duration) {
	now := used.atMost(time.Duration(min(k.free(shown), most)))
	left := cpuUsage{user: k.deal(shown, user, now.user), system: k.deal(shown, system, now.system)}
	used = used.minus(now).plus(left)
	stolen = k.deal(shown, steal, stolen)
	for n := shown.Next(0); n >= 0; n = shown.Next(n + 1) {
		k.times[n].Idle += k.room[n]
	}
	return used, stolen
}

// deal gives to each CPU shown by the room it has, and gives back what found none. Each gets whole ticks, as far as it goes, and what is left over goes
// to one after the other in turn: what is spread over many CPUs would else be lost in the rounding of each, and come in all of them at the same moment.
func (k *cpuClock) deal(shown *CPUSet, what kind, amount time.Duration) time.Duration {
	n := shown.nextAround(int(k.next[what]))
	if amount == 0 || n < 0 {
		return amount
	}
	if missing := k.toTick(n, what); missing < tick {
		d := k.give(n, what, min(amount, missing))
		amount -= d
		if d == missing {
			n = shown.nextAround(n + 1)
		}
	}
	whole, free := amount, k.free(shown)
	for n := shown.Next(0); n >= 0; n = shown.Next(n + 1) {
		d := min(amount, k.room[n], share(whole, float64(k.room[n])/max(1, free)))
		amount -= k.give(n, what, d-d%tick)
	}
	count, begun := shown.Count(), -1
	for i := 0; i < 2*count && amount > 0; i++ { // a tick to each; and if that is not all, as much as there is room for
		d := amount
		if i < count {
			d = min(d, k.toTick(n, what))
		}
		d = k.give(n, what, d)
		amount -= d
		if begun < 0 && d > 0 && k.toTick(n, what) < tick {
			begun = n
		}
		n = shown.nextAround(n + 1)
	}
	if begun >= 0 {
		n = begun // a tick that was begun is filled first
	}
	k.next[what] = int64(n)
	return amount
}

// toTick is what is missing until the next whole tick of what CPU n's time went to.
func (k *cpuClock) toTick(n int, what kind) time.Duration { return tick - *k.times[n].of(what)%tick }

// give lets CPU n's time, as far as there is, go to what it was for, and says how much that was.
func (k *cpuClock) give(n int, what kind, d time.Duration) time.Duration {
	d = min(d, k.room[n])
	*k.times[n].of(what) += d
	k.room[n] -= d
	return d
}

// free is the room of the CPUs shown. Of hundreds of CPUs in a year it does not fit into a Duration.
func (k *cpuClock) free(shown *CPUSet) (sum float64) {
	for n := shown.Next(0); n >= 0; n = shown.Next(n + 1) {
		sum += float64(k.room[n])
	}
	return sum
}

// fit makes room for the CPUs shown and those that the kernel counts.
func (k *cpuClock) fit(shown *CPUSet) {
	size := len(k.now.cpus)
	for n := shown.Next(0); n >= 0; n = shown.Next(n + 1) {
		size = max(size, n+1)
	}
	if more := size - len(k.times); more > 0 {
		k.times = append(k.times, make([]CPUTime, more)...)
		k.cpus = append(k.cpus, make([]cpuUsage, more)...)
		k.room = append(k.room, make([]time.Duration, more)...)
	}
}
