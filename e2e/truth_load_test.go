package e2e

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// Four tasks that spin bring the load up on the kernel's curve: e^(-5s/1min) of what was is left by each sample.
func TestLoadFollowsTheKernelsCurve(t *testing.T) {
	needRoot(t)
	d := serve(t)
	c := d.spender()
	c.read("proc/loadavg") // seen
	c.ask("spin 4")
	begin := time.Now()
	time.Sleep(11 * time.Second)
	text := c.read("proc/loadavg")
	elapsed := time.Since(begin)
	var one, five, fifteen float64
	var running, total, last int
	if n, err := fmt.Sscanf(text, "%f %f %f %d/%d %d", &one, &five, &fifteen, &running, &total, &last); n != 6 {
		t.Fatalf("loadavg %q: %v", text, err)
	}
	// Samples are 5 s apart: of those that fell into this time the first may have found fewer, and readers add one that runs.
	least, most := math.Floor(elapsed.Seconds()/5), math.Ceil(elapsed.Seconds()/5)
	for minutes, got := range map[float64]float64{1: one, 5: five, 15: fifteen} {
		curve := func(tasks, samples float64) float64 { return tasks * (1 - math.Exp(-5*samples/60/minutes)) }
		if lo, hi := curve(4, least)-0.02, curve(5, most)+0.02; got < lo || got > hi {
			t.Errorf("the load over %v min is %v, not from %.2f to %.2f: %s", minutes, got, lo, hi, text)
		}
	}
	if running < 4 || running > 6 || total < running {
		t.Errorf("%d of %d run: %s", running, total, text)
	}
	c.close()
}
