package cgroupview

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// slotFile, in the environment, has this test be the process that keeps its clock in that file until it is killed.
const slotFile = "LENSFS_TEST_SLOT"

const slotCPUs = 64

// mapSlot maps the slot that a file is.
func mapSlot(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	slot, err := unix.Mmap(int(f.Fd()), 0, ClockBytes(slotCPUs), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// TestKeepClockKilled kills processes that do nothing but look at the clock and write it. The next one goes on where the one before was, and its last
// record is never lost.
func TestKeepClockKilled(t *testing.T) {
	if path := os.Getenv(slotFile); path != "" {
		k := reopen(t, mapSlot(t, path), 1<<60)
		shown := setOf(t, "0-63")
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
			k.now.total = k.total.plus(cpuUsage{user: 2 * tick, system: tick})
			k.advance(k.at+tick, shown)
		}
		t.Fatal("nobody has killed it")
	}
	path := filepath.Join(t.TempDir(), "slot")
	if err := os.WriteFile(path, make([]byte, ClockBytes(slotCPUs)), 0o600); err != nil {
		t.Fatal(err)
	}
	slot := mapSlot(t, path)
	var last time.Duration
	for range 10 {
		child := exec.Command(os.Args[0], "-test.run=^TestKeepClockKilled$")
		child.Env = append(os.Environ(), slotFile+"="+path)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		begun := false
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && !begun; {
			time.Sleep(3 * time.Millisecond)
			begun = reopen(t, slot, 1<<60).at > last
		}
		child.Process.Kill()
		child.Wait()
		k := reopen(t, slot, 1<<60)
		var used time.Duration
		for _, now := range k.times {
			used += now.User + now.System
			if went(CPUTime{}, now) != k.at {
				t.Fatalf("%+v at %v", now, k.at)
			}
		}
		if !begun || k.at <= last || used+k.owed.sum() != 3*k.at {
			t.Fatalf("%v used at %v, before %v", used, k.at, last)
		}
		last = k.at
	}
}

// TestKeepClockTaken takes a slot's memory away while others look: nobody writes there any more.
func TestKeepClockTaken(t *testing.T) {
	r, _ := v2(web()).resolver(t)
	begin := time.Now()
	r.boottime = func() time.Duration { return 5000*time.Second + 1000*time.Since(begin) }
	c, shown := r.Of(120), setOf(t, "0-3")
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.LockTimes(shown); err != nil {
					t.Error(err)
					return
				}
				c.UnlockTimes()
			}
		})
	}
	for range 50 {
		slot, err := unix.Mmap(-1, 0, ClockBytes(4), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			t.Fatal(err)
		}
		c.KeepClock(slot)
		time.Sleep(time.Millisecond)
		c.KeepClock(nil)
		if err := unix.Munmap(slot); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	readers.Wait()
}
