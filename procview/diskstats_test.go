package procview

import (
	"strings"
	"testing"

	"lensfs/cgroupview"

	"github.com/prometheus/procfs/blockdevice"
)

func TestAppendDiskstats(t *testing.T) {
	count := func(requests, bytes uint64) cgroupview.IOCount {
		return cgroupview.IOCount{Requests: requests, Bytes: bytes}
	}
	sda := cgroupview.DeviceIO{Major: 8, Read: count(1, 512), Write: count(2, 1024), Discard: count(3, 1536)}
	dm := cgroupview.DeviceIO{Major: 253, Minor: 1, Write: count(0, 511)}
	const columns14 = "   8       0 sda 9 9 9 9 9 9 9 9 9 9 9\n"
	const columns18 = "   8       0 sda 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n"
	for _, test := range []struct {
		name, host string
		devices    []cgroupview.DeviceIO
		want       string
	}{
		{"before discards", columns14, []cgroupview.DeviceIO{sda}, "   8       0 sda 1 0 1 0 2 0 2 0 0 0 0\n"},
		{"before flushes", columns18, []cgroupview.DeviceIO{sda}, "   8       0 sda 1 0 1 0 2 0 2 0 0 0 0 3 0 3 0\n"},
		{"of today", columns18[:len(columns18)-1] + " 9 9\n", []cgroupview.DeviceIO{sda}, "   8       0 sda 1 0 1 0 2 0 2 0 0 0 0 3 0 3 0 0 0\n"},
		{"of tomorrow", columns18[:len(columns18)-1] + " 9 9 9\n", []cgroupview.DeviceIO{sda}, "   8       0 sda 1 0 1 0 2 0 2 0 0 0 0 3 0 3 0 0 0 0\n"},
		{"the host's order", " 253       1 dm-1 7 7\n 253       0 dm-0 7 7\n" + columns14, []cgroupview.DeviceIO{sda, dm}, " 253       1 dm-1 0 0\n   8       0 sda 1 0 1 0 2 0 2 0 0 0 0\n"},
		{"partitions, and a device of another major", "   8       1 sda1 7\n   9       0 md0 7\n", []cgroupview.DeviceIO{sda, dm}, ""},
		{"not used", columns14, []cgroupview.DeviceIO{{Major: 8}}, ""},
		{"none", columns14, nil, ""},
		{"malformed", "\n8\n8 x sda 1\n8 4294967296 sda 1\n-8 0 sda 1\n8 0\n", []cgroupview.DeviceIO{sda}, "8 0\n"},
	} {
		if got := string(appendDiskstats(nil, []byte(test.host), test.devices)); got != test.want {
			t.Errorf("%s: got:\n%s\nwant:\n%s", test.name, got, test.want)
		}
	}
}

func TestAppendDiskstatsAllocs(t *testing.T) {
	host := hostText(t, "epyc", "diskstats")
	devices := []cgroupview.DeviceIO{{Major: 65, Read: cgroupview.IOCount{Requests: 1 << 40, Bytes: 1 << 60}}, {Major: 259, Minor: 3, Write: cgroupview.IOCount{Requests: 1}}}
	dst := make([]byte, 0, 8192)
	if n := testing.AllocsPerRun(100, func() { appendDiskstats(dst, host, devices) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDiskstats(b *testing.B) {
	host := hostText(b, "epyc", "diskstats")
	devices := []cgroupview.DeviceIO{{Major: 259, Minor: 3, Write: cgroupview.IOCount{Requests: 1}}}
	dst := make([]byte, 0, 8192)
	b.ReportAllocs()
	for b.Loop() {
		appendDiskstats(dst, host, devices)
	}
}

// FuzzDiskstats writes any numbers into any host's text. Every line is one of the template's with other numbers, in its order; procfs reads those
// numbers, as long as it reads the template at all.
func FuzzDiskstats(f *testing.F) {
	for _, base := range []string{"desktop", "arm", "s390x"} {
		f.Add(hostText(f, base, "diskstats"), uint32(259), uint32(0), uint64(1), uint64(4096))
	}
	f.Add([]byte("8 0 sda\n\n8\t0\tsda 1 \n 8 0 sda 1 2 3 4 5 6 7 8 9 10 11 x"), uint32(8), uint32(0), uint64(1<<63), uint64(1<<64-1))
	f.Fuzz(func(t *testing.T, host []byte, major, minor uint32, requests, bytes uint64) {
		count := cgroupview.IOCount{Requests: requests, Bytes: bytes}
		devices := []cgroupview.DeviceIO{{Major: major, Minor: minor, Read: count, Discard: count}}
		text := string(appendDiskstats(nil, host, devices))
		from := strings.Split(string(host), "\n")
		for line := range strings.Lines(text) {
			words := len(blanks(line))
			for len(from) > 0 && (len(blanks(from[0])) != words || !strings.HasPrefix(line, upToName(from[0]))) {
				from = from[1:]
			}
			if len(from) == 0 {
				t.Fatalf("%q is not of the host's:\n%q", line, host)
			}
			from = from[1:]
		}
		if requests == 0 && bytes == 0 && text != "" {
			t.Errorf("not used, and still there: %q", text)
		}
		if !procfsReads(host) {
			return
		}
		for _, d := range readDiskstats(t, []byte(text)) {
			want := blockdevice.IOStats{ReadIOs: requests, ReadSectors: bytes / 512}
			if d.IoStatsCount >= 18 {
				want.DiscardIOs, want.DiscardSectors = requests, bytes/512
			}
			if d.MajorNumber != major || d.MinorNumber != minor || d.IOStats != want {
				t.Errorf("procfs reads %+v", d)
			}
		}
	})
}

func blanks(line string) []string {
	return strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' })
}

// upToName gives a line as far as its third word.
func upToName(line string) string {
	at := 0
	for range 3 {
		for at < len(line) && (line[at] == ' ' || line[at] == '\t') {
			at++
		}
		for at < len(line) && line[at] != ' ' && line[at] != '\t' {
			at++
		}
	}
	return line[:at]
}

// procfsReads says whether every line is of the kernel's own form, with 14, 18 or 20 columns of plain numbers and a name without odd blanks.
func procfsReads(host []byte) bool {
	for line := range strings.Lines(string(host)) {
		words := strings.Fields(line)
		if n := len(words); n != 14 && n != 18 && n != 20 || strings.ContainsFunc(line, func(r rune) bool { return r > '~' || r < ' ' && r != '\t' && r != '\n' }) {
			return false
		}
		for i, word := range words {
			if i != 2 && (len(word) > 9 || strings.Trim(word, "0123456789") != "" || len(word) > 1 && word[0] == '0') {
				return false
			}
		}
	}
	return true
}
