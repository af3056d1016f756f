package cgroupview

import (
	"bytes"
	"strings"

	"lensfs/cgroupview/kfile"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

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
	c.load.tick = r.loadTick()
	r.mu.Lock()
	r.byNS[ns] = c
	r.mu.Unlock()
	return c
}

// Recall finds a container again that another daemon knew, and called by that name. It says whether it runs; of one that has ended nothing can be read.
func (r *Resolver) Recall(id ID, name string) (c *Container, runs bool) {
	b := kfile.GetBuffer()
	defer b.Put()
	if ns, err := r.namespace(b, b.Pid(id.Init)); err == nil && ns == id.Namespace {
		if c := r.discover(b, id.Init, ns); c != nil && c.ID() == id {
			return c, true
		}
	}
	c = r.group(name, &paths{})
	c.ns, c.init, c.start = id.Namespace, id.Init, id.Start
	return c, false
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
func (r *Resolver) roots(b *kfile.Buffer, init uint32, p paths) paths {
	for c := range p {
		if cut := strings.TrimSuffix(p[c], "/init.scope"); cut != "" {
			p[c] = cut
		}
	}
	mounts, err := r.mountsOf(b, init)
	if err != nil {
		return p
	}
	var root paths
	for _, m := range mounts {
		for c := range p {
			h := &r.layout[c]
			mine := h.v2 && m.FSType == "cgroup2" || !h.v2 && hasController(m, controllerNames[c].v1)
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

// mountsOf gives the cgroup mounts that a process sees. Its other mounts, most of them, are not even parsed.
func (r *Resolver) mountsOf(b *kfile.Buffer, pid uint32) ([]*mountinfo.Info, error) {
	text, _, err := r.proc.Head(b, b.Pid(pid), "mountinfo", maxMountinfo)
	if err != nil {
		return nil, err
	}
	var mounts []byte
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		if bytes.Contains(line, []byte(" - cgroup")) {
			mounts = append(append(mounts, line...), '\n')
		}
	}
	return mountinfo.GetMountsFromReader(bytes.NewReader(mounts), cgroupMounts)
}
