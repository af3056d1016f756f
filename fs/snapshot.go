package fs

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lensfs/cgroupview"
	"lensfs/procview"
	"lensfs/sysview"
)

// renderer makes the texts: a container's file at most once a tick on each mount, however many read it.
type renderer struct {
	resolver *cgroupview.Resolver
	host     *procview.Host
	cpus     *sysview.Dir
	views    sync.Map // *cgroupview.Container → *view
	making   sync.Mutex
	keep     *keep       // nil: nothing outlives the daemon
	unveiled atomic.Bool // everybody is shown the host's values
	rooms    sync.Pool   // *[]byte, see room
	stats    *Stats
	faults   faultLog
}

// view is what a container is shown; the snapshots are those of the shared tree.
type view struct {
	container *cgroupview.Container
	files     slots[snapshot]
	requests  atomic.Uint64 // for its files; in the shared tree those that begin a text
}

// snapshot is one file's text as it was at one moment.
type snapshot struct {
	mu   sync.Mutex
	at   time.Time
	text []byte
}

// of gives the view of the process pid's container.
func (r *renderer) of(pid uint32) *view { return r.view(r.resolver.Of(pid)) }

func (r *renderer) view(c *cgroupview.Container) *view {
	if v, ok := r.views.Load(c); ok {
		return v.(*view)
	}
	r.making.Lock()
	defer r.making.Unlock()
	if v, ok := r.views.Load(c); ok {
		return v.(*view)
	}
	if r.keep != nil && !c.IsHost() { // before anybody has read its numbers
		if err := r.keep.adopt(c); err != nil {
			r.faults.report("kept numbers", err)
		}
	}
	v := &view{container: c}
	r.views.Store(c, v)
	return v
}

// recall gives the view of a container that a worker before us knew, and called by that name.
func (r *renderer) recall(id cgroupview.ID, name string) *view {
	c, runs := r.resolver.Recall(id, name)
	if !runs {
		return &view{container: c} // nobody else gets it
	}
	return r.view(c)
}

// recallKept finds the containers again of which there are numbers: somebody has to sample their load.
func (r *renderer) recallKept() {
	for _, id := range r.keep.ids() {
		r.recall(id, "")
	}
}

// sweep forgets the containers that have ended and tells of those that had a view.
func (r *renderer) sweep(ended func(*view)) {
	r.resolver.Sweep(func(c *cgroupview.Container) {
		if r.keep != nil {
			r.keep.release(c)
		}
		if v, ok := r.views.LoadAndDelete(c); ok {
			ended(v.(*view))
		}
	})
}

// lock gives the snapshot of f, not older than a tick, locked: its text stands until it is unlocked.
//
// It fails only where there is no text at all. A container that has ended is shown its last snapshot again, one that cannot
// be understood the last one or the host's text; both are counted.
func (r *renderer) lock(v *view, f *file) (*snapshot, error) {
	s := v.files.of(f)
	s.mu.Lock()
	return r.fresh(s, v, f, time.Now())
}

// lockSince is lock for a request that begun tells the begin of, so that the clock need not be read again.
func (r *renderer) lockSince(begun time.Time, v *view, f *file) (*snapshot, error) {
	s := v.files.of(f)
	if !s.mu.TryLock() {
		s.mu.Lock()
		begun = time.Now() // what was rendered while we waited is young
	}
	return r.fresh(s, v, f, begun)
}

// fresh does what lock says, of a snapshot that is locked.
func (r *renderer) fresh(s *snapshot, v *view, f *file, now time.Time) (*snapshot, error) {
	if now.Sub(s.at) < procview.Tick && !v.container.Young() {
		return s, nil
	}
	buf := r.room()
	defer r.rooms.Put(buf)
	text, err := r.renew((*buf)[:0], v, f, len(s.text) > 0)
	if *buf = text; err == nil {
		s.text, s.at = append(s.text[:0], text...), now
	} else if len(s.text) == 0 {
		s.mu.Unlock()
		return nil, err
	}
	return s, nil
}

// renew appends a new text of f to dst. Where it cannot be made, the last one goes on to be shown if there was one, which this fails to say; if not, the
// host's: then it fails only if there is none of that either.
func (r *renderer) renew(dst []byte, v *view, f *file, was bool) ([]byte, error) {
	if was && !v.container.Alive() {
		r.stats.Stale.Add(1)
		return dst, errEnded
	}
	v.container.Look()
	fault(f)
	text, err := r.render(dst, f, r.shown(v.container))
	if err == nil {
		r.stats.Files[f.number].rendered.Add(1)
		return text, nil
	}
	if v.container.Alive() { // one that ends while we read takes its files along
		r.faults.report(f.path, err)
	}
	if was {
		r.stats.Stale.Add(1)
		return dst, err
	}
	if text, err = r.render(dst, f, r.resolver.Host()); err == nil {
		r.stats.HostText.Add(1)
	}
	return text, err
}

var errEnded = errors.New("the container has ended")

// room is where a text is made, to be given back to rooms: what is kept of it, for each file of each container, has no room to spare.
func (r *renderer) room() *[]byte {
	if buf, ok := r.rooms.Get().(*[]byte); ok {
		return buf
	}
	return new([]byte)
}

// shown gives the container whose values a container is to see.
func (r *renderer) shown(c *cgroupview.Container) *cgroupview.Container {
	if r.unveiled.Load() {
		return r.resolver.Host()
	}
	return c
}

// render calls the source. A panic in it is an error of this one file: the daemon serves every container of the host.
func (r *renderer) render(dst []byte, f *file, c *cgroupview.Container) (text []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.stats.Panics.Add(1)
			text, err = dst, fmt.Errorf("%s: panic: %v\n%s", f.path, p, debug.Stack())
		}
	}()
	return f.source(dst, r.host, c)
}

// largeFiles are those whose text may exceed a page on this host, by number. No container's text is longer than the host's, but for lists of CPUs.
type largeFiles [maxNumber]bool

func (r *renderer) findLarge(t *tree) (large largeFiles, err error) {
	for _, f := range t.byNumber {
		if f == nil || f.isDir() || f.hidden() {
			continue
		}
		text, err := r.render(nil, f, r.resolver.Host())
		if err != nil {
			return large, err
		}
		longest := len(text)
		if strings.HasPrefix(f.path, cpuDirPath) {
			longest = longestList(r.resolver.MaxCPUs())
		}
		large[f.number] = longest > pageSize
	}
	return large, nil
}

// longestList is the length of the longest list of CPUs with numbers below n: pairs with one CPU left out between them, a character behind each number.
func longestList(n int) (longest int) {
	for out := range 3 {
		bytes := 0
		for cpu := range n {
			if cpu%3 != out {
				bytes += len(strconv.Itoa(cpu)) + 1
			}
		}
		longest = max(longest, bytes)
	}
	return longest
}
