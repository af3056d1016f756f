package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["freshness"] = freshness }

// fresh is how late a change may be seen through an own view. The kernel keeps an answer for 10 ms, which it counts in timer interrupts, begun ones
// included: 16 ms with the usual 250 a second.
func fresh() time.Duration { return time.Duration(rounds(20, 100)) * time.Millisecond }

// hiccup is how long the reader may have been kept from reading in a trial that counts: what the kernel's 16 ms leave.
func hiccup() time.Duration { return time.Duration(rounds(4, 25)) * time.Millisecond }

// sight is what a reader, who reads all the time, tells of a change: times of the monotonic clock.
type sight struct {
	Seen int64      // end of the first read that showed it
	Gaps [][2]int64 // longer ones between the ends of two reads
	Got  string     // if it never came
}

// trials collects how late a kind of change was seen.
type trials struct {
	what      string
	late      []time.Duration
	discarded int
}

// add counts a trial, unless the reader was kept from reading in it: then that is what would be measured.
func (r *trials) add(t *testing.T, changed int64, s sight) {
	t.Helper()
	if s.Seen == 0 {
		t.Fatalf("%s: never seen; there is %q", r.what, s.Got)
	}
	for _, g := range s.Gaps {
		if g[1] > changed && g[0] < s.Seen && g[1]-g[0] > int64(hiccup()) {
			r.discarded++
			return
		}
	}
	r.late = append(r.late, time.Duration(s.Seen-changed))
}

func (r *trials) check(t *testing.T, least int) {
	t.Helper()
	if len(r.late) < least {
		t.Errorf("%s: in %d trials the reader was kept from reading; only %d are left", r.what, r.discarded, len(r.late))
		return
	}
	slices.Sort(r.late)
	t.Logf("%s: %d trials, median %v, longest %v, %d discarded", r.what, len(r.late), r.late[len(r.late)/2].Round(10*time.Microsecond), r.late[len(r.late)-1].Round(10*time.Microsecond), r.discarded)
	for _, late := range r.late {
		if late > fresh() {
			t.Errorf("%s: seen %v after the change", r.what, late)
		}
	}
}

