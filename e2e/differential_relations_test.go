package e2e

import (
	"math"
	"slices"
	"strings"
)

// ofLensfs are the relations that say what lensfs shows, whatever LXCFS does.
var ofLensfs = []string{"lensfs 0", "counted", "a frequency", "adds up", "age less used", "used", "throttled", "idle of stat", "its own", "host's", "memory.stat", "free and files"}

// relations are the words of the table's column "checked": what has to be true of a difference for its row to explain it.
var relations = map[string]func(f *found, d *difference) bool{
	// The two cells are the two values.
	"as written": func(f *found, d *difference) bool { return f.before == d.lxcfs && f.ours == d.lensfs },
	"lensfs 0": func(f *found, _ *difference) bool {
		return f.ours != "" && strings.Trim(strings.ReplaceAll(f.ours, "\n", " "), "0 ") == ""
	},
	"lensfs none": func(f *found, _ *difference) bool { return f.ours == "" && f.before != "" },
	"LXCFS none":  func(f *found, _ *difference) bool { return f.before == "" && f.ours != "" },
	"but for blanks": func(f *found, _ *difference) bool {
		return slices.Equal(strings.Fields(f.before), strings.Fields(f.ours))
	},
	"LXCFS twice": func(f *found, _ *difference) bool { return f.before == f.ours+"\n"+f.ours },
	"some of them": func(f *found, _ *difference) bool {
		theirs := strings.Split(f.before, "\n")
		return f.ours == "" || !slices.ContainsFunc(strings.Split(f.ours, "\n"), func(one string) bool { return !slices.Contains(theirs, one) })
	},

	"part of theirs": func(f *found, _ *difference) bool { // lines of a device, and the sectors that were read and written
		theirs := map[string][]float64{}
		for line := range strings.SplitSeq(f.after, "\n") {
			device, counts, _ := strings.Cut(line, " ")
			theirs[device] = numbers(strings.ReplaceAll(counts, " ", "\n"))
		}
		for line := range strings.SplitSeq(f.ours, "\n") {
			device, counts, _ := strings.Cut(line, " ")
			ours := numbers(strings.ReplaceAll(counts, " ", "\n"))
			if f.ours != "" && (len(ours) != 2 || len(theirs[device]) != 2 || ours[0] > theirs[device][0] || ours[1] > theirs[device][1]) {
				return false
			}
		}
		return true
	},

	// CPUs.
	"real numbers":        func(f *found, _ *difference) bool { return f.real(f.expected.lxcfs) },
	"real numbers of all": func(f *found, _ *difference) bool { return f.real(len(f.expected.cpuset)) },
	"the first": func(f *found, _ *difference) bool {
		n, of := len(f.expected.shown), f.expected.lxcfs
		return strings.Count(f.before, "\n")+1 == of && n < of && between(firstOf(f.before, n), f.ours, firstOf(f.after, n), 0)
	},
	"counted": func(f *found, _ *difference) bool {
		ids := [2][]string{strings.Split(f.lensfs["cpuinfo.physical id"], "\n"), strings.Split(f.lensfs["cpuinfo.core id"], "\n")}
		ours := strings.Split(f.ours, "\n")
		if len(ours) != len(f.expected.shown) || len(ids[0]) != len(ours) || len(ids[1]) != len(ours) {
			return false
		}
		for i, text := range ours {
			siblings, cores := 0, map[string]bool{}
			for j := range ours {
				if ids[0][j] == ids[0][i] {
					siblings++
					cores[ids[1][j]] = true
				}
			}
			if want := map[string]int{"cpuinfo.siblings": siblings, "cpuinfo.cpu cores": len(cores)}[f.key]; numbers(text)[0] != float64(want) {
				return false
			}
		}
		return true
	},
	"a frequency": func(f *found, _ *difference) bool {
		all := numbers(f.ours)
		return len(all) == len(f.expected.shown) && slices.Min(all) > 0
	},

	// Times. The numbers of a stat are compared with each other, so none of them is of another moment.
	"adds up": func(f *found, _ *difference) bool { // each CPU's value is rounded
		n := len(numbers(f.ours))
		all := f.lensfs[strings.Replace(f.key, ".each.", ".cpu.", 1)]
		return n == len(f.expected.shown) && math.Abs(sum(f.ours)-sum(all)) <= float64(n)
	},
	"age less used": func(f *found, _ *difference) bool {
		n, shown := float64(len(f.expected.shown)), 0.0
		for _, name := range []string{"user", "system", "idle", "steal"} {
			shown += sum(f.lensfs["stat.cpu."+name])
		}
		return f.within("lxcfs:uptime.age", 100*n, shown, 3*n+4) // ticks: as tolerance, and four numbers are rounded
	},
	"used": func(f *found, _ *difference) bool {
		// A quota's period may be used up on CPUs that are not shown: that is shown as soon as these have room for it.
		slack := 3 + 10*float64(len(f.expected.shown))
		if !f.expected.version2 { // of which only the sum is counted exactly: ns, in ticks
			other := map[string]string{"stat.cpu.user": "stat.cpu.system", "stat.cpu.system": "stat.cpu.user"}[f.key]
			return f.within("cpuacct:cpuacct.usage.", 1e-7, sum(f.ours)+sum(f.lensfs[other]), slack)
		}
		name := map[string]string{"stat.cpu.user": "cpu:cpu.stat.user_usec", "stat.cpu.system": "cpu:cpu.stat.system_usec"}[f.key]
		return name != "" && f.within(name, 1e-4, sum(f.ours), slack)
	},
	"throttled": func(f *found, _ *difference) bool {
		name, scale := ":cpu.stat.throttled_time", 1e-7
		if f.expected.version2 {
			name, scale = ":cpu.stat.throttled_usec", 1e-4
		}
		most := (sum(f.beside[1]["cpu"+name]) + sum(f.beside[1]["above"+name])) * scale
		steal := sum(f.ours)
		return steal <= most+3 && (steal > 0 || most < 100) // threads are throttled each for itself: less than all of it finds room
	},
	"idle of stat": func(f *found, _ *difference) bool {
		n := float64(len(f.expected.shown))
		return f.within("lensfs:stat.cpu.idle", 0.01, sum(f.ours), 0.03*n)
	},

	// Tasks.
	"its own": func(f *found, _ *difference) bool {
		n, tasks, spinners, pid := sum(f.ours), max(sum(f.beside[0]["tasks:tasks."]), sum(f.beside[1]["tasks:tasks."])), float64(f.expected.spinners), float64(f.expected.pid)
		switch f.key {
		case "loadavg.tasks":
			return f.within("tasks:tasks.", 1, n, 0)
		case "loadavg.running":
			return n >= spinners && n <= tasks
		case "stat.procs_running":
			return n >= spinners && n <= sum(f.lensfs["loadavg.tasks"])+2 // read a little later
		case "stat.procs_blocked":
			return n <= sum(f.lensfs["loadavg.tasks"])+2
		case "loadavg.last pid", "stat.processes":
			return n >= pid && n < pid+1000 // threads have numbers too
		}
		return false
	},

	// Memory.
	"host's": func(f *found, _ *difference) bool { // kB: the host's text is a tick old at most, in which others may take this much
		return f.ours == f.beside[0]["host:"+f.key] || f.ours == f.beside[1]["host:"+f.key] || f.within("host:"+f.key, 1, sum(f.ours), 16<<10)
	},
	"a moment ago": func(f *found, _ *difference) bool { // counted since the host began: a twentieth is seconds even on a young one
		return sum(f.ours) <= sum(f.after) && sum(f.ours) >= 0.95*sum(f.before)
	},
	"memory.stat": func(f *found, d *difference) bool {
		name := strings.TrimSuffix(d.lensfs, "`")
		name = name[strings.LastIndex(name, "`")+1:]
		return f.within("memory:memory.stat."+name, 1./1024, sum(f.ours), tolerance(f.key, 0, 0))
	},
	"free and files": func(f *found, _ *difference) bool {
		want := 0.0
		for _, name := range []string{"MemFree", "Active(file)", "Inactive(file)", "SReclaimable"} {
			want += sum(f.lensfs["meminfo."+name])
		}
		return math.Abs(min(want, sum(f.lensfs["meminfo.MemTotal"]))-sum(f.ours)) <= 4 // kB: each is rounded
	},
}

// real says whether LXCFS numbers so many CPUs anew, and we show the real numbers of those shown.
func (f *found) real(of int) bool {
	return f.before == numbered(of) && f.ours == lines(f.expected.shown)
}

// within says whether a number is between what was read of another one before and after.
func (f *found) within(name string, scale, n, slack float64) bool {
	before, after := numbers(f.beside[0][name]), numbers(f.beside[1][name])
	if len(before) != 1 || len(after) != 1 {
		return false
	}
	return n >= min(before[0], after[0])*scale-slack && n <= max(before[0], after[0])*scale+slack
}
