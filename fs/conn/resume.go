package conn

import (
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// What counts against a request, and how much of it makes it one that is refused: a process that crashes over it, with nothing else to answer, or has
	// to be ended because of it, counts eight times as much as one that is killed by chance just then, perhaps for want of memory.
	onceKilled, onceEnded = 1, 8
	tooMuch               = 2 * onceEnded
	// patience is how long the requests left by an earlier process are taken up one by one, before new ones are read too.
	patience = 100 * time.Millisecond
)

// resume answers what the process before us has left in the slots. One after the other, so that the one which ends us is known; but a request that
// takes its time does not hold up the others for long.
func (c *Conn) resume() {
	reads, others := c.slots.left()
	end := time.NewTimer(patience)
	defer end.Stop()
	over := false
	for _, t := range append(reads, others...) {
		done := make(chan struct{})
		c.running.Go(func() {
			defer close(done)
			c.again(t)
			c.slots.give(t)
		})
		if over {
			continue
		}
		select {
		case <-done:
		case <-end.C:
			over = true
		}
	}
}

// again takes a request up again, if the kernel still waits for its answer.
func (c *Conn) again(t slot) {
	defer t.length().Store(0) // what counts against it goes with it, see next
	n := int(t.length().Load())
	if n < inHeaderBytes || n > minReadBuffer {
		return // nobody writes such
	}
	r := newRequest(t)
	r.in = r.in[:n]
	h := r.header()
	if op := h.Opcode; op == opForget || op == opBatchForget {
		// Nobody waits for it. One that was begun is not done again: a node too many that we take for known costs some memory, one too few its reader.
		if t.begun().Load() == 0 {
			c.handle(r)
		}
		return
	}
	if !c.waits(h.Unique) {
		return
	}
	c.stats.Resumed.Add(1)
	t.begun().Store(1)
	if t.tries().Add(onceKilled) > tooMuch {
		c.stats.Refused.Add(1)
		c.reply(r, 0, fuse.EIO)
		return
	}
	c.answer(r)
}

// waits says whether the kernel waits for the answer to a request: it takes the answer to an INTERRUPT of it, which means nothing, as long as
// it does (fs/fuse/dev.c, fuse_dev_do_write: FUSE_INT_REQ_BIT).
func (c *Conn) waits(unique uint64) bool {
	const interrupt = 1
	h := fuse.OutHeader{Length: uint32(outHeaderBytes), Unique: unique | interrupt}
	return rawWrite(c.fd, unsafe.Slice((*byte)(unsafe.Pointer(&h)), outHeaderBytes)) != unix.ENOENT
}
