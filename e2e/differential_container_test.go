package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// compared is a random container, and a process in it that reads all trees.
type compared struct {
	*container
	shape      string   // how it was made
	conditions []string // as the table calls them
	nested     string   // the group beneath the container's that the process is in, "" for none
	began      time.Time
	own        float64 // its own quota in CPUs, +Inf for none
	expected
}

// start makes one, and leaves it when it has taken up its load.
func (x *comparison) start(d *daemon, random *rand.Rand) *compared {
	t := d.t
	t.Helper()
	c := &compared{}
	flags, above := c.limit(t, random)
	rounds := 5
	c.spinners = random.IntN(3)
	if testing.Short() { // in the virtual machine, where all else is slower for each of these
		rounds = 3
		c.spinners /= 2
	}
	load := []string{strconv.Itoa(random.IntN(16)), strconv.Itoa(random.IntN(16)), strconv.Itoa(c.spinners)}
	nested := random.IntN(2) > 0
	c.shape = fmt.Sprintf("%v, above %g CPUs, %v MB of memory, of files, and spinners, nested %v", flags, above, load, nested)
	c.container = d.container(append(flags, "--tree", d.tree), asRole("compare", append(load, tempDir(t), strconv.Itoa(rounds))...)...)
	var err error
	if c.pid, err = strconv.Atoi(c.line()); err != nil {
		t.Fatal(err)
	}
	dirs := maps.Clone(x.trees)
	dirs["host"] = x.host
	for _, controller := range []string{"memory", "cpu", "cpuacct"} {
		dirs[controller], _ = cgroupDir(t, c.init, controller)
	}
	if slices.Contains(flags, "--cgroup-parent") {
		dirs["above"] = filepath.Dir(dirs["cpu"])
	}
	if nested {
		c.nest(filepath.Join(dirs["memory"], "nested"))
	}
	text, err := json.Marshal(dirs)
	if err != nil {
		t.Fatal(err)
	}
	c.ask("%s", text)
	c.began = time.Now()
	return c
}

// limit chooses limits, as flags of "lensfs run", and makes a group for those above.
func (c *compared) limit(t *testing.T, random *rand.Rand) (flags []string, above float64) {
	t.Helper()
	is := func(yes bool, condition, otherwise string) {
		if !yes {
			condition = otherwise
		}
		c.conditions = append(c.conditions, condition)
	}
	_, c.version2 = cgroupDir(t, os.Getpid(), "memory")
	is(c.version2, "v2", "v1")

	memory, swap, memoryAbove := 96+random.IntN(928), random.IntN(512), 96+random.IntN(512)
	limited, limitedAbove := random.IntN(5) > 0, random.IntN(3) == 0
	if limited {
		flags = append(flags, "--memory", fmt.Sprintf("%dM", memory))
	}
	if limited && random.IntN(2) > 0 {
		flags = append(flags, "--swap", fmt.Sprintf("%dM", swap))
	}
	is(limited || limitedAbove, "limited", "unlimited")

	cpus := hostCPUs(t)
	quota := math.Round((0.2+random.Float64()*float64(len(cpus)))*100) / 100
	c.own, above = math.Inf(1), math.Inf(1)
	switch random.IntN(4) { // never both: on v1 the one above may not be smaller
	case 0, 1:
		c.own = quota
		flags = append(flags, "--cpus", strconv.FormatFloat(quota, 'f', 2, 64))
	case 2:
		above = quota
	}
	random.Shuffle(len(cpus), func(i, j int) { cpus[i], cpus[j] = cpus[j], cpus[i] })
	if random.IntN(2) > 0 {
		cpus = cpus[:1+random.IntN(len(cpus))]
		flags = append(flags, "--cpuset", list(cpus))
	}
	slices.Sort(cpus)
	c.cpuset, c.shown = cpus, cpus[:worth(min(c.own, above), len(cpus))]
	is(len(c.shown) < len(c.cpuset), "hidden CPUs", "no hidden CPUs")

	if limitedAbove || above == quota {
		flags = append(flags, "--cgroup-parent", makeCgroup(t, func(pid int) {
			if limitedAbove {
				setMemory(t, pid, uint64(memoryAbove)<<20)
			}
			if above == quota {
				setQuota(t, pid, quota)
			}
		}))
	}
	return flags, above
}

// nest moves the command into a group beneath the container's.
func (c *compared) nest(dir string) {
	c.t.Helper()
	c.nested = dir
	if err := os.Mkdir(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(c.unnest)
	if !c.version2 {
		writeFile(c.t, filepath.Join(dir, "memory.limit_in_bytes"), "83886080")
	}
	writeFile(c.t, filepath.Join(dir, "cgroup.procs"), strconv.Itoa(childOf(c.t, c.init)))
}

// worth is how many of n CPUs are to be seen under a quota.
func worth(quota float64, n int) int { return int(min(math.Ceil(quota), float64(n))) }

// childOf gives the container's command, as the host numbers it.
func childOf(t *testing.T, init int) int {
	t.Helper()
	var text []byte
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", init)) // any of init's threads may have made it
	for _, task := range tasks {
		part, _ := os.ReadFile(task)
		text = append(text, part...)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("init has the children %q", text)
	}
	return child
}

// check looks at what the container has read.
func (x *comparison) check(c *compared, how string) {
	c.t.Helper()
	var rounds []round
	line := c.line()
	for line == "round" {
		line = c.line()
	}
	text, err := os.ReadFile(line)
	if err := errors.Join(err, json.Unmarshal(text, &rounds)); err != nil {
		c.t.Fatal(err)
	}
	m := c.expected
	if m.lxcfs = len(c.cpuset); how == "cfs" {
		m.lxcfs = worth(c.own, len(c.cpuset))
	}
	conditions := append(slices.Clone(c.conditions), how, x.version)
	for _, err := range unexplained(rounds, &m, x.table, conditions) {
		c.t.Errorf("%v\nconditions %q\ncontainer %s", err, conditions, c.shape)
	}
}

func (c *compared) end() {
	c.t.Helper()
	c.unnest()
	c.close()
}

// unnest gives up the group beneath the container's, which "lensfs run" could not remove its own with.
func (c *compared) unnest() {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.nested, "cgroup.procs"))
	if c.nested == "" || errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		c.t.Fatal(err)
	}
	for pid := range strings.FieldsSeq(string(text)) {
		writeFile(c.t, filepath.Join(filepath.Dir(c.nested), "cgroup.procs"), pid)
	}
	if err := unix.Rmdir(c.nested); err != nil {
		c.t.Error(err)
	}
	unix.Rmdir(filepath.Dir(c.nested)) // works only where the container has ended without us
}
