package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Latencies are recorded from 1 ns to a minute, to three digits.
const longest = int64(time.Minute)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest, 3) }

// bufferSize of the readers: what Python and procps read at once, give or take. All files read here are smaller.
const bufferSize = 8 << 10

// thread is one reader: a thread of the kernel that makes system calls and nothing else. In a loop it makes them raw: Go's scheduler would otherwise take
// note of each, and hand our place to another thread when FUSE takes long. One that polls lets it take note: else Go's monitor thread stays awake for as
// long as FUSE takes, and that of a thousand readers, who wait for a server that is late, leaves that server no CPU (seen on two slow CPUs).
type thread struct {
	call     func(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2 uintptr, errno unix.Errno)
	dir      int // the root of the kind
	names    []*byte
	held     []int // descriptors, when files stay open
	buf      [bufferSize]byte
	got      int // bytes that the last read of a name gave
	latency  *hdrhistogram.Histogram
	failed   int64
	failure  unix.Errno
	overruns int64
}

func newThread() *thread { return &thread{call: unix.RawSyscall6, latency: newHistogram()} }

// threads are kept, with their histograms, from one order to the next.
var threads []*thread

// do carries an order out.
func (o order) do(base string) (r reply, err error) {
	if o.Tasks > 0 {
		return o.sleep()
	}
	if o.Watch != nil {
		return o.Watch.do(base, o.Files)
	}
	dir, err := unix.Open(filepath.Join(base, o.Kind), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return r, fmt.Errorf("open %s: %w", o.Kind, err)
	}
	defer unix.Close(dir)
	for len(threads) < o.Threads {
		threads = append(threads, newThread())
	}
	if o.Every > 0 {
		runtime.GOMAXPROCS(1) // with one, the monitor thread sleeps again as soon as the reader waits, and no thread looks for work that there is not
	} else {
		runtime.GOMAXPROCS(max(o.Threads+2, runtime.NumCPU()))
	}
	var ready, done sync.WaitGroup
	ready.Add(o.Threads)
	begin := make(chan time.Time)
	errs := make([]error, o.Threads)
	for i, t := range threads[:o.Threads] {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			errs[i] = t.prepare(dir, o)
			defer t.tidy()
			ready.Done()
			if at := <-begin; errs[i] == nil {
				t.run(at, o)
			}
		})
	}
	ready.Wait()
	started := time.Now()
	for range o.Threads {
		begin <- started
	}
	done.Wait()
	r.Took = time.Since(started)
	sum := newHistogram()
	for _, t := range threads[:o.Threads] {
		sum.Merge(t.latency)
		r.Failed += t.failed
		r.Overruns += t.overruns
		if t.failure != 0 {
			r.Failure = fmt.Sprintf("%s: %v", o.Kind, t.failure)
		}
	}
	r.Reads = sum.TotalCount()
	if r.Latency, err = sum.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err != nil {
		return r, err
	}
	return r, errors.Join(errs...)
}

func (t *thread) prepare(dir int, o order) error {
	t.dir, t.names, t.held = dir, nil, nil
	t.failed, t.failure, t.overruns = 0, 0, 0
	t.latency.Reset()
	if t.call = unix.RawSyscall6; o.Every > 0 {
		t.call = unix.Syscall6
	}
	for _, file := range o.Files {
		name, err := unix.BytePtrFromString(file)
		if err != nil {
			return err
		}
		t.names = append(t.names, name)
		if o.Held {
			fd, err := unix.Openat(dir, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open %s: %w", file, err)
			}
			t.held = append(t.held, fd)
		}
	}
	return nil
}

func (t *thread) tidy() {
	for _, fd := range t.held {
		unix.Close(fd)
	}
}

// run reads all files, again and again. With a period it keeps to it, and leaves out what it cannot keep.
func (t *thread) run(begin time.Time, o order) {
	next := begin.Add(o.Phase)
	end := begin.Add(o.For)
	for {
		if o.Every > 0 {
			if next.After(end) {
				return
			}
			time.Sleep(time.Until(next))
			for next = next.Add(o.Every); time.Since(next) > 0; next = next.Add(o.Every) {
				t.overruns++
			}
		}
		before := time.Now()
		for i := range t.names {
			var failure unix.Errno
			if o.Held {
				failure = t.readHeld(t.held[i])
			} else {
				failure = t.readNamed(t.names[i])
			}
			after := time.Now()
			if failure == 0 {
				t.latency.RecordValue(min(after.Sub(before).Nanoseconds(), longest))
			} else {
				t.failed++
				t.failure = failure
			}
			before = after
		}
		if o.Every == 0 && !before.Before(end) {
			return
		}
	}
}

// readNamed opens a file, reads it to its end and closes it.
func (t *thread) readNamed(name *byte) unix.Errno {
	fd, _, errno := t.call(unix.SYS_OPENAT, uintptr(t.dir), uintptr(unsafe.Pointer(name)), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	for t.got = 0; ; {
		n, _, errno := t.call(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&t.buf)), bufferSize, 0, 0, 0)
		if n == 0 || errno != 0 {
			t.call(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
			return errno
		}
		t.got += int(n)
	}
}

// readHeld reads an open file from its beginning to its end.
func (t *thread) readHeld(fd int) unix.Errno {
	for off := uintptr(0); ; {
		n, _, errno := t.call(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&t.buf)), bufferSize, off, 0, 0)
		if n == 0 || errno != 0 {
			return errno
		}
		off += n
	}
}
