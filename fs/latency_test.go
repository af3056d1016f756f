package fs

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Every time falls into a step that ends not before it, and not an eighth later.
func TestLatencySteps(t *testing.T) {
	for ns := uint64(0); ns < 1<<longest; ns += 1 + ns/100 {
		step := stepOf(ns)
		if end := uint64(stepEnd(step)); end < ns || end > ns+ns/8 {
			t.Fatalf("%d ns are in step %d, which ends at %d", ns, step, end)
		}
	}
	for step := range latencySteps {
		if got := stepOf(uint64(stepEnd(step))); got != step {
			t.Errorf("the end of step %d, %d ns, is in step %d", step, stepEnd(step), got)
		}
	}
	if got := stepOf(1 << 62); got != latencySteps-1 {
		t.Errorf("146 years are in step %d", got)
	}
}

func TestLatencyReport(t *testing.T) {
	var l latencies
	if got := l.report(); got != (LatencyReport{}) {
		t.Errorf("of nothing: %+v", got)
	}
	var all []time.Duration
	for range 10000 {
		d := time.Duration(rand.ExpFloat64() * float64(10*time.Microsecond))
		all = append(all, d)
		l.add(d)
	}
	l.add(-time.Second) // no clock does that; it must not be a panic
	slices.Sort(all)
	got := l.report()
	if got.Timed != 10001 || got.Max != all[9999] {
		t.Errorf("%+v, and the longest was %v", got, all[9999])
	}
	for _, c := range []struct {
		got, want time.Duration
	}{{got.P50, all[5000]}, {got.P99, all[9900]}} {
		if c.got < c.want*98/100 || c.got > c.want*115/100 {
			t.Errorf("%v, where it is %v", c.got, c.want)
		}
	}
}

// One in four, also of those who read in a rhythm.
func TestSampled(t *testing.T) {
	for rhythm := uint64(1); rhythm <= 16; rhythm++ {
		n := 0
		for i := range uint64(10000) {
			if sampled(i * rhythm) {
				n++
			}
		}
		if n < 2000 || n > 3000 {
			t.Errorf("every %d.: %d of 10000", rhythm, n)
		}
	}
}