// A limit that was changed, memory that was allocated, time that passed: each is seen through an own view within two ticks, every time.
func TestOwnViewsAreFresh(t *testing.T) {
	needRoot(t)
	host := hostCPUs(t)
	if len(host) < 2 {
		skip(t, "needs two CPUs")
	}
	d := servePlain(t)
	hurry(t, d.worker())
	first, both := list(host[:1]), list(host[:2])
	c := d.container([]string{"--memory", "256M", "--cpuset", both}, asRole("freshness")...)
	if got := c.line(); got != "grown up" {
		t.Fatal(got)
	}
	limits := controlsOf(t, c.init)
	const held, slack = 50 << 10, 8 << 10 // kB: allocated, and what may come and go beside that

	free := int(meminfo(t, trimBlank(enter(t, c.init, "cat", "/proc/meminfo")))["MemFree"]) + (320-256)<<10 // with the limit that it will have by then
	for _, kind := range []struct {
		what   string
		want   [2]string       // what the reader is to wait for, before the change is made
		change [2]func() error // nil: the container itself does as it is told
	}{
		{"memory limit", [2]string{fmt.Sprintf("MemTotal = %d", 192<<10), fmt.Sprintf("MemTotal = %d", 320<<10)},
			[2]func() error{func() error { return limits.setMemory(192 << 10) }, func() error { return limits.setMemory(320 << 10) }}},
		{"memory allocated", [2]string{fmt.Sprintf("MemFree < %d", free-held+slack), fmt.Sprintf("MemFree > %d", free-slack)},
			[2]func() error{}},
		{"cpuset, in online", [2]string{fmt.Sprintf("online = %s", first), fmt.Sprintf("online = %s", both)},
			[2]func() error{func() error { return limits.setCPUs(host[:1]) }, func() error { return limits.setCPUs(host[:2]) }}},
		{"quota, in online", [2]string{fmt.Sprintf("online = %s", first), fmt.Sprintf("online = %s", both)},
			[2]func() error{func() error { return limits.setQuota(1) }, func() error { return limits.setQuota(2) }}},
		{"quota, in cpuinfo", [2]string{fmt.Sprintf("cpuinfo = %s", first), fmt.Sprintf("cpuinfo = %s", both)},
			[2]func() error{func() error { return limits.setQuota(1) }, func() error { return limits.setQuota(2) }}},
	} {
		result := trials{what: kind.what}
		enough := rounds(20, 4)
		for n := 0; (len(result.late) < enough || n%2 == 1) && n < 30*enough; n++ {
			way := n % 2 // in pairs: then all is as it was
			if got := c.ask("watch %s", kind.want[way]); got != "started" {
				t.Fatalf("%s: %q", kind.what, got)
			}
			time.Sleep(rand.N(13 * time.Millisecond)) // at any moment of a tick
			var changed int64
			var seen sight
			if change := kind.change[way]; change != nil {
				if err := change(); err != nil {
					t.Fatal(err)
				}
				changed = monotonic()
				seen = decode[sight](t, c.line())
			} else {
				c.say("%s", [2]string{"allocate", "release"}[way])
				for changed == 0 || seen.Seen == 0 && seen.Got == "" {
					if line := c.line(); strings.HasPrefix(line, "{") {
						seen = decode[sight](t, line)
					} else if _, err := fmt.Sscan(line, &changed); err != nil {
						t.Fatalf("%q: %v", line, err)
					}
				}
			}
			result.add(t, changed, seen)
		}
		result.check(t, enough)
	}

	// The uptime, at each tenth of a second.
	result := trials{what: "time passed, in uptime"}
	enough := rounds(20, 4)
	for n := 0; len(result.late) < enough && n < 10; n++ {
		c.say("uptime 3000")
		for line := c.line(); line != "done"; line = c.line() {
			var due int64
			number, seen, _ := strings.Cut(line, " ")
			if _, err := fmt.Sscan(number, &due); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			result.add(t, due, decode[sight](t, seen))
		}
	}
	result.check(t, enough)
	c.close()
}

