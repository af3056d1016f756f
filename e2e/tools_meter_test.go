package e2e

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// meter keeps reading what a process's cgroup used of CPU time, and what its quota kept it from.
type meter struct {
	mu       sync.Mutex
	readings []meterReading
}

type meterReading struct {
	at              time.Time
	used, throttled float64 // seconds
}

func startMeter(t *testing.T, pid int) *meter {
	t.Helper()
	stat := cgroupFile(t, pid, "cpu", "cpu.stat", "cpu.stat")
	usage := cgroupFile(t, pid, "cpuacct", "cpuacct.usage", "cpu.stat")
	m := &meter{}
	ended := make(chan error, 1)
	end := make(chan struct{})
	go func() {
		// Before all other work of the machine, which may be waiting for a while beside what the container burns.
		runtime.LockOSThread()
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20); err != nil {
			ended <- err
			return
		}
		for every := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-end:
				ended <- nil
				return
			case <-every.C:
				if err := m.read(usage, stat); err != nil {
					ended <- err
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(end)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *meter) read(usage, stat string) error {
	one, err := os.ReadFile(usage)
	if err != nil {
		return err
	}
	two, err := os.ReadFile(stat)
	if err != nil {
		return err
	}
	r := meterReading{at: time.Now()}
	for _, from := range []struct {
		text []byte
		name string
		unit float64
		into *float64
	}{
		{one, `^(\d+)\n`, 1e-9, &r.used}, {one, `usage_usec (\d+)`, 1e-6, &r.used},
		{two, `throttled_time (\d+)`, 1e-9, &r.throttled}, {two, `throttled_usec (\d+)`, 1e-6, &r.throttled},
	} {
		if n, _, err := exactly(from.name, from.unit)(string(from.text)); err == nil {
			*from.into = n
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.readings = append(m.readings, r)
	return nil
}

// between gives the least and the most that was used, and kept from it, in any stretch of an interval or more from begin to end; per cent of one CPU.
func (m *meter) between(begin, end time.Time) (used, throttled span) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var u, s []float64
	for i, first := range m.readings {
		if first.at.Before(begin) {
			continue
		}
		for _, last := range m.readings[i:] {
			if d := last.at.Sub(first.at).Seconds(); d >= interval && last.at.Before(end) {
				u = append(u, (last.used-first.used)/d*100)
				s = append(s, (last.throttled-first.throttled)/d*100)
			}
		}
	}
	if len(u) == 0 { // the machine held the meter up all the time: no tool is right
		return span{}, span{}
	}
	return spanOf(u...), spanOf(s...)
}
