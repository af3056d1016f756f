package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serveCommandLine is a daemon's, on the same tree and views as d's but for what differs.
func serveCommandLine(tree, views, runtimeDir string, flags ...string) *exec.Cmd {
	return exec.Command(binary, append([]string{"serve", "--tree", tree, "--views", views, "--runtime-dir", runtimeDir}, flags...)...)
}

// unharmed checks that a daemon goes on as before: its pidfile, its mounts, its answers.
func (d *daemon) unharmed() {
	d.t.Helper()
	if text, err := os.ReadFile(filepath.Join(d.dir, "pid")); err != nil || string(text) != fmt.Sprintln(d.cmd.Process.Pid) {
		d.t.Errorf("the pidfile of process %d: %q, %v", d.cmd.Process.Pid, text, err)
	}
	for _, dir := range []string{d.tree, d.views} {
		if n := len(mountsOn(d.t, dir)); n != 1 {
			d.t.Errorf("%d mounts on %s", n, dir)
		}
	}
	d.alive()
	if out := d.run([]string{"--memory", "300M"}, "grep", "MemTotal", "/proc/meminfo"); strings.Fields(out)[1] != "307200" {
		d.t.Errorf("own view: %q", out)
	}
}

// serveWithPidfile is serve with the pidfile that unharmed looks at.
func serveWithPidfile(t *testing.T) *daemon {
	t.Helper()
	dir := tempDir(t)
	return serveAt(t, filepath.Join(dir, "tree"), dir, "--pidfile", filepath.Join(dir, "pid"))
}

// Whoever comes second is refused, told why, and leaves the first alone.
func TestSecondDaemonIsRefused(t *testing.T) {
	needRoot(t)
	d := serveWithPidfile(t)
	pid := fmt.Sprint("process ", d.cmd.Process.Pid)
	other := tempDir(t)
	for _, c := range []struct {
		name string
		cmd  *exec.Cmd
		want string
	}{
		{"same everything", serveCommandLine(d.tree, d.views, d.dir), pid},
		{"same, with a slash", serveCommandLine(d.tree+"/", d.views+"//", d.dir), pid},
		{"same tree", serveCommandLine(d.tree, other+"/views", d.dir), pid},
		{"same views", serveCommandLine(other+"/tree", d.views, d.dir), pid},
		{"tree on the views", serveCommandLine(d.views, other+"/views", d.dir), pid},
		{"same pidfile", serveCommandLine(other+"/tree", other+"/views", other, "--pidfile", d.dir+"/pid"), fmt.Sprintf("process \"%d\"", d.cmd.Process.Pid)},
		// They do not know of each other, as LXCFS and lensfs would not.
		{"foreign tree", serveCommandLine(d.tree, other+"/views", other), "mounted there already"},
		{"foreign views", serveCommandLine(other+"/tree", d.views, other), "mounted there already"},
	} {
		got := finish(t, c.cmd)
		if got.status != 1 || !strings.Contains(got.errs, c.want) || strings.Contains(got.errs, "goroutine") {
			t.Errorf("%s: status %d, %s\nnot a refusal that says %q", c.name, got.status, got.errs, c.want)
		}
		d.unharmed()
	}
	for _, dir := range []string{other + "/tree", other + "/views"} {
		if n := len(mountsOn(t, dir)); n != 0 {
			t.Errorf("the refused have left %d mounts on %s", n, dir)
		}
	}
	if left, _ := filepath.Glob(other + "/*/*"); len(left) > 0 {
		t.Errorf("the refused have left %v", left)
	}
}

// A daemon that does not answer is not taken for a dead one, and waited for no longer than some seconds.
func TestHungDaemonIsNotReplaced(t *testing.T) {
	needRoot(t)
	d := serveWithPidfile(t)
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	other := tempDir(t)
	for _, cmd := range []*exec.Cmd{serveCommandLine(d.tree, d.views, d.dir), serveCommandLine(d.tree, other+"/views", other)} {
		begin := time.Now()
		got := finish(t, cmd)
		if took := time.Since(begin); got.status != 1 || took > patience(10*time.Second) {
			t.Errorf("%v: after %v: %+v", cmd.Args, took, got)
		}
	}
	if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	d.unharmed()
}

// What a killed daemon has left is cleared away by the next.
func TestDeadMountIsReplaced(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	for range 3 {
		d := serveAt(t, filepath.Join(dir, "tree"), dir, "--pidfile", filepath.Join(dir, "pid"))
		d.unharmed()
		d.kill()
		if mountedOn(t, d.tree) == "" || mountedOn(t, d.views) == "" {
			t.Fatal("a killed daemon leaves no mounts: this test tests nothing")
		}
	}
	serveAt(t, filepath.Join(dir, "tree"), dir, "--pidfile", filepath.Join(dir, "pid")).unharmed()
}

// The directory may be a mount of its own, a tmpfs or a disk: that is beneath, and stays, also when a killed daemon's mount is taken off it.
func TestMountsOverAnother(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", tree, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(tree, unix.MNT_DETACH)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL, unix.SIGTERM} {
		d := serveAt(t, tree, dir)
		if mounts := mountsOn(t, tree); len(mounts) != 2 || mounts[0].FSType != "tmpfs" {
			t.Fatalf("%d mounts, the first is a %s", len(mounts), mounts[0].FSType)
		}
		d.alive()
		if sig == unix.SIGKILL {
			d.kill()
			continue
		}
		d.cmd.Process.Signal(sig)
		if err := d.wait(10 * time.Second); err != nil {
			t.Errorf("%v\n%s", err, d.log)
		}
	}
	if mounts := mountsOn(t, tree); len(mounts) != 1 || mounts[0].FSType != "tmpfs" {
		t.Errorf("%d mounts are left", len(mounts))
	}
}

