package procview

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lensfs/cgroupview"
)

// replace writes a file as a whole: who reads it sees the old or the new one.
func replace(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Error(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Error(err)
	}
}

func TestNewHostNamesWhatIsMissing(t *testing.T) {
	for _, file := range []string{"meminfo", "uptime", "stat", "loadavg", "cpuinfo"} {
		c := readCase(t, "v2")
		root := c.root(t)
		r, err := cgroupview.New(cgroupview.Options{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(root, "proc", file)); err != nil {
			t.Fatal(err)
		}
		_, err = NewHost(Options{Root: root}, r)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "proc/"+file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestFreshness changes the host and the container under the daemon: the container is seen at once, the host's texts after a tick, and its CPUs after
// a tenth of a second.
func TestFreshness(t *testing.T) {
	c := readCase(t, "v2")
	root := c.root(t)
	host, r := c.open(t, root)
	group := filepath.Join(root, "sys/fs/cgroup/system.slice/docker-3f1c9a7be2.scope")
	line := func(file string) string {
		t.Helper()
		text, err := sources[file](nil, host, r.Of(caller))
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		return first
	}
	replace(t, filepath.Join(group, "memory.max"), "104857600\n")
	if got, want := line("meminfo"), "MemTotal:         102400 kB"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	replace(t, filepath.Join(group, "cpu.max"), "10000 100000\n")
	if got := line("online"); got != "0" {
		t.Errorf("online: %q", got)
	}
	replace(t, filepath.Join(root, "proc/meminfo"), "MemTotal:       51200 kB\n")
	replace(t, filepath.Join(root, "proc/cpuinfo"), "processor\t: 8\n\nprocessor\t: 9\n\n")
	replace(t, filepath.Join(root, "sys/devices/system/cpu/online"), "8-9\n")
	time.Sleep(110 * time.Millisecond)
	for file, want := range map[string]string{"meminfo": "MemTotal:       51200 kB", "online": "8", "cpuinfo": "processor\t: 8"} {
		if got := line(file); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
}

// TestConcurrent has many readers in two containers and on the host, while limits, CPUs and the host itself change. Each text is one of those
// that were right at some time, and never a mixture.
func TestConcurrent(t *testing.T) {
	c := readCase(t, "nested-namespace")
	root := c.root(t)
	host, r := c.open(t, root)
	outer := filepath.Join(root, "sys/fs/cgroup/lxc.payload.web")
	inner := filepath.Join(outer, "system.slice/docker-aa.scope")
	desktop := string(hostText(t, "desktop", "meminfo"))
	stop := make(chan struct{})
	var readers, writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			mb := 256 + i%4*256
			replace(t, filepath.Join(inner, "memory.max"), fmt.Sprintf("%d\n", mb*mib))
			replace(t, filepath.Join(inner, "memory.current"), fmt.Sprintf("%d\n", i%2000*mib))
			replace(t, filepath.Join(inner, "cpu.max"), fmt.Sprintf("%d 100000\n", 50000+i%3*100000))
			replace(t, filepath.Join(inner, "cpuset.cpus.effective"), []string{"6-7\n", "0-7\n", "3\n"}[i%3])
			replace(t, filepath.Join(root, "proc/meminfo"), strings.Replace(desktop, "Committed_AS:    6291456", fmt.Sprintf("Committed_AS:   %8d", i), 1))
			if i%8 == 0 { // a CPU goes and comes back
				replace(t, filepath.Join(root, "sys/devices/system/cpu/online"), []string{"0-6\n", "0-7\n"}[i/8%2])
			}
			if i%16 == 0 { // init is another one: the container's number is found to be used anew
				replace(t, filepath.Join(root, "proc/110/stat"), fmt.Sprintf("110 (sh) S 105 %s %d\n", strings.Repeat("0 ", 17), 450000+i))
			}
		}
	})
	for i := range 8 {
		readers.Go(func() {
			pid := []uint32{120, 110, 100, 1}[i%4]
			var dst []byte
			for end := time.Now().Add(400 * time.Millisecond); time.Now().Before(end); {
				container := r.Of(pid)
				container.Look()
				for file, source := range sources {
					text, err := source(dst[:0], host, container)
					if err != nil {
						t.Errorf("%s: %v", file, err)
						return
					}
					dst = text
					switch file {
					case "meminfo":
						checkMixed(t, text, strings.Count(desktop, "\n"))
					case "uptime":
						checkUptime(t, text)
					case "online":
						if set, err := cgroupview.ParseCPUSet(text); err != nil || set.Count() == 0 {
							t.Errorf("online: %q: %v", text, err)
						}
					}
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writer.Wait()
	r.Sweep(func(*cgroupview.Container) {})
}

// checkMixed checks that a meminfo is whole.
func checkMixed(t *testing.T, text []byte, lines int) {
	t.Helper()
	values := map[string]uint64{}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		var value uint64
		name, rest, _ := strings.Cut(line, ":")
		if _, err := fmt.Sscan(rest, &value); err != nil {
			t.Errorf("meminfo: %q: %v", line, err)
		}
		values[name] = value
	}
	if n != lines || values["MemFree"] > values["MemTotal"] || values["MemAvailable"] > values["MemTotal"] || values["SwapFree"] > values["SwapTotal"] {
		t.Errorf("meminfo: %d lines:\n%s", n, text)
	}
}
