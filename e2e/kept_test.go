package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// cpuLine gives the ticks of the first line of a text of /proc/stat.
func cpuLine(t *testing.T, text string) (ticks []uint64) {
	t.Helper()
	line, _, _ := strings.Cut(text, "\n")
	for _, word := range strings.Fields(line)[1:] {
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		ticks = append(ticks, n)
	}
	return ticks
}

// TestNumbersOutliveTheDaemon kills the daemon and has another one go on. The container's quota was wider before, so its idle time, which is of what
// it was shown in its time, cannot be worked out anew; and it was under load for two samples.
func TestNumbersOutliveTheDaemon(t *testing.T) {
	needRoot(t)
	cpus := hostCPUs(t)
	if len(cpus) < 2 {
		t.Fatal("needs two CPUs")
	}
	dir := tempDir(t)
	d := serveAt(t, dir+"/tree", dir)
	c := d.container(nil, "sh", "-c", "while :; do :; done")
	read := func(file string) string {
		return tool(t, []string{"nsenter", "-t", strconv.Itoa(c.init), "-p", "--", "cat", d.tree + "/proc/" + file})
	}
	load := func() float64 {
		n, err := strconv.ParseFloat(strings.Fields(read("loadavg"))[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	poll(t, 30*time.Second, "the load rises", func() bool { return cpuLine(t, read("stat")) != nil && load() >= 0.15 })
	setCPUs(t, c.init, list(cpus[:1]))
	time.Sleep(50 * time.Millisecond)
	before, loaded := cpuLine(t, read("stat")), load()
	d.kill()
	d = serveAt(t, dir+"/tree", dir)
	after := cpuLine(t, read("stat"))
	for i := range before {
		if after[i] < before[i] {
			t.Errorf("column %d of stat went from %d to %d", i+1, before[i], after[i])
		}
	}
	if idle := before[3]; idle < 300 {
		t.Errorf("%d ticks idle on two CPUs, one of them burnt", idle)
	}
	if now := load(); now < 0.9*loaded {
		t.Errorf("the load average went from %.2f to %.2f", loaded, now)
	}
}
