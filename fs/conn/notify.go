package conn

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// InodeNotifyStoreCache puts data into the kernel's page cache of a node at an offset. It may wait for a READ of that page to be answered.
func (c *Conn) InodeNotifyStoreCache(node uint64, offset int64, data []byte) fuse.Status {
	head := fuse.NotifyStoreOut{Nodeid: node, Offset: uint64(offset), Size: uint32(len(data))}
	return c.notify(-fuse.NOTIFY_STORE_CACHE, bytesOf(&head), data)
}

// EntryNotify has the kernel forget the entry called name in the directory parent.
func (c *Conn) EntryNotify(parent uint64, name string) fuse.Status {
	head := fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}
	return c.notify(-fuse.NOTIFY_INVAL_ENTRY, bytesOf(&head), append([]byte(name), 0))
}

// NewDropper makes a function that has the kernel drop its pages of a node and ask for the attributes anew. It may wait for a READ of a page to be
// answered. What the function needs is made once, for it is called for each text that was read; one call at a time.
func (c *Conn) NewDropper() func(node uint64) {
	var m struct {
		fuse.OutHeader
		fuse.NotifyInvalInodeOut // Off and Length 0: all of it
	}
	message := unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m))
	m.OutHeader = fuse.OutHeader{Length: uint32(len(message)), Status: -fuse.NOTIFY_INVAL_INODE}
	send := func(fd uintptr) { unix.Write(int(fd), message) } // ENOENT: the kernel has forgotten the node
	return func(node uint64) {
		m.Ino = node
		c.raw.Control(send)
	}
}

func (c *Conn) notify(code int32, head, data []byte) fuse.Status {
	h := fuse.OutHeader{Length: uint32(outHeaderBytes + len(head) + len(data)), Status: code}
	message := append(append(bytesOf(&h), head...), data...)
	var err error
	if gone := c.raw.Control(func(fd uintptr) { _, err = unix.Write(int(fd), message) }); gone != nil {
		return fuse.ENODEV
	}
	return fuse.ToStatus(err)
}

func bytesOf[T any](t *T) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(t)), unsafe.Sizeof(*t))...)
}
