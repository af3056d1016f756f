package cgroupview

import (
	"encoding/binary"
	"hash/crc32"
)

// Forks is how many numbers the container's pid namespace has given to tasks, as far as that was seen: LastPid, until numbers begin anew, and from
// then on it goes on growing where LastPid does not. It is as of the last Tasks. What was between the last number seen and the largest is not counted:
// how large that is, a namespace says only inside (Linux 6.14).
func (c *Container) Forks() uint64 {
	c.tasks.mu.Lock()
	defer c.tasks.mu.Unlock()
	return max(c.tasks.forks, uint64(c.tasks.tasks.LastPid))
}

// reservedPids are given once only: numbers begin anew behind them (RESERVED_PIDS in include/linux/threads.h).
const reservedPids = 300

// fork follows the last number from one to the next, which is y's.
func (k *knownTasks) fork(y task, pid uint32) {
	last := uint64(k.tasks.LastPid)
	k.forks = max(k.forks, last)
	switch p := uint64(pid); {
	case p >= last:
		k.forks += p - last
	case p >= reservedPids:
		k.forks += p - reservedPids + 1
	default: // somebody chose it: clone3's set_tid
		k.forks++
	}
	k.youngest, k.tasks.LastPid = y, pid
}

// A slot holds two records, as that of the load averages (load_keep.go):
//
//	namespace, start, init    uint64 each, the container's ID
//	forks                     uint64
//	start                     uint64, of the youngest task
//	tid, pid                  uint32 each, its numbers for us and for the container
//	checksum                  uint64, IEEE CRC-32 of all before
const forkRecord = 7 * 8

// ForkBytes is the length of a slot that holds a container's forks.
const ForkBytes = 2 * forkRecord

// KeepForks writes the container's forks and its last pid through to slot from now on, ForkBytes of a mapped file, and goes on from what an earlier daemon
// has left there: another one cannot see how often numbers began anew, nor those of tasks that have ended. It says whether there was something. A nil slot
// ends it; before the memory is unmapped, that has to be.
func (c *Container) KeepForks(slot []byte) (restored bool) {
	k := &c.tasks
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept = nil; len(slot) < ForkBytes {
		return false
	}
	k.kept = slot[:ForkBytes]
	for i := range 2 {
		forks, youngest, pid, ok := readForks(slot[i*forkRecord:], c.ID())
		if ok && forks >= k.forks {
			k.forks, k.youngest, k.tasks.LastPid, k.next = forks, youngest, pid, 1-i
			restored = true
		}
	}
	return restored
}

// keepForks writes the record whose turn it is.
func (k *knownTasks) keepForks(id ID) {
	if k.kept == nil {
		return
	}
	record := k.kept[k.next*forkRecord:][:forkRecord]
	for i, n := range [...]uint64{id.Namespace, id.Start, uint64(id.Init), k.forks, k.youngest.start, uint64(k.youngest.tid)<<32 | uint64(k.tasks.LastPid)} {
		binary.NativeEndian.PutUint64(record[i*8:], n)
	}
	binary.NativeEndian.PutUint64(record[forkRecord-8:], uint64(crc32.ChecksumIEEE(record[:forkRecord-8])))
	k.next = 1 - k.next
}

// readForks reads one record, if it is this container's and whole.
func readForks(record []byte, id ID) (forks uint64, youngest task, pid uint32, ok bool) {
	number := func(i int) uint64 { return binary.NativeEndian.Uint64(record[i*8:]) }
	pid = uint32(number(5))
	ok = number(6) == uint64(crc32.ChecksumIEEE(record[:forkRecord-8])) &&
		id == ID{Namespace: number(0), Start: number(1), Init: uint32(number(2))} && pid > 0 && pid <= maxPid && number(3) >= uint64(pid)
	return number(3), task{start: number(4), tid: uint32(number(5) >> 32)}, pid, ok
}
