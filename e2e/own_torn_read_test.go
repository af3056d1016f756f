package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// torn is the container.
func torn([]string) error {
	fmt.Println("ready") // and so in its cgroups
	var told flipped
	in := bufio.NewReader(os.Stdin)
	if err := decodeLine(in, &told); err != nil {
		return err
	}
	r := reports{count: map[string]int{}}
	var all sync.WaitGroup
	end := time.Now().Add(time.Duration(told.Seconds * float64(time.Second)))
	for _, way := range waysToReadWhole {
		for _, root := range []string{"/", told.Tree} {
			if root == "/" && !way.own {
				continue
			}
			all.Go(func() {
				if err := told.readers(root, way, end, &r); err != nil {
					r.fail(fmt.Errorf("%s in %s: %w", way.name, root, err))
				}
			})
		}
	}
	all.Wait()
	if r.err != nil {
		return r.err
	}
	fmt.Println(encode(r.count))
	return told.sizes(in)
}

// reports is what the readers found.
type reports struct {
	mu    sync.Mutex
	count map[string]int
	err   error
}

func (r *reports) saw(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[what]++
}

func (r *reports) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.Join(r.err, err)
}

// waysToReadWhole are those that promise a text of one moment. Of an own view that is one read(2), as of any page; the shared tree keeps a snapshot
// for each open file.
var waysToReadWhole = []struct {
	name string
	own  bool
	hold bool
	read func(f *os.File) ([]byte, error)
}{
	{"one read", true, false, func(f *os.File) ([]byte, error) { return readOnce(f, 64<<10) }},
	{"one read of a page", true, false, func(f *os.File) ([]byte, error) { return readOnce(f, 4096) }},
	{"read, held open", true, true, func(f *os.File) ([]byte, error) { return readOnce(f, 64<<10) }},
	{"sendfile", true, false, func(f *os.File) ([]byte, error) {
		text, err := throughPipe(func(w int) (int, error) { var at int64; return unix.Sendfile(w, int(f.Fd()), &at, 64<<10) })
		if errors.Is(err, unix.EINVAL) { // the shared tree: tools then read
			return io.ReadAll(f)
		}
		return []byte(text), err
	}},
	{"to the end", false, true, func(f *os.File) ([]byte, error) { return readPieces(f, 512) }},
	{"bytes", false, false, func(f *os.File) ([]byte, error) { return readPieces(f, 1) }},
	{"pieces of 7", false, true, func(f *os.File) ([]byte, error) { return readPieces(f, 7) }},
	{"pieces of 1000", false, false, func(f *os.File) ([]byte, error) { return readPieces(f, 1000) }},
}

func readOnce(f *os.File, size int) ([]byte, error) {
	buf := make([]byte, size)
	n, err := unix.Pread(int(f.Fd()), buf, 0)
	return buf[:max(0, n)], err
}

