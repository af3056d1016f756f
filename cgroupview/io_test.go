package cgroupview

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lensfs/cgroupview/kfile"
)

const (
	stat2      = "sys/fs/cgroup/web/io.stat"
	bytes1     = "sys/fs/cgroup/blkio/web/blkio.throttle.io_service_bytes"
	requests1  = "sys/fs/cgroup/blkio/web/blkio.throttle.io_serviced"
	recursive1 = "_recursive"
	bfqBytes   = "sys/fs/cgroup/blkio/web/blkio.bfq.io_service_bytes_recursive"
	bfqCount   = "sys/fs/cgroup/blkio/web/blkio.bfq.io_serviced_recursive"
)

func TestIO(t *testing.T) {
	disk := DeviceIO{Major: 254, Read: IOCount{8, 4096}, Write: IOCount{2, 1024}, Discard: IOCount{1, 512}}
	loop := DeviceIO{Major: 7, Minor: 3, Read: IOCount{22, 28672}}
	const disk1 = "254:0 Read 4096\n254:0 Write 1024\n254:0 Sync 5000\n254:0 Async 120\n254:0 Discard 512\n254:0 Total 5632\nTotal 5632\n"
	const disk1Requests = "254:0 Read 8\n254:0 Write 2\n254:0 Sync 9\n254:0 Async 1\n254:0 Discard 1\n254:0 Total 11\nTotal 11\n"
	wrong := tree{bytes1: "254:0 Read 1\n", requests1: "254:0 Read 1\n"}
	for _, test := range []struct {
		name string
		tree tree
		want []DeviceIO
	}{
		{"v2", v2(web(), tree{stat2: "254:0 rbytes=4096 wbytes=1024 rios=8 wios=2 dbytes=512 dios=1\n7:3 rbytes=28672 wbytes=0 rios=22 wios=0 dbytes=0 dios=0\n"}), []DeviceIO{loop, disk}},
		{"v2, nothing used", v2(web(), tree{stat2: ""}), nil},
		{"v2, without the controller", v2(web(), tree{"sys/fs/cgroup/io.stat": "254:0 rbytes=4096 rios=8\n"}), nil},
		{"v2, lines without an end", v2(web(), tree{stat2: "7:1 7:0 7:3 rbytes=28672 wbytes=0 rios=22 wios=0 dbytes=0 dios=0"}), []DeviceIO{{Major: 7}, {Major: 7, Minor: 1}, loop}},
		{"v2, before discards, with io.cost", v2(web(), tree{stat2: "7:3 rbytes=28672 wbytes=0 rios=22 wios=0 cost.vrate=100.00 cost.usage=7\n"}), []DeviceIO{loop}},
		{"v1", v1(web1(), tree{bytes1 + recursive1: disk1, requests1 + recursive1: disk1Requests}, wrong), []DeviceIO{disk}},
		{"v1, one file has more", v1(web1(), tree{bytes1 + recursive1: disk1, requests1 + recursive1: "7:3 Read 1\n" + disk1Requests}, wrong),
			[]DeviceIO{{Major: 7, Minor: 3, Read: IOCount{Requests: 1}}, disk}},
		{"v1, before Linux 4.16", v1(web1(), tree{bytes1: disk1, requests1: disk1Requests}), []DeviceIO{disk}},
		{"v1, nothing used", v1(web1(), tree{bytes1 + recursive1: "Total 0\n", requests1 + recursive1: "Total 0\n"}), nil},
		{"v1, BFQ alone", v1(web1(), tree{bytes1 + recursive1: "Total 0\n", requests1 + recursive1: "Total 0\n", bfqBytes: disk1, bfqCount: disk1Requests}), []DeviceIO{disk}},
		{"v1, BFQ and a rule that came later", v1(web1(), tree{bytes1 + recursive1: "254:0 Read 1\n254:0 Write 512\n", requests1 + recursive1: "254:0 Read 1\n254:0 Write 1\n", bfqBytes: disk1, bfqCount: disk1Requests}), []DeviceIO{disk}},
		{"v1, a rule, and BFQ that came later", v1(web1(), tree{bytes1 + recursive1: disk1, requests1 + recursive1: disk1Requests, bfqBytes: "254:0 Write 512\n", bfqCount: "254:0 Write 1\n"}), []DeviceIO{disk}},
		{"v1, BFQ on one device, a rule for another", v1(web1(), tree{bytes1 + recursive1: disk1, requests1 + recursive1: disk1Requests, bfqBytes: "7:3 Read 28672\n", bfqCount: "7:3 Read 22\n"}), []DeviceIO{loop, disk}},
		{"v1, no group", v1(web1()), nil},
		{"no controller", v2(web(), tree{"sys/fs/cgroup/cgroup.controllers": "memory\n", stat2: "254:0 rios=1\n"}), nil},
	} {
		r, _ := test.tree.resolver(t)
		got, err := r.Of(120).IO([]DeviceIO{{Major: 99}})
		if !slices.Equal(got, test.want) || err != nil {
			t.Errorf("%s: got %+v, %v; want %+v", test.name, got, err, test.want)
		}
	}
	r, _ := v2(web(), tree{stat2 + "/x": ""}).resolver(t)
	if got, err := r.Of(120).IO(nil); len(got) != 0 || !errors.Is(err, unix.EISDIR) || !strings.Contains(err.Error(), stat2) {
		t.Errorf("a file that cannot be read: %v, %v", got, err)
	}
	r, _ = v1(web1(), tree{bytes1 + recursive1: disk1, requests1 + recursive1 + "/x": ""}).resolver(t)
	if got, err := r.Of(120).IO(nil); len(got) != 0 || !errors.Is(err, unix.EISDIR) || !strings.Contains(err.Error(), requests1) {
		t.Errorf("a file that cannot be read: %v, %v", got, err)
	}
}

