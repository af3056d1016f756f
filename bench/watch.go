package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watch is an order that is carried out beside others: threads that read until they are told to end, and remember their long reads.
type watch struct {
	Kinds   []string      // begin: on the root of each of these
	Threads int           // on each
	Pause   time.Duration // after each read of a file
	From    int64         // else tell of the reads that were under way at some time between From
	To      int64         // and To, of the monotonic clock, in ns; earlier ones are forgotten
	End     bool          // afterwards
}

// shortest is the length of the shortest reads that are remembered.
const shortest = 100 * time.Microsecond

// hangs is how long a read may take before it is taken for one that never ends.
const hangs = 30 * time.Second

// monotonic is the time that all processes of this host have in common, in ns.
func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// watcher is one such thread.
type watcher struct {
	thread
	kind  string
	files []string
	first [][]byte // what each file showed at first; of meminfo its MemTotal, which must stay

	mu      sync.Mutex
	begun   int64 // the read that is under way; 0: none
	long    []span
	reads   int64 // that were answered as they should be
	bad     int64
	failure string
}

// span is when a read began and ended.
type span struct{ from, to int64 }

// watchers are those that run.
var watchers struct {
	all  []*watcher
	stop *atomic.Bool
	done sync.WaitGroup
}

func (w *watch) do(base string, files []string) (r reply, err error) {
	if len(w.Kinds) > 0 {
		return r, w.begin(base, files)
	}
	for _, x := range watchers.all {
		if err := x.tell(w, &r); err != nil {
			return r, err
		}
	}
	if w.End {
		watchers.stop.Store(true)
		watchers.done.Wait()
		watchers.all = nil
	}
	return r, nil
}

func (w *watch) begin(base string, files []string) error {
	watchers.stop = &atomic.Bool{}
	n := len(w.Kinds) * w.Threads
	runtime.GOMAXPROCS(max(n+2, runtime.NumCPU()))
	errs := make(chan error, n)
	for i := range n {
		x := &watcher{thread: thread{call: unix.RawSyscall6}, kind: w.Kinds[i%len(w.Kinds)], files: files}
		watchers.all = append(watchers.all, x)
		watchers.done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			err := x.prepare(base)
			errs <- err
			if err != nil {
				return
			}
			defer unix.Close(x.dir)
			time.Sleep(w.Pause * time.Duration(i) / time.Duration(n))
			x.run(w.Pause, watchers.stop)
		})
	}
	var err error
	for range n {
		err = errors.Join(err, <-errs)
	}
	return err
}

// prepare reads each file once, to know what it shows.
func (x *watcher) prepare(base string) (err error) {
	x.dir, err = unix.Open(filepath.Join(base, x.kind), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", x.kind, err)
	}
	for _, file := range x.files {
		name, err := unix.BytePtrFromString(file)
		if err != nil {
			return err
		}
		if errno := x.readNamed(name); errno != 0 {
			return fmt.Errorf("read %s: %w", file, errno)
		}
		x.names, x.first = append(x.names, name), append(x.first, lasting(file, x.text()))
	}
	return nil
}

// text is what was read last; the end of it where it is longer than the buffer.
func (x *watcher) text() []byte { return x.buf[:min(x.got, bufferSize)] }

// lasting is what a text must begin with also later; nil for a file that is empty.
func lasting(file string, text []byte) []byte {
	n := min(len(text), 1)
	if file == "proc/meminfo" {
		n = bytes.IndexByte(text, '\n') + 1
	}
	return bytes.Clone(text[:n])
}

// run reads all files, again and again.
func (x *watcher) run(pause time.Duration, stop *atomic.Bool) {
	for i := 0; !stop.Load(); i = (i + 1) % len(x.names) {
		x.mu.Lock()
		begun := monotonic()
		x.begun = begun
		x.mu.Unlock()
		errno := x.readNamed(x.names[i])
		ended := monotonic()
		x.mu.Lock()
		x.begun = 0
		switch {
		case errno != 0:
			x.bad++
			x.failure = fmt.Sprintf("%s of %s: %v", shortName(x.files[i]), x.kind, errno)
		case !sameStart(x.text(), x.first[i]):
			x.bad++
			x.failure = fmt.Sprintf("%s of %s shows %.60q", shortName(x.files[i]), x.kind, x.text())
		default:
			x.reads++
		}
		if ended-begun >= shortest.Nanoseconds() {
			x.long = append(x.long, span{begun, ended})
		}
		x.mu.Unlock()
		if pause > 0 {
			time.Sleep(pause)
		}
	}
}

// sameStart says whether a text is what was there at first: a single byte stands for any, since most texts change.
func sameStart(text, first []byte) bool {
	return len(text) >= len(first) && (len(first) <= 1 || bytes.HasPrefix(text, first))
}

// tell adds what this thread knows of the time that is asked about, when the last read of that time has ended.
func (x *watcher) tell(w *watch, r *reply) error {
	for deadline := time.Now().Add(hangs); ; time.Sleep(time.Millisecond) {
		x.mu.Lock()
		if x.begun == 0 || x.begun > w.To {
			break
		}
		x.mu.Unlock()
		if time.Now().After(deadline) {
			return fmt.Errorf("a read of %s has taken more than %v", x.kind, hangs)
		}
	}
	defer x.mu.Unlock()
	r.Reads += x.reads
	r.Failed += x.bad
	if x.failure != "" {
		r.Failure = x.failure
	}
	r.Longest = max(r.Longest, longestIn(x.long, w.From, w.To))
	x.reads, x.bad, x.failure, x.long = 0, 0, "", x.long[:0]
	return nil
}

// longestIn gives the length of the longest of the reads that were under way between two times.
func longestIn(reads []span, from, to int64) (most time.Duration) {
	for _, s := range reads {
		if s.to >= from && s.from <= to {
			most = max(most, time.Duration(s.to-s.from))
		}
	}
	return most
}
