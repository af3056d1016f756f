package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lensfs/cgroupview"
)

func openTestTable(t *testing.T, path string) (*table, map[uint64]tableSlot) {
	t.Helper()
	found := map[uint64]tableSlot{}
	tab, err := openTable(path, func(s tableSlot) { found[s.number().Load()] = s })
	if err != nil {
		t.Fatal(err)
	}
	return tab, found
}

func TestTableKeepsNumbers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	tab, _ := openTestTable(t, path)
	ids := map[uint64]cgroupview.ID{}
	for n := uint64(1); n <= 100; n++ {
		ids[n] = cgroupview.ID{Namespace: 4026532000 + n, Init: uint32(1000 + n), Start: 77 * n}
		s, err := tab.put(n, ids[n], fmt.Sprint("name", n))
		if err != nil {
			t.Fatal(err)
		}
		s.lookups().Add(int64(n))
		s.size(&files[3]).Store(uint32(n + 5))
	}
	for n := uint64(2); n <= 100; n += 2 {
		tab.remove(n)
		delete(ids, n)
	}
	again, found := openTestTable(t, path) // the other was killed: nothing was closed
	if len(found) != len(ids) {
		t.Errorf("%d containers, want %d", len(found), len(ids))
	}
	for n, id := range ids {
		s := found[n]
		if s.id() != id || s.name() != fmt.Sprint("name", n) || s.lookups().Load() != int64(n) || s.size(&files[3]).Load() != uint32(n+5) || s.size(&files[4]).Load() != 0 {
			t.Errorf("number %d is %v, want %v", n, s, id)
		}
	}
	if again.last().Load() != 100 {
		t.Errorf("last number given: %d", again.last().Load())
	}
	if _, err := again.put(101, cgroupview.ID{}, strings.Repeat("x", 256)); err == nil {
		t.Error("a name that no directory can have")
	}
	s, err := again.put(101, cgroupview.ID{}, "")
	if err != nil || s.lookups().Load() != 0 || s.size(&files[3]).Load() != 0 {
		t.Errorf("a slot used again is not empty: %v, %v", s, err)
	}
}

// Containers that come and go leave the table as long as it once had to be.
func TestTableDoesNotGrow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	tab, _ := openTestTable(t, path)
	for n := uint64(1); n <= 10_000; n++ {
		if _, err := tab.put(n, cgroupview.ID{Namespace: n}, "name"); err != nil {
			t.Fatal(err)
		}
		if n > 10 {
			tab.remove(n - 10)
		}
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if most := int64(pageSize + chunkSlots*slotBytes); st.Size() > most {
		t.Errorf("%d bytes, want at most %d", st.Size(), most)
	}
}

func TestOpenTableRefusesOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	for _, text := range []string{"short", strings.Repeat("not a table at all, but long enough", 200)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openTable(path, func(tableSlot) { t.Error("a container in it") }); err == nil {
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
	rec.kept.lookups().Add(3)
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
	if o.records.get(rec.number) != nil || len(o.records.table.used) != 0 {
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
