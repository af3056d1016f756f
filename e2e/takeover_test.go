package e2e

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
	return exec.Command(d.cmd.Path, append([]string{name, "--tree", d.tree}, flags...)...)
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
	d.alive() // it has taken over
}

// within checks how long the longest read took. It is a bound for failing only: what a read takes is measured by the benchmark, on a quiet machine.
func (r loadResult) within(t *testing.T, limit time.Duration) {
	t.Helper()
	t.Log(r)
	if len(r.Stalls) > 0 && r.Stalls[0] > limit && !testing.Short() {
		t.Errorf("the longest read took %v; it may take %v", r.Stalls[0], limit)
	}
}

const loadContainers, loadThreads = 8, 4 // on each mount

// theLoad is 64 threads that read in 8 containers, on both mounts.
var theLoad = loadPlan{Threads: loadThreads, Pace: 5 * time.Millisecond}

// Nobody who reads notices that the worker is killed.
func TestWorkerKilled(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	d.underLoad(loadContainers, theLoad, func() {
		for range kills(t, 40, 10) {
			d.killWorker()
			time.Sleep(50*time.Millisecond + rand.N(200*time.Millisecond))
		}
	}).within(t, 5*time.Second)
}

// again starts the daemon's command line once more: its keeper has ended.
func (d *daemon) again() {
	d.t.Helper()
	env := d.cmd.Env
	d.cmd = exec.Command(d.cmd.Path, d.cmd.Args[1:]...)
	d.cmd.Env = env
	d.startAgain()
}

// startAgain starts d.cmd, which is a new one.
func (d *daemon) startAgain() {
	d.t.Helper()
	ready := strings.Count(d.log.String(), " ready ")
	cmd, done := d.cmd, make(chan error, 1)
	cmd.Stderr, d.done = d.log.file, done
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() { done <- cmd.Wait() }()
	poll(d.t, 20*time.Second, "there is a keeper again", func() bool {
		select {
		case err := <-done:
			done <- err
			d.t.Fatalf("the keeper ended at once: %v\n%s", err, d.log)
		default:
		}
		return strings.Count(d.log.String(), " ready ") > ready
	})
}

// killKeeper ends the keeper with -9, while there is a worker that has taken over: to end both at once would be to end the connection.
func (d *daemon) killKeeper() {
	d.t.Helper()
	d.alive()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	d.wait(10 * time.Second)
}

// Nobody who reads notices that the keeper is killed, nor that both are, in turn.
func TestKeeperKilled(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	d.underLoad(loadContainers, theLoad, func() {
		for range kills(t, 10, 4) {
			worker := d.worker()
			d.killKeeper()
			time.Sleep(rand.N(100 * time.Millisecond))
			d.again()
			if now := d.worker(); now != worker {
				t.Errorf("worker %d serves; it was %d", now, worker)
			}
			if rand.N(2) == 0 {
				d.killWorker()
			}
		}
		for range kills(t, 5, 2) {
			d.killWorker()
			d.killKeeper()
			d.again()
		}
	}).within(t, 5*time.Second)
	d.unharmedMounts()
}

func (d *daemon) unharmedMounts() {
	d.t.Helper()
	for _, dir := range []string{d.tree, d.views} {
		if n := len(mountsOn(d.t, dir)); n != 1 {
			d.t.Errorf("%d mounts on %s", n, dir)
		}
	}
	d.alive()
}

// A worker that hangs is replaced.
func TestWorkerHangs(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	d.underLoad(loadContainers, theLoad, func() {
		for range rounds(2, 1) {
			time.Sleep(200 * time.Millisecond)
			pid := d.worker()
			if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			d.nextWorker(pid)
		}
	}).within(t, 10*time.Second)
}

// Readers that are killed while workers are leave nothing stuck.
func TestReadersAndWorkersKilled(t *testing.T) {
	needRoot(t)
	d := serveWarned(t)
	for _, root := range []string{"/", d.tree} {
		c := exec.Command(binary, d.runArgs([]string{"--memory", "256M"}, asRole("killer", filepath.Join(root, "proc/meminfo"), "3s")...)...)
		errs := &logBuffer{}
		c.Stderr = errs
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		for ended := false; !ended; {
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%v: %s", err, errs)
				}
				ended = true
			case <-time.After(rand.N(100 * time.Millisecond)):
				d.killWorker()
			}
		}
	}
	noneStuck(t)
	d.alive()
}
