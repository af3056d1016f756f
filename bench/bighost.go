package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Scenario 4: a host of 256 CPUs beside one of 2, both from texts in files, with the same container of 2 CPUs on both. What a read costs is to follow
// the container, not the host. (Nobody but lensfs can be shown a host that is not there.)

// hostSize is what the scenario varies. The numbers stand in the report's names of kinds.
type hostSize struct {
	name             string
	cpus, interrupts int
}

var (
	smallHost = hostSize{"host of 2 CPUs", 2, 60}
	bigHost   = hostSize{"host of 256 CPUs", 256, 2000}
)

// freshEvery is longer than any answer is kept, so that each read has to be answered anew.
const freshEvery = 20 * time.Millisecond

var bigHostWays = []string{opened, fresh}

func bigHostSteps(b *bench) int { return b.rounds * len(b.files) * len(bigHostWays) * 4 }

// onHost names a kind of this scenario.
func onHost(kind string, h hostSize) string { return kind + ", " + h.name }

func runBigHost(b *bench) (err error) {
	var kinds []*kind
	for _, h := range []hostSize{smallHost, bigHost} {
		root := filepath.Join(b.dir, fmt.Sprint("host", h.cpus))
		if err := h.write(root); err != nil {
			return err
		}
		l, err := b.startLensfs(fmt.Sprint("lensfs", h.cpus), "--host-root", root)
		if err != nil {
			if !strings.Contains(err.Error(), "unknown flag") {
				return err
			}
			b.report.skip("scenario bighost: this lensfs has no flag --host-root")
			for range bigHostSteps(b) {
				b.bar.step("big host: skipped")
			}
			return nil
		}
		kinds = append(kinds,
			&kind{Name: onHost(shared, h), Title: title(shared) + ", " + h.name, source: l.tree, views: true, server: l.server},
			&kind{Name: onHost(own, h), Title: title(own) + ", " + h.name, source: filepath.Join(l.views, "self"), views: true, server: l.server})
	}
	l := roomy()
	l.cpus, l.cpuset = 2, "0-1"
	c, err := b.newContainer(l, kinds, b.files)
	if err != nil {
		return err
	}
	defer func() { err = joinStop(err, c) }()
	b.pause(grownUp)
	for round := range b.rounds {
		for _, file := range b.files {
			for _, mode := range bigHostWays {
				for i := range kinds {
					k := kinds[(round+i)%len(kinds)]
					b.bar.step("%s: %s", shortName(file), k.Title)
					if _, ok := c.shown[k.Name][file]; !ok {
						continue
					}
					key := series{Scenario: "bighost", Kind: k.Name, File: file, Mode: mode, Threads: 1}
					o := order{Kind: k.Name, Files: []string{file}, Threads: 1, For: b.span}
					if mode == fresh {
						o.Every = freshEvery
						o.For = 2 * b.span
					}
					if err := b.sample(key, c, k, o); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
