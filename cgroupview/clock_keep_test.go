package cgroupview

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"reflect"
	"testing"
	"time"
)

// reopen gives the clock of a process that finds the slot when the container is so old.
func reopen(t testing.TB, slot []byte, age time.Duration) *cpuClock {
	t.Helper()
	c := &Container{r: &Resolver{boottime: func() time.Duration { return age }}, ns: webNS}
	c.KeepClock(slot)
	return &c.clock
}

// kept is a clock with two records in its slot, the second of at 20 s.
func kept(t testing.TB) (slot []byte, first, second *cpuClock) {
	slot = make([]byte, ClockBytes(4))
	c := cpuClock{keep: clockKeep{slot: slot}}
	c.look(t, look{age: 10, shown: "1-2", used: [][2]float64{{1, 2}, {3, 4}, {5, 3}, {0, 1}}, throttled: 5})
	first = reopen(t, slot, seconds(10))
	c.look(t, look{age: 20, shown: "0-1", used: [][2]float64{{1, 2}, {6, 7}, {5, 3}, {9, 1}}, throttled: 9})
	return slot, first, reopen(t, slot, seconds(20))
}

// same compares what two clocks know.
func same(a, b *cpuClock) bool {
	return a.clockState == b.clockState && reflect.DeepEqual(a.times, b.times) && reflect.DeepEqual(a.cpus, b.cpus)
}

func TestKeepClock(t *testing.T) {
	slot, first, second := kept(t)
	if first.at != seconds(10) || second.at != seconds(20) || inWords(second.times) != "[6.42/0/3/0.58 9.18/8.8/1.8/0.22 5.4/4.2/0.4/0 0/0/0/0]" {
		t.Errorf("%v: %s, %v: %s", first.at, inWords(first.times), second.at, inWords(second.times))
	}
	if k := reopen(t, slot, seconds(19)); k.at != 0 {
		t.Error("a record of a time to come was taken")
	}
	// The clock goes on in the half that is older, and the next process finds it.
	second.look(t, look{age: 30, shown: "1", used: [][2]float64{{1, 2}, {6, 7}, {5, 3}, {9, 1}}, throttled: 9})
	third := reopen(t, slot, seconds(30))
	if !same(third, second) || third.keep.sequence != 3 {
		t.Errorf("%d: %s, it was %s", third.keep.sequence, inWords(third.times), inWords(second.times))
	}
}

// TestKeepClockCut has the process killed at each byte of a write, and memory go bad anywhere: what was written before is found whole.
func TestKeepClockCut(t *testing.T) {
	slot, first, second := kept(t)
	after := second.keep
	for _, whole := range []struct {
		clock *cpuClock
		half  []byte // that is written while the clock stands in the other
	}{{first, after.record(2)}, {second, after.record(1)}} {
		written := bytes.Clone(whole.half)
		for n := range len(written) {
			for _, rest := range []byte{0, 0xff} {
				copy(whole.half, written[:n])
				for i := n; i < len(written); i++ {
					whole.half[i] = rest ^ written[i]
				}
				k := reopen(t, slot, seconds(100))
				if rest == 0 && !same(k, second) || rest != 0 && n < clockHeadBytes+len(second.times)*clockCPUBytes && !same(k, whole.clock) {
					t.Fatalf("cut at %d: at %v", n, k.at)
				}
			}
		}
		copy(whole.half, written)
	}
}

func TestKeepClockRefused(t *testing.T) {
	slot, _, _ := kept(t)
	for name, slot := range map[string][]byte{
		"none": nil, "empty": {}, "zeros": make([]byte, ClockBytes(4)), "ones": bytes.Repeat([]byte{255}, ClockBytes(4)), "a byte": {1},
		"shorter": slot[:len(slot)-2], "another half": append(bytes.Clone(slot[len(slot)/2:]), slot[:len(slot)/2]...),
	} {
		k := reopen(t, slot, seconds(100))
		if k.at != 0 || k.times != nil {
			t.Errorf("%s: %v", name, k.at)
		}
		k.look(t, look{age: 100, shown: "0", used: all(1)}) // it does not matter
	}
	// A version to come, whole in every other way.
	for i := range uint64(2) {
		to := (&clockKeep{slot: slot}).record(i)
		binary.NativeEndian.PutUint32(to[4:], clockVersion+1)
		sign(to, 4)
	}
	if k := reopen(t, slot, seconds(100)); k.at != 0 {
		t.Error("another version was taken")
	}
}

// sign makes the sum of a record of so many CPUs right.
func sign(record []byte, cpus int) {
	binary.NativeEndian.PutUint32(record, crc32.ChecksumIEEE(record[4:clockHeadBytes+cpus*clockCPUBytes]))
}

// TestKeepClockLate gives a slot to a clock that has begun: what it has shown counts, and is written at the next look. Without a slot nothing is.
func TestKeepClockLate(t *testing.T) {
	slot, _, second := kept(t)
	r, _ := v2(web()).resolver(t)
	c, shown := r.Of(120), setOf(t, "1")
	if _, err := c.LockTimes(shown); err != nil {
		t.Fatal(err)
	}
	c.UnlockTimes()
	want := inWords(c.clock.times)
	c.KeepClock(slot)
	if inWords(c.clock.times) != want {
		t.Errorf("%s became %s", want, inWords(c.clock.times))
	}
	c.clock.look(t, look{age: 2000, shown: "1", used: all(2.5), throttled: 0.5})
	if k := reopen(t, slot, seconds(2000)); !same(k, &c.clock) || k.keep.sequence != second.keep.sequence+1 {
		t.Errorf("%s was kept as %s", inWords(c.clock.times), inWords(k.times))
	}
	c.clock.look(t, look{age: 2001, shown: "1-7", used: all(2.5), throttled: 0.5})
	if k := reopen(t, slot, seconds(3000)); k.at != seconds(2000) {
		t.Errorf("more CPUs than the slot has room for: %v", k.at)
	}
	c.KeepClock(nil)
	before := bytes.Clone(slot)
	c.clock.look(t, look{age: 2002, shown: "1", used: all(2.5), throttled: 0.5})
	if !bytes.Equal(slot, before) {
		t.Error("written to a slot that was taken away")
	}
}

// FuzzKeepClock goes on from records of anything, their sums made right: whatever is taken is a clock's, and stays one.
func FuzzKeepClock(f *testing.F) {
	slot, _, _ := kept(f)
	f.Add(slot)
	f.Add(make([]byte, ClockBytes(0)))
	f.Fuzz(func(t *testing.T, slot []byte) {
		for i := range uint64(2) {
			if to := (&clockKeep{slot: slot}).record(i); len(to) >= clockHeadBytes {
				sign(to, min(int(binary.NativeEndian.Uint64(to[16:])%MaxCPUs), (len(to)-clockHeadBytes)/clockCPUBytes))
			}
		}
		const age = time.Hour
		k := reopen(t, slot, age)
		last := make([]CPUTime, max(2, len(k.times)))
		copy(last, k.times)
		wall := age - k.at
		k.look(t, look{age: 3600, shown: "0-1", used: [][2]float64{{4, 2}, {1e4, 3}}, throttled: 7})
		for n, now := range k.times {
			if went(last[n], now) != shownTime(setOf(t, "0-1"), n, wall) || now.Idle > age {
				t.Fatalf("CPU %d: %+v after %+v", n, now, last[n])
			}
		}
	})
}
