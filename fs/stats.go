package fs

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lensfs/fs/conn"
)

// Stats counts what the daemon did. All may be read at any time.
type Stats struct {
	Stale    atomic.Uint64 // answers from the last snapshot, the container having ended or not being readable
	HostText atomic.Uint64 // answers with the host's text, there being no snapshot either
	Panics   atomic.Uint64 // panics in a view; each one is a bug
	Conn     conn.Stats    // of both connections
	Files    [maxNumber]fileStats
}

// faultLog writes each kind of failure once, so that no container can fill the log.
type faultLog struct {
	mu     sync.Mutex
	seen   map[string]*FaultReport
	others uint64 // of kinds that there was no room for
}

// maxFaults bounds how many kinds are told, and counted.
const maxFaults = 100

func (l *faultLog) report(subject string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kind := subject + ": " + errno(err).Error()
	if known := l.seen[kind]; known != nil {
		known.Count++
		known.Last = time.Now()
		return
	}
	if len(l.seen) >= maxFaults {
		l.others++
		return
	}
	if l.seen == nil {
		l.seen = map[string]*FaultReport{}
	}
	now := time.Now()
	l.seen[kind] = &FaultReport{Subject: subject, Error: errno(err).Error(), Text: err.Error(), Count: 1, First: now, Last: now}
	slog.Warn("a view could not be made: readers get an older text, or the host's; told once for each error", "subject", subject, "err", err)
}

// all gives what was reported, the most frequent first.
func (l *faultLog) all() (faults []FaultReport, others uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	faults = []FaultReport{}
	for _, f := range l.seen {
		faults = append(faults, *f)
	}
	slices.SortFunc(faults, func(a, b FaultReport) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Subject+a.Error, b.Subject+b.Error))
	})
	return faults, l.others
}
