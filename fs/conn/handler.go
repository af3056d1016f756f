package conn

import "github.com/hanwen/go-fuse/v2/fuse"

// Handler answers the requests that a read-only file system of files, directories and links gets; Conn answers all others with ENOSYS, after which
// the kernel does not ask again. It is called by several goroutines at a time. What it is given stands until it returns.
type Handler interface {
	Lookup(in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status
	Forget(node, lookups uint64)
	GetAttr(in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status
	Readlink(in *fuse.InHeader) ([]byte, fuse.Status)
	Open(in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status
	Read(in *fuse.ReadIn, buf []byte) (int, fuse.Status) // how many bytes of buf it filled
	Release(in *fuse.ReleaseIn)
	OpenDir(in *fuse.OpenIn) fuse.Status
	ReadDir(in *fuse.ReadIn, entries *fuse.DirEntryList) fuse.Status
	StatFs(out *fuse.StatfsOut)
}
