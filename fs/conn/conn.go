// Package conn is one FUSE connection: it reads the kernel's requests, has a Handler answer them and writes the answers.
//
// It takes go-fuse's types of the protocol, and does without its server: for a daemon that is polled by a thousand containers, waking up is most of
// what a request costs. The descriptor is in the runtime's epoll, and read and written by system calls that do not tell the scheduler: else
// each of them wakes Go's monitor thread, which costs more than the request (go-fuse 2.10: a third of all CPU time in a fleet).
package conn

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// maxWrite is the least that the kernel allows. It decides on the memory of a reader: requests are no longer, but by a header.
	maxWrite = 4096
	// MaxRead is the largest READ; larger reads(2) come in pieces.
	MaxRead = 32 << 10
	// maxBackground is how many RELEASEs may be on their way: those of one container must not hold up another's.
	maxBackground = 128
	// maxIdle bounds how many readers a burst leaves behind.
	maxIdle = 8
	// maxBusy bounds how many answer at a time: a thousand requests at once need no thousand readers with their memory. Those that wait for the kernel are
	// not counted, see Aside: another has to answer what the kernel waits for.
	maxBusy = 16
	// tooLong is how long nobody may read a request since all are busy: then they are stuck, and there is one more of them.
	tooLong = 10 * time.Millisecond
)

// Conn is one connection, served by readers: goroutines that each take a request, answer it and take the next.
type Conn struct {
	fd      uintptr // open as long as a reader runs
	file    *os.File
	raw     syscall.RawConn
	slots   *Slots
	handler Handler
	stats   *Stats
	debug   bool

	idle    atomic.Int32 // readers that wait for a request, or are about to
	busy    atomic.Int32 // readers that answer one, but for those in Aside
	late    atomic.Bool  // all are busy, and overdue is to look whether they still are
	overdue *time.Timer
	running sync.WaitGroup
}

// Stats counts what goes wrong on connections.
type Stats struct {
	Unsent  atomic.Uint64 // answers that the kernel no longer wanted: the reader was killed
	Panics  atomic.Uint64 // panics of a handler; each one is a bug
	Resumed atomic.Uint64 // requests that another process had read and not answered
	Refused atomic.Uint64 // those of them that ended each process which tried to
}

// New makes a connection of fd, a descriptor of /dev/fuse on whose protocol Initialize has agreed. It takes fd over; the descriptors of others remain.
func New(fd int, slots *Slots, handler Handler, stats *Stats, debug bool) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	c := &Conn{fd: uintptr(fd), file: os.NewFile(uintptr(fd), "/dev/fuse"), slots: slots, handler: handler, stats: stats, debug: debug}
	c.overdue = time.AfterFunc(math.MaxInt64, c.look) // until it is set
	var err error
	if c.raw, err = c.file.SyscallConn(); err != nil {
		return nil, err
	}
	return c, nil
}

// Serve answers requests, those first that another process has left, until the kernel ends the connection: the file system has been unmounted by
// all, or aborted.
func (c *Conn) Serve() {
	c.resume()
	c.start()
	c.running.Wait()
	c.file.Close()
}

// start starts a reader, unless there are as many as there can be.
func (c *Conn) start() {
	t, ok := c.slots.take()
	if !ok {
		return
	}
	c.idle.Add(1) // not when it runs: until then, whoever takes the next request would start another, and so on
	c.running.Go(func() {
		c.read(newRequest(t))
		c.slots.give(t)
	})
}

// read is one reader, counted as idle. Before it answers it sees to it that another one waits: to answer may take the kernel's locks, or waking others.
func (c *Conn) read(r *request) {
	for {
		err := c.next(r)
		left := c.idle.Add(-1)
		if err != nil {
			return
		}
		if busy := c.busy.Add(1); left == 0 && busy < maxBusy {
			c.start()
		} else if left == 0 && c.late.CompareAndSwap(false, true) {
			c.running.Add(1) // of look, which starts readers: none may begin once all have ended
			c.overdue.Reset(tooLong)
		}
		c.answer(r)
		c.busy.Add(-1)
		r.slot.length().Store(0)
		if c.idle.Load() >= maxIdle {
			return
		}
		c.idle.Add(1)
	}
}

// look starts another reader if all are busy still.
func (c *Conn) look() {
	defer c.running.Done()
	c.late.Store(false)
	if c.idle.Load() == 0 {
		c.start()
	}
}

// Aside is where a handler has to wait until another request is answered: one that is perhaps not read yet.
func (c *Conn) Aside(wait func()) {
	c.busy.Add(-1)
	defer c.busy.Add(1)
	if c.idle.Load() == 0 {
		c.start()
	}
	wait()
}

// next waits for a request. Its errors mean the end of the connection.
func (c *Conn) next(r *request) error {
	r.slot.tries().Store(0)
	r.slot.begun().Store(0)
	for {
		err := c.raw.Read(r.take)
		if r.errno != 0 {
			r.slot.length().Store(0) // a request that was given up while it was copied
		}
		switch {
		case err != nil:
			return err
		case r.errno == unix.EINTR, r.errno == unix.ENOENT: // ENOENT: the one who asked was killed as we came to read
			continue
		case r.errno != 0:
			return r.errno
		case r.n < inHeaderBytes: // never of /dev/fuse; the end of a socket
			return io.ErrUnexpectedEOF
		}
		r.in = r.in[:r.n]
		return nil
	}
}

// answer has the handler answer r and tells the kernel.
func (c *Conn) answer(r *request) {
	size, status, reply := c.handle(r)
	if c.debug {
		h := r.header()
		slog.Info("request", "op", opName(h.Opcode), "node", h.NodeId, "pid", h.Pid, "status", int32(status), "bytes", size)
	}
	if reply {
		c.reply(r, size, status)
	}
}

// reply sends what is in the place of the answer, or an error alone.
func (c *Conn) reply(r *request, size int, status fuse.Status) {
	if status != fuse.OK {
		size = 0
	}
	o := r.outHeader()
	*o = fuse.OutHeader{Length: uint32(outHeaderBytes + size), Status: -int32(status), Unique: r.header().Unique}
	if errno := rawWrite(c.fd, r.out[:o.Length]); errno != 0 {
		c.stats.Unsent.Add(1)
	}
}

// survive is deferred where a handler is called. What fails in it fails this one request: the daemon serves every container of the host.
func (c *Conn) survive(status *fuse.Status, reply *bool) {
	if p := recover(); p != nil {
		if c.stats.Panics.Add(1) == 1 { // a container could fill the log with them
			slog.Error("a request panicked; told once", "panic", p, "stack", string(debug.Stack()))
		}
		*status, *reply = fuse.EIO, true
	}
}

var errProtocol = errors.New("the kernel's FUSE protocol is not one that lensfs knows (it needs 7.31: Linux 5.4)")
