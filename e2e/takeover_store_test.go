package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// descriptorStore does what systemd does with what a service wants it to keep.
type descriptorStore struct {
	mu     sync.Mutex
	files  map[string]*os.File
	errs   []string
	socket string
}

func newDescriptorStore(t *testing.T) *descriptorStore {
	t.Helper()
	s := &descriptorStore{files: map[string]*os.File{}, socket: filepath.Join(tempDir(t), "notify")}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range s.files {
			f.Close()
		}
		for _, e := range s.errs {
			t.Error(e)
		}
	})
	go s.take(l)
	return s
}

func (s *descriptorStore) take(l *net.UnixConn) {
	for buf, oob := make([]byte, 4096), make([]byte, 4096); ; {
		n, oobn, _, _, err := l.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		s.message(strings.Split(strings.TrimSpace(string(buf[:n])), "\n"), oob[:oobn])
	}
}

func (s *descriptorStore) message(lines []string, oob []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var name string
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, "FDNAME="); ok {
			name = v
		}
	}
	switch {
	case slices.Contains(lines, "FDSTORE=1"):
		messages, err := unix.ParseSocketControlMessage(oob)
		if err != nil || len(messages) != 1 || !slices.Contains(lines, "FDPOLL=0") {
			s.errs = append(s.errs, fmt.Sprintf("%q with %d messages of descriptors, %v", lines, len(messages), err))
			return
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			s.errs = append(s.errs, err.Error())
		}
		for _, fd := range fds {
			if old := s.files[name]; old != nil {
				old.Close()
			}
			s.files[name] = os.NewFile(uintptr(fd), name)
		}
	case slices.Contains(lines, "FDSTOREREMOVE=1"):
		if f := s.files[name]; f != nil {
			f.Close()
			delete(s.files, name)
		}
	}
}

func (s *descriptorStore) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.files))
}

// start makes a command line one that gets the descriptors, as systemd starts it.
func (s *descriptorStore) start(args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`}, args...)...)
	names := s.names()
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+s.socket, fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.files[n])
	}
	return cmd
}

// Keeper and worker are killed at once. Where systemd has kept the descriptors, the next ones go on.
func TestDescriptorStore(t *testing.T) {
	needRoot(t)
	path, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	store := newDescriptorStore(t)
	dir := tempDir(t)
	tree := filepath.Join(dir, "tree")
	args := []string{path, "serve", "--tree", tree, "--views", viewsIn(dir), "--runtime-dir", dir}
	d := startDaemon(t, tree, dir, store.start(args...))
	d.warnings = true
	poll(t, 10*time.Second, "everything is in the store", func() bool { return len(store.names()) == 7 })
	d.underLoad(4, loadPlan{Threads: 2, Pace: 5 * time.Millisecond}, func() {
		for range rounds(5, 2) {
			time.Sleep(100 * time.Millisecond)
			worker := d.worker()
			d.cmd.Process.Kill()
			unix.Kill(worker, unix.SIGKILL)
			d.wait(10 * time.Second)
			d.killWorkers() // one that the keeper has perhaps started still
			d.cmd = store.start(args...)
			d.startAgain()
		}
	})
	d.unharmedMounts()
	if !strings.Contains(d.log.String(), "systemd has kept") {
		t.Errorf("nothing was taken from the store:\n%s", d.log)
	}
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.wait(10 * time.Second); err != nil {
		t.Errorf("it ended with %v", err)
	}
	poll(t, 10*time.Second, "the store is empty when all has ended", func() bool { return len(store.names()) == 0 })
}
