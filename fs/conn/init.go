package conn

import (
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// wanted are the abilities that lensfs makes use of.
const wanted = fuse.CAP_AUTO_INVAL_DATA | // a new mtime drops the page
	fuse.CAP_NO_OPEN_SUPPORT |
	fuse.CAP_PARALLEL_DIROPS

// Agreed is what was agreed with the kernel when a connection was made. It holds as long as the connection, for every process that serves it.
type Agreed struct {
	Kernel   uint32 // the minor version of the protocol that the kernel speaks
	Minor    uint32 // and the one that is spoken
	MaxWrite uint32 // of a request, in bytes
	Flags    uint32 // abilities
}

// Suits says with an error why a connection cannot be served.
func (a Agreed) Suits() error {
	if a.Minor != minor || a.MaxWrite > maxWrite || a.Flags&^wanted != 0 {
		return fmt.Errorf("what was agreed with the kernel when it was mounted, %+v, is not what this version of lensfs can serve", a)
	}
	return nil
}

// minor is the version of the protocol that is spoken, 7.31 (Linux 5.4). It has all that is needed; openat2 needs 5.6 anyway.
const minor = 31

// Initialize answers the first request, INIT, on fd, a descriptor of /dev/fuse that has been mounted and not been read from yet.
func Initialize(fd int) (Agreed, error) {
	r := &request{in: make([]byte, minReadBuffer), out: make([]byte, outHeaderBytes+int(unsafe.Sizeof(fuse.InitOut{})))}
	n, err := unix.Read(fd, r.in)
	if err != nil || n < inHeaderBytes {
		return Agreed{}, fmt.Errorf("/dev/fuse: first request of %d bytes: %w", n, err)
	}
	r.in = r.in[:n]
	i := in[fuse.InitIn](r)
	if i.Opcode != opInit || i.Major != 7 || i.Minor < minor {
		return Agreed{}, errProtocol
	}
	a := Agreed{Kernel: i.Minor, Minor: minor, MaxWrite: maxWrite, Flags: i.Flags & wanted}
	*out[fuse.InitOut](r) = fuse.InitOut{
		Major:               7,
		Minor:               a.Minor,
		MaxReadAhead:        i.MaxReadAhead,
		Flags:               a.Flags,
		MaxBackground:       maxBackground,
		CongestionThreshold: maxBackground * 3 / 4,
		MaxWrite:            a.MaxWrite,
		TimeGran:            1,
	}
	*r.outHeader() = fuse.OutHeader{Length: uint32(len(r.out)), Unique: i.Unique}
	if _, err := unix.Write(fd, r.out); err != nil {
		return Agreed{}, fmt.Errorf("/dev/fuse: answer to INIT: %w", err)
	}
	return a, nil
}
