package cgroupview

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// TestLastPid follows the number of the youngest task: each step brings one more.
func TestLastPid(t *testing.T) {
	const otherNS = 4026532777
	c, root, clock := asked(t, v2(web(), busyTasks(webDir, "cgroup.threads")))
	list := "100\n"
	for _, step := range []struct {
		what string
		tid  int
		tree tree
		want uint32
	}{
		{"the youngest, not the highest number", 100, tree{}, 31},
		{"it has ended, and was the last all the same", 100, tree{webDir + "a/b/c/d/e/cgroup.threads": "131\n"}, 31},
		{"numbers begin again", 140, thread(140, "140\t2", webNS, "S", 400500), 2},
		{"two in one tick", 141, thread(141, "141\t3", webNS, "S", 400500), 3},
		{"one sent in from the host", 150, thread(150, "150", ownNS, "R", 400600), 3},
		{"one of another container's in the same group", 151, thread(151, "151\t999", otherNS, "R", 400601), 3},
		{"one of a container within", 152, thread(152, "152\t40\t1", innerNS, "R", 400602), 40},
		{"one whose status cannot be read any more", 153, tree{"proc/153/task/153/stat": statOf(153, "x", 1, 400700)}, 40},
		{"one with a number that no kernel gives", 154, thread(154, "154\t99999999999", webNS, "R", 400701), 40},
	} {
		step.tree.write(t, root)
		list += fmt.Sprintln(step.tid)
		tree{webDir + "cgroup.threads": list}.write(t, root)
		*clock += tasksEvery
		if got, err := c.Tasks(); got.LastPid != step.want || err != nil {
			t.Errorf("%s: %d, %v; want %d", step.what, got.LastPid, err, step.want)
		}
	}
}

// TestTasksBudget has more tasks than are looked at: a part stands for all, another one each time.
func TestTasksBudget(t *testing.T) {
	const tasks, budget = 1200, 100
	f := v2(web(), tree{"sys/fs/cgroup/cgroup.controllers": "cpu pids\n", webDir + "pids.current": fmt.Sprintln(tasks)})
	var list strings.Builder
	for i := range tasks {
		state := "S"
		if i%13 == 0 { // as far apart as those that are looked at in one turn
			state = "R"
		}
		tid := 1000 + i
		maps.Copy(f, tree{fmt.Sprintf("proc/%d/task/%d/stat", tid, tid): strings.Replace(statOf(tid, "x", 100, 400000), " S ", " "+state+" ", 1)})
		fmt.Fprintln(&list, tid)
	}
	f[webDir+"cgroup.threads"] = list.String()
	c, root, _ := asked(t, f)
	sum, rounds := 0, 26
	for round := range rounds {
		tree{webDir + "cpu.stat": fmt.Sprintf("usage_usec %d\n", round)}.write(t, root) // some run
		cost, active, err := c.sample(budget)
		if err != nil || cost > 2*budget {
			t.Fatalf("cost %d, %v", cost, err)
		}
		if c.tasks.tasks.Total != tasks {
			t.Errorf("%d tasks", c.tasks.tasks.Total)
		}
		sum += active
	}
	if mean := sum / rounds; mean < 88 || mean > 98 {
		t.Errorf("on the average %d of %d run, it is 93", mean, tasks)
	}
}

// TestTasksHostile has tasks and groups without end: a look has its bounds, and every number is one that could be.
func TestTasksHostile(t *testing.T) {
	f := v2(web())
	for i := range 300 {
		f[fmt.Sprintf("%sg%d/cgroup.threads", webDir, i)] = strings.Repeat("100\n", 20)
	}
	f[webDir+"cgroup.threads"] = strings.Repeat("4194304\n", maxList/8+1000) // longer than what is read of it
	maps.Copy(f, thread(100, "100\t1", webNS, "D", 400000))
	c, _, _ := asked(t, f)
	const budget = 400
	for range 3 {
		cost, active, err := c.sample(budget)
		if err != nil || cost > 3*budget {
			t.Errorf("it cost %d, %v", cost, err)
		}
		got := c.tasks.tasks
		if active != got.Running+got.Blocked || active > got.Total || got.Total > maxPid || got.Running == 0 {
			t.Errorf("%+v, %d active", got, active)
		}
	}
}

