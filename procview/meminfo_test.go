package procview

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lensfs/cgroupview"

	"github.com/prometheus/procfs"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

func hostText(t testing.TB, base, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/base", base, "proc", file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestMachine(t *testing.T) {
	host := []byte("MemTotal:        8192 kB\nSwapTotal:       4096 kB\n")
	const none = cgroupview.Unlimited
	for _, test := range []struct {
		name string
		m    cgroupview.Memory
		want machine
	}{
		{"no limit", cgroupview.Memory{Limit: none, SwapLimit: none, SwapCounted: true, Usage: mib},
			machine{total: 8192, free: 7168, available: 7168, swapTotal: 4096, swapFree: 4096}},
		{"as much as the host", cgroupview.Memory{Limit: 8 * mib, SwapLimit: 4 * mib, SwapCounted: true},
			machine{total: 8192, free: 8192, available: 8192, swapTotal: 4096, swapFree: 4096}},
		{"one page less", cgroupview.Memory{Limit: 8*mib - 4*kib, SwapLimit: none, SwapCounted: true},
			machine{total: 8188, free: 8188, available: 8188, swapTotal: 4096, swapFree: 4096, limited: true}},
		{"not of whole kB", cgroupview.Memory{Limit: mib + 1023, Usage: 512*kib + 1, SwapLimit: none, SwapCounted: true},
			machine{total: 1024, free: 512, available: 512, swapTotal: 4096, swapFree: 4096, limited: true}},
		{"used above the limit", cgroupview.Memory{Limit: mib, Usage: 2 * mib, InactiveFile: 256 * kib},
			machine{total: 1024, free: 0, available: 256, limited: true}},
		{"all of it could be given back", cgroupview.Memory{Limit: mib, Usage: mib, ActiveFile: mib, InactiveFile: mib, SlabReclaimable: mib},
			machine{total: 1024, free: 0, available: 1024, limited: true}},
		{"swap alone", cgroupview.Memory{Limit: none, SwapLimit: mib, SwapUsage: 256 * kib, SwapCounted: true},
			machine{total: 8192, free: 8192, available: 8192, swapTotal: 1024, swapFree: 768, limited: true}},
		{"swap used above its limit", cgroupview.Memory{Limit: mib, SwapLimit: 0, SwapUsage: 256 * kib, SwapCounted: true},
			machine{total: 1024, free: 1024, available: 1024, swapTotal: 256, swapFree: 0, limited: true}},
		{"more swap used than the host has left", cgroupview.Memory{Limit: mib, SwapLimit: none, SwapUsage: 8 * mib, SwapCounted: true},
			machine{total: 1024, free: 1024, available: 1024, swapTotal: 8192, swapFree: 0, limited: true}},
	} {
		if got := newMachine(host, &test.m); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
	none1 := cgroupview.Memory{Limit: mib, SwapLimit: none, SwapUsage: 164 * kib, SwapCounted: true}
	if got := newMachine([]byte("MemTotal: 8192 kB\nSwapTotal: 0 kB\n"), &none1); got.swapTotal != 0 || got.swapFree != 0 {
		t.Errorf("a host without swap: %+v", got)
	}
}

func TestAppendLine(t *testing.T) {
	for _, test := range []struct {
		name string
		kb   uint64
		want string
	}{
		{"MemTotal:", 0, "MemTotal:              0 kB\n"},
		{"Active(anon):", 12345678, "Active(anon):   12345678 kB\n"},
		{"SwapTotal:", 1056428520, "SwapTotal:      1056428520 kB\n"},
		{"ANameLongerThanItsColumn:", 7, "ANameLongerThanItsColumn:       7 kB\n"},
		{"Cached:", math.MaxUint64, "Cached:         18446744073709551615 kB\n"},
	} {
		if got := string(appendLine(nil, []byte(test.name), test.kb)); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestAppendMeminfoAllocs(t *testing.T) {
	host := hostText(t, "desktop", "meminfo")
	m := cgroupview.Memory{Limit: gib, Usage: 300 * mib, File: 100 * mib}
	dst := make([]byte, 0, 8192)
	if n := testing.AllocsPerRun(100, func() { appendMeminfo(dst, host, &m) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMeminfo(b *testing.B) {
	host := hostText(b, "desktop", "meminfo")
	m := cgroupview.Memory{Limit: gib, Usage: 300 * mib, File: 100 * mib}
	dst := make([]byte, 0, 8192)
	b.ReportAllocs()
	for b.Loop() {
		appendMeminfo(dst, host, &m)
	}
}

// FuzzMeminfo writes any numbers into any host's text: line by line the template's, and what procfs can read it still can.
func FuzzMeminfo(f *testing.F) {
	for _, base := range []string{"desktop", "arm64", "arm", "s390x"} {
		f.Add(hostText(f, base, "meminfo"), uint64(gib), uint64(gib/2), uint64(gib), uint64(mib), uint64(100*mib))
	}
	f.Add([]byte("MemTotal: 1 kB\nMemFree:\nCached\n:\n\nSwapTotal: 18446744073709551616 kB"), uint64(1), uint64(2), uint64(3), uint64(4), uint64(5))
	f.Add([]byte("MemTotal:\t99999999 kB\nActive(anon): x\n"), uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(math.MaxUint64))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, host []byte, limit, usage, swapLimit, swapUsage, part uint64) {
		m := cgroupview.Memory{Counted: true, Limit: limit, Usage: usage, SwapCounted: true, SwapLimit: swapLimit, SwapUsage: swapUsage,
			Anon: part, File: part, ActiveAnon: part, ActiveFile: part / 2, InactiveFile: part / 3, SlabReclaimable: part / 5, Slab: part}
		text := appendMeminfo(nil, host, &m)
		in := strings.Split(strings.TrimSuffix(string(host), "\n"), "\n")
		out := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		if len(in) != len(out) {
			t.Fatalf("%d lines became %d:\n%s", len(in), len(out), text)
		}
		for i := range in {
			name, _, _ := strings.Cut(in[i], ":")
			if in[i] != out[i] && !strings.HasPrefix(out[i], name+":") {
				t.Errorf("%q became %q", in[i], out[i])
			}
		}
		before, err := procfsMeminfo(t, dir, host)
		if err != nil {
			return
		}
		after, err := procfsMeminfo(t, dir, text)
		if err != nil {
			t.Fatalf("procfs reads the template but not what we made of it: %v\n%s", err, text)
		}
		if before.MemTotal != nil {
			if *after.MemTotal > *before.MemTotal {
				t.Errorf("MemTotal: %d of a host of %d", *after.MemTotal, *before.MemTotal)
			}
			for name, v := range map[string]*uint64{"MemFree": after.MemFree, "MemAvailable": after.MemAvailable, "Cached": after.Cached, "Active": after.Active, "AnonPages": after.AnonPages} {
				if v != nil && !bytes.Equal(text, host) && strings.Count(string(host), "MemTotal") == 1 && *v > *after.MemTotal {
					t.Errorf("%s: %d is above MemTotal: %d", name, *v, *after.MemTotal)
				}
			}
		}
	})
}

func procfsMeminfo(t testing.TB, dir string, text []byte) (procfs.Meminfo, error) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "meminfo"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	fs, err := procfs.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fs.Meminfo()
}
