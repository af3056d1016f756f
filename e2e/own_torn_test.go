package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["torn"] = torn }

// flipped is what a container is told: where to read, and between what it is flipped.
type flipped struct {
	Tree    string
	Totals  [2]string // MemTotal, in kB
	CPUs    [2]string
	Lines   int // of meminfo
	Seconds float64
}

// A writer changes limits as fast as it can while readers of every kind check that each text they get is one snapshot, whole, and one that there has
// been. The longest text goes with the shortest limit and back, so sizes change all the time.
func TestOwnViewsAreNeverTorn(t *testing.T) {
	needRoot(t)
	serve(t).neverTorn(func() error { return nil })
}

// Nor while workers are killed: a text that one has begun, the next goes on with.
func TestTextsOutliveTheWorker(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	pause := 50 * time.Millisecond
	if testing.Short() { // an emulated machine takes half a second for each, and some reader has a thousand pieces to read
		pause = time.Second
	}
	killed := 0
	d.neverTorn(func() error {
		time.Sleep(pause + rand.N(2*pause))
		for _, pid := range d.workers() {
			if err := unix.Kill(pid, unix.SIGKILL); err == nil {
				killed++
			}
		}
		_, err := tryCommand("cat", filepath.Join(d.tree, "proc/uptime")) // the next one has taken over, also where that takes seconds
		return err
	})
	t.Logf("%d workers killed", killed)
	if killed < rounds(20, 3) {
		t.Errorf("only %d workers killed", killed)
	}
}

// neverTorn has a container read under changing limits, and does something else meanwhile, again and again.
func (d *daemon) neverTorn(meanwhile func() error) {
	t := d.t
	t.Helper()
	host := hostCPUs(t)
	if len(host) < 2 {
		skip(t, "needs two CPUs")
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	told := flipped{
		Tree:   d.tree,
		Totals: [2]string{strconv.Itoa(300 << 10), strconv.Itoa(900 << 10)},
		CPUs:   [2]string{list(host[:1]), list(host[:2])},
		Lines:  strings.Count(string(text), "\n"), Seconds: float64(rounds(6, 10)),
	}
	c := d.container([]string{"--memory", "300M", "--cpuset", told.CPUs[0]}, asRole("torn")...)
	c.line()
	limits := controlsOf(t, c.init)

	var flips [3]atomic.Int64
	var all sync.WaitGroup
	ended := make(chan struct{})
	stop := sync.OnceFunc(func() {
		close(ended)
		all.Wait()
	})
	defer stop()
	for i, flip := range []func(n int) error{
		func(n int) error { return limits.setMemory([2]uint64{300 << 10, 900 << 10}[n]) },
		func(n int) error { return limits.setCPUs(host[:1+n]) },
		func(n int) error { return limits.setQuota(1 + n) },
	} {
		all.Go(func() {
			for n := 1; ; n++ {
				if err := flip(n % 2); err != nil && !errors.Is(err, unix.EBUSY) {
					t.Error(err)
					return
				}
				flips[i].Add(1)
				select {
				case <-ended:
					return
				default:
				}
				if n%7 == 0 { // as often with one value as with the other: the readers need some of this machine too
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	all.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(time.Millisecond):
				if err := meanwhile(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	count := decode[map[string]int](t, c.ask("%s", encode(told)))
	stop()
	t.Logf("flips of memory %d, cpuset %d, quota %d; readings and what they were: %v", flips[0].Load(), flips[1].Load(), flips[2].Load(), count)
	for i := range flips {
		if flips[i].Load() < int64(rounds(100, 20)) {
			t.Errorf("%d flips are too few to mean anything", flips[i].Load())
		}
	}
	for _, seen := range []string{"MemTotal " + told.Totals[0], "MemTotal " + told.Totals[1], "CPUs " + told.CPUs[0], "CPUs " + told.CPUs[1]} {
		for _, root := range []string{"/", d.tree} {
			if count[root+" "+seen] < rounds(10, 2) {
				t.Errorf("%s: %s was seen too few times to mean anything: %v", root, seen, count)
			}
		}
	}

	// The exact size is back a while after a text got shorter.
	if err := errors.Join(limits.setMemory(300<<10), limits.setCPUs(host[:2]), limits.setQuota(2)); err != nil {
		t.Fatal(err)
	}
	if got := c.ask("long"); got != "ok" {
		t.Fatal(got)
	}
	if err := limits.setCPUs(host[:1]); err != nil {
		t.Fatal(err)
	}
	if got := c.ask("short"); !strings.HasPrefix(got, "exact") {
		t.Error(got)
	} else {
		t.Logf("a text that got shorter: %s", got)
	}
	c.close()
}
