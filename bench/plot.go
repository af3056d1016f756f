package main

import (
	"bytes"
	"html/template"
	"image/color"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// colours of the kinds, the same in every figure; the page has the legend.
var colours = map[string]color.RGBA{
	kernel: {0x55, 0x55, 0x5a, 0xff},
	tmpfs:  {0xb4, 0xb2, 0xac, 0xff},
	empt:   {0xe0, 0x9f, 0x2c, 0xff},
	lxcfs:  {0xc9, 0x3c, 0x37, 0xff},
	shared: {0x2f, 0x6f, 0xb5, 0xff},
	own:    {0x2a, 0x92, 0x59, 0xff},
}

var (
	ink  = color.RGBA{0x33, 0x33, 0x38, 0xff}
	rule = color.RGBA{0xe4, 0xe4, 0xe8, 0xff}
)

// figure is a plot with its caption.
type figure struct {
	Title, Caption string
	SVG            template.HTML
}

const (
	figureWidth  = 16 * vg.Centimeter
	figureHeight = 9.5 * vg.Centimeter
)

func newPlot(x, y string) *plot.Plot {
	p := plot.New()
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: 10}
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Tick.Color = ink, ink
		a.Width, a.Tick.Width = 0.5, 0.5
		a.Tick.Length = 4
		a.Label.TextStyle.Font, a.Label.TextStyle.Color = sans, ink
		a.Label.Padding = 4
		a.Tick.Label.Font, a.Tick.Label.Color = sans, ink
		a.Tick.Label.Font.Size = 9
	}
	p.X.Label.Text, p.Y.Label.Text = x, y
	return p
}

// grid draws lines at the ticks, beneath everything else.
func grid(p *plot.Plot, vertical bool) {
	g := plotter.NewGrid()
	g.Horizontal.Color, g.Vertical.Color = rule, rule
	g.Horizontal.Width, g.Vertical.Width = 0.5, 0.5
	if !vertical {
		g.Vertical.Color = nil
	}
	p.Add(g)
}

// logarithmic makes an axis one of powers of ten from the decade of min to that of max.
func logarithmic(a *plot.Axis, min, max float64) {
	a.Min, a.Max = math.Pow(10, math.Floor(math.Log10(min))), math.Pow(10, math.Ceil(math.Log10(max)))
	if a.Max <= a.Min {
		a.Max = 10 * a.Min
	}
	a.Scale = plot.LogScale{}
	a.Tick.Marker = decades{}
}

// upright is for a y axis: its labels end where their ticks begin.
func upright(a *plot.Axis) { a.Tick.Marker = apart{a.Tick.Marker} }

type apart struct{ plot.Ticker }

func (a apart) Ticks(min, max float64) []plot.Tick {
	ticks := a.Ticker.Ticks(min, max)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = strings.TrimSuffix(ticks[i].Label, ".00") + " "
		}
	}
	return ticks
}

// decades are ticks at powers of ten, with small ones between.
type decades struct{}

func (decades) Ticks(min, max float64) (ticks []plot.Tick) {
	for d := math.Pow(10, math.Round(math.Log10(min))); d <= max*1.001; d *= 10 {
		ticks = append(ticks, plot.Tick{Value: d, Label: short(d)})
		for i := 2.0; i < 10 && d*i < max; i++ {
			ticks = append(ticks, plot.Tick{Value: d * i})
		}
	}
	return ticks
}

// short writes a power of ten.
func short(x float64) string {
	switch {
	case x >= 1e6:
		return digits1(x/1e6) + " M"
	case x >= 1e3:
		return digits1(x/1e3) + " k"
	}
	return digits1(x)
}

// extent is the range of what a log axis has to show.
type extent struct{ min, max float64 }

func (e *extent) take(values ...float64) {
	for _, v := range values {
		if v <= 0 {
			continue
		}
		if e.min == 0 || v < e.min {
			e.min = v
		}
		e.max = math.Max(e.max, v)
	}
}

// dot draws medians with the range of the rounds as a line through each.
type dot struct {
	x, y, low, high float64
}

func drawDots(p *plot.Plot, dots []dot, c color.Color, joined bool, shape draw.GlyphDrawer) {
	if len(dots) == 0 {
		return
	}
	points := make(plotter.XYs, len(dots))
	for i, d := range dots {
		points[i] = plotter.XY{X: d.x, Y: d.y}
		if d.high > d.low {
			bar, _ := plotter.NewLine(plotter.XYs{{X: d.x, Y: d.low}, {X: d.x, Y: d.high}})
			bar.Color, bar.Width = faint(c), 3
			p.Add(bar)
		}
	}
	if joined {
		line, _ := plotter.NewLine(points)
		line.Color, line.Width = c, 1.2
		p.Add(line)
	}
	scatter, _ := plotter.NewScatter(points)
	scatter.GlyphStyle = draw.GlyphStyle{Color: c, Radius: 3, Shape: shape}
	p.Add(scatter)
}

// faint is a colour as on thin paper.
func faint(c color.Color) color.Color {
	r, g, b, _ := c.RGBA()
	mix := func(v uint32) uint8 { return uint8((v>>8)*2/5 + 255*3/5) }
	return color.RGBA{mix(r), mix(g), mix(b), 0xff}
}

// names is an axis of words, at 0, 1, 2….
func names(a *plot.Axis, words []string) {
	var ticks []plot.Tick
	for i, w := range words {
		ticks = append(ticks, plot.Tick{Value: float64(i), Label: w})
	}
	a.Tick.Marker = plot.ConstantTicks(ticks)
	a.Tick.Length = 0
	a.Min, a.Max = -0.5, float64(len(words))-0.5
}

// svg gives a plot as an element of a page.
func svg(p *plot.Plot) (template.HTML, error) {
	upright(&p.Y)
	c := vgsvg.New(figureWidth, figureHeight)
	p.Draw(draw.Crop(draw.New(c), 0, -22, 0, -6)) // room for half of the last label
	var buf bytes.Buffer
	if _, err := c.WriteTo(&buf); err != nil {
		return "", err
	}
	text := buf.Bytes()
	if i := bytes.Index(text, []byte("<svg")); i > 0 {
		text = text[i:] // without the prologue of a document
	}
	return template.HTML(text), nil
}
