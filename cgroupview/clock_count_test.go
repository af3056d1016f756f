package cgroupview

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"lensfs/cgroupview/kfile"
)

// TestLockTimes reads the clock of a container of 1000 s, to which the CPUs 1 and 2 are shown.
func TestLockTimes(t *testing.T) {
	const dir, dir1 = "sys/fs/cgroup/web/", "sys/fs/cgroup/cpu,cpuacct/web/"
	all := "cpu user system\n0 1000000000 0\n1 200000000000 100000000000\n2 0 3000000000\n3 0 0\n"
	for _, test := range []struct {
		name string
		tree tree
		want string
	}{
		{"v2", v2(web(), tree{dir + "cpu.stat": "usage_usec 250000000\nuser_usec 150000000\nsystem_usec 100000000\nthrottled_usec 500000\n",
			"sys/fs/cgroup/cpu.stat": "usage_usec 1\nthrottled_usec 999999999\n"}), // the host's own does not count
			"[0/0/0/0 75/50/0.25/874.75 75/50/0.25/874.75]"},
		{"v2, a kernel that does not part it", v2(web()), "[0/0/0/0 1.25/0/0.25/998.5 1.25/0/0.25/998.5]"},
		{"v1", v1(web1(), tree{dir1 + "cpuacct.usage_all": all, "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "throttled_time 999999999999\n"}),
			// Of the second of CPU 0, which is not shown, each gets by the room it has: 700 and 997 s.
			"[0/0/0/0 200.42/100/0.21/699.37 0.58/3/0.29/996.13 0/0/0/0]"},
		{"v1, by ticks and exactly", v1(web1(), tree{dir1 + "cpuacct.usage_all": all, dir1 + "cpuacct.usage_percpu": "0 240000000000 2400000000 5000000 \n"}),
			// CPU 1 is 160 + 80, 2 in the kernel all the time. No tick saw what ran on 3, which is not shown: user.
			"[0/0/0/0 160.005/80/0.22/759.775 0/2.4/0.28/997.32 0/0/0/0]"},
		{"v1, CPUs that cannot be told apart", v1(web1(), tree{dir1 + "cpuacct.usage_all": all, dir1 + "cpuacct.usage_percpu": "1 2 3\n",
			"sys/fs/cgroup/cpu,cpuacct/web/cpu.stat": "throttled_time 500000000\n"}), "[0/0/0/0 200.42/100/0.21/699.37 0.58/3/0.29/996.13 0/0/0/0]"},
		{"v1, user and system of all CPUs", v1(web1(), tree{dir1 + "cpuacct.usage_user": "4000000000\n", dir1 + "cpuacct.usage_sys": "2000000000\n"}),
			"[0/0/0/0 2/1/0.25/996.75 2/1/0.25/996.75]"},
		{"v1, the sum alone and a ratio", v1(web1(), tree{dir1 + "cpuacct.stat": "user 3000\nsystem 1000\n"}), "[0/0/0/0 0.94/0.315/0.25/998.495 0.935/0.31/0.25/998.505]"},
		{"v1, the ratio of nothing", v1(web1(), tree{dir1 + "cpuacct.stat": "user 0\nsystem 0\n"}), "[0/0/0/0 1.25/0/0.25/998.5 1.25/0/0.25/998.5]"},
		{"v1, the sum alone", v1(web1()), "[0/0/0/0 1.25/0/0.25/998.5 1.25/0/0.25/998.5]"},
	} {
		r, _ := test.tree.resolver(t)
		c, shown := r.Of(120), setOf(t, "1-2")
		for range 2 { // the second time at the same moment
			got, err := c.LockTimes(shown)
			if err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if got := inWords(got); got != test.want {
				t.Errorf("%s: got %s, want %s", test.name, got, test.want)
			}
			c.UnlockTimes()
		}
		got, err := r.Host().LockTimes(shown)
		if len(got) != 0 || err != nil {
			t.Errorf("%s: the host: %+v, %v", test.name, got, err)
		}
		r.Host().UnlockTimes()
		// A CPU that comes at the same moment has a place too.
		got, err = c.LockTimes(setOf(t, "7"))
		if len(got) != 8 || err != nil {
			t.Errorf("%s: %+v, %v", test.name, got, err)
		}
		c.UnlockTimes()
	}
}

func TestLockTimesErrors(t *testing.T) {
	web2, web1, ticks := v2(web()), v1(web1()), v1(web1(), tree{"sys/fs/cgroup/cpu,cpuacct/web/cpuacct.usage_all": "cpu user system\n0 1 1\n1 1 1\n"})
	for _, test := range []struct {
		name, file, text string
		tree             tree
		want             error
	}{
		{"gone", "web/cpu.stat", "", web2, fs.ErrNotExist},
		{"usage", "web/cpu.stat", "usage_usec x\n", web2, kfile.ErrSyntax},
		{"system", "web/cpu.stat", "usage_usec 7\nsystem_usec -1\n", web2, kfile.ErrSyntax},
		{"throttled", "web/cpu.stat", "usage_usec 1\nthrottled_usec -5\n", web2, kfile.ErrSyntax},
		{"gone, v1", "web/cpuacct.usage", "", web1, fs.ErrNotExist},
		{"throttled, v1", "web/cpu.stat", "throttled_time\n", web1, kfile.ErrSyntax},
		{"a CPU without system", "web/cpuacct.usage_all", "cpu user system\n0 1\n", web1, kfile.ErrSyntax},
		{"a CPU that no kernel has", "web/cpuacct.usage_all", "cpu user system\n8192 1 1\n", web1, kfile.ErrSyntax},
		{"exactly, a number", "web/cpuacct.usage_percpu", "1 x\n", ticks, kfile.ErrSyntax},
		{"user", "web/cpuacct.usage_user", "x\n", web1, kfile.ErrSyntax},
		{"user without system", "web/cpuacct.usage_user", "1\n", web1, fs.ErrNotExist},
		{"the sum", "web/cpuacct.usage", "-1\n", web1, kfile.ErrSyntax},
		{"the ratio", "web/cpuacct.stat", "user x\n", web1, kfile.ErrSyntax},
	} {
		r, root := test.tree.resolver(t)
		c := r.Of(120)
		dir := "sys/fs/cgroup/"
		if !r.layout[cpuacct].v2 {
			dir += "cpu,cpuacct/"
		}
		if test.text == "" {
			remove(t, root, dir+test.file)
		} else {
			tree{dir + test.file: test.text}.write(t, root)
		}
		_, err := c.LockTimes(setOf(t, "0"))
		name := strings.Replace(test.file, "usage_user", "usage_", 1) // or usage_sys, which is missing
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", test.name, err)
		}
		if !c.clock.mu.TryLock() {
			t.Fatalf("%s: the clock stayed locked", test.name)
		}
	}
}

// FuzzUsageAll reads cpuacct.usage_all, whatever it holds, and lets a clock count it.
func FuzzUsageAll(f *testing.F) {
	for _, seed := range []string{"cpu user system\n0 5242004198039 2119046046059\n1 5 6\n", "", "cpu", "\n3 1 2\n\n", "x\n0 18446744073709551615 18446744073709551615", "x\n8191 1 1\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cpus, err := appendUsageAll(nil, text)
		if err != nil {
			if len(cpus) != 0 {
				t.Errorf("%d CPUs and %v", len(cpus), err)
			}
			return
		}
		if len(cpus) > MaxCPUs || len(cpus) > 0 && strings.Count(string(text), "\n") == 0 {
			t.Fatalf("%d CPUs", len(cpus))
		}
		k := cpuClock{now: cpuCount{cpus: cpus}}
		shown := setOf(t, "0,2")
		k.advance(tick, shown)
		for n, now := range k.times {
			if went(CPUTime{}, now) != shownTime(shown, n, tick) {
				t.Fatalf("CPU %d: %+v", n, now)
			}
		}
	})
}
