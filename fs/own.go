package fs

import (
	"sync/atomic"
	"syscall"
	"time"

	"lensfs/sysview"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// own serves a directory of inodes for each container, which the kernel's page cache may keep for a tick: a read then asks us nothing.
//
//	self               a link that leads every caller to his own container's directory, and processes of the host to the shared tree
//	ct/NAME/proc/…     a container's files
//
// OPEN is answered ENOSYS (Linux 3.16, no_open): from then on the kernel opens and closes by itself. That holds for the whole connection, so what
// may not be kept is on the other mount, and a link to there here.
type own struct {
	tree    *tree
	render  *renderer
	records *records
	shared  string     // where the shared tree is
	direct  largeFiles // not kept
	notify  notifier

	outdated *outdated
	storing  atomic.Int32 // requests that wait for the kernel, see maxStoring
}

// notifier is what a connection can tell the kernel unasked, and how a request is answered that has to wait for another: one thing that tests stand in for.
type notifier interface {
	Aside(wait func())
	InodeNotifyStoreCache(node uint64, offset int64, data []byte) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
}

// The nodes above the containers' directories. A container's node is its number, shifted, and the number of the file: it can be worked out by any
// later daemon that has the table. A file's number has at most 36 bits, which leaves 28 for containers: 2^28 of them, one a second for eight years.
const (
	rootNode    = 1
	selfNode    = 2
	ctNode      = 3
	numberShift = sysview.NumberBits
	maxRecord   = 1<<(64-numberShift) - 1
)

func node(rec *record, f *file) uint64 { return rec.number<<numberShift | f.number }

// at gives what a node id means; nil, nil for one that means nothing any more.
func (o *own) at(id uint64) (*record, *file) {
	rec := o.records.get(id >> numberShift)
	if rec == nil {
		return nil, nil
	}
	return rec, o.tree.file(id & (1<<numberShift - 1))
}

func (o *own) Lookup(in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch {
	case in.NodeId == rootNode && name == "self":
		out.NodeId = selfNode
	case in.NodeId == rootNode && name == "ct":
		out.NodeId = ctNode
	case in.NodeId == rootNode:
		out.SetEntryTimeout(forever) // there is no such name, and never will be
		return fuse.OK
	case in.NodeId == ctNode:
		return o.lookupContainer(in.Pid, name, out)
	default:
		return o.lookupFile(in.NodeId, name, out)
	}
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	topAttr(out.NodeId, &out.Attr)
	return fuse.OK
}

// lookupContainer lets the host's processes and the container's own through. The name is not kept (it may be the next container's soon, and is
// asked for anew by each who walks over it, so nobody gets in on another's answer); what is bound never walks.
func (o *own) lookupContainer(pid uint32, name string, out *fuse.EntryOut) fuse.Status {
	rec := o.records.named(name)
	if rec == nil {
		return fuse.ENOENT
	}
	if who := o.render.resolver.Of(pid); !who.IsHost() && who != rec.view.container {
		return fuse.ENOENT
	}
	f := o.tree.file(1)
	rec.kept.lookups().Add(1)
	out.NodeId = node(rec, f)
	out.SetAttrTimeout(o.attr(rec, f, &out.Attr, false))
	return fuse.OK
}

// lookupFile never starts the clock of freshness: the attributes it gives hold for no time. They are those given last, for another reader may be at
// the file already.
func (o *own) lookupFile(dir uint64, name string, out *fuse.EntryOut) fuse.Status {
	rec, d := o.at(dir)
	if rec == nil || d == nil {
		return fuse.ENOENT
	}
	out.SetEntryTimeout(forever)
	f := o.tree.child(d.number, name)
	if f == nil && d.number == cpuDirNumber {
		return o.lookupCPU(rec, name, out)
	}
	if f == nil || f.hidden() {
		return fuse.OK // no such file in this version's tree; none will come while this connection lives
	}
	rec.kept.lookups().Add(1)
	out.NodeId = node(rec, f)
	out.SetAttrTimeout(o.attr(rec, f, &out.Attr, false))
	return fuse.OK
}

func (o *own) GetAttr(in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId <= ctNode {
		topAttr(in.NodeId, &out.Attr)
		out.SetTimeout(forever)
		return fuse.OK
	}
	rec, f := o.at(in.NodeId)
	if link := o.cpuLink(in.NodeId); rec != nil && f == nil && link != "" {
		linkAttr(in.NodeId, link, &out.Attr)
		out.SetTimeout(forever)
		return fuse.OK
	}
	if rec == nil || f == nil {
		return fuse.Status(syscall.ESTALE)
	}
	out.SetTimeout(o.attr(rec, f, &out.Attr, true))
	return fuse.OK
}

// attr fills in the attributes of a container's f and says how long they hold; fresh is as in fileAttr.
func (o *own) attr(rec *record, f *file, out *fuse.Attr, fresh bool) time.Duration {
	fillAttr(f, node(rec, f), out)
	switch {
	case o.direct[f.number]:
		linkAttr(node(rec, f), o.target(f.path), out)
		return forever
	case f.isDir():
		return forever
	}
	return o.fileAttr(rec, f, out, fresh)
}

func topAttr(id uint64, out *fuse.Attr) {
	out.Ino, out.Nlink, out.Blksize = id, 2, 4096
	switch id {
	case rootNode:
		out.Mode = dir755
	case selfNode:
		out.Mode, out.Nlink = syscall.S_IFLNK|0o777, 1
	case ctNode:
		// Whoever knows the name gets through, as a hook running under a mapped uid must; to list is the host's.
		out.Mode = syscall.S_IFDIR | 0o711
	}
}

func (o *own) Readlink(in *fuse.InHeader) ([]byte, fuse.Status) {
	if in.NodeId == selfNode {
		return o.self(in.Pid)
	}
	rec, f := o.at(in.NodeId)
	if link := o.cpuLink(in.NodeId); rec != nil && f == nil && link != "" {
		return []byte(link), fuse.OK
	}
	if f == nil || !o.direct[f.number] {
		return nil, fuse.EINVAL
	}
	return []byte(o.target(f.path)), fuse.OK
}

// self says where a caller's own files are.
func (o *own) self(pid uint32) ([]byte, fuse.Status) {
	v := o.render.of(pid)
	if v.container.IsHost() {
		return []byte(o.shared), fuse.OK
	}
	rec, err := o.records.of(v)
	if err != nil {
		o.render.faults.report("self", err)
		return []byte(o.shared), fuse.OK // there he sees the same, only slower
	}
	return []byte("ct/" + rec.name), fuse.OK
}

// Release is never asked for: nothing is opened.
func (o *own) Release(*fuse.ReleaseIn) {}

func (o *own) Forget(id, lookups uint64) {
	if id > ctNode {
		o.records.forget(id>>numberShift, lookups)
	}
}

func (o *own) OpenDir(*fuse.OpenIn) fuse.Status { return fuse.OK }

func (o *own) ReadDir(in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	entries := []fuse.DirEntry{{Name: ".", Ino: in.NodeId, Mode: syscall.S_IFDIR}, {Name: "..", Ino: rootNode, Mode: syscall.S_IFDIR}}
	switch in.NodeId {
	case rootNode:
		entries = append(entries, fuse.DirEntry{Name: "self", Ino: selfNode, Mode: syscall.S_IFLNK}, fuse.DirEntry{Name: "ct", Ino: ctNode, Mode: syscall.S_IFDIR})
	case ctNode:
		who := o.render.resolver.Of(in.Pid)
		for _, rec := range o.records.all() {
			if who.IsHost() || who == rec.view.container {
				entries = append(entries, fuse.DirEntry{Name: rec.name, Ino: node(rec, o.tree.file(1)), Mode: syscall.S_IFDIR})
			}
		}
	default:
		rec, d := o.at(in.NodeId)
		if rec == nil || d == nil {
			return fuse.Status(syscall.ESTALE)
		}
		entries[1].Ino = ctNode
		if up := o.tree.parents[d.number]; up != d {
			entries[1].Ino = node(rec, up)
		}
		if d.number == cpuDirNumber {
			return o.listCPUs(rec, entries, in.Offset, out)
		}
		for _, f := range o.tree.children[d.number] {
			if f.hidden() {
				continue
			}
			mode := f.mode
			if o.direct[f.number] {
				mode = syscall.S_IFLNK
			}
			entries = append(entries, fuse.DirEntry{Name: f.name(), Ino: node(rec, f), Mode: mode})
		}
	}
	return list(out, entries, in.Offset)
}

// StatFs is answered since runc asks it of what it binds when the container has a user namespace.
func (o *own) StatFs(out *fuse.StatfsOut) { statFs(out) }

// ended has the kernel forget a container that is no more: its FORGETs then let go of the record.
func (o *own) ended(v *view) {
	if name := o.records.end(v); name != "" {
		o.notify.EntryNotify(ctNode, name)
	}
}
