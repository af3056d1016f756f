package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// loadCase is a container in which one task burns whatever CPU time it gets.
type loadCase struct {
	column string
	cpus   func(host []int) []int
	quota  float64
}

var loadCases = []loadCase{
	{"one CPU, burnt", func(host []int) []int { return host[len(host)-1:] }, 0},
	{"a quota of half a CPU, burnt", func(host []int) []int { return host[len(host)-1:] }, 0.5},
	{"two CPUs, one burnt", func(host []int) []int { return host[len(host)-2:] }, 0},
}

func loadColumns() (names []string) {
	for _, c := range loadCases {
		names = append(names, c.column)
	}
	return names
}

// load compares what tools show of a container's CPUs with what its cgroup used while they looked.
func (doc *toolsDoc) load(t *testing.T, d *daemon) {
	host := hostCPUs(t)
	for _, c := range loadCases {
		cpus := c.cpus(host)
		t.Run("LXC, "+c.column, func(t *testing.T) {
			o := lxcOptions{privileged: true, hook: ourHook(t), memory: toolsMemory, cpuset: list(cpus), quota: c.quota}
			doc.underLoad(t, lxcPlace(t, newLXC(t, d, o), ""), c, len(cpus))
		})
		t.Run("lensfs run, "+c.column, func(t *testing.T) {
			flags := []string{"--tree", d.tree, "--memory", "512M", "--cpuset", list(cpus)}
			if c.quota > 0 {
				flags = append(flags, "--cpus", fmt.Sprint(c.quota))
			}
			doc.underLoad(t, d.runPlace(t, flags, ""), c, len(cpus))
		})
	}
}

func (doc *toolsDoc) underLoad(t *testing.T, p place, c loadCase, cpus int) {
	doc.places++
	// The container goes before the machine's other work, so that it gets what the table says, and is not merely shown right.
	cgroupWrite(t, p.init, "cpu", "cpu.shares", "cpu.weight", "10000")
	// The task steps back for the tools beside it: none of them is to wait for its turn. The cgroup does not count that as nice.
	if o := p.sh("nice -n 19 sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &"); o.status != 0 {
		t.Fatal(o)
	}
	time.Sleep(100 * time.Millisecond)
	meter := startMeter(t, p.init)
	var all sync.WaitGroup
	for _, tool := range loadTools {
		all.Go(func() {
			begin := time.Now()
			o := p.sh(tool.script)
			end := time.Now()
			if complains(t, tool.name, o) {
				return
			}
			shares, err := tool.shares(o.out)
			if err != nil {
				t.Errorf("%s: %v in\n%s", tool.name, err, o.out)
				return
			}
			time.Sleep(3 * around)
			used, stolen := meter.between(begin.Add(-around), end.Add(around))
			doc.note(t, doc.loaded, tool.name, c.column, tool.check(t, shares, cpus, c.quota > 0, used, stolen))
			t.Logf("%s: %.1f; used %.1f, throttled %.1f", tool.name, shares, used, stolen)
		})
	}
	all.Wait()
	own, _ := p.truth(t)
	n, _, err := exactly(loads, 1)(p.sh("uptime").out)
	own2, _ := p.truth(t)
	if s := spanOf(own["load"], own2["load"]); err != nil || n <= 0 || n < s.least || n > s.most {
		t.Errorf("uptime has the load %v, not %v: %v", n, s, err)
	}
}

// check compares shares with what was used and stolen, in per cent of one CPU, and gives what the tool is to be said to show.
func (tool loadTool) check(t *testing.T, shares []share, cpus int, quota bool, used, stolen span) string {
	t.Helper()
	const off = 5 // per cent: time is counted by ticks of 10 ms, and stolen time in pieces of up to 50
	if len(shares) != cpus && len(shares) != 1 {
		t.Errorf("%s: %d CPUs of %d", tool.name, len(shares), cpus)
	}
	var sum share
	for _, s := range shares {
		if top := s.busy + max(s.steal, 0) + max(s.idle, 0); top > 102 || s.busy < 0 {
			t.Errorf("%s: more than 100 %%, or less than 0: %v", tool.name, s)
		}
		sum = share{sum.busy + s.busy, sum.steal + s.steal, sum.idle + s.idle}
	}
	n := float64(len(shares))
	busy, steal, idle := sum.busy/n*float64(cpus), sum.steal/n*float64(cpus), sum.idle/n*float64(cpus)
	is := used
	if tool.sees != nil {
		is = span{tool.sees(used.least, stolen.least), tool.sees(used.most, stolen.most)}
	}
	if busy < is.least-off || busy > is.most+off {
		t.Errorf("%s: %.1f %% of a CPU busy, not from %.1f to %.1f", tool.name, busy, is.least, is.most)
	}
	if steal >= 0 && (steal < stolen.least-off || steal > stolen.most+off) {
		t.Errorf("%s: %.1f %% of a CPU stolen, not from %.1f to %.1f", tool.name, steal, stolen.least, stolen.most)
	}
	if least := float64(cpus)*100 - is.most - stolen.most; idle >= 0 && idle < least-off {
		t.Errorf("%s: %.1f %% of a CPU idle, not at least %.1f", tool.name, idle, least)
	}
	return tool.says(shares, cpus, quota)
}

// says puts what was found right into the table's words.
func (tool loadTool) says(shares []share, cpus int, quota bool) string {
	switch {
	case cpus > 1 && len(shares) == 1:
		return fmt.Sprintf("%d %% busy", 100/cpus)
	case cpus > 1:
		return "100 % busy, of both together"
	case !quota:
		return "100 % busy"
	case shares[0].steal >= 0:
		return "50 % busy, 50 % stolen"
	case tool.sees != nil:
		return fmt.Sprintf("%.0f %% busy", tool.sees(50, 50))
	}
	return "50 % busy, 0 % idle"
}
