package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kills is how often something is ended: LENSFS_KILLS times, or as often as there is time for in CI.
func kills(t *testing.T, n, short int) int {
	t.Helper()
	if text := os.Getenv("LENSFS_KILLS"); text != "" {
		k, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	return rounds(n, short)
}

// serveWarned is servePlain for tests that have the daemon say warnings.
func serveWarned(t *testing.T, env ...string) *daemon {
	t.Helper()
	d := servePlain(t, env...)
	d.warnings = true
	return d
}

// command gives a command of lensfs for this daemon.
func (d *daemon) command(name string, flags ...string) *exec.Cmd {
	return exec.Command(d.cmd.Path, append([]string{name, "--tree", d.tree, "--runtime-dir", d.dir}, flags...)...)
}

// nextWorker waits for another worker than the one that was.
func (d *daemon) nextWorker(was int) int {
	d.t.Helper()
	is := was
	poll(d.t, 20*time.Second, "another worker serves", func() bool {
		pids := d.workers()
		if len(pids) == 1 {
			is = pids[0]
		}
		return is != was
	})
	return is
}

// killWorker ends the worker and waits for the next.
func (d *daemon) killWorker() {
	d.t.Helper()
	pid := d.worker()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
	d.nextWorker(pid)
}

// within checks how long the longest read took; on an emulated machine, or under the race detector, nothing can be said about that.
func (r loadResult) within(t *testing.T, limit time.Duration) {
	t.Helper()
	t.Log(r)
	if len(r.Stalls) > 0 && r.Stalls[0] > limit && !testing.Short() {
		t.Errorf("the longest read took %v; it may take %v", r.Stalls[0], limit)
	}
}

const loadContainers, loadThreads = 8, 4 // on each mount

// Nobody who reads notices that the worker is killed.
func TestWorkerKilled(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	d.underLoad(loadContainers, loadPlan{Threads: loadThreads, Pace: time.Millisecond}, func() {
		for range kills(t, 40, 10) {
			d.killWorker()
			time.Sleep(50*time.Millisecond + rand.N(200*time.Millisecond))
		}
	}).within(t, 250*time.Millisecond)
}

