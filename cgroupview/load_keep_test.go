package cgroupview

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// keptLoad is a container as the next daemon finds it, at a tick.
func keptLoad(t testing.TB, f tree, tick uint64) *Container {
	t.Helper()
	c, _, clock := asked(t, f)
	*clock = time.Duration(tick) * LoadEvery
	c.load.tick = tick
	return c
}

// TestKeepLoad restarts the daemon: the next one goes on where the averages were, and the samples in between are made up.
func TestKeepLoad(t *testing.T) {
	f := v2(web(), busyTasks(webDir, "cgroup.threads"))
	slot := make([]byte, LoadBytes)
	first := keptLoad(t, f, 2000)
	if first.KeepLoad(slot) {
		t.Error("something was found in an empty slot")
	}
	first.load.advance(first.ID(), 2001, 3)
	first.load.advance(first.ID(), 2002, 3)
	if id, ok := LoadOwner(slot); !ok || id != first.ID() {
		t.Errorf("the slot belongs to %v, %v", id, ok)
	}
	second := keptLoad(t, f, 2010)
	if !second.KeepLoad(slot) || second.Load() != first.Load() {
		t.Errorf("restored: %v, was %v", second.Load(), first.Load())
	}
	second.r.SampleLoads()
	first.load.advance(first.ID(), 2010, 3)
	if second.Load() != first.Load() {
		t.Errorf("after 8 samples: %v, without the restart %v", second.Load(), first.Load())
	}
	second.KeepLoad(nil)
	before := bytes.Clone(slot)
	second.load.advance(second.ID(), 2020, 3)
	if !bytes.Equal(slot, before) {
		t.Error("written after the end")
	}
	if second.KeepLoad(make([]byte, LoadBytes-1)) {
		t.Error("something was found in a slot that is too short")
	}
	second.load.advance(second.ID(), 2021, 3)
}

// TestKeepLoadFirstSight: a container that was seen and never sampled is known from then on.
func TestKeepLoadFirstSight(t *testing.T) {
	f := v2(web(), busyTasks(webDir, "cgroup.threads"))
	slot := make([]byte, LoadBytes)
	keptLoad(t, f, 2000).KeepLoad(slot)
	second := keptLoad(t, f, 2005)
	if !second.KeepLoad(slot) || second.load.tick != 2000 {
		t.Errorf("seen first at %d", second.load.tick)
	}
}

// TestKeepLoadKilled ends the daemon at each byte of a write: the averages are those before it or after.
func TestKeepLoadKilled(t *testing.T) {
	f := v2(web(), busyTasks(webDir, "cgroup.threads"))
	var k loadAverages
	slot := make([]byte, LoadBytes)
	k.keep.slot = slot
	id := keptLoad(t, f, 2000).ID()
	next := keptLoad(t, f, 2100)
	k.tick = 2000
	for i := range 5 {
		old, before := bytes.Clone(slot), k.load
		k.advance(id, 2001+uint64(i*i), 3+i)
		for cut := range LoadBytes + 1 {
			torn := slices.Concat(slot[:cut], old[cut:])
			next.load = loadAverages{tick: 2100}
			restored := next.KeepLoad(torn)
			if got := next.Load(); got != before && got != k.load || !restored && i > 0 {
				t.Fatalf("write %d, killed after %d bytes: %v, %v; before %v, after %v", i, cut, restored, got, before, k.load)
			}
		}
	}
}

// TestKeepLoadNewestStays: a daemon that takes over writes the older of the records first, whichever that is.
func TestKeepLoadNewestStays(t *testing.T) {
	f := v2(web(), busyTasks(webDir, "cgroup.threads"))
	for writes := 1; writes <= 4; writes++ {
		slot := make([]byte, LoadBytes)
		keep := loadSlot{slot: slot}
		c := keptLoad(t, f, 2000)
		newest := Load{uint64(writes), 2, 3}
		for i := range writes {
			keep.write(c.ID(), 1990+uint64(i), Load{uint64(i + 1), 2, 3})
		}
		if !c.KeepLoad(slot) || c.Load() != newest {
			t.Fatalf("%d writes: %v", writes, c.Load())
		}
		c.load.advance(c.ID(), 2001, 1)
		found := false
		for i := range 2 {
			_, _, load, ok := readLoad(slot[i*loadRecord:])
			found = found || ok && load == newest
		}
		if !found {
			t.Errorf("%d writes: what was restored is overwritten first", writes)
		}
	}
}

