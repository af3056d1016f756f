package cgroupview

import (
	"sync"
	"time"

	"lensfs/cgroupview/kfile"
)

// CPUTime is what has become of a container's CPU time since it began. The three do not go backwards, and their sum grows by as many seconds
// a second as CPUs are shown.
type CPUTime struct {
	Busy  time.Duration // used
	Steal time.Duration // wanted but refused by a quota, as far as there was room beside Busy at the time
	Idle  time.Duration // the rest
}

// cpuClock keeps a container's CPU time steady while its limits change.
type cpuClock struct {
	mu       sync.Mutex
	at       time.Duration // age at the last look
	capacity time.Duration // CPU time offered so far: the CPUs shown, integrated over age

	throttled time.Duration // at the last look
	owed      time.Duration // throttled, but not shown as Steal yet
	last      CPUTime
}

// quotaPeriod is the period of a quota, if nobody chose another. The kernel counts a throttled stretch when it is over, which is at the end of a period.
const quotaPeriod = 100 * time.Millisecond

// CPUTime reads the clock, n CPUs being shown at the moment. It is nothing for the host.
func (c *Container) CPUTime(n int) (CPUTime, error) {
	if c.IsHost() {
		return CPUTime{}, nil
	}
	b := kfile.GetBuffer()
	defer b.Put()
	busy, err := c.cpuUsage(b)
	if err != nil {
		return CPUTime{}, err
	}
	throttled, err := c.throttled(b)
	if err != nil {
		return CPUTime{}, err
	}
	return c.clock.advance(c.Age(), n, busy, throttled), nil
}

func (k *cpuClock) advance(age time.Duration, n int, busy, throttled time.Duration) CPUTime {
	k.mu.Lock()
	defer k.mu.Unlock()
	if age > k.at {
		k.capacity += time.Duration(n) * (age - k.at)
		k.at = age
	}
	t := CPUTime{Busy: max(busy, k.last.Busy), Steal: k.last.Steal, Idle: k.last.Idle}
	room := max(0, k.capacity-t.Busy-t.Steal-t.Idle)
	k.owed += max(0, throttled-k.throttled)
	k.throttled = max(throttled, k.throttled)
	steal := min(k.owed, room)
	t.Steal += steal
	t.Idle += room - steal
	// Each thread is throttled for itself, which makes more than the CPUs shown could have given. What found no room is forgotten, but for
	// what may have been counted late: else a container would see itself robbed long after it fell idle.
	k.owed = min(k.owed-steal, time.Duration(n)*quotaPeriod)
	k.last = t
	return t
}

// cpuUsage reads the CPU time that the container's group has used: v2 usage_usec in cpu.stat, v1 cpuacct.usage in nanoseconds.
func (c *Container) cpuUsage(b *kfile.Buffer) (time.Duration, error) {
	h := &c.r.layout[cpuacct]
	path := c.paths.Load()[cpuacct]
	if h.dir == nil || path == "" {
		return 0, nil
	}
	if !h.v2 {
		n, err := h.value(b, path, "cpuacct.usage")
		return time.Duration(n), h.dir.Wrap(err, path, "cpuacct.usage")
	}
	n, err := h.keyed(b, path, "cpu.stat", "usage_usec")
	return time.Duration(n) * time.Microsecond, h.dir.Wrap(err, path, "cpu.stat")
}

// throttled adds up the time that quotas kept the container from running: its own and those above it.
func (c *Container) throttled(b *kfile.Buffer) (time.Duration, error) {
	h := &c.r.layout[cpu]
	var sum time.Duration
	for path, ok := c.paths.Load()[cpu], h.dir != nil; ok && path != "" && path != "/"; path, ok = parent(path) {
		key, unit := "throttled_time", time.Nanosecond
		if h.v2 {
			key, unit = "throttled_usec", time.Microsecond
		}
		n, err := h.keyed(b, path, "cpu.stat", key)
		if err != nil && !gone(err) {
			return 0, h.dir.Wrap(err, path, "cpu.stat")
		}
		sum += time.Duration(n) * unit
	}
	return sum, nil
}

// keyed reads one number of a file of "key number" lines; 0 where the key is missing.
func (h *hierarchy) keyed(b *kfile.Buffer, path, name, key string) (uint64, error) {
	text, err := h.dir.Read(b, path, name)
	if err != nil {
		return 0, err
	}
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		if k, rest := kfile.Field(line); string(k) == key {
			n, ok := kfile.Uint(kfile.Trim(rest))
			if !ok {
				return 0, kfile.ErrSyntax
			}
			return n, nil
		}
	}
	return 0, nil
}
