package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
)

// host is a machine on which our package and Debian's lxcfs are installed and removed, as an operator does it.
type host struct {
	t *testing.T
	d *daemon // what the package's service is

	saved  string // lxcfs and dpkg's knowledge of it, before
	masked bool   // its service was
}

const (
	lxcfsUnit  = "lxcfs.service"
	lensfsUnit = "lensfs.service"
)

// lxcfsHost starts the LXCFS that is installed. What is done to it and to its package is undone with the test.
func lxcfsHost(t *testing.T) *host {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("needs a machine with systemd: the virtual one") // runs there in CI
	}
	lockLXC(t)
	h := &host{t: t, d: &daemon{t: t, tree: lxcTree, views: "/run/lensfs", dir: "/run", cmd: exec.Command(binary)}}
	h.saved = filepath.Join(tempDir(t), "lxcfs.tar")
	files := strings.Fields(command(t, "sh", "-c", `for f in $(dpkg -L lxcfs); do [ -d "$f" ] || [ ! -e "$f" ] || echo "${f#/}"; done`))
	command(t, "tar", append([]string{"-C", "/", "-cf", h.saved, "var/lib/dpkg"}, files...)...)
	const mask = "/etc/systemd/system/" + lxcfsUnit // the machine's own services are not to start
	h.masked = os.Remove(mask) == nil
	t.Cleanup(func() {
		tryCommand(binary, "stop", "--force")
		tryCommand("dpkg", "--purge", "--force-depends", "lensfs")
		tryCommand("systemctl", "kill", "-s", "KILL", lxcfsUnit)
		tryCommand("systemctl", "stop", lxcfsUnit)
		for mountedOn(t, lxcTree) != "" {
			command(t, "umount", "-l", lxcTree)
		}
		if h.masked {
			os.Symlink("/dev/null", mask)
		}
		h.restore()
	})
	command(t, "systemctl", "daemon-reload")
	h.startLXCFS()
	return h
}

// restore installs lxcfs again, as it was: the virtual machine has no package of it.
func (h *host) restore() {
	h.t.Helper()
	command(h.t, "tar", "-C", "/", "-xf", h.saved)
	command(h.t, "systemctl", "daemon-reload")
}

// startLXCFS starts it and waits for its mount: what lensfs has left for a container may be beneath.
func (h *host) startLXCFS() {
	h.t.Helper()
	before := device(h.t, os.Getpid(), lxcTree)
	command(h.t, "systemctl", "start", lxcfsUnit)
	poll(h.t, time.Minute, "LXCFS serves", func() bool {
		_, err := os.Stat(lxcTree + "/proc/meminfo")
		return err == nil && device(h.t, os.Getpid(), lxcTree) != before
	})
}

// container starts one as LXC's own configuration has it: with the hook of the package that is installed.
func (h *host) container(kb int64) *lxcContainer {
	h.t.Helper()
	c := newLXC(h.t, nil, lxcOptions{privileged: true, memory: kb << 10})
	c.views = h.d.views
	c.start()
	if o := c.byInit(); o.MemTotal != kb<<10 {
		h.t.Fatalf("a container of %d kB sees %d: %q", kb, o.MemTotal>>10, o.Mounts)
	}
	return c
}

func (h *host) mainPid(unit string) int {
	h.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(command(h.t, "systemctl", "show", "--value", "-p", "MainPID", unit)))
	if err != nil {
		h.t.Fatal(err)
	}
	return pid
}

func (h *host) active(units ...string) {
	h.t.Helper()
	for _, unit := range units {
		if out, err := tryCommand("systemctl", "is-active", unit); err != nil {
			log, _ := tryCommand("journalctl", "--no-pager", "-n", "50", "-u", unit)
			h.t.Fatalf("%s is %s\n%s", unit, out, log)
		}
	}
}

// device gives what is mounted on dir in the mount namespace of a process.
func device(t *testing.T, pid int, dir string) string {
	t.Helper()
	mounts, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mounts.Close()
	found, err := mountinfo.GetMountsFromReader(mounts, onlyOn(dir))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		return ""
	}
	top := found[len(found)-1]
	return fmt.Sprintf("%d:%d", top.Major, top.Minor)
}

// comesFrom checks which file system a container's meminfo is of.
func (h *host) comesFrom(c *lxcContainer, want string) {
	h.t.Helper()
	init, err := strconv.Atoi(strings.TrimSpace(c.command("lxc-info", "-P", c.dir, "-n", c.name, "-p", "-H")))
	if err != nil {
		h.t.Fatal(err)
	}
	if got := device(h.t, init, "/proc/meminfo"); got != want || want == "" {
		h.t.Errorf("the container's meminfo is of %q, not of %q", got, want)
	}
}

// lxcReader reads in a container for as long as the test has it do that.
type lxcReader struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

// readMeminfo is what runs in the container: it opens the file anew each time.
const readMeminfo = `
import json, sys, threading, time
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("reading", flush=True)
n, failed = 0, []
while not ended.is_set():
    n += 1
    try:
        with open("/proc/meminfo") as f:
            text = f.read()
        if text.split()[1] != sys.argv[1]:
            failed.append(text[:60])
    except OSError as e:
        failed.append(str(e))
    time.sleep(0.05)
print(json.dumps({"reads": n, "failed": failed[:5]}), flush=True)
`

func (h *host) reader(c *lxcContainer, kb int64) *lxcReader {
	h.t.Helper()
	cmd := exec.Command("lxc-attach", "-P", c.dir, "-n", c.name, "--clear-env", "--", "/usr/bin/python3", "-c", readMeminfo, fmt.Sprint(kb))
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Kill() })
	r := &lxcReader{h.t, cmd, in, bufio.NewReader(out)}
	if line, err := r.out.ReadString('\n'); err != nil || line != "reading\n" {
		h.t.Fatalf("the reader says %q, %v", line, err)
	}
	return r
}

// end checks that none failed until now.
func (r *lxcReader) end(while string) {
	r.t.Helper()
	r.in.Close()
	line, err := r.out.ReadString('\n')
	if err != nil {
		r.t.Fatalf("the reader: %v %v", err, r.cmd.Wait())
	}
	r.cmd.Wait()
	var seen struct {
		Reads  int
		Failed []string
	}
	if err := json.Unmarshal([]byte(line), &seen); err != nil {
		r.t.Fatalf("%v: %q", err, line)
	}
	if len(seen.Failed) > 0 || seen.Reads < 20 {
		r.t.Errorf("%s: of %d reads failed %q", while, seen.Reads, seen.Failed)
	}
	r.t.Logf("%s: %d reads, none failed", while, seen.Reads)
}

// version is that of the worker that serves.
func (h *host) version() string {
	h.t.Helper()
	var s struct{ Worker struct{ Version string } }
	if err := json.Unmarshal([]byte(command(h.t, "/usr/bin/lensfs", "status", "--json")), &s); err != nil {
		h.t.Fatal(err)
	}
	return s.Worker.Version
}
