package cgroupview

import (
	"bytes"
	"sync"
	"time"

	"lensfs/cgroupview/kfile"

	"golang.org/x/sys/unix"
)

// Tasks counts what the kernel schedules, threads, in the container's group and all below it.
type Tasks struct {
	Total   int    // pids.current, which counts zombies as the kernel's own total does; without it those in cgroup.threads | tasks
	Running int    // state R in /proc/TID/task/TID/stat: on a CPU or waiting for one
	Blocked int    // state D: waiting for what cannot be interrupted
	LastPid uint32 // of the youngest task that was seen, NSpid in /proc/TID/status as the container numbers it. Near the kernel's last pid: only who is inside could ask for that
}

// knownTasks is what a container's tasks were when somebody looked.
type knownTasks struct {
	mu    sync.Mutex
	known bool
	at    time.Duration // since boot
	tasks Tasks

	group   string // where it looked
	charged uint64 // how far the group's CPU time was just before
	gauged  bool   // charged is known

	level    int  // which number of NSpid is the container's; 0 before it is known
	youngest task // whose number LastPid is

	forks uint64 // see Forks
	kept  []byte // where forks outlive the daemon; nil: nowhere
	next  int    // the record there that is written next
	turn  int    // which part of the tasks is next, where there are too many to look at all
}

const (
	// tasksEvery is how old an answer of Tasks may be.
	tasksEvery = time.Second
	// groupCost is what it takes to visit a group, in tasks looked at.
	groupCost = 4
	// askedBudget and sampledBudget bound one look, in tasks at about 4 µs each: a container can make as many tasks and groups as it likes.
	askedBudget, sampledBudget = 1024, 4096
	// maxList bounds what is read of one group's list: 130 thousand tasks.
	maxList = 1 << 20
	// maxPid is the kernel's PID_MAX_LIMIT.
	maxPid = 1 << 22
)

// Tasks gives what the sampler saw last, or looks where that is more than a second ago. It is nothing for the host.
// The error is wrapped with the file it is about: ENOENT for a group that has gone.
func (c *Container) Tasks() (Tasks, error) {
	if c.IsHost() {
		return Tasks{}, nil
	}
	k := &c.tasks
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := c.r.boottime(); !k.known || now-k.at >= tasksEvery {
		if _, err := c.countTasks(now, askedBudget); err != nil {
			return Tasks{}, err
		}
	}
	return k.tasks, nil
}

// countTasks looks, k.mu being held, and says how much of the budget that took.
//
// Where no CPU time was charged to the group since the look before, none of its tasks has run, so none has left or entered state D, begun or ended.
// What may have changed is that one was woken and waits for a CPU; with nobody waiting before, and so no quota that keeps the group from running,
// it would not wait long. So an idle container costs one read of one file.
func (c *Container) countTasks(now time.Duration, budget int) (cost int, err error) {
	k := &c.tasks
	s := c.r.takeTaskScan()
	defer c.r.sampler.scans.Put(s)
	at, path := c.taskGroup()
	if path == "" {
		k.tasks = Tasks{Total: 1, LastPid: 1} // its init, of which nothing more can be seen
		k.known, k.at = true, now
		return 1, nil
	}
	h := &c.r.layout[at]
	charged, gauged := uint64(0), false
	if at == cpuacct {
		charged, err = h.charged(s.b, path)
		gauged = err == nil
	}
	if k.known && gauged && k.gauged && path == k.group && charged == k.charged && k.tasks.Running == 0 {
		k.at = now
		return 1, nil
	}
	total := 0
	// The root of a hierarchy has no such file, but that of a part of it which is mounted, and counts others too.
	if p, own := &c.r.layout[pids], c.paths.Load()[pids]; p.dir != nil && own != "" && own != "/" {
		if n, err := p.value(s.b, own, "pids.current"); err == nil {
			total = int(min(n, maxPid))
		}
	}
	k.turn++
	s.begin(budget, max(total, k.tasks.Total), k.turn)
	if err := s.scan(c.r, h, path); err != nil {
		return 1, err
	}
	k.tasks.Total, k.tasks.Running, k.tasks.Blocked = s.result(total)
	if k.tasks.Blocked > 0 && c.frozen(s.b) {
		k.tasks.Blocked = 0
	}
	c.nameYoungest(s.b, s.youngest)
	k.group, k.charged, k.gauged = path, charged, gauged
	k.known, k.at = true, now
	return s.cost, nil
}

