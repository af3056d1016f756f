package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// container is a cgroup and a process that is the first of its pid namespace, has mounts of its own, and reads when it is told to.
type container struct {
	group string
	cmd   *exec.Cmd
	to    *json.Encoder
	from  *json.Decoder
	pipes [2]*os.File
	shown map[string]map[string]string // what each kind showed at first: file → text
}

// setup is what a container is told first, when it is in its cgroup.
type setup struct {
	Base  string // a directory to put the roots on
	Roots []root
	Files []string
}

// root is a directory that looks like a container's own: proc and sys, with the views of one kind bound over them as the hooks of container
// managers do. A container has one for each kind, so that all kinds are read by the same process.
type root struct {
	Kind   string
	Source string // of the views; "": the kernel's own files stay; "copy": files on tmpfs with the text of those
}

// order is what a container is told to do, any number of times.
type order struct {
	Kind    string
	Files   []string
	Held    bool // read files that stay open, instead of opening them each time
	Threads int
	For     time.Duration
	Every   time.Duration // 0: in a loop without pause
	Phase   time.Duration // with Every: when to begin
	Tasks   int           // read nothing; have so many threads more from now on, and with Every let each wake as often
	Watch   *watch        // read beside other orders, or tell of it
}

// reply answers a setup or an order.
type reply struct {
	Error    string                       // why nothing could be done
	Texts    map[string]map[string]string // to a setup: what each kind shows. A file that a kind does not have is missing
	Reads    int64                        // done well: open, read to the end, close
	Failed   int64
	Failure  string // the first
	Took     time.Duration
	Longest  time.Duration // of the reads that a watch is asked about
	Latency  []byte        // histogram, in the encoding of HdrHistogram
	Tasks    int           // of the container, where that was the order
	Overruns int64         // with Every: periods that were left out, since the reads before had taken too long
}

var containers atomic.Int64

// errTold is why a run ends that did not fail.
var errTold = errors.New("told to end by a signal")

// newContainer starts a container and waits until its views are bound and each has been read once.
func (b *bench) newContainer(l limits, kinds []*kind, files []string) (*container, error) {
	c := &container{group: filepath.Join(b.group, fmt.Sprint("c", containers.Add(1)))}
	enter, err := makeGroup(c.group, l)
	if err != nil {
		return nil, err
	}
	if err := c.start(enter); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	s := setup{Base: filepath.Join(b.dir, "root"), Files: files}
	for _, k := range kinds {
		s.Roots = append(s.Roots, root{k.Name, k.source})
	}
	r, err := c.ask(b.ctx, s, 0)
	if err == nil {
		err = sane(r.Texts, l, kinds)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("container: %w", err), c.stop())
	}
	c.shown = r.Texts
	return c, nil
}

// start starts the process. It blocks before it does anything, so that nothing of it happens outside of the cgroup.
func (c *container) start(enter func(pid int) error) error {
	hear, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer hear.Close()
	listen, answer, err := os.Pipe()
	if err != nil {
		tell.Close()
		return err
	}
	defer answer.Close()
	c.pipes = [2]*os.File{tell, listen}
	c.to, c.from = json.NewEncoder(tell), json.NewDecoder(listen)
	c.cmd = exec.Command("/proc/self/exe")
	c.cmd.Args[0] = "bench-container"
	// Without it Go's runtime signals threads that run for long, and each such signal interrupts a FUSE request.
	c.cmd.Env = append(os.Environ(), roleVar+"=container", "GODEBUG=asyncpreemptoff=1")
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = hear, answer, os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL, Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start a container: %w", err)
	}
	return enter(c.cmd.Process.Pid)
}

// patience is how much longer than ordered a container may take: LXCFS with a thousand of them is slow.
const patience = time.Minute

// ask tells the container something and waits for the answer.
func (c *container) ask(ctx context.Context, what any, lasts time.Duration) (r reply, err error) {
	limit := time.AfterFunc(lasts+patience, func() { c.cmd.Process.Kill() })
	stop := context.AfterFunc(ctx, func() { c.cmd.Process.Kill() })
	defer stop()
	defer limit.Stop()
	if err = c.to.Encode(what); err == nil {
		err = c.from.Decode(&r)
	}
	switch {
	case ctx.Err() != nil:
		return r, errTold
	case err != nil:
		return r, fmt.Errorf("a container died or did not answer: %w", err)
	case r.Error != "":
		return r, errors.New(r.Error)
	}
	return r, nil
}

// stop ends the container and removes its cgroup.
func (c *container) stop() error {
	if c.cmd != nil && c.cmd.Process != nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	}
	for _, p := range c.pipes {
		if p != nil {
			p.Close()
		}
	}
	return removeGroups(c.group)
}

// workers is how many containers are made or ended at once.
const workers = 4

// newContainers makes n containers. On error there is none.
func (b *bench) newContainers(n int, l limits, kinds []*kind, files []string) ([]*container, error) {
	made := make([]*container, n)
	err := inParallel(n, func(i int) (err error) {
		if b.ctx.Err() != nil {
			return errTold
		}
		made[i], err = b.newContainer(l, kinds, files)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, stopAll(made))
	}
	return made, nil
}

func stopAll(containers []*container) error {
	return inParallel(len(containers), func(i int) error {
		if containers[i] == nil {
			return nil
		}
		return containers[i].stop()
	})
}

// inParallel does n things, a few at a time, and gives the first error.
func inParallel(n int, do func(i int) error) error {
	var next atomic.Int64
	var once sync.Once
	var first error
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := do(int(i)); err != nil {
					once.Do(func() { first = err })
				}
			}
		})
	}
	all.Wait()
	return first
}
