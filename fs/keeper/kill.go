package keeper

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kill ends the worker, however it is, waits for that and says how it ended. To have two of them would be to answer requests twice.
//
// A thread of it may be telling the kernel of a page which is locked by a reader who waits for our answer. That thread ends when the next worker has
// given it, so it must not be waited for; it never runs a line of ours again.
func (p *process) kill() string {
	unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	ended := p.ends(deadEnough)
	for !ended && !powerless(p.Pid) {
		ended = p.ends(deadEnough)
	}
	p.link.Close()
	unix.Close(p.pidfd)
	p.pidfd = -1
	if p.stderr >= 0 && p.Version != "" {
		unix.Close(p.stderr)
		p.stderr = -1
	}
	if !ended {
		how := words(endOf(p.Pid))
		go unix.Wait4(p.Pid, nil, 0, nil)
		return how + inKernel
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(p.Pid, &status, 0, nil); err != nil || pid != p.Pid {
		return "it was not our child" // its first keeper has ended
	}
	return words(status)
}

const inKernel = ", and a thread of it still waits in the kernel"

// wasKilled says whether a process that ended so did not end by itself.
func wasKilled(how string) bool { return strings.TrimSuffix(how, inKernel) == unix.SIGKILL.String() }

func words(status unix.WaitStatus) string {
	if status.Signaled() {
		return status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// endOf gives how a process is ending that cannot be waited for yet: killed, if the kernel does not say.
func endOf(pid int) unix.WaitStatus {
	const exitCode = 52 // in proc_pid_stat(5): of the whole process, with older kernels of its first thread, if that has ended
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := bytes.Fields(text[max(0, bytes.LastIndexByte(text, ')')):]) // the first one is the end of the second
	if len(fields) >= exitCode-1 {
		if status, err := strconv.Atoi(string(fields[exitCode-2])); err == nil && status != 0 {
			return unix.WaitStatus(status)
		}
	}
	return unix.WaitStatus(unix.SIGKILL)
}

// deadEnough is how long a worker that was killed may take, before it is looked at what keeps it.
const deadEnough = 2 * time.Millisecond

// powerless says that each thread of a process that was killed has ended, or waits in the kernel for something that no signal interrupts: it ends before
// it comes back from there.
func powerless(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false
	}
	for _, t := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, t.Name()))
		if err != nil {
			continue // ended meanwhile
		}
		_, rest, _ := bytes.Cut(text[max(0, bytes.LastIndexByte(text, ')')):], []byte(" "))
		if len(rest) == 0 || !bytes.ContainsRune([]byte("DZX"), rune(rest[0])) {
			return false
		}
	}
	return true
}

// ends waits for the worker's end, not for longer than limit if that is not negative.
func (p *process) ends(limit time.Duration) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}, int(limit/time.Millisecond))
		if err != unix.EINTR {
			return n == 1
		}
	}
}

// end has the worker clean up and exit.
func (p *process) end() string {
	if p.link.Send(Message{Op: OpEnd}) == nil {
		p.ends(sendLimit)
	}
	return p.kill()
}