func TestDeviceNumber(t *testing.T) {
	for word, want := range map[string][2]uint32{"254:0": {254, 0}, "0:1048575": {0, 1048575}, "4294967295:4294967295": {1<<32 - 1, 1<<32 - 1}} {
		if major, minor, ok := deviceNumber([]byte(word)); !ok || major != want[0] || minor != want[1] {
			t.Errorf("%q: %d:%d, %v", word, major, minor, ok)
		}
	}
	for _, word := range []string{"", ":", "254", "254:", ":0", "254:0:0", "-1:0", "4294967296:0", "0:18446744073709551616", "Total"} {
		if major, minor, ok := deviceNumber([]byte(word)); ok {
			t.Errorf("%q: %d:%d", word, major, minor)
		}
	}
}

// TestIOAllocs has as many devices as a large host.
func TestIOAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var stat, bytes, requests strings.Builder
	for i := range 300 {
		device := strconv.Itoa(8+i%3) + ":" + strconv.Itoa(i)
		stat.WriteString(device + " rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n")
		bytes.WriteString(device + " Read 4096\n" + device + " Total 4096\n")
		requests.WriteString(device + " Read 1\n" + device + " Total 1\n")
	}
	for name, f := range map[string]tree{
		"v2": v2(web(), tree{stat2: stat.String()}),
		"v1": v1(web1(), tree{bytes1 + recursive1: bytes.String(), requests1 + recursive1: requests.String()}),
	} {
		r, _ := f.resolver(t)
		c := r.Of(120)
		var devices []DeviceIO
		var err error
		if n := testing.AllocsPerRun(100, func() { devices, err = c.IO(devices) }); n != 0 || err != nil || len(devices) != 300 {
			t.Errorf("%s: %v allocations, %d devices, %v", name, n, len(devices), err)
		}
		if !slices.IsSortedFunc(devices, func(a, b DeviceIO) int { return a.Compare(b.Major, b.Minor) }) {
			t.Errorf("%s: not in order", name)
		}
	}
}

