package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// show prints what a process would read.
func show(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, binary, append([]string{"show"}, args...)...)
}

var frequency = regexp.MustCompile(`(?m)^cpu MHz.*$`)

// steady is a cpuinfo without what changes from one moment to the next.
func steady(text string) string { return frequency.ReplaceAllString(text, "cpu MHz") }

func TestShowIsWhatTheContainerReads(t *testing.T) {
	needRoot(t)
	d := serve(t)
	// Its command answers with the file it is asked for, and a line of its own at the end.
	c := d.container([]string{"--memory", "300M", "--cpus", "1"}, "sh", "-c", `while read -r f; do cat "$f"; echo END; done`)
	read := func(file string) string {
		var text strings.Builder
		c.say("%s", file)
		for line := c.line(); line != "END"; line = c.line() {
			fmt.Fprintln(&text, line)
		}
		return text.String()
	}
	pid := fmt.Sprint(c.init)
	for _, file := range []string{"/proc/cpuinfo", "/sys/devices/system/cpu/online"} {
		want := read(file)
		for _, name := range []string{file, strings.TrimPrefix(file, "/"), file[strings.LastIndex(file, "/")+1:]} {
			if got := show(t, "--pid", pid, name); steady(got) != steady(want) {
				t.Errorf("show %s: %q, and the container reads %q", name, got, want)
			}
		}
	}
	want, err := parseMeminfo(read("/proc/meminfo"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseMeminfo(show(t, "--pid", pid, "/proc/meminfo"))
	if err != nil || got["MemTotal"] != want["MemTotal"] || got["MemTotal"] != 300<<10 {
		t.Errorf("show: MemTotal %d, and the container reads %d: %v", got["MemTotal"], want["MemTotal"], err)
	}
	first, _, err := parseUptime(read("/proc/uptime"))
	if err != nil {
		t.Fatal(err)
	}
	if up, _, err := parseUptime(show(t, "--pid", pid, "uptime")); err != nil || up < first || up > first+30 {
		t.Errorf("show: up for %v, and the container read %v before: %v", up, first, err)
	}
	if got := show(t, "--pid", pid, "--cpu-quota", "ignore", "cpu/online"); got != command(t, "cat", "/sys/devices/system/cpu/online") {
		t.Errorf("show without quota: %q", got)
	}
	if got := show(t, "--pid", pid, "online", "cpuinfo"); steady(got) != steady(read("/sys/devices/system/cpu/online")+read("/proc/cpuinfo")) {
		t.Errorf("show of two files: %q", got)
	}
	c.close()
}

// Without a process it is the host that is shown, whether a daemon runs or not.
func TestShowOfTheHost(t *testing.T) {
	needRoot(t)
	for _, file := range []string{"/proc/cpuinfo", "/sys/devices/system/cpu/online"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := show(t, "--cpu-quota", "ignore", file); steady(got) != steady(string(text)) {
			t.Errorf("show %s: %q", file, got)
		}
	}
}

func TestShowRefuses(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"/proc/nothing"}, []string{"/proc/nothing", "it has /proc/cpuinfo, /proc/meminfo"}},
		{[]string{"info"}, []string{"info", "does not have"}},
		{[]string{"proc"}, []string{"proc", "does not have"}},
		{[]string{"--pid", "4194305", "meminfo"}, []string{"--pid 4194305", "no such process"}}, // above the largest pid_max
		{[]string{"--pid", "0", "meminfo"}, []string{"--pid 0", "no such process"}},
		{[]string{"--pid", "x", "meminfo"}, []string{"--pid"}},
		{[]string{"--cpu-quota", "most", "meminfo"}, []string{"--cpu-quota", "min, ignore, first"}},
		{nil, []string{"arg"}},
	} {
		got := finish(t, exec.Command(binary, append([]string{"show"}, c.args...)...))
		for _, want := range c.want {
			if !strings.Contains(got.errs, want) {
				t.Errorf("%v: it does not say %q but %q", c.args, want, got.errs)
			}
		}
		if got.status != 1 || got.out != "" {
			t.Errorf("%v: %+v", c.args, got)
		}
	}
}
