package main

import (
	"strings"
	"testing"
	"time"
)

// verdictsOf gives those of the goals about one event, by the end of their names.
func verdictsOf(r *report, title string) map[string]string {
	all := map[string]string{}
	for _, g := range r.judgeStalls() {
		if rest, ok := strings.CutPrefix(g.What, title+": "); ok {
			all[rest] = g.Verdict
		}
	}
	return all
}

func TestStallGoals(t *testing.T) {
	ms := time.Millisecond.Nanoseconds()
	for _, c := range []struct {
		stalls         []int64
		failed         int64
		failure, stall string
	}{
		{[]int64{20 * ms, 249 * ms, 30 * ms}, 0, metGoal, metGoal},
		{[]int64{20 * ms, 251 * ms, 30 * ms}, 0, metGoal, missedGoal}, // one is enough
		{[]int64{20 * ms, 1200 * ms}, 0, metGoal, lostDirection},
		{[]int64{20 * ms}, 1, lostDirection, metGoal},
	} {
		r := &report{Stall: []stallPoint{{Event: workerKilled, Reads: 1e6, Failed: c.failed, Stalls: c.stalls}}}
		got := verdictsOf(r, "worker killed")
		if len(got) != 2 || got["failed reads"] != c.failure || got["longest stall"] != c.stall {
			t.Errorf("%v, %d failed: %v", c.stalls, c.failed, got)
		}
		for what, verdict := range verdictsOf(r, "upgrade") {
			if verdict != notMeasured {
				t.Errorf("upgrades, which were not measured: %s: %s", what, verdict)
			}
		}
	}
}

func TestStallSheet(t *testing.T) {
	r := &report{Stall: []stallPoint{{Event: nothingDone, Reads: 5, Stalls: []int64{1e6}}, {Event: upgraded, Reads: 7, Failed: 2, Resumed: 4, Stalls: []int64{1e6, 2e6, 90e6}, Whole: []int64{5e6}}}}
	rows := r.stallSheet().Rows
	if len(rows) != 2 {
		t.Fatalf("%q", rows)
	}
	if got := strings.Join(rows[1], "|"); !strings.HasPrefix(got, "upgrade|3|7|2|4|2.00|90.") {
		t.Error(got)
	}
	if got := strings.Join(rows[0][8:], "|"); got != "–|–" {
		t.Error(got)
	}
}

// A read counts for an event if any part of it was meanwhile.
func TestLongestIn(t *testing.T) {
	reads := []span{{0, 100}, {90, 130}, {140, 145}, {150, 155}, {198, 260}, {201, 900}}
	for _, c := range []struct{ from, to, want int64 }{
		{101, 200, 62}, {101, 150, 40}, {131, 139, 0}, {131, 197, 5}, {0, 1000, 699},
	} {
		if got := longestIn(reads, c.from, c.to); got != time.Duration(c.want) {
			t.Errorf("%d to %d: %d, want %d", c.from, c.to, got, c.want)
		}
	}
}

// The question is answered when the last read of its time has ended, and not before.
func TestTellWaits(t *testing.T) {
	x := &watcher{begun: 50, reads: 3}
	go func() {
		time.Sleep(20 * time.Millisecond)
		x.mu.Lock()
		defer x.mu.Unlock()
		x.long, x.begun = append(x.long, span{50, 5000}), 300
	}()
	var r reply
	if err := x.tell(&watch{From: 10, To: 100}, &r); err != nil || r.Longest != 4950 || r.Reads != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	if len(x.long) > 0 || x.reads != 0 {
		t.Error("it is told again")
	}
}

func TestSameStart(t *testing.T) {
	meminfo := "MemTotal:  262144 kB\nMemFree: 1 kB\n"
	for _, c := range []struct {
		file, first, later string
		want               bool
	}{
		{"proc/meminfo", meminfo, strings.Replace(meminfo, "Free: 1", "Free: 2", 1), true},
		{"proc/meminfo", meminfo, strings.Replace(meminfo, "262144", "262145", 1), false},
		{"proc/meminfo", meminfo, "", false},
		{"proc/uptime", "1 2\n", "3 4\n", true},
		{"proc/uptime", "1 2\n", "", false},
		{"proc/diskstats", "", "", true},
	} {
		if got := sameStart([]byte(c.later), lasting(c.file, []byte(c.first))); got != c.want {
			t.Errorf("%s: %q, then %q: %v", c.file, c.first, c.later, got)
		}
	}
}
