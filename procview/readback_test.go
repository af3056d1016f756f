package procview

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"lensfs/cgroupview"

	"github.com/prometheus/procfs"
)

// checkText checks what holds for every text of a file, whatever the container: prometheus/procfs reads it and finds the numbers that stand
// there, and nothing contradicts itself.
func checkText(t *testing.T, root, file string, text []byte) {
	t.Helper()
	switch file {
	case "meminfo":
		checkMeminfo(t, root, text)
	case "cpuinfo":
		checkCpuinfo(t, root, text)
	case "uptime":
		checkUptime(t, text)
	case "stat":
		checkStat(t, root, text)
	case "loadavg":
		checkLoadavg(t, text)
	case "online":
		checkOnline(t, root, text)
	case "diskstats":
		checkDiskstats(t, root, text)
	case "swaps":
		checkSwaps(t, root, text)
	case "slabinfo":
		checkSlabinfo(t, root, text)
	case "pressure/cpu", "pressure/io", "pressure/memory":
		checkPressure(t, filepath.Base(file), text)
	}
}

// readBack has procfs read a rendered file.
func readBack(t *testing.T, file string, text []byte) procfs.FS {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
		t.Fatal(err)
	}
	fs, err := procfs.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// fieldName is procfs's name of a line: ActiveAnon of Active(anon).
func fieldName(line string) string {
	return strings.NewReplacer("(anon)", "Anon", "(file)", "File", "_", "").Replace(line)
}

var kernelLine = regexp.MustCompile(`^([^:]*): +(\d+)( kB)?$`)

func checkMeminfo(t *testing.T, root string, text []byte) {
	t.Helper()
	hostText, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		t.Fatal(err)
	}
	got, host := strings.Split(string(text), "\n"), strings.Split(string(hostText), "\n")
	if len(got) != len(host) {
		t.Fatalf("meminfo has %d lines, the host's %d", len(got), len(host))
	}
	values := map[string]uint64{}
	for i := range got {
		m, h := kernelLine.FindStringSubmatch(got[i]), kernelLine.FindStringSubmatch(host[i])
		if h == nil || m == nil {
			if got[i] != host[i] {
				t.Errorf("meminfo: %q of the host's became %q", host[i], got[i])
			}
			continue
		}
		if form := fmt.Sprintf("%-16s%8s kB", h[1]+":", m[2]); got[i] != host[i] && got[i] != form { // fs/proc/meminfo.c
			t.Errorf("meminfo: %q is not in the form of %q", m[0], h[0])
		}
		if values[m[1]], err = strconv.ParseUint(m[2], 10, 64); err != nil {
			t.Errorf("meminfo: %v", err)
		}
	}
	atMost := func(part, whole string) {
		if values[part] > values[whole] {
			t.Errorf("meminfo: %s: %d is above %s: %d", part, values[part], whole, values[whole])
		}
	}
	for _, part := range []string{"MemFree", "MemAvailable", "Buffers", "Cached", "Active", "Inactive", "Active(anon)", "Inactive(anon)", "Active(file)",
		"Inactive(file)", "Unevictable", "Dirty", "Writeback", "AnonPages", "Mapped", "Shmem", "Slab", "KernelStack", "PageTables", "Percpu", "Zswap"} {
		atMost(part, "MemTotal")
	}
	atMost("SwapFree", "SwapTotal")
	atMost("Mlocked", "Unevictable")
	if values["MemTotal"] > hostLine(t, root, "MemTotal") {
		t.Error("meminfo: more memory than the host has")
	}
	fs := readBack(t, "meminfo", text)
	m, err := fs.Meminfo()
	if bytes.Contains(text, []byte("without a colon")) {
		return // procfs, unlike us, insists on knowing every line's form
	}
	if err != nil {
		t.Fatal(err)
	}
	agreed := 0
	read := reflect.ValueOf(m)
	for name, value := range values {
		field := read.FieldByName(fieldName(name))
		if !field.IsValid() || field.IsNil() {
			continue // a line that procfs does not know
		}
		agreed++
		if field.Elem().Uint() != value {
			t.Errorf("meminfo: procfs reads %s as %d, it is %d", name, field.Elem().Uint(), value)
		}
	}
	if agreed < 30 {
		t.Errorf("meminfo: procfs knows %d lines only", agreed)
	}
}

// blockLine finds the CPUs of a cpuinfo, as simply as that can be done.
var blockLine = regexp.MustCompile(`(?m)^(?:processor\t|cpu number {6}): (\d+)$`)

