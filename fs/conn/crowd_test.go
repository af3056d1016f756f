package conn

import (
	"runtime"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestStuck has a few requests wait for something: others are answered meanwhile.
func TestStuck(t *testing.T) {
	k := connect(t)
	const stuck = 100
	for range stuck {
		k.ask(opRead, 3, fuse.ReadIn{Size: 100})
	}
	k.ask(opReadlink, 2, fuse.InHeader{})
	if status, answer := k.answer(); status != 0 || string(answer) != "target" {
		t.Errorf("status %d, %q", status, answer)
	}
	close(k.handler.stuck)
	for range stuck {
		if status, answer := k.answer(); status != 0 || string(answer) != text {
			t.Errorf("status %d, %q", status, answer)
		}
	}
}

// TestCrowd has many requests come at once. They are answered by few readers, unless these have to wait for another request.
func TestCrowd(t *testing.T) {
	for _, aside := range []bool{false, true} {
		k := connect(t)
		k.handler.aside.Store(aside)
		const crowd = 200
		before := time.Now()
		for range crowd {
			k.ask(opRead, 5, fuse.ReadIn{Size: 100})
		}
		if aside { // all of them are waiting for this one
			k.ask(opRead, 6, fuse.ReadIn{Size: 100})
		} else {
			time.AfterFunc(tooLong/2, func() { close(k.handler.stuck) })
		}
		answers := crowd
		if aside {
			answers++
		}
		for range answers {
			if status, _ := k.answer(); status != 0 {
				t.Fatalf("status %d", status)
			}
		}
		took, most := time.Since(before), k.handler.most.Load()
		t.Logf("aside %v: %d at a time, %v", aside, most, took)
		if !aside && most > maxBusy+int32(took/tooLong)+1 {
			t.Errorf("%d answer at a time, in %v", most, took)
		}
		if aside && most < crowd/2 { // the last ones may be read as the one for which all wait is answered
			t.Errorf("only %d waited: this test tests nothing", most)
		}
	}
}

// TestBurst: while the next reader has not come to run yet, the one that answers request after request does not start one for each.
func TestBurst(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	k := connect(t)
	const burst = 200
	for range burst {
		k.ask(opGetattr, 2, fuse.GetAttrIn{})
	}
	for range burst {
		if status, _ := k.answer(); status != 0 {
			t.Fatalf("status %d", status)
		}
	}
	if used := k.conn.slots.used().Load(); used > maxIdle {
		t.Errorf("%d requests that are answered at once took %d readers", burst, used)
	}
}