// counts gives what was counted, by device and by the name that either version has for it.
func counts(devices []DeviceIO) map[string]uint64 {
	m := map[string]uint64{}
	for _, d := range devices {
		device := strconv.Itoa(int(d.Major)) + ":" + strconv.Itoa(int(d.Minor)) + " "
		for name, n := range map[string]uint64{"rbytes": d.Read.Bytes, "rios": d.Read.Requests, "wbytes": d.Write.Bytes, "wios": d.Write.Requests, "dbytes": d.Discard.Bytes, "dios": d.Discard.Requests} {
			if n != 0 {
				m[device+name] = n
			}
		}
	}
	return m
}

// known reads what the patterns find of "(device) (name)=(number)", the last one counting.
func known(into map[string]uint64, device, name, number string) {
	major, minor, ok := deviceNumber([]byte(device))
	n, ok2 := kfile.Uint([]byte(number))
	if !ok || !ok2 {
		return
	}
	key := strconv.Itoa(int(major)) + ":" + strconv.Itoa(int(minor)) + " " + name
	if into[key] = n; n == 0 {
		delete(into, key)
	}
}

func compareCounts(t *testing.T, text []byte, devices []DeviceIO, want map[string]uint64) {
	t.Helper()
	got := counts(devices)
	for key := range want {
		if got[key] != want[key] {
			t.Errorf("%s: %d, want %d: %q", key, got[key], want[key], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v: %q", got, want, text)
	}
	for i, d := range devices {
		if slices.ContainsFunc(devices[i+1:], func(e DeviceIO) bool { return e.Compare(d.Major, d.Minor) == 0 }) {
			t.Errorf("%d:%d is there twice: %q", d.Major, d.Minor, text)
		}
	}
}

// FuzzIO2 compares with the lines read in the simplest way.
func FuzzIO2(f *testing.F) {
	f.Add([]byte("254:0 rbytes=1048576 wbytes=1 rios=8 wios=2 dbytes=3 dios=4\n7:1 7:0 rbytes=4096 rios=1\n\n8:0 \n254:0 rios=9\n"))
	f.Add([]byte("rbytes=1 254:0 rbytes= wbytes=x =5 rios=18446744073709551616 cost.usage=1.0\t7:7\twios=3"))
	f.Fuzz(func(t *testing.T, text []byte) {
		want := map[string]uint64{}
		for line := range strings.SplitSeq(string(text), "\n") {
			device := ""
			for _, word := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' }) {
				if _, _, ok := deviceNumber([]byte(word)); ok {
					device = word
				} else if name, number, ok := strings.Cut(word, "="); ok && slices.Contains([]string{"rbytes", "wbytes", "dbytes", "rios", "wios", "dios"}, name) {
					known(want, device, name, number)
				}
			}
		}
		compareCounts(t, text, appendIO2(nil, text), want)
	})
}

var line1 = regexp.MustCompile(`(?m)^[ \t]*([^ \t\n]+)[ \t]+(Read|Write|Discard)[ \t]+([^ \t\n]+)`)

func FuzzIO1(f *testing.F) {
	f.Add([]byte("254:0 Read 1048576\n254:0 Write 7\n254:0 Sync 1\n254:0 Async 1\n254:0 Discard 3\n254:0 Total 4\nTotal 4\n"))
	f.Add([]byte("7:0 Read\n7:0 Read x\nRead 7:0 1\n7:0 Reads 1\n\n7:0 Write 18446744073709551616\n8:0 Read 0\n7:0 Read 2"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, inBytes := range []bool{true, false} {
			want := map[string]uint64{}
			for _, m := range line1.FindAllSubmatch(text, -1) {
				unit := "ios"
				if inBytes {
					unit = "bytes"
				}
				known(want, string(m[1]), strings.ToLower(string(m[2][:1]))+unit, string(m[3]))
			}
			compareCounts(t, text, appendIO1(nil, text, inBytes), want)
		}
	})
}
