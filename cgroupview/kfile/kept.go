package kfile

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// kept holds files open that are read again and again. To open a file of cgroupfs and to close it takes eight times as long as to read it
// (22 µs and 3 µs on Linux 6.18), and a fleet that is polled does little else.
//
// A file stays open when it is read again later (a container that starts reads its files once, and for that they are rendered a few times), and until Sweep finds that nobody read it for a while: the kernel has about 5 KB for each. A group that goes
// makes its files fail with ENODEV however long they are held, and does not wait for them to be closed.
type kept struct {
	most  int
	later time.Duration
	began time.Time
	mu    sync.RWMutex
	files map[string]*keptFile // by path beneath the Dir, ended by a zero byte
	count int                  // of those that are open
}

// keptFile is small: of each container there are ten. Its times are since kept began.
type keptFile struct {
	mu    sync.Mutex
	first time.Duration // when it was read for the first time, of those that are no longer apart than seldom
	last  time.Duration // when it was read, before it was open
	fd    int32         // -1: not open yet, or closed
	read  atomic.Bool   // since the last sweep
}

// later is how long after its first read a file that is read again is worth a descriptor.
const later = 900 * time.Millisecond // and so for those who read it once a second

// seldom is what is not worth one: else the sampler of load averages, that reads a file of every container each five seconds, would hold them all.
const seldom = 4 * time.Second

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
	return &kept{most: most, later: later, began: time.Now(), files: map[string]*keptFile{}}
}

// keeps says whether a file is worth it: not those of processes, which come and go, nor cgroup.procs, of which v1 keeps a list for each open file.
func (d *Dir) keeps(dir, name string) bool {
	return d.kept != nil && !(d.how.Resolve&unix.RESOLVE_NO_XDEV != 0 && dir != "") && !strings.HasPrefix(name, "cgroup.")
}

// get gives the open file of a path, locked; nil if there is none.
func (k *kept) get(path []byte) *keptFile {
	k.mu.RLock()
	f := k.files[string(path)]
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

// add is told of a file that has been read, and says whether it keeps it open.
func (k *kept) add(path []byte, fd int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Since(k.began)
	f := k.files[string(path)]
	if f == nil {
		f = &keptFile{fd: -1, first: now, last: now}
		k.files[string(path)] = f
	}
	f.read.Store(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	if now-f.last > seldom {
		f.first = now
	}
	f.last = now
	if f.fd >= 0 || now-f.first < k.later || k.count >= k.most {
		return false
	}
	f.fd = int32(fd)
	k.count++
	return true
}

// drop closes a file, which is locked, that cannot be read any more.
func (k *kept) drop(path []byte, f *keptFile) {
	rawClose(int(f.fd))
	f.fd = -1
	f.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count--
	if k.files[string(path)] == f {
		delete(k.files, string(path))
	}
}

// Sweep closes the files that were not read since the last Sweep, and those of directories that have gone.
func (d *Dir) Sweep(gone map[string]bool) {
	if d.kept == nil {
		return
	}
	d.kept.close(func(path string, f *keptFile) bool {
		return !f.read.Swap(false) || gone["/"+path[:max(0, strings.LastIndexByte(path, '/'))]]
	})
}

func (k *kept) close(which func(path string, f *keptFile) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for path, f := range k.files {
		if !which(path, f) {
			continue
		}
		delete(k.files, path)
		f.mu.Lock()
		if f.fd >= 0 {
			rawClose(int(f.fd))
			f.fd = -1
			k.count--
		}
		f.mu.Unlock()
	}
}
