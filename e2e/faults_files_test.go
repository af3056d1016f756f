package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// LXCFS issue 299: a second one started by mistake harms the first; it takes the pidfile away, and mounts over it.
func TestFaultSecondInstance(t *testing.T) {
	needRoot(t)
	dir, other := tempDir(t), tempDir(t)
	tree, pidfile := filepath.Join(dir, "tree"), filepath.Join(dir, "pid")
	lxcfs := filepath.Join(dir, "lxcfs")
	if err := os.Symlink(binary, lxcfs); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, tree, dir, exec.Command(lxcfs, "-f", "-p", pidfile, "--runtime-dir", dir, tree))
	for _, second := range [][]string{
		{"-f", "-p", pidfile, "--runtime-dir", dir, tree},
		{"-f", "-p", pidfile, "--runtime-dir", dir, other + "/tree"},
		{"-f", "-p", pidfile, "--runtime-dir", other, tree},
		{"-f", "-p", other + "/pid", "--runtime-dir", dir, tree},
		{"-f", "-p", other + "/pid", "--runtime-dir", other, tree},
	} {
		if out, err := tryCommand(lxcfs, second...); err == nil || !strings.Contains(err.Error(), "another directory") && !strings.Contains(err.Error(), "another --pidfile") {
			t.Errorf("lxcfs %v: %q, %v", second, out, err)
		}
		if got, err := os.ReadFile(pidfile); string(got) != fmt.Sprintln(d.cmd.Process.Pid) {
			t.Errorf("after lxcfs %v the pidfile has %q, %v", second, got, err)
		}
		if n := len(mountsOn(t, tree)); n != 1 {
			t.Errorf("after lxcfs %v there are %d mounts on %s", second, n, tree)
		}
		if mountedOn(t, other+"/tree") != "" {
			t.Errorf("lxcfs %v left a mount", second)
		}
		d.alive()
	}
	// Two that are meant to be there live side by side, and end alone.
	beside := startDaemon(t, other+"/tree", other, exec.Command(lxcfs, "-f", "-p", other+"/pid", "--runtime-dir", dir, other+"/tree"))
	beside.warnings = true // it has no own views: those in dir are the first one's
	beside.alive()
	beside.stop()
	d.alive()
	for _, root := range []string{"", tree} {
		if m := meminfo(t, d.run([]string{"--memory", "128M"}, "cat", root+"/proc/meminfo")); m["MemTotal"] != 128<<10 {
			t.Errorf("the first one shows %d", m["MemTotal"])
		}
	}
	d.stop()
	if _, err := os.Stat(pidfile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the first one left its pidfile: %v", err)
	}
}

// LXCFS refuses to mount where one that was killed has left its mount: "Transport endpoint is not connected".
func TestFaultDeadMountpoint(t *testing.T) {
	needRoot(t)
	d := serve(t)
	d.kill()
	if out, err := tryCommand("cat", d.tree+"/proc/uptime"); err == nil {
		t.Fatalf("killed, it answers: %q", out)
	}
	again := serveAt(t, d.tree, d.dir)
	again.alive()
	if n := len(mountsOn(t, d.tree)); n != 1 {
		t.Errorf("%d mounts on one directory: the dead one is still there", n)
	}
	if m := meminfo(t, again.run([]string{"--memory", "128M"}, "cat", "/proc/meminfo")); m["MemTotal"] != 128<<10 {
		t.Errorf("the new one shows %d", m["MemTotal"])
	}
}

