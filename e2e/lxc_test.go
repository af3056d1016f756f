package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// lxcTree is where Debian's hook, which these tests run as it is, looks for the views.
const lxcTree = "/var/lib/lxcfs"

const (
	lxcHook   = "/usr/share/lxcfs/lxc.mount.hook"
	lxcCommon = "/usr/share/lxc/config/common.conf" // includes common.conf.d, where the package lxcfs puts its hook
	lxcUserNS = "/usr/share/lxc/config/userns.conf"
)

// lxcIDs is the first id of the host that an unprivileged container of root gets, and how many there are.
const (
	lxcIDs     = 666000
	lxcIDCount = 65536
)

// TestLXC starts containers as users of LXC do, two at a time, and has each look at itself from its own init and from a process sent in.
func TestLXC(t *testing.T) {
	lockLXC(t)
	d := serveAt(t, lxcTree, tempDir(t))
	forEachHook(t, func(t *testing.T, o lxcOptions) {
		n := len(hostCPUs(t))
		o.memory, o.cpuset = 300<<20, fmt.Sprintf("1-%d", n-1)
		left, seesLeft := newLXC(t, d, o), machine{memory: 300 << 20, firstCPU: 1, cpus: n - 1}
		o.memory, o.cpuset, o.quota = 700<<20, "", float64(n)/2-0.5
		right, seesRight := newLXC(t, d, o), machine{memory: 700 << 20, firstCPU: 0, cpus: n / 2}
		right.nest()

		left.start()
		right.start()
		seesLeft.check(t, left.byInit())
		seesRight.check(t, right.byInit())
		seesLeft.check(t, left.attached())
		seesRight.check(t, right.attached())
		if out := right.attach("grep", "MemTotal", lxcTree+"/proc/meminfo"); out != fmt.Sprintf("MemTotal:       %8d kB\n", 700<<10) {
			t.Errorf("the tree that a container was given for containers of its own shows %q", out)
		}

		left.stop()
		begin := time.Now()
		left.start()
		again := left.byInit()
		seesLeft.check(t, again)
		if age := time.Since(begin).Seconds(); again.Uptime > age {
			t.Errorf("started again under the same name %v s ago, the container has been up for %v s", age, again.Uptime)
		}
		seesLeft.check(t, left.attached())
		seesRight.check(t, right.attached()) // has not noticed
	})
}

// TestLXCInnerGroup has LXC put the container's processes deeper than the limits are, as its documentation recommends for systemd in it.
func TestLXCInnerGroup(t *testing.T) {
	lockLXC(t)
	d := serveAt(t, lxcTree, tempDir(t))
	forEachHookAs(t, true, func(t *testing.T, o lxcOptions) {
		o.memory, o.cpuset, o.inner = 300<<20, "1", "inner"
		c := newLXC(t, d, o)
		c.start()
		sees := machine{memory: 300 << 20, firstCPU: 1, cpus: 1}
		sees.check(t, c.byInit())
		sees.check(t, c.attached())
	})
}

// TestLXCWithoutDaemon: the hooks let a container start that gets no views.
func TestLXCWithoutDaemon(t *testing.T) {
	lockLXC(t)
	check := func(t *testing.T, c *lxcContainer) {
		c.start()
		o := c.byInit()
		if len(o.Mounts) > 0 {
			t.Errorf("nobody serves %s, but a container has views: %q", lxcTree, o.Mounts)
		}
		if o.MemTotal <= 300<<20 {
			t.Errorf("nobody serves %s, but a container has a machine of its own: MemTotal %d", lxcTree, o.MemTotal)
		}
		c.stop()
	}
	var d *daemon
	starts := func(t *testing.T, o lxcOptions) {
		o.memory = 300 << 20
		check(t, newLXC(t, d, o))
		if o.hook == "" {
			return // Debian's fails where it has a place for a tree of its own
		}
		nested := newLXC(t, d, o)
		nested.nest()
		check(t, nested)
	}
	t.Run("never started", func(t *testing.T) { forEachHookAs(t, true, starts) })
	d = serveAt(t, lxcTree, tempDir(t))
	d.kill()
	t.Run("killed", func(t *testing.T) { forEachHookAs(t, false, starts) })
}

