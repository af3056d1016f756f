package procview

import (
	"bytes"

	"lensfs/cgroupview"
)

// Slabinfo appends /proc/slabinfo: the header alone, for everybody. The kernel counts no slab caches by group, and shows the host's to root only.
func Slabinfo(dst []byte, host *Host, _ *cgroupview.Container) ([]byte, error) {
	return append(dst, host.slabinfo...), nil
}

// slabinfoHeader gives a copy of the first two lines: "slabinfo - version: 2.1" and "# name …".
func slabinfoHeader(text []byte) []byte {
	end := 0
	for range 2 {
		i := bytes.IndexByte(text[end:], '\n')
		if i < 0 {
			break
		}
		end += i + 1
	}
	return bytes.Clone(text[:end])
}
