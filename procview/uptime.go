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
	times, err := container.LockTimes(&cpus)
	if err != nil {
		return dst, err
	}
	defer container.UnlockTimes()
	return appendUptime(dst, container.Age(), times), nil
}

// appendUptime writes both in seconds and hundredths. The second is the sum of stat's idle column, tick for tick.
func appendUptime(dst []byte, age time.Duration, times []cgroupview.CPUTime) []byte {
	var idle uint64
	for i := range times {
		idle += ticks(times[i].Idle)
	}
	dst = appendSeconds(dst, ticks(age))
	dst = append(dst, ' ')
	dst = appendSeconds(dst, idle)
	return append(dst, '\n')
}

// ticks is a time in the unit of stat, USER_HZ.
func ticks(d time.Duration) uint64 { return uint64(max(0, d) / Tick) }

func appendSeconds(dst []byte, ticks uint64) []byte {
	dst = strconv.AppendUint(dst, ticks/100, 10)
	return append(dst, '.', byte('0'+ticks%100/10), byte('0'+ticks%10))
}
