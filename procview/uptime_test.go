package procview

import (
	"math"
	"testing"
	"time"
)

func TestAppendUptime(t *testing.T) {
	for _, test := range []struct {
		age, idle time.Duration
		want      string
	}{
		{0, 0, "0.00 0.00\n"},
		{9999 * time.Microsecond, 10 * time.Millisecond, "0.00 0.01\n"},
		{time.Second + 90*time.Millisecond, 59*time.Second + 999*time.Millisecond, "1.09 59.99\n"},
		{365 * 24 * time.Hour, 256 * 365 * 24 * time.Hour, "31536000.00 8073216000.00\n"},
		{-time.Second, -1, "0.00 0.00\n"},
		{math.MaxInt64, math.MaxInt64, "9223372036.85 9223372036.85\n"},
	} {
		if got := string(appendUptime(nil, test.age, test.idle)); got != test.want {
			t.Errorf("%v, %v: got %q, want %q", test.age, test.idle, got, test.want)
		}
	}
}

func TestAppendUptimeAllocs(t *testing.T) {
	dst := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { appendUptime(dst, 90061*time.Second, 350000*time.Second) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkUptime(b *testing.B) {
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		appendUptime(dst, 90061*time.Second, 350000*time.Second)
	}
}
