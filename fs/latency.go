package fs

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// fileStats counts the requests for one file of the tree, of all containers and both mounts.
//
// It is added to on the way of every request: without a lock, an allocation or a system call. A reading of the clock is what it costs, 36 ns, so
// one is taken over from where there is one anyway (see BenchmarkCounting).
type fileStats struct {
	getattrs atomic.Uint64
	reads    atomic.Uint64
	rendered atomic.Uint64
	getattr  latencies // of own views alone: in the shared tree the kernel keeps attributes
	read     latencies
}

// sampled says whether the n-th READ of an own view is timed: one in four. It copies a page that is there, so that two clock readings would cost more than
// it does itself. Not every fourth: a program that reads in a rhythm would have always the same of its reads timed.
func sampled(n uint64) bool { return n*0x9e3779b97f4a7c15>>62 == 0 }

// latencies is how long answers took. It keeps the numbers of a scale with eight steps from each power of two to the next, so what it gives is up to an
// eighth too long.
type latencies struct {
	steps [latencySteps]atomic.Uint64
	max   atomic.Int64
}

const (
	stepBits     = 3
	longest      = 36 // bits of nanoseconds: a minute. Longer ones count as that long
	latencySteps = (longest - stepBits + 1) << stepBits
)

func stepOf(ns uint64) int {
	ns = min(ns, 1<<longest-1)
	if ns < 1<<stepBits {
		return int(ns)
	}
	shift := bits.Len64(ns) - 1 - stepBits
	return shift<<stepBits + int(ns>>shift)
}

// stepEnd is the longest time of a step.
func stepEnd(step int) time.Duration {
	if step < 2<<stepBits {
		return time.Duration(step)
	}
	shift := step>>stepBits - 1
	return time.Duration((step-shift<<stepBits+1)<<shift - 1)
}

func (l *latencies) add(d time.Duration) {
	d = max(0, d)
	l.steps[stepOf(uint64(d))].Add(1)
	for most := l.max.Load(); int64(d) > most && !l.max.CompareAndSwap(most, int64(d)); most = l.max.Load() {
	}
}

// LatencyReport is how long it took from when the worker had a request until its answer was ready, in nanoseconds.
type LatencyReport struct {
	Timed uint64        `json:"timed"` // requests
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

func (l *latencies) report() LatencyReport {
	var steps [latencySteps]uint64
	r := LatencyReport{Max: time.Duration(l.max.Load())}
	for i := range steps {
		steps[i] = l.steps[i].Load()
		r.Timed += steps[i]
	}
	at := func(part float64) time.Duration {
		rest := uint64(part * float64(r.Timed))
		for i, n := range steps {
			if rest < n {
				return min(stepEnd(i), r.Max)
			}
			rest -= n
		}
		return r.Max
	}
	if r.Timed > 0 {
		r.P50, r.P99 = at(0.5), at(0.99)
	}
	return r
}
