package e2e

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// SIGUSR2 shows everybody the host's values, as LXCFS does, and their own again.
func TestToggle(t *testing.T) {
	needRoot(t)
	d := serve(t)
	cpus := hostCPUs(t)
	for _, tree := range [][]string{nil, {"--tree", d.tree}} {
		c := d.container(append([]string{"--memory", "300M", "--cpuset", list(cpus[:1])}, tree...), "sh", "-c",
			`while read -r _; do echo $(grep MemTotal /proc/meminfo) $(cat /sys/devices/system/cpu/online) $(grep -c ^processor /proc/cpuinfo); done`)
		host := strings.Join([]string{"MemTotal:", strconv.FormatUint(meminfo(t, command(t, "cat", "/proc/meminfo"))["MemTotal"], 10), "kB", strings.TrimSpace(command(t, "cat", "/sys/devices/system/cpu/online")), strconv.Itoa(len(cpus))}, " ")
		own := strings.Join([]string{"MemTotal:", strconv.Itoa(300 << 10), "kB", list(cpus[:1]), "1"}, " ")
		seen := func() string {
			c.say("")
			return c.line()
		}
		for i, want := range []string{own, host, own} {
			if i > 0 {
				if err := d.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
					t.Fatal(err)
				}
			}
			poll(t, 5*time.Second, want, func() bool { return seen() == want })
		}
	}
}
