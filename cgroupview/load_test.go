package cgroupview

import (
	"maps"
	"math"
	"testing"
	"time"
)

func (l Load) float() (f [3]float64) {
	for i, n := range l {
		f[i] = float64(n) / LoadOne
	}
	return f
}

var loadMinutes = [3]float64{1, 5, 15}

// TestLoadCurve feeds a constant number, and compares with the exponential that the averages are made of.
func TestLoadCurve(t *testing.T) {
	// The kernel's factor for 15 minutes has 11 bits, and is 3 % from the exact one.
	for active, within := range map[int]float64{1: 0.02, 4: 0.02, 200: 1.5} {
		var k loadAverages
		for tick := uint64(1); tick <= 5*60/5; tick++ {
			k.advance(ID{}, tick, active)
			for i, got := range k.load.float() {
				want := float64(active) * (1 - math.Exp(-float64(tick)*5/60/loadMinutes[i]))
				if math.Abs(got-want) > within {
					t.Fatalf("%d active for %d s: %v minutes: %.3f, want %.3f", active, tick*5, loadMinutes[i], got, want)
				}
			}
		}
	}
}

// TestLoadKernel has numbers as the kernel's own arithmetic gives them, calc_load in kernel/sched/loadavg.c worked out by hand.
func TestLoadKernel(t *testing.T) {
	var k loadAverages
	for tick, step := range []struct {
		active int
		want   Load
	}{
		{4, Load{656, 136, 44}},  // (8192·164+2047)/2048, (8192·34+2047)/2048, (8192·11+2047)/2048: rounded up
		{4, Load{1260, 270, 88}}, // (656·1884+8192·164+2047)/2048 ...
		{0, Load{1159, 265, 87}}, // 1260·1884/2048 ...: rounded down
	} {
		k.advance(ID{}, uint64(tick+1), step.active)
		if k.load != step.want {
			t.Errorf("sample %d: %v, want %v", tick+1, k.load, step.want)
		}
	}
}

// TestLoadReaches: rounding up brings the averages to the number of tasks, and rounding down to nothing.
func TestLoadReaches(t *testing.T) {
	var k loadAverages
	tick := uint64(0)
	for range 6 * 3600 / 5 {
		tick++
		k.advance(ID{}, tick, 2)
	}
	if k.load != (Load{2 * LoadOne, 2 * LoadOne, 2 * LoadOne}) {
		t.Errorf("%v", k.load)
	}
	for range 12 * 3600 / 5 {
		tick++
		k.advance(ID{}, tick, 0)
	}
	if k.load != (Load{}) {
		t.Errorf("%v", k.load)
	}
}

// TestLoadMissed makes up for missed samples: the same as if they had been taken, but for the rounding.
func TestLoadMissed(t *testing.T) {
	for _, missed := range []uint64{1, 2, 3, 11, 12, 60, 719, 1 << 20, math.MaxUint64 - 100} {
		each, once := loadAverages{tick: 100, load: Load{5000, 5000, 5000}}, loadAverages{tick: 100, load: Load{5000, 5000, 5000}}
		for tick := range min(missed, 10000) {
			each.advance(ID{}, 101+tick, 1)
		}
		once.advance(ID{}, 100+missed, 1)
		for i := range once.load {
			if math.Abs(each.load.float()[i]-once.load.float()[i]) > 0.03 {
				t.Errorf("%d missed: %v, one by one %v", missed, once.load.float(), each.load.float())
			}
		}
	}
}

