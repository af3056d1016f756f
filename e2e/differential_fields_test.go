//go:build differential

package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lensfs/docs"
	"testing"
)

// texts are the files of a tree, by name.
type texts map[string]string

var comparedFiles = []string{"proc/cpuinfo", "proc/meminfo", "proc/stat", "proc/uptime", "proc/diskstats", "proc/swaps", "proc/loadavg", "proc/slabinfo",
	"sys/devices/system/cpu/online", "proc", "sys/devices/system/cpu"}

// readCompared gives a text, or a directory's names with their modes.
func readCompared(tree, name string) string {
	path := filepath.Join(tree, name)
	text, err := os.ReadFile(path)
	if err == nil {
		return string(text)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err.Error()
	}
	var s strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&s, "%s %s\n", e.Name(), info.Mode())
	}
	return s.String()
}

// fields takes a text apart: "meminfo.MemFree", "stat.cpu.user". A field that is there more than once has all its values.
func fields(name, text string) map[string]string {
	base, m := filepath.Base(name), map[string]string{}
	add := func(key, value string) {
		key = base + "." + key
		m[key] = strings.TrimSpace(m[key] + " " + value)
	}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch base {
		case "meminfo", "cpuinfo":
			key, value, _ := strings.Cut(line, ":")
			add(strings.TrimSpace(key), strings.TrimSpace(strings.TrimSuffix(value, " kB")))
		case "stat":
			if strings.HasPrefix(f[0], "cpu") {
				if f[0] != "cpu" {
					add("cpus", f[0])
				}
				for j, v := range f[1:] {
					add(f[0]+"."+[]string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"}[min(j, 9)], v)
				}
			} else {
				add(f[0], f[1])
				if len(f) > 2 {
					add(f[0]+" each", strings.Join(f[2:], " "))
				}
			}
		case "uptime", "loadavg":
			names := map[string][]string{"uptime": {"age", "idle"}, "loadavg": {"1", "5", "15", "tasks", "last pid"}}[base]
			for j, v := range f {
				add(names[min(j, len(names)-1)], v)
			}
		case "diskstats":
			add("devices", f[min(2, len(f)-1)])
		case "swaps":
			add([]string{"header", "line"}[min(i, 1)], line)
		case "slabinfo":
			add([]string{"header", "caches"}[min(i/2, 1)], f[0])
		default:
			add(f[0], strings.Join(f[1:], " "))
		}
	}
	return m
}

// tolerance is what a number may be off, outside of what LXCFS showed before and after: the kernel counts a CPU's pages in batches (kB), clocks tick,
// and LXCFS takes its samples of the load at another moment, with up to three tasks running.
func tolerance(key string) float64 {
	switch {
	case strings.HasPrefix(key, "meminfo."):
		return 1024
	case strings.HasPrefix(key, "stat.cpu"):
		return 3
	case key == "uptime.age":
		return 0.03
	case key == "loadavg.1":
		return 0.5
	case key == "loadavg.5":
		return 0.1
	case key == "loadavg.15":
		return 0.04
	}
	return 0
}

type found struct{ key, lxcfs, lensfs string }

// differing gives the fields that differ in every round: what only time explains, goes away.
func differing(rounds [][3]texts) []found {
	count, last := map[string]int{}, map[string]found{}
	for _, r := range rounds {
		for _, name := range comparedFiles {
			before, ours, after := fields(name, r[0][name]), fields(name, r[1][name]), fields(name, r[2][name])
			keys := map[string]bool{}
			for _, m := range []map[string]string{before, ours, after} {
				for key := range m {
					keys[key] = true
				}
			}
			for key := range keys {
				if !between(before[key], ours[key], after[key], tolerance(key)) {
					count[key]++
					last[key] = found{key, before[key], ours[key]}
				}
			}
		}
	}
	var all []found
	for key, n := range count {
		if n == len(rounds) {
			all = append(all, last[key])
		}
	}
	slices.SortFunc(all, func(a, b found) int { return strings.Compare(a.key, b.key) })
	return all
}

func between(before, ours, after string, slack float64) bool {
	if ours == before || ours == after {
		return true
	}
	a, err1 := strconv.ParseFloat(before, 64)
	b, err2 := strconv.ParseFloat(ours, 64)
	c, err3 := strconv.ParseFloat(after, 64)
	return err1 == nil && err2 == nil && err3 == nil && b >= math.Min(a, c)-slack && b <= math.Max(a, c)+slack
}

// difference is a row of the table.
type difference struct {
	key  string
	when []string
	used bool
}

// knownDifferences reads the table: rows whose first cell is a key in code quotes.
func knownDifferences(t *testing.T) []*difference {
	t.Helper()
	var rows []*difference
	for line := range strings.Lines(docs.Differences) {
		cell := strings.Split(line, "|")
		if len(cell) != 7 || !strings.HasPrefix(cell[1], " `") {
			continue
		}
		for key := range strings.SplitSeq(cell[1], ",") {
			d := &difference{key: strings.Trim(key, " `")}
			for when := range strings.SplitSeq(cell[2], ",") {
				if when = strings.TrimSpace(when); when != "" {
					d.when = append(d.when, when)
				}
			}
			rows = append(rows, d)
		}
	}
	if len(rows) < 10 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	return rows
}

func explain(table []*difference, f found, conditions []string) error {
	known := false
	for _, d := range table {
		match, _ := filepath.Match(d.key, f.key)
		for _, when := range d.when {
			match = match && slices.Contains(conditions, when)
		}
		d.used, known = d.used || match, known || match
	}
	if known {
		return nil
	}
	return fmt.Errorf("%s: LXCFS %.200q, lensfs %.200q: no row of docs/differences.md explains this", f.key, f.lxcfs, f.lensfs)
}
