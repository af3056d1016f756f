package fs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// shared serves the tree that LXCFS has, at LXCFS's place: one inode for all, the caller looked up at each read.
//
// Nothing of it may stay in the kernel's page cache, which is one for all containers: reads go past it (FOPEN_DIRECT_IO), and those that cannot
// (splice, sendfile, a page fault in a mapping) are refused, see Read.
type shared struct {
	tree    *tree
	render  *renderer
	large   largeFiles
	handles *handles
}

func newShared(t *tree, r *renderer, large largeFiles, kept *opened) *shared {
	return &shared{tree: t, render: r, large: large, handles: newHandles(kept)}
}

// forever is how long the kernel may remember what never changes.
const forever = 24 * time.Hour

func (s *shared) Lookup(in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	f := s.tree.child(in.NodeId, name)
	if f == nil && passes(in.NodeId) {
		return s.lookupCPU(in, name, out)
	}
	if f == nil {
		out.SetEntryTimeout(forever) // node id 0: it does not exist, and need not be asked for again
		return fuse.OK
	}
	out.NodeId = f.number
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(s.attr(f, in.Pid, &out.Attr))
	return fuse.OK
}

func (s *shared) GetAttr(in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f := s.tree.file(in.NodeId)
	if f == nil {
		return s.cpuAttr(in.NodeId, out)
	}
	out.SetTimeout(s.attr(f, in.Pid, &out.Attr))
	return fuse.OK
}

// attr fills in the attributes of f as pid is to see them, and says how long they hold. With default_permissions the kernel wants them at every
// open, so they have to be kept, and then they are the same for every container: the size of a text that fits into a page is said to be a page, as
// sysfs does, which programs know not to believe (tail, wc) and which lets busybox's cat try sendfile before it reads. A larger text has the size
// that this caller will read, asked for each time: tail starts at its end.
func (s *shared) attr(f *file, pid uint32, out *fuse.Attr) time.Duration {
	fillAttr(f, f.number, out)
	if f.number == cpuDirNumber {
		return s.render.hostAttr(f.number, out)
	}
	if f.isDir() {
		return forever
	}
	if !s.large[f.number] {
		out.Size = pageSize
		setTimes(out, time.Now())
		return forever
	}
	if snap, err := s.render.lock(s.render.of(pid), f); err == nil {
		out.Size = uint64(len(snap.text))
		setTimes(out, snap.at)
		snap.mu.Unlock()
	}
	return 0
}

func fillAttr(f *file, ino uint64, out *fuse.Attr) {
	out.Ino = ino
	out.Mode = f.mode
	out.Nlink = 1
	out.Blksize = 4096
	if f.isDir() {
		out.Nlink = 2
	}
}

func setTimes(out *fuse.Attr, at time.Time) {
	out.SetTimes(&at, &at, &at)
}

func (s *shared) Open(in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return fuse.EROFS
	}
	out.Fh = s.handles.add()
	// NOFLUSH (Linux 5.16): else every close(2) is a request, and one that a killed task cannot leave.
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

// fuseReadLockOwner is set in the flags of a READ that goes past the page cache: fs/fuse/file.c gives the owner in fuse_direct_io only.
const fuseReadLockOwner = 1 << 1

// Read answers with what the caller's container is to see.
//
// A READ that would fill the page cache is refused: its page would be there for every other container (LXCFS hands one container's
// meminfo to another's sendfile that way). EINVAL is what makes cat, cp and busybox fall back from splicing to reading.
func (s *shared) Read(in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	f := s.tree.file(in.NodeId)
	if f == nil && !passes(in.NodeId) {
		return 0, fuse.ENOENT
	}
	if f != nil && f.isDir() {
		return 0, fuse.EISDIR
	}
	if in.ReadFlags&fuseReadLockOwner == 0 {
		return 0, fuse.EINVAL
	}
	stats := &s.render.stats.Files[cpuDirNumber]
	if f != nil {
		stats = &s.render.stats.Files[f.number]
	}
	stats.reads.Add(1)
	h := s.handles.get(in.Fh)
	n := 0
	var err error
	var begun time.Time // of a text; a READ that goes on with one has nothing to wait for, and is not timed
	if f == nil {
		n, err = h.readText(buf, in.Offset, func(dst []byte) ([]byte, error) {
			begun = time.Now()
			return s.render.cpus.Read(dst, in.NodeId, s.render.shown(s.render.resolver.Of(in.Pid)))
		})
	} else {
		n, err = h.read(buf, in.Offset, func() (*snapshot, error) {
			begun = time.Now()
			v := s.render.of(in.Pid)
			if f.hidden() && !v.container.IsHost() {
				return nil, syscall.EPERM
			}
			v.requests.Add(1)
			return s.render.lockSince(begun, v, f)
		})
	}
	if !begun.IsZero() {
		stats.read.add(time.Since(begun))
	}
	if err != nil {
		return 0, status(err)
	}
	return n, fuse.OK
}

func (s *shared) Release(in *fuse.ReleaseIn) { s.handles.release(in.Fh) }

func (s *shared) OpenDir(in *fuse.OpenIn) fuse.Status {
	if passes(in.NodeId) {
		return fuse.OK
	}
	f := s.tree.file(in.NodeId)
	if f == nil {
		return fuse.ENOENT
	}
	if !f.isDir() {
		return fuse.ENOTDIR
	}
	return fuse.OK
}

func (s *shared) ReadDir(in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if passes(in.NodeId) {
		return s.listCPUs(in, out)
	}
	f := s.tree.file(in.NodeId)
	if f == nil {
		return fuse.ENOENT
	}
	up := s.tree.parents[f.number]
	entries := []fuse.DirEntry{
		{Name: ".", Ino: f.number, Mode: f.mode},
		{Name: "..", Ino: up.number, Mode: up.mode},
	}
	for _, child := range s.tree.children[f.number] {
		if child.hidden() {
			continue
		}
		entries = append(entries, fuse.DirEntry{Name: child.name(), Ino: child.number, Mode: child.mode})
	}
	return list(out, entries, in.Offset)
}

// list gives the entries from the one that a reader has come to.
func list(out *fuse.DirEntryList, entries []fuse.DirEntry, from uint64) fuse.Status {
	for _, e := range entries[min(from, uint64(len(entries))):] {
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (s *shared) StatFs(out *fuse.StatfsOut) { statFs(out) }

func statFs(out *fuse.StatfsOut) { out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255 }

// Forget has nothing to do: what a node means can be worked out from its number.
func (s *shared) Forget(uint64, uint64) {}