// TestSampleLoads drives the samples by a clock: what is due is taken, a late one shifts nothing, a second one at the same time changes nothing.
func TestSampleLoads(t *testing.T) {
	f := busyTasks(webDir, "cgroup.threads")
	c, root, clock := asked(t, v2(web(), f))
	*clock = 5003 * time.Second
	c.load.tick = c.r.loadTick() // it was seen first now
	c.r.SampleLoads()
	if got := c.Load(); got != (Load{}) {
		t.Errorf("at first sight: %v", got)
	}
	want := loadAverages{}
	for i, at := range []float64{5005, 5005.1, 5009.99, 5014, 5015, 5029, 5030} {
		*clock = seconds(at)
		c.r.SampleLoads()
		for want.tick < []uint64{1, 1, 1, 2, 3, 5, 6}[i] {
			n := []uint64{1, 1, 1, 2, 3, 5, 6}[i]
			want.advance(ID{}, n, 3)
		}
		if c.Load() != want.load {
			t.Errorf("at %v: %v, want %v", at, c.Load(), want.load)
		}
	}
	// A container that cannot be looked at keeps its averages; they are made up for when it is there again.
	before := c.Load()
	remove(t, root, webDir+"cgroup.threads", webDir+"cpu.stat")
	*clock = 5060 * time.Second
	c.r.SampleLoads()
	if c.Load() != before {
		t.Errorf("without a group: %v, before %v", c.Load(), before)
	}
	f.write(t, root)
	c.r.SampleLoads()
	if want.advance(ID{}, 12, 3); c.Load() != want.load {
		t.Errorf("made up: %v, want %v", c.Load(), want.load)
	}
}

// TestSampleLoadsMoved samples a container whose init has gone to another group, which nobody has read anything of since.
func TestSampleLoadsMoved(t *testing.T) {
	f := process(100, 90, "100\t1", webNS, "0::/web\n")
	maps.Copy(f, thread(101, "101\t2", webNS, "R", 400000))
	maps.Copy(f, tree{webDir + "cgroup.threads": "", "sys/fs/cgroup/else/cgroup.threads": "101\n",
		webDir + "cpu.stat": "usage_usec 1\n", "sys/fs/cgroup/else/cpu.stat": "usage_usec 1\n"})
	c, root, clock := asked(t, v2(f))
	c.r.SampleLoads()
	tree{"proc/100/cgroup": "0::/else\n"}.write(t, root)
	for range lookAfter {
		*clock += LoadEvery
		c.r.SampleLoads()
	}
	if c.Load() == (Load{}) {
		t.Error("after a minute the task in its new group is not seen")
	}
}

// TestSampleLoadsHost: only containers are sampled, not the groups of the host's processes.
func TestSampleLoadsHost(t *testing.T) {
	r, _ := v2(web(), process(50, 1, "50", ownNS, "0::/system.slice/a.service\n")).resolver(t)
	r.Of(50)
	if got := r.Containers(nil); len(got) != 0 {
		t.Errorf("%d containers", len(got))
	}
	web := r.Of(120)
	if got := r.Containers(nil); len(got) != 1 || got[0] != web {
		t.Errorf("%d containers", len(got))
	}
}

func TestSampleLoadsUntil(t *testing.T) {
	c, _, _ := asked(t, v2(web(), busyTasks(webDir, "cgroup.threads")))
	begin := time.Now()
	c.r.boottime = func() time.Duration { return seconds(9999.97) + time.Since(begin) } // a sample is due in 30 ms
	c.load.tick = c.r.loadTick()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		c.r.SampleLoadsUntil(stop)
		close(ended)
	}()
	for c.Load() == (Load{}) {
		if time.Since(begin) > 4*time.Second {
			t.Fatal("no sample was taken when it was due")
		}
		time.Sleep(time.Millisecond)
	}
	if d := time.Since(begin); d < 30*time.Millisecond {
		t.Errorf("after %v: too soon", d)
	}
	close(stop)
	<-ended
}

func TestSampleLoadsAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c, _, clock := asked(t, v2(web(), busyTasks(webDir, "cgroup.threads")))
	c.KeepLoad(make([]byte, LoadBytes))
	n := testing.AllocsPerRun(100, func() {
		*clock += LoadEvery
		c.looked = *clock
		c.r.SampleLoads()
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
	if c.Load() == (Load{}) {
		t.Error("no sample was taken")
	}
}
