//go:build !race

package fs

import (
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	stayCaller = 120 // the process that asks; 100 is its init
	stayOther  = 300 // the init of another container
)

// cpuFiles is what hosts have in their directory of CPUs: one file of each kind, for a CPU that the container is shown and one that it is not.
var cpuFiles = []string{
	"possible", "present", "kernel_max", "isolated", "nohz_full", "enabled", "crash_hotplug", "modalias", "uevent", "smt/active", "smt/control", "smt/uevent", "hotplug/states", "power/control",
	"vulnerabilities/meltdown", "cpuidle/current_driver", "intel_pstate/status", "microcode/processor_flags", "cpufreq/boost", "cpufreq/policy1/scaling_cur_freq",
	"cpufreq/policy1/stats/time_in_state", "cpufreq/policy5/scaling_cur_freq", "cpu1/online", "cpu5/online",
	"cpu1/topology/core_id", "cpu5/topology/core_id", "cpu1/cache/index0/size", "cpu1/cache/uevent", "cpu1/cpuidle/state0/time", "cpu1/cpuidle/state0/s2idle/time", "cpu1/power/control",
	"cpu1/hotplug/state", "cpu1/uevent", "cpu1/cpu_capacity", "cpu1/microcode/version", "cpu1/thermal_throttle/core_throttle_count", "cpu1/acpi_cppc/feedback_ctrs", "cpu1/regs/identification/midr_el1",
}

// root makes the shape's host: with the CPUs 1 and 2 shown, all files of the directory of CPUs, a task in each group, and another container beside.
func (s stayShape) root(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, base := range s.bases {
		overlay(t, root, filepath.Join("../procview/testdata", base))
	}
	add := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		rewrite(t, path, text)
	}
	for i, file := range cpuFiles {
		add(filepath.Join(cpuDirPath, file), fmt.Sprintln(i+1))
	}
	add(cpuDirPath+"/possible", "0-7\n")
	add(cpuDirPath+"/present", "0-7\n")
	add("proc/meminfo", readText(t, root, "proc/meminfo")+"Unknown:             5 kB\n")
	add("proc/stat", readText(t, root, "proc/stat")+"unknown 5\n")
	group := readText(t, root, "proc/100/cgroup")
	path := group[strings.LastIndexByte(strings.TrimSpace(group), ':')+1 : len(group)-1]
	for _, dir := range groupDirs(t, root, path) {
		add(filepath.Join(dir, "cgroup.threads"), "100\n")
		add(filepath.Join(dir, "tasks"), "100\n")
		for _, file := range []string{"cpuset.cpus", "cpuset.cpus.effective", "cpuset.effective_cpus"} {
			if _, err := os.Stat(filepath.Join(root, dir, file)); err == nil {
				add(filepath.Join(dir, file), "1-2\n")
			}
		}
		other := filepath.Join(filepath.Dir(dir), "other")
		overlay(t, filepath.Join(root, other), filepath.Join(root, dir))
		add(filepath.Join(other, "cgroup.threads"), "300\n")
		add(filepath.Join(other, "tasks"), "300\n")
	}
	stat := strings.Repeat("0 ", 17) + "450000 1 1\n"
	add("proc/100/task/100/stat", "100 (x) S 1 "+stat)
	overlay(t, filepath.Join(root, "proc/300"), filepath.Join(root, "proc/100"))
	add("proc/300/cgroup", strings.ReplaceAll(group, filepath.Base(path), "other"))
	add("proc/300/task/300/stat", "300 (x) R 1 "+stat)
	ns := filepath.Join(root, "proc/300/ns/pid")
	if err := os.Remove(ns); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pid:[4026532300]", ns); err != nil {
		t.Fatal(err)
	}
	for name, text := range s.add {
		add(name, text)
	}
	return root
}

