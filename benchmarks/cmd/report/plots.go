package main

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A theme is how a plot looks on a page.
type theme struct {
	name           string
	ink, faint     color.Color
	palette        []color.Color
	workpool, base color.Color
}

var themes = []theme{
	{
		"light",
		rgb(0x1f2328),
		rgb(0xd8dee4),
		[]color.Color{
			rgb(0x955ba5), rgb(0x2a926e), rgb(0xb37a00),
			rgb(0x7a6a5a), rgb(0xd0609a), rgb(0x5a7a9a),
			rgb(0x809030), rgb(0x50a0b0),
		},
		rgb(0x0969da), rgb(0xcf222e),
	},
	{
		"dark",
		rgb(0xe6edf3),
		rgb(0x3d444d),
		[]color.Color{
			rgb(0xc89bdb), rgb(0x57c7a0), rgb(0xe3b341),
			rgb(0xb5a490), rgb(0xf092c0), rgb(0x90b0d0),
			rgb(0xb5c560), rgb(0x80d0e0),
		},
		rgb(0x4c9aff), rgb(0xff7b72),
	},
}

func rgb(hex uint32) color.Color {
	return color.RGBA{uint8(hex >> 16), uint8(hex >> 8), uint8(hex), 0xff}
}

// A picture is one plot: a line for each implementation.
type picture struct {
	file, title, x, y string
	xNames            []string
	lines             []line
}

type line struct {
	impl   string
	values []float64 // for each of xNames
}

// writePlots draws what there is.
func writePlots(out string, r *results) error {
	var pictures []picture
	for _, g := range r.groups() {
		switch g.name {
		case "Collect/producers=1":
			p := picture{"throughput", "One task at a time, submitted and collected", "workers", "million tasks a second", g.workers, nil}
			pictures = append(pictures, p.of(g, r, func(impl string, i int) (float64, bool) {
				ns, ok := r.median(g.full(g.workers[i], impl), "ns/op")
				return 1e3 / ns, ok
			}))
		case "Call/callers=8":
			percentiles := []string{"p50-ns", "p99-ns", "p99.9-ns"}
			p := picture{"latency", "Question and answer: 8 callers, 8 workers", "percentile", "microseconds", []string{"50 %", "99 %", "99.9 %"}, nil}
			pictures = append(pictures, p.of(g, r, func(impl string, i int) (float64, bool) {
				ns, ok := r.median(g.full("8", impl), percentiles[i])
				return ns / 1e3, ok
			}))
		case "Sleepers":
			p := picture{"memory", "50,000 workers, a million tasks that sleep", "", "peak memory, MiB", nil, nil}
			for _, impl := range g.impls {
				if mib, ok := r.median(g.full(g.workers[0], impl), "peak-MiB"); ok {
					p.xNames = append(p.xNames, impl)
					p.lines = append(p.lines, line{impl, []float64{mib}})
				}
			}
			pictures = append(pictures, p)
		}
	}
	for _, p := range pictures {
		for _, t := range themes {
			if err := p.draw(t, filepath.Join(out, p.file+"-"+t.name+".svg")); err != nil {
				return err
			}
		}
	}
	return nil
}

// of adds the lines of the implementations of g that have all values.
func (p picture) of(g *group, _ *results, value func(impl string, i int) (float64, bool)) picture {
	for _, impl := range g.impls {
		l := line{impl: impl}
		for i := range p.xNames {
			if v, ok := value(impl, i); ok {
				l.values = append(l.values, v)
			}
		}
		if len(l.values) == len(p.xNames) {
			p.lines = append(p.lines, l)
		}
	}
	return p
}

func (p picture) draw(t theme, file string) error {
	plt := plot.New()
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: 11}
	for _, style := range []*text.Style{
		&plt.Title.TextStyle, &plt.X.Label.TextStyle, &plt.Y.Label.TextStyle,
		&plt.X.Tick.Label, &plt.Y.Tick.Label, &plt.Legend.TextStyle,
	} {
		style.Color, style.Font = t.ink, sans
	}
	plt.Title.TextStyle.Font.Size = 14
	plt.Title.Padding = 8
	plt.BackgroundColor = color.Transparent
	for _, axis := range []*plot.Axis{&plt.X, &plt.Y} {
		axis.Color, axis.Tick.Color = t.ink, t.ink
	}
	plt.Title.Text, plt.X.Label.Text, plt.Y.Label.Text = p.title, p.x, p.y
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = t.faint, color.Transparent
	plt.Add(grid)

	bars := p.x == ""
	plt.NominalX(p.xNames...)
	if !bars {
		plt.Legend.Top, plt.Legend.Padding = true, 3
		plt.Y.Scale, plt.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(logTicks)
	} else {
		plt.Y.Min = 0
		plt.X.Tick.Label.Rotation, plt.X.Tick.Label.XAlign, plt.X.Tick.Label.YAlign = 0.6, text.XRight, text.YTop
	}
	others := 0
	for i, l := range p.lines {
		width, tone := vg.Points(1.5), t.palette[others%len(t.palette)]
		switch l.impl {
		case "workpool":
			width, tone = vg.Points(3), t.workpool
		case baseline:
			width, tone = vg.Points(2.5), t.base
		default:
			others++
		}
		if bars {
			bar, err := plotter.NewBarChart(plotter.Values(l.values), vg.Points(28))
			if err != nil {
				return err
			}
			bar.XMin, bar.Color, bar.LineStyle.Width = float64(i), tone, 0
			plt.Add(bar)
			continue
		}
		points := make(plotter.XYs, len(l.values))
		for i, v := range l.values {
			points[i] = plotter.XY{X: float64(i), Y: v}
		}
		drawn, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		drawn.Color, drawn.Width = tone, width
		dots.Color, dots.Shape, dots.Radius = tone, draw.CircleGlyph{}, vg.Points(2.5)
		plt.Add(drawn, dots)
		plt.Legend.Add(l.impl+"   ", drawn, dots) // fonts of pages are wider than those that it measures
	}
	if !bars {
		plt.X.Max += 0.3 * float64(len(p.xNames)) // room for the legend
	}
	canvas := vgsvg.New(720, 420)
	plt.Draw(draw.Crop(draw.New(canvas), 6, -12, 6, -6))
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("drawing %s: %w", file, err)
	}
	return f.Close()
}

// logTicks marks 1, 2 and 5 of each power of ten.
func logTicks(lowest, highest float64) (ticks []plot.Tick) {
	for power := 1e-6; power <= highest; power *= 10 {
		for _, digit := range []float64{1, 2, 5} {
			if v := power * digit; v >= lowest && v <= highest {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 3, 64)})
			}
		}
	}
	return ticks
}
