package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"lensfs/docs"

	"golang.org/x/sys/unix"
)

var updateDocs = flag.Bool("update", false, "write what the tools show to docs/tools.md")

// place is a container that tools are run in, and what they must find there.
type place struct {
	name string
	init int                         // as the host numbers it
	sh   func(script string) outcome // for several goroutines
	swap uint64                      // its limit, in bytes
}

const (
	toolsMemory = 512 << 20
	toolsSwap   = 128 << 20
)

// TestTools has people's tools look at a container of 512 MB and one CPU's time, in LXC and in "lensfs run": none may complain, and what each shows
// is what docs/tools.md says.
func TestTools(t *testing.T) {
	if testing.Short() { // not with skip: nobody has seen it pass there
		t.Skip("twenty programs on one emulated CPU, some of which take half a minute to start: more than a virtual machine of software has time for")
	}
	lockLXC(t)
	needCommand(t, "free", "top", "htop", "tmux", "vmstat", "uptime", "w", "lscpu", "nproc", "mpstat", "iostat", "ps", "swapon", "busybox", "node", "python3", "java", "nginx")
	musl := buildMusl(t)
	doc := &toolsDoc{shown: map[string]map[string]string{}, loaded: map[string]map[string]string{}, sized: map[string]map[string]string{}}
	d := serveAt(t, lxcTree, tempDir(t))
	for name, o := range map[string]lxcOptions{
		"LXC, LXCFS hook, privileged":    {privileged: true},
		"LXC, lensfs hook, unprivileged": {hook: ourHook(t)},
	} {
		t.Run(name, func(t *testing.T) {
			o.memory, o.swap, o.quota = toolsMemory, toolsSwap, 1
			doc.figures(t, lxcPlace(t, newLXC(t, d, o), musl), musl != "")
		})
	}
	for name, mount := range d.bothMounts() {
		t.Run("lensfs run, "+name, func(t *testing.T) {
			flags := append(mount, "--memory", "512M", "--swap", "128M", "--cpus", "1")
			doc.figures(t, d.runPlace(t, flags, musl), musl != "")
		})
	}
	doc.sizes(t, d, musl)
	doc.load(t, d)
	all := 4 + len(sizeCases) + 2*len(loadCases)
	if !t.Failed() && doc.places == all { // not when only some were asked for
		doc.compare(t)
	}
}

// buildMusl compiles what asks musl for the number of CPUs. Where tests are short, in the virtual machine, there is no compiler: "".
func buildMusl(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		return ""
	}
	needCommand(t, "musl-gcc")
	file := filepath.Join(tempDir(t), "cpus")
	const source = `#include <stdio.h>
#include <unistd.h>
int main(void) { return printf("%ld\n", sysconf(_SC_NPROCESSORS_ONLN)) < 0; }
`
	if err := os.WriteFile(file+".c", []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "musl-gcc", "-static", "-o", file, file+".c")
	return file
}

// environment is the same everywhere: what the tests were started with does not count.
func environment(musl string) string {
	return "export LC_ALL=C.UTF-8 MUSL=" + musl + "\n"
}

// lxcPlace starts a container of LXC.
func lxcPlace(t *testing.T, c *lxcContainer, musl string) place {
	t.Helper()
	if musl != "" {
		program, err := os.ReadFile(musl)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.rootfs, "musl"), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.start()
	c.byInit()
	p := place{name: "LXC", swap: toolsSwap}
	fmt.Sscan(c.command("lxc-info", "-P", c.dir, "-n", c.name, "-p", "-H"), &p.init)
	p.sh = func(script string) outcome {
		return finishWithin(t, lxcLimit, exec.Command("lxc-attach", "-P", c.dir, "-n", c.name, "--clear-env", "--", "sh", "-c", environment("/musl")+script))
	}
	return p
}

// runPlace starts a container of "lensfs run" that runs scripts, several at a time, each with files for what it reads and writes.
func (d *daemon) runPlace(t *testing.T, flags []string, musl string) place {
	t.Helper()
	dir, whole := tempDir(t), d.t
	t.Cleanup(func() { d.t = whole })
	d.t = t // whose containers end with it
	c := d.container(flags, "sh", "-c", "while read -r line; do eval \"$line\" & done")
	var mu sync.Mutex
	scripts := 0
	sh := func(script string) outcome {
		mu.Lock()
		scripts++
		file := filepath.Join(dir, fmt.Sprint(scripts))
		writeFile(t, file, environment(musl)+script)
		mu.Unlock()
		c.say("env -i PATH=\"$PATH\" sh %s </dev/null >%[1]s.out 2>%[1]s.err; echo $? >%[1]s.new; mv %[1]s.new %[1]s.status", file)
		var o outcome
		poll(t, lxcLimit, "a script in the container ends: "+script, func() bool {
			status, err := os.ReadFile(file + ".status")
			if err == nil {
				fmt.Sscan(string(status), &o.status)
			}
			return err == nil
		})
		out, err := os.ReadFile(file + ".out")
		errs, err2 := os.ReadFile(file + ".err")
		if err != nil || err2 != nil {
			t.Error(err, err2)
		}
		o.out, o.errs = string(out), string(errs)
		return o
	}
	return place{name: "lensfs run", init: c.init, sh: sh, swap: toolsSwap}
}

