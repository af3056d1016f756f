//go:build differential

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["compare"] = compareTrees }

// Fields that differ must be explained by a row of docs/differences.md. LENSFS_SEED chooses other containers, LENSFS_CONTAINERS how many, and LXCFS
// the program to compare with.
func TestDifferential(t *testing.T) {
	needRoot(t)
	program := os.Getenv("LXCFS")
	if program == "" {
		program = "lxcfs"
	}
	needCommand(t, program)
	seed, count := uint64(time.Now().UnixNano()), 16
	if text := os.Getenv("LENSFS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := strconv.Atoi(os.Getenv("LENSFS_CONTAINERS")); err == nil {
		count = n
	}
	t.Logf("LENSFS_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	d := serve(t)
	version := lxcfsVersion(t, program)
	trees := map[string]string{"no cfs": startLXCFS(t, program), "cfs": startLXCFS(t, program, "--enable-cfs")}
	table := knownDifferences(t)
	for range count / 4 { // four at a time: more would only wait for each other
		var group []*compared
		for range 4 {
			group = append(group, startCompared(t, d, random))
		}
		for _, c := range group {
			for how, tree := range trees {
				c.check(tree, d.tree, append(c.conditions, how, version), table)
			}
		}
		for _, c := range group {
			c.end()
		}
	}
	for _, row := range table {
		if !row.used {
			t.Logf("not seen this time: %s (%s)", row.key, strings.Join(row.when, ", "))
		}
	}
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

// compared is a random container, and a process in it that reads both trees.
type compared struct {
	*container
	shape      string   // how it was made
	conditions []string // as the table calls them
	nested     string   // the group beneath the container's that the process is in, "" for none
}

func startCompared(t *testing.T, d *daemon, random *rand.Rand) *compared {
	t.Helper()
	host := hostCPUs(t)
	c := &compared{conditions: []string{"v1"}}
	if _, v2 := cgroupDir(t, os.Getpid(), "memory"); v2 {
		c.conditions[0] = "v2"
	}
	var flags []string
	is := func(yes bool, condition string, f ...string) {
		if !yes {
			condition = "no " + condition
		} else {
			flags = append(flags, f...)
		}
		c.conditions = append(c.conditions, condition)
	}
	memory := 64 + random.IntN(960)
	limited, quota, cpuset := random.IntN(5) > 0, random.IntN(2) > 0, random.IntN(2) > 0
	is(limited, "memory limit", "--memory", fmt.Sprintf("%dM", memory))
	is(limited && random.IntN(2) > 0, "swap limit", "--swap", fmt.Sprintf("%dM", random.IntN(512)))
	is(quota, "quota", "--cpus", strconv.FormatFloat(0.2+random.Float64()*float64(len(host)), 'f', 2, 64))
	random.Shuffle(len(host), func(i, j int) { host[i], host[j] = host[j], host[i] })
	is(cpuset, "cpuset", "--cpuset", list(host[:1+random.IntN(len(host))]))
	above := random.IntN(3) == 0
	if above {
		flags = append(flags, "--cgroup-parent", makeCgroup(t, func(pid int) { setMemory(t, pid, uint64(32+random.IntN(512))<<20) }))
	}
	is(above, "limit above")
	anonymous, file, spinners := random.IntN(16), random.IntN(16), random.IntN(3)
	load := []string{strconv.Itoa(anonymous), strconv.Itoa(file), strconv.Itoa(spinners)}
	c.container = d.container(append(flags, "--tree", d.tree), asRole("compare", append(load, tempDir(t))...)...)
	pid, nested := c.line(), random.IntN(2) > 0
	if nested {
		dir, v2 := cgroupDir(t, c.init, "memory")
		c.nested = filepath.Join(dir, "nested")
		if err := os.Mkdir(c.nested, 0o755); err != nil {
			t.Fatal(err)
		}
		defer unix.Rmdir(c.nested) // does nothing unless the process did not get there
		if !v2 {
			writeFile(t, filepath.Join(c.nested, "memory.limit_in_bytes"), "50331648")
		}
		writeFile(t, filepath.Join(c.nested, "cgroup.procs"), strconv.Itoa(childOf(t, c.init)))
	}
	c.say("go")
	c.shape = fmt.Sprintf("%v %v MB of memory, of files, and spinners, nested %v (process %s)", flags, load, nested, pid)
	return c
}

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

// check compares the trees from inside of the container.
func (c *compared) check(lxcfs, lensfs string, conditions []string, table []*difference) {
	c.t.Helper()
	var rounds [][3]texts
	text, err := os.ReadFile(c.ask("%s %s", lxcfs, lensfs))
	if err := errors.Join(err, json.Unmarshal(text, &rounds)); err != nil {
		c.t.Fatal(err)
	}
	for _, found := range differing(rounds) {
		if err := explain(table, found, conditions); err != nil {
			c.t.Errorf("%v\nconditions %q\ncontainer %s", err, conditions, c.shape)
		}
	}
}

func (c *compared) end() {
	c.t.Helper()
	defer c.close()
	if c.nested != "" { // "lensfs run" cannot remove its group while there is one beneath
		writeFile(c.t, filepath.Join(filepath.Dir(c.nested), "cgroup.procs"), strconv.Itoa(childOf(c.t, c.init)))
		if err := unix.Rmdir(c.nested); err != nil && err != unix.ENOENT {
			c.t.Error(err)
		}
	}
}

// compareTrees loads the container, and reads the trees whenever it is told their names.
func compareTrees(args []string) error {
	in := bufio.NewScanner(os.Stdin)
	fmt.Println(os.Getpid())
	in.Scan() // when the group is right
	held, err := takeUp(args)
	if err != nil {
		return err
	}
	defer held()
	for n := 0; in.Scan(); n++ {
		lxcfs, lensfs, _ := strings.Cut(in.Text(), " ")
		var rounds [][3]texts
		for range 5 {
			rounds = append(rounds, [3]texts{{}, {}, {}})
			for _, name := range comparedFiles {
				for i, tree := range []string{lxcfs, lensfs, lxcfs} {
					rounds[len(rounds)-1][i][name] = readCompared(tree, name)
				}
			}
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

// takeUp uses memory, writes a file, and has some threads that are always running.
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
	stop := make(chan bool)
	var spinners sync.WaitGroup
	for range n[2] {
		spinners.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	return func() { close(stop); spinners.Wait(); unix.Munmap(anonymous) }, nil
}
