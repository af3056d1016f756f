package keeper

import (
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHolderCollects has the thread begin a collection of garbage: Go's runtime then looks at its poller there, and ends a process that cannot.
func TestHolderCollects(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	h, err := NewHolder(pipe[1], 2)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(h.pair)
	control, err := memory("control", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Hold(Descriptors{fdControl: control}); err != nil {
		t.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	for range 20000 {
		_, held, err := h.with(Descriptors{})
		if err != nil || len(held) != 1 {
			t.Fatalf("%v, %v", held, err)
		}
		held.close()
	}
}
