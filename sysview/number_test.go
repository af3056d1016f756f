package sysview

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNumbersStay: containers hold numbers for as long as they live, and the next version of lensfs has to know them.
func TestNumbersStay(t *testing.T) {
	for file, want := range map[string]uint64{
		"":                                 0x800000000,
		"kernel_max":                       0x800055660,
		"cpu0":                             0x80047000e,
		"cpu0/topology/core_id":            0x80052c3b5,
		"cpu1/topology/core_id":            0x80092c3b5,
		"cpu8190/online":                   0xfffc883fd,
		"cpufreq":                          0x8001d6d78,
		"cpufreq/policy0/scaling_cur_freq": 0x80056dd3f,
	} {
		if got, ok := number(file); got != want || !ok {
			t.Errorf("%q: %#x, %v", file, got, ok)
		}
	}
	if n, ok := number("cpu8191/online"); ok {
		t.Errorf("CPU 8191: %#x", n)
	}
}

func TestSplit(t *testing.T) {
	for file, want := range map[string]struct {
		at  place
		cpu int
	}{
		"cpu0":                    {place{"cpu", ""}, 0},
		"cpu12/cache/index0":      {place{"cpu", "cache/index0"}, 12},
		"cpufreq":                 {place{"", "cpufreq"}, -1},
		"cpufreq/boost":           {place{"", "cpufreq/boost"}, -1},
		"cpufreq/policy3":         {place{"cpufreq/policy", ""}, 3},
		"cpufreq/policy3/x":       {place{"cpufreq/policy", "x"}, 3},
		"cpufreq/policyx":         {place{"", "cpufreq/policyx"}, -1},
		"cpu01":                   {place{"", "cpu01"}, -1},
		"cpu":                     {place{"", "cpu"}, -1},
		"cpu99999999999999999999": {place{"", "cpu99999999999999999999"}, -1},
		"power/cpu1":              {place{"", "power/cpu1"}, -1},
	} {
		at, cpu := split(file)
		if at != want.at || cpu != want.cpu || at.path(cpu) != file {
			t.Errorf("%s: %v %d", file, at, cpu)
		}
	}
}

// Every number of a host is its own, and a daemon that has not looked anything up finds what it means.
func TestNumbersOfAnotherDaemon(t *testing.T) {
	d, c, root := newDir(t, hostOf(upTo(256)...), "0", false)
	cpu := filepath.Join(root, "sys/devices/system/cpu")
	if err := os.Symlink("../cpufreq/policy9", filepath.Join(cpu, "cpu9/cpufreq")); err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]string{}
	err := filepath.WalkDir(cpu, func(path string, _ os.DirEntry, err error) error {
		file, _ := filepath.Rel(cpu, path)
		if err != nil || file == "." {
			return err
		}
		n := d.mustFind(t, c, file)
		if other := seen[n]; other != "" || n >= 1<<NumberBits || !Has(n) {
			t.Errorf("%s has the number %#x, as %s", file, n, other)
		}
		seen[n] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) < 256*9 || len(d.places) > 30 {
		t.Errorf("%d files, %d places remembered", len(seen), len(d.places))
	}
	for n, file := range seen {
		later, err := Open(cpu, false)
		if err != nil {
			t.Fatal(err)
		}
		got, err := later.Path(n)
		if err != nil || got != file {
			t.Errorf("%#x is %q, not %q: %v", n, got, file, err)
		}
		up, err := later.Parent(n)
		if want, _ := number(strings.TrimPrefix(filepath.Dir(file), ".")); up != want || err != nil {
			t.Errorf("%s is in %#x, not %#x: %v", file, up, want, err)
		}
		later.host.Close()
	}
	for _, n := range []uint64{0, 9, 1 << 36, 1<<36 | Top, Top | 1, Top | 1<<22, Top | 5000<<22 | 77} {
		if got, err := d.Path(n); err != unix.ENOENT {
			t.Errorf("%#x is %q, %v", n, got, err)
		}
	}
}

// Of two files with one hash the later one does not exist, and an operator can be told.
func TestOneHashForTwo(t *testing.T) {
	first := map[key]string{}
	var pair []string
	for i := 0; pair == nil; i++ {
		name := fmt.Sprintf("file%d", i)
		k := place{"cpu", name}.key()
		if first[k] != "" {
			pair = []string{first[k], name}
		}
		first[k] = name
	}
	d, c, root := newDir(t, hostOf(0, 1), "0", false)
	for _, name := range pair {
		write(t, root, map[string]string{"sys/devices/system/cpu/cpu1/" + name: name})
	}
	n := d.mustFind(t, c, "cpu1/"+pair[1])
	_, err := d.Find("cpu1/"+pair[0], c)
	if !errors.Is(err, unix.ENOENT) || err == error(unix.ENOENT) || !strings.Contains(err.Error(), pair[1]) {
		t.Errorf("the second: %v", err)
	}
	if got, err := d.Read(nil, n, c); string(got) != pair[1] || err != nil {
		t.Errorf("the first: %q, %v", got, err)
	}
}

// Names that do not exist are not remembered, however many are asked for.
func TestNamesDoNotGrowMemory(t *testing.T) {
	d, c, _ := newDir(t, hostOf(0, 1), "0", false)
	for i := range 1000 {
		for _, name := range []string{fmt.Sprintf("no%d", i), fmt.Sprintf("cpu%d", i+2), fmt.Sprintf("cpu1/no%d", i)} {
			if _, err := d.Find(name, c); err != unix.ENOENT {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if len(d.places) != 1 { // cpu1 was found on the way
		t.Errorf("%d places", len(d.places))
	}
}

// FuzzLookup: whatever name is asked for, what is found is there on the host, and its number leads back to it.
func FuzzLookup(f *testing.F) {
	d, c, root := newDir(f, hostOf(0, 1, 8190), "0", false)
	for _, name := range []string{"cpu0", "cpu8190", "cpu8191", "cpufreq", "..", "cpu0/../..", "\x00", "cpu00", "online"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		var st unix.Stat_t
		for _, dir := range []string{"", "cpu0", "cpufreq"} {
			up := Top
			if dir != "" {
				up = d.mustFind(t, c, dir)
			}
			n, _, err := d.Lookup(up, name, c, &st)
			if err != nil {
				continue
			}
			file, err := d.Path(n)
			if err != nil || file != filepath.Join(dir, name) {
				t.Fatalf("%q in %q is %#x, which is %q: %v", name, dir, n, file, err)
			}
			if _, err := os.Lstat(filepath.Join(root, "sys/devices/system/cpu", dir, name)); err != nil || strings.Contains(name, "/") {
				t.Fatalf("%q in %q: %v", name, dir, err)
			}
		}
	})
}

// FuzzNumber: a number from anywhere means a file of the host, or nothing.
func FuzzNumber(f *testing.F) {
	d, c, root := newDir(f, hostOf(0, 1, 8190), "0", false)
	for _, file := range []string{"", "cpu0", "cpu8190/online", "cpufreq/policy1/scaling_cur_freq", "cpu8191"} {
		n, _ := number(file)
		f.Add(n)
	}
	f.Add(uint64(0))
	f.Add(^uint64(0))
	f.Fuzz(func(t *testing.T, n uint64) {
		file, err := d.Path(n)
		if err != nil {
			return
		}
		if again, _ := number(file); again != n {
			t.Fatalf("%#x is %q, which is %#x", n, file, again)
		}
		if _, err := d.Read(nil, n, c); err != nil && err != error(unix.EISDIR) {
			if _, gone := os.Lstat(filepath.Join(root, "sys/devices/system/cpu", file)); gone == nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	})
}
