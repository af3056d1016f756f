package sysview

import (
	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"
)

// Read appends the text of a file as a container is to see it. On an error, which is the host's, dst is returned as it was.
func (d *Dir) Read(dst []byte, number uint64, c *cgroupview.Container) ([]byte, error) {
	at, cpu, err := d.place(number)
	if err != nil {
		return dst, err
	}
	if view := d.view(at); view != nil {
		c.Look()
		if text, err := view(dst, cpu, c); err == nil {
			return text, nil
		} // The host's text is better than none.
	}
	b := kfile.GetBuffer()
	defer b.Put()
	dir := ""
	if at.prefix != "" {
		dir = b.Numbered(at.prefix, cpu)
	}
	text, err := d.host.Read(b, dir, at.rest)
	return append(dst, text...), err
}

// view gives what makes the text of a file that does not pass through, nil for the others.
func (d *Dir) view(at place) func(dst []byte, cpu int, c *cgroupview.Container) ([]byte, error) {
	switch {
	case at == place{"cpu", "online"}:
		return switchedOn
	case d.hide && (at == place{"", "possible"} || at == place{"", "present"}):
		return possible
	}
	return nil
}

// switchedOn appends cpuN/online, which the host has of CPUs that can be switched off.
func switchedOn(dst []byte, cpu int, c *cgroupview.Container) ([]byte, error) {
	cpus, err := c.CPUs()
	if err != nil {
		return dst, err
	}
	if cpus.Has(cpu) {
		return append(dst, "1\n"...), nil
	}
	return append(dst, "0\n"...), nil
}

// possible appends possible and present.
func possible(dst []byte, _ int, c *cgroupview.Container) ([]byte, error) {
	cpus, err := c.Possible()
	if err != nil {
		return dst, err
	}
	return appendList(dst, &cpus), nil
}
