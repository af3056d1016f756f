package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/cgroups/v3"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// starts is how many containers are looked at by the first command in them.
func starts() int { return rounds(50, 6) }

// The link leads everybody to his own files: the host to the shared tree, a container to its own, and whoever is sent into it too.
func TestOwnViewOfWhoeverAsks(t *testing.T) {
	needRoot(t)
	d := serve(t)
	self := filepath.Join(d.views, "self")
	if got := linkOf(t, self); got != d.tree {
		t.Errorf("the host is led to %s, not %s", got, d.tree)
	}
	if got, want := command(t, "ls", self+"/proc"), command(t, "ls", d.tree+"/proc"); got != want {
		t.Errorf("the host finds %q, not %q", got, want)
	}
	// A group of the host's has no pid namespace of its own, and so is no container.
	group := newGroup(t, memoryLimit(128<<20))
	if got := strings.TrimSpace(tool(t, joining(processesOf(group), "readlink", self))); got != d.tree {
		t.Errorf("a process in a group of the host's is led to %s", got)
	}
	if got := totalOf(t, tool(t, joining(processesOf(group), "cat", self+"/proc/meminfo"))); got != strconv.Itoa(128<<10) {
		t.Errorf("a process in a group of the host's sees %s kB there", got)
	}

	c := d.container([]string{"--memory", "256M"}, "sh", "-c", `echo up; while read -r line; do eval "$line"; done`)
	c.line()
	own := "ct/" + c.name
	if got := c.ask("readlink %s", self); got != own {
		t.Errorf("the container is led to %s, not %s", got, own)
	}
	if got := c.ask("setpriv --reuid 65534 --clear-groups readlink %s", self); got != own {
		t.Errorf("a user in the container is led to %s, not %s", got, own)
	}
	checkBound(t, c.init, own)

	// Sent in.
	small := newGroup(t, memoryLimit(96<<20))
	pid := strconv.Itoa(c.init)
	for _, groups := range [][]string{nil, processesOf(small)} {
		for _, sent := range []struct {
			flags []string
			link  string
		}{
			{[]string{"-p"}, own}, {[]string{"-p", "-m"}, own}, {[]string{"-p", "-m", "-u", "-i"}, own},
			{[]string{"-m"}, d.tree}, // of the host's pid namespace still
		} {
			nsenter := func(cmd ...string) string {
				return strings.TrimSpace(tool(t, joining(groups, append(append([]string{"nsenter", "-t", pid}, sent.flags...), append([]string{"--"}, cmd...)...)...)))
			}
			if got := nsenter("readlink", self); got != sent.link {
				t.Errorf("nsenter %v, groups %v: led to %s, not %s", sent.flags, groups, got, sent.link)
			}
			if slices.Contains(sent.flags, "-m") {
				if got := totalOf(t, nsenter("cat", "/proc/meminfo")); got != strconv.Itoa(256<<10) {
					t.Errorf("nsenter %v, groups %v: %s kB in /proc/meminfo", sent.flags, groups, got)
				}
			}
			if sent.link == own {
				if got := totalOf(t, nsenter("cat", self+"/proc/meminfo")); got != strconv.Itoa(256<<10) {
					t.Errorf("nsenter %v, groups %v: %s kB in self", sent.flags, groups, got)
				}
			}
		}
	}
	c.close()

	// A container of its own in a container is led to its own.
	out := d.run([]string{"--memory", "300M"}, "sh", "-c", fmt.Sprintf("readlink %s; unshare --fork --pid readlink %[1]s", self))
	if got := strings.Fields(out); len(got) != 2 || got[0] == got[1] || !strings.HasPrefix(got[1], "ct/") {
		t.Errorf("a container and one in it are led to %q", got)
	}
}

