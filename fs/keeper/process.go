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
