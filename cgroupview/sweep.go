package cgroupview

import (
	"slices"
	"time"

	"lensfs/cgroupview/kfile"
)

// idle is how long a group of the host's processes is remembered without being asked for.
const idle = time.Minute

// Sweep forgets the containers whose init has ended and the groups that nobody asked for lately, and tells of each. Files of cgroups that were not read
// since the last Sweep are closed.
func (r *Resolver) Sweep(gone func(*Container)) {
	var b kfile.Buffer
	var dead []*Container
	r.mu.RLock()
	for _, c := range r.byNS {
		if !c.alive(&b) {
			dead = append(dead, c)
		}
	}
	for _, c := range r.byGroup {
		if c.untouched() > idle {
			dead = append(dead, c)
		}
	}
	r.mu.RUnlock()
	groups := map[string]bool{}
	for _, c := range dead {
		for _, path := range c.paths.Load() {
			groups[path] = path != "/"
		}
		r.forget(c)
		gone(c)
	}
	for _, d := range r.dirs() {
		d.Sweep(groups)
	}
}

// dirs are the directories whose files are kept open between reads.
func (r *Resolver) dirs() []*kfile.Dir {
	dirs := []*kfile.Dir{r.proc, r.cpus}
	for _, h := range r.layout {
		if h.dir != nil && !slices.Contains(dirs, h.dir) { // on v2 all controllers have the same
			dirs = append(dirs, h.dir)
		}
	}
	return dirs
}

func (r *Resolver) forget(c *Container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byNS[c.ns] == c {
		delete(r.byNS, c.ns)
	}
	for text, known := range r.byGroup {
		if known == c {
			delete(r.byGroup, text)
		}
	}
	c.close()
}
