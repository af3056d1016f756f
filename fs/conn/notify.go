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
