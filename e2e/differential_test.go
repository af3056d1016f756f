package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["compare"] = compareTrees }

const (
	together = 8                // containers at a time: more would only wait for each other
	loaded   = 20 * time.Second // four of the looks that load averages are made of
)

// Fields that differ must be explained by a row of docs/differences.md. LENSFS_SEED chooses other containers, LENSFS_CONTAINERS how many, and LXCFS
// the program to compare with.
func TestDifferential(t *testing.T) {
	needRoot(t)
	program := os.Getenv("LXCFS")
	if program == "" {
		program = "lxcfs"
	}
	needCommand(t, program)
	seed, count := uint64(time.Now().UnixNano()), 6
	if testing.Short() { // in the virtual machine
		count = 4
	}
	if text := os.Getenv("LENSFS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("LENSFS_CONTAINERS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil || count < 1 {
			t.Fatalf("LENSFS_CONTAINERS=%s", text)
		}
	}
	t.Logf("LENSFS_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	table, err := knownDifferences()
	if err != nil {
		t.Fatal(err)
	}
	d := serve(t)
	x := &comparison{
		version: lxcfsVersion(t, program),
		trees:   map[string]string{"no cfs": startLXCFS(t, program), "cfs": startLXCFS(t, program, "--enable-cfs"), "lensfs": d.tree},
		host:    hostProc(t),
		table:   table,
	}
	for count > 0 {
		var group []*compared
		for range min(count, together) {
			group = append(group, x.start(d, random))
			count--
		}
		time.Sleep(time.Until(group[len(group)-1].began.Add(loaded)))
		for _, how := range []string{"no cfs", "cfs"} {
			for _, c := range group { // all at a time: those that wait for their turn would slow down the one that reads
				c.say("%s", how)
			}
			for _, c := range group {
				x.check(c, how)
			}
		}
		for _, c := range group {
			c.end()
		}
	}
	for _, row := range table {
		if !row.used {
			t.Logf("not seen this time: %s", row)
		}
	}
}

// comparison is what all containers have in common.
type comparison struct {
	version string            // LXCFS's
	trees   map[string]string // LXCFS's by how it was started, and "lensfs"
	host    string            // the kernel's /proc
	table   []*difference
}

// hostProc mounts a /proc over whose files nothing is mounted in a container either.
func hostProc(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	if err := unix.Mount("proc", dir, "proc", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// lxcfsVersion gives the condition that the table knows it by, as in "5" for 5.0.3.
func lxcfsVersion(t *testing.T, program string) string {
	t.Helper()
	out, _ := exec.Command(program, "--version").CombinedOutput() // 5.0.3 writes it to its standard error
	major, _, _ := strings.Cut(strings.Trim(strings.TrimSpace(string(out)), `"`), ".")
	if major == "" {
		t.Fatal("LXCFS does not tell its version")
	}
	return major
}

// startLXCFS mounts one on a directory of its own, and ends it with the test.
func startLXCFS(t *testing.T, program string, flags ...string) string {
	t.Helper()
	dir := tempDir(t)
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, _ := exec.Command(program, "-h").CombinedOutput(); strings.Contains(string(out), "--runtime-dir") { // since 6.0.1
		flags = append(flags, "--runtime-dir="+dir)
	}
	cmd := exec.Command(program, append(flags, "-f", "-l", "-p", filepath.Join(dir, "pid"), tree)...)
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
		for mountedOn(t, tree) != "" {
			if err := unix.Unmount(tree, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				t.Fatal(err)
			}
		}
	})
	poll(t, 20*time.Second, "LXCFS is mounted", func() bool { return mountedOn(t, tree) != "" })
	return tree
}

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
	c := &compared{own: math.Inf(1)}
	_, c.version2 = cgroupDir(t, os.Getpid(), "memory")
	is := func(yes bool, condition, otherwise string) {
		if !yes {
			condition = otherwise
		}
		c.conditions = append(c.conditions, condition)
	}
	is(c.version2, "v2", "v1")
	var flags []string
	memory, swap := 64+random.IntN(960), random.IntN(512)
	limited := random.IntN(5) > 0
	if limited {
		flags = append(flags, "--memory", fmt.Sprintf("%dM", memory))
	}
	if limited && random.IntN(2) > 0 {
		flags = append(flags, "--swap", fmt.Sprintf("%dM", swap))
	}
	host := hostCPUs(t)
	someQuota := func() float64 { return math.Round((0.2+random.Float64()*float64(len(host)))*100) / 100 }
	quota, above := someQuota(), someQuota()
	if random.IntN(2) > 0 {
		c.own, above = quota, math.Inf(1) // on v1 a quota above may not be smaller than this
		flags = append(flags, "--cpus", strconv.FormatFloat(quota, 'f', 2, 64))
	} else if random.IntN(2) > 0 {
		above = math.Inf(1)
	}
	random.Shuffle(len(host), func(i, j int) { host[i], host[j] = host[j], host[i] })
	if random.IntN(2) > 0 {
		host = host[:1+random.IntN(len(host))]
		flags = append(flags, "--cpuset", list(host))
	}
	slices.Sort(host)
	c.cpuset, c.shown = host, host[:worth(min(c.own, above), len(host))]
	is(len(c.shown) < len(c.cpuset), "hidden CPUs", "no hidden CPUs")
	dirs := map[string]string{"lensfs": x.trees["lensfs"], "host": x.host}
	lower := random.IntN(3) == 0
	is(limited || lower, "limited", "unlimited")
	if lower || !math.IsInf(above, 1) {
		flags = append(flags, "--cgroup-parent", makeCgroup(t, func(pid int) {
			if lower {
				setMemory(t, pid, uint64(32+random.IntN(512))<<20)
			}
			if !math.IsInf(above, 1) {
				setQuota(t, pid, above)
			}
		}))
	}
	c.spinners = random.IntN(3)
	load := []string{strconv.Itoa(random.IntN(16)), strconv.Itoa(random.IntN(16)), strconv.Itoa(c.spinners)}
	c.container = d.container(append(flags, "--tree", d.tree), asRole("compare", append(load, tempDir(t))...)...)
	nested := random.IntN(2) > 0
	c.shape = fmt.Sprintf("%v, above %g CPUs, %v MB of memory, of files, and spinners, nested %v", flags, above, load, nested)
	var err error
	if c.pid, err = strconv.Atoi(c.line()); err != nil {
		t.Fatal(err)
	}
	for _, controller := range []string{"memory", "cpu", "cpuacct"} {
		dirs[controller], _ = cgroupDir(t, c.init, controller)
	}
	if slices.Contains(flags, "--cgroup-parent") {
		dirs["above"] = filepath.Dir(dirs["cpu"])
	}
	for how, tree := range x.trees {
		dirs[how] = tree
	}
	if nested {
		c.nested = filepath.Join(dirs["memory"], "nested")
		if err := os.Mkdir(c.nested, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.unnest)
		if !c.version2 {
			writeFile(t, filepath.Join(c.nested, "memory.limit_in_bytes"), "50331648")
		}
		writeFile(t, filepath.Join(c.nested, "cgroup.procs"), strconv.Itoa(childOf(t, c.init)))
	}
	text, err := json.Marshal(dirs)
	if err != nil {
		t.Fatal(err)
	}
	c.ask("%s", text)
	c.began = time.Now()
	return c
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
	text, err := os.ReadFile(c.line())
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

// compareTrees loads the container, and reads LXCFS's tree and ours whenever it is told which of LXCFS's.
func compareTrees(args []string) error {
	in := bufio.NewScanner(os.Stdin)
	fmt.Println(os.Getpid())
	in.Scan() // when the group is right
	var dirs map[string]string
	if err := json.Unmarshal(in.Bytes(), &dirs); err != nil {
		return err
	}
	for _, how := range []string{"no cfs", "cfs", "lensfs"} { // from now on it is looked at for its load
		if _, err := os.ReadFile(filepath.Join(dirs[how], "proc/loadavg")); err != nil {
			return err
		}
	}
	held, err := takeUp(args)
	if err != nil {
		return err
	}
	defer held()
	fmt.Println("loaded")
	for n := 0; in.Scan(); n++ {
		dirs["lxcfs"] = dirs[in.Text()]
		var rounds []round
		listed := readRound(dirs, comparedDirs)
		for range 5 {
			r := readRound(dirs, comparedFiles)
			for i := range r { // to list them is half of the work, and they do not change
				maps.Copy(r[i], listed[i])
			}
			rounds = append(rounds, r)
			time.Sleep(15 * time.Millisecond)
		}
		text, err := json.Marshal(rounds)
		path := filepath.Join(args[3], strconv.Itoa(n))
		if err := errors.Join(err, os.WriteFile(path, text, 0o644)); err != nil {
			return err
		}
		fmt.Println(path)
	}
	return nil
}

func readRound(dirs map[string]string, names []string) round {
	r := round{{}, {}, {}}
	readBeside := func(into texts, name string) {
		for _, extra := range beside[name] {
			if dir, file, _ := strings.Cut(extra, "/"); extra == "tasks" {
				into[extra] = strconv.Itoa(threads())
			} else if dirs[dir] != "" {
				into[extra] = readCompared(filepath.Join(dirs[dir], file))
			}
		}
	}
	for _, name := range names {
		readBeside(r[0], name)
		for i, tree := range []string{"lxcfs", "lensfs", "lxcfs"} {
			r[i][name] = readCompared(filepath.Join(dirs[tree], name))
		}
		readBeside(r[2], name)
	}
	return r
}

// threads counts those of the container.
func threads() int {
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/*")
	return len(tasks)
}

// takeUp uses memory, writes a file, and has some processes that are always running, but leave the CPU to the one that reads. They are shells: a
// thread of Go's runtime that wakes for a moment counts as running for as long as a quota holds it up.
func takeUp(args []string) (release func(), err error) {
	var n [3]int
	for i := range n {
		if n[i], err = strconv.Atoi(args[i]); err != nil {
			return nil, err
		}
	}
	anonymous, err := unix.Mmap(-1, 0, max(1, n[0]<<20), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(anonymous); i += 4096 {
		anonymous[i] = 1
	}
	if err := os.WriteFile(filepath.Join(args[3], "file"), make([]byte, n[1]<<20), 0o644); err != nil {
		return nil, err
	}
	var spinners []*exec.Cmd
	release = func() {
		for _, c := range spinners {
			c.Process.Kill()
			c.Wait()
		}
		unix.Munmap(anonymous)
	}
	for range n[2] {
		c := exec.Command("nice", "-n", "19", "sh", "-c", "while :; do :; done")
		if err := c.Start(); err != nil {
			release()
			return nil, err
		}
		spinners = append(spinners, c)
	}
	return release, nil
}
