package procview

import (
	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"
)

// Pressure gives the Source of /proc/pressure/cpu, io or memory: the file of the container's own group, which has the same form.
func Pressure(p cgroupview.Pressure) Source {
	return func(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error) {
		if container.IsHost() {
			return host.pressure[p].append(dst, host.proc)
		}
		own, err := container.Pressure(dst, p)
		if err != nil || len(own) > len(dst) {
			return own, err
		}
		text, err := host.pressure[p].lock(host.proc)
		if err != nil {
			return dst, err
		}
		defer host.pressure[p].unlock()
		return appendNoPressure(dst, text), nil
	}
}

// appendNoPressure writes that nobody ever waited, in the host's lines: cpu has "full" since Linux 5.13.
func appendNoPressure(dst, host []byte) []byte {
	for len(host) > 0 {
		var line []byte
		line, host = kfile.Line(host)
		kind, _ := kfile.Field(line)
		dst = append(append(dst, kind...), " avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"...)
	}
	return dst
}
