package main

import (
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// fleetDots gives the points of one kind over the number of containers.
func (r *report) fleetDots(kind string, what func(sample) float64, factor float64) (dots []dot) {
	for _, x := range r.Series {
		if x.Scenario != "fleet" || x.Kind != kind {
			continue
		}
		if s := x.of(what); s.Min > 0 { // else it has no place on a log scale
			dots = append(dots, dot{float64(x.Containers), s.Median * factor, s.Min * factor, s.Max * factor})
		}
	}
	return dots
}

func (r *report) fleetPlot(what func(sample) float64, factor float64, unit string, log bool) *plot.Plot {
	p := newPlot("containers", unit)
	grid(p, false)
	var x, y extent
	for _, k := range titles {
		dots := r.fleetDots(k.kind, what, factor)
		for _, d := range dots {
			x.take(d.x)
			y.take(d.low, d.high)
		}
		drawDots(p, dots, colours[k.kind], true, draw.CircleGlyph{})
	}
	if x.max == 0 {
		return nil
	}
	logarithmic(&p.X, x.min, x.max)
	if log {
		logarithmic(&p.Y, y.min, y.max)
	} else {
		p.Y.Min, p.Y.Max = 0, 1.1*y.max
	}
	return p
}

func (r *report) waits() *plot.Plot {
	p := newPlot("containers", "µs")
	grid(p, false)
	var x, y extent
	for _, k := range titles {
		for _, q := range []struct {
			what  func(sample) float64
			shape draw.GlyphDrawer
		}{{p50, draw.CircleGlyph{}}, {p99, draw.PyramidGlyph{}}} {
			dots := r.fleetDots(k.kind, q.what, 1e-3)
			for i, d := range dots {
				x.take(d.x)
				y.take(d.y)
				dots[i].low, dots[i].high = 0, 0
			}
			drawDots(p, dots, colours[k.kind], true, q.shape)
		}
	}
	if x.max == 0 {
		return nil
	}
	logarithmic(&p.X, x.min, x.max)
	logarithmic(&p.Y, y.min, y.max)
	return p
}

func (r *report) noisyPlot() *plot.Plot {
	p := newPlot("", "µs")
	grid(p, false)
	var e extent
	var words []string
	for _, k := range titles {
		at := float64(len(words))
		for i, mode := range []string{alone, noise} {
			x := r.find(series{Scenario: "noisy", Kind: k.kind, File: r.Files[0], Mode: mode, Threads: 1})
			if x == nil {
				continue
			}
			if i == 0 {
				words = append(words, strings.Replace(k.title, " ", "\n", 1))
			}
			for _, q := range []struct {
				s     spread
				shape draw.GlyphDrawer
			}{{x.of(p50), draw.CircleGlyph{}}, {x.of(p99), draw.PyramidGlyph{}}} {
				if q.s.Min <= 0 {
					continue
				}
				e.take(q.s.Min, q.s.Max)
				drawDots(p, []dot{{at + 0.3*(float64(i)-0.5), q.s.Median / 1e3, q.s.Min / 1e3, q.s.Max / 1e3}}, colours[k.kind], false, q.shape)
			}
		}
	}
	if e.max == 0 {
		return nil
	}
	names(&p.X, words)
	p.X.Tick.Label.Font.Size = vg.Points(8)
	logarithmic(&p.Y, e.min/1e3, e.max/1e3)
	return p
}

func (r *report) bigHostPlot() *plot.Plot {
	p := newPlot("", "µs of CPU for a read")
	grid(p, false)
	most := 0.0
	var words []string
	for i, file := range r.Files {
		words = append(words, shortName(file))
		for j, kind := range []string{shared, own} {
			for l, h := range []hostSize{smallHost, bigHost} {
				x := r.hosted(kind, file, fresh, h)
				if x == nil {
					continue
				}
				s := x.of(cpuPerRead)
				most = math.Max(most, s.Max/1e3)
				shape := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.PyramidGlyph{}}[l]
				drawDots(p, []dot{{float64(i) + 0.36*(float64(j)-0.5) + 0.12*(float64(l)-0.5), s.Median / 1e3, s.Min / 1e3, s.Max / 1e3}}, colours[kind], false, shape)
			}
		}
	}
	if most == 0 {
		return nil
	}
	names(&p.X, words)
	p.Y.Min, p.Y.Max = 0, 1.1*most
	return p
}

func (r *report) churnPlot() *plot.Plot {
	if len(r.Churn) == 0 {
		return nil
	}
	p := newPlot("containers that have come and gone", "MB")
	grid(p, false)
	most := 0.0
	for _, kind := range []string{lxcfs, shared} {
		var dots []dot
		for _, c := range r.Churn {
			if v, ok := c.RSS[kind]; ok {
				dots = append(dots, dot{x: float64(c.Containers), y: float64(v) / 1e6})
				most = math.Max(most, float64(v)/1e6)
			}
		}
		drawDots(p, dots, colours[kind], true, draw.CircleGlyph{})
	}
	p.X.Min, p.Y.Min, p.Y.Max = 0, 0, 1.15*most
	return p
}

func (r *report) stallPlot() *plot.Plot {
	p := newPlot("", "ms")
	grid(p, false)
	var y extent
	var words []string
	for _, e := range events {
		x := r.stalled(e.name)
		if x == nil {
			continue
		}
		s := quantiles(x.Stalls)
		d := dot{float64(len(words)), float64(s.ValueAtQuantile(50)) / 1e6, float64(s.ValueAtQuantile(50)) / 1e6, float64(s.Max()) / 1e6}
		y.take(d.low, d.high)
		drawDots(p, []dot{d}, colours[shared], false, draw.CircleGlyph{})
		words = append(words, strings.ReplaceAll(e.name, " ", "\n"))
	}
	if y.max == 0 {
		return nil
	}
	names(&p.X, words)
	p.X.Tick.Label.Font.Size = vg.Points(8)
	logarithmic(&p.Y, y.min, y.max)
	return p
}