// span is between what and what the truth lies.
type span struct{ least, most float64 }

// spanOf is that of values that were found before and after.
func spanOf(n ...float64) span { return span{slices.Min(n), slices.Max(n)} }

// truth is what the container and the host have of each figure at this moment.
func (p place) truth(t *testing.T) (own, host map[string]float64) {
	hostText := func(file string) string {
		text, err := os.ReadFile("/proc/" + file)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	m, err := parseMeminfo(hostText("meminfo"))
	if err != nil {
		t.Error(err)
	}
	host = map[string]float64{"memory": float64(m["MemTotal"]) * kilo, "CPUs": float64(len(hostCPUs(t))), "swap": float64(m["SwapTotal"]) * kilo}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Error(err)
	}
	up := float64(now.Nano()) / 1e9
	host["uptime"] = up
	own = map[string]float64{"memory": toolsMemory, "CPUs": 1, "uptime": up - started(t, p.init), "swap": min(float64(p.swap), host["swap"])}
	for text, into := range map[string]map[string]float64{hostText("loadavg"): host, p.sh("cat /proc/loadavg").out: own} {
		if into["load"], _, err = numberIn(`^(\S+)`, 1)(text); err != nil {
			t.Error(err)
		}
	}
	return own, host
}

// started is when a process began, in seconds since the machine was booted.
func started(t *testing.T, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	var ticks float64
	fmt.Sscan(strings.Fields(rest)[19], &ticks)
	return ticks / userHZ
}

// figures runs all tools beside each other in one container and notes what they show.
func (doc *toolsDoc) figures(t *testing.T, p place, musl bool) {
	t.Helper()
	doc.places++
	var all sync.WaitGroup
	for _, tool := range tools {
		if tool.script == muslCPUs && !musl {
			continue
		}
		all.Go(func() {
			own, host := p.truth(t)
			o := p.sh(tool.script)
			own2, host2 := p.truth(t)
			if !complains(t, tool.name, o) {
				for figure, read := range tool.shows {
					n, step, err := read(o.out)
					if err != nil {
						t.Errorf("%s: %s: %v in\n%s", tool.name, figure, err, o.out)
						continue
					}
					is := tool.verdict(figure, n, step, spanOf(own[figure], own2[figure]), spanOf(host[figure], host2[figure]))
					if is == "" {
						t.Errorf("%s: %s: %v ± %v, of the container's %v to %v and the host's %v to %v:\n%s", tool.name, figure, n, step,
							own[figure], own2[figure], host[figure], host2[figure], o.out)
					}
					doc.note(t, doc.shown, tool.name, figure, is)
				}
			}
		})
		if testing.Short() { // an emulated CPU has enough to do with one
			all.Wait()
		}
	}
	all.Wait()
}

// complains says whether a tool did not end well, or had something to say about it.
func complains(t *testing.T, name string, o outcome) bool {
	if o.status != 0 || o.errs != "" {
		t.Errorf("%s: status %d, says %q\n%s", name, o.status, o.errs, o.out)
		return true
	}
	return false
}

// verdict is whose a figure is. Where the container's and the host's are the same, as the swap of a host without any, it is that of the one who is asked.
func (tool aTool) verdict(figure string, n, step float64, own, host span) string {
	step += map[string]float64{"uptime": 0.1, "load": 0.011}[figure] // seconds that a clock may be behind; what is cut off
	is := func(s span) bool { return n+step >= s.least && n-step <= s.most }
	switch {
	case is(own) && (tool.asks == "" || !is(host)):
		return map[string]string{"memory": "512 MB", "CPUs": "1"}[figure] + map[string]string{"uptime": "own", "load": "own", "swap": "own"}[figure]
	case is(host):
		return "the host's"
	}
	return ""
}

// toolsDoc gathers what tools show: by tool, by column.
type toolsDoc struct {
	places               int // that were looked at
	mu                   sync.Mutex
	shown, loaded, sized map[string]map[string]string
}

// note keeps it, and fails if the tool showed something else in another container.
func (doc *toolsDoc) note(t *testing.T, in map[string]map[string]string, tool, column, is string) {
	doc.mu.Lock()
	defer doc.mu.Unlock()
	if in[tool] == nil {
		in[tool] = map[string]string{}
	}
	if was, ok := in[tool][column]; ok && was != is {
		t.Errorf("%s: %s: %q here, %q elsewhere", tool, column, is, was)
	}
	in[tool][column] = is
}

// compare looks whether the document says so, and with -update makes it.
func (doc *toolsDoc) compare(t *testing.T) {
	t.Helper()
	if *updateDocs {
		if err := os.WriteFile("../docs/tools.md", []byte(doc.text()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !testing.Short() && docs.Tools != doc.text() { // what is short leaves tools out
		t.Error("docs/tools.md is not what the tools show; see the difference after go test ./e2e -run TestTools -update")
	}
	committed := strings.Split(docs.Tools, "\n")
	for line := range strings.Lines(doc.text()) {
		if !slices.Contains(committed, strings.TrimSuffix(line, "\n")) {
			t.Errorf("docs/tools.md does not have this line: %s", line)
		}
	}
}
