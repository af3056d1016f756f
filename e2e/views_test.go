package e2e

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	roles["watch"] = watch
	roles["follow"] = follow
}

// shape is what a container is to see.
type shape struct {
	memory uint64  // kB
	set    []int   // the CPUs it may run on
	quota  float64 // 0: none
}

func (s shape) flags() []string {
	f := []string{"--memory", strconv.FormatUint(s.memory*1024, 10), "--cpuset", list(s.set)}
	if s.quota > 0 {
		f = append(f, "--cpus", strconv.FormatFloat(s.quota, 'g', -1, 64))
	}
	return f
}

// cpus are those shown.
func (s shape) cpus() []int {
	if s.quota == 0 {
		return s.set
	}
	return s.set[:min(len(s.set), int(math.Ceil(s.quota)))]
}

// Every container sees its own numbers in every single read, while others with other limits read the same inodes.
func TestEachContainerSeesOnlyItsOwn(t *testing.T) {
	needRoot(t)
	d := serve(t)
	host := hostCPUs(t)
	last := host[len(host)-1:]
	sets := [][]int{host, host[:1], last, host[:(len(host)+1)/2]}
	quotas := []float64{0, 0.5, 1.5}
	containers := 12
	if testing.Short() { // on an emulated machine
		containers = 5
	}
	var all sync.WaitGroup
	for i := range containers {
		s := shape{memory: uint64(64<<10 + i*4<<10), set: sets[i%len(sets)], quota: quotas[i%len(quotas)]}
		all.Go(func() {
			if _, err := tryCommand(binary, d.runArgs(s.flags(), asRole("watch", d.tree, "4s", strconv.FormatUint(s.memory, 10), list(s.cpus()))...)...); err != nil {
				t.Errorf("%+v: %v", s, err)
			}
		})
	}
	all.Wait()
}

