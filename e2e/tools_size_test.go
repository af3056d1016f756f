package e2e

import (
	"fmt"
	"math"
	"testing"
)

// sizeTool is a program that makes itself as large as it takes the machine to be: threads, workers, a heap.
type sizeTool struct {
	name, takes string
	asks        string
	script      string
	read        figureIn
	memory      bool    // it is bytes that it takes; else CPUs
	part        float64 // of all; 0: all
}

const (
	javaStarts  = `java %s -Xlog:gc+init -version 2>/dev/null`
	noContainer = "-XX:-UseContainerSupport"
	affinity    = "`sched_getaffinity`"
	online      = "`cpu/online` (`_SC_NPROCESSORS_ONLN`)"
)

// nginxScript starts nginx without a network and counts its workers, once they are no longer becoming more.
const nginxScript = `
cd $(mktemp -d)
echo 'daemon off; pid nginx.pid; error_log stderr notice; worker_processes auto; events {}' >conf
nginx -p $PWD -c conf 2>log &
for i in $(seq 600); do
	now=$(grep -c 'start worker process [0-9]' log); [ $now = 0 ] || [ "$now" != "$before" ] || break
	before=$now; sleep 0.5
done
kill $!; wait $!; echo $now`

var sizeTools = []sizeTool{
	{name: "nginx, `worker_processes auto`", takes: "workers", asks: online, script: nginxScript, read: exactly(`(\d+)`, 1)},
	{name: "Java", takes: "CPUs", asks: "its cgroup", script: fmt.Sprintf(javaStarts, ""), read: exactly(`(\d+) available`, 1)},
	{name: "Java", takes: "memory", asks: "its cgroup", script: fmt.Sprintf(javaStarts, ""), read: exactly(`Memory: (\d+)M`, mega), memory: true},
	{name: "Java", takes: "heap, at most", asks: "its cgroup", script: fmt.Sprintf(javaStarts, ""), read: numberIn(`Heap Max Capacity: (\d+)M`, mega), memory: true, part: 1. / 4},
	{name: "Java, `" + noContainer + "`", takes: "CPUs", asks: affinity, script: fmt.Sprintf(javaStarts, noContainer), read: exactly(`(\d+) available`, 1)},
	{name: "Java, `" + noContainer + "`", takes: "memory", asks: "`sysinfo`", script: fmt.Sprintf(javaStarts, noContainer), read: numberIn(`Memory: (\d+)M`, mega), memory: true},
	{name: "Node, `os.cpus`", takes: "CPUs", asks: "`/proc/stat`, `/proc/cpuinfo`", script: `node -p 'require("os").cpus().length'`, read: exactly(`(\d+)`, 1)},
	{name: "Node, `os.totalmem`", takes: "memory", asks: "`/proc/meminfo`", script: `node -p 'require("os").totalmem()'`, read: exactly(`(\d+)`, 1), memory: true},
	{name: "Python, `os.cpu_count`", takes: "CPUs", asks: online, script: `python3 -c 'import os; print(os.cpu_count())'`, read: exactly(`(\d+)`, 1)},
	{name: "Python, `os.sched_getaffinity`", takes: "CPUs", asks: affinity, script: `python3 -c 'import os; print(len(os.sched_getaffinity(0)))'`, read: exactly(`(\d+)`, 1)},
	{name: "glibc, `_SC_PHYS_PAGES`", takes: "memory", asks: "`sysinfo`", script: "echo $(getconf _PHYS_PAGES) $(getconf PAGE_SIZE)", read: product, memory: true},
	{name: "musl, `_SC_NPROCESSORS_ONLN`", takes: "CPUs", asks: affinity, script: muslCPUs, read: exactly(`(\d+)`, 1)},
	{name: "`nproc` of coreutils 9.1 and busybox", takes: "CPUs", asks: affinity, script: "[ $(nproc) = $(busybox nproc) ] && nproc", read: exactly(`(\d+)`, 1)},
	{name: "`busybox free`", takes: "memory", asks: "`sysinfo`", script: "busybox free", read: exactly(`Mem: +(\d+)`, kilo), memory: true},
	{name: "`htop`", takes: "CPUs", asks: "`/proc/stat`, `cpuN/online`", script: htopScript(1, 3), read: count(oneBar)},
	{name: "`htop`", takes: "memory", asks: "`/proc/meminfo`", script: htopScript(1, 3), read: numberIn(`Mem\[[^]]*/(\d+)M\]`, mega), memory: true},
	{name: "`lscpu`, on-line", takes: "CPUs", asks: "`cpu/online`", script: "lscpu -p=cpu", read: count(`^\d+$`)},
}

// sizeCases are the two ways to give a container one CPU.
var sizeCases = []struct {
	column string
	limit  func(o *lxcOptions, host []int)
}{
	{"the time of one CPU (quota)", func(o *lxcOptions, _ []int) { o.quota = 1 }},
	{"one CPU (CPU set)", func(o *lxcOptions, host []int) { o.cpuset = list(host[len(host)-1:]) }},
}

// sizes has programs that make themselves as large as the machine start in containers that have the machine's own.
func (doc *toolsDoc) sizes(t *testing.T, d *daemon, musl string) {
	host := hostCPUs(t)
	for _, c := range sizeCases {
		t.Run("LXC, "+c.column, func(t *testing.T) {
			o := lxcOptions{privileged: true, hook: ourHook(t), memory: toolsMemory}
			c.limit(&o, host)
			p := lxcPlace(t, newMachine(t, d, o, "/usr/bin/python3 /observe.py init", "lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed:force"), musl)
			doc.places++
			_, all := p.truth(t)
			said := map[string]outcome{}
			for _, tool := range sizeTools {
				o, ok := said[tool.script]
				if !ok {
					o = p.sh(tool.script)
					said[tool.script] = o
				}
				if complains(t, tool.name, o) {
					continue
				}
				n, step, err := tool.read(o.out)
				if err != nil {
					t.Errorf("%s: %s: %v in\n%s", tool.name, tool.takes, err, o.out)
					continue
				}
				is := tool.verdict(n, step, all)
				if is == "" {
					t.Errorf("%s: %s: %v ± %v, of a host with %v:\n%s", tool.name, tool.takes, n, step, all, o.out)
				}
				doc.note(t, doc.sized, tool.row(), c.column, is)
			}
		})
	}
}

func (tool sizeTool) row() string { return tool.name + " | " + tool.takes + " | " + tool.asks }

// verdict is whose figure it is.
func (tool sizeTool) verdict(n, step float64, host map[string]float64) string {
	own, whole, word := 1., host["CPUs"], "1"
	if tool.memory {
		own, whole, word = toolsMemory, host["memory"], "512 MB"
	}
	of := ""
	if tool.part > 0 {
		own, whole, of = own*tool.part, whole*tool.part, "a quarter of "
		step += own / 50 // Java rounds it
	}
	if math.Abs(n-own) <= step {
		return of + word
	}
	if math.Abs(n-whole) <= step {
		return of + "the host's"
	}
	return ""
}

func sizeColumns() (names []string) {
	for _, c := range sizeCases {
		names = append(names, c.column)
	}
	return names
}
