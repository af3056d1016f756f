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

// service is a daemon that systemd has started from our unit.
type service struct {
	*daemon
	unit string
}

// systemd installs our unit under another name, with directories of its own, and starts it.
func systemd(t *testing.T) *service {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("needs a machine with systemd: the virtual one") // runs there in CI
	}
	text, err := os.ReadFile("../share/systemd/lensfs.service")
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	tree := filepath.Join(dir, "tree")
	where := fmt.Sprintf(" --tree %s --runtime-dir %s", tree, dir)
	unit := strings.NewReplacer(
		"/usr/bin/lensfs serve", binary+" serve --views "+viewsIn(dir)+where,
		"/usr/bin/lensfs upgrade", binary+" upgrade"+where,
	).Replace(string(text))
	s := &service{unit: uniqueName() + ".service"}
	path := filepath.Join("/run/systemd/system", s.unit)
	writeFile(t, path, unit)
	s.daemon = &daemon{t: t, tree: tree, views: viewsIn(dir), dir: dir, cmd: exec.Command(binary)}
	t.Cleanup(func() {
		tryCommand(binary, "stop", "--force", "--tree", tree, "--runtime-dir", dir)
		s.systemctl("stop")
		os.Remove(path)
		command(t, "systemctl", "daemon-reload")
		tryCommand("systemctl", "reset-failed", s.unit)
	})
	command(t, "systemctl", "daemon-reload")
	s.systemctl("start")
	return s
}

func (s *service) systemctl(verb string) {
	s.t.Helper()
	if out, err := tryCommand("systemctl", verb, s.unit); err != nil {
		log, _ := tryCommand("journalctl", "--no-pager", "-n", "50", "-u", s.unit)
		s.t.Fatalf("systemctl %s: %v %s\n%s", verb, err, out, log)
	}
}

func (s *service) keeper() int {
	s.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(command(s.t, "systemctl", "show", "--value", "-p", "MainPID", s.unit)))
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// Whatever an operator or a package does to the service, or fate to its processes, the views of the containers live.
func TestSystemd(t *testing.T) {
	needRoot(t)
	s := systemd(t)
	c := s.container([]string{"--memory", "300M"}, "sh", "-c", "exec 3</proc/meminfo; while read -r _; do grep MemTotal /proc/meminfo || echo dead; done")
	check := func(what string) {
		t.Helper()
		if got, want := c.ask(""), "MemTotal:         307200 kB"; got != want {
			log, _ := tryCommand("journalctl", "--no-pager", "-n", "50", "-u", s.unit)
			t.Fatalf("%s: the container sees %q\n%s", what, got, log)
		}
	}
	check("started")
	worker := s.worker()
	s.systemctl("restart")
	check("restarted")
	if now := s.worker(); now != worker {
		t.Errorf("worker %d serves; it was %d", now, worker)
	}
	s.systemctl("reload")
	check("reloaded")
	if now := s.worker(); now == worker {
		t.Errorf("worker %d serves, as before the reload", now)
	}
	s.systemctl("stop")
	check("stopped")
	s.systemctl("start")
	check("started again")

	before := s.keeper()
	unix.Kill(before, unix.SIGKILL)
	check("keeper killed")
	poll(t, 30*time.Second, "systemd has started another keeper", func() bool { k := s.keeper(); return k != 0 && k != before })
	s.served()
	check("another keeper")

	before, worker = s.keeper(), s.worker()
	unix.Kill(before, unix.SIGKILL)
	unix.Kill(worker, unix.SIGKILL)
	check("both killed at once")
	if now := s.worker(); now == worker {
		t.Error("the worker is the one that was killed")
	}
	s.served()
	if _, err := tryCommand(binary, "stop", "--tree", s.tree, "--runtime-dir", s.dir); err == nil {
		t.Error("it stops while a container uses the views")
	}
	c.close()
	s.systemctl("stop")
	for _, dir := range []string{s.tree, s.views} {
		if n := len(mountsOn(t, dir)); n != 0 {
			t.Errorf("%d mounts left on %s", n, dir)
		}
	}
	if left := s.workers(); len(left) != 0 {
		t.Errorf("worker %v is left", left)
	}
}

// served waits until the keeper answers.
func (s *service) served() {
	s.t.Helper()
	poll(s.t, 30*time.Second, "the keeper answers", func() bool {
		_, err := tryCommand(binary, "status", "--json", "--tree", s.tree, "--runtime-dir", s.dir)
		return err == nil
	})
}
