package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"lensfs/cgroupview"

	"golang.org/x/sys/unix"
)

// keep is mapped memory in which what a container has been shown, its CPU times, load averages and forks, outlives the daemon: they must not go back when
// another one takes over. It is a file in /run:
//
//	header   magic, bytes of a slot                                     one page
//	chunk    slots: load averages, which say whose it is, forks, and the clock   whole pages
//
// The records in a slot survive being killed while they are written; nothing else has to.
type keep struct {
	mu     sync.Mutex
	file   *os.File
	slot   int // bytes
	chunks [][]byte
	left   map[cgroupview.ID][]byte // by an earlier daemon, and not asked for yet
	used   map[*cgroupview.Container][]byte
	free   [][]byte
}

const (
	keepMagic  = 0x3170656b736e6c // "lnskep1"
	chunkSlots = 64
)

// openKeep opens the memory at path, for CPUs with numbers below cpus. What an earlier daemon has left there is kept for containers that run; of one of
// another layout, or for another number of CPUs, nothing is.
func openKeep(path string, cpus int, runs func(cgroupview.ID) bool) (*keep, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	k := &keep{file: file, slot: cgroupview.LoadBytes + cgroupview.ForkBytes + cgroupview.ClockBytes(cpus), left: map[cgroupview.ID][]byte{}, used: map[*cgroupview.Container][]byte{}}
	if err := k.read(runs); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), k.close())
	}
	return k, nil
}

func (k *keep) read(runs func(cgroupview.ID) bool) error {
	var header [16]byte
	binary.NativeEndian.PutUint64(header[0:], keepMagic)
	binary.NativeEndian.PutUint64(header[8:], uint64(k.slot))
	var found [16]byte
	if _, err := k.file.ReadAt(found[:], 0); err != nil || found != header {
		if err := errors.Join(k.file.Truncate(0), k.file.Truncate(pageSize)); err != nil {
			return err
		}
		if _, err := k.file.WriteAt(header[:], 0); err != nil {
			return err
		}
	}
	st, err := k.file.Stat()
	if err != nil {
		return err
	}
	for at := int64(pageSize); at+k.chunkBytes() <= st.Size(); at += k.chunkBytes() {
		if err := k.mapChunk(at, runs); err != nil {
			return err
		}
	}
	return nil
}

// chunkBytes is a multiple of pageSize, which mmap wants.
func (k *keep) chunkBytes() int64 {
	return (int64(k.slot)*chunkSlots + pageSize - 1) / pageSize * pageSize
}

func (k *keep) mapChunk(at int64, runs func(cgroupview.ID) bool) error {
	chunk, err := unix.Mmap(int(k.file.Fd()), at, int(k.chunkBytes()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	k.chunks = append(k.chunks, chunk)
	for i := range chunkSlots {
		slot := chunk[i*k.slot : (i+1)*k.slot : (i+1)*k.slot]
		if id, ok := cgroupview.LoadOwner(slot[:cgroupview.LoadBytes]); ok && runs(id) {
			k.left[id] = slot
		} else {
			clear(slot)
			k.free = append(k.free, slot)
		}
	}
	return nil
}

// adopt has a container's numbers go on from what is left of it, and kept from now on.
func (k *keep) adopt(c *cgroupview.Container) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.used == nil {
		return nil // closed: whoever still holds files of ours is answered, and kept no more
	}
	slot := k.left[c.ID()]
	delete(k.left, c.ID())
	if slot == nil {
		if len(k.free) == 0 {
			if err := k.grow(); err != nil {
				return fmt.Errorf("%s: %w", k.file.Name(), err)
			}
		}
		slot = k.free[len(k.free)-1]
		k.free = k.free[:len(k.free)-1]
	}
	k.used[c] = slot
	c.KeepLoad(slot[:cgroupview.LoadBytes])
	slot = slot[cgroupview.LoadBytes:]
	c.KeepForks(slot[:cgroupview.ForkBytes])
	c.KeepClock(slot[cgroupview.ForkBytes:])
	return nil
}

// ids are the containers that an earlier daemon knew and nobody has asked for yet.
func (k *keep) ids() []cgroupview.ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.left))
}

func (k *keep) grow() error {
	st, err := k.file.Stat()
	if err != nil {
		return err
	}
	// Allocated, not only made longer: a full /run is an error here, and would be a SIGBUS at the first write to the memory.
	if err := unix.Fallocate(int(k.file.Fd()), 0, st.Size(), k.chunkBytes()); err != nil {
		return err
	}
	return k.mapChunk(st.Size(), func(cgroupview.ID) bool { return false })
}

// release gives an ended container's slot free.
func (k *keep) release(c *cgroupview.Container) {
	k.mu.Lock()
	defer k.mu.Unlock()
	slot := k.used[c]
	if slot == nil {
		return
	}
	delete(k.used, c)
	c.KeepLoad(nil)
	c.KeepForks(nil)
	c.KeepClock(nil)
	clear(slot)
	k.free = append(k.free, slot)
}

// close leaves everything to the next daemon, if there is anything.
func (k *keep) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.used {
		c.KeepLoad(nil)
		c.KeepForks(nil)
		c.KeepClock(nil)
	}
	var errs []error
	for _, chunk := range k.chunks {
		errs = append(errs, unix.Munmap(chunk))
	}
	if len(k.used)+len(k.left) == 0 {
		errs = append(errs, os.Remove(k.file.Name()))
	}
	k.used, k.chunks = nil, nil
	return errors.Join(append(errs, k.file.Close())...)
}
