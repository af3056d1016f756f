package procview

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func caseNames(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("testdata/cases")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) == 0 {
		t.Fatal("testdata/cases is empty")
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestCases compares what every case shows with its goldens. An error is a golden too: what the daemon answers instead is its business.
func TestCases(t *testing.T) {
	for _, name := range caseNames(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := readCase(t, name)
			root := c.root(t)
			host, r := c.open(t, root)
			container := r.Of(caller)
			for file, source := range sources {
				want := filepath.Join("testdata/cases", name, "want", file)
				if !host.Has(file) {
					golden(t, want, []byte("no such file\n"))
					continue
				}
				got, err := source(nil, host, container)
				if err != nil {
					if len(got) != 0 {
						t.Errorf("%s: %v, but %d bytes were appended", file, err, len(got))
					}
					got = errorText(err)
				}
				golden(t, want, got)
				if err == nil {
					checkText(t, root, file, got)
				}
			}
		})
	}
}

// errorText is a failure without the name of the temporary directory.
func errorText(err error) []byte {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fmt.Appendf(nil, "error: %v\n", errno)
	}
	return fmt.Appendf(nil, "error: %v\n", err)
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got:\n%s\nwant:\n%s", path, got, want)
	}
}

// TestAppends checks that a source appends, and that a second answer is as the first: nothing is left over from one to the next.
func TestAppends(t *testing.T) {
	for _, name := range []string{"v1", "v2", "s390x", "host", "throttled"} {
		host, container := openCase(t, name)
		for file, source := range sources {
			if !host.Has(file) {
				continue
			}
			first, err := source(nil, host, container)
			if err != nil {
				t.Fatal(err)
			}
			second, err := source([]byte("before\n"), host, container)
			if err != nil {
				t.Fatal(err)
			}
			if want := "before\n" + string(first); string(second) != want {
				t.Errorf("%s: %s: the second time:\n%s\nwant:\n%s", name, file, second, want)
			}
		}
	}
}

// TestSourceAllocs holds the promise that to answer a container allocates nothing, from its cgroup's files to the text.
func TestSourceAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, name := range []string{"v1", "v2", "hybrid-mixed", "nested-limits", "s390x", "host", "host-service"} {
		host, container := openCase(t, name)
		for file, source := range sources {
			if !host.Has(file) {
				continue
			}
			dst := make([]byte, 0, 64<<10)
			var err error
			if n := testing.AllocsPerRun(100, func() { _, err = source(dst, host, container) }); n != 0 {
				t.Errorf("%s: %s: %v allocations", name, file, n)
			}
			if err != nil {
				t.Errorf("%s: %s: %v", name, file, err)
			}
		}
	}
}

func BenchmarkSources(b *testing.B) {
	for _, name := range []string{"v1", "v2", "cpus-256"} {
		for _, file := range []string{"meminfo", "cpuinfo", "uptime", "stat", "online", "diskstats", "swaps"} {
			b.Run(name+"/"+file, func(b *testing.B) {
				host, container := openCase(b, name)
				source, dst := sources[file], make([]byte, 0, 64<<10)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := source(dst, host, container); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// hostLine gives a number of the case's host: "MemTotal".
func hostLine(t testing.TB, root, name string) uint64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseUint(strings.Fields(v)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}
