package cgroupview

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"lensfs/cgroupview/kfile"

	"github.com/moby/sys/mountinfo"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// nsGetPidFromPidns translates a pid of the namespace behind the descriptor into ours: _IOR(0xb7, 6, int), Linux 6.11.
const nsGetPidFromPidns = 0x8004b706

// discover finds the container of a namespace seen for the first time, or seen again after its inode number was used anew.
func (r *Resolver) discover(b *kfile.Buffer, pid uint32, ns uint64) *Container {
	r.discovery.Lock()
	defer r.discovery.Unlock()
	r.mu.RLock()
	c := r.byNS[ns]
	r.mu.RUnlock()
	if c != nil {
		if c.alive(b) {
			return c // somebody was quicker
		}
		r.forget(c)
	}
	init := r.findInit(b, pid, ns)
	if init == 0 {
		return nil
	}
	c = &Container{r: r, ns: ns, init: init}
	c.pidfd.Store(-1)
	if r.live {
		// Without a descriptor (none left, or before Linux 5.3) the start time takes its place.
		if fd, err := unix.PidfdOpen(int(init), 0); err == nil {
			c.pidfd.Store(int32(fd))
		}
	}
	// Looked at again now that the pid is held: it may have been another's in between.
	if again, err := r.namespace(b, b.Pid(init)); err != nil || again != ns {
		c.close()
		return nil
	}
	start, err := r.startTime(b, init)
	if err != nil {
		c.close()
		return nil
	}
	c.start = start
	if err := c.locate(b); err != nil {
		c.close()
		return nil
	}
	c.Name = c.paths.Load().name()
	r.mu.Lock()
	r.byNS[ns] = c
	r.mu.Unlock()
	return c
}

// findInit gives the pid, as we see it, of the process that is number 1 in pid's namespace; 0 if it cannot be found.
func (r *Resolver) findInit(b *kfile.Buffer, pid uint32, ns uint64) uint32 {
	if init := r.askKernel(pid); init != 0 {
		return init
	}
	if init := r.ancestorInit(b, pid, ns); init != 0 {
		return init
	}
	if init := r.groupInit(b, pid, ns); init != 0 {
		return init
	}
	return r.scanInit(b, ns)
}

// askKernel has the kernel translate pid 1. Before Linux 6.11 it cannot.
func (r *Resolver) askKernel(pid uint32) uint32 {
	if !r.live {
		return 0
	}
	// ns/pid is a magic link, which kfile refuses to follow: this one the kernel makes, and it cannot be pointed elsewhere.
	fd, err := unix.Open(filepath.Join(r.proc.Path(), strconv.Itoa(int(pid)), "ns/pid"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	init, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nsGetPidFromPidns, 1)
	if errno != 0 {
		return 0
	}
	return uint32(init)
}

// ancestorInit follows the parents of a process that was forked inside.
func (r *Resolver) ancestorInit(b *kfile.Buffer, pid uint32, ns uint64) uint32 {
	for range 1000 { // a chain of parents is no longer, and may change while we follow it
		if here, err := r.namespace(b, b.Pid(pid)); err != nil || here != ns {
			return 0
		}
		ppid, isInit, err := r.status(b, pid)
		if err != nil {
			return 0
		}
		if isInit {
			return pid
		}
		if ppid == 0 {
			return 0
		}
		pid = ppid
	}
	return 0
}

// groupInit looks among the processes of the caller's cgroup: right for one that was sent in (docker exec, lxc-attach).
func (r *Resolver) groupInit(b *kfile.Buffer, pid uint32, ns uint64) uint32 {
	text, err := r.proc.Read(b, b.Pid(pid), "cgroup")
	if err != nil {
		return 0
	}
	p := r.layout.parseCgroup(text)
	for c := range p {
		if r.layout[c].dir == nil || p[c] == "" || p[c] == "/" {
			continue
		}
		text, err := r.layout[c].dir.Read(b, p[c], "cgroup.procs")
		if err != nil {
			continue
		}
		for _, word := range bytes.Fields(bytes.Clone(text)) {
			if n, ok := kfile.Uint(word); ok && r.isInit(b, uint32(n), ns) {
				return uint32(n)
			}
		}
		return 0
	}
	return 0
}

// scanEvery bounds what a container can make us spend by making namespaces whose init is hard to find.
const scanEvery = 100 * time.Millisecond

// scanInit looks at every process of the host. It is left for a process sent in without its cgroup (nsenter) before Linux 6.11.
func (r *Resolver) scanInit(b *kfile.Buffer, ns uint64) uint32 {
	if time.Since(r.lastScan) < scanEvery {
		return 0
	}
	defer func() { r.lastScan = time.Now() }()
	fs, err := procfs.NewFS(r.proc.Path())
	if err != nil {
		return 0
	}
	procs, err := fs.AllProcs()
	if err != nil {
		return 0
	}
	for _, p := range procs {
		if r.isInit(b, uint32(p.PID), ns) {
			return uint32(p.PID)
		}
	}
	return 0
}

func (r *Resolver) isInit(b *kfile.Buffer, pid uint32, ns uint64) bool {
	here, err := r.namespace(b, b.Pid(pid))
	if err != nil || here != ns {
		return false
	}
	_, isInit, err := r.status(b, pid)
	return err == nil && isInit
}

// status reads PPid, and whether the last number of NSpid, the one in the innermost namespace, is 1.
func (r *Resolver) status(b *kfile.Buffer, pid uint32) (ppid uint32, isInit bool, err error) {
	text, err := r.proc.Read(b, b.Pid(pid), "status")
	if err != nil {
		return 0, false, err
	}
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		if v, ok := bytes.CutPrefix(line, []byte("PPid:")); ok {
			n, _ := kfile.Uint(kfile.Trim(v))
			ppid = uint32(n)
		}
		if v, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			f := bytes.Fields(v)
			isInit = len(f) > 1 && string(f[len(f)-1]) == "1"
		}
	}
	return ppid, isInit, nil
}

