package procview

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lensfs/cgroupview"

	"github.com/prometheus/procfs"
)

func cpus(t testing.TB, list string) cgroupview.CPUSet {
	t.Helper()
	set, err := cgroupview.ParseCPUSet([]byte(list))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestParseCpuinfo(t *testing.T) {
	for _, test := range []struct {
		base, all  string
		head, tail bool
		packages   int
		cores      int // of the whole host; 0 where the architecture does not say
	}{
		{base: "desktop", all: "0-7", packages: 1, cores: 4},
		{base: "epyc", all: "0-255", packages: 2, cores: 128},
		{base: "arm64", all: "0-3"},
		{base: "arm", all: "0-3", tail: true},
		{base: "s390x", all: "0-7", head: true, packages: 2, cores: 4},
	} {
		info := parseCpuinfo(hostText(t, test.base, "cpuinfo"))
		if got := string(info.all.Append(nil)); got != test.all {
			t.Errorf("%s: CPUs %s, want %s", test.base, got, test.all)
		}
		if (len(info.head) > 0) != test.head || (len(info.tail) > 0) != test.tail {
			t.Errorf("%s: head %q, tail %q", test.base, info.head, info.tail)
		}
		packages, cores := map[int]bool{}, map[int]bool{}
		for _, b := range info.blocks {
			if b.pkg >= 0 {
				packages[b.pkg], cores[b.core] = true, true
			}
		}
		if len(packages) != test.packages || len(cores) != test.cores {
			t.Errorf("%s: %d packages, %d cores, want %d and %d", test.base, len(packages), len(cores), test.packages, test.cores)
		}
	}
}

func TestAppendCpuinfo(t *testing.T) {
	for _, test := range []struct{ name, host, shown, want string }{
		{"all is the host's own text", "processor\t: 0\n\nprocessor\t: 1\n\n", "0-1", "processor\t: 0\n\nprocessor\t: 1\n\n"},
		{"number kept", "processor\t: 0\nx : a\n\nprocessor\t: 1\nx : b\n\n", "1", "processor\t: 1\nx : b\n\n"},
		{"nothing that could be cut", "a text of its own\n", "0", "a text of its own\n"},
		{"a CPU that the text does not have", "processor\t: 0\n\nprocessor\t: 2\n\n", "0-1", "processor\t: 0\n\n"},
		{"beyond all of them", "processor\t: 0\n\nprocessor\t: 2\n\n", "0,8191", "processor\t: 0\n\n"},
		{"empty", "", "0", ""},
		{"powerpc's tail", "processor\t: 0\nclock\t: 1\n\nprocessor\t: 1\nclock\t: 2\n\ntimebase\t: 512000000\nplatform\t: pSeries\n", "0",
			"processor\t: 0\nclock\t: 1\n\ntimebase\t: 512000000\nplatform\t: pSeries\n"},
		{"siblings without a package are the host's", "processor\t: 0\nsiblings\t: 2\n\nprocessor\t: 1\nsiblings\t: 2\n\n", "0", "processor\t: 0\nsiblings\t: 2\n\n"},
		{"core ids repeat in each package", "processor\t: 0\nphysical id\t: 0\nsiblings\t: 2\ncore id\t: 0\ncpu cores\t: 2\n\n" +
			"processor\t: 1\nphysical id\t: 0\nsiblings\t: 2\ncore id\t: 1\ncpu cores\t: 2\n\n" +
			"processor\t: 2\nphysical id\t: 3\nsiblings\t: 1\ncore id\t: 0\ncpu cores\t: 1\n\n", "1-2",
			"processor\t: 1\nphysical id\t: 0\nsiblings\t: 1\ncore id\t: 1\ncpu cores\t: 1\n\n" +
				"processor\t: 2\nphysical id\t: 3\nsiblings\t: 1\ncore id\t: 0\ncpu cores\t: 1\n\n"},
		{"a count without its number", "# processors:\n\ncpu number : 0\n\ncpu number : 1\n", "1", "# processors: 1\n\ncpu number : 1\n"},
		{"a count at the end of everything", "cpu number : 0\n\n# processors:", "5", "# processors:"},
	} {
		shown := cpus(t, test.shown)
		if got := string(appendCpuinfo(nil, parseCpuinfo([]byte(test.host)), &shown)); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// TestAppendCpuinfoKeepsDst has a text before, whose end must not be taken for that of the last block.
func TestAppendCpuinfoKeepsDst(t *testing.T) {
	info := parseCpuinfo([]byte("cpu number : 0\n\ncpu number : 1\n"))
	shown := cpus(t, "7")
	if got := string(appendCpuinfo([]byte("before\n\n"), info, &shown)); got != "before\n\n" {
		t.Errorf("got %q", got)
	}
}

func TestAppendCpuinfoAllocs(t *testing.T) {
	for _, base := range []string{"desktop", "epyc", "arm64", "arm", "s390x"} {
		info := parseCpuinfo(hostText(t, base, "cpuinfo"))
		for _, list := range []string{"0", "1-2", "0-255"} {
			shown, dst := cpus(t, list), make([]byte, 0, 512<<10)
			if n := testing.AllocsPerRun(20, func() { appendCpuinfo(dst, info, &shown) }); n != 0 {
				t.Errorf("%s, %s: %v allocations", base, list, n)
			}
		}
	}
}

func BenchmarkCpuinfo256(b *testing.B) {
	info := parseCpuinfo(hostText(b, "epyc", "cpuinfo"))
	for _, list := range []string{"0", "60-67,188-191", "0-127", "0-255"} {
		b.Run(list, func(b *testing.B) {
			shown, dst := cpus(b, list), make([]byte, 0, 512<<10)
			b.ReportAllocs()
			for b.Loop() {
				appendCpuinfo(dst, info, &shown)
			}
		})
	}
}

func BenchmarkParseCpuinfo256(b *testing.B) {
	text := hostText(b, "epyc", "cpuinfo")
	b.ReportAllocs()
	for b.Loop() {
		parseCpuinfo(text)
	}
}

// FuzzCpuinfo cuts any text and shows any CPUs of it. In a text that lists CPUs as kernels do, those shown and no others are there.
func FuzzCpuinfo(f *testing.F) {
	for _, base := range []string{"desktop", "arm64", "arm", "s390x"} {
		f.Add(hostText(f, base, "cpuinfo"), []byte("1-2"))
		f.Add(hostText(f, base, "cpuinfo"), []byte("0,3,7"))
	}
	f.Add([]byte("processor: 1\n\nprocessor: 0"), []byte("0"))
	f.Add([]byte("# processors:"), []byte("0"))
	f.Add([]byte("# processors:\n\ncpu number:0"), []byte("1"))
	f.Add([]byte("processor 9:\n\nprocessor\t: 9\nsiblings:\ncore id : 18446744073709551616\nphysical id:\ncpu cores"), []byte("9,8191"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text, list []byte) {
		shown, err := cgroupview.ParseCPUSet(list)
		if err != nil {
			return
		}
		info := parseCpuinfo(text)
		out := appendCpuinfo(nil, info, &shown)
		if shown.Equal(&info.all) || info.all.Count() == 0 {
			if !bytes.Equal(out, text) {
				t.Fatalf("all CPUs are shown, but %q became %q", text, out)
			}
			return
		}
		for n := shown.Next(0); n >= 0 && n < len(info.blocks); n = shown.Next(n + 1) {
			line, _, _ := bytes.Cut(info.blocks[n].text, []byte("\n"))
			if !bytes.Contains(out, line) {
				t.Errorf("CPU %d is not shown: %q", n, out)
			}
		}
		want := info.all
		want.Intersect(&shown)
		if !ofKernel(text) {
			return
		}
		again := parseCpuinfo(out)
		if !again.all.Equal(&want) {
			t.Errorf("shown are the CPUs %s, not %s:\n%s", again.all.Append(nil), want.Append(nil), out)
		}
		before, err := procfsCpuinfo(t, dir, text)
		if err != nil || want.Count() == 0 {
			return
		}
		after, err := procfsCpuinfo(t, dir, out)
		if err != nil {
			t.Fatalf("procfs reads the host's but not ours: %v\n%s", err, out)
		}
		before = slices.DeleteFunc(before, func(c procfs.CPUInfo) bool { return !want.Has(int(c.Processor)) })
		if len(after) != len(before) {
			t.Fatalf("procfs sees %d CPUs instead of %d:\n%s", len(after), len(before), out)
		}
		for i := range after {
			after[i].Siblings, after[i].CPUCores = before[i].Siblings, before[i].CPUCores
			if after[i].Processor != before[i].Processor || after[i].ModelName != before[i].ModelName || after[i].CoreID != before[i].CoreID {
				t.Errorf("procfs sees %+v instead of %+v", after[i], before[i])
			}
		}
	})
}

// ofKernel says whether a text has only blocks of CPUs, each once and in order, and all but the last followed by one blank line.
func ofKernel(text []byte) bool {
	last := -1
	for block := range bytes.SplitSeq(bytes.TrimRight(text, "\n"), []byte("\n\n")) {
		n, ok := blockNumber(block)
		if !ok || n <= last || bytes.HasPrefix(block, []byte("\n")) || bytes.Count(block, []byte("processor")) > 1 {
			return false
		}
		last = n
	}
	return bytes.HasSuffix(text, []byte("\n")) && !bytes.HasSuffix(text, []byte("\n\n\n"))
}

func procfsCpuinfo(t testing.TB, dir string, text []byte) ([]procfs.CPUInfo, error) {
	t.Helper()
	defer func() {
		if recover() != nil { // procfs takes the blank behind each colon for granted
			t.Skip()
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "cpuinfo"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	fs, err := procfs.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fs.CPUInfo()
}
