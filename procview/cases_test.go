package procview

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lensfs/cgroupview"
	"lensfs/sysview"
)

var update = flag.Bool("update", false, "write what is shown into testdata/cases/*/want")

// sources are the files of which every case has a golden.
var sources = map[string]Source{
	"meminfo": Meminfo,
	"cpuinfo": Cpuinfo,
	"uptime":  Uptime,
	"stat":    Stat,
	"loadavg": Loadavg,

	"diskstats":       Diskstats,
	"swaps":           Swaps,
	"slabinfo":        Slabinfo,
	"pressure/cpu":    Pressure(cgroupview.PressureCPU),
	"pressure/io":     Pressure(cgroupview.PressureIO),
	"pressure/memory": Pressure(cgroupview.PressureMemory),

	"online": func(dst []byte, _ *Host, c *cgroupview.Container) ([]byte, error) {
		return sysview.Online(dst, c)
	},
}

// hostFile is where the host has the file that a source is the view of.
func hostFile(root, name string) string {
	if name == "online" {
		return filepath.Join(root, "sys/devices/system/cpu/online")
	}
	return filepath.Join(root, "proc", name)
}

// testCase is what testdata/cases/NAME/case says: the base trees that the case's own files are laid over, and the daemon's flags.
type testCase struct {
	name       string
	bases      []string
	cgroupview cgroupview.Options
	procview   Options
}

// caller is the process that asks, in every case.
const caller = 120

func readCase(t testing.TB, name string) testCase {
	t.Helper()
	c := testCase{name: name}
	text, err := os.ReadFile(filepath.Join("testdata/cases", name, "case"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		switch words[0] {
		case "base":
			c.bases = words[1:]
		case "cpu-quota":
			if c.cgroupview.Quota, err = cgroupview.ParseQuotaMode(words[1]); err != nil {
				t.Fatal(err)
			}
		case "no-swap":
			c.procview.NoSwap = true
		case "no-zswap":
			c.procview.NoZswap = true
		case "no-loadavg":
			c.procview.NoLoadavg = true
		default:
			t.Fatalf("%s/case: %q is not known", name, line)
		}
	}
	return c
}

// root makes the case's tree: its bases, and its own files over them. It is a copy, for no link may lead out of a root.
func (c testCase) root(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for _, base := range c.bases {
		copyTree(t, root, filepath.Join("testdata/base", base))
	}
	copyTree(t, root, filepath.Join("testdata/cases", c.name))
	addTasks(t, root)
	return root
}

func copyTree(t testing.TB, to, from string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case d.IsDir():
			if name == "want" {
				return filepath.SkipDir
			}
			return os.MkdirAll(target, 0o755)
		case d.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// open makes what a daemon has, over a tree of files.
func (c testCase) open(t testing.TB, root string) (*Host, *cgroupview.Resolver) {
	t.Helper()
	c.cgroupview.Root, c.procview.Root = root, root
	r, err := cgroupview.New(c.cgroupview)
	if err != nil {
		t.Fatal(err)
	}
	host, err := NewHost(c.procview, r)
	if err != nil {
		t.Fatal(err)
	}
	return host, r
}

func openCase(t testing.TB, name string) (*Host, *cgroupview.Container) {
	t.Helper()
	c := readCase(t, name)
	host, r := c.open(t, c.root(t))
	return host, r.Of(caller)
}
