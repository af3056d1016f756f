package procview

import (
	"slices"
	"strconv"
	"sync"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"
)

// deviceLists lends room for a container's devices.
var deviceLists = sync.Pool{New: func() any { return new([]cgroupview.DeviceIO) }}

// Diskstats appends /proc/diskstats: the devices that the container has used. Partitions have no numbers by group.
func Diskstats(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error) {
	if container.IsHost() {
		return host.diskstats.append(dst, host.proc)
	}
	list := deviceLists.Get().(*[]cgroupview.DeviceIO)
	defer deviceLists.Put(list)
	devices, err := container.IO(*list)
	*list = devices
	if err != nil || len(devices) == 0 {
		return dst, err
	}
	text, err := host.diskstats.lock(host.proc)
	if err != nil {
		return dst, err
	}
	defer host.diskstats.unlock()
	return appendDiskstats(dst, text, devices), nil
}

// sector is the unit of /proc/diskstats, whatever the device's is.
const sector = 512

// appendDiskstats writes the host's lines of the devices that were used, with as many columns as the kernel has: 14, 18 with discards (Linux 4.18),
// 20 with flushes (5.5). Merges and times are counted for nobody but the host: 0. devices are ordered by number.
func appendDiskstats(dst, host []byte, devices []cgroupview.DeviceIO) []byte {
	for len(host) > 0 {
		var line []byte
		line, host = kfile.Line(host)
		d, numbers := findDevice(devices, line)
		if d == nil || !d.Used() {
			continue
		}
		dst = append(dst, line[:len(line)-len(numbers)]...) // up to the name
		values := [...]uint64{
			d.Read.Requests, 0, d.Read.Bytes / sector, 0,
			d.Write.Requests, 0, d.Write.Bytes / sector, 0,
			0, 0, 0, // in flight, time busy, time weighted
			d.Discard.Requests, 0, d.Discard.Bytes / sector, 0,
		}
		word, rest := kfile.Field(numbers)
		for i := 0; len(word) > 0; i++ {
			value := uint64(0)
			if i < len(values) {
				value = values[i]
			}
			dst = strconv.AppendUint(append(dst, ' '), value, 10)
			word, rest = kfile.Field(rest)
		}
		dst = append(dst, '\n')
	}
	return dst
}

// findDevice finds the device of one line of the host's, "254 0 vda 1741900 …", and the numbers behind its name. nil: it is not among devices.
func findDevice(devices []cgroupview.DeviceIO, line []byte) (d *cgroupview.DeviceIO, numbers []byte) {
	major, rest := kfile.Field(line)
	minor, rest := kfile.Field(rest)
	_, numbers = kfile.Field(rest)
	n, ok := kfile.Uint(major)
	m, ok2 := kfile.Uint(minor)
	if !ok || !ok2 || n>>32 != 0 || m>>32 != 0 {
		return nil, nil
	}
	i, found := slices.BinarySearchFunc(devices, [2]uint32{uint32(n), uint32(m)}, func(d cgroupview.DeviceIO, number [2]uint32) int {
		return d.Compare(number[0], number[1])
	})
	if !found {
		return nil, nil
	}
	return &devices[i], numbers
}
