package cgroupview

import (
	"sync"
	"time"
)

// Load is a container's load averages over 1, 5 and 15 minutes: how many of its tasks ran or were blocked, in units of 1/LoadOne.
type Load [3]uint64

const (
	loadShift = 11 // FSHIFT in include/linux/sched/loadavg.h
	// LoadOne is an average of one task: FIXED_1.
	LoadOne = 1 << loadShift
	// LoadEvery is the time between two samples, on the clock of the time since boot, which runs on while the machine is suspended.
	LoadEvery = 5 * time.Second
)

// loadDecay is what a sample leaves of each average, in units of 1/LoadOne: EXP_1, EXP_5 and EXP_15, e^(-5s/1min) and so on.
var loadDecay = Load{1884, 2014, 2037}

// loadAverages is a container's averages. They begin at 0.00 when it is seen first.
type loadAverages struct {
	mu   sync.Mutex
	tick uint64 // of the last sample: the time since boot in units of LoadEvery
	load Load
	keep loadSlot
}

// Load gives the averages as they were at the last sample. They are the kernel's fixed-point numbers, 0 where nobody samples.
func (c *Container) Load() Load {
	c.load.mu.Lock()
	defer c.load.mu.Unlock()
	return c.load.load
}

// loadTick numbers the moments at which samples are due.
func (r *Resolver) loadTick() uint64 { return uint64(r.boottime() / LoadEvery) }

// advance takes a sample: so many tasks were active. Those that were missed since the last one, while the machine was suspended or no daemon ran,
// are made up as if they had found the same.
func (k *loadAverages) advance(id ID, tick uint64, active int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if tick <= k.tick {
		return
	}
	for i, decay := range loadDecay {
		k.load[i] = calcLoad(k.load[i], fixedPower(decay, tick-k.tick), uint64(active)*LoadOne)
	}
	k.tick = tick
	k.keep.write(id, tick, k.load)
}

// calcLoad is one step of an average towards active. A rising one is rounded up, as the kernel's (kernel/sched/loadavg.c, calc_load), or
// it would never reach the number of tasks.
func calcLoad(load, decay, active uint64) uint64 {
	sum := load*decay + active*(LoadOne-decay)
	if active >= load {
		sum += LoadOne - 1
	}
	return sum / LoadOne
}

// fixedPower is x to the nth in units of 1/LoadOne, each product rounded to the nearest as the kernel's fixed_power_int does.
func fixedPower(x, n uint64) uint64 {
	const half = LoadOne / 2
	power := uint64(LoadOne)
	for ; n > 0; n /= 2 {
		if n%2 == 1 {
			power = (power*x + half) / LoadOne
		}
		x = (x*x + half) / LoadOne
	}
	return power
}

// roundBudget bounds what a round of samples costs, in tasks looked at at about 4 µs each; leastBudget is for each of those that come when it is spent.
const roundBudget, leastBudget = 1 << 16, 64

// lookAfter is how many samples apart the containers are asked where their groups are, of which nobody reads anything.
const lookAfter = 12

// sampler is what rounds of samples work with.
type sampler struct {
	scans sync.Pool  // of *taskScan, between one look and the next
	mu    sync.Mutex // one round at a time
	round []*Container
}

// SampleLoads takes the samples that are due. A container that cannot be looked at is left out: its samples are made up at the next.
func (r *Resolver) SampleLoads() {
	r.sampler.mu.Lock()
	defer r.sampler.mu.Unlock()
	tick := r.loadTick()
	r.sampler.round = r.Containers(r.sampler.round[:0])
	left := roundBudget
	// Their order is another each time, so that none always comes when the budget is spent.
	for _, c := range r.sampler.round {
		if (tick+uint64(c.init))%lookAfter == 0 || c.Age() < settles {
			c.Look()
		}
		cost, active, err := c.sample(min(max(left, leastBudget), sampledBudget))
		left -= cost
		if err == nil {
			c.load.advance(c.ID(), tick, active)
		}
	}
	clear(r.sampler.round)
}

// sample counts the active tasks, and says what part of the budget that took.
func (c *Container) sample(budget int) (cost, active int, err error) {
	k := &c.tasks
	k.mu.Lock()
	defer k.mu.Unlock()
	cost, err = c.countTasks(c.r.boottime(), budget)
	return cost, k.tasks.Running + k.tasks.Blocked, err
}

// SampleLoadsUntil takes all samples when they are due, until stop is closed. A round that takes long does not put the next one off.
func (r *Resolver) SampleLoadsUntil(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(LoadEvery - r.boottime()%LoadEvery):
			r.SampleLoads()
		}
	}
}

// Containers appends those that are known now, in no order; not the groups of the host's processes.
func (r *Resolver) Containers(dst []*Container) []*Container {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, c := range r.byNS {
		dst = append(dst, c)
	}
	return dst
}
