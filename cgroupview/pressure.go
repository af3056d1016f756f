package cgroupview

import "lensfs/cgroupview/kfile"

// Pressure names a resource that the kernel tells for how long tasks had to wait for it (PSI, Linux 4.20).
type Pressure int

const (
	PressureCPU Pressure = iota
	PressureIO
	PressureMemory
	Pressures // how many there are
)

var pressureFiles = [Pressures]struct {
	controller  controller
	name        string
	group, host string // the files of a group, and of the host in /proc
}{
	PressureCPU:    {cpu, "cpu", "cpu.pressure", "pressure/cpu"},
	PressureIO:     {blockIO, "io", "io.pressure", "pressure/io"},
	PressureMemory: {memory, "memory", "memory.pressure", "pressure/memory"},
}

// String is the name of the file in /proc/pressure.
func (p Pressure) String() string { return pressureFiles[p].name }

// HasPressure says whether containers have a pressure of their own: v1 has none, so the resource's controller must be in the v2 hierarchy.
// Whether the kernel counts it at all (psi=0) shows in /proc/pressure.
func (r *Resolver) HasPressure(p Pressure) bool { return r.layout[pressureFiles[p].controller].v2 }

// Pressure appends the text of the file cpu.pressure, io.pressure or memory.pressure of the container's group. Where it is not switched on for the group
// (cgroup.pressure, Linux 6.1), that of the nearest group above it; the root stands for the whole host, so is taken for nobody but those in it.
// Nothing is appended where there is none. The error is wrapped with the file it is about.
func (c *Container) Pressure(dst []byte, p Pressure) ([]byte, error) {
	f := &pressureFiles[p]
	h := &c.r.layout[f.controller]
	path := c.paths.Load()[f.controller]
	if !h.v2 || path == "" {
		return dst, nil
	}
	b := kfile.GetBuffer()
	defer b.Put()
	if path == "/" { // not every kernel's root group has the files
		text, err := c.r.proc.Read(b, "", f.host)
		return append(dst, text...), c.r.proc.Wrap(err, "", f.host)
	}
	for ; path != "/"; path, _ = parent(path) {
		text, err := h.dir.Read(b, path, f.group)
		if err == nil {
			return append(dst, text...), nil
		}
		if !gone(err) {
			return dst, h.dir.Wrap(err, path, f.group)
		}
	}
	return dst, nil
}
