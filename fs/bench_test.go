package fs

import (
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// BenchmarkSnapshot is what a READ of the shared tree costs us, the caller's look-up included: with the snapshot of this tick, and with a new one.
func BenchmarkSnapshot(b *testing.B) {
	s, _, _ := testServers(b)
	buf := make([]byte, 8192)
	for _, kind := range []struct {
		name string
		anew bool
	}{{"kept", false}, {"anew", true}} {
		for i := range files {
			f := &files[i]
			if f.isDir() {
				continue
			}
			b.Run(kind.name+"/"+f.name(), func(b *testing.B) {
				in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: f.number, Caller: fuse.Caller{Pid: testPid}}, Fh: s.handles.add(), ReadFlags: fuseReadLockOwner}
				snap := s.render.of(testPid).files.of(f)
				b.ReportAllocs()
				for b.Loop() {
					if kind.anew {
						snap.at = time.Time{}
					}
					_, code := s.Read(in, buf)
					if code != fuse.OK {
						b.Fatal(code)
					}
				}
			})
		}
	}
}
