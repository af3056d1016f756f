package cgroupview

import (
	"time"

	"lensfs/cgroupview/kfile"
)

// Quota gives how many CPUs' worth of time the container's group and those above it leave it; 0 where nothing limits that.
func (c *Container) Quota() (cpus float64, err error) {
	b := kfile.GetBuffer()
	defer b.Put()
	q, err := c.quota(b)
	if err != nil || q.period == 0 {
		return 0, err
	}
	return float64(q.run) / float64(q.period), nil
}

// CPUUsage gives the CPU time that the container's group has used since it was made; not counted where no group of it has the controller.
func (c *Container) CPUUsage() (used time.Duration, counted bool, err error) {
	h := &c.r.layout[cpuacct]
	if h.dir == nil || c.paths.Load()[cpuacct] == "" {
		return 0, false, nil
	}
	var n cpuCount
	if err := c.count(&n); err != nil {
		return 0, false, err
	}
	sum := n.total
	for _, cpu := range n.cpus {
		sum = sum.plus(cpu)
	}
	return sum.sum(), true, nil
}
