package conn

import (
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// wanted are the abilities that lensfs makes use of.
const wanted = fuse.CAP_AUTO_INVAL_DATA | // a new mtime drops the page
	fuse.CAP_NO_OPEN_SUPPORT |
	fuse.CAP_PARALLEL_DIROPS

// initialize answers the first request, INIT. Version 7.31 (Linux 5.4) has all that is needed; openat2 needs 5.6 anyway.
func (c *Conn) initialize() error {
	r := newRequest()
	if err := c.next(r); err != nil {
		return fmt.Errorf("/dev/fuse: first request: %w", err)
	}
	i := in[fuse.InitIn](r)
	if i.Opcode != opInit || i.Major != 7 || i.Minor < 31 {
		return errProtocol
	}
	*out[fuse.InitOut](r) = fuse.InitOut{
		Major:               7,
		Minor:               31,
		MaxReadAhead:        i.MaxReadAhead,
		Flags:               i.Flags & wanted,
		MaxBackground:       maxBackground,
		CongestionThreshold: maxBackground * 3 / 4,
		MaxWrite:            maxWrite,
		TimeGran:            1,
	}
	size := outHeaderBytes + int(unsafe.Sizeof(fuse.InitOut{}))
	*r.outHeader() = fuse.OutHeader{Length: uint32(size), Unique: i.Unique}
	if errno := rawWrite(c.fd, r.out[:size]); errno != 0 {
		return fmt.Errorf("/dev/fuse: answer to INIT: %w", errno)
	}
	return nil
}
