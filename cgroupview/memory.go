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

func (m *Memory) stat2(text []byte) {
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		key, rest := kfile.Field(line)
		value, _ := kfile.Field(rest)
		n, ok := kfile.Uint(value)
		if !ok {
			continue
		}
		switch string(key) {
		case "anon":
			m.Anon = n
		case "file":
			m.File = n
		case "kernel_stack":
			m.KernelStack = n
		case "pagetables":
			m.PageTables = n
		case "sec_page_tables": // Linux 6.1
			m.SecPageTables = n
		case "percpu":
			m.Percpu = n
		case "shmem":
			m.Shmem = n
		case "zswap": // Linux 5.19
			m.Zswap = n
		case "zswapped":
			m.Zswapped = n
		case "file_mapped":
			m.FileMapped = n
		case "file_dirty":
			m.FileDirty = n
		case "file_writeback":
			m.FileWriteback = n
		case "swapcached": // Linux 5.12
			m.SwapCached = n
		case "anon_thp":
			m.AnonTHP = n
		case "file_thp": // Linux 5.12
			m.FileTHP = n
		case "shmem_thp": // Linux 5.12
			m.ShmemTHP = n
		case "inactive_anon":
			m.InactiveAnon = n
		case "active_anon":
			m.ActiveAnon = n
		case "inactive_file":
			m.InactiveFile = n
		case "active_file":
			m.ActiveFile = n
		case "unevictable":
			m.Unevictable = n
		case "slab_reclaimable":
			m.SlabReclaimable = n
		case "slab_unreclaimable":
			m.SlabUnreclaimable = n
		case "slab":
			m.Slab = n
		}
	}
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

// unlimited1 is from where a v1 limit is none: the kernel says PAGE_COUNTER_MAX pages, a little below 1<<63 with any page size.
const unlimited1 = 1 << 62

// stat1 reads the total_ lines, which count the groups below too. It returns the limit of memory and swap together, 0 where that is not counted.
func (m *Memory) stat1(text []byte) (both uint64) {
	for len(text) > 0 {
		var line []byte
		line, text = kfile.Line(text)
		key, rest := kfile.Field(line)
		value, _ := kfile.Field(rest)
		n, ok := kfile.Uint(value)
		if !ok {
			continue
		}
		switch string(key) {
		case "hierarchical_memory_limit":
			m.Limit = limit1(n)
		case "hierarchical_memsw_limit":
			both = limit1(n)
		case "total_cache":
			m.File = n
		case "total_rss":
			m.Anon = n
		case "total_rss_huge":
			m.AnonTHP = n
		case "total_shmem":
			m.Shmem = n
		case "total_mapped_file":
			m.FileMapped = n
		case "total_dirty":
			m.FileDirty = n
		case "total_writeback":
			m.FileWriteback = n
		case "total_inactive_anon":
			m.InactiveAnon = n
		case "total_active_anon":
			m.ActiveAnon = n
		case "total_inactive_file":
			m.InactiveFile = n
		case "total_active_file":
			m.ActiveFile = n
		case "total_unevictable":
			m.Unevictable = n
		}
	}
	return both
}

func limit1(n uint64) uint64 {
	if n >= unlimited1 {
		return Unlimited
	}
	return n
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
