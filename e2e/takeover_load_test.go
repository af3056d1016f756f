package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["load"] = load }

// The tests in the takeover_* files are about what containers see of the end of a worker or a keeper: nothing.

// loadPlan is what a container under load is told.
type loadPlan struct {
	Tree    string
	Threads int // on the own view, and as many on the shared tree
	Total   uint64
	Pace    time.Duration // between two reads
	Shared  bool          // have the shared tree bound: to bind an own view is to look at every file of it
}

// loadResult is what it has seen.
type loadResult struct {
	Reads    int
	Failures []string // the first ones
	Failed   int
	Stalls   []time.Duration // the longest reads, longest first
}

// longest is how many of the longest reads are told.
const longest = 400

// load reads its files in many threads until it is told to end, and checks every text: that it is whole, has this container's limit, and that nothing
// that only grows has shrunk.
func load(args []string) error {
	in := bufio.NewReader(os.Stdin)
	var plan loadPlan
	if err := decodeLine(in, &plan); err != nil {
		return err
	}
	if err := growUp(); err != nil {
		return err
	}
	var stop atomic.Bool
	var all sync.WaitGroup
	var mu sync.Mutex
	var sum loadResult
	for i := range 2 * plan.Threads {
		root := "/"
		if i%2 == 1 {
			root = plan.Tree
		}
		all.Go(func() {
			r := loader{root: root, total: plan.Total, pace: plan.Pace, turn: i / 2}
			r.run(&stop)
			mu.Lock()
			defer mu.Unlock()
			sum.Reads += r.Reads
			sum.Failed += r.Failed
			sum.Failures = append(sum.Failures, r.Failures...)
			sum.Stalls = append(sum.Stalls, r.Stalls...)
		})
	}
	fmt.Println("reading")
	in.ReadString('\n')
	stop.Store(true)
	all.Wait()
	sum.trim()
	fmt.Println(encode(sum))
	return nil
}

// loader is one thread.
type loader struct {
	loadResult
	root  string
	total uint64
	pace  time.Duration
	turn  int
	idle  uint64
	up    float64
}

func (r *loadResult) trim() {
	slices.SortFunc(r.Stalls, func(a, b time.Duration) int { return int(b - a) })
	r.Stalls = r.Stalls[:min(longest, len(r.Stalls))]
	r.Failures = r.Failures[:min(10, len(r.Failures))]
}

func (r *loader) fail(err error) {
	r.Failed++
	r.Failures = append(r.Failures, r.root+": "+err.Error())
	r.loadResult.trim()
}

func (r *loader) run(stop *atomic.Bool) {
	for ; !stop.Load(); r.turn++ {
		begin := time.Now()
		err := r.one()
		took := time.Since(begin)
		r.Reads++
		if err != nil {
			r.fail(err)
		}
		if r.Stalls = append(r.Stalls, took); len(r.Stalls) >= 2*longest {
			r.loadResult.trim()
		}
		if r.pace > 0 {
			time.Sleep(r.pace)
		}
	}
}

// one reads one of the files, by turns, and checks what it says.
func (r *loader) one() error {
	switch r.turn % 3 {
	case 0:
		text, err := inPieces(filepath.Join(r.root, "proc/meminfo"), 100+r.turn%4000)
		if err != nil {
			return err
		}
		return r.checkMeminfo(text)
	case 1:
		return r.checkUptime()
	default:
		text, err := inPieces(filepath.Join(r.root, "proc/stat"), 1000)
		if err != nil {
			return err
		}
		return r.checkStat(text)
	}
}

func (r *loader) checkUptime() error {
	text, err := inPieces(filepath.Join(r.root, "proc/uptime"), 4096)
	if err != nil {
		return err
	}
	f := strings.Fields(text)
	if len(f) != 2 {
		return fmt.Errorf("uptime %q", text)
	}
	up, err := strconv.ParseFloat(f[0], 64)
	if err != nil || up < r.up {
		return fmt.Errorf("uptime was %v and is %q, %v", r.up, text, err)
	}
	r.up = up
	return nil
}

