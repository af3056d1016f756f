package cgroupview

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"lensfs/cgroupview/kfile"
)

func TestQuotaMode(t *testing.T) {
	for _, s := range []string{"min", "ignore", "first"} {
		if m, err := ParseQuotaMode(s); string(m) != s || err != nil {
			t.Errorf("%s: %q, %v", s, m, err)
		}
	}
	for _, s := range []string{"", "Min", "max"} {
		if _, err := ParseQuotaMode(s); err == nil || !strings.Contains(err.Error(), "min, ignore, first") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestQuotaCPUs(t *testing.T) {
	for _, test := range []struct {
		q    quota
		want int
	}{
		{quota{10000, 100000}, 1},
		{quota{100000, 100000}, 1},
		{quota{100001, 100000}, 2},
		{quota{250000, 100000}, 3},
		{quota{1000, 1000000}, 1},
		{quota{0, 100000}, 0}, // CPUs makes one of it
		{quota{1<<44 - 1, 1000}, MaxCPUs},
	} {
		if got := test.q.cpus(); got != test.want {
			t.Errorf("%v: got %d, want %d", test.q, got, test.want)
		}
	}
}

// TestQuotaLess compares with fractions, up to the largest quota that the kernel takes.
func TestQuotaLess(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	random := func() quota {
		if rng.IntN(10) == 0 {
			return quota{}
		}
		return quota{run: rng.Uint64() >> (20 + rng.IntN(44)), period: 1000 + rng.Uint64N(1000000-999)}
	}
	for range 10000 {
		a, b := random(), random()
		want := a.period != 0
		if a.period != 0 && b.period != 0 {
			x := new(big.Rat).SetFrac(new(big.Int).SetUint64(a.run), new(big.Int).SetUint64(a.period))
			y := new(big.Rat).SetFrac(new(big.Int).SetUint64(b.run), new(big.Int).SetUint64(b.period))
			want = x.Cmp(y) < 0
		} else if a.period == 0 {
			want = false
		}
		if got := a.less(b); got != want {
			t.Fatalf("%v below %v: got %v", a, b, got)
		}
	}
}

func TestCPUs(t *testing.T) {
	const dir, dir1 = "sys/fs/cgroup/web/", "sys/fs/cgroup/cpu,cpuacct/web/"
	for _, test := range []struct {
		name string
		tree tree
		mode QuotaMode
		want string
	}{
		{"v2", v2(web()), QuotaMin, "1-2"},
		{"v2, no quota", v2(web(), tree{dir + "cpu.max": "max 100000\n"}), QuotaMin, "1-4"},
		{"v2, a period alone", v2(web(), tree{dir + "cpu.max": "max"}), QuotaMin, "1-4"},
		{"v2, quota of the group above", v2(tree{"sys/fs/cgroup/cpu.max": "10000 100000\n"}, web()), QuotaMin, "1"},
		{"v2, a period of nothing", v2(web(), tree{dir + "cpu.max": "5 0\n"}), QuotaMin, "1-4"},
		{"v2, a quota of nothing", v2(web(), tree{dir + "cpu.max": "0 100000\n"}), QuotaMin, "1"},
		{"v2, ignore", v2(web()), QuotaIgnore, "1-4"},
		{"v2, first", v2(web(), tree{dir + "cpuset.cpus.effective": "5\n"}), QuotaFirst, "0,5"},
		{"v2, first, within the set", v2(web()), QuotaFirst, "1-2"},
		{"v2, an empty set", v2(web(), tree{dir + "cpuset.cpus.effective": "\n"}), QuotaIgnore, "0-7"},
		{"v2, a set of CPUs that are off", v2(web(), tree{dir + "cpuset.cpus.effective": "8-15\n"}), QuotaIgnore, "0-7"},
		{"v2, some of them are off", v2(web(), tree{dir + "cpuset.cpus.effective": "6-15\n"}), QuotaIgnore, "6-7"},
		{"v1", v1(web1()), QuotaMin, "1-2"},
		{"v1, no quota", v1(web1(), tree{dir1 + "cpu.cfs_quota_us": "-1\n"}), QuotaMin, "1-4"},
		{"v1, first: the set, and then the lowest of the others", v1(web1(), tree{dir1 + "cpu.cfs_quota_us": "650000\n", "sys/fs/cgroup/cpuset/web/cpuset.effective_cpus": "0,2-3,7\n"}), QuotaFirst, "0-5,7"},
	} {
		root := t.TempDir()
		test.tree.write(t, root)
		r, err := New(Options{Root: root, Quota: test.mode})
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Of(120).CPUs()
		if s := string(got.Append(nil)); s != test.want || err != nil {
			t.Errorf("%s: got %s, %v; want %s", test.name, s, err, test.want)
		}
		if got, err := r.Host().CPUs(); string(got.Append(nil)) != "0-7" || err != nil {
			t.Errorf("%s: the host: %s, %v", test.name, got.Append(nil), err)
		}
	}
}

// TestCPUsElsewhere has the host's CPUs in a directory of their own: where a daemon sees them if its own views cover /sys.
func TestCPUsElsewhere(t *testing.T) {
	root, cpus := t.TempDir(), t.TempDir()
	v2(web()).write(t, root)
	tree{"online": "2-3\n"}.write(t, cpus)
	r, err := New(Options{Root: root, CPUs: cpus})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Of(120).CPUs(); string(got.Append(nil)) != "2-3" || err != nil {
		t.Errorf("%s, %v", got.Append(nil), err)
	}
}

func TestCPUsMalformed(t *testing.T) {
	for _, test := range []struct{ file, text string }{
		{"cpu.max", "x 100000\n"}, {"cpu.max", "100000\n"}, {"cpu.max", "100000 x\n"}, {"cpu.max", "\n"}, {"cpuset.cpus.effective", "1-\n"},
	} {
		r, _ := v2(web(), tree{"sys/fs/cgroup/web/" + test.file: test.text}).resolver(t)
		if _, err := r.Of(120).CPUs(); !errors.Is(err, kfile.ErrSyntax) || !strings.Contains(err.Error(), "web/"+test.file) {
			t.Errorf("%s: %q: %v", test.file, test.text, err)
		}
	}
	r, _ := v1(web1(), tree{"sys/fs/cgroup/cpu,cpuacct/web/cpu.cfs_period_us": "x\n"}).resolver(t)
	if _, err := r.Of(120).CPUs(); !errors.Is(err, kfile.ErrSyntax) || !strings.Contains(err.Error(), "cpu.cfs_period_us") {
		t.Error(err)
	}
}

// FuzzQuota reads cpu.max, whatever it holds: a quota that the kernel could have written, or an error.
func FuzzQuota(f *testing.F) {
	for _, seed := range []string{"max 100000\n", "50000 100000\n", "100000", "", "-1 5", "18446744073709551615 1\n", "0 0\n"} {
		f.Add([]byte(seed))
	}
	root := f.TempDir()
	dir, err := kfile.Open(root, true)
	if err != nil {
		f.Fatal(err)
	}
	h := hierarchy{dir: dir, v2: true, root: "/"}
	f.Fuzz(func(t *testing.T, text []byte) {
		tree{"a/cpu.max": string(text)}.write(t, root)
		var b kfile.Buffer
		q, err := h.quotaOf(&b, "/a")
		if err != nil {
			if !errors.Is(err, kfile.ErrSyntax) || !strings.Contains(err.Error(), filepath.Join(root, "a/cpu.max")) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if q.period != 0 && q.run < math.MaxUint64-q.period {
			if n := q.cpus(); n < 0 || n > MaxCPUs {
				t.Errorf("%q: %d CPUs", text, n)
			}
		}
		if strings.HasPrefix(string(kfile.Trim(text)), "max ") && q.period != 0 {
			t.Errorf("%q: %v", text, q)
		}
	})
}
