// Package cgroupview says who is asking, which container that is, and what the container's cgroup allows and uses.
//
// Cgroup v1, v2 and hybrid hosts end here: nothing above this package knows which of them it runs on.
//
// It assumes that the daemon sees the processes that ask (its pid namespace is theirs or one above), and never trusts what it learns
// from them further than to look at kernel files: it opens nothing by a path that a container could have made.
package cgroupview

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"lensfs/cgroupview/kfile"

	"golang.org/x/sys/unix"
)

// Resolver finds the container of a calling process: once, and checks cheaply ever after.
type Resolver struct {
	proc     *kfile.Dir
	cpus     *kfile.Dir // the host's /sys/devices/system/cpu
	layout   *layout
	quota    QuotaMode
	hideCPUs bool
	possible CPUSet // the host's CPUs, switched on or not
	self     uint64 // inode of our own pid namespace
	boottime func() time.Duration
	live     bool // the tree is the running kernel's: pids are real

	mu      sync.RWMutex
	byNS    map[uint64]*Container // by inode of the pid namespace
	byGroup map[string]*Container // the host's processes, by the text of /proc/PID/cgroup
	host    *Container

	discovery sync.Mutex // one container is discovered at a time
	lastScan  time.Time
	online    knownCPUs
	sampler   sampler

	// Unresolved counts callers that were answered as processes of the host because they, or their container's init, could not be seen.
	Unresolved atomic.Uint64
}

// Options are what an operator may choose.
type Options struct {
	Root  string // "/" but in tests, which give a tree of files
	CPUs  string // the host's CPUs; default: sys/devices/system/cpu beneath Root
	Quota QuotaMode

	HideCPUs bool // a container's other CPUs do not exist for it, instead of being switched off
}

// New looks at the mounts and returns a Resolver. It fails where the kernel offers no cgroups, or where its own files are covered by somebody's view.
func New(o Options) (*Resolver, error) {
	proc, err := kfile.Open(filepath.Join(o.Root, "proc"), true)
	if err != nil {
		return nil, err
	}
	if o.CPUs == "" {
		o.CPUs = filepath.Join(o.Root, "sys/devices/system/cpu")
	}
	cpus, err := kfile.Open(o.CPUs, true)
	if err != nil {
		return nil, err
	}
	layout, err := findLayout(o.Root)
	if err != nil {
		return nil, err
	}
	r := &Resolver{
		proc: proc, cpus: cpus, layout: layout, quota: o.Quota, hideCPUs: o.HideCPUs,
		live:    filepath.Clean(o.Root) == "/",
		byNS:    map[uint64]*Container{},
		byGroup: map[string]*Container{},
	}
	r.host = r.group("host", &paths{})
	var b kfile.Buffer
	if r.self, err = r.namespace(&b, "self"); err != nil {
		return nil, proc.Wrap(err, "self", "ns/pid")
	}
	// Without it every caller would be answered as one of the host, silently.
	if r.live && !capable(unix.CAP_SYS_PTRACE) {
		return nil, errors.New("lensfs may not look at the namespaces of other processes: it needs CAP_SYS_PTRACE")
	}
	if r.boottime, err = r.clock(&b); err != nil {
		return nil, err
	}
	if _, err := r.Online(); err != nil {
		if errors.Is(err, unix.EXDEV) {
			return nil, fmt.Errorf("%w: it is covered by another mount; lensfs has to see the kernel's own files", err)
		}
		return nil, err
	}
	if r.possible, err = r.readPossible(&b); err != nil {
		return nil, err
	}
	return r, nil
}

// String tells an operator what was found.
func (r *Resolver) String() string { return r.layout.String() }

// Host is the container of those whom nothing limits: the host.
func (r *Resolver) Host() *Container { return r.host }

// clock gives the time since boot, suspension included, as starttime in /proc/PID/stat counts it. A tree of files has stopped at its proc/uptime.
func (r *Resolver) clock(b *kfile.Buffer) (func() time.Duration, error) {
	if r.live {
		return func() time.Duration {
			var ts unix.Timespec
			kfile.Boottime(&ts)
			return time.Duration(ts.Nano())
		}, nil
	}
	text, err := r.proc.Read(b, "", "uptime")
	if err != nil {
		return nil, r.proc.Wrap(err, "", "uptime")
	}
	first, _ := kfile.Field(text)
	up, err := time.ParseDuration(string(first) + "s")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(r.proc.Path(), "uptime"), err)
	}
	return func() time.Duration { return up }, nil
}

// Of gives the container of the process or thread pid, as our pid namespace numbers it. It never fails: who cannot be seen is a process of the host.
//
// A known container costs one readlink and one poll of its init's pidfd.
func (r *Resolver) Of(pid uint32) *Container {
	if pid == 0 { // our pid namespace does not see the caller
		r.Unresolved.Add(1)
		return r.host
	}
	b := kfile.GetBuffer()
	defer b.Put()
	ns, err := r.namespace(b, b.Pid(pid))
	if err != nil { // gone already: whoever it was, he does not read this answer
		r.Unresolved.Add(1)
		return r.host
	}
	if ns == r.self {
		return r.ofGroup(b, pid)
	}
	r.mu.RLock()
	c := r.byNS[ns]
	r.mu.RUnlock()
	if c != nil && c.alive(b) {
		return c
	}
	if c = r.discover(b, pid, ns); c != nil {
		return c
	}
	r.Unresolved.Add(1)
	return r.ofGroup(b, pid)
}

// ofGroup judges a process by its own cgroup: one of the host, or one whose namespace has lost its init.
func (r *Resolver) ofGroup(b *kfile.Buffer, pid uint32) *Container {
	text, err := r.proc.Read(b, b.Pid(pid), "cgroup")
	if err != nil {
		r.Unresolved.Add(1)
		return r.host
	}
	r.mu.RLock()
	c := r.byGroup[string(text)]
	r.mu.RUnlock()
	if c != nil {
		c.touch()
		return c
	}
	p := r.layout.parseCgroup(text)
	c = r.group(p.name(), &p)
	c.touch()
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.byGroup[string(text)]; known != nil {
		return known
	}
	r.byGroup[string(text)] = c
	return c
}

// group makes the Container of processes of the host.
func (r *Resolver) group(name string, p *paths) *Container {
	c := &Container{r: r, Name: name}
	c.pidfd.Store(-1)
	c.paths.Store(p)
	return c
}

// namespace gives the inode of a process's pid namespace, from the link "pid:[4026531836]".
func (r *Resolver) namespace(b *kfile.Buffer, pid string) (uint64, error) {
	link, err := r.proc.Readlink(b, pid, "ns/pid")
	if err != nil {
		return 0, err
	}
	if len(link) < len("pid:[]") || string(link[:5]) != "pid:[" {
		return 0, kfile.ErrSyntax
	}
	n, ok := kfile.Uint(link[5 : len(link)-1])
	if !ok {
		return 0, kfile.ErrSyntax
	}
	return n, nil
}