func overlay(t *testing.T, to, from string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(from, path)
		target := filepath.Join(to, name)
		switch {
		case d.IsDir() && d.Name() == "want":
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			os.Remove(target)
			return os.Symlink(link, target)
		}
		text, err := os.ReadFile(path)
		if err == nil {
			rewrite(t, target, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readText(t *testing.T, root, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// groupDirs gives the directories of a group in the hierarchies that have it.
func groupDirs(t *testing.T, root, group string) (dirs []string) {
	t.Helper()
	for _, hierarchy := range []string{"sys/fs/cgroup", "sys/fs/cgroup/*"} {
		found, err := filepath.Glob(filepath.Join(root, hierarchy, group))
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range found {
			name, _ := filepath.Rel(root, dir)
			dirs = append(dirs, name)
		}
	}
	if len(dirs) == 0 {
		t.Fatalf("no hierarchy has the group %s", group)
	}
	return dirs
}

// limitsAbove are the files of the groups above in which the container's own limits may be.
var limitsAbove = map[string]bool{"cpu.max": true, "memory.max": true, "memory.swap.max": true, "cpuset.cpus.effective": true}

// hostFiles are all but the container's own: its processes and its group.
func (s stayShape) hostFiles(t *testing.T) (names []string) {
	t.Helper()
	group := readText(t, s.views.Root, "proc/100/cgroup")
	own := filepath.Base(strings.TrimSpace(group))
	err := filepath.WalkDir(s.views.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(s.views.Root, path)
		switch {
		case d.IsDir() && (d.Name() == own || name == "proc/100" || name == "proc/120"):
			return filepath.SkipDir
		case limitsAbove[d.Name()] && !strings.Contains(path, "/other/"):
			return nil
		case !strings.HasPrefix(name, s.only):
			return nil
		case !d.Type().IsRegular() || strings.HasSuffix(name, "/mountinfo") || d.Name() == "cgroup.controllers" || name == "case":
			return nil // how the host is laid out
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var (
	stayWord   = regexp.MustCompile(`[^\s:]+`)
	stayNumber = regexp.MustCompile(`[0-9]+([^0-9]*)$`)
)

// variants gives a file's text with one value after the other changed, and says what that was. Not changed are the names of lines, and what two sources
// are joined by: the number of a CPU, those of a disk.
func variants(file, text string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		at := 0
		for line := range strings.Lines(text) {
			from := 0
			switch colon := strings.IndexByte(line, ':'); {
			case file == "proc/cpuinfo" && strings.HasPrefix(line, "processor"), file == "proc/cpuinfo" && strings.HasPrefix(line, "# processors"):
				from = len(line)
			case file == "proc/cpuinfo", file == "proc/meminfo":
				from = colon + 1
			case file == "proc/stat", strings.HasPrefix(file, "proc/pressure/"):
				from = strings.IndexByte(line, ' ')
			case file == "proc/diskstats":
				from = stayWord.FindAllStringIndex(line, 3)[2][0]
			case file == "proc/uptime": // the first is the time: tests have no other clock
				from = strings.IndexByte(line, ' ')
			}
			words := stayWord.FindAllStringIndex(line[from:], -1)
			each := 12
			if file == "proc/cpuinfo" {
				each = 1
			}
			if len(words) > each { // flags, interrupts: the rest of them at once
				rest := at + from + words[each][0]
				if !yield(text[:rest]+stayWord.ReplaceAllStringFunc(text[rest:at+len(line)], otherWord)+text[at+len(line):], fmt.Sprintf("the end of %q", line)) {
					return
				}
				words = words[:each]
			}
			for _, w := range words {
				begin, end := at+from+w[0], at+from+w[1]
				other := otherWord(text[begin:end])
				if !yield(text[:begin]+other+text[end:], fmt.Sprintf("%q in place of %q in %q", other, text[begin:end], line)) {
					return
				}
			}
			at += len(line)
		}
	}
}

// otherWord changes a word into one of its kind: a number into a larger one.
func otherWord(word string) string {
	if word == "max" {
		return "9000000000000000"
	}
	if at := stayNumber.FindStringIndex(word); at != nil {
		return word[:at[0]] + "9" + word[at[0]:]
	}
	if last := word[len(word)-1]; last != 'z' {
		return word[:len(word)-1] + "z"
	}
	return word[:len(word)-1] + "y"
}
