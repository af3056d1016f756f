package procview

import (
	"bytes"
	"strconv"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"
)

// Swaps appends /proc/swaps: the container's swap as one area, of the size that meminfo shows.
func Swaps(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error) {
	m, err := host.memory(container)
	if err != nil {
		return dst, err
	}
	meminfo, err := host.meminfo.lock(host.proc)
	if err != nil {
		return dst, err
	}
	v := newMachine(meminfo, &m)
	host.meminfo.unlock()
	swaps, err := host.swaps.lock(host.proc)
	if err != nil {
		return dst, err
	}
	defer host.swaps.unlock()
	return appendSwaps(dst, swaps, &v), nil
}

// appendSwaps writes the host's header, and a line as LXCFS does:
//
//	Filename				Type		Size		Used		Priority
//	none                                    virtual		8388604		262144		0
//
// A container without any limit sees the host's file, as with meminfo.
func appendSwaps(dst, host []byte, v *machine) []byte {
	if !v.limited {
		return append(dst, host...)
	}
	header, _ := kfile.Line(host)
	dst = append(append(dst, header...), '\n')
	if v.swapTotal == 0 {
		return dst
	}
	// Newer kernels have two tabs to a column, where the number leaves room; older ones always one.
	wide := bytes.Contains(header, []byte("Size\t\tUsed"))
	dst = append(dst, "none                                    virtual\t"...)
	for _, kb := range [...]uint64{v.swapTotal, v.swapTotal - v.swapFree} {
		dst = strconv.AppendUint(append(dst, '\t'), kb, 10)
		if wide && kb < 10000000 {
			dst = append(dst, '\t')
		}
	}
	return append(dst, "\t0\n"...)
}
