package main

import (
	"maps"
	"slices"
	"testing"
)

// a report in which each kind has the same numbers in all files, threads and rounds.
func uniform(perSecond map[string]float64, cpu map[string]float64) *report {
	r := &report{Files: []string{"proc/meminfo", "proc/uptime"}}
	for _, kind := range slices.Sorted(maps.Keys(perSecond)) {
		x := sample{Reads: 1, PerSecond: perSecond[kind], P50: 1e9 / perSecond[kind], CPU: cpu[kind], Cores: 0.01, RSS: 30e6}
		for _, file := range r.Files {
			for _, threads := range []int{1, 8} {
				r.series(series{Scenario: "read", Kind: kind, File: file, Mode: opened, Threads: threads}).Samples = []sample{x, x, x}
			}
		}
		r.series(series{Scenario: "fleet", Kind: kind, Containers: 1000}).Samples = []sample{x}
		for _, mode := range []string{alone, noise} {
			r.series(series{Scenario: "noisy", Kind: kind, File: r.Files[0], Mode: mode, Threads: 1}).Samples = []sample{x}
		}
	}
	return r
}

var (
	goodRates = map[string]float64{kernel: 100e3, empt: 20e3, lxcfs: 3e3, shared: 16e3, own: 200e3}
	goodCPU   = map[string]float64{empt: 20e3, lxcfs: 300e3, shared: 30e3, own: 20e3}
)

// verdicts gives them in the order of the table.
func verdicts(r *report) (all []string) {
	for _, g := range r.judge() {
		all = append(all, g.Verdict)
	}
	return all
}

func TestAllGoalsMet(t *testing.T) {
	want := []string{metGoal, metGoal, metGoal, metGoal, metGoal, metGoal, metGoal, metGoal, metGoal, elsewhere, notMeasured, notMeasured}
	if got := verdicts(uniform(goodRates, goodCPU))[:len(want)]; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNothingMeasuredIsNotMet(t *testing.T) {
	for _, g := range (&report{Files: []string{"proc/meminfo"}}).judge() {
		if g.Verdict != notMeasured && g.Verdict != elsewhere {
			t.Errorf("%s: %s", g.What, g.Verdict)
		}
	}
}

func TestMisses(t *testing.T) {
	for _, c := range []struct {
		what    string
		line    int
		rates   map[string]float64
		cpu     map[string]float64
		verdict string
	}{
		{"own view little faster than the kernel", 0, map[string]float64{own: 150e3}, nil, missedGoal},
		{"own view slower than the kernel", 0, map[string]float64{own: 90e3}, nil, lostDirection},
		{"own view 40 times LXCFS", 1, map[string]float64{own: 120e3}, nil, missedGoal},
		{"own view 8 times LXCFS", 1, map[string]float64{own: 24e3}, nil, lostDirection},
		{"shared tree twice the floor", 2, map[string]float64{shared: 10e3}, nil, missedGoal},
		{"shared tree thrice the floor", 2, map[string]float64{shared: 6e3}, nil, lostDirection},
		{"shared tree twice LXCFS", 3, map[string]float64{shared: 6e3}, nil, missedGoal},
		{"shared tree slower than LXCFS", 3, map[string]float64{shared: 2e3}, nil, lostDirection},
		{"fleet at a third of LXCFS", 4, nil, map[string]float64{shared: 100e3}, missedGoal},
		{"fleet dearer than LXCFS", 5, nil, map[string]float64{own: 310e3}, lostDirection},
	} {
		rates, cpu := maps.Clone(goodRates), maps.Clone(goodCPU)
		maps.Copy(rates, c.rates)
		maps.Copy(cpu, c.cpu)
		if got := verdicts(uniform(rates, cpu))[c.line]; got != c.verdict {
			t.Errorf("%s: %s, want %s", c.what, got, c.verdict)
		}
	}
}

// One file that is slow with one number of threads decides.
func TestTheWorstCounts(t *testing.T) {
	r := uniform(goodRates, goodCPU)
	x := r.find(series{Scenario: "read", Kind: shared, File: "proc/uptime", Mode: opened, Threads: 8})
	for i := range x.Samples {
		x.Samples[i].PerSecond = 2.9e3
	}
	g := r.judge()[3]
	if g.Verdict != lostDirection || g.Note != "worst: uptime, 8 threads" {
		t.Errorf("%+v", g)
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	a := &series{Samples: []sample{{PerSecond: 10}, {PerSecond: 1000}, {PerSecond: 30}}}
	b := &series{Samples: []sample{{PerSecond: 5}, {PerSecond: 500}, {PerSecond: 10}}}
	if got, want := ratio(a, b, perSecond), (spread{Median: 2, Min: 2, Max: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := ratio(a, nil, perSecond); !got.None {
		t.Errorf("against nothing: %+v", got)
	}
}

func TestChurn(t *testing.T) {
	const line = 11
	r := &report{Files: []string{"proc/meminfo"}}
	for i, rss := range []uint64{10e6, 20e6, 21e6, 21e6, 22e6, 21e6} { // the first is before any container
		r.Churn = append(r.Churn, churnPoint{Containers: i * 100, RSS: map[string]uint64{shared: rss}})
	}
	if g := r.judge()[line]; g.Verdict != metGoal {
		t.Errorf("%+v", g)
	}
	r.Churn[5].RSS[shared] = 50e6
	if g := r.judge()[line]; g.Verdict != lostDirection {
		t.Errorf("%+v", g)
	}
}
