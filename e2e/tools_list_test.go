package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// figures are what tools are asked for, in the order of the table's columns.
var figures = []string{"memory", "CPUs", "uptime", "load", "swap"}

// aTool is a program, and how to read in its output what it takes the machine to be.
type aTool struct {
	name   string
	script string
	shows  map[string]figureIn // by figure
	asks   string              // what it asks instead of the files served, and so is told the host's; "": it reads the files
}

// figureIn finds a number in a tool's output, and by how much the true one may be above and below: bytes, seconds or a plain number.
type figureIn func(out string) (n, step float64, err error)

// numberIn is what the only group of a pattern matches the first time, times unit. What is below its last digit is cut off or rounded.
func numberIn(pattern string, unit float64) figureIn {
	re := regexp.MustCompile(pattern)
	return func(out string) (float64, float64, error) {
		m := re.FindStringSubmatch(out)
		if m == nil {
			return 0, 0, fmt.Errorf("nothing matches %q", pattern)
		}
		n, err := strconv.ParseFloat(m[1], 64)
		step := unit
		if _, digits, ok := strings.Cut(m[1], "."); ok {
			for range digits {
				step /= 10
			}
		}
		return n * unit, step, err
	}
}

// exactly is a number that is not rounded.
func exactly(pattern string, unit float64) figureIn {
	read := numberIn(pattern, unit)
	return func(out string) (float64, float64, error) {
		n, _, err := read(out)
		return n, 0, err
	}
}

// count is how often a pattern matches.
func count(pattern string) figureIn {
	re := regexp.MustCompile("(?m)" + pattern)
	return func(out string) (float64, float64, error) { return float64(len(re.FindAllString(out, -1))), 0, nil }
}

// summed adds up what the only group of a pattern matches each time; not matching is 0.
func summed(pattern string, unit float64) figureIn {
	re := regexp.MustCompile("(?m)" + pattern)
	return func(out string) (n, _ float64, _ error) {
		for _, m := range re.FindAllStringSubmatch(out, -1) {
			one, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				return 0, 0, err
			}
			n += one * unit
		}
		return n, 0, nil
	}
}

// upFor is what uptime(1) and its like write: "up 56 min", "up  1:02", "up 3 days,  1:02".
var upFor figureIn = func(out string) (float64, float64, error) {
	m := regexp.MustCompile(`up +(?:(\d+) days?, +)?(?:(\d+):(\d\d)|(\d+) min)`).FindStringSubmatch(out)
	if m == nil {
		return 0, 0, fmt.Errorf("no uptime")
	}
	var n float64
	for i, unit := range []float64{86400, 3600, 60, 60} {
		part, _ := strconv.ParseFloat(m[i+1], 64) // one that is not there is 0
		n += part * unit
	}
	return n, 60, nil
}

// clockFor is what htop writes: "Uptime: 00:00:12", "Uptime: 3 days, 01:02:03".
var clockFor figureIn = func(out string) (float64, float64, error) {
	var h, m, s float64
	_, rest, _ := strings.Cut(out, "Uptime: ")
	_, err := fmt.Sscanf(rest, "%2f:%2f:%2f", &h, &m, &s)
	return h*3600 + m*60 + s, 1, err
}

const (
	kilo, mega = 1024., 1024 * 1024.
	loads      = `(?i)load average: +(\d+\.\d\d)`
)

// htopScript has htop show itself on a terminal that tmux keeps, and prints what is on it after so many seconds. Its own status and complaints count.
func htopScript(delay, seconds int) string {
	return fmt.Sprintf(`
export HOME=$(mktemp -d) TERM=screen; export TMUX_TMPDIR=$HOME; cd $HOME
tmux -f /dev/null new-session -d -x 160 -y 50 'htop -d %d 2>errors; echo $? >status.new; mv status.new status'
sleep %d; tmux capture-pane -p; tmux send-keys q
for i in $(seq 600); do [ ! -e status ] || break; sleep 0.1; done
status=$(cat status); cat errors >&2; cd /; rm -r $HOME; exit $status`, delay*10, seconds)
}