// taskGroup chooses the hierarchy whose lists tell the container's tasks: that of its CPU time, by which it is known to be idle, or the first in which
// it has a group of its own. A container that has none in any is as wide as the host.
func (c *Container) taskGroup() (controller, string) {
	p := c.paths.Load()
	order := [...]controller{cpuacct, cpu, pids, memory, unified, cpuset}
	for _, at := range order {
		if p[at] != "" && p[at] != "/" && c.r.layout[at].dir != nil {
			return at, p[at]
		}
	}
	for _, at := range order {
		if p[at] != "" && c.r.layout[at].dir != nil {
			return at, p[at]
		}
	}
	return 0, ""
}

// charged tells how far a group's CPU time has got: cpuacct.usage | usage_usec in cpu.stat. There the time its quota held it back, which comes with
// the same read, is added.
func (h *hierarchy) charged(b *kfile.Buffer, path string) (uint64, error) {
	if !h.v2 {
		return h.value(b, path, "cpuacct.usage")
	}
	text, err := h.dir.Read(b, path, "cpu.stat")
	if err != nil {
		return 0, err
	}
	var sum uint64
	found := false
	for len(text) > 0 {
		var key []byte
		var n uint64
		key, n, _, text = kfile.Counter(text)
		switch string(key) {
		case "usage_usec":
			found = true
			sum += n
		case "throttled_usec":
			sum += n
		}
	}
	if !found {
		return 0, kfile.ErrSyntax
	}
	return sum, nil
}

// frozen says whether v1's freezer holds the container. The state of its tasks is D then (Linux 6.1: TASK_FROZEN), yet they are no load to the kernel.
// v2 stops them in S.
func (c *Container) frozen(b *kfile.Buffer) bool {
	h, path := &c.r.layout[freezer], c.paths.Load()[freezer]
	if h.dir == nil || h.v2 || path == "" {
		return false
	}
	text, err := h.dir.Read(b, path, "freezer.state") // of the groups above too
	return err == nil && string(kfile.Trim(text)) == "FROZEN"
}

// nameYoungest keeps LastPid in step. A task that was younger and has ended still was the last.
func (c *Container) nameYoungest(b *kfile.Buffer, y task) {
	k := &c.tasks
	if k.tasks.LastPid == 0 {
		k.tasks.LastPid = 1 // its init
	}
	if !k.youngest.before(y) {
		return
	}
	if k.level == 0 {
		if text, err := c.r.proc.Read(b, b.Pid(c.init), "status"); err == nil {
			_, k.level = nspid(text, 0)
		}
	}
	text, err := c.r.proc.Read(b, b.Pid(y.tid), "status")
	if err != nil {
		return // it has ended already
	}
	pid, levels := nspid(text, k.level)
	if pid == 0 {
		return // it was sent in, from a namespace outside
	}
	if levels == k.level { // as deep, but perhaps in another's namespace that shares the group
		if ns, err := c.r.namespace(b, b.Pid(y.tid)); err != nil || ns != c.ns {
			return
		}
	}
	k.fork(y, pid)
	k.keepForks(c.ID())
}

// nspid gives of the line NSpid, which has a task's number in each pid namespace from ours to its own, the one at level, counted from 1, and how many there are.
func nspid(status []byte, level int) (pid uint32, levels int) {
	for len(status) > 0 {
		var line []byte
		line, status = kfile.Line(status)
		rest, ok := bytes.CutPrefix(line, []byte("NSpid:"))
		if !ok {
			continue
		}
		for {
			var word []byte
			if word, rest = kfile.Field(rest); len(word) == 0 {
				return pid, levels
			}
			levels++
			if n, ok := kfile.Uint(word); ok && levels == level && n <= maxPid {
				pid = uint32(n)
			}
		}
	}
	return 0, 0
}

// vanished says that a task has ended since it was listed.
func vanished(err error) bool { return err == unix.ESRCH || err == unix.ENOENT }
