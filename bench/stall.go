package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Scenario 7: lensfs is killed, upgraded and stopped while containers read. How long do they wait, and does a read fail?

const (
	stallContainers = 8
	stallThreads    = 4 // in each container on each mount: 64 in all
	stallPause      = 5 * time.Millisecond
)

// event is what happens to lensfs.
type event struct {
	name         string
	title        string
	count, quick int
	pause        time.Duration // of the readers, between two reads
	// do does it, and gives how long it took until lensfs was whole again.
	do func(*takeover) (time.Duration, error)
	// stall is the goal: how long the longest read of all may take; 0: none.
	stall time.Duration
}

// The names of the events, in report.json.
const (
	nothingDone   = "nothing"
	workerKilled  = "worker killed"
	workerInLoop  = "worker killed, readers in a loop"
	upgraded      = "upgrade"
	keeperKilled  = "keeper killed"
	killedInTurn  = "both killed"
	workerStopped = "worker stopped"
)

var events = []event{
	{nothingDone, "nothing, for comparison", 50, 3, stallPause, (*takeover).nothing, 0},
	{workerKilled, "worker killed", 200, 5, stallPause, kill(unix.SIGKILL), 250 * time.Millisecond},
	{workerInLoop, "worker killed, readers without a pause", 30, 2, 0, kill(unix.SIGKILL), 0},
	{upgraded, "upgrade", 50, 2, stallPause, (*takeover).upgrade, 100 * time.Millisecond},
	{keeperKilled, "keeper killed, another started", 50, 2, stallPause, (*takeover).killKeeper, 0},
	{killedInTurn, "worker and keeper killed in turn", 20, 1, stallPause, (*takeover).inTurn, 0},
	{workerStopped, "worker stopped (SIGSTOP)", 3, 1, stallPause, kill(unix.SIGSTOP), 4 * time.Second},
}

func kill(sig unix.Signal) func(*takeover) (time.Duration, error) {
	return func(t *takeover) (time.Duration, error) { return t.signalWorker(sig) }
}

func (e event) times(b *bench) int {
	if b.quick {
		return e.quick
	}
	return e.count
}

// stallPoint is what the readers noticed of one kind of event.
type stallPoint struct {
	Event   string
	Reads   int64
	Failed  int64
	Failure string  `json:",omitempty"` // one of them
	Resumed int64   // requests that the next worker has answered
	Stalls  []int64 // of each event the longest read that was under way meanwhile: ns
	Whole   []int64 `json:",omitempty"` // how long each event took until lensfs was whole again: ns
}

func stallSteps(b *bench) (n int) {
	for _, e := range events {
		n += e.times(b)
	}
	return n
}

func runStall(b *bench) (err error) {
	t, err := b.newTakeover()
	if t != nil {
		defer func() { err = errors.Join(err, t.end()) }()
	}
	if err != nil {
		return err
	}
	kinds := []*kind{
		{Name: shared, Title: title(shared), source: t.l.tree, views: true},
		{Name: own, Title: title(own), source: t.l.views + "/self", views: true},
	}
	all, err := b.newContainers(stallContainers, roomy(), kinds, b.files)
	if err != nil {
		return err
	}
	defer func() { err = joinStop(err, all...) }()
	b.pause(grownUp)
	for _, e := range events {
		if err := b.stall(t, e, all); err != nil {
			return fmt.Errorf("%s: %w", e.title, err)
		}
	}
	return nil
}

// stall has the containers read, and the event happen again and again.
func (b *bench) stall(t *takeover, e event, all []*container) error {
	p := stallPoint{Event: e.name}
	t.resumed = 0
	tell := func(w watch) (sum reply, err error) {
		replies, errs := make([]reply, len(all)), make([]error, len(all))
		var asked sync.WaitGroup
		for i, c := range all {
			asked.Go(func() { replies[i], errs[i] = c.ask(b.ctx, order{Files: b.files, Watch: &w}, 0) })
		}
		asked.Wait()
		for _, r := range replies {
			p.Reads += r.Reads
			p.Failed += r.Failed
			if r.Failure != "" {
				p.Failure = r.Failure
			}
			sum.Longest = max(sum.Longest, r.Longest)
		}
		return sum, errors.Join(errs...)
	}
	if _, err := tell(watch{Kinds: []string{shared, own}, Threads: stallThreads, Pause: e.pause}); err != nil {
		return err
	}
	for range e.times(b) {
		b.bar.step("lensfs under load: %s", e.title)
		b.pause(100*time.Millisecond + rand.N(50*time.Millisecond)) // a worker has to live for a moment, or it counts as one that does not start
		from := monotonic()
		whole, err := e.do(t)
		if err != nil {
			return err
		}
		r, err := tell(watch{From: from, To: monotonic()})
		if err != nil {
			return err
		}
		p.Stalls = append(p.Stalls, max(r.Longest, shortest).Nanoseconds())
		if whole > 0 {
			p.Whole = append(p.Whole, whole.Nanoseconds())
		}
	}
	p.Resumed = t.resumed
	_, err := tell(watch{From: monotonic(), To: monotonic(), End: true})
	b.report.Stall = append(b.report.Stall, p)
	return err
}

