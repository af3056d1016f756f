package cgroupview

import (
	"encoding/binary"
	"hash/crc32"
)

// A slot holds two records, written in turn, so that a process that is killed while it writes one leaves the other:
//
//	namespace, start, init    uint64 each, the container's ID
//	tick                      uint64, of the sample
//	load                      3 uint64
//	checksum                  uint64, IEEE CRC-32 of all before
const loadRecord = 8 * 8

// LoadBytes is the length of a slot that holds a container's averages.
const LoadBytes = 2 * loadRecord

// maxLoad is above what a machine of PID_MAX_LIMIT tasks has.
const maxLoad = maxPid * LoadOne

// loadSlot is memory that outlives the process. nil keeps nothing.
type loadSlot struct {
	slot []byte
	next int // the record that is written next
}

// KeepLoad writes the container's averages through to slot from now on, LoadBytes of a mapped file, and takes over what an earlier daemon has left
// there: its samples since then are made up. A record that is another container's, is damaged or is from the future is ignored.
// It says whether there was a good one. A nil slot ends it; before the memory is unmapped, that has to be.
func (c *Container) KeepLoad(slot []byte) (restored bool) {
	k := &c.load
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(slot) < LoadBytes {
		k.keep = loadSlot{}
		return false
	}
	k.keep = loadSlot{slot: slot[:LoadBytes]}
	now := c.r.loadTick()
	var newest uint64
	for i := range 2 {
		id, tick, load, ok := readLoad(slot[i*loadRecord:])
		if !ok || id != c.ID() || tick > now || restored && tick < newest {
			continue
		}
		restored, newest = true, tick
		k.tick, k.load, k.keep.next = tick, load, 1-i
	}
	if !restored {
		clear(k.keep.slot)
		k.keep.write(c.ID(), k.tick, k.load)
	}
	return restored
}

// LoadOwner says whose averages a slot holds; false where that is nobody's.
func LoadOwner(slot []byte) (ID, bool) {
	for i := range min(2, len(slot)/loadRecord) {
		if id, _, _, ok := readLoad(slot[i*loadRecord:]); ok {
			return id, true
		}
	}
	return ID{}, false
}

func (s *loadSlot) write(id ID, tick uint64, load Load) {
	if s.slot == nil {
		return
	}
	record := s.slot[s.next*loadRecord:][:loadRecord]
	for i, n := range [...]uint64{id.Namespace, id.Start, uint64(id.Init), tick, load[0], load[1], load[2]} {
		binary.NativeEndian.PutUint64(record[i*8:], n)
	}
	binary.NativeEndian.PutUint64(record[loadRecord-8:], uint64(crc32.ChecksumIEEE(record[:loadRecord-8])))
	s.next = 1 - s.next
}

// readLoad reads one record of at least loadRecord bytes.
func readLoad(record []byte) (id ID, tick uint64, load Load, ok bool) {
	number := func(i int) uint64 { return binary.NativeEndian.Uint64(record[i*8:]) }
	if number(7) != uint64(crc32.ChecksumIEEE(record[:loadRecord-8])) || number(2) > maxPid {
		return ID{}, 0, Load{}, false
	}
	load = Load{number(4), number(5), number(6)}
	if max(load[0], load[1], load[2]) > maxLoad {
		return ID{}, 0, Load{}, false
	}
	return ID{Namespace: number(0), Start: number(1), Init: uint32(number(2))}, number(3), load, true
}
