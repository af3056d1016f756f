package procview

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"lensfs/cgroupview"
)

// addTasks gives a tree the lists of tasks, and the tasks, that follow from the groups that its processes are in; what is there stays.
func addTasks(t testing.TB, root string) {
	t.Helper()
	add := func(path, text string) {
		t.Helper()
		if _, err := os.Lstat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			return // a group that has gone
		}
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = file.WriteString(text)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	groups := filepath.Join(root, "sys/fs/cgroup")
	own, err := filepath.Glob(filepath.Join(root, "proc/*/task/*/stat"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(groups, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && len(own) == 0 {
			add(filepath.Join(path, "cgroup.threads"), "")
			add(filepath.Join(path, "tasks"), "")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(own) > 0 {
		return // the case has its own
	}
	files, err := filepath.Glob(filepath.Join(root, "proc/[0-9]*/cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		pid := filepath.Base(filepath.Dir(file))
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
			if part[1] == "" {
				add(filepath.Join(groups, part[2], "cgroup.threads"), pid+"\n")
				add(filepath.Join(groups, "unified", part[2], "cgroup.threads"), pid+"\n")
			} else {
				add(filepath.Join(groups, part[1], part[2], "tasks"), pid+"\n")
			}
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
		if errors.Is(err, fs.ErrNotExist) {
			stat, err = fmt.Appendf(nil, "%s (x) S 1 %s450000 1 1\n", pid, strings.Repeat("0 ", 17)), nil
		}
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(filepath.Dir(file), "task", pid)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		add(filepath.Join(dir, "stat"), string(stat))
	}
}

var loadavgText = regexp.MustCompile(`^(\d+\.\d\d) (\d+\.\d\d) (\d+\.\d\d) (\d+)/(\d+) (\d+)\n$`) // fs/proc/loadavg.c

// checkLoadavg checks that procfs, and the kernel's format, find the numbers that stand there, and that they could be.
func checkLoadavg(t *testing.T, text []byte) {
	t.Helper()
	m := loadavgText.FindSubmatch(text)
	if m == nil {
		t.Fatalf("loadavg: %q", text)
	}
	read, err := readBack(t, "loadavg", text).LoadAvg()
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range []float64{read.Load1, read.Load5, read.Load15} {
		if strconv.FormatFloat(got, 'f', 2, 64) != string(m[1+i]) {
			t.Errorf("loadavg: procfs reads %v, it is %s", got, m[1+i])
		}
	}
	running, _ := strconv.Atoi(string(m[4]))
	total, _ := strconv.Atoi(string(m[5]))
	if running < 1 || running > total || string(m[6]) == "0" {
		t.Errorf("loadavg: %q", text)
	}
}

func TestAppendLoad(t *testing.T) {
	const one = cgroupview.LoadOne
	for _, test := range []struct {
		load cgroupview.Load
		want string
	}{
		{cgroupview.Load{}, "0.00 0.00 0.00 "},
		{cgroupview.Load{10, 11, one / 2}, "0.00 0.01 0.50 "}, // 10/2048 is 0.0049
		{cgroupview.Load{one, one - 1, one - 11}, "1.00 1.00 0.99 "},
		{cgroupview.Load{656, 136, 44}, "0.32 0.07 0.02 "},
		{cgroupview.Load{101*one + 1502, 1 << 33, 4194304 * one}, "101.73 4194304.00 4194304.00 "},
	} {
		if got := string(appendLoad(nil, test.load)); got != test.want {
			t.Errorf("%v: got %q, want %q", test.load, got, test.want)
		}
	}
}

// TestAppendLoadRounds compares each number up to 4 with a floating calculation. FIXED_1/200 is 10, not 10.24, so a few are cut off.
func TestAppendLoadRounds(t *testing.T) {
	for n := range uint64(4 * cgroupview.LoadOne) {
		text := appendLoad(nil, cgroupview.Load{n, n, n})
		got, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
		if want := float64(n) / cgroupview.LoadOne; err != nil || math.Abs(got-want) > 0.00512 {
			t.Fatalf("%d: %q, it is %.4f", n, text, want)
		}
	}
}

func TestAppendTasks(t *testing.T) {
	for _, test := range []struct {
		tasks cgroupview.Tasks
		want  string
	}{
		{cgroupview.Tasks{Total: 84, Running: 2, Blocked: 3, LastPid: 1234}, "2/84 1234\n"},
		{cgroupview.Tasks{Total: 84, LastPid: 1234}, "1/84 1234\n"}, // the reader
		{cgroupview.Tasks{LastPid: 1}, "1/1 1\n"},
		{cgroupview.Tasks{Total: 4194304, Running: 4194304, LastPid: math.MaxUint32}, "4194304/4194304 4294967295\n"},
	} {
		if got := string(appendTasks(nil, test.tasks)); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.tasks, got, test.want)
		}
	}
}

func TestLoadavgAllocs(t *testing.T) {
	dst := make([]byte, 0, 64)
	line := []byte("1.27 0.98 0.64 3/1182 284312\n")
	n := testing.AllocsPerRun(100, func() {
		appendTasks(appendLoad(dst, cgroupview.Load{101*cgroupview.LoadOne + 1502, 4711, 10}), cgroupview.Tasks{Total: 4194304, LastPid: 4194304})
		appendTasks(appendFirst(dst, line, 3), cgroupview.Tasks{})
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzLoadavg writes any numbers in the kernel's format.
func FuzzLoadavg(f *testing.F) {
	f.Add(uint64(656), uint64(136), uint64(44), 84, 2, uint32(1234))
	f.Fuzz(func(t *testing.T, a, b, c uint64, total, running int, last uint32) {
		const most = 1 << 44
		text := appendLoad(nil, cgroupview.Load{a % most, b % most, c % most})
		text = appendTasks(text, cgroupview.Tasks{Total: total, Running: running, LastPid: max(1, last)})
		checkLoadavg(t, text)
	})
}
