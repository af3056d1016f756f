package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a container has made of its /proc and /sys misleads nobody: it gets an error that says what it is, and nothing is put anywhere.
func TestAttachHostile(t *testing.T) {
	needRoot(t)
	d := serve(t)
	group := newGroup(t, memoryLimit(200<<20))
	for _, test := range []struct{ name, before, want string }{
		{"a tmpfs on /proc", "mount -t tmpfs x proc; echo >proc/meminfo", "its /proc is not the kernel's, but of a file system of type tmpfs"},
		{"a part of it on /proc", "mount --bind proc/sys proc", "its /proc is not the kernel's, but of a file system of type proc"},
		{"a link instead of /proc", "mkdir else; mount --move proc else; rmdir proc; ln -s else proc", "its /proc is a symbolic link"},
		{"no /proc", "umount proc; rmdir proc", "it has no /proc"},
		{"a file instead of /proc", "umount proc; rmdir proc; echo >proc", "its /proc is not the kernel's"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBare(t, group, test.before)
			before := mountinfoOf(t, b.init)
			out, err := d.attach(strconv.Itoa(b.init))
			if err == nil || !strings.Contains(out, test.want) || !strings.Contains(err.Error(), "1 of 1 containers have not") {
				t.Errorf("%v %s", err, out)
			}
			if after := mountinfoOf(t, b.init); after != before {
				t.Errorf("it has changed\n%s\nto\n%s", before, after)
			}
			d.onHostOnce()
		})
	}
	for _, test := range []struct{ name, before, left, want string }{
		{"a file over one", "mount --bind proc/version proc/meminfo", "/proc/meminfo", "/proc/meminfo: left alone, since a file system of type proc is mounted on it"},
		{"a tmpfs on /sys", "mount -t tmpfs x sys; mkdir -p sys/devices/system/cpu; echo 7 >sys/devices/system/cpu/online", "/sys/devices/system/cpu", "its /sys is not the kernel's"},
		{"a tmpfs in /sys", "mount -t tmpfs x sys/devices; mkdir -p sys/devices/system/cpu; echo 7 >sys/devices/system/cpu/online", "/sys/devices/system/cpu", "cross-device"},
		{"a link in /sys", "mount -t tmpfs x sys/devices/system; ln -s /proc sys/devices/system/cpu", "/sys/devices/system/cpu", "cross-device"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBare(t, group, test.before)
			out, err := d.attach(strconv.Itoa(b.init))
			if err != nil || !strings.Contains(out, test.want) {
				t.Errorf("%v %s", err, out)
			}
			got := views(t, b.init)
			for _, m := range got {
				if m.Mountpoint == test.left || strings.HasPrefix(m.Mountpoint, test.left+"/") {
					t.Errorf("%s has a view", m.Mountpoint)
				}
			}
			if len(got) < 7 {
				t.Errorf("it has %d views", len(got))
			}
			d.onHostOnce()
		})
	}
}

// Who is of the host gets nothing, nor does who is none any more.
func TestAttachRefuses(t *testing.T) {
	needRoot(t)
	d := serve(t)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	service := child(t, start(t, []string{"unshare", "--mount", "--fork", "sleep", "600"}))
	halfway := child(t, start(t, []string{"unshare", "--pid", "--fork", "sleep", "600"}))
	for _, test := range []struct {
		pid  int
		want string
	}{
		{os.Getpid(), "its pid namespace is the host's"},
		{service, "its pid namespace is the host's"},
		{halfway, "sees the host's mounts"},
		{gone.Process.Pid, "there is none"},
	} {
		if out, err := d.attach(strconv.Itoa(test.pid)); err == nil || !strings.Contains(out, test.want) {
			t.Errorf("%v %s; it should say %q", err, out, test.want)
		}
	}
	for _, args := range [][]string{{}, {"--all", "1"}, {"--lxcfs-only", "1"}, {"x"}, {"-1"}, {"0"}} {
		if out, err := d.attach(args...); err == nil {
			t.Errorf("attach %q: %s", args, out)
		}
	}
	nobody := &daemon{t: t, tree: filepath.Join(tempDir(t), "none"), dir: tempDir(t), cmd: d.cmd}
	if out, err := nobody.attach("--all"); err == nil || !strings.Contains(err.Error(), "no lensfs serves") {
		t.Errorf("%v %s", err, out)
	}
	d.onHostOnce()
}

