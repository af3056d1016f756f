package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// lxcfsLink makes the name under which LXCFS's command line is understood.
func lxcfsLink(t *testing.T) string {
	t.Helper()
	link := filepath.Join(tempDir(t), "lxcfs")
	if err := os.Symlink(binary, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// lxcfs starts a daemon with LXCFS's command line, to which directories of its own are added. In the options, DIR is its runtime directory.
func lxcfs(t *testing.T, options ...string) *daemon {
	t.Helper()
	dir := tempDir(t)
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil { // as packages of LXCFS ship it
		t.Fatal(err)
	}
	args := []string{"--runtime-dir", dir}
	for _, o := range options {
		args = append(args, strings.ReplaceAll(o, "DIR", dir))
	}
	d := startDaemon(t, tree, dir, exec.Command(lxcfsLink(t), append(args, tree)...))
	d.warnings = true // checked by the tests
	return d
}

// Every option of LXCFS's is taken; one that means nothing here is named in a warning, and no other.
func TestLxcfsOptions(t *testing.T) {
	needRoot(t)
	const pidfile = "lxcfs.pid" // LXCFS's own
	for _, c := range []struct {
		options []string
		warns   []string
		pidfile string
	}{
		{nil, nil, pidfile},
		{[]string{"-f"}, nil, pidfile},
		{[]string{"--foreground"}, nil, pidfile},
		{[]string{"-l"}, nil, pidfile},
		{[]string{"--enable-loadavg"}, nil, pidfile},
		{[]string{"-s"}, []string{"single-threaded"}, pidfile},
		{[]string{"-o", "allow_other,nonempty"}, []string{"options"}, pidfile},
		{[]string{"-oallow_other"}, []string{"options"}, pidfile},
		{[]string{"-u"}, nil, pidfile},
		{[]string{"--disable-swap"}, nil, pidfile},
		{[]string{"--disable-zswap"}, nil, pidfile},
		{[]string{"--enable-cfs"}, nil, pidfile},
		{[]string{"--enable-pidfd"}, []string{"enable-pidfd"}, pidfile},
		{[]string{"--enable-cgroup"}, nil, pidfile},
		{[]string{"--enable-psi-poll"}, []string{"enable-psi-poll"}, pidfile},
		{[]string{"-p", "DIR/other"}, nil, "other"},
		{[]string{"-pDIR/other"}, nil, "other"},
		{[]string{"--pidfile", "DIR/other"}, nil, "other"},
		{[]string{"--pidfile=DIR/other"}, nil, "other"},
		{[]string{"-fl"}, nil, pidfile},
		{[]string{"-sfu"}, []string{"single-threaded"}, pidfile},
		{[]string{"-flpDIR/other"}, nil, "other"},
		{[]string{"-f", "-l", "-s", "-u", "-o", "x", "--enable-cfs", "--enable-pidfd", "--enable-cgroup", "--enable-psi-poll", "--disable-zswap", "-p", "DIR/other"},
			[]string{"single-threaded", "options", "enable-pidfd", "enable-psi-poll"}, "other"},
	} {
		d := lxcfs(t, c.options...)
		if n := strings.Count(d.log.String(), "WARN"); n != len(c.warns) {
			t.Errorf("%v: %d warnings, not %d:\n%s", c.options, n, len(c.warns), d.log)
		}
		for _, w := range c.warns {
			if !strings.Contains(d.log.String(), "--"+w+" has no meaning here: ") {
				t.Errorf("%v: no warning of %s:\n%s", c.options, w, d.log)
			}
		}
		if text, err := os.ReadFile(filepath.Join(d.dir, c.pidfile)); string(text) != fmt.Sprintln(d.cmd.Process.Pid) {
			t.Errorf("%v: pidfile: %q, %v", c.options, text, err)
		}
		d.alive()
		d.stop()
		if _, err := os.Lstat(filepath.Join(d.dir, c.pidfile)); !os.IsNotExist(err) {
			t.Errorf("%v: the pidfile is left: %v", c.options, err)
		}
	}
}

// getopt_long takes options after the directory too.
func TestLxcfsOptionsAfterTheDirectory(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	d := startDaemon(t, dir+"/tree", dir, exec.Command(lxcfsLink(t), dir+"/tree", "-f", "--runtime-dir", dir, "-p", dir+"/pid"))
	d.unharmed()
}

func TestLxcfsDebug(t *testing.T) {
	needRoot(t)
	d := lxcfs(t, "-d")
	d.alive()
	if !strings.Contains(d.log.String(), "op=READ ") {
		t.Errorf("no request in the log:\n%s", d.log)
	}
}

func TestLxcfsSaysAndRefuses(t *testing.T) {
	needRoot(t)
	link := lxcfsLink(t)
	dir := tempDir(t)
	for _, c := range []struct {
		args   []string
		status int
		want   string // in what it writes
	}{
		{[]string{"-v"}, 0, "lensfs"},
		{[]string{"--version"}, 0, "lensfs"},
		{[]string{"-h"}, 0, "--enable-cfs"},
		{[]string{"--help"}, 0, "--enable-cfs"},
		{nil, 1, "1 arg"},
		{[]string{dir + "/a", dir + "/b"}, 1, "1 arg"},
		{[]string{"--enable-flight", dir + "/a"}, 1, "--enable-flight"},
	} {
		got := finish(t, exec.Command(link, append([]string{"--runtime-dir", dir}, c.args...)...))
		if got.status != c.status || !strings.Contains(got.out+got.errs, c.want) {
			t.Errorf("%v: not status %d and %q but %+v", c.args, c.status, c.want, got)
		}
	}
}

// A quota limits the CPUs shown with --enable-cfs alone.
func TestLxcfsQuota(t *testing.T) {
	needRoot(t)
	host := hostCPUs(t)
	if len(host) < 2 {
		skip(t, "needs two CPUs")
	}
	for _, c := range []struct {
		options []string
		want    []int
	}{{nil, host}, {[]string{"--enable-cfs"}, host[:1]}} {
		d := lxcfs(t, c.options...)
		for _, views := range [][]string{nil, {"--tree", d.tree}} {
			out := d.run(append(views, "--cpus", "0.5"), "cat", "/sys/devices/system/cpu/online")
			if got, err := parseList(strings.TrimSpace(out)); list(got) != list(c.want) {
				t.Errorf("%v: CPUs %q, not %v: %v", c.options, out, c.want, err)
			}
		}
	}
}

func TestLxcfsSwap(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		options []string
		want    uint64
	}{{nil, hostSwap(t)}, {[]string{"-u"}, 0}, {[]string{"--disable-swap"}, 0}} {
		d := lxcfs(t, c.options...)
		for _, limit := range [][]string{{"--memory", "300M"}, nil} {
			m, err := parseMeminfo(d.run(limit, "cat", "/proc/meminfo"))
			if err != nil || m["SwapTotal"] != c.want || m["SwapFree"] > c.want {
				t.Errorf("%v %v: SwapTotal %d, SwapFree %d, not %d: %v", c.options, limit, m["SwapTotal"], m["SwapFree"], c.want, err)
			}
		}
	}
}

// LXCFS lets several instances share a runtime directory when their pidfiles differ. The second has no own views, and says so.
func TestLxcfsTwice(t *testing.T) {
	needRoot(t)
	first := lxcfs(t, "-p", "DIR/pid")
	other := tempDir(t)
	second := startDaemon(t, other+"/tree", other, exec.Command(lxcfsLink(t), "--runtime-dir", first.dir, "-p", other+"/pid", other+"/tree"))
	second.warnings = true
	if !strings.Contains(second.log.String(), "no own views") || len(mountsOn(t, second.tree)) != 1 {
		t.Errorf("the second has %v, and says\n%s", mountsOn(t, second.tree), second.log)
	}
	if out := first.run([]string{"--tree", second.tree, "--memory", "300M"}, "grep", "MemTotal", "/proc/meminfo"); strings.Fields(out)[1] != "307200" {
		t.Errorf("the second shows %q", out)
	}
	first.unharmed()
	second.stop()
	first.unharmed()
	if got := finish(t, exec.Command(lxcfsLink(t), "--runtime-dir", first.dir, "-p", first.dir+"/pid", other+"/tree")); got.status != 1 || !strings.Contains(got.errs, fmt.Sprint(first.cmd.Process.Pid)) {
		t.Errorf("with the same pidfile: %+v", got)
	}
	first.unharmed()
}