// watch reads the four files over and over, and complains as soon as one shows something else than it should.
func watch(args []string) error {
	tree, want := args[0], args[2]
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	cpus, err := parseList(args[3])
	if err != nil {
		return err
	}
	// Each for itself: a view that the kernel has kept may be a tick behind the shared tree.
	ages := map[string]*ageCheck{"/": {cpus: float64(len(cpus))}, tree: {cpus: float64(len(cpus))}}
	begin := time.Now()
	for n := 0; n < enough || time.Since(begin) < limit; n++ {
		for root, age := range ages {
			if err := checkNumbers(root, want, cpus); err != nil {
				return err
			}
			if err := age.read(root); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkNumbers reads all but the uptime beneath root.
func checkNumbers(root, memory string, cpus []int) error {
	text, err := readView(root, "proc/meminfo")
	if err != nil {
		return err
	}
	m, err := parseMeminfo(text)
	if err != nil {
		return err
	}
	if got := strconv.FormatUint(m["MemTotal"], 10); got != memory {
		return fmt.Errorf("MemTotal is %s, not %s", got, memory)
	}
	if text, err = readView(root, "proc/cpuinfo"); err != nil {
		return err
	}
	got, err := parseCpuinfo(text)
	if err != nil {
		return err
	}
	if !slices.Equal(got, cpus) {
		return fmt.Errorf("cpuinfo has the CPUs %v, not %v", got, cpus)
	}
	if text, err = readView(root, "sys/devices/system/cpu/online"); err != nil {
		return err
	}
	got, err = parseList(strings.TrimSuffix(text, "\n"))
	if err != nil {
		return err
	}
	if !slices.Equal(got, cpus) {
		return fmt.Errorf("online has the CPUs %v, not %v", got, cpus)
	}
	return nil
}

// ageCheck follows an uptime: it goes with the clock, starts near 0, and is never more idle than there are CPUs.
type ageCheck struct {
	cpus         float64
	begin        time.Time
	up0          float64
	up, idle     float64
	measuredOnce bool
}

func (a *ageCheck) read(root string) error {
	asked := time.Now()
	text, err := readView(root, "proc/uptime")
	if err != nil {
		return err
	}
	up, idle, err := parseUptime(text)
	if err != nil {
		return err
	}
	switch elapsed := asked.Sub(a.begin).Seconds(); {
	case !a.measuredOnce && up > 30:
		return fmt.Errorf("a container that has just begun has been up for %v", up)
	case !a.measuredOnce:
		a.begin, a.up0, a.measuredOnce = time.Now(), up, true
	case up < a.up || idle < a.idle:
		return fmt.Errorf("uptime went back from %v %v to %v %v", a.up, a.idle, up, idle)
	case up < a.up0+elapsed-0.1: // asked for then, and not older than a tick
		return fmt.Errorf("uptime %v is behind: %v at first, and %v later", up, a.up0, elapsed)
	case up > a.up0+time.Since(a.begin).Seconds()+1:
		return fmt.Errorf("uptime %v is ahead: %v at first, and %v later", up, a.up0, elapsed)
	case idle > a.cpus*up+0.05:
		return fmt.Errorf("%v CPUs up for %v were idle for %v", a.cpus, up, idle)
	}
	a.up, a.idle = up, idle
	return nil
}

// A limit that changes is seen at once, by a reader that opens the file anew and by one that keeps it open.
func TestChangesAreSeenWithinATick(t *testing.T) {
	needRoot(t)
	d := serve(t)
	host := hostCPUs(t)
	if len(host) < 2 {
		skip(t, "needs two CPUs")
	}
	first, second := list(host[:1]), list(host[:2])
	for _, how := range []string{"open", "held"} {
		for _, root := range []string{"/", d.tree} {
			c := d.container([]string{"--memory", "256M", "--cpuset", second}, asRole("follow", how, root)...)
			for _, step := range []struct {
				what   string
				change func()
				want   string
			}{
				{"memory", func() { setMemory(t, c.init, 192<<20) }, "196608 " + second},
				{"more memory", func() { setMemory(t, c.init, 320<<20) }, "327680 " + second},
				{"cpuset", func() { setCPUs(t, c.init, first) }, "327680 " + first},
				{"larger cpuset", func() { setCPUs(t, c.init, second) }, "327680 " + second},
				{"quota", func() { setQuota(t, c.init, 0.5) }, "327680 " + first},
				{"larger quota", func() { setQuota(t, c.init, 1.5) }, "327680 " + second},
				{"small quota again", func() { setQuota(t, c.init, 1) }, "327680 " + first},
				{"no quota", func() { setQuota(t, c.init, 0) }, "327680 " + second},
			} {
				if got := c.ask("%s", step.want); got != "started" {
					t.Fatalf("%s: %q", step.what, got)
				}
				step.change()
				changed := monotonic()
				// A reading may show what was before only if it began before a tick had gone by.
				got := c.line()
				stale, err := strconv.ParseInt(got, 10, 64)
				if err != nil {
					t.Fatalf("%s: %s: it never shows %q: %s", how, step.what, step.want, got)
				}
				if late := time.Duration(stale - changed); late > 100*time.Millisecond {
					t.Errorf("%s: %s: the old value was still shown %v after the change", how, step.what, late)
				}
			}
			c.close()
		}
	}
}

// monotonic is a clock that all processes share.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// follow reads MemTotal and the CPUs all the time. Told what is to come, it says when it last began to read without seeing that.
func follow(args []string) error {
	how, root := args[0], args[1]
	if err := growUp(); err != nil {
		return err
	}
	read := readView
	if how == "held" {
		held := map[string]*os.File{}
		read = func(root, name string) (string, error) {
			f, err := held[name], error(nil)
			if f == nil {
				if f, err = os.Open(filepath.Join(root, name)); err != nil {
					return "", err
				}
				held[name] = f
			}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return "", err
			}
			text := make([]byte, 64<<10)
			n, err := f.Read(text)
			return trimBlank(string(text[:n])), err
		}
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		want := in.Text()
		stale := int64(0)
		for deadline := time.Now().Add(5 * time.Second); ; {
			begin, first := monotonic(), stale == 0
			got, err := reading(read, root)
			if err != nil {
				return err
			}
			if got == want {
				break
			}
			if first {
				fmt.Println("started")
			}
			if stale = begin; time.Now().After(deadline) {
				fmt.Printf("still %q\n", got)
				return nil
			}
		}
		fmt.Println(stale)
	}
	return nil
}

// reading is one look at all that limits change, as in "524288 0,1".
func reading(read func(root, name string) (string, error), root string) (string, error) {
	text, err := read(root, "proc/meminfo")
	if err != nil {
		return "", err
	}
	m, err := parseMeminfo(text)
	if err != nil {
		return "", err
	}
	if text, err = read(root, "proc/cpuinfo"); err != nil {
		return "", err
	}
	info, err := parseCpuinfo(text)
	if err != nil {
		return "", err
	}
	if text, err = read(root, "sys/devices/system/cpu/online"); err != nil {
		return "", err
	}
	online, err := parseList(strings.TrimSuffix(text, "\n"))
	if err != nil {
		return "", err
	}
	if !slices.Equal(info, online) { // read one after the other: a change may fall between
		return fmt.Sprintf("%d %s|%s", m["MemTotal"], list(info), list(online)), nil
	}
	return fmt.Sprintf("%d %s", m["MemTotal"], list(online)), nil
}
