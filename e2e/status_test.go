package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// statusReport is what these tests look at of "lensfs status --json".
type statusReport struct {
	Keeper struct{ Pid int }
	Worker struct{ Pid, Restarts int }
	Mounts []struct{ Dir, Kind string }
	Serves struct {
		Files []struct {
			File           string
			Reads          uint64
			GetAttrs       uint64
			GetAttrLatency struct {
				Timed uint64
				P50   int64 `json:"p50_ns"`
				Max   int64 `json:"max_ns"`
			} `json:"getattr_latency"`
		}
		Containers []struct {
			Name     string
			Init     int
			Number   uint64
			Alive    bool
			Limit    uint64   `json:"memory_limit_bytes"`
			Memory   uint64   `json:"memory_bytes"`
			CPUCount int      `json:"cpu_count"`
			Quota    *float64 `json:"quota_cpus"`
			CPU      float64  `json:"cpu_seconds"`
			Requests uint64
		}
		LeftOut *int `json:"containers_left_out"`
	}
}

func (d *daemon) status() (r statusReport) {
	d.t.Helper()
	text := command(d.t, binary, "status", "--json", "--views", d.views)
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		d.t.Fatalf("%v: %s", err, text)
	}
	return r
}

// meminfo gives how often meminfo was read, and asked for its size.
func (r statusReport) meminfo() (reads, getattrs uint64) {
	for _, f := range r.Serves.Files {
		if f.File == "proc/meminfo" {
			return f.Reads, f.GetAttrs
		}
	}
	return 0, 0
}

// reader is a container with a limit that reads its memory all the time.
func (d *daemon) reader() *container {
	d.t.Helper()
	return d.container([]string{"--memory", "300M", "--cpus", "1"}, "sh", "-c", "while cat /proc/meminfo >/dev/null; do sleep 0.05; done")
}

// A running daemon tells who serves, which containers there are and with which limits, and counts what they ask.
func TestStatus(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	c := d.reader()
	var r statusReport
	seen := func() bool {
		r = d.status()
		return len(r.Serves.Containers) == 1 && r.Serves.Containers[0].Requests > 10
	}
	poll(t, 20*time.Second, "the container is seen", seen)
	if r.Keeper.Pid != d.cmd.Process.Pid || r.Worker.Pid != d.worker() || r.Worker.Restarts != 0 {
		t.Errorf("keeper %d, worker %d: %+v", d.cmd.Process.Pid, d.worker(), r)
	}
	if len(r.Mounts) != 2 || r.Mounts[0].Dir != d.tree || r.Mounts[1].Dir != d.views {
		t.Errorf("mounts: %+v", r.Mounts)
	}
	got := r.Serves.Containers[0]
	if got.Name != c.name || got.Init != c.init || got.Number == 0 || !got.Alive || got.Limit != 300<<20 || got.Memory == 0 || got.Memory > got.Limit ||
		got.CPUCount != 1 || got.Quota == nil || *got.Quota != 1 || got.CPU <= 0 || r.Serves.LeftOut == nil || *r.Serves.LeftOut != 0 {
		t.Errorf("container %s with init %d, 300 MB and one CPU: %+v", c.name, c.init, got)
	}
	reads, getattrs := r.meminfo()
	poll(t, 20*time.Second, "counts grow", func() bool {
		nowReads, nowGetattrs := d.status().meminfo()
		return nowReads > reads && nowGetattrs > getattrs
	})
	for _, f := range d.status().Serves.Files {
		if l := f.GetAttrLatency; f.File == "proc/meminfo" && (l.Timed == 0 || l.P50 <= 0 || l.P50 > l.Max || l.Max > int64(time.Minute)) {
			t.Errorf("latency: %+v", l)
		}
	}

	// A limit that changes is told, and so is a worker that was replaced, which counts anew.
	setMemory(t, c.init, 200<<20)
	if now := d.status().Serves.Containers; len(now) != 1 || now[0].Limit != 200<<20 {
		t.Errorf("with 200 MB: %+v", now)
	}
	d.killWorker()
	poll(t, 20*time.Second, "the container is seen by the next worker", seen)
	if r.Worker.Restarts != 1 || r.Worker.Pid != d.worker() {
		t.Errorf("after a restart: %+v", r)
	}

	for _, which := range []string{"--views=" + d.views, "--tree=" + d.tree} {
		text := command(t, binary, "status", which, "--runtime-dir", d.dir)
		for _, want := range []string{fmt.Sprintf("keeper     %d ", d.cmd.Process.Pid), fmt.Sprintf("worker     %d ", d.worker()), "restarts   1", c.name, "200MiB", "proc/meminfo", d.tree, d.views} {
			if !strings.Contains(text, want) {
				t.Errorf("status %s does not say %q:\n%s", which, want, text)
			}
		}
	}
	text := command(t, binary, "top", "--views", d.views, "--runtime-dir", d.dir, "--interval", "200ms", "--count", "2", "--sort", "memory")
	if n := strings.Count(text, c.name); n != 2 || !strings.Contains(text, "requests/s") {
		t.Errorf("two looks, without a terminal:\n%s", text)
	}
}

