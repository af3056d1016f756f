package procview

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lensfs/cgroupview"

	"golang.org/x/sys/unix"
)

// TestHas checks of whole hosts which files their containers do not have; the goldens say "no such file" of the same.
func TestHas(t *testing.T) {
	all := []string{"pressure/cpu", "pressure/io", "pressure/memory"}
	for _, test := range []struct {
		name   string
		absent []string
	}{
		{"v2", nil},
		{"v1", all},
		{"hybrid", all},
		{"hybrid-mixed", []string{"pressure/memory"}}, // memory is v1 there
		{"arm", all}, // psi=0
		{"arm64", []string{"slabinfo"}},
	} {
		host, _ := openCase(t, test.name)
		checkAbsent(t, test.name, host, test.absent...)
	}
}

func checkAbsent(t *testing.T, name string, host *Host, absent ...string) {
	t.Helper()
	if got := host.Has("pressure"); got != (len(absent) < 3) { // all three, or at most one other
		t.Errorf("%s: has the directory pressure: %v", name, got)
	}
	want := " " + strings.Join(absent, " ") + " "
	for file := range sources {
		if got := host.Has(file); got == strings.Contains(want, " "+file+" ") {
			t.Errorf("%s: has %s: %v", name, file, got)
		}
	}
}

// TestHasMissing takes away one of the host's files after the other. One that cannot be read for a reason that we do not know is no reason to go on.
func TestHasMissing(t *testing.T) {
	for _, file := range []string{"diskstats", "swaps", "slabinfo", "pressure/cpu", "pressure/io", "pressure/memory"} {
		c := readCase(t, "v2")
		root := c.root(t)
		path := filepath.Join(root, "proc", file)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		host, r := c.open(t, root)
		checkAbsent(t, "without "+file, host, file)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := NewHost(Options{Root: root}, r); !errors.Is(err, unix.EISDIR) || !strings.Contains(err.Error(), "proc/"+file) {
			t.Errorf("%s is a directory: %v", file, err)
		}
	}
}

func TestSlabinfoHeader(t *testing.T) {
	const header = "slabinfo - version: 2.1\n# name            <active_objs>\n"
	for text, want := range map[string]string{header + "dentry 1\nkmalloc-8 1\n": header, header: header, "slabinfo - version: 2.1\n": "slabinfo - version: 2.1\n", "": "", "x": ""} {
		if got := string(slabinfoHeader([]byte(text))); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestAppendNoPressure(t *testing.T) {
	const some, full = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
	for host, want := range map[string]string{
		string(hostText(t, "desktop", "pressure/cpu")): some + full,
		string(hostText(t, "s390x", "pressure/cpu")):   some, // before Linux 5.13
		"": "",
	} {
		if got := string(appendNoPressure(nil, []byte(host))); got != want {
			t.Errorf("%q: %q", host, got)
		}
	}
	host, dst := hostText(t, "desktop", "pressure/io"), make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() { appendNoPressure(dst, host) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPressureSwitchedOn has the container's group without files of its own at first.
func TestPressureSwitchedOn(t *testing.T) {
	c := readCase(t, "no-limit")
	root := c.root(t)
	host, r := c.open(t, root)
	show := func() string {
		t.Helper()
		text, err := Pressure(cgroupview.PressureIO)(nil, host, r.Of(caller))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := show(); !strings.HasPrefix(got, "some avg10=0.00 ") {
		t.Errorf("none of its own: %q", got)
	}
	const own = "some avg10=9.00 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
	replace(t, filepath.Join(root, "sys/fs/cgroup/system.slice/docker-3f1c9a7be2.scope/io.pressure"), own)
	if got := show(); got != own {
		t.Errorf("switched on: %q", got)
	}
}
