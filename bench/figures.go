package main

import (
	"fmt"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"
)

// figures draws everything that was measured.
func (r *report) figures() (all []figure, err error) {
	add := func(title, caption string, p *plot.Plot) {
		if p == nil || err != nil {
			return
		}
		f := figure{Title: title, Caption: caption}
		f.SVG, err = svg(p)
		all = append(all, f)
	}
	const dots = "Dots are medians of the rounds, bars reach from the smallest to the largest."
	for _, threads := range []int{1, 8} {
		add(fmt.Sprintf("Reads a second, %s", plural(threads, "thread")), "Open, read to the end, close, in a loop. "+dots, r.rates(threads))
	}
	for _, w := range ways {
		add(fmt.Sprintf("How long a read of %s takes: %s, %s", shortName(r.Files[0]), w.mode, plural(w.threads, "thread")),
			"All rounds together. Each mark to the right leaves a tenth of the reads: the slowest tenth, hundredth, thousandth.", r.distribution(w))
	}
	add("Fleet: what a read costs the daemon", "CPU time of the daemon for a thousand reads, each container reading meminfo, stat, uptime and cpu/online once a second. "+dots, r.fleetPlot(cpuPerRead, 1e-3, "ms of CPU for 1000 reads", true))
	add("Fleet: memory of the daemon", "Resident memory. The shared tree and the own views are served by one daemon.", r.fleetPlot(rss, 1e-6, "MB", false))
	add("Fleet: how long the readers wait", "Round: median. Triangle: p99.", r.waits())
	add(fmt.Sprintf("Noisy neighbour: reads of %s beside one that reads in a loop with %d threads", shortName(r.Files[0]), noisyThreads),
		"Left of each pair alone, right beside the noise. Round: median. Triangle: p99. "+dots, r.noisyPlot())
	add("Big host: what an answer costs the daemon", fmt.Sprintf("CPU time of the daemon for a read that finds nothing kept. Round: host of %d CPUs. Triangle: host of %d CPUs and %d interrupts. The container has 2 CPUs.",
		smallHost.cpus, bigHost.cpus, bigHost.interrupts), r.bigHostPlot())
	add("Churn: memory of the daemon while containers come and go", "Resident memory after so many containers, and once more 10 s after the last.", r.churnPlot())
	add("Takeover: how long readers wait while lensfs is killed, upgraded and stopped", "Of each event the longest of the reads that were under way. Dot: median; the bar reaches to the longest of all.", r.stallPlot())
	return all, err
}

func (r *report) rates(threads int) *plot.Plot {
	p := newPlot("", "reads a second")
	grid(p, false)
	var e extent
	var words []string
	for i, file := range r.Files {
		words = append(words, shortName(file))
		for j, k := range titles {
			x := r.find(series{Scenario: "read", Kind: k.kind, File: file, Mode: opened, Threads: threads})
			if x == nil {
				continue
			}
			s := x.of(perSecond)
			if s.Min <= 0 {
				continue
			}
			e.take(s.Min, s.Max)
			drawDots(p, []dot{{float64(i) + 0.11*(float64(j)-2.5), s.Median, s.Min, s.Max}}, colours[k.kind], false, draw.CircleGlyph{})
		}
	}
	if e.max == 0 {
		return nil
	}
	names(&p.X, words)
	logarithmic(&p.Y, e.min, e.max)
	return p
}

// distribution has an axis on which each nine is as wide as the one before.
func (r *report) distribution(w way) *plot.Plot {
	p := newPlot("share of reads that took no longer", "µs")
	grid(p, true)
	var e extent
	most := 0.0
	for _, k := range titles {
		x := r.find(series{Scenario: "read", Kind: k.kind, File: r.Files[0], Mode: w.mode, Threads: w.threads})
		if x == nil {
			continue
		}
		var points plotter.XYs
		for _, q := range x.Latency {
			nines := -math.Log10(1 - q.Of)
			if nines > 5 {
				break
			}
			points = append(points, plotter.XY{X: nines, Y: math.Max(1, float64(q.NS)) / 1e3})
			e.take(points[len(points)-1].Y)
			most = math.Max(most, nines)
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			continue
		}
		line.Color, line.Width, line.StepStyle = colours[k.kind], 1.6, plotter.NoStep
		p.Add(line)
	}
	if e.max == 0 {
		return nil
	}
	p.X.Tick.Marker = plot.ConstantTicks([]plot.Tick{{Value: 0, Label: "0"}, {Value: 0.30103, Label: "50 %"}, {Value: 1, Label: "90 %"}, {Value: 2, Label: "99 %"},
		{Value: 3, Label: "99.9 %"}, {Value: 4, Label: "99.99 %"}, {Value: 5, Label: "99.999 %"}})
	p.X.Min, p.X.Max = 0, math.Min(5, math.Ceil(most))
	logarithmic(&p.Y, e.min, e.max)
	return p
}
