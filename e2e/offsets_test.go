package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	roles["offsets"] = offsets
	roles["slowly"] = slowly
	roles["sizes"] = sizes
}

// theFiles are what these tests read.
var theFiles = []string{"proc/meminfo", "proc/cpuinfo", "proc/uptime", "sys/devices/system/cpu/online"}

func TestReadAtAnyOffset(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, root := range []string{"/", d.tree} {
		d.run([]string{"--memory", "300M", "--cpus", "1"}, asRole("offsets", root)...)
	}
	d.alive()
}

// offsets reads the files whose text stands still at all kinds of offsets, each time on a fresh descriptor and again on a used one.
func offsets(args []string) error {
	return errors.Join(readEverywhere(args[0]), growUp(), readEverywhere(args[0]))
}

func readEverywhere(root string) error {
	for _, name := range []string{"proc/cpuinfo", "sys/devices/system/cpu/online"} {
		path := filepath.Join(root, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		used, err := os.Open(path)
		if err != nil {
			return err
		}
		size := int64(len(whole))
		for _, at := range []int64{size / 2, 0, 1, size - 1, size, size + 1, 4096, 65536, 1 << 20, 1 << 31, 1 << 40, 1 << 62, math.MaxInt64 - 1<<20} {
			for _, n := range []int{1, 7, 4096, 100_000} {
				fresh, err := os.Open(path)
				if err != nil {
					return err
				}
				want := whole[min(at, size):min(at+int64(n), size)]
				err = errors.Join(readAt(fresh, at, n, want), readAt(used, at, n, want), fresh.Close())
				if err != nil {
					return err
				}
			}
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(used.Fd()), &st); err != nil {
			return err
		}
		if end, err := used.Seek(0, io.SeekEnd); err != nil || end != st.Size || end < size {
			return fmt.Errorf("%s: SEEK_END gives %d, of %d bytes, size %d: %v", path, end, size, st.Size, err)
		}
		if n, err := used.Read(make([]byte, 10)); n != 0 || err != io.EOF {
			return fmt.Errorf("%s: %d bytes at its end: %v", path, n, err)
		}
		if err := used.Close(); err != nil {
			return err
		}
	}
	return nil
}

func readAt(f *os.File, at int64, n int, want []byte) error {
	got := make([]byte, n)
	n, err := f.ReadAt(got, at)
	if err != nil && err != io.EOF {
		return fmt.Errorf("%d bytes of %s at %d: %w", len(got), f.Name(), at, err)
	}
	if !bytes.Equal(got[:n], want) {
		return fmt.Errorf("%d bytes of %s at %d: %q, not %q", len(got), f.Name(), at, got[:n], want)
	}
	return nil
}

// On the shared tree a text is one snapshot from its beginning to its end, however slowly it is read; back at the beginning it is a new one.
func TestReadByteByByte(t *testing.T) {
	needRoot(t)
	d := serve(t)
	d.run([]string{"--memory", "300M"}, asRole("slowly", d.tree)...)
}

func slowly(args []string) error {
	if err := growUp(); err != nil {
		return err
	}
	path := filepath.Join(args[0], "proc/uptime")
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 5 { // the same descriptor again and again, as procps does
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		before, err := uptimeOf(path)
		if err != nil {
			return err
		}
		var text []byte
		var after float64
		for buf := make([]byte, 1); ; {
			n, err := f.Read(buf)
			if n == 0 {
				if err != io.EOF {
					return err
				}
				break
			}
			if text = append(text, buf[0]); len(text) == 1 {
				if after, err = uptimeOf(path); err != nil {
					return err
				}
			}
			time.Sleep(3 * time.Millisecond) // some ticks in all
		}
		up, _, err := parseUptime(string(text))
		if err != nil {
			return err
		}
		if up < before || up > after {
			return fmt.Errorf("read byte by byte, uptime is %v; when the first was read it was between %v and %v", up, before, after)
		}
	}
	f, err = os.Open(filepath.Join(args[0], "proc/meminfo"))
	if err != nil {
		return err
	}
	defer f.Close()
	var text strings.Builder
	if _, err := io.CopyBuffer(&text, struct{ io.Reader }{f}, make([]byte, 1)); err != nil {
		return err
	}
	_, err = parseMeminfo(text.String())
	return err
}

func uptimeOf(path string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	up, _, err := parseUptime(strings.TrimRight(string(text), "\n") + "\n") // blank lines follow what got shorter
	return up, err
}

// The size of a file in an own view is that of the text; in the shared tree it is a page, as in sysfs, for what fits into one.
func TestSizes(t *testing.T) {
	needRoot(t)
	d := serve(t)
	host := hostCPUs(t)
	for _, cpus := range []string{list(host[:1]), list(host)} {
		for _, root := range []string{"/", d.tree} {
			d.run([]string{"--memory", "300M", "--cpuset", cpus}, asRole("sizes", root)...)
		}
	}
}

// sizes compares each file's size with what is read.
func sizes(args []string) error {
	return errors.Join(compareSizes(args[0]), growUp(), compareSizes(args[0]))
}

func compareSizes(root string) error {
	for _, name := range theFiles {
		path := filepath.Join(root, name)
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		var st, fst unix.Stat_t
		var text []byte
		// Only an uptime grows, and does so once in a while: it is looked at again.
		for range 3 {
			if err := errors.Join(unix.Stat(path, &st), unix.Fstat(int(f.Fd()), &fst)); err != nil {
				return err
			}
			if text, err = os.ReadFile(path); err != nil {
				return err
			}
			if st.Size == int64(len(text)) && fst.Size == st.Size {
				break
			}
		}
		const page = 4096
		want := int64(len(text))
		if root != "/" && want <= page && st.Size == page { // unless the host's own text is larger than that
			want = page
		}
		if st.Size != want || fst.Size != st.Size {
			return fmt.Errorf("%s: size %d by stat, %d by fstat, should be %d for the %d read", path, st.Size, fst.Size, want, len(text))
		}
		if age := time.Since(time.Unix(st.Mtim.Unix())); age < -time.Second || age > time.Minute {
			return fmt.Errorf("%s: changed %v ago", path, age)
		}
		if st.Mode != unix.S_IFREG|0o444 || st.Uid != 0 || st.Gid != 0 || st.Nlink != 1 {
			return fmt.Errorf("%s: mode %o of %d:%d, %d links", path, st.Mode, st.Uid, st.Gid, st.Nlink)
		}
	}
	return nil
}
