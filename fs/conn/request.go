package conn

import (
	"bytes"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The requests that are understood, as linux/fuse.h numbers them.
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

// opNames are for --debug. The rest are the requests that a kernel may ask of a read-only file system.
var opNames = [...]string{
	opLookup: "LOOKUP", opForget: "FORGET", opGetattr: "GETATTR", opReadlink: "READLINK", opOpen: "OPEN", opRead: "READ", opStatfs: "STATFS",
	opRelease: "RELEASE", opInit: "INIT", opOpendir: "OPENDIR", opReaddir: "READDIR", opReleasedir: "RELEASEDIR", opDestroy: "DESTROY",
	opBatchForget: "BATCH_FORGET",
	4:             "SETATTR", 22: "GETXATTR", 23: "LISTXATTR", 25: "FLUSH", 34: "ACCESS", 36: "INTERRUPT", 39: "IOCTL", 40: "POLL", 46: "LSEEK", 52: "STATX",
}

func opName(op uint32) string {
	if op < uint32(len(opNames)) && opNames[op] != "" {
		return opNames[op]
	}
	return "OTHER"
}

const (
	inHeaderBytes  = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeaderBytes = int(unsafe.Sizeof(fuse.OutHeader{}))
	direntBytes    = 24   // struct fuse_dirent, without the name
	minReadBuffer  = 8192 // FUSE_MIN_READ_BUFFER: read(2) wants no less, and with maxWrite no request is longer
)

// request is a reader's memory: a request as the kernel wrote it, and the answer behind room for its header.
type request struct {
	slot slot
	in   []byte // in the slot
	out  []byte

	take  func(fd uintptr) bool // reads the next request; made once, for it is called for each
	n     int                   // and says how long it is
	errno unix.Errno
}

func newRequest(t slot) *request {
	r := &request{slot: t, in: t.request(), out: make([]byte, outHeaderBytes+4096)}
	r.take = func(fd uintptr) bool {
		r.n, r.errno = rawRead(fd, r.in[:cap(r.in)])
		return r.errno != unix.EAGAIN
	}
	return r
}

func (r *request) header() *fuse.InHeader { return in[fuse.InHeader](r) }

func (r *request) outHeader() *fuse.OutHeader {
	return (*fuse.OutHeader)(unsafe.Pointer(unsafe.SliceData(r.out)))
}

// in gives the request as a T. One that the kernel made too short would be a panic, and EIO.
func in[T any](r *request) *T {
	var t T
	_ = r.in[unsafe.Sizeof(t)-1]
	return (*T)(unsafe.Pointer(&r.in[0]))
}

// out gives the place of the answer as a T, all zero.
func out[T any](r *request) *T {
	var zero T
	t := (*T)(unsafe.Pointer(&r.out[outHeaderBytes]))
	*t = zero
	return t
}

// name gives the string behind the header.
func (r *request) name() string {
	name, _, _ := bytes.Cut(r.in[inHeaderBytes:], []byte{0})
	return string(name)
}

// space gives room for n bytes of answer, at most those of a READ.
func (r *request) space(n uint32) []byte {
	end := outHeaderBytes + int(min(n, MaxRead))
	if len(r.out) < end {
		r.out = make([]byte, end)
	}
	return r.out[outHeaderBytes:end]
}

// handle has the handler answer. It gives the size of the answer, and whether there is one at all.
func (c *Conn) handle(r *request) (size int, status fuse.Status, reply bool) {
	defer c.survive(&status, &reply)
	switch h := r.header(); h.Opcode {
	case opLookup:
		status = c.handler.Lookup(h, r.name(), out[fuse.EntryOut](r))
		return int(unsafe.Sizeof(fuse.EntryOut{})), status, true
	case opForget:
		f := in[fuse.ForgetIn](r)
		r.slot.begun().Store(1)
		c.handler.Forget(f.NodeId, f.Nlookup)
		return 0, fuse.OK, false
	case opBatchForget:
		r.slot.begun().Store(1)
		c.forgetAll(r)
		return 0, fuse.OK, false
	case opGetattr:
		status = c.handler.GetAttr(in[fuse.GetAttrIn](r), out[fuse.AttrOut](r))
		return int(unsafe.Sizeof(fuse.AttrOut{})), status, true
	case opReadlink:
		target, status := c.handler.Readlink(h)
		return copy(r.space(uint32(len(target))), target), status, true
	case opOpen:
		status = c.handler.Open(in[fuse.OpenIn](r), out[fuse.OpenOut](r))
		return int(unsafe.Sizeof(fuse.OpenOut{})), status, true
	case opOpendir:
		out[fuse.OpenOut](r)
		return int(unsafe.Sizeof(fuse.OpenOut{})), c.handler.OpenDir(in[fuse.OpenIn](r)), true
	case opRead:
		i := in[fuse.ReadIn](r)
		size, status = c.handler.Read(i, r.space(i.Size))
		return size, status, true
	case opReaddir:
		i := in[fuse.ReadIn](r)
		buf := r.space(i.Size)
		clear(buf)
		status = c.handler.ReadDir(i, fuse.NewDirEntryList(buf, i.Offset))
		return entriesSize(buf), status, true
	case opStatfs:
		c.handler.StatFs(out[fuse.StatfsOut](r))
		return int(unsafe.Sizeof(fuse.StatfsOut{})), fuse.OK, true
	case opRelease:
		c.handler.Release(in[fuse.ReleaseIn](r))
		return 0, fuse.OK, true
	case opReleasedir, opDestroy:
		return 0, fuse.OK, true
	default:
		return 0, fuse.ENOSYS, true
	}
}

// entriesSize finds the end of a list of entries in a buffer that was all zero: go-fuse's DirEntryList does not tell. No name is empty.
func entriesSize(buf []byte) int {
	size := 0
	for size+direntBytes < len(buf) {
		name := int(*(*uint32)(unsafe.Pointer(&buf[size+16])))
		if name == 0 {
			break
		}
		size += direntBytes + (name+7)&^7
	}
	return size
}

// forgetAll reads BATCH_FORGET: a count and as many pairs of a node and its lookups.
func (c *Conn) forgetAll(r *request) {
	count := *(*uint32)(unsafe.Pointer(&r.in[inHeaderBytes]))
	pairs := r.in[inHeaderBytes+8:]
	for ; count > 0; count-- {
		_ = pairs[15]
		f := (*[2]uint64)(unsafe.Pointer(&pairs[0]))
		c.handler.Forget(f[0], f[1])
		pairs = pairs[16:]
	}
}
