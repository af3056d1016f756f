package kfile

import (
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// kept holds files open that are read again and again. To open a file of cgroupfs and to close it takes eight times as long as to read it
// (22 µs and 3 µs on Linux 6.18), and a fleet that is polled does little else.
//
// A group that goes makes its files fail with ENODEV however long they are held, and does not wait for them to be closed. What nobody reads any more
// is closed by Sweep: the kernel has about 5 KB for each open one.
type kept struct {
	most int
	mu   sync.RWMutex
	open map[string]*keptFile // by path beneath the Dir
}

type keptFile struct {
	mu   sync.Mutex
	fd   int         // -1: closed, and in no map any more
	read atomic.Bool // since the last sweep
}

// mostKept bounds the open files of one Dir; so does a sixteenth of what the process may have open.
const mostKept = 8192

// newKept gives nil for a directory whose files must be opened each time: those of a tree of ordinary files outlive their names.
func newKept(dir int) *kept {
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir, &st); err != nil {
		return nil
	}
	switch st.Type {
	case unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.PROC_SUPER_MAGIC:
	default:
		return nil
	}
	most := mostKept
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err == nil && l.Cur/16 < mostKept {
		most = int(l.Cur / 16)
	}
	return &kept{most: most, open: map[string]*keptFile{}}
}

// keeps says whether a file is worth it: not those of processes, which come and go, nor cgroup.procs, of which v1 keeps a list for each open file.
func (d *Dir) keeps(dir, name string) bool {
	return d.kept != nil && !(d.how.Resolve&unix.RESOLVE_NO_XDEV != 0 && dir != "") && !strings.HasPrefix(name, "cgroup.")
}

// get gives the open file of a path, locked; nil if there is none.
func (k *kept) get(path []byte) *keptFile {
	k.mu.RLock()
	f := k.open[string(path)]
	k.mu.RUnlock()
	if f == nil {
		return nil
	}
	f.mu.Lock()
	if f.fd < 0 {
		f.mu.Unlock()
		return nil
	}
	if !f.read.Load() {
		f.read.Store(true)
	}
	return f
}

// add keeps an open file, or says that there is no room.
func (k *kept) add(path []byte, fd int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.open) >= k.most || k.open[string(path)] != nil {
		return false
	}
	f := &keptFile{fd: fd}
	f.read.Store(true)
	k.open[string(path)] = f
	return true
}

// drop closes a file, which is locked, that cannot be read any more.
func (k *kept) drop(path []byte, f *keptFile) {
	rawClose(f.fd)
	f.fd = -1
	f.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open[string(path)] == f {
		delete(k.open, string(path))
	}
}

// Sweep closes the files that were not read since the last Sweep.
func (d *Dir) Sweep() {
	if d.kept != nil {
		d.kept.close(func(f *keptFile) bool { return !f.read.Swap(false) })
	}
}

func (k *kept) close(which func(*keptFile) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for path, f := range k.open {
		if !which(f) {
			continue
		}
		delete(k.open, path)
		f.mu.Lock()
		if f.fd >= 0 {
			rawClose(f.fd)
			f.fd = -1
		}
		f.mu.Unlock()
	}
}
