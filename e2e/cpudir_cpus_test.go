package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fakeHost makes a host's texts for a daemon to serve: CPUs that can be switched off, each with a policy and a link to it, and a secret.
func fakeHost(t *testing.T, cpus int) string {
	t.Helper()
	root := tempDir(t)
	write := func(path, text string) {
		large(t, path, text)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"meminfo", "cpuinfo", "uptime", "stat", "loadavg"} {
		text, err := os.ReadFile("/proc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(root, "proc", name), string(text))
	}
	dir := filepath.Join(root, cpuDir)
	all := fmt.Sprintf("0-%d\n", cpus-1)
	for name, text := range map[string]string{"online": all, "offline": "\n", "possible": all, "present": all, "uevent": "", "probe": "secret\n"} {
		write(filepath.Join(dir, name), text)
	}
	if err := os.Chmod(filepath.Join(dir, "probe"), 0o200); err != nil {
		t.Fatal(err)
	}
	for n := range cpus {
		cpu := filepath.Join(dir, fmt.Sprintf("cpu%d", n))
		write(filepath.Join(cpu, "topology/core_id"), fmt.Sprintf("%d\n", n/2))
		write(filepath.Join(dir, fmt.Sprintf("cpufreq/policy%d/scaling_cur_freq", n)), fmt.Sprintf("%d\n", 1_000_000+n))
		if err := os.Symlink(fmt.Sprintf("../cpufreq/policy%d", n), filepath.Join(cpu, "cpufreq")); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			write(filepath.Join(cpu, "online"), "1\n")
		}
	}
	return root
}

// A host with 256 CPUs that can be switched off: the container finds its own switched on, and all others with their files.
func TestCPUDirOfALargeHost(t *testing.T) {
	needRoot(t)
	skipSlow(t)
	d := serve(t, "--host-root", fakeHost(t, 256))
	host := hostCPUs(t)
	for name, flags := range d.bothMounts() {
		c := d.container(append(flags, "--cpuset", list(host[len(host)-1:])), "sh", "-c", `cd `+cpuDir+`; while read -r line; do eval "$line"; done`)
		for cmd, want := range map[string]string{
			"ls -d cpu[0-9]* | wc -l":                     "256",
			"cat online":                                  list(host[len(host)-1:]),
			"grep -l 1 cpu*/online":                       fmt.Sprintf("cpu%d/online", host[len(host)-1]),
			"grep -l 0 cpu*/online | wc -l":               "254",
			"ls cpu0/online 2>&1 | grep -c No":            "1",
			"cat cpu201/topology/core_id":                 "100",
			"cat cpu201/cpufreq/scaling_cur_freq":         "1000201",
			"cat cpufreq/policy7/scaling_cur_freq":        "1000007",
			"readlink cpu255/cpufreq":                     "../cpufreq/policy255",
			"cat probe 2>&1":                              "cat: probe: No such file or directory",
			"ls | grep -c probe":                          "0",
			"cat possible":                                "0-255",
			"find . -type f | wc -l":                      strconv.Itoa(256*3 - 1 + 5),
			"cat cpu*/topology/core_id | sort -u | wc -l": "128",
		} {
			if got := trimBlank(c.ask("%s", cmd)); got != want {
				t.Errorf("%s: %s: %q, want %q", name, cmd, got, want)
			}
		}
		if len(host) > 1 { // as limits change, so do the files of one CPU
			setCPUs(t, c.init, list(host[:1]))
			last := fmt.Sprintf("cat cpu%d/online", host[len(host)-1])
			poll(t, lxcLimit, "the last CPU is switched off", func() bool { return c.ask("%s", last) == "0" })
		}
		c.close()
	}
}

// With --hide-cpus each container finds its own CPUs and no others, though they all look at the same names at the same time.
func TestCPUDirHidden(t *testing.T) {
	needRoot(t)
	host := hostCPUs(t)
	if len(host) < 2 {
		skip(t, "needs two CPUs")
	}
	d := serve(t, "--hide-cpus")
	var all sync.WaitGroup
	for i := range 4 {
		own, other := host[i%2], host[(i+1)%2]
		script := fmt.Sprintf(`cd %s
for i in $(seq %d); do
	[ "$(echo cpu[0-9]*)" = cpu%d ] || { echo "listed: $(ls)"; exit; }
	[ -e cpu%[3]d/topology/core_id ] || { echo "its CPU is not there"; exit; }
	[ ! -e cpu%d/topology/core_id ] || { echo "another is there"; exit; }
	for f in possible present online; do [ "$(cat $f)" = %[3]d ] || { echo "$f: $(cat $f)"; exit; }; done
	[ -z "$(cat offline)" ] || { echo "offline: $(cat offline)"; exit; }
done; echo fine`, cpuDir, rounds(30, 5), own, other)
		flags := []string{"--cpuset", strconv.Itoa(own)}
		if i >= 2 {
			flags = append(flags, "--tree", d.tree)
		}
		all.Go(func() {
			out, err := tryCommand(binary, d.runArgs(flags, "sh", "-c", script)...)
			if out != "fine\n" || err != nil {
				t.Errorf("CPU %d: %q, %v", own, out, err)
			}
		})
	}
	all.Wait()
	if got := command(t, "ls", d.tree+cpuDir); got != command(t, "ls", cpuDir) {
		t.Errorf("the host finds %q", got)
	}
	if got := strings.TrimSpace(command(t, binary, "show", "--hide-cpus", "cpu/possible")); got != ranges(t, host) {
		t.Errorf("show: %q", got)
	}
}
