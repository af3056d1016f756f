package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	roles["refused"] = refused
	roles["everyway"] = everyWay
}

// aWay is how a process gets at the text of an open file.
type aWay struct {
	name string
	read func(f *os.File) (string, error)
	// refused are the errors of the shared tree, where the way leads through the page cache, which is one for all containers.
	// They make tools fall back to reading.
	refused []error
}

var errFault = errors.New("SIGBUS")

var waysToRead = []aWay{
	{"read", func(f *os.File) (string, error) {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
		text, err := io.ReadAll(struct{ io.Reader }{f})
		return string(text), err
	}, nil},
	{"pread", func(f *os.File) (string, error) {
		buf := make([]byte, 4096)
		n, err := unix.Pread(int(f.Fd()), buf, 0)
		return string(buf[:max(0, n)]), err
	}, nil},
	{"pread without waiting", func(f *os.File) (string, error) {
		buf := make([]byte, 4096)
		n, err := unix.Preadv2(int(f.Fd()), [][]byte{buf}, 0, unix.RWF_NOWAIT)
		return string(buf[:max(0, n)]), err
	}, []error{unix.EAGAIN, unix.EOPNOTSUPP}},
	{"sendfile", func(f *os.File) (string, error) {
		return throughPipe(func(w int) (int, error) { var at int64; return unix.Sendfile(w, int(f.Fd()), &at, 4096) })
	}, []error{unix.EINVAL}},
	{"splice", func(f *os.File) (string, error) {
		return throughPipe(func(w int) (int, error) {
			var at int64
			n, err := unix.Splice(int(f.Fd()), &at, w, nil, 4096, unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
	}, []error{unix.EINVAL}},
	{"copy_file_range", copyRange, []error{unix.EINVAL, unix.EXDEV}}, // since Linux 5.19 two file systems are refused at once
	{"mmap", func(f *os.File) (string, error) { return mapped(f, unix.MAP_PRIVATE) }, []error{errFault}},
	{"shared mmap", func(f *os.File) (string, error) { return mapped(f, unix.MAP_SHARED) }, []error{unix.ENODEV, errFault}},
}

// throughPipe gives what send puts into a pipe.
func throughPipe(send func(w int) (int, error)) (string, error) {
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		return "", err
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	n, err := send(p[1])
	if err != nil || n <= 0 {
		return "", err
	}
	buf := make([]byte, n)
	n, err = unix.Read(p[0], buf)
	return string(buf[:max(0, n)]), err
}

func copyRange(f *os.File) (string, error) {
	to, err := os.CreateTemp("", runName())
	if err != nil {
		return "", err
	}
	defer to.Close()
	defer os.Remove(to.Name())
	var from int64
	if _, err := unix.CopyFileRange(int(f.Fd()), &from, int(to.Fd()), nil, 4096, 0); err != nil {
		return "", err
	}
	text, err := os.ReadFile(to.Name())
	return string(text), err
}

// mapped gives what is seen in a mapping of the file's first page.
func mapped(f *os.File, flags int) (text string, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, flags)
	if err != nil {
		return "", err
	}
	defer func() {
		if recover() != nil {
			text, err = "", errFault
		}
		err = errors.Join(err, unix.Munmap(m))
	}()
	return strings.TrimRight(string(m), "\x00"), nil
}

// askAhead has the kernel read the file into its page cache, as far as it may.
func askAhead(f *os.File) {
	fd := int(f.Fd())
	unix.Syscall(unix.SYS_READAHEAD, uintptr(fd), 0, 4096)
	unix.Fadvise(fd, 0, 4096, unix.FADV_WILLNEED)
}

// Ways through the page cache are refused on the shared tree, on each of its files, with the errors that make tools fall back.
func TestPageCacheIsRefused(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, name := range theFiles {
		d.run([]string{"--memory", "300M"}, asRole("refused", filepath.Join(d.tree, name))...)
	}
}

func refused(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	askAhead(f)
	var errs []error
	for _, w := range waysToRead {
		text, err := w.read(f)
		if w.refused == nil {
			if err != nil || text == "" {
				errs = append(errs, fmt.Errorf("%s: %q, %w", w.name, text, err))
			}
			continue
		}
		if !slices.ContainsFunc(w.refused, func(want error) bool { return errors.Is(err, want) }) {
			errs = append(errs, fmt.Errorf("%s of %s: %q, %v, not one of %v", w.name, args[0], text, err, w.refused))
		}
	}
	return errors.Join(errs...)
}

// Everyday tools print the whole file, by whatever way they read.
func TestToolsFallBack(t *testing.T) {
	needRoot(t)
	needCommand(t, "busybox")
	d := serve(t)
	tools := []string{"busybox cat @", "busybox cat <@", "cat @", "cp @ /dev/stdout", "busybox cp @ $T; cat $T", "cp @ $T; cat $T", "cp --reflink=auto @ $T; cat $T",
		"cp -a @ $T; cat $T", "dd status=none if=@", "dd status=none bs=100 if=@", "head -n 9999 @", "tail -n 9999 @", "tail -c +1 @", "busybox tail -n 9999 @",
		"sed '' @", "tac @ | tac", "grep '' @", "busybox grep '' @", "awk '{print}' @"}
	if !testing.Short() { // these ask for each byte
		tools = append(tools, "dd status=none bs=1 if=@", "while IFS= read -r l; do printf '%s\\n' \"$l\"; done <@")
	}
	for _, root := range []string{"", d.tree} {
		// cpuinfo does not change between the reads that are compared.
		script := "T=$(mktemp); trap 'rm -f $T' EXIT; a=$(cat @; echo x)\n"
		for _, tool := range tools {
			script += "b=$(" + tool + "; echo x); [ \"$a\" = \"$b\" ] || echo \"" + strings.NewReplacer(`"`, `\"`, `$`, `\$`).Replace(tool) + ": $b\"\n"
		}
		// These would rather begin at the end: they must not believe a size that is none.
		ends := []string{"tail -c 20", "tail -n 3", "busybox tail -n 3", "head -c -20", "head -n -3", "tac"}
		if root == "" { // in the shared tree, as in sysfs, it believes that the file is a page long
			ends = append(ends, "busybox tail -c 20")
		}
		for _, tool := range ends {
			script += "[ \"$(" + tool + " @)\" = \"$(cat @ | " + tool + ")\" ] || echo \"" + tool + ": $(" + tool + " @)\"\n"
		}
		script += "n=$(wc -c <@); [ $((n + 1)) = ${#a} ] || echo \"wc: $n bytes, not ${#a} less 1\"\n"
		if got := d.run([]string{"--memory", "300M"}, "sh", "-c", strings.ReplaceAll(script, "@", root+"/proc/cpuinfo")); got != "" {
			t.Error(got)
		}
		out := d.run([]string{"--memory", "300M"}, "busybox", "cat", root+"/proc/meminfo")
		m, err := parseMeminfo(out)
		if err != nil || m["MemTotal"] != 300<<10 {
			t.Errorf("busybox cat: MemTotal is %d: %v", m["MemTotal"], err)
		}
	}
}

// Two containers read the same file by every way at the same time, with descriptors held and fresh. None ever gets hold of the other's text.
func TestNoTextLeaksToAnotherContainer(t *testing.T) {
	needRoot(t)
	d := serve(t)
	var all sync.WaitGroup
	for _, kb := range []int{200 << 10, 300 << 10} {
		for _, root := range []string{"/", d.tree} {
			all.Go(func() {
				role := asRole("everyway", filepath.Join(root, "proc/meminfo"), "4s", strconv.Itoa(kb))
				if _, err := tryCommand(binary, d.runArgs([]string{"--memory", strconv.Itoa(kb * 1024)}, role...)...); err != nil {
					t.Errorf("%d kB: %v", kb, err)
				}
			})
		}
	}
	all.Wait()
	d.alive()
}

var memTotal = regexp.MustCompile(`MemTotal: *([0-9]+) kB`)

// everyWay reads by all the ways, and complains about a MemTotal that is not its own.
func everyWay(args []string) error {
	path, own := args[0], args[2]
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	held, err := os.Open(path)
	if err != nil {
		return err
	}
	defer held.Close()
	begin := time.Now()
	for n := 0; n < enough || time.Since(begin) < limit; n++ {
		fresh, err := os.Open(path)
		if err != nil {
			return err
		}
		for _, f := range []*os.File{held, fresh} {
			askAhead(f)
			for _, w := range waysToRead {
				text, err := w.read(f)
				if err != nil && w.refused == nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
				found := memTotal.FindStringSubmatch(text)
				if found != nil && found[1] != own || found == nil && (text != "" || w.refused == nil) {
					return fmt.Errorf("%s: found %v in place of %s, in\n%s", w.name, found, own, text)
				}
			}
		}
		if err := fresh.Close(); err != nil {
			return err
		}
	}
	return nil
}
