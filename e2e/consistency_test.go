package e2e

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
)

// wholeMachine prints all that says how many CPUs and how much memory there are, and how idle it is, in sections.
const wholeMachine = `
say() { echo "@$1"; shift; "$@"; }
export LC_ALL=C
say stat0 cat /proc/stat
say uptime cat /proc/uptime
say stat cat /proc/stat
say cpuinfo cat /proc/cpuinfo
say meminfo cat /proc/meminfo
say free free -k
say swaps cat /proc/swaps
say online cat /sys/devices/system/cpu/online
say switches sh -c 'for d in /sys/devices/system/cpu/cpu[0-9]*; do if [ -e $d/online ]; then echo "${d##*/cpu} $(cat $d/online)"; else echo "${d##*/cpu} -"; fi; done'
say lscpu lscpu --parse=CPU --online
say getconf getconf _NPROCESSORS_ONLN
say python python3 -c 'import os; print(os.cpu_count())'
`

// sections gives what a script wrote behind each "@name".
func sections(text string) map[string]string {
	all := map[string]string{}
	for _, part := range strings.Split("\n"+text, "\n@")[1:] {
		name, body, _ := strings.Cut(part, "\n")
		all[name] = trimBlank(body + "\n")
	}
	return all
}

// All files, and the tools and libraries that read them, tell of one machine.
func TestOneConsistentMachine(t *testing.T) {
	needRoot(t)
	needCommand(t, "lscpu", "getconf", "free", "python3")
	d := serve(t)
	host := hostCPUs(t)
	last := host[len(host)-1:]
	for _, s := range []struct {
		flags []string
		cpus  []int
	}{
		{nil, host},
		{[]string{"--cpuset", list(last)}, last},
		{[]string{"--cpus", "0.5"}, host[:1]},
		{[]string{"--cpus", "1.5"}, host[:min(2, len(host))]},
		{[]string{"--cpus", "0.5", "--cpuset", list(last), "--memory", "256M"}, last},
		{[]string{"--memory", "256M"}, host},
	} {
		for name, mount := range d.bothMounts() {
			t.Run(strings.Join(append(s.flags, name), " "), func(t *testing.T) {
				says := sections(d.run(append(mount, s.flags...), "sh", "-c", wholeMachine))
				checkCPUs(t, says, s.cpus)
				checkMemory(t, says)
				checkIdle(t, says)
			})
		}
	}
}

// checkCPUs compares the CPUs of every source with those wanted.
func checkCPUs(t *testing.T, says map[string]string, want []int) {
	t.Helper()
	got := map[string]string{}
	info, err := parseCpuinfo(says["cpuinfo"])
	if err != nil {
		t.Error(err)
	}
	got["cpuinfo"] = list(info)
	got["stat"] = list(statCPUs(t, says["stat"]).numbers)
	online, err := parseList(strings.TrimSpace(says["online"]))
	if err != nil {
		t.Error(err)
	}
	got["online"] = list(online)
	var lscpu []string
	for line := range strings.Lines(says["lscpu"]) {
		if !strings.HasPrefix(line, "#") {
			lscpu = append(lscpu, strings.TrimSpace(line))
		}
	}
	got["lscpu"] = strings.Join(lscpu, ",")
	for from, cpus := range got {
		if cpus != list(want) {
			t.Errorf("%s has the CPUs %s, not %s", from, cpus, list(want))
		}
	}
	for _, from := range []string{"getconf", "python"} {
		if n := strings.TrimSpace(says[from]); n != strconv.Itoa(len(want)) {
			t.Errorf("%s says %s CPUs, not %d", from, n, len(want))
		}
	}
	// The first CPU may have no switch, or none of them.
	shown := map[string]bool{}
	for _, n := range want {
		shown[strconv.Itoa(n)] = true
	}
	for line := range strings.Lines(says["switches"]) {
		cpu, on, _ := strings.Cut(strings.TrimSpace(line), " ")
		if on != "-" && (on == "1") != shown[cpu] {
			t.Errorf("cpu%s/online is %s; shown are %v", cpu, on, want)
		}
	}
	if strings.Count(says["switches"], "\n") < len(want) {
		t.Errorf("directories of CPUs: %q", says["switches"])
	}
}

