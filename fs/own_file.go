package fs

import (
	"path"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// linkAttr is for what may not be kept: its name is a link to the other mount.
func linkAttr(ino uint64, target string, out *fuse.Attr) {
	out.Ino, out.Nlink, out.Blksize = ino, 1, pageSize
	out.Mode = syscall.S_IFLNK | 0o777
	out.Size = uint64(len(target))
}

func (o *own) target(name string) string { return path.Join(o.shared, name) }

// fileAttr gives size and mtime of the text that the next READ will have, with fresh a text of this tick, and how long they hold:
// without it for no time.
// One snapshot has one mtime: the first of a herd of readers has the page dropped, the others find it there.
func (o *own) fileAttr(rec *record, f *file, out *fuse.Attr, fresh bool) time.Duration {
	p := rec.pages.of(f)
	begun := time.Now()
	now := begun
	if o.lock(p) {
		now = time.Now()
	}
	defer p.mu.Unlock()
	young := rec.view.container.Young()
	if p.at.IsZero() || fresh && (young || p.looked || p.timeout(now) == 0) {
		o.renew(rec, f, p)
		p.looked = !fresh
	}
	out.Size = uint64(p.size)
	setTimes(out, p.at)
	now = time.Now() // not of when we were asked: to render, and to wait for others who do, takes its time
	if fresh {
		stats := &o.render.stats.Files[f.number]
		stats.getattrs.Add(1)
		stats.getattr.add(now.Sub(begun))
		rec.view.requests.Add(1)
	}
	if !fresh || young || p.growing {
		return 0
	}
	return p.timeout(now)
}

// renew publishes the container's present text. The page is locked, but for the time in which the kernel is told of a longer text:
// to be told, it may have to wait for a READ of the page, which we answer.
func (o *own) renew(rec *record, f *file, p *page) {
	if p.growing {
		o.awaitGrown(p)
		return
	}
	buf := o.render.room()
	defer o.render.rooms.Put(buf)
	at := time.Now()
	text, err := o.render.renew((*buf)[:0], rec.view, f, !p.at.IsZero())
	if *buf = text; err != nil {
		return
	}
	told := rec.kept.size(f)
	if p.at.IsZero() && told.Load() > 0 {
		o.takeOver(rec, f, p, text, at)
		return
	}
	if p.at.IsZero() || len(text) <= p.size {
		p.publish(text, at)
		told.Store(uint32(p.size))
		return
	}
	if o.storing.Add(1) > maxStoring {
		o.storing.Add(-1)
		return // as if it were growing already
	}
	p.growing, p.grown = true, make(chan struct{})
	p.mu.Unlock()
	o.notify.Aside(func() {
		o.notify.InodeNotifyStoreCache(node(rec, f), int64(len(text)-1), newline) // ENOENT: the kernel has no size of it to be mended
	})
	o.storing.Add(-1)
	p.mu.Lock()
	p.growing = false
	p.publish(text, at)
	told.Store(uint32(p.size))
	close(p.grown)
}

// awaitGrown waits until the longer text that another reader is about to be given is there: what there is was for whoever read the file before, long ago
// perhaps. It has to do where too many wait already. The page is locked, but for that time.
func (o *own) awaitGrown(p *page) {
	if o.storing.Add(1) <= maxStoring {
		grown := p.grown
		p.mu.Unlock()
		o.notify.Aside(func() { <-grown })
		p.mu.Lock()
	}
	o.storing.Add(-1)
}

// maxStoring bounds how many requests may wait for the kernel at a time, for a READ that is perhaps not read yet: there must be slots for that.
const maxStoring = 256

// takeOver publishes a text where the kernel has the size, and perhaps the page, that a daemon before us gave it. That size goes for a second more, as
// any. A READ of the page may be waiting for us to return, so a longer text cannot have the size mended where it ends: the file is made longer than a
// page, for as long, and readers see blank lines.
func (o *own) takeOver(rec *record, f *file, p *page, text []byte, at time.Time) {
	told := rec.kept.size(f)
	p.since, p.peak = at, int(told.Load())
	if len(text) > p.peak {
		o.notify.Aside(func() { o.notify.InodeNotifyStoreCache(node(rec, f), pageSize, newline) })
		p.peak = pageSize + 1
	}
	p.publish(text, at)
	told.Store(uint32(p.size))
}

// blank fills buf with newlines and gives its length.
func blank(buf []byte) int {
	for i := range buf {
		buf[i] = '\n'
	}
	return len(buf)
}

var newline = []byte{'\n'}

// Open says that there is nothing to be done to open a file, here and ever.
func (o *own) Open(*fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Read gives the text whose size the last GETATTR told. Who reads says nothing: what he gets is kept for others.
func (o *own) Read(in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	rec, f := o.at(in.NodeId)
	if rec == nil || f == nil || f.isDir() {
		return 0, fuse.Status(syscall.ESTALE)
	}
	stats := &o.render.stats.Files[f.number]
	n := stats.reads.Add(1)
	rec.view.requests.Add(1)
	if in.Offset >= pageSize { // at once: whoever has the first page locked may be waiting for it, see takeOver
		return blank(buf[:min(uint64(len(buf)), 2*pageSize-min(in.Offset, 2*pageSize))]), fuse.OK
	}
	if !sampled(n) {
		return o.readPage(rec, f, buf, in.Offset), fuse.OK
	}
	begun := time.Now()
	size := o.readPage(rec, f, buf, in.Offset)
	stats.read.add(time.Since(begun))
	return size, fuse.OK
}

func (o *own) readPage(rec *record, f *file, buf []byte, off uint64) int {
	p := rec.pages.of(f)
	o.lock(p)
	o.outdated.add(node(rec, f), p)
	if p.at.IsZero() { // asked by a kernel that had its size from a daemon before us
		o.renew(rec, f, p)
	}
	n := p.read(buf, off)
	p.mu.Unlock()
	faultHeld(f)
	return n
}

// lock locks a page, and says whether that took time: whoever has it may be waiting for the kernel, see takeOver.
func (o *own) lock(p *page) (waited bool) {
	if p.mu.TryLock() {
		return false
	}
	o.notify.Aside(p.mu.Lock)
	return true
}