// checkBound wants every file of the tree bound over a container's /proc and /sys, and from nowhere but its own directory.
func checkBound(t *testing.T, pid int, own string) {
	t.Helper()
	list, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	mounts, err := mountinfo.GetMountsFromReader(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range mounts {
		if m.FSType == "fuse.lxcfs" && !strings.Contains(m.Mountpoint, runName()) { // not the mounts of the host, where they are still to be seen
			found[m.Mountpoint] = m.Root
		}
	}
	if pages := strings.TrimSpace(command(t, "getconf", "PAGESIZE")); pages != "4096" {
		t.Fatalf("pages of %s", pages)
	}
	for _, name := range theFiles {
		root, bound := found["/"+name]
		if !bound {
			root, bound = found["/"+filepath.Dir(name)], found["/"+filepath.Dir(name)] != ""
			root += "/" + filepath.Base(name)
		}
		if kept := "/" + own + "/" + name; !bound || root != kept && root != "/"+name {
			t.Errorf("/%s is bound from %q, not from %s: %v", name, root, kept, found)
		}
		if name != "proc/cpuinfo" && root == "/"+name { // with many CPUs it is the shared tree's
			t.Errorf("/%s is of the shared tree: %v", name, found)
		}
	}
}

// The first command in a container sees its limit, in every start.
func TestOwnViewsInTheFirstCommand(t *testing.T) {
	needRoot(t)
	d := serve(t)
	inParallel(t, starts(), func(n int) {
		kb := 100<<10 + 4*n
		out, err := tryCommand(binary, d.runArgs([]string{"--memory", fmt.Sprintf("%dk", kb)}, "cat", "/proc/meminfo")...)
		checkFirst(t, n, kb, out, err)
	})
}

// inParallel does something n times, two at a time.
func inParallel(t *testing.T, n int, do func(n int)) {
	t.Helper()
	var workers sync.WaitGroup
	for w := range 2 {
		workers.Go(func() {
			for i := w; i < n && !t.Failed(); i += 2 {
				do(i)
			}
		})
	}
	workers.Wait()
}

func checkFirst(t *testing.T, n, kb int, out string, err error) {
	if err != nil {
		t.Errorf("start %d: %v", n, err)
		return
	}
	m, err := parseMeminfo(trimBlank(out))
	if err != nil || m["MemTotal"] != uint64(kb) {
		t.Errorf("start %d: MemTotal %d, the limit is %d, %v", n, m["MemTotal"], kb, err)
	}
}

// LXC's mount hook binds the container's own view, also when it is started again under the same name.
func TestOwnViewsInLXC(t *testing.T) {
	lockLXC(t)
	d := serveAt(t, lxcTree, tempDir(t))
	ours, err := os.ReadFile("../share/lxc/lxc.mount.hook")
	if err != nil {
		t.Fatal(err)
	}
	hook := filepath.Join(tempDir(t), "hook") // where an unprivileged container may read it
	if err := os.WriteFile(hook, ours, 0o755); err != nil {
		t.Fatal(err)
	}
	test := func(t *testing.T, privileged bool) {
		c := newLXC(t, d, lxcOptions{hook: hook, privileged: privileged, memory: 300 << 20, cpuset: list(hostCPUs(t)[:1])})
		other := newLXC(t, d, lxcOptions{hook: hook, privileged: privileged, memory: 500 << 20})
		other.start()
		sees := machine{memory: 300 << 20, firstCPU: hostCPUs(t)[0], cpus: 1}
		for range 2 {
			c.start()
			sees.check(t, c.byInit())
			pid := strings.TrimSpace(command(t, "lxc-info", "-P", c.dir, "-n", c.name, "-p", "-H"))
			init, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			checkBound(t, init, "ct/"+c.name)
			if got := linkOfSentIn(t, pid, d.views+"/self"); got != "ct/"+c.name {
				t.Errorf("a process sent in is led to %s", got)
			}
			if names := namesIn(t, d.views+"/ct"); !slices.Contains(names, c.name) || !slices.Contains(names, other.name) {
				t.Errorf("ct has %v", names)
			}
			if got := totalOf(t, other.attach("cat", "/proc/meminfo")); got != strconv.Itoa(500<<10) {
				t.Errorf("the other container sees %s kB", got)
			}
			sees.check(t, c.attached())
			c.stop()
		}
	}
	t.Run("privileged", func(t *testing.T) { test(t, true) })
	t.Run("unprivileged", func(t *testing.T) { test(t, false) })
}

func linkOfSentIn(t *testing.T, pid, link string) string {
	t.Helper()
	return strings.TrimSpace(command(t, "nsenter", "-t", pid, "-p", "--", "readlink", link))
}

// OCI runtimes bind the views before they write the limits: the first command, milliseconds later, sees its limit in every start.
func TestOwnViewsInOCIRuntimes(t *testing.T) {
	needRoot(t)
	needCommand(t, "runc", "busybox")
	d := serve(t)
	for _, name := range []string{"runc", "crun"} {
		if _, err := exec.LookPath(name); err != nil || name == "crun" && cgroups.Mode() != cgroups.Unified { // crun refuses hybrid hosts
			continue
		}
		for _, userNS := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, user namespace %v", name, userNS), func(t *testing.T) {
				o := newOCI(t, name, d, userNS)
				inParallel(t, starts(), func(n int) {
					kb := 100<<10 + 4*n
					out, err := o.run(kb, "busybox", "cat", "/proc/meminfo")
					checkFirst(t, n, kb, out, err)
				})
				out, err := o.run(256<<10, "busybox", "sh", "-c", "cat /sys/devices/system/cpu/online; grep -c ^processor /proc/cpuinfo; cat /proc/uptime; busybox nproc; grep -c lxcfs /proc/mounts")
				if err != nil {
					t.Fatal(err)
				}
				got := strings.Fields(out)
				if len(got) != 6 || got[0] != strconv.Itoa(hostCPUs(t)[0]) || got[1] != "1" || got[5] != strconv.Itoa(len(theFiles)) {
					t.Errorf("with a quota of one CPU it sees %q", got)
				}
				if up, err := strconv.ParseFloat(got[2], 64); err != nil || up > 5 {
					t.Errorf("it has been up for %s", got[2])
				}
			})
		}
	}
}

