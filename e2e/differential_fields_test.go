package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

var (
	comparedFiles = []string{"proc/cpuinfo", "proc/meminfo", "proc/stat", "proc/uptime", "proc/diskstats", "proc/swaps", "proc/loadavg", "proc/slabinfo",
		"sys/devices/system/cpu/online"}
	comparedDirs = []string{"proc", "sys/devices/system/cpu"}
)

// beside names what else is read before and after some of these files, to say what lensfs ought to show where LXCFS is no witness. The first part is
// the tree, or what the test calls a directory of the kernel's.
var beside = map[string][]string{
	"proc/meminfo": {"host/meminfo", "memory/memory.stat"},
	"proc/swaps":   {"host/swaps"},
	"proc/stat":    {"cpu/cpu.stat", "above/cpu.stat", "cpuacct/cpuacct.usage", "lxcfs/proc/uptime"},
	"proc/uptime":  {"lensfs/proc/stat"},
	"proc/loadavg": {"tasks"},
}

// readCompared gives a text, or a directory's names with their modes.
func readCompared(path string) string {
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

// columns is how many words a line has at the least, where more than one is needed.
var columns = map[string]int{"stat": 2, "uptime": 2, "loadavg": 5, "diskstats": 14}

// fields takes a text apart: "meminfo.MemFree", "stat.cpu.user". A field that is there more than once, as one of each CPU, has a line for each value.
func fields(name, text string) map[string]string {
	base, m := filepath.Base(name), map[string]string{}
	add := func(key, value string) {
		key = base + "." + key
		if before, ok := m[key]; ok {
			value = before + "\n" + value
		}
		m[key] = value
	}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < columns[base] { // an error's text
			add("error", line)
			continue
		}
		switch base {
		case "meminfo", "cpuinfo":
			key, value, _ := strings.Cut(line, ":")
			add(strings.TrimSpace(key), strings.TrimSpace(strings.TrimSuffix(value, " kB")))
		case "stat":
			addStat(add, f)
		case "uptime":
			add("age", f[0])
			add("idle", f[1])
		case "loadavg":
			running, tasks, _ := strings.Cut(f[3], "/")
			for j, value := range []string{f[0], f[1], f[2], running, tasks, f[4]} {
				add([]string{"1", "5", "15", "running", "tasks", "last pid"}[j], value)
			}
		case "diskstats":
			add("devices", f[2])
			add("sectors", strings.Join([]string{f[2], f[5], f[9]}, " "))
		case "swaps":
			if i == 0 {
				add("header", line)
				continue
			}
			for j, value := range f {
				add([]string{"Filename", "Type", "Size", "Used", "Priority", "more"}[min(j, 5)], value)
			}
		case "slabinfo":
			add([]string{"header", "caches"}[min(i/2, 1)], f[0])
		case "online":
			cpus, err := parseList(line)
			if err != nil {
				add("error", err.Error())
			}
			for _, n := range cpus {
				add("cpus", strconv.Itoa(n))
			}
		case "memory.stat", "cpu.stat":
			add(f[0], f[len(f)-1])
		case "cpuacct.usage", "tasks":
			add("", line)
		default:
			add(f[0], strings.Join(f[1:], " "))
		}
	}
	return m
}

var statColumns = []string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"}

func addStat(add func(key, value string), f []string) {
	number, cpu := strings.CutPrefix(f[0], "cpu")
	if !cpu {
		add(f[0], f[1])
		if len(f) > 2 {
			add(f[0]+" each", strings.Join(f[2:], " "))
		}
		return
	}
	key := "cpu."
	if number != "" {
		key = "each."
		add("cpus", number)
	}
	for i, value := range f[1:] {
		add(key+statColumns[min(i, len(statColumns)-1)], value)
	}
}

// tolerance is what a number may be off, outside of what was read before and after, in a container that is so many seconds old.
func tolerance(key string, spinners int, age float64) float64 {
	switch {
	case strings.HasPrefix(key, "meminfo."):
		return 1024 // kB: the kernel counts a CPU's pages in batches
	case strings.HasPrefix(key, "stat.cpu."), strings.HasPrefix(key, "stat.each."):
		return 3 // ticks: one is how old a text may be, and each of two is rounded
	case key == "uptime.age":
		return 0.03
	case strings.HasPrefix(key, "loadavg."):
		// Both look each 5 s, at other moments: one may be a look ahead, and LXCFS's next may be late. A look moves the load by this part of the
		// tasks that run. The one that reads waits for either as often as not: each of its looks may have been seen by one of them alone.
		// LXCFS adds half a hundredth.
		look := map[string]float64{"loadavg.1": 1 - 1884./2048, "loadavg.5": 1 - 2014./2048, "loadavg.15": 1 - 2037./2048}[key]
		if look > 0 {
			return 2*look*float64(spinners) + 1 - math.Pow(1-look, age/5+2) + 0.015
		}
	}
	return 0
}

// between says whether ours is one of the two, or a number between them; of several, as those of each CPU, whether each is.
func between(before, ours, after string, slack float64) bool {
	if ours == before || ours == after {
		return true
	}
	a, b, c := numbers(before), numbers(ours), numbers(after)
	if len(b) == 0 || len(a) != len(b) || len(b) != len(c) {
		return false
	}
	for i := range b {
		if !(b[i] >= min(a[i], c[i])-slack && b[i] <= max(a[i], c[i])+slack) {
			return false
		}
	}
	return true
}

// numbers reads a field; nil where any of its values is no number.
func numbers(field string) []float64 {
	var all []float64
	for value := range strings.SplitSeq(field, "\n") {
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(n) {
			return nil
		}
		all = append(all, n)
	}
	return all
}

func sum(field string) float64 {
	var s float64
	for _, n := range numbers(field) {
		s += n
	}
	return s
}

// numbered is 0 to n-1, a line each.
func numbered(n int) string {
	var all []int
	for i := range n {
		all = append(all, i)
	}
	return lines(all)
}

func lines(cpus []int) string { return strings.ReplaceAll(list(cpus), ",", "\n") }

// firstOf gives the first n of a field's values.
func firstOf(field string, n int) string {
	values := strings.Split(field, "\n")
	return strings.Join(values[:min(n, len(values))], "\n")
}

func sortedKeys(maps ...map[string]string) []string {
	var keys []string
	for _, m := range maps {
		for key := range m {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
