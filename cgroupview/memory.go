package cgroupview

import (
	"bytes"
	"errors"
	"math"

	"lensfs/cgroupview/kfile"

	"golang.org/x/sys/unix"
)

// Unlimited is the limit of a group that has none.
const Unlimited = math.MaxUint64

// Memory is what a container may use and does use of memory, in bytes. A field that its kernel does not count is 0.
// The comments name the line of memory.stat: v2 | v1, there with total_ before it.
type Memory struct {
	// Counted is false where no group of the container's has the controller: nothing is known then, and nothing limits it.
	Counted bool

	Limit     uint64 // smallest memory.max | hierarchical_memory_limit; Unlimited where there is none
	Usage     uint64 // memory.current | memory.usage_in_bytes
	SwapLimit uint64 // smallest memory.swap.max | memsw limit less memory limit; Unlimited where there is none
	SwapUsage uint64 // memory.swap.current | memsw usage less usage
	// SwapCounted is false where the kernel does not count swap by group (swapaccount=0): the two above are 0 then.
	SwapCounted bool

	Anon          uint64 // anon | rss
	File          uint64 // file | cache
	Shmem         uint64 // shmem
	FileMapped    uint64 // file_mapped | mapped_file
	FileDirty     uint64 // file_dirty | dirty
	FileWriteback uint64 // file_writeback | writeback
	SwapCached    uint64 // swapcached | -
	AnonTHP       uint64 // anon_thp | rss_huge
	ShmemTHP      uint64 // shmem_thp | -
	FileTHP       uint64 // file_thp | -

	ActiveAnon, InactiveAnon uint64 // same names
	ActiveFile, InactiveFile uint64
	Unevictable              uint64

	Slab, SlabReclaimable, SlabUnreclaimable uint64 // same names | -
	KernelStack                              uint64 // kernel_stack | -
	PageTables, SecPageTables                uint64 // pagetables, sec_page_tables | -
	Percpu                                   uint64 // percpu | -
	Zswap, Zswapped                          uint64 // zswap, zswapped | -
}

// Memory reads the container's memory. The error is wrapped with the file it is about; ENOENT where no cgroup of it has the controller.
func (c *Container) Memory() (Memory, error) {
	h := &c.r.layout[memory]
	path := c.paths.Load()[memory]
	if h.dir == nil || path == "" {
		return Memory{Limit: Unlimited}, nil
	}
	b := kfile.GetBuffer()
	defer b.Put()
	if h.v2 {
		return h.memory2(b, path)
	}
	return h.memory1(b, path)
}

// memory2 reads v2's files. Where the controller is not switched on for the group itself, or the group has just gone, the nearest one above it
// that has it counts. The root of the hierarchy has no such files: nothing limits it.
func (h *hierarchy) memory2(b *kfile.Buffer, path string) (Memory, error) {
	m := Memory{Limit: Unlimited}
	for {
		usage, err := h.value(b, path, "memory.current")
		if err == nil {
			m.Usage, m.Counted = usage, true
			break
		}
		up, ok := parent(path)
		if !gone(err) {
			return m, h.dir.Wrap(err, path, "memory.current")
		}
		if !ok {
			return m, nil
		}
		path = up
	}
	text, err := h.dir.Read(b, path, "memory.stat")
	if err != nil {
		return m, h.dir.Wrap(err, path, "memory.stat")
	}
	m.stat2(text)
	// Looked at each time: LXCFS asks once at start, and shows no swap for good where no group existed yet.
	if m.SwapUsage, err = h.value(b, path, "memory.swap.current"); err == nil {
		m.SwapCounted, m.SwapLimit = true, Unlimited
	} else if !gone(err) {
		return m, h.dir.Wrap(err, path, "memory.swap.current")
	}
	for up, ok := path, true; ok; up, ok = parent(up) {
		limit, err := h.value(b, up, "memory.max")
		if err == nil {
			m.Limit = min(m.Limit, limit)
		} else if !gone(err) {
			return m, h.dir.Wrap(err, up, "memory.max")
		}
		if !m.SwapCounted {
			continue
		}
		limit, err = h.value(b, up, "memory.swap.max")
		if err == nil {
			m.SwapLimit = min(m.SwapLimit, limit)
		} else if !gone(err) {
			return m, h.dir.Wrap(err, up, "memory.swap.max")
		}
	}
	return m, nil
}

// memory1 reads v1's files. memory.stat itself gives the smallest limits over the group and all above it.
func (h *hierarchy) memory1(b *kfile.Buffer, path string) (Memory, error) {
	m := Memory{Limit: Unlimited}
	text, err := h.dir.Read(b, path, "memory.stat")
	for gone(err) {
		up, ok := parent(path)
		if !ok {
			break
		}
		path = up
		text, err = h.dir.Read(b, path, "memory.stat")
	}
	if err != nil {
		return m, h.dir.Wrap(err, path, "memory.stat")
	}
	both := m.stat1(text)
	if m.Usage, err = h.value(b, path, "memory.usage_in_bytes"); err != nil {
		return m, h.dir.Wrap(err, path, "memory.usage_in_bytes")
	}
	m.Counted = true
	if both == 0 {
		return m, nil // swapaccount=0
	}
	m.SwapCounted, m.SwapLimit = true, Unlimited
	if both < Unlimited {
		m.SwapLimit = both - min(both, m.Limit)
	}
	used, err := h.value(b, path, "memory.memsw.usage_in_bytes")
	if err != nil {
		return m, h.dir.Wrap(err, path, "memory.memsw.usage_in_bytes")
	}
	m.SwapUsage = used - min(used, m.Usage)
	return m, nil
}

// value reads a file that holds one number, or "max" for none.
func (h *hierarchy) value(b *kfile.Buffer, path, name string) (uint64, error) {
	text, err := h.dir.Read(b, path, name)
	if err != nil {
		return 0, err
	}
	text = kfile.Trim(text)
	if bytes.Equal(text, []byte("max")) {
		return Unlimited, nil
	}
	n, ok := kfile.Uint(text)
	if !ok {
		return 0, kfile.ErrSyntax
	}
	return n, nil
}

// gone says that a file is not there: the group has no such controller, or it was removed (ENODEV to one who held it open).
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
