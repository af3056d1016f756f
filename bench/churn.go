package main

import (
	"runtime"
	"slices"
	"time"
)

// Scenario 5: containers come, read every file, and go. The daemons are to be as large at the end as at the beginning.

// churnPoint is what the daemons were after a number of containers.
type churnPoint struct {
	Containers int // that had come and gone
	RSS        map[string]uint64
	FDs        map[string]int
}

func churnSteps(b *bench) int { return b.waves }

func runChurn(b *bench) error {
	kinds := slices.DeleteFunc(slices.Clone(b.kinds), func(k *kind) bool { return !k.views })
	b.churned(kinds, 0)
	for wave := range b.waves {
		b.bar.step("%d containers have come and gone", wave*b.crowd)
		all, err := b.newContainers(b.crowd, limits{memory: 256 << 20, cpus: float64(runtime.NumCPU())}, kinds, b.files)
		if err != nil {
			return err
		}
		if err := stopAll(all); err != nil {
			return err
		}
		b.churned(kinds, (wave+1)*b.crowd)
	}
	// A daemon may take its time to notice that they have gone.
	b.pause(10 * time.Second)
	b.churned(kinds, b.waves*b.crowd)
	if b.ctx.Err() != nil {
		return errTold
	}
	return nil
}

func (b *bench) churned(kinds []*kind, containers int) {
	p := churnPoint{Containers: containers, RSS: map[string]uint64{}, FDs: map[string]int{}}
	for _, k := range kinds {
		if k.Name == own {
			continue // the same daemon serves it and the shared tree
		}
		p.RSS[k.Name], p.FDs[k.Name] = k.server.rss(), k.server.fds()
	}
	b.report.Churn = append(b.report.Churn, p)
}