// forEachHook runs a test with Debian's hook and with ours, privileged and not.
func forEachHook(t *testing.T, test func(*testing.T, lxcOptions)) {
	for _, privileged := range []bool{true, false} {
		forEachHookAs(t, privileged, test)
	}
}

// ourHook puts our hook where an unprivileged container may read it.
func ourHook(t *testing.T) string {
	t.Helper()
	ours, err := os.ReadFile("../share/lxc/lxc.mount.hook")
	if err != nil {
		t.Fatal(err)
	}
	hook := filepath.Join(tempDir(t), "hook")
	if err := os.WriteFile(hook, ours, 0o755); err != nil {
		t.Fatal(err)
	}
	return hook
}

func forEachHookAs(t *testing.T, privileged bool, test func(*testing.T, lxcOptions)) {
	hook := ourHook(t)
	kind := "unprivileged"
	if privileged {
		kind = "privileged"
	}
	t.Run("LXCFS hook, "+kind, func(t *testing.T) { test(t, lxcOptions{privileged: privileged}) })
	t.Run("lensfs hook, "+kind, func(t *testing.T) { test(t, lxcOptions{privileged: privileged, hook: hook}) })
}

// lockLXC waits until no other run of these tests uses the one directory that the hook knows, and keeps them waiting until this test is over.
func lockLXC(t *testing.T) {
	t.Helper()
	needRoot(t)
	needCommand(t, "lxc-start", "lxc-attach", "lxc-stop")
	for _, file := range []string{lxcHook, lxcCommon} {
		if _, err := os.Stat(file); err != nil {
			skip(t, fmt.Sprintf("needs the packages lxc and lxcfs (its daemon must not run): %v", err))
		}
	}
	if len(hostCPUs(t)) < 2 {
		skip(t, "needs two CPUs")
	}
	lock, err := os.Open(filepath.Dir(lxcTree))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	poll(t, 5*time.Minute, "no other run uses "+lxcTree, func() bool {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		return err == nil
	})
	if on := mountedOn(t, lxcTree); on != "" {
		t.Fatalf("somebody has a %s file system on %s: stop it (service lxcfs stop; a lensfs of yours), or umount what a dead one left", on, lxcTree)
	}
}

// lxcOptions say what a container is like; for limits, 0 and "" are none.
type lxcOptions struct {
	privileged bool
	hook       string // "": that of Debian's package lxcfs, which LXC's own configuration names
	inner      string // cgroup below the limits
	group      string // of the host, in which LXC makes the container's
	memory     int64
	swap       int64 // beside the memory
	cpuset     string
	quota      float64 // CPUs
}

// limits writes them for the version of cgroups that is mounted.
func (l lxcOptions) limits() string {
	keys := [4]string{"lxc.cgroup.memory.limit_in_bytes = %d\n", "lxc.cgroup.cpuset.cpus = %s\n", "lxc.cgroup.cpu.cfs_period_us = 100000\nlxc.cgroup.cpu.cfs_quota_us = %d\n",
		"lxc.cgroup.memory.memsw.limit_in_bytes = %d\n"}
	swap := l.memory + l.swap // v1 limits the two together
	if cgroups.Mode() == cgroups.Unified {
		keys = [4]string{"lxc.cgroup2.memory.max = %d\n", "lxc.cgroup2.cpuset.cpus = %s\n", "lxc.cgroup2.cpu.max = %d 100000\n", "lxc.cgroup2.memory.swap.max = %d\n"}
		swap = l.swap
	}
	var s string
	if l.memory > 0 {
		s += fmt.Sprintf(keys[0], l.memory)
	}
	if l.swap > 0 {
		s += fmt.Sprintf(keys[3], swap)
	}
	if l.cpuset != "" {
		s += fmt.Sprintf(keys[1], l.cpuset)
	}
	if l.quota > 0 {
		s += fmt.Sprintf(keys[2], int(l.quota*100000))
	}
	return s
}

