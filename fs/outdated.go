package fs

import (
	"sync"
	"time"

	"lensfs/procview"
)

// outdated has the kernel drop the pages of own views when their tick is over.
//
// It would do that by itself, when GETATTR tells it of a new mtime; but it takes up the new attributes first, and drops the page then
// (fs/fuse/inode.c, fuse_change_attributes). Another reader in between finds valid attributes and the page of the last time that anybody read the
// file, however long ago. So no page is left there for longer than it is true.
type outdated struct {
	drop func(node uint64) // tells the kernel; it may wait for a READ of the page to be answered

	mu   sync.Mutex
	due  []heldPage
	wake chan struct{} // something is due again
}

// heldPage is a page that the kernel was given.
type heldPage struct {
	node uint64
	page *page
}

func newOutdated(drop func(node uint64)) *outdated {
	return &outdated{drop: drop, wake: make(chan struct{}, 1)}
}

// add is told of a page that the kernel has been given. The page is locked.
func (o *outdated) add(node uint64, p *page) {
	if p.held {
		return
	}
	p.held = true
	o.mu.Lock()
	o.due = append(o.due, heldPage{node, p})
	first := len(o.due) == 1
	o.mu.Unlock()
	if first {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

// dropUntil drops each page when its tick is over. While nobody reads, it sleeps.
func (o *outdated) dropUntil(stop <-chan struct{}) {
	var now []heldPage
	timer := time.NewTimer(procview.Tick)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-o.wake:
		}
		for more := true; more; {
			timer.Reset(procview.Tick)
			select {
			case <-stop:
				return
			case <-timer.C:
			}
			now, more = o.round(now[:0])
		}
	}
}

// round drops what is due, and says whether something is left. The memory of due and now is used in turn.
func (o *outdated) round(now []heldPage) (_ []heldPage, more bool) {
	o.mu.Lock()
	now, o.due = o.due, now
	o.mu.Unlock()
	for _, h := range now {
		h.page.mu.Lock()
		over := h.page.timeout(time.Now()) == 0
		h.page.held = !over
		h.page.mu.Unlock()
		if over {
			o.drop(h.node)
			continue
		}
		o.mu.Lock()
		o.due = append(o.due, h)
		o.mu.Unlock()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return now, len(o.due) > 0
}

// dropKept has the kernel drop what it may have of a worker before us.
func (o *own) dropKept() {
	for _, rec := range o.records.byNumber {
		for _, f := range o.tree.byNumber {
			if f == nil || rec.kept.size(f).Load() == 0 {
				continue
			}
			p := rec.pages.of(f)
			p.mu.Lock()
			o.outdated.add(node(rec, f), p)
			p.mu.Unlock()
		}
	}
}
