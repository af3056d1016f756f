package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
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

func init() {
	roles["stranger"] = stranger
	roles["host walker"] = hostWalker
}

// watched is what a container is told: what it may see, and whom it may not.
type watched struct {
	Tree, Views string
	Name        string
	Others      []string
	Totals      []string // MemTotals that it may see, in kB
	CPUs        []int
	Seconds     float64
}

// Containers whose limits change all the time read their views by every way and every path there is, and try to get at each other's. None ever sees
// a number of another's.
func TestOwnViewsAreNobodyElses(t *testing.T) {
	needRoot(t)
	for _, n := range []int{2, rounds(10, 4)} {
		t.Run(strconv.Itoa(n), func(t *testing.T) { isolation(t, n) })
	}
}

func isolation(t *testing.T, n int) {
	d := serve(t)
	host := hostCPUs(t)
	seconds := float64(rounds(4, 6))
	var told []watched
	var them []*container
	for i := range n {
		w := watched{Tree: d.tree, Views: d.views, Seconds: seconds, CPUs: host[i%len(host) : i%len(host)+1]}
		for _, mb := range []int{200 + 2*i, 400 + 2*i} {
			w.Totals = append(w.Totals, strconv.Itoa(mb<<10))
		}
		c := d.container([]string{"--memory", w.Totals[0] + "k", "--cpuset", list(w.CPUs)}, asRole("stranger")...)
		c.line()
		w.Name = c.name
		told, them = append(told, w), append(them, c)
	}

	// All of them are known to the daemon, and the host looks at each.
	walker := exec.Command(asRole("host walker", d.views)[0], asRole("host walker", d.views)[1:]...)
	walks, stopWalking := pipes(t, walker)
	var changes atomic.Int64
	var all sync.WaitGroup
	ended := make(chan struct{})
	stop := sync.OnceFunc(func() {
		close(ended)
		all.Wait()
	})
	defer stop()
	for i, c := range them {
		limits, totals := controlsOf(t, c.init), told[i].Totals
		all.Go(func() {
			for n := 1; ; n++ {
				kb, _ := strconv.ParseUint(totals[n%2], 10, 64)
				if err := limits.setMemory(kb); err != nil && !errors.Is(err, unix.EBUSY) {
					t.Error(err)
					return
				}
				changes.Add(1)
				select {
				case <-ended:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	for i, c := range them {
		for j := range told {
			if j != i {
				told[i].Others = append(told[i].Others, told[j].Name)
			}
		}
		c.say("%s", encode(told[i]))
	}
	for _, c := range them {
		line := c.line()
		count, err := strconv.Atoi(line)
		if err != nil || count < 3 {
			t.Errorf("%s: %s rounds: %s", c.name, line, c.errs)
		}
	}
	stop()
	stopWalking.Close()
	seen := decode[map[string][]string](t, strings.TrimSpace(<-walks))
	for _, w := range told {
		slices.Sort(seen[w.Name])
		for _, total := range seen[w.Name] {
			if !slices.Contains(w.Totals, total) {
				t.Errorf("the host sees %s kB in %s, which has one of %v", total, w.Name, w.Totals)
			}
		}
		if len(seen[w.Name]) == 0 {
			t.Errorf("the host has not seen %s", w.Name)
		}
	}
	t.Logf("%d changes of limits, the host saw %v", changes.Load(), seen)
	if changes.Load() < int64(50*n) {
		t.Errorf("%d changes of limits are too few to mean anything", changes.Load())
	}
	for _, c := range them {
		c.close()
	}
}

// pipes starts a command whose output is given as a whole when its input has been closed.
func pipes(t *testing.T, c *exec.Cmd) (output <-chan string, input io.Closer) {
	t.Helper()
	log := &logBuffer{}
	c.Stderr = log
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 1)
	var text strings.Builder
	c.Stdout = &text
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		if err := c.Wait(); err != nil {
			t.Errorf("%v: %v: %s", c.Args, err, log)
		}
		out <- text.String()
		close(ended)
	}()
	t.Cleanup(func() {
		in.Close()
		select {
		case <-ended:
		case <-time.After(patience(20 * time.Second)):
			c.Process.Kill()
			<-ended
		}
	})
	return out, in
}

// hostWalker reads every container's directory over and over, as the host may, and tells which MemTotals it found in which.
func hostWalker(args []string) error {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	seen := map[string][]string{}
	for {
		select {
		case <-ended:
			fmt.Println(encode(seen))
			return nil
		default:
		}
		dirs, err := os.ReadDir(filepath.Join(args[0], "ct"))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			text, err := os.ReadFile(filepath.Join(args[0], "ct", dir.Name(), "proc/meminfo"))
			if err != nil {
				return err
			}
			m, err := parseMeminfo(trimBlank(string(text)))
			if err != nil {
				return err
			}
			if total := strconv.FormatUint(m["MemTotal"], 10); !slices.Contains(seen[dir.Name()], total) {
				seen[dir.Name()] = append(seen[dir.Name()], total)
			}
		}
	}
}

// stranger is a container among others. It complains as soon as it sees what is not its own.
func stranger([]string) error {
	fmt.Println("ready") // and so in its cgroups
	var w watched
	in := bufio.NewReader(os.Stdin)
	if err := decodeLine(in, &w); err != nil {
		return err
	}
	own := filepath.Join(w.Views, "ct", w.Name)
	roots := []string{"/", w.Tree, filepath.Join(w.Views, "self"), own}
	held := map[string]*os.File{}
	for _, root := range roots {
		f, err := os.Open(filepath.Join(root, "proc/meminfo"))
		if err != nil {
			return err
		}
		defer f.Close()
		held[root] = f
	}
	worked := map[string]int{}
	n := 0
	for end := time.Now().Add(time.Duration(w.Seconds * float64(time.Second))); time.Now().Before(end) || n < 3; n++ {
		for _, root := range roots {
			if err := w.everyWay(held[root], root, worked); err != nil {
				return fmt.Errorf("held: %w", err)
			}
			f, err := os.Open(filepath.Join(root, "proc/meminfo"))
			if err != nil {
				return err
			}
			err = errors.Join(w.everyWay(f, root, worked), f.Close())
			if err != nil {
				return err
			}
			if err := w.cpus(root); err != nil {
				return fmt.Errorf("%s: %w", root, err)
			}
		}
		if err := w.others(); err != nil {
			return err
		}
	}
	for _, way := range []string{"read", "pread", "sendfile", "splice", "mmap", "shared mmap"} {
		if worked[way] == 0 {
			return fmt.Errorf("%s never gave a text of an own view", way)
		}
	}
	// As a user of the container's.
	if err := unix.Setresuid(65534, 65534, 65534); err != nil {
		return err
	}
	if _, err := os.ReadDir(filepath.Join(w.Views, "ct")); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("a user without rights lists the containers: %w", err)
	}
	if text, err := os.ReadFile(filepath.Join(own, "proc/meminfo")); err != nil || !w.mine(string(text)) {
		return fmt.Errorf("a user of the container's reads %q, %w", text, err)
	}
	if err := w.out(); err != nil {
		return err
	}
	fmt.Println(n)
	_, err := io.Copy(io.Discard, in) // lives on while others still look
	return err
}

// mine says that a text has a MemTotal, and that it is the container's own.
func (w *watched) mine(text string) bool {
	found := memTotal.FindStringSubmatch(text)
	return found != nil && slices.Contains(w.Totals, found[1])
}

func (w *watched) everyWay(f *os.File, root string, worked map[string]int) error {
	askAhead(f)
	for _, way := range waysToRead {
		text, err := way.read(f)
		if err != nil && way.refused == nil {
			return fmt.Errorf("%s, %s: %w", root, way.name, err)
		}
		if text == "" && way.refused != nil {
			continue
		}
		if !w.mine(text) {
			return fmt.Errorf("%s, %s: not one of %v: %q", root, way.name, w.Totals, text)
		}
		if root != w.Tree {
			worked[way.name]++
		}
	}
	return nil
}

func (w *watched) cpus(root string) error {
	text, err := os.ReadFile(filepath.Join(root, "proc/cpuinfo"))
	if err != nil {
		return err
	}
	info, err := parseCpuinfo(string(text))
	if err != nil {
		return err
	}
	if text, err = os.ReadFile(filepath.Join(root, "sys/devices/system/cpu/online")); err != nil {
		return err
	}
	online, err := parseList(strings.TrimRight(string(text), "\n"))
	if err != nil {
		return err
	}
	if !slices.Equal(info, w.CPUs) || !slices.Equal(online, w.CPUs) {
		return fmt.Errorf("cpuinfo has the CPUs %v, online has %v, not %v", info, online, w.CPUs)
	}
	return nil
}

// others tries to see the other containers.
func (w *watched) others() error {
	entries, err := os.ReadDir(filepath.Join(w.Views, "ct"))
	if err != nil {
		return err
	}
	if len(entries) != 1 || entries[0].Name() != w.Name {
		return fmt.Errorf("%s finds %v in ct", w.Name, entries)
	}
	if link, err := os.Readlink(filepath.Join(w.Views, "self")); err != nil || link != "ct/"+w.Name {
		return fmt.Errorf("self leads %s to %q, %w", w.Name, link, err)
	}
	return w.out()
}

func (w *watched) out() error {
	for _, other := range w.Others {
		for _, path := range []string{"ct/" + other, "ct/" + other + "/", "ct/" + other + "/proc/meminfo", "ct/" + w.Name + "/../" + other + "/proc/meminfo", "self/../" + other + "/proc"} {
			path = w.Views + "/" + path // as it is, with its dots
			for _, flags := range []int{unix.O_RDONLY, unix.O_PATH, unix.O_PATH | unix.O_NOFOLLOW, unix.O_DIRECTORY} {
				fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
				if err != unix.ENOENT {
					unix.Close(fd)
					return fmt.Errorf("%s opens %s with flags %#x: %w", w.Name, path, flags, err)
				}
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != unix.ENOENT {
				return fmt.Errorf("%s looks at %s: %w", w.Name, path, err)
			}
		}
	}
	return nil
}
