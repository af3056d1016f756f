package cgroupview

import (
	"hash/crc32"
	"time"
	"unsafe"
)

// clockHead begins a record. The times and the usage of each CPU follow. It is written as it stands in memory, for the same machine to read.
type clockHead struct {
	sum      uint32 // of all that follows
	version  uint32
	sequence uint64 // counts the records written; never 0
	cpus     uint64 // how many CPUs follow
	clockState
}

// clockVersion changes with the layout of a record.
const clockVersion = 1

const (
	clockHeadBytes = int(unsafe.Sizeof(clockHead{}))
	clockCPUBytes  = int(unsafe.Sizeof(CPUTime{}) + unsafe.Sizeof(cpuUsage{}))
)

// ClockBytes is the size of a slot in which a clock keeps itself on a host whose CPU numbers, possible ones included, are below cpus.
func ClockBytes(cpus int) int { return 2 * (clockHeadBytes + cpus*clockCPUBytes) }

// clockKeep is where a clock keeps itself: two records, of which the older is overwritten. However far a write got when the process was killed, the
// other one is whole.
type clockKeep struct {
	slot     []byte
	sequence uint64
}

// KeepClock has the container's CPU time outlive this process: its clock goes on from the record in slot, if there is a good one and the clock has not
// begun without it, and from now on writes itself there at each look. The slot is memory that lasts, of ClockBytes, and this container's alone (ID).
// nil ends that; after it the slot is not touched any more. A clock that has outgrown its slot leaves the last record there.
func (c *Container) KeepClock(slot []byte) {
	k := &c.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keep = clockKeep{slot: slot}
	var last clockHead
	for i := range uint64(2) {
		if h, ok := readHead(k.keep.record(i)); ok && h.sequence%2 == i && h.sequence > last.sequence {
			last = h
		}
	}
	k.keep.sequence = last.sequence
	// A clock that has begun has shown its numbers already; and a record of a time to come is of no clock of ours.
	if last.sequence > 0 && k.at == 0 && last.at <= c.Age() {
		k.restore(&last, k.keep.record(last.sequence))
	}
}

// record gives the place of the record written with a sequence number.
func (k *clockKeep) record(sequence uint64) []byte {
	half := len(k.slot) / 2
	if sequence%2 == 0 {
		return k.slot[:half]
	}
	return k.slot[half : 2*half]
}

// save writes the clock into its slot.
func (k *cpuClock) save() {
	size := clockHeadBytes + len(k.times)*clockCPUBytes
	to := k.keep.record(k.keep.sequence + 1)
	if len(to) < size {
		return
	}
	to = to[:size]
	k.keep.sequence++
	head := [1]clockHead{{version: clockVersion, sequence: k.keep.sequence, cpus: uint64(len(k.times)), clockState: k.clockState}}
	n := copy(to, bytesOf(head[:]))
	n += copy(to[n:], bytesOf(k.times))
	copy(to[n:], bytesOf(k.cpus))
	head[0].sum = crc32.ChecksumIEEE(to[unsafe.Sizeof(head[0].sum):])
	copy(to, bytesOf(head[:]))
}

// readHead reads the head of a record that is whole.
func readHead(from []byte) (clockHead, bool) {
	var head [1]clockHead
	if copy(bytesOf(head[:]), from) < clockHeadBytes {
		return head[0], false
	}
	h := head[0]
	body := len(from) - clockHeadBytes
	if h.version != clockVersion || h.sequence == 0 || h.cpus > MaxCPUs || int(h.cpus)*clockCPUBytes > body {
		return h, false
	}
	end := clockHeadBytes + int(h.cpus)*clockCPUBytes
	return h, h.sum == crc32.ChecksumIEEE(from[unsafe.Sizeof(h.sum):end])
}

// restore takes a record over, if its numbers can be those of a clock.
func (k *cpuClock) restore(h *clockHead, from []byte) {
	times, cpus := make([]CPUTime, h.cpus), make([]cpuUsage, h.cpus)
	from = from[clockHeadBytes:]
	copy(bytesOf(cpus), from[copy(bytesOf(times), from):])
	if h.at < 0 {
		return
	}
	for _, t := range times {
		left := h.at
		for _, d := range [...]time.Duration{t.User, t.System, t.Steal, t.Idle} {
			if d < 0 || d > left {
				return
			}
			left -= d
		}
	}
	for _, n := range h.next {
		if n < 0 || n > MaxCPUs {
			return
		}
	}
	if h.owed.user < 0 || h.owed.system < 0 || h.owedSteal < 0 || max(h.owed.user, h.owed.system, h.owedSteal) > MaxCPUs*quotaPeriod {
		return
	}
	k.clockState, k.times, k.cpus, k.room = h.clockState, times, cpus, make([]time.Duration, h.cpus)
}

// bytesOf gives the memory of values that hold no pointer.
func bytesOf[T clockHead | CPUTime | cpuUsage](values []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*int(unsafe.Sizeof(*new(T))))
}