func TestTaskStat(t *testing.T) {
	for text, want := range map[string]struct {
		state byte
		start uint64
		ok    bool
	}{
		statOf(7, "x", 1, 5):             {'S', 5, true},
		statOf(7, ") R 1 (", 1, 5):       {'S', 5, true},
		"7 (x) R 1 2 3":                  {'R', 0, false},
		"7 (x) RR 1":                     {},
		"7 x R 1":                        {},
		"":                               {},
		"7 (x)":                          {},
		strings.Repeat("7 (x) R ", 1000): {'R', 0, false},
	} {
		if state, start, ok := taskStat([]byte(text)); state != want.state || start != want.start || ok != want.ok {
			t.Errorf("%q: %c, %d, %v", text, state, start, ok)
		}
	}
}

// FuzzTaskStat reads a stat file, whatever it holds. What is behind the last parenthesis decides.
func FuzzTaskStat(f *testing.F) {
	for _, seed := range []string{statOf(7, "x", 1, 5), "7 (x", ") R", "", ")"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		state, start, ok := taskStat(text)
		again, start2, ok2 := taskStat(append([]byte("1 (a) b (c"), text...))
		if ok && (!ok2 || again != state || start2 != start) {
			t.Errorf("%q: %c %d, behind a longer name %c %d %v", text, state, start, again, start2, ok2)
		}
		if ok && (state == ' ' || state == '\t' || state == ')') {
			t.Errorf("%q: state %q", text, state)
		}
	})
}

func TestNSpid(t *testing.T) {
	for _, test := range []struct {
		text   string
		level  int
		pid    uint32
		levels int
	}{
		{"Name:\tx\nNSpid:\t120\t21\t3\nThreads:\t1\n", 2, 21, 3},
		{"NSpid:\t120", 2, 0, 1},
		{"NSpid:\t120\t21", 0, 0, 2},
		{"NStgid:\t1\t2\n", 1, 0, 0},
		{"NSpid:\t1\tx\t4194305", 3, 0, 3},
		{"NSpid:\n", 1, 0, 0},
		{"", 1, 0, 0},
	} {
		if pid, levels := nspid([]byte(test.text), test.level); pid != test.pid || levels != test.levels {
			t.Errorf("%q, %d: %d of %d", test.text, test.level, pid, levels)
		}
	}
}

// FuzzNSpid reads a status file, whatever it holds.
func FuzzNSpid(f *testing.F) {
	f.Add([]byte("Name:\tx\nNSpid:\t120\t21\t3\nThreads:\t1\n"), 2)
	f.Add([]byte("NSpid:"), 1)
	f.Fuzz(func(t *testing.T, text []byte, level int) {
		pid, levels := nspid(text, level)
		if pid > maxPid || pid != 0 && (level < 1 || level > levels) {
			t.Errorf("%q, %d: %d of %d", text, level, pid, levels)
		}
	})
}

// FuzzTaskList takes a group's list, whatever it holds, within its budget.
func FuzzTaskList(f *testing.F) {
	f.Add([]byte("100\n120\n"), uint(10), uint(5))
	f.Add([]byte("x\n-1\n\n4194305\n100"), uint(1), uint(0))
	files := thread(100, "100\t1", webNS, "R", 400000)
	maps.Copy(files, thread(120, "120\t21", webNS, "D", 400000))
	r, _ := v2(web(), files).resolver(f)
	f.Fuzz(func(t *testing.T, text []byte, most, pids uint) {
		budget, total := 1+int(most%1000), int(pids%maxPid)
		s := r.takeTaskScan()
		s.begin(budget, total, 1)
		s.tasks(r, text)
		all, running, blocked := s.result(total)
		if all < running+blocked || running < 0 || blocked < 0 || all > maxPid+len(text) || s.cost > 2*budget {
			t.Errorf("%q: %d tasks, %d and %d, it cost %d of %d", text, all, running, blocked, s.cost, budget)
		}
	})
}

func TestTasksAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	f := busyTasks(webDir, "cgroup.threads")
	c, _, clock := asked(t, v2(web(), f))
	n := testing.AllocsPerRun(100, func() {
		*clock += tasksEvery
		if _, err := c.Tasks(); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
