package procview

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lensfs/cgroupview"

	"github.com/prometheus/procfs"
)

// statNames are the first words of the lines of a stat, but for the CPUs'.
func statNames(text []byte) (names []string) {
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !regexp.MustCompile(`^cpu\d*$`).MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// checkStat checks that procfs reads a stat whose lines are the host's, in its order and with as many columns, and that the CPUs add up to no more than all.
func checkStat(t *testing.T, root string, text []byte) {
	t.Helper()
	hostText, err := os.ReadFile(filepath.Join(root, "proc/stat"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(statNames(text)), fmt.Sprint(statNames(hostText)); got != want {
		t.Errorf("stat has the lines %s, the host's %s", got, want)
	}
	if !bytes.HasPrefix(text, []byte("cpu  ")) {
		t.Errorf("stat begins with %.10q", text)
	}
	columns := len(strings.Fields(strings.SplitN(string(hostText), "\n", 2)[0]))
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "cpu") && !strings.HasPrefix(line, "cpufreq") && len(strings.Fields(line)) != columns {
			t.Errorf("stat: %q has not %d columns", line, columns)
		}
	}
	if bytes.Contains(text, []byte("cpufreq")) {
		return // procfs takes it for a CPU
	}
	got, err := readBack(t, "stat", text).Stat()
	if err != nil {
		t.Fatal(err)
	}
	host, err := readBack(t, "stat", hostText).Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got.IRQTotal != host.IRQTotal || got.ContextSwitches != host.ContextSwitches || got.BootTime != host.BootTime || got.SoftIRQTotal != host.SoftIRQTotal {
		t.Errorf("stat: %+v, the host's: %+v", got, host)
	}
	var sum procfs.CPUStat
	for _, c := range got.CPU {
		sum.User += c.User
		sum.System += c.System
		sum.Idle += c.Idle
		sum.Steal += c.Steal
	}
	all := got.CPUTotal
	for _, pair := range [][2]float64{{sum.User, all.User}, {sum.System, all.System}, {sum.Idle, all.Idle}, {sum.Steal, all.Steal}} {
		if pair[0]-pair[1] > 0.001 || pair[1]-pair[0] > 0.001 { // in a case none was ever hidden
			t.Errorf("stat: the CPUs' %v, all of them %v", sum, all)
		}
	}
	if len(got.CPU) == 0 || got.ProcessesRunning == 0 {
		t.Errorf("stat: %d CPUs, %d processes run", len(got.CPU), got.ProcessesRunning)
	}
}

// TestOneClock checks that the stat of a case has the CPUs of its online, and the idle time of its uptime.
func TestOneClock(t *testing.T) {
	for _, name := range caseNames(t) {
		dir := filepath.Join("testdata/cases", name, "want")
		read := func(file string) string {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		stat := read("stat")
		if strings.HasPrefix(stat, "error") {
			if !strings.HasPrefix(read("uptime"), "error") {
				t.Errorf("%s: stat has an error, uptime has none", name)
			}
			continue
		}
		if _, container := openCase(t, name); container.IsHost() {
			continue // the kernel's own text: of all CPUs, and of another moment than its uptime
		}
		var shown cgroupview.CPUSet
		for _, m := range regexp.MustCompile(`(?m)^cpu(\d+) `).FindAllStringSubmatch(stat, -1) {
			var n int
			fmt.Sscan(m[1], &n)
			shown.Add(n)
		}
		if got := string(shown.Append(nil)) + "\n"; got != read("online") {
			t.Errorf("%s: stat has the CPUs %q, online says %q", name, got, read("online"))
		}
		idle := strings.Fields(stat)[4]
		_, seconds, _ := strings.Cut(strings.TrimSpace(read("uptime")), " ")
		if got := strings.Replace(seconds, ".", "", 1); strings.TrimLeft(got, "0") != strings.TrimLeft(idle, "0") {
			t.Errorf("%s: uptime's idle is %s, stat's %s", name, seconds, idle)
		}
	}
}
