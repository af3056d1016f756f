package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Scenario 2: many containers, each of which reads once a second what a monitoring program reads.

const pollEvery = time.Second

// polled are the files that are read, of those that the whole run is about.
var polled = []string{"proc/meminfo", "proc/stat", "proc/uptime", "sys/devices/system/cpu/online"}

// fleetKinds are the kinds worth a crowd; a file on tmpfs is no better floor there than the kernel's.
func (b *bench) fleetKinds() []*kind {
	return slices.DeleteFunc(slices.Clone(b.kinds), func(k *kind) bool { return k.Name == tmpfs })
}

func fleetSteps(b *bench) (n int) {
	for i, size := range b.fleets {
		before := 0
		if i > 0 {
			before = b.fleets[i-1]
		}
		n += (size - before) / 10 // to make them
		n += b.fleetRounds * len(b.fleetKinds())
	}
	return n + b.fleets[len(b.fleets)-1]/10 // to end them
}

func runFleet(b *bench) (err error) {
	var all []*container
	defer func() {
		for part := range slices.Chunk(all, 10) {
			b.bar.step("ending the containers")
			err = errors.Join(err, stopAll(part))
		}
	}()
	kinds := b.fleetKinds()
	small := limits{memory: 256 << 20, cpus: 1}
	for _, size := range b.fleets {
		for len(all) < size {
			b.bar.step("making %d containers", size)
			more, err := b.newContainers(min(10, size-len(all)), small, kinds, b.files)
			if err != nil {
				return err
			}
			all = append(all, more...)
		}
		b.pause(grownUp)
		for round := range b.fleetRounds {
			for i := range kinds {
				k := kinds[(round+i)%len(kinds)]
				b.bar.step("%d containers: %s", size, k.Title)
				if err := b.poll(k, all); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// poll has all containers read for a while, their turns evenly spread over the second.
func (b *bench) poll(k *kind, all []*container) error {
	replies, errs := make([]reply, len(all)), make([]error, len(all))
	var files []string
	for _, f := range b.files {
		if _, ok := all[0].shown[k.Name][f]; ok && slices.Contains(polled, f) {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		return nil // a run that is about other files
	}
	before := k.server.cpu()
	started := time.Now()
	var asked sync.WaitGroup
	for i, c := range all {
		asked.Go(func() {
			// The orders take their time to be given out: the turns are counted from the same moment for all.
			phase := max(0, pollEvery*time.Duration(i)/time.Duration(len(all))-time.Since(started))
			replies[i], errs[i] = c.ask(b.ctx, order{Kind: k.Name, Files: files, Threads: 1, For: b.fleetSpan, Every: pollEvery, Phase: phase}, b.fleetSpan)
		})
	}
	asked.Wait()
	used := k.server.cpu().since(before)
	for _, err := range errs {
		if err != nil { // one says enough
			return fmt.Errorf("%s: %w", k.Title, err)
		}
	}
	sum := reply{Took: time.Since(started)}
	latency := newHistogram()
	for _, r := range replies {
		h, err := hdrhistogram.Decode(r.Latency)
		if err != nil {
			return err
		}
		latency.Merge(h)
		sum.Reads += r.Reads
		sum.Failed += r.Failed
		sum.Overruns += r.Overruns
		if r.Failure != "" {
			sum.Failure = r.Failure
		}
	}
	var err error
	if sum.Latency, err = latency.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err != nil {
		return err
	}
	return b.take(series{Scenario: "fleet", Kind: k.Name, Containers: len(all)}, k, sum, used)
}
