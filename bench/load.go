package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

// Scenario 6: nobody reads. What a daemon does all the same is to count the containers' tasks, for their load averages.

// loadEvery is how often lensfs and LXCFS count.
const loadEvery = 5 * time.Second

// tasksEach is how many threads each container has beside those of its Go runtime.
const tasksEach = 14

// loadPoint is what it took.
type loadPoint struct {
	Containers, Tasks int
	Awake             bool               // every task wakes once a second; else they sleep all the time
	CPU               map[string][]int64 // of each daemon, for each count: ns
}

func loadSteps(b *bench) int { return b.loadCrowd/10 + 2 + b.loadCrowd/10 }

func runLoad(b *bench) (err error) {
	kinds := slices.DeleteFunc(slices.Clone(b.kinds), func(k *kind) bool { return !k.views || k.Name == own }) // own views are served by the same daemon
	var all []*container
	defer func() {
		for part := range slices.Chunk(all, 10) {
			b.bar.step("ending the containers")
			err = errors.Join(err, stopAll(part))
		}
	}()
	for len(all) < b.loadCrowd {
		b.bar.step("making %d containers", b.loadCrowd)
		more, err := b.newContainers(min(10, b.loadCrowd-len(all)), limits{memory: 256 << 20, cpus: 1}, kinds, b.files)
		if err != nil {
			return err
		}
		all = append(all, more...)
	}
	for _, awake := range []bool{false, true} {
		b.bar.step("%d containers: nobody reads", len(all))
		if err := b.load(kinds, all, awake); err != nil {
			return err
		}
	}
	return nil
}

// load gives each container its tasks and measures a few counts of them.
func (b *bench) load(kinds []*kind, all []*container, awake bool) error {
	p := loadPoint{Containers: len(all), Awake: awake, CPU: map[string][]int64{}}
	o := order{Tasks: tasksEach}
	if awake {
		o.Every = time.Second
	}
	counts := make([]int, len(all))
	err := inParallel(len(all), func(i int) error {
		r, err := all[i].ask(b.ctx, o, 0)
		counts[i] = r.Tasks
		return err
	})
	if err != nil {
		return err
	}
	for _, n := range counts {
		p.Tasks += n
	}
	b.pause(2 * loadEvery) // at the first count after they began nobody is known to sleep
	for range b.loadCounts {
		before := map[string]cpuTime{}
		for _, k := range kinds {
			before[k.Name] = k.server.cpu()
		}
		b.pause(loadEvery)
		for _, k := range kinds {
			p.CPU[k.Name] = append(p.CPU[k.Name], k.server.cpu().since(before[k.Name]).Nanoseconds())
		}
	}
	if b.ctx.Err() != nil {
		return errTold
	}
	b.report.Load = append(b.report.Load, p)
	return nil
}

// sleepers are the threads that this container has for the sake of being counted; each is told once to begin to wake.
var sleepers struct {
	count int
	wake  chan time.Duration
}

// sleep makes the threads that were ordered, or wakes them, and counts all of this process.
func (o order) sleep() (r reply, err error) {
	if sleepers.wake == nil {
		sleepers.wake = make(chan time.Duration)
	}
	for ; sleepers.count < o.Tasks; sleepers.count++ {
		go func() {
			runtime.LockOSThread()
			for every := <-sleepers.wake; ; {
				time.Sleep(every)
			}
		}()
	}
	for n := 0; o.Every > 0 && n < sleepers.count; n++ {
		sleepers.wake <- o.Every
	}
	time.Sleep(50 * time.Millisecond) // the threads are made when they are to run
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return r, fmt.Errorf("count the threads: %w", err)
	}
	r.Tasks = len(tasks)
	return r, nil
}

func (r *report) loadSheet() sheet {
	s := sheet{
		Title: "Load: nobody reads; the tasks of all containers are counted every five seconds",
		Note:  "CPU of the daemon for one count: median (smallest–largest). Asleep: no task runs between two counts. Awake: each task wakes once a second.",
		Head:  []string{"containers", "tasks", "", "lensfs: CPU, ms", "of a core", "LXCFS -l: CPU, ms", "of a core"}, Words: 3,
	}
	for _, p := range r.Load {
		how := "asleep"
		if p.Awake {
			how = "awake"
		}
		cells := []string{thousands(int64(p.Containers)), thousands(int64(p.Tasks)), how}
		for _, kind := range []string{shared, lxcfs} {
			c := p.cpu(kind)
			if c.None {
				cells = append(cells, "–", "–")
				continue
			}
			cells = append(cells, with(c, 1e-6, ""), median(c, 100/float64(loadEvery.Nanoseconds()))+" %")
		}
		s.Rows = append(s.Rows, cells)
	}
	return s
}

func (p loadPoint) cpu(kind string) spread {
	var values []float64
	for _, ns := range p.CPU[kind] {
		values = append(values, float64(ns))
	}
	return spreadOf(values)
}
