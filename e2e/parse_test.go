package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// readView reads a file as a container sees it beneath root. A text in an own view, which root "/" stands for, may have blank lines behind it for a
// second or two after it became shorter; they are taken off.
func readView(root, name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil || root != "/" {
		return string(text), err
	}
	return trimBlank(string(text)), nil
}

func trimBlank(text string) string {
	short := strings.TrimRight(text, "\n")
	return text[:min(len(text), len(short)+1)]
}

var meminfoLine = regexp.MustCompile(`^([A-Za-z0-9_()]+): +([0-9]+)( kB)?$`)

// ofTheHost are the lines of meminfo that no cgroup limits.
var ofTheHost = regexp.MustCompile(`^(CommitLimit|Committed_AS|Vmalloc.*|DirectMap.*|Huge.*|Hugetlb|Cma.*|Percpu|HardwareCorrupted|Swap.*|Zswapped)$`)

// parseMeminfo reads all of a meminfo, and refuses one that contradicts itself.
func parseMeminfo(text string) (map[string]uint64, error) {
	m := map[string]uint64{}
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("meminfo is cut short: %q", text)
	}
	for line := range strings.Lines(text) {
		part := meminfoLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if part == nil {
			return nil, fmt.Errorf("meminfo has a line %q", line)
		}
		if _, ok := m[part[1]]; ok {
			return nil, fmt.Errorf("meminfo has %s twice", part[1])
		}
		n, err := strconv.ParseUint(part[2], 10, 50) // more is an underflow
		if err != nil {
			return nil, err
		}
		m[part[1]] = n
	}
	for _, name := range []string{"MemTotal", "MemFree", "MemAvailable", "Cached", "SwapTotal", "SwapFree"} {
		if _, ok := m[name]; !ok {
			return nil, fmt.Errorf("meminfo has no %s:\n%s", name, text)
		}
	}
	for name, n := range m {
		if !ofTheHost.MatchString(name) && n > m["MemTotal"] {
			return nil, fmt.Errorf("%s is %d, of a total of %d", name, n, m["MemTotal"])
		}
	}
	if m["SwapFree"] > m["SwapTotal"] {
		return nil, fmt.Errorf("swap: %d free of %d", m["SwapFree"], m["SwapTotal"])
	}
	return m, nil
}

// parseCpuinfo gives the CPUs that a cpuinfo has, and refuses one that counts its threads and cores wrongly.
func parseCpuinfo(text string) ([]int, error) {
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("cpuinfo is cut short: …%q", text[max(0, len(text)-80):])
	}
	var cpus []int
	var blocks []map[string]string
	threads, cores := map[string]int{}, map[string]map[string]bool{} // by package
	for _, block := range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		b := map[string]string{}
		for line := range strings.Lines(block) {
			key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			if !ok {
				return nil, fmt.Errorf("cpuinfo has a line %q", line)
			}
			b[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
		number, ok := b["processor"]
		if !ok {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, err
		}
		cpus, blocks = append(cpus, n), append(blocks, b)
		pkg := b["physical id"]
		threads[pkg]++
		if cores[pkg] == nil {
			cores[pkg] = map[string]bool{}
		}
		cores[pkg][b["core id"]] = true
	}
	for i, b := range blocks {
		pkg := b["physical id"]
		if s, ok := b["siblings"]; ok && s != strconv.Itoa(threads[pkg]) {
			return nil, fmt.Errorf("CPU %d has %s siblings, of %d shown", cpus[i], s, threads[pkg])
		}
		if s, ok := b["cpu cores"]; ok && s != strconv.Itoa(len(cores[pkg])) {
			return nil, fmt.Errorf("CPU %d has %s cores, of %d shown", cpus[i], s, len(cores[pkg]))
		}
	}
	return cpus, nil
}

var uptimeText = regexp.MustCompile(`^([0-9]+\.[0-9]{2}) ([0-9]+\.[0-9]{2})\n$`)

// parseUptime gives both numbers of an uptime.
func parseUptime(text string) (up, idle float64, err error) {
	part := uptimeText.FindStringSubmatch(text)
	if part == nil {
		return 0, 0, fmt.Errorf("uptime is %q", text)
	}
	up, _ = strconv.ParseFloat(part[1], 64)
	idle, _ = strconv.ParseFloat(part[2], 64)
	return up, idle, nil
}

// parseList reads the kernel's list format, as in "0-2,5".
func parseList(text string) ([]int, error) {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		first, err1 := strconv.Atoi(lo)
		last, err2 := strconv.Atoi(hi)
		if err1 != nil || err2 != nil || first > last {
			return nil, fmt.Errorf("no list of CPUs: %q", text)
		}
		for n := first; n <= last; n++ {
			list = append(list, n)
		}
	}
	if !slices.IsSorted(list) {
		return nil, fmt.Errorf("not in order: %q", text)
	}
	return list, nil
}

// list writes CPU numbers for a command line.
func list(cpus []int) string {
	var s []string
	for _, n := range cpus {
		s = append(s, strconv.Itoa(n))
	}
	return strings.Join(s, ",")
}
