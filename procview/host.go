// Package procview writes the files of /proc as a container is to see them.
//
// Each file is written in two steps: its numbers are read (package cgroupview), then a pure append function puts them into the text of the
// host's own file, which is the template for format, order and lines that we do not know. The append functions do not allocate.
package procview

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"

	"golang.org/x/sys/unix"
)

// Tick is how old an answer may be: one USER_HZ, the resolution of /proc/uptime and /proc/stat themselves.
const Tick = 10 * time.Millisecond

// Source appends one file's text as container is to see it. On an error dst is returned as it was.
type Source func(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error)

// Host is the host's own /proc. Its texts are read at most once a tick, however many containers ask.
type Host struct {
	proc     *kfile.Dir
	resolver *cgroupview.Resolver
	options  Options

	meminfo text
	uptime  text
	stat    text // reduced to what a container's view takes from it
	loadavg text
	cpuinfo cpuinfoText
	optional
}

// Options are what an operator may choose.
type Options struct {
	Root      string // "/" but in tests, which give a tree of files
	NoSwap    bool   // every container sees a machine without swap
	NoZswap   bool   // and without compressed swap
	NoLoadavg bool   // nobody samples: the load averages are the host's
}

// NewHost opens the host's /proc.
func NewHost(o Options, r *cgroupview.Resolver) (*Host, error) {
	proc, err := kfile.Open(filepath.Join(o.Root, "proc"), true)
	if err != nil {
		return nil, err
	}
	h := &Host{proc: proc, resolver: r, options: o}
	h.meminfo.name = "meminfo"
	h.uptime.name = "uptime"
	h.stat = text{name: "stat", every: statEvery, reduce: reduceStat}
	h.loadavg.name = "loadavg"
	for _, t := range [...]*text{&h.meminfo, &h.uptime, &h.stat, &h.loadavg} {
		if _, err := t.lock(h.proc); err != nil {
			return nil, uncovered(err)
		}
		t.unlock()
	}
	if _, err := h.cpuinfo.lock(h); err != nil {
		return nil, uncovered(err)
	}
	h.cpuinfo.unlock()
	if err := h.optional.open(h.proc, r); err != nil {
		return nil, err
	}
	return h, nil
}

// uncovered explains the error of a file that has another file system's mounted over it: a daemon started in a container that has views.
// To read it would be to ask another daemon, or in the end ourselves.
func uncovered(err error) error {
	if errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("%w: it is covered by another mount; lensfs has to see the kernel's own files", err)
	}
	return err
}

// text is one file of the host's.
type text struct {
	name   string
	every  time.Duration            // how old it may be; 0: a tick
	reduce func(text []byte) []byte // what is kept of it, written over it; nil: all
	mu     sync.RWMutex
	at     time.Time
	data   []byte
}

// fresh says whether the text is young enough to be shown at now.
func (t *text) fresh(now time.Time) bool { return now.Sub(t.at) < max(Tick, t.every) }

// lock gives the text as it was at most a tick ago, or every. It stands until unlock, which is due when err is nil.
func (t *text) lock(proc *kfile.Dir) (data []byte, err error) {
	t.mu.RLock()
	if t.fresh(time.Now()) {
		return t.data, nil
	}
	t.mu.RUnlock()
	if err := t.read(proc); err != nil {
		return nil, err
	}
	t.mu.RLock()
	return t.data, nil
}

func (t *text) unlock() { t.mu.RUnlock() }

// append appends the text as the host has it.
func (t *text) append(dst []byte, proc *kfile.Dir) ([]byte, error) {
	data, err := t.lock(proc)
	if err != nil {
		return dst, err
	}
	defer t.unlock()
	return append(dst, data...), nil
}

func (t *text) read(proc *kfile.Dir) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.fresh(now) {
		return nil // somebody was quicker
	}
	b := kfile.GetBuffer()
	defer b.Put()
	data, err := proc.Append(b, t.data[:0], "", t.name)
	if err != nil {
		return proc.Wrap(err, "", t.name)
	}
	if t.reduce != nil {
		data = t.reduce(data)
	}
	t.data, t.at = data, now
	return nil
}
