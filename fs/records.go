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
	number uint64
	name   string    // of its directory
	view   *view     // nil: a daemon before us had it, and nobody has asked yet; whoever is given a record finds it here
	kept   tableSlot // what outlives us of it
	pages  slots[page]
	ended  atomic.Bool
}

// records are the containers that the kernel may know nodes of.
type records struct {
	mu       sync.Mutex
	byNumber map[uint64]*record
	byName   map[string]*record
	byID     map[cgroupview.ID]*record // those that have not ended
	table    *table
	recall   func(cgroupview.ID, string) *view
}

// openRecords opens the records of which the table at path tells. recall gives the view of a container in it.
func openRecords(path string, recall func(cgroupview.ID, string) *view) (*records, error) {
	r := &records{byNumber: map[uint64]*record{}, byName: map[string]*record{}, byID: map[cgroupview.ID]*record{}, recall: recall}
	var err error
	r.table, err = openTable(path, func(s tableSlot) {
		rec := &record{number: s.number().Load(), name: s.name(), kept: s}
		r.byNumber[rec.number] = rec
		r.byID[s.id()] = rec
		if other := r.byName[rec.name]; other == nil || other.number < rec.number { // who has ended lost his name to who came later
			r.byName[rec.name] = rec
		}
	})
	return r, err
}

// of gives the container's record, made at its first sight.
func (r *records) of(v *view) (*record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := v.container.ID()
	if rec := r.byID[id]; rec != nil {
		return r.found(rec), nil
	}
	last := r.table.last().Load()
	if last >= maxRecord {
		return nil, errNumbers
	}
	rec := &record{number: last + 1, name: r.freeName(v.container), view: v}
	var err error
	if rec.kept, err = r.table.put(rec.number, id, rec.name); err != nil {
		return nil, fmt.Errorf("table of containers: %w", err)
	}
	r.byNumber[rec.number] = rec
	r.byName[rec.name] = rec
	r.byID[id] = rec
	return rec, nil
}

var errNumbers = errors.New("every number of a container has been given once: restart lensfs with no container running")

// found sees to it that a record has its view. r is locked.
func (r *records) found(rec *record) *record {
	if rec != nil && rec.view == nil {
		rec.view = r.recall(rec.kept.id(), rec.name)
	}
	return rec
}

// findAll finds the containers that a daemon before us knew, one by one: they go on being sampled, and those that ended meanwhile are told of.
func (r *records) findAll(ended func(*view)) {
	r.mu.Lock()
	var numbers []uint64
	for n, rec := range r.byNumber {
		if rec.view == nil {
			numbers = append(numbers, n)
		}
	}
	r.mu.Unlock()
	for _, n := range numbers {
		if rec := r.get(n); rec != nil && !rec.view.container.Alive() {
			ended(rec.view)
		}
	}
}

// freeName gives the container's name, with a number behind it where another living one has it. One that has ended without being swept yet
// loses it: a container stopped and started again is the same to a person.
func (r *records) freeName(c *cgroupview.Container) string {
	name := c.Name
	for n := 2; ; n++ {
		if other := r.found(r.byName[name]); other == nil || !other.view.container.Alive() {
			return name
		}
		name = c.Name + "~" + strconv.Itoa(n)
	}
}

func (r *records) get(number uint64) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.found(r.byNumber[number])
}

// find gives the record of a container that has one already.
func (r *records) find(id cgroupview.ID) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

func (r *records) named(name string) *record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.found(r.byName[name])
}

// all gives the living containers' records.
func (r *records) all() []*record {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*record
	for _, rec := range r.byName {
		if !rec.ended.Load() {
			all = append(all, r.found(rec))
		}
	}
	return all
}

// end is told that a container has ended. It gives the name that the kernel should forget, "" if there is none.
func (r *records) end(v *view) (name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.byID[v.container.ID()]
	if rec == nil {
		return ""
	}
	delete(r.byID, v.container.ID())
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
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.byNumber[number]
	if rec != nil && rec.kept.lookups().Add(-int64(n)) <= 0 && rec.ended.Load() {
		r.dropForgotten(rec)
	}
}

// dropForgotten removes an ended container's record when the kernel has no node of it any more.
func (r *records) dropForgotten(rec *record) {
	if rec.kept.lookups().Load() <= 0 && r.byNumber[rec.number] == rec {
		delete(r.byNumber, rec.number)
		r.table.remove(rec.number)
	}
}
