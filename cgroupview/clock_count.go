package cgroupview

import (
	"time"

	"lensfs/cgroupview/kfile"
)

// count reads what the kernel has counted of the container by now.
func (c *Container) count(now *cpuCount) error {
	b := kfile.GetBuffer()
	defer b.Put()
	var err error
	h, path := &c.r.layout[cpuacct], c.paths.Load()[cpuacct]
	now.total, now.cpus = cpuUsage{}, now.cpus[:0]
	switch {
	case h.dir == nil || path == "":
	case h.v2:
		now.total, err = h.usage2(b, path)
	default:
		err = h.usage1(b, path, now)
	}
	if err != nil {
		return err
	}
	now.throttled, err = c.throttled(b)
	return err
}

// usage2 reads cpu.stat: usage_usec, of which system_usec was in the kernel (Linux 4.15). What is not system is user: so both are their sum.
func (h *hierarchy) usage2(b *kfile.Buffer, path string) (u cpuUsage, err error) {
	text, err := h.dir.Read(b, path, "cpu.stat")
	if err != nil {
		return u, h.dir.Wrap(err, path, "cpu.stat")
	}
	var usage time.Duration
	for len(text) > 0 {
		key, n, ok, rest := kfile.Counter(text)
		text = rest
		switch string(key) {
		case "usage_usec":
			usage = time.Duration(n) * time.Microsecond
		case "system_usec":
			u.system = time.Duration(n) * time.Microsecond
		default:
			continue
		}
		if !ok {
			return u, h.dir.Wrap(kfile.ErrSyntax, path, "cpu.stat")
		}
	}
	u.user = max(0, usage-u.system)
	return u, nil
}

// usage1 reads the files of cpuacct, nanoseconds all: each CPU's user and system time (Linux 4.9) and how much it really was, both for all CPUs
// together (4.7), or their sum, which cpuacct.stat says how to part.
func (h *hierarchy) usage1(b *kfile.Buffer, path string, now *cpuCount) error {
	text, err := h.dir.Read(b, path, "cpuacct.usage_all")
	if err == nil {
		now.cpus, err = appendUsageAll(now.cpus, text)
	}
	if err == nil {
		return h.exact(b, path, now.cpus)
	}
	if !gone(err) {
		return h.dir.Wrap(err, path, "cpuacct.usage_all")
	}
	user, err := h.value(b, path, "cpuacct.usage_user")
	if err == nil {
		var system uint64
		system, err = h.value(b, path, "cpuacct.usage_sys")
		now.total = cpuUsage{user: time.Duration(user), system: time.Duration(system)}
		return h.dir.Wrap(err, path, "cpuacct.usage_sys")
	}
	if !gone(err) {
		return h.dir.Wrap(err, path, "cpuacct.usage_user")
	}
	usage, err := h.value(b, path, "cpuacct.usage")
	if err != nil {
		return h.dir.Wrap(err, path, "cpuacct.usage")
	}
	user, err = h.keyed(b, path, "cpuacct.stat", "user")
	if err == nil {
		var system uint64
		system, err = h.keyed(b, path, "cpuacct.stat", "system")
		now.total.system = share(time.Duration(usage), float64(system)/max(1, float64(user)+float64(system)))
	}
	if gone(err) {
		err = nil // all of it user
	}
	now.total.user = time.Duration(usage) - now.total.system
	return h.dir.Wrap(err, path, "cpuacct.stat")
}

// exact reads cpuacct.usage_percpu, the sum of each possible CPU, and corrects by it what usage_all says: that is whole ticks, to whoever runs when the
// clock ticks, and so up to a fifth off beside others (seen with Linux 6.18). It tells how to part the sum, as the kernel does for tasks.
func (h *hierarchy) exact(b *kfile.Buffer, path string, cpus []cpuUsage) error {
	const name = "cpuacct.usage_percpu"
	text, err := h.dir.Read(b, path, name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return h.dir.Wrap(err, path, name)
	}
	line, _ := kfile.Line(text)
	if kfile.CountFields(line) != len(cpus) {
		return nil // the numbers of possible CPUs have a gap, which the sums do not show
	}
	for n := range cpus {
		var field []byte
		field, line = kfile.Field(line)
		sum, ok := kfile.Uint(field)
		if !ok {
			return h.dir.Wrap(kfile.ErrSyntax, path, name)
		}
		u := &cpus[n]
		u.system = share(time.Duration(sum), float64(u.system)/max(1, float64(u.sum())))
		u.user = time.Duration(sum) - u.system
	}
	return nil
}

// appendUsageAll reads cpuacct.usage_all, and gives the usage of each CPU by its number; of one without a line nothing.
//
//	cpu user system
//	0 5242004198039 2119046046059
func appendUsageAll(dst []cpuUsage, text []byte) ([]cpuUsage, error) {
	_, text = kfile.Line(text)
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		cpu, line := kfile.Field(line)
		user, line := kfile.Field(line)
		system, _ := kfile.Field(line)
		n, ok1 := kfile.Uint(cpu)
		u, ok2 := kfile.Uint(user)
		s, ok3 := kfile.Uint(system)
		if !ok1 || !ok2 || !ok3 || n >= MaxCPUs {
			return dst[:0], kfile.ErrSyntax
		}
		for len(dst) <= int(n) {
			dst = append(dst, cpuUsage{})
		}
		dst[n] = cpuUsage{user: time.Duration(u), system: time.Duration(s)}
	}
	return dst, nil
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
		k, n, ok, rest := kfile.Counter(text)
		if string(k) == key {
			if !ok {
				return 0, kfile.ErrSyntax
			}
			return n, nil
		}
		text = rest
	}
	return 0, nil
}