// What is put on a mount that is shared with the host would be on the host's /proc: a container may be made like that by mistake. The host is here a mount
// namespace of the test's.
func TestAttachNotOnTheHost(t *testing.T) {
	needRoot(t)
	d := serve(t)
	group := newGroup(t, memoryLimit(200<<20))
	script := fmt.Sprintf(`set -e
mount --make-rshared /
for propagation in unchanged slave; do
	unshare --pid --fork --mount --propagation $propagation sleep 600 &
	outer=$!
	pid=
	while [ -z "$pid" ]; do read -r pid </proc/$outer/task/$outer/children || sleep 0.05; done
	sleep 0.2
	%s attach --tree %s --runtime-dir %s $pid || :
	echo "$propagation: $(grep -c ' /proc/.*fuse.lxcfs' /proc/$pid/mountinfo) here, $(grep -c ' /proc/.*fuse.lxcfs' /proc/self/mountinfo) on the host"
	kill -9 $pid
done 2>&1`, binary, d.tree, d.dir)
	out := tool(t, joining(processesOf(group), "unshare", "--mount", "sh", "-c", script))
	if !strings.Contains(out, "the mount on /proc is shared with the host") || !strings.Contains(out, "unchanged: 0 here, 0 on the host") {
		t.Errorf("shared with the host: %s", out)
	}
	if strings.Contains(out, "slave: 0 here") || !strings.Contains(out, "here, 0 on the host") || strings.Count(out, "0 on the host") != 2 {
		t.Errorf("not shared: %s", out)
	}
	d.onHostOnce()
}

func init() { roles["restless"] = restless }

// restless changes the mounts of the container it is in, as fast as it can, for a number of seconds: others' views come and go, and so does all of /proc.
func restless(args []string) error {
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	const cpus = "/sys/devices/system/cpu"
	for deadline := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(deadline); {
		// Each may fail: it is about being in the way.
		unix.Mount("/lxcfs/proc/meminfo", "/proc/meminfo", "", unix.MS_BIND, "")
		unix.Mount("/lxcfs"+cpus, cpus, "", unix.MS_BIND, "")
		time.Sleep(time.Millisecond) // so that there is always somebody in the middle of it
		unix.Mount("x", "/proc", "tmpfs", 0, "")
		unix.Unmount("/proc", unix.MNT_DETACH)
		unix.Mount("/proc", "/swap", "", unix.MS_MOVE, "")
		unix.Mount("/swap", "/proc", "", unix.MS_MOVE, "")
		for _, path := range []string{"/proc/uptime", "/proc/stat", "/proc/meminfo", cpus} {
			for unix.Unmount(path, unix.MNT_DETACH) == nil {
			}
		}
	}
	return nil
}

// A container that changes its mounts all the time gets its views or not, but hinders nobody, and nothing gets out of it.
func TestAttachRace(t *testing.T) {
	needRoot(t)
	needCommand(t, "lxcfs")
	d := serve(t)
	lxcfs, _ := startLXCFSProcess(t, "lxcfs")
	role := asRole("restless", strconv.Itoa(rounds(5, 20)))
	self := role[2]
	role[2] = "/self"
	b := newBare(t, newGroup(t, memoryLimit(200<<20)), fmt.Sprintf("mkdir lxcfs swap; mount --bind %s lxcfs; : >self; mount --bind %s self", lxcfs, self))
	ended := make(chan error, 1)
	go func() {
		cmd := b.command(role...)
		_, err := commandFor(2*time.Minute, cmd[0], cmd[1:]...)
		ended <- err
	}()
	said := map[string]int{}
	for over := false; !over; {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			over = true
		default:
		}
		begin := time.Now()
		out, err := d.attach(strconv.Itoa(b.init))
		if took := time.Since(begin); took > patience(15*time.Second) {
			t.Errorf("it took %v", took)
		}
		if strings.Contains(out, "did not answer") || strings.Contains(fmt.Sprint(out, err), "panic") {
			t.Errorf("%v %s", err, out)
		}
		said[attachWords(out, b.init)]++
	}
	for words, times := range said {
		t.Log(times, words)
	}
	if len(said) < 3 {
		t.Error("nothing has been in its way")
	}
	d.onHostOnce()
	noneLeft(t)
	// In peace it gets them.
	d.attached(b.init)
	if got := b.memory(); got != strconv.Itoa(200<<10) {
		t.Errorf("it sees %s kB", got)
	}
	d.servesAll(b.init)
}
