package fs

import (
	"encoding/json"
	"testing"
	"time"

	"lensfs/cgroupview"

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

// BenchmarkCounting is what it adds to a request to be counted and timed. cpu-ns/op is what to look at where others use the machine.
func BenchmarkCounting(b *testing.B) {
	var s fileStats
	var v view
	begun := time.Now()
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"nothing", func() {}},
		{"shared READ at 0", func() { // its beginning is the time by which the snapshot is judged
			s.reads.Add(1)
			v.requests.Add(1)
			s.read.add(time.Since(begun))
		}},
		{"shared READ further on", func() { s.reads.Add(1) }},
		{"own GETATTR", func() { // both its times are needed anyway
			s.getattrs.Add(1)
			s.getattr.add(time.Duration(s.getattrs.Load()))
			v.requests.Add(1)
		}},
		{"own READ", func() {
			n := s.reads.Add(1)
			v.requests.Add(1)
			if sampled(n) {
				begun := time.Now()
				s.read.add(time.Since(begun))
			}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			before, n := processReport().CPU, 0
			for b.Loop() {
				c.f()
				n++
			}
			b.ReportMetric((processReport().CPU-before)*1e9/float64(n), "cpu-ns/op")
		})
	}
}

// BenchmarkReport is what it costs to be asked for a report, with as many containers as are told of.
func BenchmarkReport(b *testing.B) {
	s, o, _ := testServers(b)
	for range maxReported {
		s.render.views.Store(new(cgroupview.Container), &view{container: s.render.of(testPid).container})
	}
	w := &Worker{tree: s.tree, render: s.render, own: o}
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		text, err := json.Marshal(w.Report())
		if err != nil {
			b.Fatal(err)
		}
		size = len(text)
	}
	b.ReportMetric(float64(size), "bytes")
}
