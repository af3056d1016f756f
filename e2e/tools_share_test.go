package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// share is what a tool says of one CPU, or of all together, in per cent. What it does not say is -1.
type share struct{ busy, steal, idle float64 }

// loadTool looks at the machine for interval seconds, and shares reads what it saw in that time.
type loadTool struct {
	name, script string
	shares       func(out string) ([]share, error)
	sees         func(used, stolen float64) float64 // what it takes for busy, if that is not what was used
}

// interval is how long they look, in seconds: as long as people have them do.
const interval = 2

// around is how far what a tool saw may lie outside of the time in which it ran: views are of one tick, and the meter reads every other.
const around = 100 * time.Millisecond

var loadTools = []loadTool{
	{name: "top", script: fmt.Sprintf("top -b -1 -d %d -n 2 -w 200", interval), shares: func(out string) ([]share, error) {
		_, last, _ := cutLast(out, "top - ")
		return eachShare(last, `%Cpu\d+ *: *`+strings.Repeat(`([\d.]+) \w\w,? *`, 8), []int{0, 1, 2, 4, 5, 6}, 7, 3)
	}},
	{name: "htop", script: htopScript(interval, 2*interval+1), shares: func(out string) ([]share, error) { return eachShare(out, oneBar, []int{0}, -1, -1) },
		sees: func(used, stolen float64) float64 { return used + stolen }}, // its bars have the stolen time in them
	{name: "vmstat", script: fmt.Sprintf("vmstat %d 2", interval), shares: func(out string) ([]share, error) { return sharesIn(out, "us", "sy", "wa", "st", "id") }},
	{name: "mpstat -P ALL", script: fmt.Sprintf("mpstat -P ALL %d 1", interval), shares: func(out string) ([]share, error) {
		_, last, _ := strings.Cut(out, "Average: ")
		last = regexp.MustCompile(`(?m)^(Average:)? +(CPU|all|\d+) `).ReplaceAllString(last, "")
		lines := strings.SplitAfter(last, "\n")
		var all []share
		for _, line := range lines[min(2, len(lines)):] { // behind the names and the line of all
			if strings.TrimSpace(line) != "" {
				s, err := sharesIn(lines[0]+line, "%usr", "%nice", "%sys", "%irq", "%soft", "%iowait", "%steal", "%idle")
				if err != nil {
					return nil, err
				}
				all = append(all, s...)
			}
		}
		return all, nil
	}},
	{name: "iostat -c", script: fmt.Sprintf("iostat -c %d 2", interval), shares: func(out string) ([]share, error) {
		_, last, _ := cutLast(out, "avg-cpu:")
		return sharesIn(strings.TrimSpace(last), "%user", "%nice", "%system", "%iowait", "%steal", "%idle")
	}},
	{name: "busybox top", script: fmt.Sprintf("busybox top -b -d %d -n 2", interval), shares: func(out string) ([]share, error) {
		_, last, _ := cutLast(out, "CPU: ")
		return eachShare("CPU: "+last, `CPU: *`+strings.Repeat(`(\d+)% \w+ *`, 7), []int{0, 1, 2, 4, 5, 6}, -1, 3)
	}},
	{name: "Node", script: fmt.Sprintf(`node -e '
const os = require("os"), before = os.cpus();
setTimeout(() => os.cpus().forEach((cpu, i) => {
	const grew = {};
	for (const k in cpu.times) grew[k] = cpu.times[k] - before[i].times[k];
	if (Math.min(...Object.values(grew)) < 0) throw new Error("less than before: " + JSON.stringify(grew));
	const all = Object.values(grew).reduce((a, b) => a + b);
	console.log("CPU", ((all - grew.idle) / all * 100).toFixed(1), (grew.idle / all * 100).toFixed(1));
}), %d)'`, interval*1000), shares: func(out string) ([]share, error) { return eachShare(out, `CPU ([\d.]+) ([\d.]+)`, []int{0}, -1, 1) },
		sees: func(used, stolen float64) float64 { return used / (100 - stolen) * 100 }}, // it is not told of stolen time
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// eachShare reads a share wherever the pattern matches: its groups are per cents, some of which add up to what is busy.
func eachShare(out, pattern string, busy []int, steal, idle int) ([]share, error) {
	var all []share
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(out, -1) {
		s := share{0, -1, -1}
		for i, text := range m[1:] {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, err
			}
			switch {
			case slices.Contains(busy, i):
				s.busy += n
			case i == steal:
				s.steal = n
			case i == idle:
				s.idle = n
			}
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("nothing matches %s", pattern)
	}
	return all, nil
}

// sharesIn reads a share from the last line, by the names above it: the last is what is idle, the one before stolen.
func sharesIn(out string, names ...string) ([]share, error) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	values := strings.Fields(lines[len(lines)-1])
	var header []string
	for _, line := range lines[:len(lines)-1] {
		if f := strings.Fields(line); slices.Contains(f, names[0]) {
			header = f
		}
	}
	if len(header) != len(values) {
		return nil, fmt.Errorf("the columns %q have the values %q", header, values)
	}
	s := share{}
	for i, name := range names {
		at := slices.Index(header, name)
		if at < 0 {
			return nil, fmt.Errorf("no column %s among %q", name, header)
		}
		n, err := strconv.ParseFloat(values[at], 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s is %q", name, values[at])
		}
		switch i {
		case len(names) - 1:
			s.idle = n
		case len(names) - 2:
			s.steal = n
		default:
			s.busy += n
		}
	}
	return []share{s}, nil
}