// oci starts containers of an OCI runtime, each with a bundle of its own.
type oci struct {
	t       *testing.T
	runtime string
	d       *daemon
	userNS  bool
	rootfs  string
	dir     string
}

func newOCI(t *testing.T, runtime string, d *daemon, userNS bool) *oci {
	t.Helper()
	dir := tempDir(t)
	o := &oci{t, runtime, d, userNS, filepath.Join(dir, "rootfs"), dir}
	for _, sub := range []string{"bin", "proc", "sys", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(o.rootfs, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"busybox", "sh", "cat", "grep"} {
		path := filepath.Join(o.rootfs, "bin", name)
		if name != "busybox" {
			err = os.Symlink("busybox", path)
		} else {
			err = os.WriteFile(path, text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// run runs a command in a container with a limit of memory and a quota of one CPU.
func (o *oci) run(kb int, cmd ...string) (string, error) {
	name := uniqueName()
	return o.runSpec(name, o.spec(name, kb, cmd))
}

func (o *oci) runSpec(name string, spec *specs.Spec) (string, error) {
	bundle := filepath.Join(o.dir, name)
	if err := os.Mkdir(bundle, 0o755); err != nil {
		return "", err
	}
	config, err := json.Marshal(spec)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644); err != nil {
		return "", err
	}
	return tryCommand(o.runtime, "--root", filepath.Join(o.dir, "state"), "run", "--bundle", bundle, name)
}

func (o *oci) spec(name string, kb int, cmd []string) *specs.Spec {
	limit, quota, period := int64(kb)<<10, int64(100_000), uint64(100_000)
	s := &specs.Spec{
		Version:  "1.0.2",
		Process:  &specs.Process{Args: cmd, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true},
		Root:     &specs.Root{Path: o.rootfs, Readonly: true},
		Hostname: "test",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + name,
			Resources:   &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}},
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace}},
		},
	}
	for _, name := range theFiles {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/" + name, Type: "bind", Source: filepath.Join(o.d.views, "self", name), Options: []string{"bind", "ro", "nosuid", "nodev"}})
	}
	if o.userNS {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: lxcIDs, Size: lxcIDCount}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
	}
	return s
}
