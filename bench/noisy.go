package main

import (
	"errors"
	"time"
)

// Scenario 3: a container reads in a loop with many threads; what does its neighbour notice?

const noisyThreads = 32

func noisySteps(b *bench) int { return b.rounds * len(b.kinds) }

// noisyFile is what both read.
func (b *bench) noisyFile() string { return b.files[0] }

func runNoisy(b *bench) (err error) {
	both, err := b.newContainers(2, roomy(), b.kinds, b.files)
	if err != nil {
		return err
	}
	defer func() { err = joinStop(err, both...) }()
	loud, victim := both[0], both[1]
	b.pause(grownUp)
	file := b.noisyFile()
	for round := range b.rounds {
		for i := range b.kinds {
			k := b.kinds[(round+i)%len(b.kinds)]
			b.bar.step("noisy neighbour: %s", k.Title)
			key := series{Scenario: "noisy", Kind: k.Name, File: file, Mode: alone, Threads: 1}
			o := order{Kind: k.Name, Files: []string{file}, Threads: 1, For: b.noisySpan / 2}
			if err := b.sample(key, victim, k, o); err != nil {
				return err
			}
			// The noise begins before the victim is measured, and goes on until after.
			const lead = 100 * time.Millisecond
			ended := make(chan error, 1)
			go func() {
				loudly := order{Kind: k.Name, Files: []string{file}, Threads: noisyThreads, For: b.noisySpan + 2*lead}
				_, err := loud.ask(b.ctx, loudly, loudly.For)
				ended <- err
			}()
			b.pause(lead)
			key.Mode, o.For = noise, b.noisySpan
			err := b.sample(key, victim, k, o)
			if err := errors.Join(err, <-ended); err != nil {
				return err
			}
		}
	}
	return nil
}

// joinStop ends containers and adds what goes wrong to an error.
func joinStop(err error, containers ...*container) error {
	return errors.Join(err, stopAll(containers))
}
