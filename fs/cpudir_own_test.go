package fs

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"lensfs/fs/conn"
	"lensfs/sysview"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// In a container's own view all but online and offline are links to the shared tree.
func TestOwnCPUs(t *testing.T) {
	s, o, _ := testServers(t)
	rec, err := o.records.of(o.render.of(testPid))
	if err != nil {
		t.Fatal(err)
	}
	dir := rec.number<<numberShift | cpuDirNumber
	list := names(t, o, dir)
	if want := names(t, s, cpuDirNumber); !slices.Equal(list, want) {
		t.Errorf("listed: %v, not %v", list, want)
	}
	for _, name := range list[2:] {
		e := look(t, o, dir, name)
		in := caller(e.NodeId)
		target, code := o.Readlink(&in)
		var attr fuse.AttrOut
		if code := o.GetAttr(&fuse.GetAttrIn{InHeader: in}, &attr); code != fuse.OK || attr.Mode != e.Mode || attr.Ino != e.NodeId || attr.Size != e.Size {
			t.Errorf("%s: %v, %+v, at LOOKUP %+v", name, code, attr.Attr, e.Attr)
		}
		if name == "online" || name == "offline" {
			if e.Mode != reg444 || code != fuse.EINVAL {
				t.Errorf("%s: mode %o, link %q", name, e.Mode, target)
			}
			continue
		}
		if want := "/tree/" + cpuDirPath + "/" + name; string(target) != want || e.Mode != unix.S_IFLNK|0o777 || e.Size != uint64(len(want)) || code != fuse.OK {
			t.Errorf("%s: mode %o, %d bytes, leads to %q, %v", name, e.Mode, e.Size, target, code)
		}
	}
	if got := rec.kept.lookups().Load(); got != int64(len(list)-2) {
		t.Errorf("%d lookups of %d names", got, len(list)-2)
	}
	if e := look(t, o, dir, "nothing"); e.NodeId != 0 {
		t.Errorf("what does not exist: %+v", e)
	}
	for _, n := range []uint64{sysview.Top | 77, 1 << 34, 31} {
		var attr fuse.AttrOut
		if code := o.GetAttr(&fuse.GetAttrIn{InHeader: caller(rec.number<<numberShift | n)}, &attr); code != fuse.Status(unix.ESTALE) {
			t.Errorf("number %#x: %v", n, code)
		}
	}
}

// With --hide-cpus what exists depends on who asks, so the kernel may not keep it.
func TestHideCPUs(t *testing.T) {
	s, o, _ := testServersOf(t, Views{HideCPUs: true})
	rec, err := o.records.of(o.render.of(testPid))
	if err != nil {
		t.Fatal(err)
	}
	for fs, dir := range map[conn.Handler]uint64{s: cpuDirNumber, o: rec.number<<numberShift | cpuDirNumber} {
		if e := look(t, fs, dir, "cpu1"); e.NodeId == 0 || e.EntryTimeout() != 0 {
			t.Errorf("its CPU: %+v", e)
		}
		if e := look(t, fs, dir, "cpu0"); e.NodeId != 0 || e.EntryTimeout() != 0 {
			t.Errorf("another: %+v", e)
		}
		if list := names(t, fs, dir); slices.Contains(list, "cpu0") || !slices.Contains(list, "cpu1") {
			t.Errorf("listed: %v", list)
		}
	}
	if got := s.text(t, s.walk(t, "possible").NodeId) + s.text(t, s.walk(t, "offline").NodeId); got != "1\n\n" {
		t.Errorf("possible and offline: %q", got)
	}
	in, out := fuse.InHeader{NodeId: cpuDirNumber}, fuse.EntryOut{} // pid 0: the host
	if code := s.Lookup(&in, "cpu0", &out); code != fuse.OK || out.NodeId == 0 {
		t.Errorf("the host: %v, %+v", code, out)
	}
}

func TestNumbersOfContainersRunOut(t *testing.T) {
	_, o, _ := testServers(t)
	o.records.table.last().Store(maxRecord - 1)
	rec, err := o.records.of(o.render.of(testPid))
	if err != nil || rec.number != 1<<28-1 {
		t.Fatalf("the last: %+v, %v", rec, err)
	}
	id := rec.number<<numberShift | (1<<numberShift - 1)
	if back, _ := o.at(id); back != rec || id != 1<<64-1 {
		t.Errorf("node %#x is of %v", id, back)
	}
	if _, err := o.records.of(&view{container: o.render.resolver.Host()}); !errors.Is(err, errNumbers) {
		t.Errorf("one more: %v", err)
	}
}

func TestShowCPU(t *testing.T) {
	root := writeTree(t, testTree)
	for path, want := range map[string]string{
		"cpu/online": "1\n", "offline": "0\n", "cpu/possible": "0-1\n", "/sys/devices/system/cpu/cpu1/topology/core_id": "7\n", "cpu/cpu1/online": "1\n",
	} {
		if got, err := Show(testPid, Views{Root: root}, path); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if got, err := Show(testPid, Views{Root: root, HideCPUs: true}, "cpu/possible"); string(got) != "1\n" || err != nil {
		t.Errorf("hidden: %q, %v", got, err)
	}
	for _, path := range []string{"cpu/nothing", "nothing", "/sys/devices/system/cpu"} {
		if got, err := Show(testPid, Views{Root: root}, path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}
