package conn

import (
	"bytes"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The kernel's names of what it asks, linux/fuse.h. What is not here is answered ENOSYS.
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opReadlink    = 5
	opOpen        = 14
	opRead        = 15
	opStatfs      = 17
	opRelease     = 18
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opDestroy     = 38
	opBatchForget = 42
)

const (
	inHeaderBytes  = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeaderBytes = int(unsafe.Sizeof(fuse.OutHeader{}))
)

// request is a reader's memory: a request as the kernel wrote it, and its answer.
type request struct {
	in  []byte
	out []byte
}

func newRequest() *request {
	return &request{in: make([]byte, 0, 2*maxWrite), out: make([]byte, 2*maxWrite)}
}

func (r *request) header() *fuse.InHeader { return in[fuse.InHeader](r) }

func (r *request) outHeader() *fuse.OutHeader {
	return (*fuse.OutHeader)(unsafe.Pointer(unsafe.SliceData(r.out)))
}

// in gives the request as a T, nil if it is too short to be one.
func in[T any](r *request) *T {
	var t T
	if len(r.in) < int(unsafe.Sizeof(t)) {
		return nil
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(r.in)))
}

// out gives the place of the answer as a T, all zero, and its size.
func out[T any](r *request) (*T, int) {
	t := (*T)(unsafe.Pointer(&r.out[outHeaderBytes]))
	var zero T
	*t = zero
	return t, int(unsafe.Sizeof(zero))
}

// name gives the string behind the header.
func (r *request) name() string {
	name, _, _ := bytes.Cut(r.in[inHeaderBytes:], []byte{0})
	return string(name)
}

// space gives room for n bytes of answer.
func (r *request) space(n uint32) []byte {
	n = min(n, MaxRead)
	if len(r.out) < outHeaderBytes+int(n) {
		r.out = make([]byte, outHeaderBytes+int(n))
	}
	return r.out[outHeaderBytes : outHeaderBytes+int(n)]
}

func (c *Conn) handle(r *request) (size int, status fuse.Status, reply bool) {
	defer c.survive(&status)
	reply = true
	status = fuse.ENOSYS
	h := r.header()
	switch h.Opcode {
	case opLookup:
		var o *fuse.EntryOut
		o, size = out[fuse.EntryOut](r)
		status = c.handler.Lookup(nil, h, r.name(), o)
	case opGetattr:
		i := in[fuse.GetAttrIn](r)
		var o *fuse.AttrOut
		o, size = out[fuse.AttrOut](r)
		status = c.handler.GetAttr(nil, i, o)
	case opReadlink:
		var target []byte
		target, status = c.handler.Readlink(nil, h)
		size = copy(r.space(MaxRead), target)
	case opOpen:
		i := in[fuse.OpenIn](r)
		var o *fuse.OpenOut
		o, size = out[fuse.OpenOut](r)
		status = c.handler.Open(nil, i, o)
	case opOpendir:
		i := in[fuse.OpenIn](r)
		var o *fuse.OpenOut
		o, size = out[fuse.OpenOut](r)
		status = c.handler.OpenDir(nil, i, o)
	case opRead:
		i := in[fuse.ReadIn](r)
		buf := r.space(i.Size)
		var res fuse.ReadResult
		res, status = c.handler.Read(nil, i, buf)
		if status == fuse.OK {
			data, _ := res.Bytes(nil)
			size = len(data)
			res.Done()
		}
	case opReaddir:
		i := in[fuse.ReadIn](r)
		buf := r.space(i.Size)
		clear(buf)
		status = c.handler.ReadDir(nil, i, fuse.NewDirEntryList(buf, i.Offset))
		for size+24 <= len(buf) {
			n := *(*uint32)(unsafe.Pointer(&buf[size+16]))
			if n == 0 {
				break
			}
			size += 24 + (int(n)+7)&^7
		}
	case opRelease:
		c.handler.Release(nil, in[fuse.ReleaseIn](r))
		status = fuse.OK
	case opReleasedir:
		status = fuse.OK
	case opStatfs:
		var o *fuse.StatfsOut
		o, size = out[fuse.StatfsOut](r)
		status = c.handler.StatFs(nil, h, o)
	case opForget:
		i := in[fuse.ForgetIn](r)
		c.handler.Forget(i.NodeId, i.Nlookup)
		reply = false
	case opBatchForget:
		reply = false
		c.forgetAll(r)
	case opDestroy:
		status = fuse.OK
	}
	return size, status, reply
}

type forgetOne struct{ Node, Lookups uint64 }

// forgetAll reads BATCH_FORGET: a count and as many pairs.
func (c *Conn) forgetAll(r *request) {
	const head = inHeaderBytes + 8
	if len(r.in) < head {
		return
	}
	n := int(*(*uint32)(unsafe.Pointer(&r.in[inHeaderBytes])))
	for i := 0; i < n && head+(i+1)*16 <= len(r.in); i++ {
		f := (*forgetOne)(unsafe.Pointer(&r.in[head+i*16]))
		c.handler.Forget(f.Node, f.Lookups)
	}
}

func rawRead(fd uintptr, buf []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
	return int(n), errno
}

func rawWrite(fd uintptr, buf []byte) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
	return errno
}
