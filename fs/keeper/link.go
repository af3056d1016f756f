package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Message is what keeper, worker and commands say to each other.
type Message struct {
	Op       string
	Fds      int             `json:",omitempty"` // how many descriptors come with it
	Error    string          `json:",omitempty"`
	Config   json.RawMessage `json:",omitempty"` // with prepare
	Nice     int             `json:",omitempty"` // with prepare: the niceness of a worker that has taken over
	Handover *Handover       `json:",omitempty"` // with serve and adopt; its descriptors come with it
	Worker   *Worker         `json:",omitempty"` // with prepared and adopt
	Unveiled bool            `json:",omitempty"` // with unveil
	Force    bool            `json:",omitempty"` // with stop
	Status   json.RawMessage `json:",omitempty"`
	Caller   uint32          `json:",omitempty"` // with view: a process
	View     *View           `json:",omitempty"` // the answer to it
}

// What is said. A keeper to its worker, and the answer:
const (
	OpPrepare = "prepare" // get ready, without touching anything: OpPrepared
	OpServe   = "serve"   // take over: OpServing
	OpPing    = "ping"    // OpPong
	OpUnveil  = "unveil"  // show the host's values, or no more: OpDone
	OpEnd     = "end"     // clean up and exit: the end of the link
	OpStatus  = "status"  // OpDone. Commands ask the keeper the same
	OpView    = "view"    // which container a process is in: OpDone. Commands ask the keeper the same

	OpPrepared, OpServing, OpPong, OpDone, OpFailed = "prepared", "serving", "pong", "done", "failed"

	OpGone = "gone" // unasked: the kernel has ended the connection of the shared tree

	// Commands, and other keepers, to the keeper; to the worker if it has none: OpDone or OpFailed.
	opUpgrade = "upgrade"
	opStop    = "stop"
	opAdopt   = "adopt"
)

// Worker says who serves.
type Worker struct {
	Pid     int
	Version string
	Cgroups string    // what it found
	Since   time.Time // it serves
	Config  json.RawMessage
}

// View is what a worker has for a process.
type View struct {
	Container string // its name, that of the directory of its own view if there are own views; "" for a process of the host
	Init      uint32 // as the daemon's pid namespace numbers it
}

// Link carries messages over a Unix socket: lines of JSON, descriptors beside them. Each end is used by one goroutine that sends and one that receives.
type Link struct {
	conn *net.UnixConn
	buf  []byte

	mu  sync.Mutex // whoever ends the link may be another than who receives
	fds []int
}

// maxFds is how many descriptors come with a message at most.
const maxFds = 16

// NewLink makes a link of a connected socket, which it takes over.
func NewLink(fd int) (*Link, error) {
	file := os.NewFile(uintptr(fd), "link")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a Unix socket")
	}
	return &Link{conn: u}, nil
}

// sendLimit is how long the other end may take to make room for a message.
const sendLimit = 2 * time.Second

// Send sends a message, and with it copies of descriptors.
func (l *Link) Send(m Message, fds ...int) error {
	m.Fds = len(fds)
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if err := l.conn.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
		return err
	}
	if len(fds) > 0 {
		if _, _, err := l.conn.WriteMsgUnix(text[:1], unix.UnixRights(fds...), nil); err != nil {
			return err
		}
		text = text[1:]
	}
	_, err = l.conn.Write(text)
	return err
}

// Receive waits for a message. The descriptors that came with it are the caller's; they are closed on exec.
func (l *Link) Receive() (m Message, fds []int, err error) {
	part, oob := make([]byte, 16<<10), make([]byte, unix.CmsgSpace(4*maxFds))
	for {
		if i := bytes.IndexByte(l.buf, '\n'); i >= 0 {
			err := json.Unmarshal(l.buf[:i], &m)
			l.buf = append(l.buf[:0], l.buf[i+1:]...)
			fds, enough := l.give(m.Fds)
			if !enough {
				return m, nil, errors.New("descriptors are missing")
			}
			return m, fds, err
		}
		n, oobn, _, _, err := l.conn.ReadMsgUnix(part, oob)
		if oobn > 0 {
			l.take(oob[:oobn])
		}
		if err != nil {
			return m, nil, err
		}
		if n == 0 {
			return m, nil, errEnd
		}
		l.buf = append(l.buf, part[:n]...)
	}
}

var errEnd = errors.New("the other end has gone")

func (l *Link) take(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			for _, fd := range fds {
				unix.CloseOnExec(fd)
			}
			l.fds = append(l.fds, fds...)
		}
	}
}

// give gives the first n descriptors that came; there may be those of the next message already.
func (l *Link) give(n int) (fds []int, enough bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n < 0 || n > len(l.fds) {
		return nil, false
	}
	fds = append(fds, l.fds[:n]...)
	l.fds = append(l.fds[:0], l.fds[n:]...)
	return fds, true
}

// ask sends a message and waits for the answer.
func (l *Link) ask(m Message, limit time.Duration) (Message, []int, error) {
	if err := l.Send(m); err != nil {
		return Message{}, nil, err
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return Message{}, nil, err
	}
	answer, fds, err := l.Receive()
	if err != nil {
		return answer, nil, err
	}
	if answer.Op == OpFailed {
		return answer, fds, errors.New(answer.Error)
	}
	return answer, fds, l.conn.SetReadDeadline(time.Time{})
}

// fd gives a copy of the link's descriptor.
func (l *Link) fd() (int, error) {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	copied, dupErr := -1, error(nil)
	if err := raw.Control(func(fd uintptr) { copied, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return -1, err
	}
	return copied, dupErr
}

// Close ends the link.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fd := range l.fds {
		unix.Close(fd)
	}
	l.fds = nil
	return l.conn.Close()
}

// ofRoot says with an error that the other end is not root's: nobody else is to say anything here.
func (l *Link) ofRoot() error {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return err
	}
	var who *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { who, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if who.Uid != 0 {
		return fmt.Errorf("process %d is not root's", who.Pid)
	}
	return nil
}
