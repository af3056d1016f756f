package cgroupview

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"lensfs/cgroupview/kfile"

	"golang.org/x/sys/unix"
)

// QuotaMode says what a CPU quota does to the number of CPUs shown.
type QuotaMode string

const (
	QuotaMin    QuotaMode = "min"    // ceil(quota), at most the cpuset
	QuotaIgnore QuotaMode = "ignore" // the cpuset alone, as LXCFS without --enable-cfs
	QuotaFirst  QuotaMode = "first"  // ceil(quota) even beyond the cpuset, as vpsAdminOS
)

// ParseQuotaMode reads what an operator wrote.
func ParseQuotaMode(s string) (QuotaMode, error) {
	switch m := QuotaMode(s); m {
	case QuotaMin, QuotaIgnore, QuotaFirst:
		return m, nil
	}
	return "", fmt.Errorf("%q: the CPU quota mode is one of min, ignore, first", s)
}

// quota is a share of CPU time: run for so many of each period's microseconds. The zero value is no limit.
type quota struct{ run, period uint64 }

// less says whether q allows less than p.
func (q quota) less(p quota) bool {
	if q.period == 0 || p.period == 0 {
		return q.period != 0
	}
	return q.run*p.period < p.run*q.period
}

// cpus is the number of CPUs it takes to run so much.
func (q quota) cpus() int {
	return int(min(MaxCPUs, (q.run+q.period-1)/q.period))
}

const (
	// onlineEvery is how soon a CPU that comes or goes is noticed.
	onlineEvery = 100 * time.Millisecond
	// together is how far apart the reads of one poll are (cpuinfo, stat, uptime), on a busy machine too: they see the same CPUs, and pay for them once.
	// With the tick that the kernel may keep an answer, a limit that changes is seen within 15 ms.
	together = 5 * time.Millisecond
)

// Online gives the host's CPUs that are switched on, from /sys/devices/system/cpu/online. It changes with hotplug only, so is kept for a while.
func (r *Resolver) Online() (CPUSet, error) {
	o := &r.online
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if now.Sub(o.at) < onlineEvery {
		return o.get(), nil
	}
	b := kfile.GetBuffer()
	defer b.Put()
	set, err := r.readList(b, "online")
	if err != nil {
		return CPUSet{}, err
	}
	o.put(&set, now)
	return set, nil
}

// readPossible reads the CPUs that this kernel can ever have, from /sys/devices/system/cpu/possible. It says the same from boot on.
func (r *Resolver) readPossible(b *kfile.Buffer) (CPUSet, error) {
	set, err := r.readList(b, "possible")
	if errors.Is(err, unix.ENOENT) { // a tree of files may do without
		return r.Online()
	}
	return set, err
}

func (r *Resolver) readList(b *kfile.Buffer, name string) (CPUSet, error) {
	text, err := r.cpus.Read(b, "", name)
	if err != nil {
		return CPUSet{}, r.cpus.Wrap(err, "", name)
	}
	set, err := ParseCPUSet(text)
	return set, r.cpus.Wrap(err, "", name)
}

// MaxCPUs is above the number of every CPU that this kernel can ever have.
func (r *Resolver) MaxCPUs() int { return r.possible.end() }

// Possible gives the CPUs that exist for the container, switched on or not: the host's, or with HideCPUs those that it is to see.
func (c *Container) Possible() (CPUSet, error) {
	if c.r.hideCPUs {
		return c.CPUs()
	}
	return c.r.possible, nil
}

// CPUs gives the CPUs that the container is to see: the first n of those it may run on, n being limited by its quota too; never none.
func (c *Container) CPUs() (CPUSet, error) {
	k := &c.cpus
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if now.Sub(k.at) < together && !c.Young() {
		return k.get(), nil
	}
	set, err := c.readCPUs()
	if err == nil {
		k.put(&set, now)
	}
	return set, err
}

