package fs

import (
	"path"
	"strings"
	"syscall"
	"time"

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
	fuse.RawFileSystem
	tree    *tree
	render  *renderer
	records *records
	shared  string // where the shared tree is
	direct  [maxNumber]bool
	notify  notifier
}

// notifier is what a go-fuse server can tell the kernel unasked.
type notifier interface {
	InodeNotifyStoreCache(node uint64, offset int64, data []byte) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
}

// findUnkeepable looks which files may exceed a page on this host. Two pages of the kernel's may be of two texts, so such a file is not kept.
// No container's text is longer than the host's.
func (o *own) findUnkeepable() error {
	for _, f := range o.tree.byNumber {
		if f == nil || f.isDir() {
			continue
		}
		text, err := o.render.render(nil, f, o.render.resolver.Host())
		if err != nil {
			return err
		}
		o.direct[f.number] = len(text) > pageSize
	}
	return nil
}

// The nodes above the containers' directories. A container's node is its number, shifted, and the number of the file: it can be worked out by any
// later daemon that has the table.
const (
	rootNode    = 1
	selfNode    = 2
	ctNode      = 3
	numberShift = 16
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

func (o *own) String() string { return fsName }

func (o *own) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) (code fuse.Status) {
	defer o.render.survive(&code)
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
	rec.lookups.Add(1)
	out.NodeId = node(rec, f)
	out.SetAttrTimeout(forever)
	fillAttr(f, out.NodeId, &out.Attr)
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
	if f == nil {
		return fuse.OK // no such file in this version's tree; none will come while this connection lives
	}
	rec.lookups.Add(1)
	out.NodeId = node(rec, f)
	fillAttr(f, out.NodeId, &out.Attr)
	switch {
	case o.direct[f.number]:
		o.linkAttr(f, &out.Attr)
		out.SetAttrTimeout(forever)
	case f.isDir():
		out.SetAttrTimeout(forever)
	default:
		o.fileAttr(rec, f, &out.Attr, false)
	}
	return fuse.OK
}

func (o *own) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) (code fuse.Status) {
	defer o.render.survive(&code)
	if in.NodeId <= ctNode {
		topAttr(in.NodeId, &out.Attr)
		out.SetTimeout(forever)
		return fuse.OK
	}
	rec, f := o.at(in.NodeId)
	if rec == nil || f == nil {
		return fuse.Status(syscall.ESTALE)
	}
	fillAttr(f, in.NodeId, &out.Attr)
	switch {
	case o.direct[f.number]:
		o.linkAttr(f, &out.Attr)
		out.SetTimeout(forever)
	case f.isDir():
		out.SetTimeout(forever)
	default:
		out.SetTimeout(o.fileAttr(rec, f, &out.Attr, true))
	}
	return fuse.OK
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

// linkAttr makes a file that may not be kept a link to the other mount.
func (o *own) linkAttr(f *file, out *fuse.Attr) {
	out.Mode = syscall.S_IFLNK | 0o777
	out.Size = uint64(len(o.target(f)))
}

func (o *own) target(f *file) string { return path.Join(o.shared, f.path) }

// fileAttr gives size and mtime of the text that the next READ will have, with fresh a text of this tick, and how long they hold.
// One snapshot has one mtime: the first of a herd of readers has the page dropped, the others find it there.
func (o *own) fileAttr(rec *record, f *file, out *fuse.Attr, fresh bool) time.Duration {
	p := &rec.pages[f.number]
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	young := rec.view.container.Young()
	if p.at.IsZero() || fresh && (young || p.looked || p.timeout(now) == 0) {
		o.renew(rec, f, p)
		p.looked = !fresh
	}
	out.Size = uint64(p.size)
	setTimes(out, p.at)
	if young || p.growing {
		return 0
	}
	return p.timeout(now)
}

// renew publishes the container's present snapshot. The page is locked, but for the time in which the kernel is told of a longer text:
// to be told, it may have to wait for a READ of the page, which we answer.
func (o *own) renew(rec *record, f *file, p *page) {
	if p.growing {
		return // what there is will do until the longer text is there
	}
	s, err := o.render.lock(rec.view, f, p.looked)
	if err != nil {
		return
	}
	if p.at.IsZero() || len(s.text) <= p.size {
		p.publish(s.text, s.at)
		s.mu.Unlock()
		return
	}
	text, at := append([]byte(nil), s.text...), s.at
	s.mu.Unlock()
	p.growing = true
	p.mu.Unlock()
	o.notify.InodeNotifyStoreCache(node(rec, f), int64(len(text)-1), newline) // ENOENT: the kernel has no size of it to be mended
	p.mu.Lock()
	p.growing = false
	p.publish(text, at)
}

var newline = []byte{'\n'}

func (o *own) Readlink(_ <-chan struct{}, in *fuse.InHeader) (target []byte, code fuse.Status) {
	defer o.render.survive(&code)
	if in.NodeId == selfNode {
		return o.self(in.Pid)
	}
	_, f := o.at(in.NodeId)
	if f == nil || !o.direct[f.number] {
		return nil, fuse.EINVAL
	}
	return []byte(o.target(f)), fuse.OK
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

// Open says that there is nothing to be done to open a file, here and ever.
func (o *own) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

func (o *own) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Read gives the text whose size the last GETATTR told. Who reads says nothing: what he gets is kept for others.
func (o *own) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (res fuse.ReadResult, code fuse.Status) {
	defer o.render.survive(&code)
	rec, f := o.at(in.NodeId)
	if rec == nil || f == nil || f.isDir() {
		return nil, fuse.Status(syscall.ESTALE)
	}
	p := &rec.pages[f.number]
	p.mu.Lock()
	if p.at.IsZero() { // asked by a kernel that had its size from a daemon before us
		o.renew(rec, f, p)
	}
	p.mu.Unlock()
	o.render.stats.Requests.Add(1)
	return newResult(buf[:p.read(buf, in.Offset)]), fuse.OK
}

func (o *own) Forget(id, lookups uint64) {
	if id > ctNode {
		o.records.forget(id>>numberShift, lookups)
	}
}

func (o *own) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (o *own) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) (code fuse.Status) {
	defer o.render.survive(&code)
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
		for _, f := range o.tree.children[d.number] {
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
func (o *own) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	return statFs(out)
}

// ended has the kernel forget a container that is no more: its FORGETs then let go of the record.
func (o *own) ended(v *view) {
	if name := o.records.end(v); name != "" && !strings.Contains(name, "/") {
		o.notify.EntryNotify(ctNode, name)
	}
}