// readPieces reads from the start, so much at a time.
func readPieces(f *os.File, size int) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var text []byte
	buf := make([]byte, size)
	for {
		n, err := f.Read(buf)
		text = append(text, buf[:n]...)
		if err == io.EOF {
			return text, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// readers reads all files one way until the end.
func (told *flipped) readers(root string, way struct {
	name string
	own  bool
	hold bool
	read func(f *os.File) ([]byte, error)
}, end time.Time, r *reports) error {
	held := map[string]*os.File{}
	last := 0.0
	for n := 0; time.Now().Before(end) || n < 3; n++ {
		for _, name := range theFiles {
			f := held[name]
			if f == nil {
				var err error
				if f, err = os.Open(filepath.Join(root, name)); err != nil {
					return err
				}
			}
			text, err := way.read(f)
			if way.hold {
				held[name] = f
			} else {
				f.Close()
			}
			if err == nil {
				err = told.check(root, name, string(text), &last, r)
			}
			if err != nil {
				return fmt.Errorf("%s, reading %d: %w: %q", name, n, err, text)
			}
		}
	}
	return nil
}

// check says what is wrong with a text.
func (told *flipped) check(root, name, text string, last *float64, r *reports) error {
	if strings.Contains(text, "\x00") {
		return errors.New("there are zeros in it")
	}
	whole := text
	if root == "/" {
		whole = strings.TrimRight(text, "\n") + "\n"
		if len(text) < len(whole) {
			return errors.New("its last line is cut off")
		}
	}
	switch filepath.Base(name) {
	case "meminfo":
		return told.meminfo(root, whole, r)
	case "cpuinfo":
		if !strings.HasSuffix(text, "\n\n") {
			return errors.New("its last line is cut off")
		}
		cpus, err := parseCpuinfo(whole)
		if err != nil {
			return err
		}
		return told.oneOf(root, "CPUs", list(cpus), told.CPUs, r)
	case "online":
		cpus, err := parseList(strings.TrimSuffix(whole, "\n"))
		if err != nil {
			return err
		}
		return told.oneOf(root, "CPUs", list(cpus), told.CPUs, r)
	case "uptime":
		up, _, err := parseUptime(whole)
		if err != nil {
			return err
		}
		if up < *last {
			return fmt.Errorf("it was %v before", *last)
		}
		*last = up
		r.saw(root + " uptime")
	}
	return nil
}

// meminfo wants all of its lines, and numbers of one moment: what is used of the total, with either limit, is the little that we use.
func (told *flipped) meminfo(root, text string, r *reports) error {
	m, err := parseMeminfo(text)
	if err != nil {
		return err
	}
	if n := strings.Count(text, "\n"); n != told.Lines {
		return fmt.Errorf("it has %d lines, not %d", n, told.Lines)
	}
	if used := int(m["MemTotal"]) - int(m["MemFree"]); used < 0 || used > 200<<10 {
		return fmt.Errorf("the total is of another moment than what is free: %d kB between them", used)
	}
	if m["MemAvailable"] < m["MemFree"] || m["MemAvailable"] > m["MemTotal"] {
		return fmt.Errorf("%d kB are available, %d are free", m["MemAvailable"], m["MemFree"])
	}
	return told.oneOf(root, "MemTotal", strconv.FormatUint(m["MemTotal"], 10), told.Totals, r)
}

func (told *flipped) oneOf(root, what, got string, can [2]string, r *reports) error {
	if got != can[0] && got != can[1] {
		return fmt.Errorf("%s %s: it never was", what, got)
	}
	r.saw(root + " " + what + " " + got)
	return nil
}

// sizes waits until the container has a second CPU, and then until its files are shorter, and have exactly that size.
func (told *flipped) sizes(in *bufio.Reader) error {
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := readView("/", "sys/devices/system/cpu/online")
		if cpus, _ := parseList(strings.TrimSpace(text)); err == nil && list(cpus) == told.CPUs[1] {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("online stays %q, %w", text, err)
		}
	}
	if _, err := readView("/", "proc/cpuinfo"); err != nil { // of two CPUs
		return err
	}
	fmt.Println("ok")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	begin := time.Now()
	for _, name := range []string{"proc/meminfo", "proc/cpuinfo", "sys/devices/system/cpu/online"} {
		for {
			size, text, err := sizeAndText("/" + name)
			if err != nil {
				return err
			}
			want := len(strings.TrimRight(text, "\n")) + 1
			if name == "proc/cpuinfo" {
				want++ // a blank line ends each CPU
			}
			short := !strings.HasSuffix(name, "online") || strings.TrimSpace(text) == told.CPUs[0]
			if short && size == int64(want) && len(text) == want {
				break
			}
			if time.Since(begin) > 10*time.Second {
				fmt.Printf("%s: size %d, text of %d, should be %d: %q\n", name, size, len(text), want, text)
				return nil
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	fmt.Printf("exact again after %v\n", time.Since(begin).Round(time.Millisecond))
	_, err := io.Copy(io.Discard, in)
	return err
}

func sizeAndText(path string) (int64, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	text, err := readOnce(f, 64<<10)
	if err != nil {
		return 0, "", err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	return info.Size(), string(text), nil
}
