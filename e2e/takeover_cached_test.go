package e2e

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["gap"] = gap }

// gapSeen is the longest time without a read, in nanoseconds of the wall clock.
type gapSeen struct{ Begin, End int64 }

// gap reads its own view as fast as it can, and tells when asked how long it once had to wait.
func gap([]string) error {
	in := bufio.NewReader(os.Stdin)
	if err := growUp(); err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	fmt.Println("reading")
	for range lines {
		var longest gapSeen
		fmt.Println("go")
		for last, asked := time.Now().UnixNano(), false; !asked; {
			text, err := inPieces("/proc/meminfo", 4096)
			if err != nil || !strings.HasPrefix(text, "MemTotal: ") {
				return fmt.Errorf("%q, %w", text, err)
			}
			now := time.Now().UnixNano()
			if now-last > longest.End-longest.Begin {
				longest = gapSeen{last, now}
			}
			last = now
			select {
			case <-lines:
				asked = true
			default:
			}
		}
		fmt.Println(encode(longest))
	}
	return nil
}

// Own views are read on while no worker runs at all, until the tick of their text is over; from then on readers wait for the next one, and none fails.
func TestCachedReadsGoOn(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	c := d.container([]string{"--memory", "300M"}, asRole("gap")...)
	c.line()
	const wait = 100 * time.Millisecond
	rounds, went := rounds(20, 10), 0
	for n := 0; n < rounds || went == 0 && n < 10*rounds; n++ { // to look in the few milliseconds that matter is luck: one round in three where CPUs are emulated
		c.ask("begin")
		time.Sleep(20 * time.Millisecond)
		worker := d.worker()
		if err := d.cmd.Process.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(worker, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for !gone(worker) {
		}
		none := time.Now()
		time.Sleep(wait)
		again := time.Now()
		if err := d.cmd.Process.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		d.nextWorker(worker)
		d.alive()
		seen := decode[gapSeen](t, c.ask("end"))
		if seen.Begin > none.UnixNano() {
			went++
		}
		if seen.End < again.UnixNano() || seen.Begin > none.Add(wait).UnixNano() {
			t.Errorf("without a worker from %v to %v; no read from %v to %v", none.UnixNano(), again.UnixNano(), seen.Begin, seen.End)
		}
	}
	t.Logf("in %d of %d rounds it read on when there was no worker", went, rounds)
	if went == 0 {
		t.Error("it never read when there was no worker")
	}
	c.close()
}

// gone says whether a process has ended, waited for or not.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}