// As long as no container uses the views; else see TestStop.
func TestSignalsEndTheDaemon(t *testing.T) {
	needRoot(t)
	for _, s := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		d := serveWithPidfile(t)
		d.unharmed()
		if err := d.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if err := d.wait(10 * time.Second); err != nil {
			t.Errorf("%v: %v\n%s", s, err, d.log)
		}
		for _, dir := range []string{d.tree, d.views} {
			if n := len(mountsOn(t, dir)); n != 0 {
				t.Errorf("%v: %d mounts left on %s", s, n, dir)
			}
			if text, err := os.ReadDir(dir); err != nil || len(text) != 0 {
				t.Errorf("%v: left in %s: %v, %v", s, dir, text, err)
			}
		}
		if _, err := os.Lstat(filepath.Join(d.dir, "pid")); !os.IsNotExist(err) {
			t.Errorf("%v: the pidfile is left: %v", s, err)
		}
		left, _ := filepath.Glob(filepath.Join(d.dir, "lensfs.state", "*"))
		for _, file := range left {
			if !strings.HasSuffix(file, ".kept") { // what the container was shown, for the next daemon
				t.Errorf("%v: %s is left", s, file)
			}
		}
	}
}

// Somebody who unmounts the tree ends the daemon, which says so.
func TestUnmountEndsTheDaemon(t *testing.T) {
	needRoot(t)
	d := serveWithPidfile(t)
	d.killed = true
	if err := unix.Unmount(d.tree, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.wait(10 * time.Second); err == nil || !strings.Contains(d.log.String(), "somebody unmounted") {
		t.Errorf("it ended with %v\n%s", err, d.log)
	}
	if n := len(mountsOn(t, d.views)); n != 0 {
		t.Errorf("%d mounts left on %s", n, d.views)
	}
}

func TestNotifiesSystemd(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	socket := filepath.Join(dir, "notify")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cmd := serveCommandLine(filepath.Join(dir, "tree"), viewsIn(dir), dir)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	d := startDaemon(t, filepath.Join(dir, "tree"), dir, cmd)
	if err := listener.SetReadDeadline(time.Now().Add(patience(10 * time.Second))); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 1024); ; {
		n, err := listener.Read(buf)
		if err != nil {
			t.Fatalf("it does not say that it is ready: %v", err)
		}
		if bytes.Contains(buf[:n], []byte("READY=1")) {
			break
		}
	}
	d.alive() // it was true
}

func TestMountsAreCalledLxcfs(t *testing.T) {
	needRoot(t)
	d := serve(t)
	text, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[1] != d.tree && f[1] != d.views {
			continue
		}
		found++
		if f[0] != "lxcfs" || f[2] != "fuse.lxcfs" || !strings.HasPrefix(f[3], "ro,nosuid,nodev") || !strings.Contains(f[3], "allow_other") {
			t.Errorf("mounted as %s", line)
		}
	}
	if found != 2 {
		t.Errorf("%d mounts", found)
	}
}

func TestServeWithoutOwnViews(t *testing.T) {
	needRoot(t)
	d := serve(t, "--views", "")
	if n := len(mountsOn(t, d.views)); n != 0 {
		t.Errorf("%d mounts on %s", n, d.views)
	}
	if out := d.run([]string{"--tree", d.tree, "--memory", "300M"}, "grep", "MemTotal", "/proc/meminfo"); strings.Fields(out)[1] != "307200" {
		t.Errorf("it shows %q", out)
	}
}

func TestServeRefuses(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tree, views := filepath.Join(dir, "tree"), filepath.Join(dir, "views")
	nobody := serveCommandLine(tree, views, dir)
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	for _, c := range []struct {
		name string
		cmd  *exec.Cmd
		want []string
	}{
		{"not root", nobody, []string{"only root", "sudo"}},
		{"quota", serveCommandLine(tree, views, dir, "--cpu-quota", "most"), []string{"--cpu-quota", `"most"`, "min, ignore, first"}},
		{"tree is a file", serveCommandLine(file, views, dir), []string{file, "not a directory"}},
		{"views are a file", serveCommandLine(tree, file, dir), []string{file, "not a directory"}},
		{"runtime directory is a file", serveCommandLine(tree, views, file), []string{file, "not a directory"}},
		{"pidfile nowhere", serveCommandLine(tree, views, dir, "--pidfile", dir+"/no/where"), []string{dir + "/no/where"}},
		{"argument", serveCommandLine(tree, views, dir, "/somewhere"), []string{"/somewhere"}},
		{"flag", serveCommandLine(tree, views, dir, "--trees"), []string{"--trees"}},
	} {
		got := finish(t, c.cmd)
		for _, want := range c.want {
			if !strings.Contains(got.errs, want) {
				t.Errorf("%s: it does not say %q but %q", c.name, want, got.errs)
			}
		}
		if got.status != 1 || got.out != "" || strings.Contains(got.errs, "goroutine") {
			t.Errorf("%s: status %d: %s", c.name, got.status, got.errs)
		}
	}
	for _, dir := range []string{tree, views} {
		if n := len(mountsOn(t, dir)); n != 0 {
			t.Errorf("%d mounts left on %s", n, dir)
		}
	}
}