func (r *loader) checkMeminfo(text string) error {
	m, err := parseMeminfo(strings.TrimRight(text, "\n") + "\n")
	if err != nil {
		return fmt.Errorf("meminfo: %w", err)
	}
	if r.total != 0 && m["MemTotal"] != r.total || m["SwapTotal"] > 1<<40 {
		return fmt.Errorf("meminfo has MemTotal %d, and the limit is %d", m["MemTotal"], r.total)
	}
	if _, ok := m["DirectMap4k"]; !ok && strings.Contains(text, "DirectMap") {
		return fmt.Errorf("meminfo is cut off: %q", text)
	}
	return nil
}

func (r *loader) checkStat(text string) error {
	f := strings.Fields(text)
	if len(f) < 10 || f[0] != "cpu" || !strings.Contains(text, "\nprocs_blocked ") {
		return fmt.Errorf("stat %q", text)
	}
	idle, err := strconv.ParseUint(f[4], 10, 64)
	if err != nil || idle < r.idle {
		return fmt.Errorf("stat has idle %q, and had %d: %v", f[4], r.idle, err)
	}
	if strings.Count(text, "\ncpu") == 0 || strings.Count(text, "\nbtime ") != 1 {
		return fmt.Errorf("stat of two texts: %q", text)
	}
	r.idle = idle
	return nil
}

// inPieces reads a file in pieces of a size.
func inPieces(path string, size int) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var text []byte
	for {
		text = slices.Grow(text, size)
		n, err := unix.Read(fd, text[len(text):len(text)+size])
		if err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
		if n == 0 {
			return string(text), nil
		}
		text = text[:len(text)+n]
	}
}

// underLoad has containers read while something is done to their daemon, and checks that they have noticed nothing. It gives what they saw.
func (d *daemon) underLoad(containers int, plan loadPlan, do func()) loadResult {
	d.t.Helper()
	var all []*container
	for i := range containers {
		kb := 200<<10 + i*64
		flags := []string{"--memory", fmt.Sprintf("%dk", kb)}
		if plan.Shared {
			flags = append(flags, "--tree", d.tree)
		}
		c := d.container(flags, asRole("load")...)
		p := plan
		p.Tree, p.Total = d.tree, uint64(kb)
		c.say("%s", encode(p))
		all = append(all, c)
	}
	for _, c := range all {
		if l := c.line(); l != "reading" {
			d.t.Fatalf("the container says %q", l)
		}
	}
	do()
	var sum loadResult
	for _, c := range all {
		r := decode[loadResult](d.t, c.ask("stop"))
		sum.Reads += r.Reads
		sum.Failed += r.Failed
		sum.Failures = append(sum.Failures, r.Failures...)
		sum.Stalls = append(sum.Stalls, r.Stalls...)
	}
	sum.trim()
	if sum.Failed > 0 {
		d.t.Errorf("%d of %d reads failed:\n%s", sum.Failed, sum.Reads, strings.Join(sum.Failures, "\n"))
	}
	if sum.Reads < rounds(100, 5)*containers {
		d.t.Errorf("only %d reads: this test tests nothing", sum.Reads)
	}
	for _, c := range all {
		c.close()
	}
	noneStuck(d.t)
	return sum
}

// noneStuck fails the test when a process that this run has started cannot be ended, or was not waited for.
func noneStuck(t *testing.T) {
	t.Helper()
	var left string
	for range 50 {
		left = stuck()
		if left == "" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("stuck: %s", left)
}

// stuck finds a child of ours, or of one of these, that is in state D or Z.
func stuck() string {
	stats, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		i := strings.LastIndexByte(string(text), ')')
		f := strings.Fields(string(text[i+1:]))
		if len(f) < 5 || f[0] != "D" {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		groups, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cgroup"))
		if strings.Contains(string(cmdline)+string(groups), runName()) {
			return fmt.Sprintf("%s %q", text, cmdline)
		}
	}
	return ""
}

// upTo gives the part of the longest reads that is below.
func (r loadResult) String() string {
	if len(r.Stalls) == 0 {
		return "no reads"
	}
	return fmt.Sprintf("%d reads, %d failed; longest %v, 10th %v, 100th %v", r.Reads, r.Failed,
		r.Stalls[0].Round(time.Millisecond), r.Stalls[min(9, len(r.Stalls)-1)].Round(time.Millisecond), r.Stalls[min(99, len(r.Stalls)-1)].Round(time.Millisecond))
}