// startTime reads field 22 of /proc/PID/stat, in ticks since boot:
//
//	(1) pid (2) comm (3) state … (22) starttime
//
// The name may hold blanks and parentheses, so the fields are counted from the last ")": LXCFS does not, and prints a negative uptime.
func (r *Resolver) startTime(b *kfile.Buffer, pid uint32) (uint64, error) {
	text, err := r.proc.Read(b, b.Pid(pid), "stat")
	if err != nil {
		return 0, err
	}
	i := bytes.LastIndexByte(text, ')')
	if i < 0 {
		return 0, kfile.ErrSyntax
	}
	rest := text[i+1:]
	var field []byte
	for range 22 - 2 {
		field, rest = kfile.Field(rest)
	}
	n, ok := kfile.Uint(field)
	if !ok {
		return 0, kfile.ErrSyntax
	}
	return n, nil
}

// roots gives for each controller the root of the container's cgroup, where init itself may sit deeper:
// systemd moves itself into init.scope, OpenRC and supervisors into groups of their own names. What the container sees as the root of
// its cgroup mounts is known to the host from the root field of /proc/INIT/mountinfo (5), as long as it has mounted any:
//
//	36 35 0:31 /lxc.payload.web /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw
func (r *Resolver) roots(init uint32, p paths) paths {
	for c := range p {
		if cut := strings.TrimSuffix(p[c], "/init.scope"); cut != "" {
			p[c] = cut
		}
	}
	mounts, err := r.mountsOf(init)
	if err != nil {
		return p
	}
	var root paths
	for _, m := range mounts {
		for c := range p {
			h := &r.layout[c]
			mine := h.v2 && m.FSType == "cgroup2" || !h.v2 && hasController(m, controllerNames[c])
			if !mine || m.Root == "/" {
				continue
			}
			// The deepest one that holds init: a wider one, given by the operator, would count its neighbours too.
			if at := h.beneath([]byte(m.Root)); at != "" && at != "/" && within(p[c], at) && len(at) > len(root[c]) {
				root[c] = at
			}
		}
	}
	for c := range p {
		if root[c] != "" {
			p[c] = root[c]
		}
	}
	return p
}

// maxMountinfo bounds what is read of a list that a container can make as long as it likes.
const maxMountinfo = 1 << 20

// mountsOf gives the cgroup mounts that a process sees.
func (r *Resolver) mountsOf(pid uint32) ([]*mountinfo.Info, error) {
	fd, err := r.proc.OpenFile(strconv.FormatUint(uint64(pid), 10), "mountinfo")
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "mountinfo")
	defer file.Close()
	return mountinfo.GetMountsFromReader(io.LimitReader(file, maxMountinfo), cgroupMounts)
}
