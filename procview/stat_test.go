package procview

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lensfs/cgroupview"
)

const hostStat = "cpu  50 10 30 90 7 1 2 3 0 0\ncpu0 25 5 15 45 3 1 1 3 0 0\ncpu1 25 5 15 45 4 0 1 0 0 0\n" +
	"intr 1462898 27885 0 0\nctxt 115315\nbtime 769041601\nprocesses 86031\nprocs_running 6\nprocs_blocked 2\nsoftirq 183433 0 21755 12 39\n"

func TestReduceStat(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{hostStat, "cpu  50 10 30 90 7 1 2 3 0 0\nintr 1462898\nctxt 115315\nbtime 769041601\nprocesses 86031\nprocs_running 6\nprocs_blocked 2\nsoftirq 183433 0 0 0 0\n"},
		{"", ""},
		{"intr", "intr\n"},
		{"intr 5", "intr 5\n"},
		{"softirq\nintr\t7 8\n\nnovelty  1 2\n", "softirq\nintr\t7\n\nnovelty  1 2\n"},
		{"cpu\ncpu0\ncpux 1\ncpu1 7\ncpufreq 800\n", "cpu\ncpux 1\ncpufreq 800\n"},
	} {
		if got := string(reduceStat([]byte(test.text))); got != test.want {
			t.Errorf("%q: got %q, want %q", test.text, got, test.want)
		}
	}
}

func TestAppendStat(t *testing.T) {
	times := []cgroupview.CPUTime{
		{}, {User: 19999 * time.Microsecond, System: 20 * time.Millisecond, Idle: time.Hour, Steal: 5 * time.Second},
		{User: time.Second}, {Idle: math.MaxInt64}, // hidden now, as it was
	}
	text, shown, others := reduceStat([]byte(hostStat)), cpus(t, "1-2"), cpus(t, "2,9")
	got := string(appendStat([]byte("before\n"), text, times, &shown, cgroupview.Tasks{Total: 9, Running: 3, Blocked: 1, LastPid: 4711}, 4711))
	want := "before\ncpu  101 0 2 922337563685 0 0 0 500 0 0\ncpu1 1 0 2 360000 0 0 0 500 0 0\ncpu2 100 0 0 0 0 0 0 0 0 0\n" +
		"intr 1462898\nctxt 115315\nbtime 769041601\nprocesses 4711\nprocs_running 3\nprocs_blocked 1\nsoftirq 183433 0 0 0 0\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	// Numbers that cannot be; columns of a kernel of before steal, and of one to come.
	got = string(appendStat(nil, []byte("cpu  1 2 3 4\nprocs_running 0\nprocs_blocked 0\ncpu 1 2 3 4 5 6 7 8 9 10 11\n"), times, &others, cgroupview.Tasks{Running: -1, Blocked: -5}, 4711))
	want = "cpu  101 0 2 922337563685\ncpu2 100 0 0 0\nprocs_running 1\nprocs_blocked 0\ncpu  101 0 2 922337563685 0 0 0 500 0 0 0\ncpu2 100 0 0 0 0 0 0 0 0 0 0\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestStatFreshness changes the host's text under the daemon. The host's own processes see it at once; a container, whose text is not longer for it,
// after a tenth of a second.
func TestStatFreshness(t *testing.T) {
	c := readCase(t, "v2")
	root := c.root(t)
	host, r := c.open(t, root)
	read := func(container *cgroupview.Container) string {
		t.Helper()
		text, err := Stat(nil, host, container)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := read(r.Of(caller))
	text := strings.Replace(hostStat, "intr 1462898", "intr 1462898"+strings.Repeat(" 12345", 5000), 1)
	replace(t, filepath.Join(root, "proc/stat"), text)
	if got := read(r.Host()); got != text {
		t.Errorf("the host: %d bytes, want %d", len(got), len(text))
	}
	time.Sleep(statEvery + Tick)
	if got := read(r.Of(caller)); !strings.Contains(got, "\nintr 1462898\n") || len(got) > len(before) {
		t.Errorf("%d bytes, before %d:\n%s", len(got), len(before), got)
	}
}

// FuzzStat reads a host's stat of anything: what comes out has no more lines than it and the CPUs shown, and does not change when it is reduced again.
func FuzzStat(f *testing.F) {
	for _, seed := range []string{hostStat, "", "cpu", "cpu  \ncpu0", "intr \nsoftirq  ", "softirq 1 2", "\n\n\ncpu 1"} {
		f.Add([]byte(seed))
	}
	times := make([]cgroupview.CPUTime, 4)
	shown := cpus(f, "1,3")
	f.Fuzz(func(t *testing.T, text []byte) {
		lines, length := bytes.Count(text, []byte("\n"))+1, len(text)
		kept := reduceStat(bytes.Clone(text))
		if len(kept) > length+1 || bytes.Count(kept, []byte("\n")) > lines {
			t.Errorf("%q became %q", text, kept)
		}
		if again := reduceStat(bytes.Clone(kept)); !bytes.Equal(again, kept) {
			t.Errorf("%q became %q, and that %q", text, kept, again)
		}
		got := appendStat(nil, kept, times, &shown, cgroupview.Tasks{}, 4711)
		if n := bytes.Count(got, []byte("\n")); n > 3*lines {
			t.Errorf("%q: %d lines", text, n)
		}
		for line := range bytes.Lines(got) {
			if n, one := cpuNumber(bytes.Fields(append(line[:len(line):len(line)], " x"...))[0]); one && n != 1 && n != 3 {
				t.Errorf("%q: %q", text, line)
			}
		}
	})
}

// largeStat is the text of a machine of so many CPUs, and what a container sees of them.
func largeStat(n int) (text []byte, times []cgroupview.CPUTime, shown cgroupview.CPUSet) {
	text = []byte("cpu  50 10 30 90 7 1 2 3 0 0\nintr 1462898\nctxt 115315\nbtime 769041601\nprocesses 86031\nprocs_running 6\nprocs_blocked 2\nsoftirq 183433 0 0 0\n")
	for i := range n {
		times = append(times, cgroupview.CPUTime{User: 90061 * time.Second, System: 5555 * time.Second, Idle: 350000 * time.Second})
		shown.Add(i)
	}
	return text, times, shown
}

func TestAppendStatAllocs(t *testing.T) {
	text, times, shown := largeStat(64)
	dst := make([]byte, 0, 64<<10)
	if n := testing.AllocsPerRun(100, func() { appendStat(dst, text, times, &shown, cgroupview.Tasks{}, 4711) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	raw, reduced := []byte(hostStat), make([]byte, len(hostStat))
	if n := testing.AllocsPerRun(100, func() { copy(reduced, raw); reduceStat(reduced) }); n != 0 {
		t.Errorf("to reduce it: %v allocations", n)
	}
}

func BenchmarkAppendStat(b *testing.B) {
	for _, n := range []int{2, 64, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			text, times, shown := largeStat(n)
			dst := make([]byte, 0, 64<<10)
			b.ReportAllocs()
			for b.Loop() {
				appendStat(dst, text, times, &shown, cgroupview.Tasks{}, 4711)
			}
		})
	}
}

func BenchmarkStat(b *testing.B) {
	for _, name := range []string{"v1", "v2", "stat-by-cpu", "cpus-256"} {
		b.Run(name, func(b *testing.B) {
			host, container := openCase(b, name)
			dst := make([]byte, 0, 64<<10)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Stat(dst, host, container); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
