package fs

import (
	"slices"
	"testing"
	"time"

	"lensfs/procview"
)

// A page that the kernel was given is dropped once, when its tick is over, and not before.
func TestOutdated(t *testing.T) {
	var dropped []uint64
	o := newOutdated(func(node uint64) { dropped = append(dropped, node) })
	old, young := &page{at: time.Now().Add(-time.Second)}, &page{at: time.Now().Add(time.Hour)}
	o.add(1, old)
	o.add(2, young)
	o.add(1, old)
	if _, more := o.round(nil); !more || !slices.Equal(dropped, []uint64{1}) || old.held || !young.held {
		t.Fatalf("dropped %v, more %v", dropped, more)
	}
	young.at = time.Now().Add(-procview.Tick)
	if _, more := o.round(nil); more || !slices.Equal(dropped, []uint64{1, 2}) || young.held {
		t.Fatalf("dropped %v, more %v", dropped, more)
	}
	o.add(1, old) // read again
	if _, more := o.round(nil); more || !slices.Equal(dropped, []uint64{1, 2, 1}) {
		t.Fatalf("dropped %v, more %v", dropped, more)
	}
}

func TestOutdatedSleeps(t *testing.T) {
	dropped := make(chan uint64, 1)
	o := newOutdated(func(node uint64) { dropped <- node })
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		o.dropUntil(stop)
		close(ended)
	}()
	for n := range uint64(3) {
		time.Sleep(2 * procview.Tick) // it sleeps
		p := &page{at: time.Now()}
		p.mu.Lock()
		o.add(n, p)
		p.mu.Unlock()
		if got := <-dropped; got != n || time.Since(p.at) < procview.Tick {
			t.Errorf("dropped %d after %v", got, time.Since(p.at))
		}
	}
	close(stop)
	<-ended
}
