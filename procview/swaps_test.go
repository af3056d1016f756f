package procview

import (
	"math"
	"testing"
)

const (
	wideSwaps   = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	narrowSwaps = "Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n"
	area        = "/dev/vda2                               partition\t2097148\t\t0\t\t-2\n"
	virtual     = "none                                    virtual\t\t" // 40 columns, as the kernel's
)

func TestAppendSwaps(t *testing.T) {
	for _, test := range []struct {
		name, host string
		v          machine
		want       string
	}{
		{"no limit", wideSwaps + area, machine{swapTotal: 2097148, swapFree: 1}, wideSwaps + area},
		{"limited", wideSwaps + area, machine{limited: true, swapTotal: 1024, swapFree: 1000}, wideSwaps + virtual + "1024\t\t24\t\t0\n"},
		{"no swap", wideSwaps + area, machine{limited: true}, wideSwaps},
		{"nor has the host", wideSwaps, machine{limited: true}, wideSwaps},
		{"all of it used", wideSwaps + area, machine{limited: true, swapTotal: 8}, wideSwaps + virtual + "8\t\t8\t\t0\n"},
		{"the number fills its column", wideSwaps + area, machine{limited: true, swapTotal: 10000000, swapFree: 1}, wideSwaps + virtual + "10000000\t9999999\t\t0\n"},
		{"narrow columns", narrowSwaps + area, machine{limited: true, swapTotal: 1024, swapFree: 1000}, narrowSwaps + virtual + "1024\t24\t0\n"},
		{"as much as there are numbers", wideSwaps, machine{limited: true, swapTotal: math.MaxUint64 / 1024, swapFree: 0}, wideSwaps + virtual + "18014398509481983\t18014398509481983\t0\n"},
	} {
		if got := string(appendSwaps(nil, []byte(test.host), &test.v)); got != test.want {
			t.Errorf("%s: got:\n%s\nwant:\n%s", test.name, got, test.want)
		}
	}
}

func TestAppendSwapsAllocs(t *testing.T) {
	host := []byte(wideSwaps + area)
	v := machine{limited: true, swapTotal: 1 << 40, swapFree: 77}
	dst := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() { appendSwaps(dst, host, &v) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSwaps(b *testing.B) {
	host := []byte(wideSwaps + area)
	v := machine{limited: true, swapTotal: 1 << 40, swapFree: 77}
	dst := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		appendSwaps(dst, host, &v)
	}
}