// lxcContainer is a container of Debian's LXC. It ends with the test.
type lxcContainer struct {
	t      *testing.T
	name   string
	dir    string // of lxc-start -P
	rootfs string // an overlay on the cached Debian
	views  string // for our hook
	tree   string // for our hook too
	log    string
}

// newLXC makes a container, to be served by d if there is one.
func newLXC(t *testing.T, d *daemon, o lxcOptions) *lxcContainer {
	t.Helper()
	dir := tempDir(t)
	c := &lxcContainer{t: t, name: uniqueName(), dir: dir, rootfs: filepath.Join(dir, "rootfs"), views: filepath.Join(dir, "none"), tree: lxcTree, log: filepath.Join(dir, "log")}
	if d != nil {
		c.views = d.views
	}
	c.mountRootfs(debian(t))
	if err := os.WriteFile(filepath.Join(c.rootfs, "observe.py"), []byte(observe), 0o755); err != nil {
		t.Fatal(err)
	}
	if !o.privileged {
		c.command("chown", "-R", "--no-dereference", fmt.Sprintf("%d:%[1]d", lxcIDs), c.rootfs)
	}
	c.configure(o, "/usr/bin/python3 /observe.py init")
	return c
}

// configure writes the container's configuration, and has it end with the test.
func (c *lxcContainer) configure(o lxcOptions, init string, more ...string) {
	t := c.t
	t.Helper()
	// Without LXC's AppArmor profile: a machine may have AppArmor in its kernel and nothing that loads profiles.
	config := []string{"lxc.include = " + lxcCommon, "lxc.apparmor.profile = unconfined"}
	if o.hook != "" {
		config = append(config, "lxc.hook.mount =", "lxc.hook.mount = "+o.hook)
	}
	if o.inner != "" {
		config = append(config, "lxc.cgroup.dir.monitor = monitor."+c.name, "lxc.cgroup.dir.container = container."+c.name, "lxc.cgroup.dir.container.inner = "+o.inner)
	}
	if o.group != "" {
		config = append(config, "lxc.cgroup.dir = "+o.group)
	}
	if !o.privileged {
		needIDs(t)
		ids := fmt.Sprintf("0 %d %d", lxcIDs, lxcIDCount)
		config = append(config, "lxc.include = "+lxcUserNS, "lxc.idmap = u "+ids, "lxc.idmap = g "+ids)
	}
	config = append(config, more...)
	config = append(config, "lxc.uts.name = "+c.name, "lxc.rootfs.path = dir:"+c.rootfs, "lxc.net.0.type = empty", "lxc.init.cmd = "+init, o.limits())
	if err := os.Mkdir(filepath.Join(c.dir, c.name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, c.name, "config"), []byte(strings.Join(config, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(c.log)
			t.Logf("the log of container %s:\n%s", c.name, log)
		}
		c.stop()
	})
}

// nest makes the place where hooks give a container the whole tree, for containers of its own.
func (c *lxcContainer) nest() {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Join(c.rootfs, lxcTree), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// debian gives the root file system that containers are made of; it must not be changed.
func debian(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("LENSFS_ROOTFS"); dir != "" {
		return dir
	}
	out, err := exec.Command("./rootfs.sh").Output() // takes a minute the first time
	if err != nil {
		skip(t, fmt.Sprintf("needs a root file system: set LENSFS_ROOTFS, or see why rootfs.sh failed: %v", err))
	}
	return strings.TrimSpace(string(out))
}

// mountRootfs makes a root file system of the container's own, which shares with debian what it does not change:
// metacopy keeps the content shared when the owner changes.
func (c *lxcContainer) mountRootfs(debian string) {
	c.t.Helper()
	upper, work := filepath.Join(c.dir, "upper"), filepath.Join(c.dir, "work")
	for _, dir := range []string{upper, work, c.rootfs} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	options := fmt.Sprintf("metacopy=on,lowerdir=%s,upperdir=%s,workdir=%s", debian, upper, work)
	if err := unix.Mount(c.name, c.rootfs, "overlay", 0, options); err != nil {
		c.t.Fatalf("mount an overlay on %s: %v", debian, err)
	}
	c.t.Cleanup(func() {
		if err := unix.Unmount(c.rootfs, unix.MNT_DETACH); err != nil {
			c.t.Error(err)
		}
	})
}

// needIDs looks for what root must have been allowed for unprivileged containers.
func needIDs(t *testing.T) {
	t.Helper()
	line := fmt.Sprintf("root:%d:%d", lxcIDs, lxcIDCount)
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		text, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(text), "\n"), line) {
			t.Fatalf("%s has no line %s: run e2e/setup.sh", file, line)
		}
	}
}