// oneBar is a CPU in htop, which numbers several; one that is switched off has the word offline in its place.
const oneBar = `(?:CPU|\b\d+)\[[^]\n]*?(\d+\.\d)%\]`

var tools = []aTool{
	{name: "free", script: "free -b", shows: map[string]figureIn{
		"memory": exactly(`Mem: +(\d+)`, 1), "swap": exactly(`Swap: +(\d+)`, 1)}},
	{name: "top", script: "top -b -1 -n 1 -w 200", shows: map[string]figureIn{
		"memory": numberIn(`MiB Mem : +(\d+\.\d) total`, mega), "CPUs": count(`%Cpu\d+`), "uptime": upFor, "load": exactly(loads, 1),
		"swap": numberIn(`MiB Swap: +(\d+\.\d) total`, mega)}},
	{name: "htop", script: htopScript(1, 3), shows: map[string]figureIn{
		"memory": numberIn(`Mem\[[^]]*/(\d+)M\]`, mega), "CPUs": count(oneBar), "uptime": clockFor, "load": exactly(loads, 1), "swap": htopSwap}},
	{name: "vmstat", script: "vmstat -s && vmstat 1 2 >/dev/null", shows: map[string]figureIn{
		"memory": exactly(`(\d+) K total memory`, kilo), "swap": exactly(`(\d+) K total swap`, kilo)}},
	{name: "uptime", script: "uptime", shows: map[string]figureIn{"uptime": upFor, "load": exactly(loads, 1)}},
	{name: "w", script: "w", shows: map[string]figureIn{"uptime": upFor, "load": exactly(loads, 1)}},
	{name: "lscpu", script: "lscpu -p=cpu && lscpu >/dev/null", shows: map[string]figureIn{"CPUs": count(`^\d+$`)}},
	{name: "mpstat -P ALL", script: "mpstat -P ALL 1 1", shows: map[string]figureIn{"CPUs": count(`^Average: +\d+ `)}},
	{name: "ps", script: "ps ax >/dev/null && ps -o rss=,pmem= -p 1 && date +%s -d \"$(ps -o lstart= -p 1)\" && date +%s", shows: map[string]figureIn{
		"memory": ofWhichShare, "uptime": sinceStart}},
	{name: "swapon -s", script: "swapon -s", shows: map[string]figureIn{"swap": summed(`^\S+\s+\S+\s+(\d+)\s`, kilo)}},
	{name: "busybox top", script: "busybox top -b -n 1", shows: map[string]figureIn{
		"memory": usedAndFree, "load": exactly(loads, 1)}},
	{name: "Node", script: `node -e 'const o = require("os"); console.log("memory", o.totalmem(), "CPUs", o.cpus().length, "up", o.uptime(), "load average:", o.loadavg()[0].toFixed(2))'`,
		shows: map[string]figureIn{"memory": exactly(`memory (\d+)`, 1), "CPUs": exactly(`CPUs (\d+)`, 1), "uptime": numberIn(`up (\d+(?:\.\d\d?)?)`, 1), "load": exactly(loads, 1)}},
	{name: "Python", script: `python3 -c 'import os; print("CPUs", os.cpu_count()); print(*open("/proc/meminfo")); print("up", open("/proc/uptime").read()); print("load average:", open("/proc/loadavg").read())'`,
		shows: map[string]figureIn{"memory": exactly(`MemTotal: +(\d+) kB`, kilo), "CPUs": exactly(`CPUs (\d+)`, 1), "uptime": numberIn(`up (\d+\.\d\d)`, 1),
			"load": exactly(loads, 1), "swap": exactly(`SwapTotal: +(\d+) kB`, kilo)}},
	{name: "getconf _NPROCESSORS_ONLN", script: "getconf _NPROCESSORS_ONLN", shows: map[string]figureIn{"CPUs": exactly(`(\d+)`, 1)}},

	{name: "`mpstat`, `iostat`: the heading", script: "mpstat && iostat -c && iostat -d >/dev/null", asks: "the number of directories `cpuN`",
		shows: map[string]figureIn{"CPUs": exactly(`\((\d+) CPU\)`, 1)}},
	{name: "`nproc`", script: "nproc", asks: "`sched_getaffinity`", shows: map[string]figureIn{"CPUs": exactly(`(\d+)`, 1)}},
	{name: "musl, `sysconf(_SC_NPROCESSORS_ONLN)`", script: muslCPUs, asks: "`sched_getaffinity`", shows: map[string]figureIn{"CPUs": exactly(`(\d+)`, 1)}},
	{name: "Python, `os.sched_getaffinity`", script: `python3 -c 'import os; print(len(os.sched_getaffinity(0)))'`, asks: "`sched_getaffinity`",
		shows: map[string]figureIn{"CPUs": exactly(`(\d+)`, 1)}},
	{name: "`busybox free`", script: "busybox free", asks: "`sysinfo`", shows: map[string]figureIn{
		"memory": exactly(`Mem: +(\d+)`, kilo), "swap": exactly(`Swap: +(\d+)`, kilo)}},
	{name: "`busybox uptime`", script: "busybox uptime", asks: "`sysinfo`", shows: map[string]figureIn{"uptime": upFor, "load": exactly(loads, 1)}},
	{name: "glibc, `getloadavg` (Python's `os.getloadavg`)", script: `python3 -c 'import os; print("load average: %.2f" % os.getloadavg()[0])'`, asks: "`sysinfo`",
		shows: map[string]figureIn{"load": numberIn(loads, 1)}},
	{name: "`getconf _PHYS_PAGES`", script: "echo $(getconf _PHYS_PAGES) $(getconf PAGE_SIZE)", asks: "`sysinfo`", shows: map[string]figureIn{"memory": product}},
}

