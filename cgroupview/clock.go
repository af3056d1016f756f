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
// The numbers are of v2 cpu.stat, v1 cpuacct.usage_all and cpu.stat; an error names the file.
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
			k.take(n, own)
			grown = grown.minus(own)
		}
		used = used.plus(grown)
	}
	steal := k.owedSteal + min(most, max(0, k.now.throttled-k.throttled))
	k.throttled = k.now.throttled
	used, steal = k.spread(shown, used, steal)

	// What found no room is forgotten, but for what may have been counted late or ahead: else a container whose quota came after it had used more
	// would see itself busy, or robbed, long after it fell idle. (Each thread is throttled for itself, which makes more than there is to steal.)
	late := time.Duration(shown.Count()) * quotaPeriod
	k.owed, k.owedSteal = used.atMost(late), min(steal, late)
	k.save()
}

// spread divides what was used and stolen over the CPUs shown, to each by the room it has, and gives back what found none.
func (k *cpuClock) spread(shown *CPUSet, used cpuUsage, steal time.Duration) (cpuUsage, time.Duration) {
	var free float64 // the sum over hundreds of CPUs and years does not fit into a Duration
	for n := shown.Next(0); n >= 0; n = shown.Next(n + 1) {
		free += float64(k.room[n])
	}
	room := time.Duration(min(free, most))
	now := used.atMost(room)
	nowSteal := min(steal, room-now.sum())
	for n := shown.Next(0); n >= 0; n = shown.Next(n + 1) {
		part := float64(k.room[n]) / max(1, free)
		u := cpuUsage{user: share(now.user, part), system: share(now.system, part)}.atMost(k.room[n])
		k.take(n, u)
		used = used.minus(u)
		s := min(share(nowSteal, part), k.room[n])
		steal = max(0, steal-s)
		k.times[n].Steal += s
		k.times[n].Idle += k.room[n] - s
	}
	return used, steal
}

// take gives CPU n's time to what was used.
func (k *cpuClock) take(n int, u cpuUsage) {
	k.times[n].User += u.user
	k.times[n].System += u.system
	k.room[n] -= u.sum()
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