func (c *Container) readCPUs() (CPUSet, error) {
	online, err := c.r.Online()
	if err != nil {
		return CPUSet{}, err
	}
	b := kfile.GetBuffer()
	defer b.Put()
	set, err := c.effective(b, online)
	if err != nil {
		return CPUSet{}, err
	}
	if c.r.quota == QuotaIgnore {
		return set, nil
	}
	q, err := c.quota(b)
	if err != nil || q.period == 0 {
		return set, err
	}
	n := max(1, q.cpus())
	if c.r.quota == QuotaFirst && n > set.Count() {
		return beyond(set, online, n), nil
	}
	set.First(n)
	return set, nil
}

// beyond adds CPUs of the host to the set until there are n.
func beyond(set, online CPUSet, n int) CPUSet {
	for cpu := online.Next(0); cpu >= 0 && set.Count() < n; cpu = online.Next(cpu + 1) {
		set.Add(cpu)
	}
	return set
}

// effective gives the online CPUs that the cpuset controller really lets the container run on: not those that were asked for (cpuset.cpus),
// which a group above may not have.
func (c *Container) effective(b *kfile.Buffer, online CPUSet) (CPUSet, error) {
	h := &c.r.layout[cpuset]
	names := []string{"cpuset.effective_cpus", "cpuset.cpus"} // v1; the first since Linux 3.17
	if h.v2 {
		names = []string{"cpuset.cpus.effective"}
	}
	for path, ok := c.paths.Load()[cpuset], h.dir != nil; ok && path != ""; path, ok = parent(path) {
		for _, name := range names {
			text, err := h.dir.Read(b, path, name)
			if gone(err) {
				continue
			}
			if err != nil {
				return online, h.dir.Wrap(err, path, name)
			}
			set, err := ParseCPUSet(text)
			if err != nil {
				return online, h.dir.Wrap(err, path, name)
			}
			set.Intersect(&online)
			if set.Next(0) >= 0 {
				return set, nil
			}
			// Empty: v1 before its cpuset.cpus is filled in, or all its CPUs have gone. What is above holds.
		}
	}
	return online, nil
}

// quota gives the smallest share that the container's group and those above it leave.
func (c *Container) quota(b *kfile.Buffer) (quota, error) {
	var least quota
	h := &c.r.layout[cpu]
	for path, ok := c.paths.Load()[cpu], h.dir != nil; ok && path != ""; path, ok = parent(path) {
		q, err := h.quotaOf(b, path)
		if err != nil {
			return quota{}, err
		}
		if q.less(least) {
			least = q
		}
	}
	return least, nil
}

// quotaOf reads one group's own quota: v2 "max 100000" or "50000 100000" in cpu.max, v1 -1 or a number in cpu.cfs_quota_us.
func (h *hierarchy) quotaOf(b *kfile.Buffer, path string) (quota, error) {
	name := "cpu.cfs_quota_us"
	if h.v2 {
		name = "cpu.max"
	}
	text, err := h.dir.Read(b, path, name)
	if gone(err) {
		return quota{}, nil // the root, or a group without the controller
	}
	if err != nil {
		return quota{}, h.dir.Wrap(err, path, name)
	}
	run, rest := kfile.Field(kfile.Trim(text))
	if bytes.Equal(run, []byte("max")) || bytes.Equal(run, []byte("-1")) {
		return quota{}, nil
	}
	n, ok := kfile.Uint(run)
	if !ok {
		return quota{}, h.dir.Wrap(kfile.ErrSyntax, path, name)
	}
	var period uint64
	if h.v2 {
		p, _ := kfile.Field(rest)
		if period, ok = kfile.Uint(p); !ok {
			return quota{}, h.dir.Wrap(kfile.ErrSyntax, path, name)
		}
	} else if period, err = h.value(b, path, "cpu.cfs_period_us"); err != nil {
		return quota{}, h.dir.Wrap(err, path, "cpu.cfs_period_us")
	}
	if period == 0 {
		return quota{}, nil
	}
	return quota{run: n, period: period}, nil
}
