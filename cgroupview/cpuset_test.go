package cgroupview

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lensfs/cgroupview/kfile"
)

func set(t testing.TB, list string) CPUSet {
	t.Helper()
	s, err := ParseCPUSet([]byte(list))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *CPUSet) slice() (cpus []int) {
	for n := s.Next(0); n >= 0; n = s.Next(n + 1) {
		cpus = append(cpus, n)
	}
	return cpus
}

func TestParseCPUSet(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"0", "0"},
		{"0-3\n", "0-3"},
		{"0,2-3,7", "0,2-3,7"},
		{"0-1,2-3", "0-3"},
		{"7,0,3-4,2", "0,2-4,7"},
		{"5-5", "5"},
		{"1,1,1-2", "1-2"},
		{"63-64,127-128", "63-64,127-128"},
		{"8191", "8191"},
		{"0-8191", "0-8191"},
		{"", ""},
		{"\n", ""},
		{" 3 \n", "3"},
	} {
		s, err := ParseCPUSet([]byte(test.text))
		if got := string(s.Append(nil)); got != test.want || err != nil {
			t.Errorf("%q: got %q, %v; want %q", test.text, got, err, test.want)
		}
	}
	for _, text := range []string{"8192", "0-8192", "3-1", "1,", ",1", ",", "1,,2", "-", "1-", "-1", "1-2-3", "0-7:1/2", "a", "0x1", "0 1", "18446744073709551616", "1-18446744073709551617"} {
		if s, err := ParseCPUSet([]byte(text)); err != kfile.ErrSyntax || s.Count() != 0 {
			t.Errorf("%q: got %q, %v", text, s.Append(nil), err)
		}
	}
}

func TestCPUSetFirst(t *testing.T) {
	for _, test := range []struct {
		list string
		n    int
		want string
	}{
		{"0,2-3,7", 1, "0"},
		{"0,2-3,7", 2, "0,2"},
		{"0,2-3,7", 4, "0,2-3,7"},
		{"0,2-3,7", 100, "0,2-3,7"},
		{"0,2-3,7", 0, ""},
		{"62-66", 3, "62-64"},
		{"0-255", 65, "0-64"},
		{"8190-8191", 1, "8190"},
		{"", 1, ""},
	} {
		s := set(t, test.list)
		s.First(test.n)
		if got := string(s.Append(nil)); got != test.want {
			t.Errorf("the first %d of %s: got %s, want %s", test.n, test.list, got, test.want)
		}
	}
}

func TestCPUSetNext(t *testing.T) {
	s := set(t, "1,63-64,200")
	for n, want := range map[int]int{0: 1, 1: 1, 2: 63, 63: 63, 64: 64, 65: 200, 200: 200, 201: -1, 8191: -1, 8192: -1} {
		if got := s.Next(n); got != want {
			t.Errorf("from %d: got %d, want %d", n, got, want)
		}
	}
	for n, want := range map[int]bool{-1: false, 0: false, 1: true, 64: true, 8191: false, 8192: false, 1 << 40: false} {
		if s.Has(n) != want {
			t.Errorf("%d: got %v", n, !want)
		}
	}
}

// TestCPUSetProperties does to sets what it does to sorted slices, and compares.
func TestCPUSetProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() (s CPUSet, cpus []int) {
		limit := []int{4, 70, 300, MaxCPUs}[rng.IntN(4)]
		for range rng.IntN(40) {
			n := rng.IntN(limit)
			s.Add(n)
			cpus = append(cpus, n)
		}
		slices.Sort(cpus)
		return s, slices.Compact(cpus)
	}
	for range 2000 {
		a, as := random()
		b, bs := random()
		if got := a.slice(); !slices.Equal(got, as) {
			t.Fatalf("%v is gone through as %v", as, got)
		}
		if a.Count() != len(as) {
			t.Fatalf("%v: counted %d", as, a.Count())
		}
		both, without, first := a, a, a
		both.Intersect(&b)
		if want := slices.DeleteFunc(slices.Clone(as), func(n int) bool { return !slices.Contains(bs, n) }); !slices.Equal(both.slice(), want) {
			t.Fatalf("%v and %v: got %v", as, bs, both.slice())
		}
		without.Subtract(&b)
		if want := slices.DeleteFunc(slices.Clone(as), func(n int) bool { return slices.Contains(bs, n) }); !slices.Equal(without.slice(), want) {
			t.Fatalf("%v without %v: got %v", as, bs, without.slice())
		}
		n := rng.IntN(50)
		first.First(n)
		if want := as[:min(n, len(as))]; !slices.Equal(first.slice(), want) {
			t.Fatalf("the first %d of %v: got %v", n, as, first.slice())
		}
		text := a.Append([]byte("x"))
		again := set(t, string(text[1:]))
		if !again.Equal(&a) || text[0] != 'x' {
			t.Fatalf("%v is written %q", as, text)
		}
		if same := slices.Equal(as, bs); a.Equal(&b) != same {
			t.Fatalf("%v and %v: equal is %v", as, bs, !same)
		}
	}
}

func TestCPUSetAllocs(t *testing.T) {
	text, dst := []byte("0,2-3,7,64-127,8000-8191\n"), make([]byte, 0, 128)
	if n := testing.AllocsPerRun(100, func() {
		s, _ := ParseCPUSet(text)
		s.First(100)
		s.Append(dst)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzCPUSet compares with the list read in the simplest way, and with what is read from what was written.
func FuzzCPUSet(f *testing.F) {
	for _, seed := range []string{"", "0", "0,2-3,7\n", "0-8191", "8192", "1,", "3-1", "0-3,2-5", "18446744073709551615-18446744073709551616"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.Count(text, []byte("-")) > 100 {
			return // each may take 8192 steps
		}
		s, err := ParseCPUSet(text)
		want, ok := naiveCPUs(string(text))
		if (err == nil) != ok {
			t.Fatalf("%q: %v, in the simple way: %v", text, err, ok)
		}
		if err != nil {
			return
		}
		if !slices.Equal(s.slice(), want) {
			t.Fatalf("%q: %v, in the simple way: %v", text, s.slice(), want)
		}
		if again := set(t, string(s.Append(nil))); !again.Equal(&s) {
			t.Errorf("%q is written %q", text, s.Append(nil))
		}
	})
}

func naiveCPUs(text string) (cpus []int, ok bool) {
	if text = string(bytes.TrimSpace([]byte(text))); text == "" {
		return nil, true
	}
	for part := range strings.SplitSeq(text, ",") {
		lo, hi, ranged := strings.Cut(part, "-")
		if !ranged {
			hi = lo
		}
		first, err1 := strconv.ParseUint(lo, 10, 64)
		last, err2 := strconv.ParseUint(hi, 10, 64)
		if err1 != nil || err2 != nil || first > last || last >= MaxCPUs {
			return nil, false
		}
		for n := first; n <= last; n++ {
			cpus = append(cpus, int(n))
		}
	}
	slices.Sort(cpus)
	return slices.Compact(cpus), true
}

func BenchmarkParseCPUSet(b *testing.B) {
	text := []byte("0-63,128-191\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseCPUSet(text); err != nil {
			b.Fatal(err)
		}
	}
}
