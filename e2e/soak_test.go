package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	soakFor  = flag.Duration("soak.for", 0, "how long TestSoak goes on; 0: three minutes, half a minute with -test.short")
	soakSeed = flag.Uint64("soak.seed", 0, "what TestSoak does, and in which order; 0: any")
)

// soakTest does to a daemon and its containers what comes to its mind, while these read.
type soakTest struct {
	d       *daemon
	path    string // of the daemon's binary, which is replaced by upgrades
	random  *rand.Rand
	living  []*soaked
	history []string
	pids    map[int]bool // of all keepers and workers that there were
	reads   int
	counts  map[string]int
}

// Containers come and go, are killed and get other limits, and readers are killed, while the daemon is killed, stopped and upgraded. What is read is always
// right. The seed says what is done in which order; when is up to the machine.
func TestSoak(t *testing.T) {
	skipSlow(t)
	needRoot(t)
	length := *soakFor
	if length == 0 {
		length = time.Duration(rounds(180, 30)) * time.Second
	}
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	fmt.Fprintf(os.Stderr, "TestSoak: -soak.seed=%d -soak.for=%v\n", seed, length)
	s := &soakTest{random: rand.New(rand.NewPCG(seed, 0)), pids: map[int]bool{}, counts: map[string]int{}}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d; the last that was done:\n%s", seed, strings.Join(s.history[max(0, len(s.history)-60):], "\n"))
		}
	}()
	s.d, s.path = serveCopy(t)
	s.start()
	before := s.usage()
	s.start()
	s.start()
	for begin := time.Now(); time.Since(begin) < length && !t.Failed(); {
		s.act()
	}
	for len(s.living) > 0 {
		s.end()
	}
	s.d.unharmedMounts()
	s.d.swept()
	s.clean()
	s.bounded(before)
	t.Logf("seed %d: %d reads; %v", seed, s.reads, s.counts)
	if s.reads < 100 || s.counts["worker is killed"] == 0 {
		t.Error("this soak tests nothing")
	}
}

func (s *soakTest) note(format string, args ...any) {
	s.history = append(s.history, time.Now().Format(clockFormat)+" "+fmt.Sprintf(format, args...))
}

// act does one thing.
func (s *soakTest) act() {
	sum := 0
	for _, a := range soakActs {
		sum += a.weight
	}
	n := s.random.IntN(sum)
	for _, a := range soakActs {
		if n -= a.weight; n < 0 {
			s.note("%s", a.name)
			s.counts[a.name]++
			a.do(s)
			break
		}
	}
	if len(s.living) > 0 && time.Since(s.living[0].born) > soakOldest {
		s.end()
	}
	if len(s.living) == 0 {
		s.start()
	}
	for _, c := range s.living {
		s.silent(c)
	}
	s.pids[s.d.cmd.Process.Pid], s.pids[s.d.worker()] = true, true
	time.Sleep(time.Duration(s.random.IntN(200)) * time.Millisecond)
}

// clean checks that nothing is left of containers, readers, keepers and workers.
func (s *soakTest) clean() {
	noneStuck(s.d.t)
	keeper, worker := s.d.cmd.Process.Pid, s.d.worker()
	var left []string
	for range 500 {
		left = nil
		for pid := range s.pids {
			if pid != keeper && pid != worker {
				if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(text), "(lensfs") {
					left = append(left, string(text))
				}
			}
		}
		for _, l := range leftovers() {
			if strings.Contains(l, "lensfs.run.") {
				left = append(left, l)
			}
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.d.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
}

// use is what a process has of descriptors and memory.
type use struct{ files, kb int }

// usage is that of keeper and worker.
func (s *soakTest) usage() (all [2]use) {
	for i, pid := range []int{s.d.cmd.Process.Pid, s.d.worker()} {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			s.d.t.Fatal(err)
		}
		status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
		if err != nil {
			s.d.t.Fatal(err)
		}
		_, rss, _ := strings.Cut(string(status), "VmRSS:")
		all[i].files = len(files)
		fmt.Sscan(rss, &all[i].kb)
	}
	return all
}

// bounded checks that keeper and worker, who have no container any more, have no more than when they had the first.
func (s *soakTest) bounded(before [2]use) {
	var now [2]use
	ok := func() bool {
		now = s.usage()
		return now[0].files <= before[0].files+4 && now[1].files <= before[1].files+4
	}
	for deadline := time.Now().Add(20 * time.Second); !ok() && time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond) // what was read again and again is kept open for ten seconds
	}
	s.d.t.Logf("keeper and worker: %+v; they were %+v", now, before)
	if !ok() {
		s.d.t.Errorf("descriptors of keeper and worker: %+v; they were %+v", now, before)
	}
	const most = 60 << 10 // kB
	if now[0].kb > most || now[1].kb > most {
		s.d.t.Errorf("memory of keeper and worker: %+v, each may have %d kB", now, most)
	}
}
