package procview

import (
	"strconv"
	"time"

	"lensfs/cgroupview"
)

// Uptime appends /proc/uptime: the seconds since the container's init started, and those its CPUs were idle, added up.
func Uptime(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error) {
	if container.IsHost() {
		text, err := host.uptime.lock(host.proc)
		if err != nil {
			return dst, err
		}
		defer host.uptime.unlock()
		return append(dst, text...), nil
	}
	cpus, err := container.CPUs()
	if err != nil {
		return dst, err
	}
	times, err := container.CPUTime(cpus.Count())
	if err != nil {
		return dst, err
	}
	return appendUptime(dst, container.Age(), times.Idle), nil
}

// appendUptime writes both in seconds and hundredths.
func appendUptime(dst []byte, age, idle time.Duration) []byte {
	dst = appendSeconds(dst, age)
	dst = append(dst, ' ')
	dst = appendSeconds(dst, idle)
	return append(dst, '\n')
}

func appendSeconds(dst []byte, d time.Duration) []byte {
	ticks := uint64(max(0, d) / Tick)
	dst = strconv.AppendUint(dst, ticks/100, 10)
	dst = append(dst, '.', byte('0'+ticks%100/10), byte('0'+ticks%10))
	return dst
}