// freshness is the container: it reads all the time until it sees what it was told to, and allocates when told to.
func freshness([]string) error {
	for begin := time.Now(); time.Since(begin) < 1200*time.Millisecond; {
		time.Sleep(10 * time.Millisecond) // of younger containers nothing is kept
	}
	fmt.Println("grown up")
	var mem []byte
	held := map[string]int{}
	in := bufio.NewScanner(os.Stdin)
	for n := 0; in.Scan(); n++ {
		word := strings.Fields(in.Text())
		var err error
		switch word[0] {
		case "watch":
			w := &watcher{held: held, hold: n%4 < 2}
			go func() {
				if err := w.until(word[1], word[2], word[3]); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
			}()
		case "allocate":
			if mem, err = anonymous(50 << 20); err != nil {
				return err
			}
			touch(mem)
			fmt.Println(monotonic())
		case "release":
			if err := unix.Munmap(mem); err != nil {
				return err
			}
			fmt.Println(monotonic())
		case "uptime":
			ms, _ := strconv.Atoi(word[1])
			if err := (&watcher{held: held}).seconds(time.Duration(ms) * time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// watcher reads a file over and over.
type watcher struct {
	held map[string]int
	hold bool // the file is kept open
	buf  [16 << 10]byte
	last int64
	gaps [][2]int64
}

// precedence has the calling thread go before the machine's other work.
func precedence() error {
	runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
	return unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
}

// read gives the text and when the read had ended. It makes no garbage: that would be seen as memory in use.
func (w *watcher) read(path string) (text []byte, end int64, err error) {
	fd, ok := w.held[path]
	if !ok || !w.hold {
		if fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, 0, err
		}
		if w.hold {
			w.held[path] = fd
		} else {
			defer unix.Close(fd)
		}
	}
	n, err := unix.Pread(fd, w.buf[:], 0)
	if err != nil {
		return nil, 0, err
	}
	end = monotonic()
	w.gap(w.last, end, time.Millisecond)
	// The kernel counts how long it keeps an answer by the interrupts of one CPU's timer. So goes this clock, and shows where that CPU was taken away.
	var counted, step unix.Timespec
	err = errors.Join(unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &counted), unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &step))
	w.gap(counted.Nano(), end, 2*time.Duration(step.Nano()))
	w.last = end
	return w.buf[:n], end, err
}

// gap notes one that is longer than usual. Only the latest count.
func (w *watcher) gap(from, to int64, usual time.Duration) {
	if to-from <= int64(usual) {
		return
	}
	if n := len(w.gaps); n > 0 && w.gaps[n-1][0] == from {
		w.gaps[n-1][1] = to
		return
	}
	w.gaps = append(w.gaps[max(0, len(w.gaps)-100):], [2]int64{from, to})
}

// until reads until a value is as wanted, and tells when that was.
func (w *watcher) until(what, relation, want string) error {
	if err := precedence(); err != nil {
		return err
	}
	path, wanted := "/proc/meminfo", func(text []byte) bool {
		_, rest, _ := bytes.Cut(text, []byte(what+":"))
		line, _, _ := bytes.Cut(rest, []byte(" kB\n"))
		return compare(string(bytes.TrimSpace(line)), relation, want)
	}
	switch what {
	case "online":
		path = "/sys/devices/system/cpu/online"
		wanted = func(text []byte) bool {
			cpus, _ := parseList(strings.TrimSpace(string(text)))
			return list(cpus) == want
		}
	case "cpuinfo":
		path = "/proc/cpuinfo"
		wanted = func(text []byte) bool {
			cpus, _ := parseCpuinfo(trimBlank(string(text)))
			return list(cpus) == want
		}
	}
	started := monotonic()
	w.last = started
	for n := 0; ; n++ {
		text, end, err := w.read(path)
		if err != nil {
			return err
		}
		if wanted(text) {
			if n == 0 {
				return fmt.Errorf("it is there before the change: %s", text)
			}
			fmt.Println(encode(sight{Seen: end, Gaps: w.gaps}))
			return nil
		}
		if n == 0 {
			w.last, w.gaps = monotonic(), nil
			fmt.Println("started")
		}
		if end-started > int64(10*time.Second) {
			fmt.Println(encode(sight{Got: string(text)}))
			return nil
		}
	}
}

func compare(got, relation, want string) bool {
	if relation == "=" {
		return got == want
	}
	g, _ := strconv.Atoi(got)
	w, _ := strconv.Atoi(want)
	return relation == "<" && g < w || relation == ">" && g > w
}

// seconds reads uptime, and tells for each tenth of a second of its container's age when it was due and when it was seen.
func (w *watcher) seconds(limit time.Duration) error {
	if err := precedence(); err != nil {
		return err
	}
	stat, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return err
	}
	started, err := strconv.ParseInt(strings.Fields(string(stat[strings.LastIndex(string(stat), ")"):]))[22-2], 10, 64)
	if err != nil {
		return err
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return err
	}
	const tick, tenth = int64(10 * time.Millisecond), int64(100 * time.Millisecond)
	born := started*tick - boot.Nano() + monotonic() // on the monotonic clock, which a test's few seconds are too short to part from boot time
	w.last = monotonic()
	next := (w.last-born)/tenth + 2
	for end := monotonic() + int64(limit); ; {
		text, seen, err := w.read("/proc/uptime")
		if err != nil {
			return err
		}
		up, _, err := parseUptime(trimBlank(string(text)))
		if err != nil {
			return err
		}
		due := born + next*tenth
		if int64(up*100+0.5)*tick >= next*tenth {
			if seen < due-int64(time.Millisecond) {
				return fmt.Errorf("uptime %v is ahead by %v", up, time.Duration(due-seen))
			}
			fmt.Println(due, encode(sight{Seen: seen, Gaps: w.gaps}))
			next++
		}
		if seen > end {
			fmt.Println("done")
			return nil
		}
	}
}
