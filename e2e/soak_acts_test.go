package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// soaked is one container.
type soaked struct {
	*container
	born  time.Time
	now   allowed
	files controls
}

const (
	soakContainers = 5
	soakOldest     = 3 * time.Minute // below roleLimit
	// settled is how long a change of a limit may take to be seen everywhere. It is a bound for failing only: see TestOwnViewsAreFresh.
	settled = 500 * time.Millisecond
)

// act is something that may happen.
type act struct {
	name   string
	weight int
	do     func(*soakTest)
}

var soakActs = []act{
	{"container starts", 8, (*soakTest).start},
	{"container ends", 4, (*soakTest).end},
	{"container is killed", 2, (*soakTest).kill},
	{"memory limit changes", 8, (*soakTest).memory},
	{"quota changes", 8, (*soakTest).quota},
	{"worker is killed", 8, func(s *soakTest) { s.d.killWorker() }},
	{"upgrade", 3, (*soakTest).upgrade},
	{"keeper is killed", 3, (*soakTest).keeper},
	{"keeper is told to end", 2, (*soakTest).told},
	{"worker is stopped", 1, (*soakTest).hang},
	{"worker is stopped for a moment", 3, (*soakTest).halt},
	{"nothing", 4, func(s *soakTest) { time.Sleep(300 * time.Millisecond) }},
}

func (s *soakTest) total() uint64 { return 256<<10 + 64*uint64(s.random.IntN(1000)) } // kB: more than the readers need

func (s *soakTest) cpus() int { return 1 + s.random.IntN(min(4, len(hostCPUs(s.d.t)))) }

func (s *soakTest) start() {
	if len(s.living) == soakContainers {
		return
	}
	kb, cpus, killed := s.total(), s.cpus(), s.random.IntN(3) == 0
	c := &soaked{born: time.Now(), now: allowed{[]uint64{kb}, []int{cpus}}}
	c.container = s.d.container([]string{"--memory", fmt.Sprintf("%dk", kb), "--cpus", fmt.Sprint(cpus)}, asRole("soak")...)
	c.files = controlsOf(s.d.t, c.init)
	s.note("%s: %d kB, %d CPUs, readers killed: %v", c.name, kb, cpus, killed)
	if got := c.ask("%s", encode(soakPlan{Tree: s.d.tree, Allowed: c.now, Killed: killed})); got != "reading" {
		s.d.t.Fatalf("the container says %q", got)
	}
	s.living = append(s.living, c)
}

// take takes a container out, and checks what it has read so far.
func (s *soakTest) take() *soaked {
	if len(s.living) == 0 {
		return nil
	}
	i := 0
	if time.Since(s.living[0].born) <= soakOldest {
		i = s.random.IntN(len(s.living))
	}
	c := s.living[i]
	s.living = slices.Delete(s.living, i, i+1)
	return c
}

func (s *soakTest) end() {
	c := s.take()
	if c == nil {
		return
	}
	r := decode[loadResult](s.d.t, c.ask("end"))
	s.reads += r.Reads
	if r.Failed > 0 {
		s.d.t.Errorf("%s: %d of %d reads failed:\n%s", c.name, r.Failed, r.Reads, strings.Join(r.Failures, "\n"))
	}
	c.close()
	s.silent(c)
}

// silent checks that no reader of a container has complained; those that are killed can say it in no other way.
func (s *soakTest) silent(c *soaked) {
	if said := c.errs.String(); said != "" {
		s.d.t.Errorf("%s: %s", c.name, said)
	}
}

// kill ends a container at once, with all that it does.
func (s *soakTest) kill() {
	c := s.take()
	if c == nil {
		return
	}
	if err := unix.Kill(c.init, unix.SIGKILL); err != nil {
		s.d.t.Fatal(err)
	}
	c.in.Close()
	c.cmd.Wait()
	s.silent(c)
}

// change changes a limit: as long as nobody knows whether it has been seen, the old and the new are allowed.
func (s *soakTest) change(next func(*soaked, allowed) (allowed, error)) {
	if len(s.living) == 0 {
		return
	}
	c := s.living[s.random.IntN(len(s.living))]
	both := allowed{slices.Clone(c.now.Totals), slices.Clone(c.now.CPUs)}
	to, err := next(c, both)
	if err != nil {
		s.d.t.Fatalf("%s: %v", c.name, err)
	}
	s.note("%s: %v", c.name, to)
	c.now = to
}

// known tells a container what is allowed from now on.
func (c *soaked) known(a allowed) {
	if got := c.ask("%s", encode(a)); got != "known" {
		c.t.Fatalf("the container says %q", got)
	}
}

func (s *soakTest) memory() {
	kb := s.total()
	s.change(func(c *soaked, was allowed) (allowed, error) {
		c.known(allowed{append(was.Totals, kb), was.CPUs})
		err := c.files.setMemory(kb)
		s.meanwhile()
		to := allowed{[]uint64{kb}, was.CPUs}
		c.known(to)
		return to, err
	})
}

func (s *soakTest) quota() {
	cpus := s.cpus()
	s.change(func(c *soaked, was allowed) (allowed, error) {
		c.known(allowed{was.Totals, append(was.CPUs, cpus)})
		err := c.files.setQuota(cpus)
		s.meanwhile()
		to := allowed{was.Totals, []int{cpus}}
		c.known(to)
		return to, err
	})
}

// meanwhile is the time until a change has been seen, in which a worker may be killed too.
func (s *soakTest) meanwhile() {
	if s.random.IntN(4) == 0 {
		s.note("worker is killed meanwhile")
		s.d.killWorker()
	}
	time.Sleep(settled)
}

func (s *soakTest) upgrade() {
	s.d.replaceBinary(s.path, s.d.cmd.Path)
	if out, err := s.d.command("upgrade").CombinedOutput(); err != nil {
		s.d.t.Fatalf("upgrade: %v: %s", err, out)
	}
}

func (s *soakTest) keeper() {
	s.d.worker() // never both at once
	s.d.killKeeper()
	time.Sleep(time.Duration(s.random.IntN(100)) * time.Millisecond)
	s.d.again()
}

// told ends the keeper by a signal, as a service manager does: the worker goes on, because there are containers.
func (s *soakTest) told() {
	if len(s.living) == 0 {
		s.start()
	}
	was := s.d.worker()
	if err := s.d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		s.d.t.Fatal(err)
	}
	if err := s.d.wait(10 * time.Second); err != nil {
		s.d.t.Errorf("it ended with %v", err)
	}
	s.d.again()
	if now := s.d.worker(); now != was {
		s.d.t.Errorf("worker %d serves; it was %d", now, was)
	}
}

func (s *soakTest) hang() {
	was := s.d.worker()
	if err := unix.Kill(was, unix.SIGSTOP); err != nil {
		s.d.t.Fatal(err)
	}
	s.d.nextWorker(was)
}

// halt stops a worker for less than it takes to be thought dead.
func (s *soakTest) halt() {
	was := s.d.worker()
	if err := unix.Kill(was, unix.SIGSTOP); err != nil {
		s.d.t.Fatal(err)
	}
	time.Sleep(time.Duration(s.random.IntN(1500)) * time.Millisecond)
	if err := unix.Kill(was, unix.SIGCONT); err != nil && err != unix.ESRCH {
		s.d.t.Fatal(err)
	}
}
