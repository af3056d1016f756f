package keeper

import (
	"fmt"
	"log/slog"
	"time"
)

const (
	lookEvery = time.Second // at the worker
	// A worker that says nothing for this long, or has not answered a request, is replaced. A request takes well below a millisecond.
	hungAfter  = 3 * time.Second
	stuckAfter = 5 * time.Second
	// A worker that ends this soon counts as one that does not start; after maxQuick of them there is a pause before each.
	quickEnd = 100 * time.Millisecond
	maxQuick = 10
	pause    = time.Second
	// settleTime is how long the worker of an upgrade has to live, before the keeper becomes of its version too.
	settleTime = 200 * time.Millisecond
)

// look checks that the worker lives and answers.
func (k *Keeper) look() {
	p := k.worker
	if p == nil {
		return
	}
	now := time.Now()
	switch {
	case p.unponged.IsZero():
		p.unponged = now
		if err := p.link.Send(Message{Op: OpPing}); err != nil {
			k.replace("it does not listen")
			return
		}
	case now.Sub(p.unponged) > hungAfter-lookEvery:
		k.replace(fmt.Sprintf("no sign of life for %v", now.Sub(p.unponged).Round(time.Second)))
		return
	}
	if k.stuck(now) {
		k.replace(fmt.Sprintf("a request has not been answered for %v", stuckAfter))
	}
}

// stuck looks for requests that the worker does not answer, and counts that against them.
func (k *Keeper) stuck(now time.Time) (found bool) {
	still := map[uint64]time.Time{}
	for i, s := range k.slots {
		for _, unique := range s.Busy(nil) {
			key := unique<<1 | uint64(i) // the two connections number their requests alike
			since, known := k.busy[key]
			if !known {
				since = now
			}
			still[key] = since
			if now.Sub(since) >= stuckAfter {
				s.Blame(unique)
				delete(still, key)
				found = true
			}
		}
	}
	k.busy = still
	return found
}

// replace ends the worker, if it has not ended by itself, and starts another.
func (k *Keeper) replace(why string) {
	p := k.worker
	k.worker = nil
	how := p.kill()
	if why == "" {
		why = "it ended: " + how
		if !wasKilled(how) { // it may have been a request
			for _, s := range k.slots {
				s.BlameBegun()
			}
		}
	}
	slog.Warn("the worker is replaced", "pid", p.Pid, "why", why)
	k.lastEnd = why
	k.restarts++
	if time.Since(p.Since) < quickEnd {
		k.quick++
	} else {
		k.quick = 0
	}
	if k.quick < maxQuick {
		k.launch()
		return
	}
	if k.quick == maxQuick {
		slog.Error("workers end as soon as they start: trying again every second", "since", maxQuick)
	}
	k.retry = time.After(pause)
}

// launch starts a worker of our own version and hands over. What it must never do is to give up.
func (k *Keeper) launch() {
	k.retry = nil
	begun := time.Now()
	p, err := k.start(ownProgram)
	if err == nil {
		// All at once: if the keeper ends before the worker is ready, that has what it needs to go on.
		unprepared := p.link.Send(Message{Op: OpPrepare, Config: k.cfg.Worker, Nice: k.nice})
		unserved := p.handOver(k.hand, k.fds)
		if err = p.prepared(k.cfg.Worker, unprepared); err == nil {
			err = p.served(unserved)
		}
	}
	if err == nil {
		k.worker, k.busy = p, map[uint64]time.Time{}
		slog.Info("a worker serves", "pid", p.Pid, "after", time.Since(begun).Round(time.Microsecond))
		return
	}
	k.quick++
	k.lastEnd = err.Error()
	again := 10 * time.Millisecond
	if k.quick >= maxQuick {
		again = pause
	}
	if k.quick <= maxQuick {
		slog.Error("a worker does not start", "err", err, "again in", again)
	}
	k.retry = time.After(again)
}
