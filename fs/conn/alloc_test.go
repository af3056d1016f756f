//go:build !race

package conn

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestReadersDoNotAllocate holds for what is beneath the handlers what a test in fs holds for these: a request costs no memory.
func TestReadersDoNotAllocate(t *testing.T) {
	k := connect(t)
	in := fuse.GetAttrIn{InHeader: fuse.InHeader{Length: uint32(unsafe.Sizeof(fuse.GetAttrIn{})), Opcode: opGetattr, Unique: 77, NodeId: 2}}
	ask := bytesOf(&in)
	answer := make([]byte, 1<<12)
	const requests = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range requests {
		if _, err := unix.Write(k.fd, ask); err != nil {
			t.Fatal(err)
		}
		k.receive(answer)
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > requests/10 { // those of the readers that start
		t.Errorf("%d requests allocated %d objects", requests, n)
	}
}