// LXCFS reads everything as root for everybody: uid 1000 gets the host's slabinfo, and crash_notes.
func TestFaultRootsFiles(t *testing.T) {
	needRoot(t)
	d := serve(t)
	const cpus = "/sys/devices/system/cpu"
	paths := []string{d.tree + "/proc/slabinfo"}
	err := filepath.WalkDir(cpus, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := e.Info(); err == nil && e.Type().IsRegular() && info.Mode()&0o004 == 0 {
			paths = append(paths, d.tree+path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths[1:] {
		if _, err := tryCommand("stat", path); err == nil || !strings.Contains(err.Error(), "No such file") {
			t.Errorf("root alone may read %s on the host, and it is served: %v", path, err)
		}
	}
	for line := range strings.Lines(d.run([]string{"--memory", "128M"}, asRole("readAll", append([]string{"1000"}, paths...)...)...)) {
		path, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		// The header of slabinfo may be shown.
		if text, err := strconv.Unquote(text); err != nil || !strings.HasSuffix(path, "slabinfo") || strings.Count(text, "\n") > 2 || strings.Contains(text, "kmalloc") {
			t.Errorf("uid 1000 read %s: %q", path, text)
		}
	}
}

// readAll becomes another user, and prints what it can read of the files.
func readAll(args []string) error {
	if err := become(args[0]); err != nil {
		return err
	}
	for _, path := range args[1:] {
		if text, err := os.ReadFile(path); err == nil {
			fmt.Printf("%s\t%q\n", path, text)
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func become(uid string) error {
	id, err := strconv.Atoi(uid)
	if err != nil || id == 0 {
		return err
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id))
}

// LXCFS answers EINVAL past the end, and nothing at all when the first read of a descriptor is not at 0.
func TestFaultOffsets(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, root := range []string{"/", d.tree} {
		d.run([]string{"--memory", "128M"}, asRole("afterStart", root)...)
	}
	d.alive()
}

func afterStart(args []string) error {
	for _, name := range []string{"proc/meminfo", "proc/cpuinfo", "proc/uptime"} {
		f, err := os.Open(filepath.Join(args[0], name))
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, 1<<20)
		n, err := unix.Pread(int(f.Fd()), buf, 5)
		if err != nil || n <= 0 {
			return fmt.Errorf("%s: the first read, at 5: %d bytes, %v", name, n, err)
		}
		// A text that grows meanwhile does so by a few digits.
		for _, at := range []int64{int64(n) + 50, 1 << 20, 1 << 40} {
			if got, err := unix.Pread(int(f.Fd()), buf, at); got != 0 || err != nil {
				return fmt.Errorf("%s: of %d bytes, at %d: %d bytes, %v", name, n+5, at, got, err)
			}
		}
	}
	return nil
}

// LXCFS lets everybody open everything for writing; a trigger written by uid 1000 and closed without a poll ends it, for all containers.
func TestFaultOpenToWrite(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, uid := range []string{"0", "1000"} {
		for _, root := range []string{"", d.tree} {
			files := strings.Fields(command(t, "find", d.tree, "-type", "f", "-printf", root+"/%P\n"))
			files = append(files, d.tree+"/proc/pressure/cpu", d.tree+"/proc/pressure/memory")
			d.run([]string{"--memory", "128M"}, asRole("openToWrite", append([]string{uid}, files...)...)...)
		}
	}
	d.alive()
}

func openToWrite(args []string) error {
	if err := become(args[0]); err != nil {
		return err
	}
	for _, path := range args[1:] {
		for _, flags := range []int{unix.O_RDWR, unix.O_WRONLY, unix.O_WRONLY | unix.O_TRUNC, unix.O_RDONLY | unix.O_TRUNC, unix.O_RDWR | unix.O_APPEND} {
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
			if err == nil {
				_, err := unix.Write(fd, []byte("some 150000 2000000"))
				unix.Close(fd)
				return fmt.Errorf("uid %s opened %s with flags %#x, and wrote: %v", args[0], path, flags, err)
			}
			if err != unix.EROFS && err != unix.EACCES && err != unix.ENOENT {
				return fmt.Errorf("uid %s, %s, flags %#x: %w", args[0], path, flags, err)
			}
		}
	}
	return nil
}

// LXCFS issues 608, 636, PR 637: every file is EACCES, or empty, to all where the daemon may not look into other processes (Yama, a container
// without CAP_SYS_PTRACE). lensfs could only show everybody the host, so it does not start, and says what it wants.
func TestFaultWithoutPtrace(t *testing.T) {
	needRoot(t)
	needCommand(t, "setpriv")
	dir := tempDir(t)
	out, err := tryCommand("setpriv", "--bounding-set", "-sys_ptrace", binary, "serve", "--tree", filepath.Join(dir, "tree"), "--views", viewsIn(dir), "--runtime-dir", dir)
	if err == nil || !strings.Contains(err.Error(), "CAP_SYS_PTRACE") {
		t.Errorf("%q, %v", out, err)
	}
}
