package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a worker as its keeper sees it.
type process struct {
	Worker
	link     *Link
	pidfd    int
	life     int // reading end of a pipe that ends with the worker
	died     chan struct{}
	messages chan Message // closed when the link is
	unponged time.Time    // when it was asked for a sign of life that it has not given; zero: it has
	stderr   int          // memory with what it says until it is prepared; -1 afterwards
}

const (
	prepareLimit = 20 * time.Second // on a loaded machine it takes long to start
	serveLimit   = 10 * time.Second
)

// start starts program as a worker. It does nothing yet.
func (k *Keeper) start(program string) (*process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	link, err := NewLink(pair[0])
	if err != nil {
		unix.Close(pair[1])
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "link")
	defer theirs.Close()
	// What it says before it is prepared belongs to the reason why it is not.
	said, err := memory("stderr", 0)
	if err != nil {
		link.Close()
		return nil, err
	}
	stderr := os.NewFile(uintptr(said), "stderr")
	alive, held, err := os.Pipe()
	if err != nil {
		link.Close()
		stderr.Close()
		return nil, err
	}
	defer alive.Close()
	defer held.Close()
	p := &process{link: link, pidfd: -1, messages: make(chan Message, 16), stderr: said}
	cmd := exec.Command(program, "worker", k.hand.Tree.Dir)
	cmd.Args[0] = "lensfs"
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{theirs, os.Stderr, held, alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a terminal sends to its foreground is the keeper's
	if err := cmd.Start(); err != nil {
		link.Close()
		stderr.Close()
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	p.stderr, err = unix.FcntlInt(uintptr(said), unix.F_DUPFD_CLOEXEC, 3)
	stderr.Close()
	p.Pid = cmd.Process.Pid
	if err == nil {
		p.pidfd, err = unix.PidfdOpen(p.Pid, 0)
	}
	cmd.Process.Release()
	if err != nil {
		unix.Kill(p.Pid, unix.SIGKILL)
		unix.Wait4(p.Pid, nil, 0, nil)
		link.Close()
		return nil, fmt.Errorf("watch the worker: %w", err)
	}
	held.Close()
	return p, p.watch(int(alive.Fd()))
}

// watch listens to what the worker says, and for its end: that of the pipe behind life.
func (p *process) watch(life int) error {
	var err error
	if p.life, err = unix.FcntlInt(uintptr(life), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return errors.Join(fmt.Errorf("watch worker %d: %w", p.Pid, err), errors.New(p.kill()))
	}
	p.died = make(chan struct{})
	go watchLife(p.life, p.died)
	go p.listen()
	return nil
}

// attach makes a process of a worker that runs, and of a link to it.
func attach(w Worker, link *Link, life int) (*process, error) {
	fd, err := unix.PidfdOpen(w.Pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch worker %d: %w", w.Pid, err)
	}
	p := &process{Worker: w, link: link, pidfd: fd, messages: make(chan Message, 16), stderr: -1}
	return p, p.watch(life)
}

// listen receives until the link ends: the worker has.
func (p *process) listen() {
	defer close(p.messages)
	for {
		m, fds, err := p.link.Receive()
		for _, fd := range fds {
			unix.Close(fd)
		}
		if err != nil {
			return
		}
		p.messages <- m
	}
}

// tell sends a message and waits for its answer. Where there is none, the worker has ended or is of no use.
func (p *process) tell(m Message, limit time.Duration, fds ...int) (Message, error) {
	if err := p.link.Send(m, fds...); err != nil {
		return m, err
	}
	return p.wait(m.Op, limit)
}

// wait waits for the answer to what was said.
func (p *process) wait(op string, limit time.Duration) (Message, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case answer, ok := <-p.messages:
			switch {
			case !ok:
				return answer, errEnd
			case answer.Op == OpFailed:
				return answer, refusal(answer.Error)
			case answer.Op == OpPong:
				p.unponged = time.Time{}
				if op == OpPing {
					return answer, nil
				}
			case answer.Op == OpGone:
				return answer, errGone
			default:
				return answer, nil
			}
		case <-p.died:
			return Message{}, errEnd
		case <-timer.C:
			return Message{}, fmt.Errorf("worker %d does not answer", p.Pid)
		}
	}
}

// refusal is what a worker says instead of doing what it is told.
type refusal string

func (r refusal) Error() string { return string(r) }

// prepare has the worker get ready. Its error says why it cannot, in its own words.
func (p *process) prepare(config []byte, nice int) error {
	return p.prepared(config, p.link.Send(Message{Op: OpPrepare, Config: config, Nice: nice}))
}

// prepared waits until the worker is ready. unsent is why it may not know that it is to be.
func (p *process) prepared(config []byte, unsent error) error {
	answer, err := Message{}, unsent
	if err == nil {
		answer, err = p.wait(OpPrepare, prepareLimit)
	}
	if err == nil && (answer.Op != OpPrepared || answer.Worker == nil) {
		err = fmt.Errorf("the worker says %q instead of being ready", answer.Op)
	}
	if err != nil {
		how, said := p.kill(), p.said()
		var refused refusal
		switch {
		case errors.As(err, &refused):
			return err
		case said == "":
			return fmt.Errorf("the worker ended before it was ready (%s) and said nothing", how)
		default:
			return fmt.Errorf("the worker ended before it was ready (%s):\n%s", how, said)
		}
	}
	pid := p.Pid
	p.Worker = *answer.Worker
	p.Pid, p.Config = pid, config
	if said := p.said(); said != "" {
		io.WriteString(os.Stderr, said+"\n")
	}
	return nil
}

// said gives what the worker wrote until now, and lets go of it.
func (p *process) said() string {
	if p.stderr < 0 {
		return ""
	}
	const most = 64 << 10
	text := make([]byte, most)
	n, _ := unix.Pread(p.stderr, text, 0)
	unix.Close(p.stderr)
	p.stderr = -1
	return strings.TrimSpace(string(bytes.ToValidUTF8(text[:max(0, n)], nil)))
}

// serve hands over. The worker before must have ended.
func (p *process) serve(h Handover, d Descriptors) error { return p.served(p.handOver(h, d)) }

func (p *process) handOver(h Handover, d Descriptors) error {
	h, fds := h.named(d)
	return p.link.Send(Message{Op: OpServe, Handover: &h}, fds...)
}

// served waits until the worker has taken over. unsent is why it may not know that it is to.
func (p *process) served(unsent error) error {
	err := unsent
	if err == nil {
		_, err = p.wait(OpServe, serveLimit)
	}
	if err != nil {
		return fmt.Errorf("worker %d does not take over: %w (%s)", p.Pid, err, p.kill())
	}
	p.Since = time.Now()
	return nil
}

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
		go unix.Wait4(p.Pid, nil, 0, nil)
		return killedInKernel
	}
	var status unix.WaitStatus
	switch pid, err := unix.Wait4(p.Pid, &status, 0, nil); {
	case err != nil || pid != p.Pid:
		return "it was not our child" // its first keeper has ended
	case status.Signaled():
		return status.Signal().String()
	default:
		return fmt.Sprintf("exit status %d", status.ExitStatus())
	}
}

const killedInKernel = "killed, and a thread of it still waits in the kernel"

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
