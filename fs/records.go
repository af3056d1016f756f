package fs

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"lensfs/cgroupview"
)

// record is a container that has a directory of its own. Its number is part of the number of each of its nodes and never given again, so a node
// of an ended container cannot become another's.
type record struct {
	number  uint64
	name    string // of its directory
	view    *view
	pages   slots[page]
	lookups atomic.Int64 // what the kernel remembers of its nodes: LOOKUPs answered less FORGETs
	ended   atomic.Bool
}

// records are the containers that the kernel may know nodes of.
type records struct {
	mu       sync.Mutex
	last     uint64
	byNumber map[uint64]*record
	byName   map[string]*record
	byView   map[*view]*record
	table    *table
}

func newRecords(t *table) *records {
	return &records{last: t.last, byNumber: map[uint64]*record{}, byName: map[string]*record{}, byView: map[*view]*record{}, table: t}
}

// of gives the container's record, made at its first sight.
func (r *records) of(v *view) (*record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.byView[v]; rec != nil {
		return rec, nil
	}
	if r.last >= maxRecord {
		return nil, errNumbers
	}
	rec := &record{number: r.last + 1, view: v}
	if err := r.table.put(rec.number, v.container.ID()); err != nil {
		return nil, fmt.Errorf("table of containers: %w", err)
	}
	r.last++
	r.add(rec)
	return rec, nil
}

var errNumbers = errors.New("every number of a container has been given once: restart lensfs with no container running")

func (r *records) add(rec *record) {
	rec.name = r.freeName(rec.view.container)
	r.byNumber[rec.number] = rec
	r.byName[rec.name] = rec
	r.byView[rec.view] = rec
}

// freeName gives the container's name, with a number behind it where another living one has it. One that has ended without being swept yet
// loses it: a container stopped and started again is the same to a person.
func (r *records) freeName(c *cgroupview.Container) string {
	name := c.Name
	for n := 2; ; n++ {
		if other := r.byName[name]; other == nil || !other.view.container.Alive() {
			return name
		}
		name = c.Name + "~" + strconv.Itoa(n)
	}
}

func (r *records) get(number uint64) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byNumber[number]
}

func (r *records) named(name string) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byName[name]
}

// all gives the living containers' records.
func (r *records) all() []*record {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*record
	for _, rec := range r.byName {
		if !rec.ended.Load() {
			all = append(all, rec)
		}
	}
	return all
}

// end is told that a container has ended. It gives the name that the kernel should forget, "" if there is none.
func (r *records) end(v *view) (name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.byView[v]
	if rec == nil {
		return ""
	}
	delete(r.byView, v)
	rec.ended.Store(true)
	if r.byName[rec.name] == rec {
		delete(r.byName, rec.name)
		name = rec.name
	}
	r.dropForgotten(rec)
	return name
}

// forget takes n LOOKUPs back.
func (r *records) forget(number, n uint64) {
	rec := r.get(number)
	if rec == nil || rec.lookups.Add(-int64(n)) > 0 || !rec.ended.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropForgotten(rec)
}

// dropForgotten removes an ended container's record when the kernel has no node of it any more.
func (r *records) dropForgotten(rec *record) {
	if rec.lookups.Load() <= 0 && r.byNumber[rec.number] == rec {
		delete(r.byNumber, rec.number)
		r.table.remove(rec.number)
	}
}
