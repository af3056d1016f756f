package fs

import (
	"errors"
	"path"
	"syscall"
	"time"

	"lensfs/cgroupview"
	"lensfs/sysview"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The directory whose entries, but for those in files, pass through from the host: the shared tree has them, own views have links to there.
const (
	cpuDirNumber = 9
	cpuDirPath   = "sys/devices/system/cpu"
)

// hostKept is how long the kernel may remember what the host's directory has. CPUs come and go there, and drivers.
const hostKept = time.Second

// passes says whether a node of the shared tree is the directory or of those in it that pass through.
func passes(id uint64) bool { return id == cpuDirNumber || sysview.Has(id) }

// inDir gives the number by which package sysview knows a node.
func inDir(id uint64) uint64 {
	if id == cpuDirNumber {
		return sysview.Top
	}
	return id
}

// lookupCPU finds a name in a directory, for a container, and says how long the answer may be kept. Number 0: there is no such name.
func (r *renderer) lookupCPU(dir uint64, name string, c *cgroupview.Container, st *unix.Stat_t) (number uint64, kept time.Duration, err error) {
	number, fleeting, err := r.cpus.Lookup(inDir(dir), name, c, st)
	if !fleeting {
		kept = hostKept
	}
	if !errors.Is(err, unix.ENOENT) {
		return number, kept, err
	}
	if _, plain := err.(unix.Errno); !plain {
		r.faults.report(cpuDirPath, err)
	}
	return 0, kept, nil
}

// hostAttr fills in the attributes that the host has of a node, and says how long they hold.
func (r *renderer) hostAttr(id uint64, out *fuse.Attr) time.Duration {
	var st unix.Stat_t
	if err := r.cpus.Attr(inDir(id), &st); err != nil {
		return 0
	}
	fillHostAttr(id, &st, out)
	return hostKept
}

func fillHostAttr(ino uint64, st *unix.Stat_t, out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink = ino, st.Mode, uint32(st.Nlink)
	out.Uid, out.Gid = st.Uid, st.Gid
	out.Size, out.Blksize = uint64(st.Size), pageSize
	for _, t := range [...]struct {
		from unix.Timespec
		sec  *uint64
		nsec *uint32
	}{{st.Atim, &out.Atime, &out.Atimensec}, {st.Mtim, &out.Mtime, &out.Mtimensec}, {st.Ctim, &out.Ctime, &out.Ctimensec}} {
		*t.sec, *t.nsec = uint64(t.from.Sec), uint32(t.from.Nsec)
	}
}

// listCPUs gives the entries of a directory, for a container: the host's, those in files with their own numbers.
func (r *renderer) listCPUs(t *tree, dir uint64, c *cgroupview.Container) ([]sysview.Entry, error) {
	entries, err := r.cpus.List(inDir(dir), c)
	if err != nil || dir != cpuDirNumber {
		return entries, err
	}
	missing := append([]*file(nil), t.children[dir]...)
	for i := range entries {
		for n, f := range missing {
			if f != nil && f.name() == entries[i].Name {
				entries[i].Number, missing[n] = f.number, nil
			}
		}
	}
	for _, f := range missing { // of a host that has not got it
		if f != nil {
			entries = append(entries, sysview.Entry{Name: f.name(), Number: f.number, Mode: f.mode})
		}
	}
	return entries, nil
}

func (s *shared) lookupCPU(in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	var st unix.Stat_t
	number, kept, err := s.render.lookupCPU(in.NodeId, name, s.render.resolver.Of(in.Pid), &st)
	if err != nil {
		return status(err)
	}
	out.SetEntryTimeout(kept)
	if number == 0 {
		return fuse.OK
	}
	out.NodeId = number
	out.SetAttrTimeout(hostKept)
	fillHostAttr(number, &st, &out.Attr)
	return fuse.OK
}

func (s *shared) cpuAttr(id uint64, out *fuse.AttrOut) fuse.Status {
	kept := s.render.hostAttr(id, &out.Attr)
	if kept == 0 {
		return fuse.ENOENT
	}
	out.SetTimeout(kept)
	return fuse.OK
}

// Readlink gives the host's own text: links lead to where the same name is in the container's /sys.
func (s *shared) Readlink(in *fuse.InHeader) (target []byte, code fuse.Status) {
	text, err := s.render.cpus.Target(in.NodeId)
	return []byte(text), status(err)
}

func (s *shared) listCPUs(in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	found, err := s.render.listCPUs(s.tree, in.NodeId, s.render.resolver.Of(in.Pid))
	if err != nil {
		return status(err)
	}
	up := uint64(cpuDirNumber)
	if in.NodeId == cpuDirNumber {
		up = s.tree.parents[cpuDirNumber].number
	} else if n, err := s.render.cpus.Parent(in.NodeId); err == nil && n != sysview.Top {
		up = n
	}
	entries := []fuse.DirEntry{{Name: ".", Ino: in.NodeId, Mode: syscall.S_IFDIR}, {Name: "..", Ino: up, Mode: syscall.S_IFDIR}}
	for _, e := range found {
		entries = append(entries, fuse.DirEntry{Name: e.Name, Ino: e.Number, Mode: e.Mode})
	}
	return list(out, entries, in.Offset)
}

// lookupCPU gives a link to the shared tree.
func (o *own) lookupCPU(rec *record, name string, out *fuse.EntryOut) fuse.Status {
	var st unix.Stat_t
	number, kept, err := o.render.lookupCPU(cpuDirNumber, name, rec.view.container, &st)
	if err != nil {
		return status(err)
	}
	out.SetEntryTimeout(kept)
	if number == 0 {
		return fuse.OK
	}
	rec.kept.lookups().Add(1)
	out.NodeId = rec.number<<numberShift | number
	out.SetAttrTimeout(forever)
	linkAttr(out.NodeId, o.cpuLink(out.NodeId), &out.Attr)
	return fuse.OK
}

// cpuLink gives where a container's node leads whose file passes through; "" where there is no such file.
func (o *own) cpuLink(id uint64) string {
	name, err := o.render.cpus.Path(id & (1<<numberShift - 1))
	if err != nil {
		return ""
	}
	return o.target(path.Join(cpuDirPath, name))
}

func (o *own) listCPUs(rec *record, entries []fuse.DirEntry, from uint64, out *fuse.DirEntryList) fuse.Status {
	found, err := o.render.listCPUs(o.tree, cpuDirNumber, rec.view.container)
	if err != nil {
		return status(err)
	}
	for _, e := range found {
		mode := uint32(syscall.S_IFLNK)
		if f := o.tree.file(e.Number); f != nil && !o.direct[f.number] {
			mode = f.mode
		}
		entries = append(entries, fuse.DirEntry{Name: e.Name, Ino: rec.number<<numberShift | e.Number, Mode: mode})
	}
	return list(out, entries, from)
}
