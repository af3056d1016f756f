package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func init() { roles["soak"] = soak }

// soakPlan is what a container of the soak is told at first.
type soakPlan struct {
	Tree    string
	Allowed allowed
	Killed  bool // it has readers that are killed, too
}

// allowed are the limits that a read may show: several while they change.
type allowed struct {
	Totals []uint64 // kB
	CPUs   []int
}

// limitsOverTime are all that were valid, so that a read can be judged by those that were meanwhile.
type limitsOverTime struct {
	mu  sync.Mutex
	all []allowed
}

func (l *limitsOverTime) add(a allowed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, a)
}

// last gives the number of the newest.
func (l *limitsOverTime) last() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all) - 1
}

// since gives all from a number on.
func (l *limitsOverTime) since(n int) (sum allowed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.all[n:] {
		sum.Totals = append(sum.Totals, a.Totals...)
		sum.CPUs = append(sum.CPUs, a.CPUs...)
	}
	return sum
}

// soakPace is the pause between two reads.
const soakPace = 4 * time.Millisecond

// soak reads on both mounts, in two threads on each, until it is told to end; each line before says what limits are valid from then on.
func soak(args []string) error {
	in := bufio.NewReader(os.Stdin)
	var plan soakPlan
	if err := decodeLine(in, &plan); err != nil {
		return err
	}
	limits := &limitsOverTime{all: []allowed{plan.Allowed}}
	if err := growUp(); err != nil {
		return err
	}
	var stop atomic.Bool
	var all sync.WaitGroup
	readers := make([]*soaker, 4)
	for i := range readers {
		r := &soaker{loader: loader{root: []string{"/", plan.Tree}[i%2]}, limits: limits}
		readers[i] = r
		all.Go(func() { r.run(&stop, i) })
	}
	var killErr error
	if plan.Killed {
		all.Go(func() {
			for !stop.Load() && killErr == nil {
				killErr = killOne(filepath.Join([]string{"/", plan.Tree}[rand.N(2)], "proc/meminfo"))
				time.Sleep(rand.N(300 * time.Millisecond))
			}
		})
	}
	fmt.Println("reading")
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == "end\n" {
			break
		}
		var a allowed
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			return err
		}
		limits.add(a)
		fmt.Println("known")
	}
	stop.Store(true)
	all.Wait()
	var sum loadResult
	for _, r := range readers {
		sum.Reads += r.Reads
		sum.Failed += r.Failed
		sum.Failures = append(sum.Failures, r.Failures...)
		sum.Stalls = append(sum.Stalls, r.Stalls...)
	}
	if killErr != nil {
		sum.Failed++
		sum.Failures = append(sum.Failures, killErr.Error())
	}
	sum.trim()
	fmt.Println(encode(sum))
	return nil
}

// soaker is a loader that knows which limits may be seen.
type soaker struct {
	loader
	limits *limitsOverTime
	busy   [3]uint64 // user, nice and system, as stat had them last
}

func (s *soaker) run(stop *atomic.Bool, turn int) {
	for s.turn = turn; !stop.Load(); s.turn++ {
		before, begin := s.limits.last(), time.Now()
		err := s.look(before)
		s.Reads++
		s.Stalls = append(s.Stalls, time.Since(begin))
		if err != nil {
			err = fmt.Errorf("%s to %s: %w", begin.Format(clockFormat), time.Now().Format(clockFormat), err)
			if s.fail(err); s.Failed <= 3 {
				fmt.Fprintln(os.Stderr, s.root, err) // at once: the container may be killed before it is asked
			}
		}
		if len(s.Stalls) >= 2*longest {
			s.trim()
		}
		time.Sleep(soakPace)
	}
}

// clockFormat is how the soak tells when something was.
const clockFormat = "15:04:05.000"

// look reads one of the files, by turns. The limits that it may show are those from a number on.
func (s *soaker) look(before int) error {
	cpus := func(got int) error {
		if a := s.limits.since(before); !slices.Contains(a.CPUs, got) {
			return fmt.Errorf("shows %d CPUs; meanwhile there were %v", got, a.CPUs)
		}
		return nil
	}
	switch s.turn % 5 {
	case 0: // and uptime at 1: what does not depend on the limits is the loader's to check
		text, err := s.text("proc/meminfo", 100+s.turn%4000)
		if err != nil {
			return err
		}
		if err := s.checkMeminfo(text); err != nil {
			return err
		}
		m, err := parseMeminfo(text)
		if a := s.limits.since(before); err != nil || !slices.Contains(a.Totals, m["MemTotal"]) || m["MemFree"] > m["MemTotal"] || m["MemAvailable"] > m["MemTotal"] {
			return fmt.Errorf("meminfo has MemTotal %d, MemFree %d, MemAvailable %d; meanwhile the limits were %v, %v", m["MemTotal"], m["MemFree"], m["MemAvailable"], a.Totals, err)
		}
	case 1:
		return s.checkUptime()
	case 2:
		text, err := s.text("proc/stat", 1000)
		if err != nil {
			return err
		}
		if err := errors.Join(s.checkStat(text), s.checkBusy(text)); err != nil {
			return err
		}
		if err := cpus(strings.Count(text, "\ncpu")); err != nil {
			return fmt.Errorf("stat %w", err)
		}
	case 3:
		text, err := s.text("sys/devices/system/cpu/online", 64)
		if err != nil {
			return err
		}
		online, err := parseList(strings.TrimSpace(text))
		if err := errors.Join(err, cpus(len(online))); err != nil {
			return fmt.Errorf("online is %q: %w", text, err)
		}
	default:
		text, err := s.text("proc/cpuinfo", 4096)
		if err != nil {
			return err
		}
		shown, err := parseCpuinfo(text)
		if err := errors.Join(err, cpus(len(shown))); err != nil {
			return fmt.Errorf("cpuinfo: %w", err)
		}
	}
	return nil
}

// text reads a file as it promises a text of one moment: in pieces of a size from the shared tree, by one read(2) from an own view.
func (s *soaker) text(name string, size int) (string, error) {
	path := filepath.Join(s.root, name)
	if s.root != "/" {
		return inPieces(path, size)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := readOnce(f, 64<<10)
	return string(text), err
}

// checkBusy checks that no time that was used is given back.
func (s *soaker) checkBusy(text string) error {
	var now [3]uint64
	if _, err := fmt.Sscanf(text, "cpu %d %d %d", &now[0], &now[1], &now[2]); err != nil {
		return fmt.Errorf("stat %.80q: %w", text, err)
	}
	for i, was := range s.busy {
		if now[i] < was {
			return fmt.Errorf("stat has user, nice, system %v; they were %v", now, s.busy)
		}
	}
	s.busy = now
	return nil
}