// muslCPUs is what the container's own /musl, or where there is none the file that the test made, prints.
const muslCPUs = "$MUSL"

// twoNumbers are the first two in a text.
func twoNumbers(out string) (a, b float64, err error) {
	n, err := fmt.Sscan(out, &a, &b)
	if n != 2 {
		return 0, 0, fmt.Errorf("two numbers: %w", err)
	}
	return a, b, nil
}

var product figureIn = func(out string) (float64, float64, error) {
	a, b, err := twoNumbers(out)
	return a * b, 0, err
}

// ofWhichShare works the total out of kilobytes and the per cent that ps says they are, cut off or rounded to one digit.
var ofWhichShare figureIn = func(out string) (float64, float64, error) {
	rss, percent, err := twoNumbers(out)
	if err != nil || percent <= 0.1 {
		return 0, 0, fmt.Errorf("%v kB are %v %%: %v", rss, percent, err)
	}
	total := rss * kilo / percent * 100
	return total, rss*kilo/(percent-0.1)*100 - total, nil
}

// sinceStart is how long ago pid 1 was started: the last two lines are seconds.
var sinceStart figureIn = func(out string) (float64, float64, error) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	start, now, err := twoNumbers(strings.Join(lines[max(0, len(lines)-2):], " "))
	return now - start, 2, err
}

// usedAndFree adds up the two that busybox top says.
var usedAndFree figureIn = func(out string) (float64, float64, error) {
	var used, free float64
	_, rest, _ := strings.Cut(out, "Mem: ")
	if _, err := fmt.Sscanf(rest, "%fK used, %fK free", &used, &free); err != nil {
		return 0, 0, err
	}
	return (used + free) * kilo, 0, nil
}

// htopSwap is its bar's total, in the unit that fits: "0K/0K", "1.2M/128M", "0K/1.00G".
var htopSwap figureIn = func(out string) (float64, float64, error) {
	m := regexp.MustCompile(`Swp\[[^]]*/(\d+(?:\.\d+)?)([KMG])\]`).FindStringSubmatch(out)
	if m == nil {
		return 0, 0, fmt.Errorf("no bar of swap")
	}
	return numberIn(`(.*)`, map[string]float64{"K": kilo, "M": mega, "G": 1024 * mega}[m[2]])(m[1])
}
