package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// server is a running daemon that serves mounts. This process never looks into them: it could wait for itself, and would be one more reader.
type server struct {
	name   string
	cmd    *exec.Cmd
	mounts []string
	log    logTail
	done   chan struct{}
}

// startServer starts a daemon and waits until it has mounted.
func startServer(ctx context.Context, name string, mounts []string, cmd *exec.Cmd) (*server, error) {
	for _, dir := range mounts {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	log, err := newLogTail()
	if err != nil {
		return nil, err
	}
	s := &server{name: name, cmd: cmd, mounts: mounts, log: log, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log.file, log.file
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM, Setpgid: true} // what a terminal sends is not for it: it is ended last
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		cmd.Wait()
		close(s.done)
	}()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err := s.alive(); err != nil {
			return nil, err
		}
		if s.mounted() == len(mounts) {
			return s, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("%s has not mounted %v: %s", name, mounts, s.log.String()), ctx.Err(), s.stop())
		}
	}
}

func (s *server) mounted() (n int) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return 0
	}
	for _, m := range mounts {
		for _, dir := range s.mounts {
			if m.Mountpoint == dir {
				n++
			}
		}
	}
	return n
}

// alive gives an error if the daemon has ended.
func (s *server) alive() error {
	select {
	case <-s.done:
		return fmt.Errorf("%s ended by itself (%v): %s", s.name, s.cmd.ProcessState, s.log.String())
	default:
		return nil
	}
}

// stop ends the daemon and takes off what it leaves mounted.
func (s *server) stop() error {
	s.cmd.Process.Signal(unix.SIGTERM)
	var err error
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		err = fmt.Errorf("%s did not end when told to", s.name)
		s.cmd.Process.Kill()
		<-s.done
	}
	for range 10 {
		if s.mounted() == 0 {
			break
		}
		for _, dir := range s.mounts {
			unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
	return err
}

// pids gives the daemon's processes: a keeper and its worker count as one.
func (s *server) pids() []int {
	all := []int{s.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for word := range strings.FieldsSeq(string(text)) {
				if pid, err := strconv.Atoi(word); err == nil {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}

// cpuTime is what each process of the daemon has used, by its CPU clock: utime and stime of /proc/PID/stat together, in ns instead of ticks of 10 ms.
type cpuTime map[int]time.Duration

func (s *server) cpu() cpuTime {
	if s == nil {
		return nil
	}
	used := cpuTime{}
	for _, pid := range s.pids() {
		const schedClock = 2 // CPUCLOCK_SCHED, see clock_getcpuclockid(3)
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err == nil {
			used[pid] = time.Duration(ts.Nano())
		}
	}
	return used
}

func (now cpuTime) since(before cpuTime) (sum time.Duration) {
	for pid, used := range now {
		sum += used - before[pid]
	}
	return sum
}

// rss is the resident memory of the daemon in bytes.
func (s *server) rss() (sum uint64) {
	for _, pid := range s.pids() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "Rss:" {
				kb, _ := strconv.ParseUint(f[1], 10, 64)
				sum += kb << 10
			}
		}
	}
	return sum
}

// fds counts the daemon's open descriptors.
func (s *server) fds() (n int) {
	for _, pid := range s.pids() {
		open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		n += len(open)
	}
	return n
}

// logTail is what a daemon writes, of which the end is read. Not a pipe: a worker may hold that for longer than its keeper is there.
type logTail struct{ file *os.File }

// newLogTail makes a file without a name.
func newLogTail() (logTail, error) {
	file, err := os.CreateTemp("", "lensfs-bench-log-")
	if err != nil {
		return logTail{}, err
	}
	return logTail{file}, os.Remove(file.Name())
}

func (l logTail) String() string {
	const tail = 4096
	info, err := l.file.Stat()
	if err != nil {
		return err.Error()
	}
	buf := make([]byte, tail)
	n, err := l.file.ReadAt(buf, max(0, info.Size()-tail))
	if err != nil && !errors.Is(err, io.EOF) {
		return err.Error()
	}
	return string(bytes.TrimSpace(buf[:n]))
}
