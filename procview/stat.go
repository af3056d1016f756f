package procview

import (
	"bytes"
	"strconv"
	"time"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"
)

// statEvery is how old what a container sees of the host's stat may be: intr, ctxt, softirq and lines that we do not know. The kernel adds up each
// interrupt over each CPU for it, which on a large machine takes milliseconds.
const statEvery = 100 * time.Millisecond

// Stat appends /proc/stat: what has become of the time of the CPUs shown, under their real numbers, and the container's tasks.
// What else it counts is the host's, in totals; btime too, for ps(1) adds the start of a process, which is in the host's ticks, to it.
func Stat(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error) {
	if container.IsHost() {
		b := kfile.GetBuffer()
		defer b.Put()
		dst, err := host.proc.Append(b, dst, "", "stat")
		return dst, host.proc.Wrap(err, "", "stat")
	}
	shown, err := container.CPUs()
	if err != nil {
		return dst, err
	}
	tasks, err := container.Tasks()
	if err != nil {
		return dst, err
	}
	text, err := host.stat.lock(host.proc)
	if err != nil {
		return dst, err
	}
	defer host.stat.unlock()
	times, err := container.LockTimes(&shown)
	if err != nil {
		return dst, err
	}
	defer container.UnlockTimes()
	return appendStat(dst, text, times, &shown, tasks, container.Forks()), nil
}

// reduceStat leaves the line of all CPUs, whose columns are the template of ours, the total of intr, that of softirq with its kinds at 0
// (prometheus/procfs refuses the whole file without them), and the other lines as they are. It writes over the text.
func reduceStat(text []byte) []byte {
	kept := text[:0]
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		name, rest := kfile.Field(line)
		_, kinds := kfile.Field(rest)
		switch string(name) {
		case "intr":
			kept = append(kept, line[:len(line)-len(kinds)]...)
		case "softirq":
			kept = append(kept, line[:len(line)-len(kinds)]...)
			for range kfile.CountFields(kinds) {
				kept = append(kept, " 0"...)
			}
		default:
			if _, one := cpuNumber(name); one {
				continue
			}
			kept = append(kept, line...)
		}
		kept = append(kept, '\n')
	}
	return kept
}

// cpuNumber gives the number of the name of one CPU's line, "cpu7".
func cpuNumber(name []byte) (uint64, bool) {
	number, ok := bytes.CutPrefix(name, []byte("cpu"))
	if !ok {
		return 0, false
	}
	return kfile.Uint(number)
}

// appendStat writes the reduced text with the times of the CPUs shown in place of the host's. The line of all adds up those that are hidden now too: it
// must not go back.
func appendStat(dst, text []byte, times []cgroupview.CPUTime, shown *cgroupview.CPUSet, tasks cgroupview.Tasks, forks uint64) []byte {
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		name, rest := kfile.Field(line)
		switch string(name) {
		case "cpu":
			dst = appendCPULines(dst, times, shown, kfile.CountFields(rest))
			continue
		case "processes": // forks since boot: in a pid namespace, the numbers given
			dst = appendCount(dst, name, forks)
			continue
		case "procs_running": // whoever reads it runs
			dst = appendCount(dst, name, uint64(max(1, tasks.Running)))
			continue
		case "procs_blocked":
			dst = appendCount(dst, name, uint64(max(0, tasks.Blocked)))
			continue
		}
		dst = append(append(dst, line...), '\n')
	}
	return dst
}

func appendCount(dst, name []byte, n uint64) []byte {
	dst = append(append(dst, name...), ' ')
	dst = strconv.AppendUint(dst, n, 10)
	return append(dst, '\n')
}

// cpuTicks is a line of a CPU, as far as we fill it in: user, nice, system, idle, iowait, irq, softirq, steal. The guests' columns follow.
type cpuTicks [8]uint64

func ticksOf(t *cgroupview.CPUTime) cpuTicks {
	return cpuTicks{0: ticks(t.User), 2: ticks(t.System), 3: ticks(t.Idle), 7: ticks(t.Steal)}
}

func appendCPULines(dst []byte, times []cgroupview.CPUTime, shown *cgroupview.CPUSet, columns int) []byte {
	var all cpuTicks
	for i := range times {
		for c, n := range ticksOf(&times[i]) {
			all[c] += n
		}
	}
	dst = append(dst, "cpu "...) // and the blank before the first column: two, as the kernel has
	dst = appendColumns(dst, &all, columns)
	for n := shown.Next(0); n >= 0 && n < len(times); n = shown.Next(n + 1) {
		one := ticksOf(&times[n])
		dst = append(dst, "cpu"...)
		dst = strconv.AppendInt(dst, int64(n), 10)
		dst = appendColumns(dst, &one, columns)
	}
	return dst
}

func appendColumns(dst []byte, t *cpuTicks, columns int) []byte {
	for c := range columns {
		dst = append(dst, ' ')
		if c < len(t) {
			dst = strconv.AppendUint(dst, t[c], 10)
		} else {
			dst = append(dst, '0')
		}
	}
	return append(dst, '\n')
}
