package main

import (
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// series is one thing measured in every round.
type series struct {
	Scenario   string
	Kind       string
	File       string `json:",omitempty"` // "": all
	Mode       string `json:",omitempty"`
	Threads    int    `json:",omitempty"`
	Containers int    `json:",omitempty"`

	Samples []sample   // one a round
	Latency []quantile // of all rounds together

	latency *hdrhistogram.Histogram
}

// The modes of reading.
const (
	opened = "open, read to the end, close"
	held   = "read to the end, file held open"
	fresh  = "open, read to the end, close; every 20 ms"
	alone  = "alone"
	noise  = "beside 32 threads"
)

// sample is what one measurement gave.
type sample struct {
	Reads     int64
	Failed    int64   `json:",omitempty"`
	Overruns  int64   `json:",omitempty"`
	PerSecond float64 // reads
	P50       float64 // ns, as all times
	P99       float64
	P999      float64
	CPU       float64 `json:",omitempty"` // of the daemon, for a read
	Cores     float64 `json:",omitempty"` // of the daemon, while it was measured
	RSS       uint64  `json:",omitempty"` // of the daemon, after it
}

// quantile is a point of a distribution: how many reads took no longer than that.
type quantile struct {
	Of float64 // of all
	NS int64
}

// add takes in a measurement. The daemon's time is given for all of it.
func (s *series) add(r reply, cpu time.Duration, rss uint64) error {
	h, err := hdrhistogram.Decode(r.Latency)
	if err != nil {
		return err
	}
	if s.latency == nil {
		s.latency = newHistogram()
	}
	s.latency.Merge(h)
	x := sample{
		Reads: r.Reads, Failed: r.Failed, Overruns: r.Overruns, RSS: rss,
		PerSecond: float64(r.Reads) / r.Took.Seconds(),
		P50:       float64(h.ValueAtQuantile(50)),
		P99:       float64(h.ValueAtQuantile(99)),
		P999:      float64(h.ValueAtQuantile(99.9)),
		Cores:     cpu.Seconds() / r.Took.Seconds(),
	}
	if r.Reads > 0 {
		x.CPU = float64(cpu.Nanoseconds()) / float64(r.Reads)
	}
	s.Samples = append(s.Samples, x)
	s.Latency = distribution(s.latency)
	return nil
}

// distribution gives the quantiles for a plot in which each further nine has the same width.
func distribution(h *hdrhistogram.Histogram) (points []quantile) {
	n := float64(h.TotalCount())
	for nines := 0.0; ; nines += 1.0 / 12 {
		above := math.Pow(10, -nines)
		if above*n < 1 { // fewer than one read is that slow
			return append(points, quantile{1 - 1/max(n, 1), h.Max()})
		}
		points = append(points, quantile{1 - above, h.ValueAtQuantile(100 * (1 - above))})
	}
}

// spread is a median and the range of what it stands for.
type spread struct {
	Median, Min, Max float64
	None             bool `json:",omitempty"` // nothing was measured
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{None: true}
	}
	v := slices.Sorted(slices.Values(values))
	median := v[len(v)/2]
	if len(v)%2 == 0 {
		median = (v[len(v)/2-1] + median) / 2
	}
	return spread{Median: median, Min: v[0], Max: v[len(v)-1]}
}

// What is looked at in a sample.
func perSecond(s sample) float64  { return s.PerSecond }
func p50(s sample) float64        { return s.P50 }
func p99(s sample) float64        { return s.P99 }
func p999(s sample) float64       { return s.P999 }
func cpuPerRead(s sample) float64 { return s.CPU }
func cores(s sample) float64      { return s.Cores }
func rss(s sample) float64        { return float64(s.RSS) }

func (s *series) of(what func(sample) float64) spread {
	if s == nil {
		return spread{None: true}
	}
	var values []float64
	for _, x := range s.Samples {
		values = append(values, what(x))
	}
	return spreadOf(values)
}

// ratio compares two series round by round: what was measured beside each other, is divided.
func ratio(a, b *series, what func(sample) float64) spread {
	if a == nil || b == nil {
		return spread{None: true}
	}
	var values []float64
	for i := range min(len(a.Samples), len(b.Samples)) {
		if d := what(b.Samples[i]); d > 0 {
			values = append(values, what(a.Samples[i])/d)
		}
	}
	return spreadOf(values)
}

// find gives the series that was measured under these words, made if need be.
func (r *report) series(key series) *series {
	if s := r.find(key); s != nil {
		return s
	}
	s := key
	r.Series = append(r.Series, &s)
	return &s
}

// find is series, nil for what was not measured.
func (r *report) find(key series) *series {
	for _, s := range r.Series {
		if s.Scenario == key.Scenario && s.Kind == key.Kind && s.File == key.File && s.Mode == key.Mode && s.Threads == key.Threads && s.Containers == key.Containers {
			return s
		}
	}
	return nil
}
