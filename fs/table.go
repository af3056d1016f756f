package fs

import (
	"encoding/binary"
	"fmt"
	"os"

	"lensfs/cgroupview"
)

// table is the file in which the meaning of node numbers outlives the daemon: which container has which number.
//
//	header   magic, last number given          16 bytes
//	slot     number (0: free), container ID    48 bytes, as many as were ever needed at once
//
// A slot is written with one pwrite(2) to a file in /run, so a daemon that is killed leaves it as it was or as it should be.
type table struct {
	file  *os.File
	last  uint64
	slots map[uint64]int64 // number → where its slot is
	free  []int64
	end   int64
}

const (
	tableMagic  = 0x316c626174736e6c // "lnstabl1"
	headerBytes = 16
	slotBytes   = 48
)

// newTable makes an empty table at path.
func newTable(path string) (*table, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	t := &table{file: file, slots: map[uint64]int64{}, end: headerBytes}
	if err := t.writeHeader(); err != nil {
		file.Close()
		return nil, err
	}
	return t, nil
}

// openTable reads the table that an earlier daemon left at path, and tells of each container in it.
func openTable(path string, known func(number uint64, id cgroupview.ID)) (*table, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		file.Close()
		return nil, err
	}
	if len(text) < headerBytes || binary.NativeEndian.Uint64(text) != tableMagic {
		file.Close()
		return nil, fmt.Errorf("%s: not a table of containers", path)
	}
	t := &table{file: file, last: binary.NativeEndian.Uint64(text[8:]), slots: map[uint64]int64{}, end: headerBytes}
	for ; t.end+slotBytes <= int64(len(text)); t.end += slotBytes {
		slot := text[t.end : t.end+slotBytes]
		number := binary.NativeEndian.Uint64(slot)
		if number == 0 {
			t.free = append(t.free, t.end)
			continue
		}
		t.slots[number] = t.end
		t.last = max(t.last, number)
		known(number, cgroupview.ID{
			Namespace: binary.NativeEndian.Uint64(slot[8:]),
			Start:     binary.NativeEndian.Uint64(slot[16:]),
			Init:      uint32(binary.NativeEndian.Uint64(slot[24:])),
		})
	}
	return t, nil
}

// put writes a container's number down before anybody is told it.
func (t *table) put(number uint64, id cgroupview.ID) error {
	at := t.end
	if n := len(t.free); n > 0 {
		at = t.free[n-1]
	}
	var slot [slotBytes]byte
	binary.NativeEndian.PutUint64(slot[0:], number)
	binary.NativeEndian.PutUint64(slot[8:], id.Namespace)
	binary.NativeEndian.PutUint64(slot[16:], id.Start)
	binary.NativeEndian.PutUint64(slot[24:], uint64(id.Init))
	if _, err := t.file.WriteAt(slot[:], at); err != nil {
		return err
	}
	if at == t.end {
		t.end += slotBytes
	} else {
		t.free = t.free[:len(t.free)-1]
	}
	t.slots[number] = at
	t.last = max(t.last, number)
	return t.writeHeader()
}

// remove frees a number's slot. The number itself is not given again.
func (t *table) remove(number uint64) error {
	at, ok := t.slots[number]
	if !ok {
		return nil
	}
	delete(t.slots, number)
	t.free = append(t.free, at)
	var slot [slotBytes]byte
	_, err := t.file.WriteAt(slot[:], at)
	return err
}

func (t *table) writeHeader() error {
	var h [headerBytes]byte
	binary.NativeEndian.PutUint64(h[0:], tableMagic)
	binary.NativeEndian.PutUint64(h[8:], t.last)
	_, err := t.file.WriteAt(h[:], 0)
	return err
}

// discard closes the table and removes its file: the nodes it speaks of are gone.
func (t *table) discard() error {
	path := t.file.Name()
	t.file.Close()
	return os.Remove(path)
}