func checkCpuinfo(t *testing.T, root string, text []byte) {
	t.Helper()
	hostText, err := os.ReadFile(filepath.Join(root, "proc/cpuinfo"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.HasSuffix(text, []byte("\n\n")) != bytes.HasSuffix(hostText, []byte("\n\n")) {
		t.Errorf("cpuinfo ends in %q, the host's in %q", text[len(text)-2:], hostText[len(hostText)-2:])
	}
	known := map[string]bool{} // lines of the host's, but for the values that count CPUs
	counts := regexp.MustCompile(`^((?:siblings|cpu cores|# processors)\s*:) \d+$`)
	for line := range strings.SplitSeq(string(hostText), "\n") {
		known[counts.ReplaceAllString(line, "$1")] = true
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if !known[counts.ReplaceAllString(line, "$1")] {
			t.Errorf("cpuinfo: %q is not of the host's", line)
		}
	}
	if bytes.HasPrefix(text, []byte("vendor_id       : IBM/S390")) {
		return // procfs reads s390x's on s390x only
	}
	cpus, err := readBack(t, "cpuinfo", text).CPUInfo()
	if err != nil {
		t.Fatal(err)
	}
	numbers := blockLine.FindAllSubmatch(text, -1)
	if len(cpus) != len(numbers) {
		t.Fatalf("cpuinfo: procfs sees %d CPUs, there are %d", len(cpus), len(numbers))
	}
	siblings, cores := map[string]uint{}, map[string]map[string]bool{}
	for i, c := range cpus {
		if n := string(numbers[i][1]); strconv.Itoa(int(c.Processor)) != n {
			t.Errorf("cpuinfo: procfs reads CPU %d, it is %s", c.Processor, n)
		}
		if c.PhysicalID == "" {
			continue
		}
		siblings[c.PhysicalID]++
		if cores[c.PhysicalID] == nil {
			cores[c.PhysicalID] = map[string]bool{}
		}
		cores[c.PhysicalID][c.CoreID] = true
	}
	for _, c := range cpus {
		if c.Siblings != siblings[c.PhysicalID] || c.CPUCores != uint(len(cores[c.PhysicalID])) {
			t.Errorf("cpuinfo: CPU %d speaks of %d siblings and %d cores, shown are %d and %d",
				c.Processor, c.Siblings, c.CPUCores, siblings[c.PhysicalID], len(cores[c.PhysicalID]))
		}
	}
}

var uptimeText = regexp.MustCompile(`^(\d+\.\d\d) (\d+\.\d\d)\n$`)

func checkUptime(t *testing.T, text []byte) {
	t.Helper()
	m := uptimeText.FindSubmatch(text)
	if m == nil {
		t.Fatalf("uptime: %q", text)
	}
	for _, s := range m[1:] {
		if v, err := strconv.ParseFloat(string(s), 64); err != nil || v < 0 || math.IsInf(v, 0) {
			t.Errorf("uptime: %s: %v", s, err)
		}
	}
}

// checkOnline checks that the CPUs are some of the host's, written in the one way the kernel does.
func checkOnline(t *testing.T, root string, text []byte) {
	t.Helper()
	hostText, err := os.ReadFile(hostFile(root, "online"))
	if err != nil {
		t.Fatal(err)
	}
	host, err := cgroupview.ParseCPUSet(hostText)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := cgroupview.ParseCPUSet(text)
	if err != nil {
		t.Fatalf("online: %q: %v", text, err)
	}
	if got := string(shown.Append(nil)) + "\n"; got != string(text) {
		t.Errorf("online: %q is written %q", text, got)
	}
	if shown.Count() == 0 {
		t.Error("online: no CPU at all")
	}
	if shown.Subtract(&host); shown.Count() != 0 {
		t.Errorf("online: %s is not of the host's", shown.Append(nil))
	}
}

// TestOneMachine checks that the files of a case agree about which CPUs there are.
func TestOneMachine(t *testing.T) {
	for _, name := range caseNames(t) {
		dir := filepath.Join("testdata/cases", name, "want")
		online, err := os.ReadFile(filepath.Join(dir, "online"))
		if err != nil {
			t.Fatal(err)
		}
		cpuinfo, err := os.ReadFile(filepath.Join(dir, "cpuinfo"))
		if err != nil {
			t.Fatal(err)
		}
		var blocks cgroupview.CPUSet
		for _, m := range blockLine.FindAllSubmatch(cpuinfo, -1) {
			n, _ := strconv.Atoi(string(m[1]))
			blocks.Add(n)
		}
		if got := string(blocks.Append(nil)) + "\n"; got != string(online) {
			t.Errorf("%s: cpuinfo has the CPUs %q, online says %q", name, got, online)
		}
	}
}
