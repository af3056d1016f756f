package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// incus is an Incus whose state is all in one directory.
type incus struct {
	t    *testing.T
	dir  string
	env  []string
	log  *logFile
	done chan error
}

const (
	incusd = "/usr/libexec/incus/incusd" // where Debian has it
	image  = "small"                     // of all instances
)

// startIncus starts one that has an image, and our binary as its lxcfs. It ends with the test.
func startIncus(t *testing.T) *incus {
	t.Helper()
	dir := tempDir(t)
	i := &incus{t: t, dir: filepath.Join(dir, "incus"), log: newLogFile(t), done: make(chan error, 1)}
	// Under the name that it has as a link; Incus throws away what it says.
	said := newLogFile(t)
	script := fmt.Sprintf("#!/bin/bash\nexec -a lxcfs %s \"$@\" 2>>%s\n", binary, said.file.Name())
	if err := os.WriteFile(filepath.Join(dir, "lxcfs"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the instances' own daemons:\n%s", said)
		}
	})
	path := dir + ":" + os.Getenv("PATH")
	i.env = append(os.Environ(), "PATH="+path, "INCUS_DIR="+i.dir, "INCUS_CONF="+filepath.Join(dir, "conf"), "INCUS_SECURITY_APPARMOR=false")
	for _, sub := range []string{"incus", "conf"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o711); err != nil {
			t.Fatal(err)
		}
	}
	daemon := exec.Command(incusd, "--group", "root")
	daemon.Env, daemon.Stdout, daemon.Stderr = i.env, i.log.file, i.log.file
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { i.done <- daemon.Wait() }()
	t.Cleanup(func() { i.stop(daemon) })
	i.finish(exec.Command(incusd, "waitready", "--timeout", "180"))
	// Without AppArmor, as in newLXC.
	setup := i.command("admin", "init", "--preseed")
	setup.Stdin = strings.NewReader(`
storage_pools: [{name: default, driver: dir}]
profiles: [{name: default, config: {raw.lxc: lxc.apparmor.profile=unconfined}, devices: {root: {path: /, pool: default, type: disk}}}]
`)
	i.finish(setup)
	i.run("image", "import", makeImage(t), "--alias", image)
	return i
}

// of is for a part of the test.
func (i *incus) of(t *testing.T) *incus {
	part := *i
	part.t = t
	return &part
}

func (i *incus) stop(daemon *exec.Cmd) {
	i.t.Helper()
	daemon.Process.Signal(unix.SIGTERM)
	select {
	case <-i.done:
	case <-time.After(lxcLimit):
		daemon.Process.Kill()
		i.t.Errorf("incusd did not end\n%s", i.log)
	}
	if i.t.Failed() {
		i.t.Logf("incusd:\n%s", i.log)
	}
	// Incus leaves mounts of its own.
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(i.dir))
	if err != nil {
		i.t.Error(err)
	}
	for n := len(mounts) - 1; n >= 0; n-- {
		if strings.Contains(mounts[n].FSType, "lxcfs") {
			i.t.Errorf("a mount is left on %s", mounts[n].Mountpoint)
		}
		if err := unix.Unmount(mounts[n].Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			i.t.Error(err)
		}
	}
}