func TestKeepLoadIgnores(t *testing.T) {
	f := v2(web(), busyTasks(webDir, "cgroup.threads"))
	c := keptLoad(t, f, 2000)
	other := c.ID()
	other.Start++
	for _, test := range []struct {
		name string
		id   ID
		tick uint64
		load Load
		want bool
	}{
		{"good", c.ID(), 1990, Load{1, 2, 3}, true},
		{"of now", c.ID(), 2000, Load{1, 2, 3}, true},
		{"the inode number is another's now", other, 1990, Load{1, 2, 3}, false},
		{"of the future: before the last boot", c.ID(), 2001, Load{1, 2, 3}, false},
		{"more than there can be", c.ID(), 1990, Load{1, 2, maxLoad + 1}, false},
	} {
		slot := make([]byte, LoadBytes)
		keep := loadSlot{slot: slot}
		keep.write(test.id, test.tick, test.load)
		c.load = loadAverages{tick: 2000}
		if got := c.KeepLoad(slot); got != test.want || got && c.Load() != test.load || !got && c.Load() != (Load{}) {
			t.Errorf("%s: %v, %v", test.name, got, c.Load())
		}
		// What is not taken over is overwritten.
		c.load.advance(c.ID(), 2001, 1)
		again := c.Load()
		c.load = loadAverages{tick: 2001}
		if c.r.boottime = func() time.Duration { return 2001 * LoadEvery }; !c.KeepLoad(slot) || c.Load() != again {
			t.Errorf("%s: %v is found again as %v", test.name, again, c.Load())
		}
		c.r.boottime = func() time.Duration { return 2000 * LoadEvery }
	}
}

// TestKeepLoadFlipped changes one bit of a slot: the record it is in is ignored.
func TestKeepLoadFlipped(t *testing.T) {
	c := keptLoad(t, v2(web(), busyTasks(webDir, "cgroup.threads")), 2000)
	good := make([]byte, LoadBytes)
	keep := loadSlot{slot: good}
	keep.write(c.ID(), 1998, Load{10, 20, 30})
	keep.write(c.ID(), 1999, Load{11, 21, 31})
	for bit := range LoadBytes * 8 {
		slot := bytes.Clone(good)
		slot[bit/8] ^= 1 << (bit % 8)
		c.load = loadAverages{tick: 2000}
		want := Load{11, 21, 31}
		if bit/8 >= loadRecord {
			want = Load{10, 20, 30}
		}
		if !c.KeepLoad(slot) || c.Load() != want {
			t.Fatalf("bit %d: %v", bit, c.Load())
		}
	}
}

// FuzzKeepLoad restores from a slot, whatever it holds.
func FuzzKeepLoad(f *testing.F) {
	c := keptLoad(f, v2(web(), busyTasks(webDir, "cgroup.threads")), 2000)
	good := make([]byte, LoadBytes)
	keep := loadSlot{slot: good}
	keep.write(c.ID(), 1998, Load{10, 20, 30})
	f.Add(good)
	f.Add([]byte{})
	random := make([]byte, LoadBytes)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	f.Add(random)
	f.Fuzz(func(t *testing.T, slot []byte) {
		LoadOwner(slot)
		c.load = loadAverages{tick: 2000}
		restored := c.KeepLoad(slot)
		if load := c.Load(); max(load[0], load[1], load[2]) > maxLoad || c.load.tick > 2000 || !restored && load != (Load{}) {
			t.Errorf("%v at %d, %v", load, c.load.tick, restored)
		}
	})
}
