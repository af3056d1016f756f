package cgroupview

import (
	"lensfs/cgroupview/kfile"
)

func (m *Memory) stat2(text []byte) {
	for len(text) > 0 {
		key, n, ok, rest := kfile.Counter(text)
		text = rest
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

// unlimited1 is from where a v1 limit is none: the kernel says PAGE_COUNTER_MAX pages, a little below 1<<63 with any page size.
const unlimited1 = 1 << 62

// stat1 reads the total_ lines, which count the groups below too. It returns the limit of memory and swap together, 0 where that is not counted.
func (m *Memory) stat1(text []byte) (both uint64) {
	for len(text) > 0 {
		key, n, ok, rest := kfile.Counter(text)
		text = rest
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