// checkMemory compares the totals of meminfo, free and swaps.
func checkMemory(t *testing.T, says map[string]string) {
	t.Helper()
	m, err := parseMeminfo(says["meminfo"])
	if err != nil {
		t.Fatal(err)
	}
	free := map[string]string{}
	for line := range strings.Lines(says["free"]) {
		if f := strings.Fields(line); strings.HasSuffix(f[0], ":") {
			free[f[0]] = f[1]
		}
	}
	for line, name := range map[string]string{"Mem:": "MemTotal", "Swap:": "SwapTotal"} {
		if free[line] != strconv.FormatUint(m[name], 10) {
			t.Errorf("free has a total of %q, meminfo's %s is %d", free[line], name, m[name])
		}
	}
	swaps := strings.SplitAfter(strings.TrimSpace(says["swaps"])+"\n", "\n")
	if !strings.HasPrefix(swaps[0], "Filename\t") {
		t.Errorf("swaps: %q", says["swaps"])
	}
	var sum uint64
	for _, line := range swaps[1:] {
		if f := strings.Fields(line); len(f) == 5 {
			n, err := strconv.ParseUint(f[2], 10, 50)
			if err != nil {
				t.Error(err)
			}
			sum += n
		} else if len(f) > 0 {
			t.Errorf("swaps has a line %q", line)
		}
	}
	if sum != m["SwapTotal"] {
		t.Errorf("swaps has %d kB, meminfo's SwapTotal is %d", sum, m["SwapTotal"])
	}
}

// checkIdle looks whether uptime's idle time lies between those of stat just before and just after it, give or take two ticks.
func checkIdle(t *testing.T, says map[string]string) {
	t.Helper()
	_, idle, err := parseUptime(says["uptime"])
	if err != nil {
		t.Fatal(err)
	}
	before, after := statCPUs(t, says["stat0"]).all["idle"], statCPUs(t, says["stat"]).all["idle"]
	if ticks := int64(math.Round(idle * userHZ)); ticks < before-2 || ticks > after+2 {
		t.Errorf("uptime: idle for %v; stat: %d before and %d after", idle, before, after)
	}
}

// statTimes is what the cpu lines of a stat say.
type statTimes struct {
	all     map[string]int64 // of the line of all CPUs, in ticks, by column
	numbers []int            // of the CPUs that have a line
}

// userHZ is how many ticks /proc/stat counts a second.
const userHZ = 100

// statCPUs reads them, and checks that the line of all CPUs is the sum of those of each.
func statCPUs(t *testing.T, text string) statTimes {
	t.Helper()
	s, err := parseStat(text)
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return s
}

func parseStat(text string) (statTimes, error) {
	columns := []string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"}
	s, sum := statTimes{all: map[string]int64{}}, map[string]int64{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		into := sum
		if f[0] == "cpu" {
			into = s.all
		} else {
			n, err := strconv.Atoi(f[0][3:])
			if err != nil {
				return s, err
			}
			s.numbers = append(s.numbers, n)
		}
		if len(f) != 1+len(columns) {
			return s, fmt.Errorf("%d columns in %q", len(f), line)
		}
		for i, column := range columns {
			n, err := strconv.ParseInt(f[i+1], 10, 64)
			if err != nil || n < 0 {
				return s, fmt.Errorf("%s in %q: %v", column, line, err)
			}
			into[column] += n
		}
	}
	// Each line is rounded down for itself.
	for _, column := range columns {
		if off := s.all[column] - sum[column]; off < 0 || off > int64(len(s.numbers)) {
			return s, fmt.Errorf("the %s of all CPUs is %d, of each together %d", column, s.all[column], sum[column])
		}
	}
	return s, nil
}