func (r *report) stallSheet() sheet {
	s := sheet{
		Title: fmt.Sprintf("Takeover: %d threads in %d containers read while lensfs is killed, upgraded and stopped", 2*stallThreads*stallContainers, stallContainers),
		Note: fmt.Sprintf("Half of the threads read the shared tree, half the own views: all files by turns, open, read to the end, close, then a pause of %v where nothing else is said. "+
			"A stall is the longest read, over all threads, that was under way between the event and lensfs being whole again; of each event there is one. "+
			"Failed: an error, an empty text, or another MemTotal than the container's. Taken over: requests that a worker had read and its successor answered; each would "+
			"have failed if workers had connections of their own to the kernel's queue. Whole again: killed or stopped, until the next worker serves; an upgrade, likewise from the command on; "+
			"a keeper, until the next says that it has the worker. LXCFS is not compared: when it is killed, every read fails until the container is started again.", stallPause),
		Head: []string{"what", "events", "reads", "failed", "taken over", "stall p50, ms", "p99", "max", "whole again p50, ms", "max"}, Words: 1,
	}
	for _, e := range events {
		p := r.stalled(e.name)
		if p == nil {
			continue
		}
		stalls, whole := quantiles(p.Stalls), quantiles(p.Whole)
		s.Rows = append(s.Rows, []string{e.title, thousands(int64(len(p.Stalls))), thousands(p.Reads), thousands(p.Failed), thousands(p.Resumed),
			millis(stalls, 50), millis(stalls, 99), millis(stalls, 100), millis(whole, 50), millis(whole, 100)})
	}
	return s
}

// judgeStalls gives a goal for the failed reads of each event, and one for the longest stall where there is one.
func (r *report) judgeStalls() (goals []goal) {
	quiet := ""
	if p := r.stalled(nothingDone); p != nil {
		quiet = fmt.Sprintf("with nothing done: %s ms", millis(quantiles(p.Stalls), 100))
	}
	for _, e := range events {
		if e.name == nothingDone {
			continue
		}
		failed, stall, note := spread{None: true}, spread{None: true}, ""
		if p := r.stalled(e.name); p != nil {
			failed, note = spreadOf([]float64{float64(p.Failed)}), p.Failure
			stall = spreadOf([]float64{float64(slices.Max(p.Stalls))})
		}
		goals = append(goals, goal{What: e.title + ": failed reads", Goal: "0", Measured: plain(failed), Note: note, Verdict: atMost(0, 0, failed)})
		if e.stall > 0 {
			bound := float64(e.stall.Nanoseconds())
			goals = append(goals, goal{What: e.title + ": longest stall", Goal: "< " + with(spreadOf([]float64{bound}), 1e-6, " ms"),
				Measured: with(stall, 1e-6, " ms"), Note: quiet, Verdict: atMost(bound, 4*bound, stall)})
		}
	}
	return goals
}

// stalled gives what was measured of an event; nil if it was not.
func (r *report) stalled(name string) *stallPoint {
	for i := range r.Stall {
		if r.Stall[i].Event == name {
			return &r.Stall[i]
		}
	}
	return nil
}

func quantiles(ns []int64) *hdrhistogram.Histogram {
	h := newHistogram()
	for _, v := range ns {
		h.RecordValue(min(v, longest))
	}
	return h
}

func millis(h *hdrhistogram.Histogram, q float64) string {
	if h.TotalCount() == 0 {
		return "–"
	}
	return digits(float64(h.ValueAtQuantile(q)) / 1e6)
}