// makeImage packs a small root file system: busybox and this binary.
func makeImage(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	rootfs := filepath.Join(dir, "rootfs")
	for _, sub := range []string{"bin", "sbin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", lxcTree} {
		if err := os.MkdirAll(filepath.Join(rootfs, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, filepath.Join(rootfs, "bin/e2e"))
	copyFile(t, busybox, filepath.Join(rootfs, "bin/busybox"))
	for _, name := range []string{"sh", "cat", "grep", "sleep"} {
		if err := os.Symlink("busybox", filepath.Join(rootfs, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	const init = "#!/bin/sh\ntrap 'exit 0' TERM PWR\nwhile :; do sleep 1000 & wait; done\n"
	if err := os.WriteFile(filepath.Join(rootfs, "sbin/init"), []byte(init), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "metadata.yaml"), []byte("architecture: x86_64\ncreation_date: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tar := filepath.Join(dir, "image.tar")
	command(t, "tar", "-C", dir, "-cf", tar, "metadata.yaml", "rootfs")
	return tar
}

// hookOfIncus has new instances use our hook, and no other, with the own views there. Incus reads what LXC's package has for all containers.
func hookOfIncus(t *testing.T, views string) {
	t.Helper()
	const dir = "/usr/share/lxc/config/common.conf.d"
	others, err := filepath.Glob(dir + "/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range others {
		if err := os.Rename(file, file+".aside"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Rename(file+".aside", file); err != nil {
				t.Error(err)
			}
		})
	}
	hook := filepath.Join(tempDir(t), "hook")
	if err := os.WriteFile(hook, fmt.Appendf(nil, "#!/bin/sh\nLENSFS_VIEWS=%s exec %s\n", views, ourHook(t)), 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "00-lensfs.conf")
	if err := os.WriteFile(config, []byte("lxc.hook.mount = "+hook+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(config) })
}

// command gives a command of the client.
func (i *incus) command(args ...string) *exec.Cmd {
	cmd := exec.Command("incus", args...)
	cmd.Env = i.env
	return cmd
}

func (i *incus) run(args ...string) string {
	i.t.Helper()
	return i.finish(i.command(args...))
}

func (i *incus) finish(cmd *exec.Cmd) string {
	i.t.Helper()
	cmd.Env = i.env
	o := finishWithin(i.t, lxcLimit, cmd)
	if o.status != 0 {
		i.t.Fatalf("%v: status %d: %s%s\n%s", cmd.Args, o.status, o.errs, o.out, i.log)
	}
	return o.out
}

// launch starts an instance, which ends with the test.
func (i *incus) launch(config ...string) string {
	i.t.Helper()
	name := uniqueName()
	args := []string{"launch", image, name}
	for _, c := range config {
		args = append(args, "-c", c)
	}
	i.t.Cleanup(func() {
		if i.t.Failed() {
			i.t.Logf("%s:\n%s", name, finishWithin(i.t, lxcLimit, i.command("info", "--show-log", name)).out)
		}
		if strings.Contains(i.run("list", "-c", "n", "-f", "csv"), name) {
			i.run("delete", "--force", name)
		}
	})
	i.run(args...)
	return name
}

// sees checks what an instance takes the machine to be: its memory, in MiB, and its CPUs.
func (i *incus) sees(name string, memory, cpus int) {
	i.t.Helper()
	out := i.run("exec", "-T", name, "--", "sh", "-c",
		"grep MemTotal: /proc/meminfo; grep -c ^processor /proc/cpuinfo; cat /proc/uptime; cat /sys/devices/system/cpu/online; grep -c '^lxcfs /[ps].* fuse.lxcfs ' /proc/mounts")
	var kb, processors, mounts int
	var up, idle float64
	var online string
	// In words: a file may have blank lines behind its text when another worker has taken over.
	if _, err := fmt.Sscanf(strings.Join(strings.Fields(out), " "), "MemTotal: %d kB %d %f %f %s %d", &kb, &processors, &up, &idle, &online, &mounts); err != nil {
		i.t.Fatalf("instance %s says %q: %v", name, out, err)
	}
	list, err := parseList(online)
	if err != nil {
		i.t.Fatal(err)
	}
	if kb != memory<<10 || processors != cpus || len(list) != cpus || mounts < 8 {
		i.t.Errorf("instance %s of %d MiB and %d CPUs sees %q; its cpuset is %s", name, memory, cpus, out, cgroupRead(i.t, i.initOf(name), "cpuset", "cpuset.cpus", "cpuset.cpus.effective"))
	}
	if age := ageOf(i.t, i.initOf(name)); up > age+0.1 || up < age-lxcLimit.Seconds() || up == 0 {
		i.t.Errorf("instance %s has been up for %v s, its init is %v s old", name, up, age)
	}
}

// initOf gives the instance's init, as the host numbers it.
func (i *incus) initOf(name string) (pid int) {
	i.t.Helper()
	for line := range strings.Lines(i.run("info", name)) {
		if n, _ := fmt.Sscanf(line, "PID: %d", &pid); n == 1 {
			return pid
		}
	}
	i.t.Fatalf("instance %s has no init", name)
	return 0
}

// ageOf is how long ago a process was started, in seconds.
func ageOf(t *testing.T, pid int) float64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	return float64(now.Nano())/1e9 - started(t, pid)
}

// lxcfs gives the processes of the daemons that Incus has started: those that it knows, and their workers.
func (i *incus) lxcfs() (keepers, workers []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		text, _ := os.ReadFile(p + "/cmdline")
		var pid int
		fmt.Sscan(filepath.Base(p), &pid)
		if line := string(text); !strings.Contains(line, i.dir+"/") {
			continue
		} else if strings.HasPrefix(line, "lxcfs\x00") {
			keepers = append(keepers, pid)
		} else if strings.HasPrefix(line, "lensfs\x00worker\x00") {
			workers = append(workers, pid)
		}
	}
	return keepers, workers
}

// onlyLxcfs waits until there are just so many daemons, and checks that there is nothing of any other.
func (i *incus) onlyLxcfs(n int) {
	i.t.Helper()
	poll(i.t, lxcLimit, fmt.Sprintf("Incus has %d daemons", n), func() bool {
		keepers, workers := i.lxcfs()
		return len(keepers) == n && len(workers) == n
	})
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != "fuse.lxcfs" || !strings.HasPrefix(m.Mountpoint, i.dir), false
	})
	if err != nil || len(mounts) != 2*n { // the tree, and own views
		i.t.Errorf("%d mounts of %d daemons: %v", len(mounts), n, err)
	}
	if links := advertised(i.dir + "/"); len(links) != 2*n {
		i.t.Errorf("%q are known, of %d daemons", links, n)
	}
}

// residentOf is what /proc says.
func residentOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}
