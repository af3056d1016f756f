package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bench is a run.
type bench struct {
	config
	ctx     context.Context
	dir     string // all mounts are in it
	group   string // all containers' cgroups are in it
	kinds   []*kind
	servers []*server
	report  *report
	bar     progress
}

// scenario is a part of the run.
type scenario struct {
	name  string
	steps func(*bench) int // as the progress bar counts
	run   func(*bench) error
}

var scenarios = []scenario{
	{"read", readSteps, runRead},
	{"fleet", fleetSteps, runFleet},
	{"noisy", noisySteps, runNoisy},
	{"bighost", bigHostSteps, runBigHost},
	{"churn", churnSteps, runChurn},
	{"load", loadSteps, runLoad},
	{"stall", stallSteps, runStall},
}

// inner measures, in the mount namespace that outer has made.
func inner(args []string) int {
	c, err := parseFlags(args)
	if err != nil {
		return fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()
	dir, parent := os.Getenv(dirVar), os.Getppid()
	b := &bench{config: c, ctx: ctx, dir: dir, group: groupOf(dir), report: newReport(c, args)}
	err = b.measure()
	if os.Getppid() != parent { // killed: then it is for us to clean up
		err = errors.Join(err, clean(dir))
	}
	if err != nil {
		return fail(err)
	}
	return finish(c, b.report)
}

func (b *bench) measure() (err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := os.Mkdir(filepath.Join(b.dir, "root"), 0o755); err != nil {
		return err
	}
	raiseFileLimit()
	defer func() {
		for _, s := range slices.Backward(b.servers) {
			err = errors.Join(err, s.stop())
		}
	}()
	if err := b.startKinds(); err != nil {
		return err
	}
	var todo []scenario
	steps := 0
	for _, s := range scenarios {
		if slices.Contains(b.scenarios, s.name) {
			todo = append(todo, s)
			steps += s.steps(b)
		}
	}
	b.bar = newProgress(steps)
	defer b.bar.end()
	for _, s := range todo {
		b.bar.say(s.name)
		started := time.Now()
		if err := s.run(b); err != nil {
			return fmt.Errorf("scenario %s: %w", s.name, err)
		}
		b.report.Parts = append(b.report.Parts, part{s.name, time.Since(started).Seconds()})
		for _, server := range b.servers {
			if err := server.alive(); err != nil {
				return err
			}
		}
	}
	b.report.Took = time.Since(b.report.Started).Round(time.Second)
	return nil
}

// finish writes the report and judges it.
func finish(c config, r *report) int {
	goals := r.judge()
	err := errors.Join(r.write(c.out), r.writePage(c.out, goals))
	if c.doc != "" {
		err = errors.Join(err, r.writeDoc(c.doc, goals))
	}
	r.print(os.Stdout, goals)
	if err != nil {
		return fail(err)
	}
	fmt.Println("\nWritten:", filepath.Join(c.out, "report.html"), filepath.Join(c.out, "report.json"), c.doc)
	var missed []string
	for _, g := range goals {
		if g.Verdict == missedGoal || g.Verdict == lostDirection {
			missed = append(missed, fmt.Sprintf("  %s: %s, to be %s", g.What, g.Measured, g.Goal))
		}
	}
	if len(missed) == 0 {
		return 0
	}
	fmt.Fprintf(os.Stderr, "\nGOALS MISSED: %d\n%s\n", len(missed), strings.Join(missed, "\n"))
	if c.strict && slices.ContainsFunc(goals, func(g goal) bool { return g.Verdict == lostDirection || !c.quick && g.Verdict == missedGoal }) {
		return 1
	}
	return 0
}

// raiseFileLimit makes room for two pipes for each container. Those and the servers inherit it.
func raiseFileLimit() {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err == nil {
		l.Cur = l.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	}
}

// pause waits, or ends early with the run.
func (b *bench) pause(d time.Duration) {
	select {
	case <-b.ctx.Done():
	case <-time.After(d):
	}
}
