package procview

import (
	"bytes"
	"strconv"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"
)

// Meminfo appends /proc/meminfo.
func Meminfo(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error) {
	m, err := host.memory(container)
	if err != nil {
		return dst, err
	}
	text, err := host.meminfo.lock(host.proc)
	if err != nil {
		return dst, err
	}
	defer host.meminfo.unlock()
	return appendMeminfo(dst, text, &m), nil
}

// memory reads the container's memory, without what the operator wants nobody to see.
func (h *Host) memory(container *cgroupview.Container) (cgroupview.Memory, error) {
	m, err := container.Memory()
	if h.options.NoSwap && m.Counted { // of the host's own processes nothing is known that could stand beside it
		m.SwapCounted, m.SwapLimit, m.SwapUsage, m.SwapCached = true, 0, 0, 0
	}
	if h.options.NoZswap || h.options.NoSwap {
		m.Zswap, m.Zswapped = 0, 0
	}
	return m, err
}

// machine is the container's memory as that of a machine of its own, in kB as all of meminfo.
type machine struct {
	total, free, available uint64
	swapTotal, swapFree    uint64
	limited                bool
}

// newMachine fits the container's memory into the host's. Nothing comes out negative or above its total, whatever is read in between two changes.
func newMachine(host []byte, m *cgroupview.Memory) machine {
	hostTotal, hostSwap := lineValue(host, "MemTotal"), lineValue(host, "SwapTotal")
	total := min(m.Limit/1024, hostTotal)
	free := total - min(m.Usage/1024, total)
	swapUsed := m.SwapUsage / 1024
	if hostSwap == 0 { // v1 has it as the difference of two numbers, between which memory may have been taken
		swapUsed = 0
	}
	swapTotal := max(min(m.SwapLimit/1024, hostSwap), swapUsed)
	return machine{
		limited:   total < hostTotal || m.SwapCounted && m.SwapLimit/1024 < hostSwap,
		total:     total,
		free:      free,
		available: min(free+(m.ActiveFile+m.InactiveFile+m.SlabReclaimable)/1024, total),
		swapTotal: swapTotal,
		swapFree:  swapTotal - swapUsed,
	}
}

// appendMeminfo writes the host's lines with the container's values. A container without any limit sees the host's file.
func appendMeminfo(dst, host []byte, m *cgroupview.Memory) []byte {
	v := newMachine(host, m)
	if !v.limited {
		return append(dst, host...)
	}
	for len(host) > 0 {
		var line []byte
		line, host = kfile.Line(host)
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			dst = append(append(dst, line...), '\n')
			continue
		}
		kb, known := meminfoValue(string(line[:colon]), &v, m)
		if !known {
			dst = append(append(dst, line...), '\n')
			continue
		}
		dst = appendLine(dst, line[:colon+1], kb)
	}
	return dst
}

// meminfoValue gives a line's value in kB, or false where the line stays the host's.
func meminfoValue(name string, v *machine, m *cgroupview.Memory) (kb uint64, known bool) {
	// What a group holds at one moment may be more than its limit at the next: no part is more than the whole.
	of := func(b uint64) (uint64, bool) { return min(b/1024, v.total), true }
	switch name {
	case "MemTotal":
		return v.total, true
	case "MemFree":
		return v.free, true
	case "MemAvailable":
		return v.available, true
	case "Buffers":
		return 0, true
	case "Cached":
		return of(m.File)
	case "SwapCached":
		return of(m.SwapCached)
	case "Active":
		return of(m.ActiveAnon + m.ActiveFile)
	case "Inactive":
		return of(m.InactiveAnon + m.InactiveFile)
	case "Active(anon)":
		return of(m.ActiveAnon)
	case "Inactive(anon)":
		return of(m.InactiveAnon)
	case "Active(file)":
		return of(m.ActiveFile)
	case "Inactive(file)":
		return of(m.InactiveFile)
	case "Unevictable":
		return of(m.Unevictable)
	case "Mlocked": // a part of Unevictable that no cgroup counts
		return 0, true
	case "SwapTotal":
		return v.swapTotal, true
	case "SwapFree":
		return v.swapFree, true
	case "Zswap":
		return of(m.Zswap)
	case "Zswapped": // as large as it was before: may be more than all memory
		return m.Zswapped / 1024, true
	case "Dirty":
		return of(m.FileDirty)
	case "Writeback":
		return of(m.FileWriteback)
	case "AnonPages":
		return of(m.Anon)
	case "Mapped":
		return of(m.FileMapped)
	case "Shmem":
		return of(m.Shmem)
	case "KReclaimable":
		return of(m.SlabReclaimable)
	case "Slab":
		return of(m.Slab)
	case "SReclaimable":
		return of(m.SlabReclaimable)
	case "SUnreclaim":
		return of(m.SlabUnreclaimable)
	case "KernelStack":
		return of(m.KernelStack)
	case "PageTables":
		return of(m.PageTables)
	case "SecPageTables":
		return of(m.SecPageTables)
	case "NFS_Unstable", "Bounce", "WritebackTmp":
		return 0, true
	case "Percpu":
		return of(m.Percpu)
	case "AnonHugePages":
		return of(m.AnonTHP)
	case "ShmemHugePages":
		return of(m.ShmemTHP)
	case "FileHugePages":
		return of(m.FileTHP)
	case "ShmemPmdMapped", "FilePmdMapped": // mapped with huge entries: no cgroup counts it
		return 0, true
	}
	return 0, false
}

// appendLine writes as fs/proc/meminfo.c does: the name in 16 columns, the number in 8.
func appendLine(dst, name []byte, kb uint64) []byte {
	dst = append(dst, name...)
	for n := len(name); n < 16; n++ {
		dst = append(dst, ' ')
	}
	var digits [20]byte
	number := strconv.AppendUint(digits[:0], kb, 10)
	for n := len(number); n < 8; n++ {
		dst = append(dst, ' ')
	}
	dst = append(dst, number...)
	return append(dst, " kB\n"...)
}

// lineValue finds the number of one line of the host's text.
func lineValue(host []byte, name string) uint64 {
	for len(host) > 0 {
		var line []byte
		line, host = kfile.Line(host)
		if len(line) > len(name) && line[len(name)] == ':' && string(line[:len(name)]) == name {
			number, _ := kfile.Field(line[len(name)+1:])
			n, _ := kfile.Uint(number)
			return n
		}
	}
	return 0
}
