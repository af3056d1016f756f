//go:build !race

package fs

import (
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestHandlersDoNotAllocate holds what the read path promises: nothing is allocated for a READ, of either mount, whether its text is rendered anew
// or not. The caller is this test, as a process of the host.
func TestHandlersDoNotAllocate(t *testing.T) {
	s, o, _ := testServers(t)
	buf := make([]byte, 8192)
	pid := uint32(testPid)
	for i := range files {
		f := &files[i]
		if f.isDir() || f.hidden() { // a list for the host, now and then
			continue
		}
		t.Run("shared/"+f.path, func(t *testing.T) {
			in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: f.number, Caller: fuse.Caller{Pid: pid}}, Fh: s.handles.add(), ReadFlags: fuseReadLockOwner}
			v := s.render.of(pid)
			check(t, func() {
				v.files.of(f).at = time.Time{} // a tick has passed
				_, code := s.Read(in, buf)
				if code != fuse.OK {
					t.Fatal(code)
				}
			})
		})
		t.Run("own/"+f.path, func(t *testing.T) {
			rec, err := o.records.of(o.render.view(o.render.resolver.Of(pid)))
			if err != nil {
				t.Fatal(err)
			}
			attr := &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: node(rec, f)}}
			read := &fuse.ReadIn{InHeader: attr.InHeader}
			check(t, func() {
				rec.pages.of(f).at = time.Now().Add(-time.Second)
				var out fuse.AttrOut
				if code := o.GetAttr(attr, &out); code != fuse.OK {
					t.Fatal(code)
				}
				_, code := o.Read(read, buf)
				if code != fuse.OK {
					t.Fatal(code)
				}
			})
		})
	}
}

// Nor for a READ of what passes through from the host.
func TestCPUDirDoesNotAllocate(t *testing.T) {
	s, _, _ := testServersOf(t, Views{HideCPUs: true})
	buf := make([]byte, 8192)
	for _, file := range []string{"uevent", "possible", "cpu1/online", "cpu1/topology/core_id", "cpufreq/policy1/cur"} {
		t.Run(file, func(t *testing.T) {
			in := &fuse.ReadIn{InHeader: caller(s.walk(t, file).NodeId), Fh: s.handles.add(), ReadFlags: fuseReadLockOwner}
			check(t, func() {
				for _, in.Offset = range []uint64{0, 2, 1 << 40} {
					_, code := s.Read(in, buf[:2])
					if code != fuse.OK {
						t.Fatal(code)
					}
				}
			})
		})
	}
}
