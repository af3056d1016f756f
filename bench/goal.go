package main

import "fmt"

// goal is one line of the table of what lensfs must reach.
type goal struct {
	What     string
	Goal     string
	Measured string
	Note     string // which file and how many threads, where one stands for several
	Verdict  string
}

// The verdicts.
const (
	metGoal       = "met"
	missedGoal    = "MISSED"
	lostDirection = "MISSED by far" // beyond what even a short run on a busy machine has to show
	notMeasured   = "not measured"
	elsewhere     = "see there"
)

// atLeast and atMost judge a median: is it as good as the goal, and if not, does at least the direction hold?
func atLeast(bound, direction float64, s spread) string {
	switch {
	case s.None:
		return notMeasured
	case s.Median >= bound:
		return metGoal
	case s.Median >= direction:
		return missedGoal
	}
	return lostDirection
}

func atMost(bound, direction float64, s spread) string {
	switch {
	case s.None:
		return notMeasured
	case s.Median <= bound:
		return metGoal
	case s.Median <= direction:
		return missedGoal
	}
	return lostDirection
}

// judge holds what was measured against the goals.
func (r *report) judge() (goals []goal) {
	add := func(what, bound string, s spread, show func(spread) string, verdict, note string) {
		goals = append(goals, goal{What: what, Goal: bound, Measured: show(s), Note: note, Verdict: verdict})
	}
	reading := func(kind, file string, threads int) *series {
		return r.find(series{Scenario: "read", Kind: kind, File: file, Mode: opened, Threads: threads})
	}
	const meminfo = "proc/meminfo"

	s := ratio(reading(own, meminfo, 1), reading(kernel, meminfo, 1), perSecond)
	add("own view of meminfo, reads a second, 1 thread, against the kernel's own file", "≥ 1.7 ×", s, times, atLeast(1.7, 1, s), "")
	s = ratio(reading(own, meminfo, 1), reading(lxcfs, meminfo, 1), perSecond)
	add("the same against LXCFS", "≥ 50 ×", s, times, atLeast(50, 10, s), "")
	s = ratio(reading(shared, meminfo, 1), reading(empt, meminfo, 1), p50)
	add("shared tree, meminfo, 1 thread, median time against the empty FUSE file", "≤ 1.4 ×", s, times, atMost(1.4, 2.8, s), "")

	worst, note := spread{None: true}, ""
	for _, file := range r.Files {
		for _, threads := range []int{1, 8} {
			s := ratio(reading(shared, file, threads), reading(lxcfs, file, threads), perSecond)
			if !s.None && (worst.None || s.Median < worst.Median) {
				worst, note = s, fmt.Sprintf("worst: %s, %d threads", shortName(file), threads)
			}
		}
	}
	add("shared tree, reads a second against LXCFS, each file, 1 and 8 threads", "≥ 3.5 ×", worst, times, atLeast(3.5, 1, worst), note)

	n := r.fleetSize()
	if n == 0 {
		n = 1000 // not measured
	}
	crowd := func(kind string) *series { return r.find(series{Scenario: "fleet", Kind: kind, Containers: n}) }
	for _, kind := range []string{shared, own} {
		s = ratio(crowd(kind), crowd(lxcfs), cpuPerRead)
		add(fmt.Sprintf("fleet of %d on the %s, daemon's CPU for a read against LXCFS", n, map[string]string{shared: "shared tree", own: "own views"}[kind]),
			"≤ 0.2 ×", s, times, atMost(0.2, 1, s), "")
	}
	s = crowd(own).of(rss)
	if t := crowd(shared).of(rss); t.Median > s.Median {
		s = t
	}
	add(fmt.Sprintf("fleet of %d, RSS of the daemon", n), "≤ 40 MB", s, megabytes, atMost(40e6, 80e6, s), "")

	s = r.noisier(own)
	note = ""
	if l := r.noisier(lxcfs); !l.None {
		note = "LXCFS: " + times(l)
	}
	add("noisy neighbour on own views: the victim's median time against that alone", "≤ 2 ×", s, times, atMost(2, 4, s), note)

	worst, note = spread{None: true}, ""
	for _, file := range r.Files {
		if s := reading(own, file, 8).of(cores); !s.None && (worst.None || s.Median > worst.Median) {
			worst, note = s, "worst: "+shortName(file)
		}
	}
	add("own view, a container reads in a loop with 8 threads: daemon's CPU", "≤ 3 % of a core", worst, percent, atMost(0.03, 0.1, worst), note)
	goals = append(goals, goal{What: "allocations for a READ in lensfs' code", Goal: "0", Measured: "–", Note: "a test in fs", Verdict: elsewhere})

	worst, note = spread{None: true}, ""
	for _, file := range r.Files {
		for _, kind := range []string{shared, own} {
			s := ratio(r.hosted(kind, file, fresh, bigHost), r.hosted(kind, file, fresh, smallHost), cpuPerRead)
			if !s.None && (worst.None || s.Median > worst.Median) {
				worst, note = s, fmt.Sprintf("worst: %s, %s", shortName(file), title(kind))
			}
		}
	}
	add("host of 256 CPUs against one of 2: daemon's CPU for an answer to a container of 2 CPUs", "≤ 1.5 × (own bound)", worst, times, atMost(1.5, 4, worst), note)
	s = r.growth()
	add("churn: RSS of the daemon at the end against that after half of the containers", "≤ 1.1 × (own bound)", s, times, atMost(1.1, 1.5, s), "")
	return append(goals, r.judgeStalls()...)
}

// noisier is by how much the noise makes a read slower.
func (r *report) noisier(kind string) spread {
	key := series{Scenario: "noisy", Kind: kind, File: r.Files[0], Mode: alone, Threads: 1}
	quiet := r.find(key)
	key.Mode = noise
	return ratio(r.find(key), quiet, p50)
}

func (r *report) hosted(kind, file, mode string, h hostSize) *series {
	return r.find(series{Scenario: "bighost", Kind: onHost(kind, h), File: file, Mode: mode, Threads: 1})
}

// growth is how much the daemon has grown by churn, after its tables and Go's heap have found their size.
func (r *report) growth() spread {
	if len(r.Churn) < 3 {
		return spread{None: true}
	}
	first, last := r.Churn[len(r.Churn)/2].RSS[shared], r.Churn[len(r.Churn)-1].RSS[shared]
	return spreadOf([]float64{float64(last) / float64(first)})
}