func (c *lxcContainer) start() {
	c.t.Helper()
	os.Remove(filepath.Join(c.rootfs, "observed"))
	c.command("env", "LENSFS_VIEWS="+c.views, "LENSFS_TREE="+c.tree, "lxc-start", "-P", c.dir, "-n", c.name, "-l", "DEBUG", "-o", c.log)
}

// stop kills the container, if it runs, and waits until LXC has removed its cgroups.
func (c *lxcContainer) stop() {
	c.t.Helper()
	if state, _ := tryCommand("lxc-info", "-P", c.dir, "-n", c.name, "-s", "-H"); strings.TrimSpace(state) != "STOPPED" {
		c.command("lxc-stop", "-P", c.dir, "-n", c.name, "-k")
	}
	poll(c.t, lxcLimit, "the cgroups of "+c.name+" are gone", func() bool {
		one, _ := filepath.Glob("/sys/fs/cgroup/*" + c.name)
		each, _ := filepath.Glob("/sys/fs/cgroup/*/*" + c.name)
		return len(one)+len(each) == 0
	})
}

// lxcLimit is how long anything may take; in the virtual machine, with others beside it, a second becomes many.
const lxcLimit = 3 * time.Minute

// command runs a program. If that takes too long, it tells what the container's processes are waiting for.
func (c *lxcContainer) command(name string, args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), lxcLimit)
	if c.t.Context().Err() != nil { // the test is over, and cleans up
		ctx, cancel = context.WithTimeout(context.Background(), lxcLimit)
	}
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, time.Second
	cmd.Cancel = func() error {
		c.t.Log(c.processes())
		return cmd.Process.Kill()
	}
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &errs, &out)
	}
	return out.String()
}

// processes tells of those in the container, and of LXC's that have to do with it.
func (c *lxcContainer) processes() string {
	var s strings.Builder
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		cmdline, _ := os.ReadFile(p + "/cmdline")
		groups, _ := os.ReadFile(p + "/cgroup")
		if !strings.Contains(string(cmdline)+string(groups), c.name) {
			continue
		}
		stat, _ := os.ReadFile(p + "/stat")
		stack, _ := os.ReadFile(p + "/stack")
		fmt.Fprintf(&s, "%s: %q\n%s%s", p, cmdline, stat, stack)
	}
	return s.String()
}

// attach runs a command in the container, sent in from outside.
func (c *lxcContainer) attach(cmd ...string) string {
	c.t.Helper()
	return c.command("lxc-attach", append([]string{"-P", c.dir, "-n", c.name, "--clear-env", "--"}, cmd...)...)
}

// attached gives what a process sent in sees.
func (c *lxcContainer) attached() observation {
	c.t.Helper()
	return c.parse(c.attach("/usr/bin/python3", "/observe.py"))
}

// byInit gives what the container's init saw when it started.
func (c *lxcContainer) byInit() observation {
	c.t.Helper()
	var text []byte
	poll(c.t, lxcLimit, "init has written what it saw", func() bool {
		var err error
		text, err = os.ReadFile(filepath.Join(c.rootfs, "observed"))
		return err == nil
	})
	return c.parse(string(text))
}

func (c *lxcContainer) parse(text string) observation {
	c.t.Helper()
	var o observation
	if err := json.Unmarshal([]byte(text), &o); err != nil || o.Error != "" {
		c.t.Fatalf("container %s could not look at itself: %v %s\n%s", c.name, err, o.Error, text)
	}
	return o
}

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
