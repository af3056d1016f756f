package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// observe is what runs in the containers: it prints, or as init writes into a file, what programs there take the machine to be.
const observe = `
import json, multiprocessing, os, re, subprocess, sys, time, traceback

def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout

def read(path):
    with open(path) as f:
        return f.read()

def age():
    start = int(read('/proc/1/stat').rsplit(')', 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf('SC_CLK_TCK')

def total(unit):
    return int(run('free', unit).splitlines()[1].split()[1])

def observe():
    o = {'before': age()}
    o['uptime'], o['idle'] = map(float, read('/proc/uptime').split())
    o['pretty'] = run('uptime', '-p').strip()
    o['after'] = age()
    o['memTotal'] = int(re.search(r'MemTotal: *(\d+) kB', read('/proc/meminfo'))[1]) * 1024
    o['freeBytes'], o['freeMega'] = total('-b'), total('-m')
    o['processors'] = [int(n) for n in re.findall(r'(?m)^processor\s*: (\d+)', read('/proc/cpuinfo'))]
    o['online'] = read('/sys/devices/system/cpu/online').strip()
    o['counts'] = {
        'getconf _NPROCESSORS_ONLN': int(run('getconf', '_NPROCESSORS_ONLN')),
        'os.cpu_count': os.cpu_count(),
        'multiprocessing.cpu_count': multiprocessing.cpu_count(),
    }
    o['mounts'] = [line for line in read('/proc/mounts').splitlines() if 'lxcfs' in line]
    return o

try:
    o = observe()
except Exception:
    o = {'error': traceback.format_exc()}
if sys.argv[1:] == ['init']:
    with open('/observed.new', 'w') as f:
        json.dump(o, f)
    os.rename('/observed.new', '/observed')
    while True:
        time.sleep(1000)
print(json.dumps(o))
`

// observation is what observe writes.
type observation struct {
	Error                         string
	Before, Uptime, Idle, After   float64 // seconds: uptime is what the file says, before and after the age of init by the kernel's clocks
	Pretty                        string
	MemTotal, FreeBytes, FreeMega int64
	Processors                    []int
	Online                        string
	Counts                        map[string]int
	Mounts                        []string
}

// machine is what a container is to take itself for.
type machine struct {
	memory         int64
	firstCPU, cpus int
}

func (m machine) check(t *testing.T, o observation) {
	t.Helper()
	if o.MemTotal != m.memory || o.FreeBytes != m.memory || o.FreeMega != m.memory>>20 {
		t.Errorf("memory: MemTotal %d, free -b %d, free -m %d; the limit is %d", o.MemTotal, o.FreeBytes, o.FreeMega, m.memory)
	}
	const tick = 0.03 // uptime is cut to ticks, may be one old, and so is the time when init started
	if o.Uptime < o.Before-tick || o.Uptime > o.After+tick {
		t.Errorf("uptime %v s; init is between %v and %v s old", o.Uptime, o.Before, o.After)
	}
	if o.Idle < 0 || o.Idle > o.Uptime*float64(m.cpus)+2*tick*float64(m.cpus) {
		t.Errorf("idle for %v s in %v s on %d CPUs", o.Idle, o.Uptime, m.cpus)
	}
	if o.Pretty != pretty(o.Before) && o.Pretty != pretty(o.After) {
		t.Errorf("uptime -p says %q after %v s", o.Pretty, o.After)
	}
	var processors []int
	for cpu := m.firstCPU; cpu < m.firstCPU+m.cpus; cpu++ {
		processors = append(processors, cpu)
	}
	if !slices.Equal(o.Processors, processors) {
		t.Errorf("cpuinfo has the processors %v, not %v", o.Processors, processors)
	}
	online := fmt.Sprint(m.firstCPU)
	if m.cpus > 1 {
		online += fmt.Sprintf("-%d", m.firstCPU+m.cpus-1)
	}
	if o.Online != online {
		t.Errorf("cpu/online is %q, not %q", o.Online, online)
	}
	for program, n := range o.Counts {
		if n != m.cpus {
			t.Errorf("%s says %d, not %d", program, n, m.cpus)
		}
	}
	checkMounts(t, o.Mounts)
}

// pretty is what uptime -p says of less than an hour.
func pretty(age float64) string {
	minutes := int(age) / 60
	if minutes == 1 {
		return "up 1 minute"
	}
	return fmt.Sprintf("up %d minutes", minutes)
}

// checkMounts wants each file of the tree among a container's mounts, as tools know LXCFS's: "lxcfs /proc/meminfo fuse.lxcfs …".
func checkMounts(t *testing.T, lines []string) {
	t.Helper()
	var found []string
	for _, line := range lines {
		f := strings.Fields(line)
		if f[0] != "lxcfs" || f[2] != "fuse.lxcfs" {
			t.Errorf("an odd mount: %s", line)
		}
		found = append(found, f[1])
	}
	for _, name := range strings.Fields(command(t, "ls", lxcTree+"/proc")) {
		if !slices.Contains(found, "/proc/"+name) {
			t.Errorf("/proc/%s is not among the mounts %q", name, found)
		}
	}
	const cpus = "/sys/devices/system/cpu" // the hook binds all of it, or its files
	if !slices.Contains(found, cpus) && !slices.Contains(found, cpus+"/online") {
		t.Errorf("%s/online is not among the mounts %q", cpus, found)
	}
}
