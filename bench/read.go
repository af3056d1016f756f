package main

import (
	"fmt"
	"runtime"
	"time"
)

// Scenario 1: one container reads each file in a loop.

// way is a manner of reading.
type way struct {
	mode    string
	threads int
}

var ways = []way{{opened, 1}, {opened, 8}, {held, 1}}

func readSteps(b *bench) int { return b.rounds * len(b.files) * len(ways) * len(b.kinds) }

// roomy are limits that are seen and do not slow down a reader on any CPU.
func roomy() limits { return limits{memory: 512 << 20, cpus: float64(runtime.NumCPU())} }

// grownUp is how long a container lives before it is measured: one younger than a second is not in its everyday state.
const grownUp = 1200 * time.Millisecond

func runRead(b *bench) (err error) {
	c, err := b.newContainer(roomy(), b.kinds, b.files)
	if err != nil {
		return err
	}
	defer func() { err = joinStop(err, c) }()
	b.pause(grownUp)
	for round := range b.rounds {
		for _, file := range b.files {
			for _, w := range ways {
				for i := range b.kinds {
					k := b.kinds[(round+i)%len(b.kinds)] // nobody always comes first, or after the same
					b.bar.step("%s, %d threads: %s", shortName(file), w.threads, k.Title)
					if _, ok := c.shown[k.Name][file]; !ok {
						continue
					}
					key := series{Scenario: "read", Kind: k.Name, File: file, Mode: w.mode, Threads: w.threads}
					o := order{Kind: k.Name, Files: []string{file}, Held: w.mode == held, Threads: w.threads, For: b.span}
					if err := b.sample(key, c, k, o); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// sample has a container carry out an order and takes down what it cost.
func (b *bench) sample(key series, c *container, k *kind, o order) error {
	before := k.server.cpu()
	r, err := c.ask(b.ctx, o, o.For)
	used := k.server.cpu().since(before)
	if err != nil {
		return fmt.Errorf("%s: %w", k.Title, err)
	}
	return b.take(key, k, r, used)
}

// take takes down an answer. A few failed reads are told at the end; where most fail there is nothing to be measured.
func (b *bench) take(key series, k *kind, r reply, used time.Duration) error {
	if r.Failed > 0 {
		b.report.skip("%s: %d of %d reads failed: %s", k.Title, r.Failed, r.Failed+r.Reads, r.Failure)
	}
	if r.Reads == 0 {
		return fmt.Errorf("%s: no read succeeded: %s", k.Title, r.Failure)
	}
	var memory uint64
	if k.server != nil {
		memory = k.server.rss()
	}
	return b.report.series(key).add(r, used, memory)
}
