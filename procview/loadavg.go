package procview

import (
	"strconv"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"
)

// Loadavg appends /proc/loadavg: the load averages of 1, 5 and 15 minutes, the container's running tasks and all of them, and the last pid it was given.
//
// Where nobody samples, the averages are the host's, as LXCFS has them without --enable-loadavg. The rest is the container's all the same: it
// needs no sampler, and the host's would tell how many processes there are beside, and their numbers.
func Loadavg(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error) {
	if container.IsHost() {
		text, err := host.loadavg.lock(host.proc)
		if err != nil {
			return dst, err
		}
		defer host.loadavg.unlock()
		return append(dst, text...), nil
	}
	tasks, err := container.Tasks()
	if err != nil {
		return dst, err
	}
	if !host.options.NoLoadavg {
		return appendTasks(appendLoad(dst, container.Load()), tasks), nil
	}
	text, err := host.loadavg.lock(host.proc)
	if err != nil {
		return dst, err
	}
	defer host.loadavg.unlock()
	return appendTasks(appendFirst(dst, text, 3), tasks), nil
}

// appendLoad writes "0.52 0.31 0.20 ", each rounded to hundredths as the kernel does: it adds FIXED_1/200 and cuts off.
func appendLoad(dst []byte, load cgroupview.Load) []byte {
	const half = cgroupview.LoadOne / 200
	for _, average := range load {
		average += half
		hundredths := average % cgroupview.LoadOne * 100 / cgroupview.LoadOne
		dst = strconv.AppendUint(dst, average/cgroupview.LoadOne, 10)
		dst = append(dst, '.', byte('0'+hundredths/10), byte('0'+hundredths%10), ' ')
	}
	return dst
}

// appendFirst writes the first n words of a line, with a blank behind each.
func appendFirst(dst, line []byte, n int) []byte {
	for range n {
		var word []byte
		word, line = kfile.Field(line)
		dst = append(append(dst, word...), ' ')
	}
	return dst
}

// appendTasks writes "2/84 1234\n". On a machine whoever reads this is running: one task at least.
func appendTasks(dst []byte, tasks cgroupview.Tasks) []byte {
	running := max(1, tasks.Running)
	dst = strconv.AppendInt(dst, int64(running), 10)
	dst = append(dst, '/')
	dst = strconv.AppendInt(dst, int64(max(running, tasks.Total)), 10)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, uint64(tasks.LastPid), 10)
	return append(dst, '\n')
}