// Where there is no daemon, or a question makes no sense, that is an error which says what to do.
func TestStatusOfNobody(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"status"}, "no lensfs serves"},
		{[]string{"status", "--json"}, "\"lensfs serve\""},
		{[]string{"top"}, "no lensfs serves"},
		{[]string{"top", "--sort", "colour"}, "requests, cpu, memory, name"},
		{[]string{"top", "--interval", "1us"}, "100ms"},
	} {
		got := finish(t, exec.Command(binary, append(c.args, "--views", dir+"/views", "--runtime-dir", dir)...))
		if got.status != 1 || !strings.Contains(got.errs, c.want) {
			t.Errorf("%v: status %d, %s", c.args, got.status, got.errs)
		}
	}
}

// A worker whose keeper has ended says so.
func TestStatusWithoutKeeper(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	d.killKeeper()
	poll(t, 10*time.Second, "the worker says that it is alone", func() bool {
		got := finish(t, exec.Command(binary, "status", "--views", d.views, "--runtime-dir", d.dir))
		return got.status == 1 && strings.Contains(got.errs, "start \"lensfs serve\" again")
	})
	d.again()
	if r := d.status(); r.Keeper.Pid != d.cmd.Process.Pid || r.Worker.Pid != d.worker() {
		t.Errorf("after there is a keeper again: %+v", r)
	}
}

// In a terminal top shows the container, sorts by what is asked for, and ends with q.
func TestTopInATerminal(t *testing.T) {
	needRoot(t)
	d := serve(t)
	c := d.reader()
	poll(t, 20*time.Second, "the container is seen", func() bool { return len(d.status().Serves.Containers) == 1 })
	cmd := exec.Command(binary, "top", "--views", d.views, "--runtime-dir", d.dir, "--interval", "200ms")
	terminal, written := inTerminal(t, cmd)
	poll(t, 20*time.Second, "top shows the container", func() bool {
		return strings.Contains(written.String(), c.name) && strings.Contains(written.String(), "300MiB")
	})
	before := len(written.String())
	press(t, terminal, "c")
	poll(t, 20*time.Second, "it sorts by CPU", func() bool { return strings.Contains(written.String()[before:], "cpu") })
	press(t, terminal, "q")
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("top ended with %v:\n%q", err, written.String())
		}
	case <-time.After(patience(10 * time.Second)):
		cmd.Process.Kill()
		<-done
		t.Errorf("q does not end it:\n%q", written.String())
	}
}

// inTerminal starts a command in a terminal of 130 columns, and gives the other end of it and what the command writes there.
func inTerminal(t *testing.T, cmd *exec.Cmd) (*os.File, *logBuffer) {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	fd := int(terminal.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 130})
	}
	if err != nil {
		t.Fatal(err)
	}
	inside, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inside, inside, inside
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "TERM=") }), "TERM=xterm")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	written := &logBuffer{}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := terminal.Read(buf)
			written.Write(buf[:n])
			if err != nil { // EIO: nobody has it open any more
				return
			}
		}
	}()
	return terminal, written
}

func press(t *testing.T, terminal *os.File, key string) {
	t.Helper()
	if _, err := terminal.WriteString(key); err != nil {
		t.Fatal(err)
	}
}
