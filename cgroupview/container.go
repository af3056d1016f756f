package cgroupview

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lensfs/cgroupview/kfile"

	"golang.org/x/sys/unix"
)

// Container is whoever asks: the processes of one pid namespace, or those of one cgroup of the host. It reads what its cgroup allows and uses.
type Container struct {
	// Name is what a person would call it: the last part of its cgroup's path. Two containers may have the same one.
	Name string

	r     *Resolver
	ns    uint64       // inode of its pid namespace; 0 for processes of the host
	init  uint32       // its init, as we see it
	start uint64       // when init started, in ticks since boot
	pidfd atomic.Int32 // of init; -1 where there is none

	paths  atomic.Pointer[paths] // root of its cgroup in each hierarchy
	used   atomic.Int64          // when it was asked for last, for groups of the host: nanoseconds since boot
	lookMu sync.Mutex
	group  string        // guarded by lookMu: /proc/INIT/cgroup as it was
	looked time.Duration // guarded by lookMu: when it was, since boot
	rooted time.Duration // guarded by lookMu: the container's age when its mounts were looked at

	cpus  knownCPUs
	clock cpuClock
	tasks knownTasks
	load  loadAverages
}

// userHZ is the unit of starttime and of all of /proc/stat: USER_HZ, 100 on every architecture that runs containers.
const userHZ = 100

// tick is one USER_HZ.
const tick = time.Second / userHZ

// ID is what tells a container from every other that this kernel has run, and by which another daemon finds it again.
type ID struct {
	Namespace uint64 // inode number of its pid namespace
	Init      uint32 // its init, as our pid namespace numbers it
	Start     uint64 // when init started, in ticks of USER_HZ since boot
}

// ID is all zero for the host.
func (c *Container) ID() ID { return ID{Namespace: c.ns, Init: c.init, Start: c.start} }

// Runs says whether the init of a container that was known earlier still does.
func (r *Resolver) Runs(id ID) bool {
	b := kfile.GetBuffer()
	defer b.Put()
	start, err := r.startTime(b, id.Init)
	return err == nil && start == id.Start
}

// IsHost says that the container is a part of the host: it has no init of its own.
func (c *Container) IsHost() bool { return c.ns == 0 }

// Age is the time since the container's init started; never negative, and 0 for the host.
func (c *Container) Age() time.Duration {
	if c.IsHost() {
		return 0
	}
	return c.ageAt(c.r.boottime())
}

func (c *Container) ageAt(now time.Duration) time.Duration {
	return max(0, now-time.Duration(c.start)*tick)
}

// Young says that the container began less than a second ago: its limits may still be on their way (runc 1.1.5 binds the views before it writes
// them), so nothing about it is to be kept.
func (c *Container) Young() bool { return !c.IsHost() && c.Age() < young }

const young = time.Second

// lookEvery is how often a container that is being read is asked again where its init's cgroup is: a service manager moves init soon
// after it started, a supervisor perhaps later. /proc/PID/cgroup takes a lock of all cgroups, so it is not read each time.
func lookEvery(age time.Duration) time.Duration { return min(max(time.Second, age/8), 10*time.Second) }

// Look makes sure that the container's cgroup is known as it was a moment ago. It is called before its numbers are read.
func (c *Container) Look() {
	if c.IsHost() {
		return
	}
	c.lookMu.Lock()
	defer c.lookMu.Unlock()
	now := c.r.boottime()
	if age := c.ageAt(now); age >= young && now-c.looked < lookEvery(age) {
		return
	}
	b := kfile.GetBuffer()
	defer b.Put()
	if c.alive(b) { // of a dead init cgroup v1 says "/", which is the host
		c.relocate(b)
	}
}

// settles is how long init may take until it has mounted its cgroups, from which we learn where the container's root is: a mount hook
// asks before that, and a supervisor (OpenRC) that sits in a leaf never moves. Until then its mounts are looked at each time that its age has doubled.
const settles = time.Minute

// locate finds the container's cgroup for the first time.
func (c *Container) locate(b *kfile.Buffer) error {
	c.lookMu.Lock()
	defer c.lookMu.Unlock()
	return c.relocate(b)
}

func (c *Container) relocate(b *kfile.Buffer) error {
	text, err := c.r.proc.Read(b, b.Pid(c.init), "cgroup")
	if err != nil {
		return err
	}
	c.looked = c.r.boottime()
	if c.group == string(text) && (c.rooted > settles || c.Age() < 2*c.rooted) {
		return nil
	}
	c.rooted = c.Age()
	group := string(text)
	p := c.r.roots(b, c.init, c.r.layout.parseCgroup(text))
	// By its start time, not the descriptor: that may have been closed under us.
	if start, err := c.r.startTime(b, c.init); err != nil || start != c.start {
		return unix.ESRCH
	}
	c.group = group
	c.paths.Store(&p)
	return nil
}

// Alive says whether the container's init runs; of the host it does.
func (c *Container) Alive() bool {
	b := kfile.GetBuffer()
	defer b.Put()
	return c.IsHost() || c.alive(b)
}

// alive says whether the container's init runs. As long as it does, the inode number of its pid namespace is nobody else's.
func (c *Container) alive(b *kfile.Buffer) bool {
	if fd := c.pidfd.Load(); fd >= 0 {
		return !kfile.Readable(fd) // readable: it has ended
	}
	start, err := c.r.startTime(b, c.init)
	return err == nil && start == c.start
}

func (c *Container) close() {
	if fd := c.pidfd.Swap(-1); fd >= 0 {
		unix.Close(int(fd))
	}
}

func (c *Container) touch()                   { c.used.Store(int64(c.r.boottime())) }
func (c *Container) untouched() time.Duration { return c.r.boottime() - time.Duration(c.used.Load()) }

// Group is the path of the container's cgroup beneath the mount of its hierarchy; "/" where it has none of its own.
func (c *Container) Group() string {
	if p := c.paths.Load(); p != nil {
		return p.group()
	}
	return "/"
}

// group gives the path of the group. It is the same in each hierarchy in which there is one, where a container manager made them.
func (p *paths) group() string {
	for _, c := range [...]controller{memory, unified, cpu, cpuset} {
		if p[c] != "" && p[c] != "/" {
			return p[c]
		}
	}
	return "/"
}

// name gives the last part of the group's path, without what LXC, systemd and the container engines put around it.
func (p *paths) name() string {
	path := p.group()
	name := path[strings.LastIndexByte(path, '/')+1:]
	for _, prefix := range [...]string{"lxc.payload.", "lensfs.run.", "docker-", "libpod-", "crio-", "cri-containerd-"} {
		name = strings.TrimPrefix(name, prefix)
	}
	name = strings.TrimSuffix(name, ".scope")
	if name == "" {
		return "host"
	}
	return name
}
