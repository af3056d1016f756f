package cgroupview

import (
	"bytes"

	"lensfs/cgroupview/kfile"
)

// task is one that a scan met.
type task struct {
	start uint64 // when it began, in ticks since boot
	tid   uint32 // as our pid namespace numbers it
}

// before says whether u is younger. Numbers are given in turn, but wrap around: they decide within a tick only.
func (t task) before(u task) bool {
	return u.tid != 0 && (t.start < u.start || t.start == u.start && t.tid < u.tid)
}

// taskScan is one look at the tasks of a group and all below it, and the memory it takes: lent from one to the next.
type taskScan struct {
	b    *kfile.Buffer
	list *kfile.Buffer
	walk kfile.Walker

	budget int // how much it may cost, in tasks looked at
	cost   int
	stride int  // one of so many tasks is looked at
	phase  int  // which
	all    bool // nothing was left out

	seen, looked, running, blocked int
	youngest                       task
}

func (r *Resolver) takeTaskScan() *taskScan {
	if s, ok := r.sampler.scans.Get().(*taskScan); ok {
		return s
	}
	return &taskScan{b: kfile.GetBuffer(), list: kfile.GetBuffer()}
}

// begin sets out to look at about budget tasks, where so many are expected. Another turn looks at others.
func (s *taskScan) begin(budget, expected, turn int) {
	s.budget, s.cost, s.all = budget, 0, true
	s.stride = 1 + expected/budget
	s.phase = turn % s.stride
	s.seen, s.looked, s.running, s.blocked = 0, 0, 0, 0
	s.youngest = task{}
}

// scan goes through the groups. One below that goes away meanwhile has no tasks; the first one is the container, and has to be there.
func (s *taskScan) scan(r *Resolver, h *hierarchy, root string) error {
	name := "tasks"
	if h.v2 {
		name = "cgroup.threads" // cgroup.procs of a threaded group cannot be read
	}
	s.walk.Start(root, max(1, s.budget/2/groupCost))
	for first := true; ; first = false {
		dir, ok := s.walk.Next(h.dir, s.b)
		if !ok {
			s.all = s.all && !s.walk.Cut
			return nil
		}
		s.cost += groupCost
		text, all, err := h.dir.Head(s.list, dir, name, maxList)
		if err != nil {
			if first {
				return h.dir.Wrap(err, dir, name)
			}
			continue
		}
		if !all {
			s.all = false
			text = text[:bytes.LastIndexByte(text, '\n')+1] // the rest is half a number
		}
		s.tasks(r, text)
	}
}

// tasks looks at those of one group's list, "120\n121\n".
func (s *taskScan) tasks(r *Resolver, text []byte) {
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		tid, ok := kfile.Uint(line)
		if !ok || tid == 0 || tid > maxPid {
			continue
		}
		s.seen++
		if s.seen%s.stride != s.phase {
			continue
		}
		if s.cost >= 2*s.budget { // there are many more than were expected
			s.all = false
			continue
		}
		s.look(r, uint32(tid))
	}
}

// look takes one task's state. It reads the file that is the thread's alone: the stat of /proc/TID adds up all threads of the process, which
// with 2000 of them takes 20 times as long.
func (s *taskScan) look(r *Resolver, tid uint32) {
	s.cost++
	s.looked++
	text, err := r.proc.Read(s.b, s.b.Task(tid), "stat")
	if vanished(err) {
		// It ran to its end in the microseconds since it was listed. Others have begun meanwhile that the list does not have: it stands for one of them.
		s.running++
		return
	}
	state, start, ok := taskStat(text)
	if err != nil || !ok {
		return
	}
	switch state {
	case 'R':
		s.running++
	case 'D':
		s.blocked++
	}
	if t := (task{start, tid}); s.youngest.before(t) {
		s.youngest = t
	}
}

// taskStat reads the fields 3 and 22 of a stat file, counted from the last ")", for the name may hold blanks and parentheses.
func taskStat(text []byte) (state byte, start uint64, ok bool) {
	i := bytes.LastIndexByte(text, ')')
	if i < 0 {
		return 0, 0, false
	}
	field, rest := kfile.Field(text[i+1:])
	if len(field) != 1 {
		return 0, 0, false
	}
	state = field[0]
	for range 22 - 3 {
		field, rest = kfile.Field(rest)
	}
	start, ok = kfile.Uint(field)
	return state, start, ok
}

// result gives the numbers of the whole: of total tasks, where that is known, else of those seen. What a part showed is taken for all.
func (s *taskScan) result(total int) (all, running, blocked int) {
	of := s.seen
	if !s.all {
		of = max(of, total)
	}
	if total == 0 {
		total = of
	}
	running, blocked = s.running, s.blocked
	if s.looked > 0 && s.looked < of {
		running = (running*of + s.looked/2) / s.looked
		blocked = (blocked*of + s.looked/2) / s.looked
	}
	return max(total, running+blocked), running, blocked
}
