package fs

import (
	"os"
	"path/filepath"
	"testing"

	"lensfs/cgroupview"
)

func TestTableKeepsNumbers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	tab, err := newTable(path)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[uint64]cgroupview.ID{}
	for n := uint64(1); n <= 100; n++ {
		ids[n] = cgroupview.ID{Namespace: 4026532000 + n, Init: uint32(1000 + n), Start: 77 * n}
		if err := tab.put(n, ids[n]); err != nil {
			t.Fatal(err)
		}
	}
	for n := uint64(2); n <= 100; n += 2 {
		if err := tab.remove(n); err != nil {
			t.Fatal(err)
		}
		delete(ids, n)
	}
	found := map[uint64]cgroupview.ID{}
	again, err := openTable(path, func(n uint64, id cgroupview.ID) { found[n] = id })
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(ids) {
		t.Errorf("%d containers, want %d", len(found), len(ids))
	}
	for n, id := range ids {
		if found[n] != id {
			t.Errorf("number %d is %v, want %v", n, found[n], id)
		}
	}
	if again.last != 100 {
		t.Errorf("last number given: %d", again.last)
	}
}

// Containers that come and go leave the table as long as it once had to be.
func TestTableDoesNotGrow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	tab, err := newTable(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= 10_000; n++ {
		if err := tab.put(n, cgroupview.ID{Namespace: n}); err != nil {
			t.Fatal(err)
		}
		if n > 10 {
			if err := tab.remove(n - 10); err != nil {
				t.Fatal(err)
			}
		}
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if most := int64(headerBytes + 11*slotBytes); st.Size() > most {
		t.Errorf("%d bytes, want at most %d", st.Size(), most)
	}
}

func TestOpenTableRefusesOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	for _, text := range []string{"", "short", "not a table at all, but long enough"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openTable(path, func(uint64, cgroupview.ID) { t.Error("a container in it") }); err == nil {
			t.Errorf("%q: opened", text)
		}
	}
}

// An ended container's record stays as long as the kernel has nodes of it, and its name is free at once.
func TestRecordOutlivesContainerUntilForgotten(t *testing.T) {
	_, o, _ := testServers(t)
	v := o.render.of(testPid)
	rec, err := o.records.of(v)
	if err != nil {
		t.Fatal(err)
	}
	rec.lookups.Add(3)
	if name := o.records.end(v); name != rec.name {
		t.Errorf("the kernel is to forget %q", name)
	}
	if o.records.named(rec.name) != nil || len(o.records.all()) != 0 {
		t.Error("an ended container is still there by name")
	}
	o.Forget(node(rec, o.tree.file(1)), 2)
	if o.records.get(rec.number) == nil {
		t.Error("gone while the kernel has a node")
	}
	o.Forget(node(rec, o.tree.file(4)), 1)
	if o.records.get(rec.number) != nil || len(o.records.table.slots) != 0 {
		t.Error("still there when the kernel has forgotten")
	}
	next, err := o.records.of(v)
	if err != nil {
		t.Fatal(err)
	}
	if next.number == rec.number {
		t.Error("its number was given again")
	}
}
