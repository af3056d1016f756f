package cgroupview

import (
	"bytes"
	"cmp"
	"slices"

	"lensfs/cgroupview/kfile"
)

// DeviceIO is what a container has asked of one block device since its group was made.
// The comments name where the numbers are: io.stat of v2 | the lines of v1's io_serviced_recursive and io_service_bytes_recursive, of blkio.throttle and blkio.bfq.
type DeviceIO struct {
	Major, Minor uint32

	Read    IOCount // rios, rbytes | Read
	Write   IOCount // wios, wbytes | Write
	Discard IOCount // dios, dbytes | Discard (Linux 4.19)
}

// IOCount is how often something was done, and to how many bytes together.
type IOCount struct{ Requests, Bytes uint64 }

// Used says whether anything was asked of the device.
func (d *DeviceIO) Used() bool {
	return d.Read != IOCount{} || d.Write != IOCount{} || d.Discard != IOCount{}
}

// Compare orders by major and minor number.
func (d *DeviceIO) Compare(major, minor uint32) int {
	return cmp.Or(cmp.Compare(d.Major, major), cmp.Compare(d.Minor, minor))
}

// IO gives the block devices that the kernel lists for the container, in the room of devices and ordered by number: those the container has used,
// and some that it has not. There are none where its group does not have the controller: what the group above counts is its neighbours' too. There are as many as the host has
// at most; finding one is linear, which hundreds are few enough for. The error is wrapped with the file it is about.
//
// On v1 there are two who count. Throttling does for every group, yet since Linux 6.10 for a device only from when any group was first given a
// rule for it (until then 6.18 says "Total 0" of groups that wrote). BFQ does for the devices whose scheduler it is. The larger number holds.
func (c *Container) IO(devices []DeviceIO) ([]DeviceIO, error) {
	devices = devices[:0]
	h := &c.r.layout[blockIO]
	path := c.paths.Load()[blockIO]
	if h.dir == nil || path == "" {
		return devices, nil
	}
	b := kfile.GetBuffer()
	defer b.Put()
	if h.v2 {
		text, err := h.dir.Read(b, path, "io.stat")
		if err != nil && !gone(err) {
			return devices, h.dir.Wrap(err, path, "io.stat")
		}
		devices = appendIO2(devices, text)
	} else {
		for _, f := range io1Files {
			text, err := h.dir.Read(b, path, f.name)
			if gone(err) && f.alone != "" {
				text, err = h.dir.Read(b, path, f.alone)
			}
			if err != nil && !gone(err) {
				return devices[:0], h.dir.Wrap(err, path, f.name)
			}
			devices = appendIO1(devices, text, f.inBytes)
		}
	}
	slices.SortFunc(devices, func(a, b DeviceIO) int { return a.Compare(b.Major, b.Minor) })
	return devices, nil
}

// io1Files are the files of v1 that tell of the group and those below. alone tells of the group only: kernels before 4.16 have nothing else.
var io1Files = [...]struct {
	name, alone string
	inBytes     bool
}{
	{"blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes", true},
	{"blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced", false},
	{"blkio.bfq.io_service_bytes_recursive", "", true},
	{"blkio.bfq.io_serviced_recursive", "", false},
}

// appendIO2 reads io.stat:
//
//	254:0 rbytes=1048576 wbytes=0 rios=8 wios=0 dbytes=0 dios=0
//
// Kernels around Linux 5.15 do not end the line of a device without numbers (github.com/canonical/lxd/issues/10052): "7:1 7:0 rbytes=…".
func appendIO2(dst []DeviceIO, text []byte) []DeviceIO {
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		var d *DeviceIO
		for word, rest := kfile.Field(line); len(word) > 0; word, rest = kfile.Field(rest) {
			if major, minor, ok := deviceNumber(word); ok {
				dst, d = deviceIn(dst, major, minor)
				continue
			}
			i := bytes.IndexByte(word, '=')
			if i < 0 || d == nil {
				continue
			}
			n, ok := kfile.Uint(word[i+1:])
			if !ok {
				continue // another controller's: "cost.vrate=100.00"
			}
			switch string(word[:i]) {
			case "rbytes":
				d.Read.Bytes = n
			case "wbytes":
				d.Write.Bytes = n
			case "dbytes":
				d.Discard.Bytes = n
			case "rios":
				d.Read.Requests = n
			case "wios":
				d.Write.Requests = n
			case "dios":
				d.Discard.Requests = n
			}
		}
	}
	return dst
}

// appendIO1 reads one of the files of v1, which count bytes or requests, into what was read of the others:
//
//	254:0 Read 1048576
//	254:0 Sync 1048576
//	254:0 Total 1048576
//	Total 1048576
func appendIO1(dst []DeviceIO, text []byte, inBytes bool) []DeviceIO {
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		device, rest := kfile.Field(line)
		does, rest := kfile.Field(rest)
		number, _ := kfile.Field(rest)
		major, minor, ok := deviceNumber(device)
		n, ok2 := kfile.Uint(number)
		if !ok || !ok2 {
			continue
		}
		var d *DeviceIO
		dst, d = deviceIn(dst, major, minor)
		var count *IOCount
		switch string(does) {
		case "Read":
			count = &d.Read
		case "Write":
			count = &d.Write
		case "Discard":
			count = &d.Discard
		default:
			continue // Sync and Async are the same once more
		}
		if inBytes {
			count.Bytes = max(count.Bytes, n)
		} else {
			count.Requests = max(count.Requests, n)
		}
	}
	return dst
}

// deviceNumber reads "254:0".
func deviceNumber(word []byte) (major, minor uint32, ok bool) {
	i := bytes.IndexByte(word, ':')
	if i < 0 {
		return 0, 0, false
	}
	n, ok := kfile.Uint(word[:i])
	m, ok2 := kfile.Uint(word[i+1:])
	return uint32(n), uint32(m), ok && ok2 && n>>32 == 0 && m>>32 == 0
}

// deviceIn finds a device from the end, for its lines stand together, or adds it.
func deviceIn(devices []DeviceIO, major, minor uint32) ([]DeviceIO, *DeviceIO) {
	for i := len(devices) - 1; i >= 0; i-- {
		if devices[i].Compare(major, minor) == 0 {
			return devices, &devices[i]
		}
	}
	devices = append(devices, DeviceIO{Major: major, Minor: minor})
	return devices, &devices[len(devices)-1]
}
