package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
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

// A theme is the kind of page that a plot is for.
type theme struct {
	name       string
	ink, faint color.Color
}

var themes = []theme{
	{"light", rgb(0x1f2328), rgb(0xd8dee4)},
	{"dark", rgb(0xe6edf3), rgb(0x3d444d)},
}

// looks has the implementations that plots show, the most interesting first, and how
// they look in each of them.
var looks = []struct {
	impl  string
	tones map[string]color.Color // by theme
	shape draw.GlyphDrawer
	width vg.Length
}{
	{"workpool", map[string]color.Color{"light": rgb(0x0969da), "dark": rgb(0x4c9aff)}, draw.CircleGlyph{}, 3},
	{baseline, map[string]color.Color{"light": rgb(0xcf222e), "dark": rgb(0xff7b72)}, draw.BoxGlyph{}, 2},
	{"ants", map[string]color.Color{"light": rgb(0x1a7f5a), "dark": rgb(0x57c7a0)}, draw.PyramidGlyph{}, 1.5},
	{"pond", map[string]color.Color{"light": rgb(0x8250df), "dark": rgb(0xc89bdb)}, draw.TriangleGlyph{}, 1.5},
	{"conc", map[string]color.Color{"light": rgb(0xb37a00), "dark": rgb(0xe3b341)}, draw.RingGlyph{}, 1.5},
	{"gammazero", map[string]color.Color{"light": rgb(0x6e7781), "dark": rgb(0x9aa4af)}, draw.CrossGlyph{}, 1.5},
}

// mostLines is how many implementations a plot shows. The tables have all.
const mostLines = 5

func rgb(hex uint32) color.Color {
	return color.RGBA{uint8(hex >> 16), uint8(hex >> 8), uint8(hex), 0xff}
}

// A picture is the plot of one workload.
type picture struct {
	file, title string
	x, y        string // what the axes are, with units
	logarithmic bool   // the vertical axis
	points      func(*group) []point
}

// A point is a place on the horizontal axis, and the measurement to show there.
type point struct {
	name, workers, unit string
	scale               func(value float64) float64
}

// pictures are the plots, by workload. Those of a single point have bars.
var pictures = map[string]picture{
	"Collect/producers=1": {
		"throughput", "One task at a time, submitted and collected, no-op",
		"number of workers", "million tasks per second", false,
		func(g *group) (points []point) {
			for _, workers := range g.workers {
				points = append(points, point{workers, workers, "ns/op", func(ns float64) float64 { return 1e3 / ns }})
			}
			return points
		},
	},
	"Call/callers=8": {
		"latency", "Question and answer, 8 callers and 8 workers, no-op",
		"percentile of the calls", "latency in µs (logarithmic)", true,
		func(*group) []point {
			return []point{{"50 %", "8", "p50-ns", fromNano}, {"99 %", "8", "p99-ns", fromNano}, {"99.9 %", "8", "p99.9-ns", fromNano}}
		},
	},
	"Sleepers": {
		"memory", "A million tasks that sleep for 10 ms, on 50,000 workers",
		"implementation", "peak memory in MiB", false,
		func(g *group) []point {
			return []point{{"", g.workers[0], "peak-MiB", func(mib float64) float64 { return mib }}}
		},
	},
}

func fromNano(ns float64) float64 { return ns / 1e3 }

// A line is what a plot shows of one implementation.
type line struct {
	look   int // in looks
	values plotter.Values
}

// lines returns what p shows of g: the first implementations of looks that have all values.
func (p picture) lines(g *group, r *results) (lines []line) {
	for i, look := range looks {
		l := line{look: i}
		for _, at := range p.points(g) {
			value, ok := r.median(g.full(at.workers, look.impl), at.unit)
			if !ok {
				break
			}
			value = at.scale(value)
			if p.logarithmic { // by hand, as plot.LogScale leaves a gap above the lines
				value = math.Log10(value)
			}
			l.values = append(l.values, value)
		}
		if len(l.values) == len(p.points(g)) && len(lines) < mostLines {
			lines = append(lines, l)
		}
	}
	return lines
}

// embed returns the HTML that shows the plot on a page beside it.
func (p picture) embed() string {
	return fmt.Sprintf(`<picture>
  <source media="(prefers-color-scheme: dark)" srcset="%[1]s-dark.svg">
  <img alt="%[2]s: %[3]s, by %[4]s" src="%[1]s-light.svg" width="720">
</picture>
`, p.file, p.title, p.y, p.x)
}

// writePlots draws what there is.
func writePlots(out string, r *results) error {
	for _, g := range r.groups() {
		p, ok := pictures[g.name]
		if !ok || len(p.lines(g, r)) == 0 {
			continue
		}
		for _, t := range themes {
			svg, err := p.draw(g, r, t)
			if err != nil {
				return fmt.Errorf("drawing the plot of %s: %w", p.file, err)
			}
			if err := os.WriteFile(filepath.Join(out, p.file+"-"+t.name+".svg"), svg, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p picture) draw(g *group, r *results, t theme) ([]byte, error) {
	plt, legend := p.empty(t)
	lines, points := p.lines(g, r), p.points(g)
	var names []string
	for i, l := range lines {
		look := looks[l.look]
		tone := look.tones[t.name]
		if len(points) == 1 {
			bar, err := plotter.NewBarChart(l.values, vg.Points(48))
			if err != nil {
				return nil, err
			}
			bar.XMin, bar.Color, bar.LineStyle.Width = float64(i), tone, 0
			plt.Add(bar)
			names = append(names, look.impl)
			continue
		}
		drawn, glyphs, err := plotter.NewLinePoints(valuesAt(l.values))
		if err != nil {
			return nil, err
		}
		drawn.Color, drawn.Width = tone, look.width
		glyphs.Color, glyphs.Shape, glyphs.Radius = tone, look.shape, 3.5
		plt.Add(drawn, glyphs)
		legend.Add(look.impl, drawn, glyphs)
	}
	if len(points) > 1 {
		for _, at := range points {
			names = append(names, at.name)
		}
	}
	plt.NominalX(names...)
	plt.X.Min, plt.X.Max = -0.3, float64(len(names))-0.7
	if len(points) == 1 {
		plt.X.Min, plt.X.Max = -0.6, float64(len(names))-0.4
	}
	if p.logarithmic {
		plt.Y.Tick.Marker = plot.TickerFunc(logTicks)
		plt.Y.Min, plt.Y.Max = plt.Y.Min-0.1, plt.Y.Max+0.1
	} else {
		plt.Y.Min, plt.Y.Max = 0, plt.Y.Max*1.05
	}

	const width, height, margin = 720, 400, 8
	canvas := vgsvg.New(width, height)
	whole := draw.Crop(draw.New(canvas), margin, -margin, margin, -margin)
	if len(points) == 1 {
		plt.Draw(whole)
	} else {
		const forLegend = 124
		plt.Draw(draw.Crop(whole, 0, -forLegend, 0, 0))
		legend.Draw(draw.Crop(whole, width-2*margin-forLegend+16, 0, 0, -32))
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return nil, err
	}
	// Arial and Helvetica are as wide as the font that the layout is measured with.
	return bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:'Liberation Sans',Arial,Helvetica,system-ui,sans-serif;")), nil
}

// empty returns the plot without lines, and its legend, which is drawn beside it.
func (p picture) empty(t theme) (*plot.Plot, plot.Legend) {
	plt, legend := plot.New(), plot.NewLegend()
	plt.BackgroundColor = nil
	plt.Title.Text, plt.X.Label.Text, plt.Y.Label.Text = p.title, p.x, p.y
	plt.Title.Padding, plt.X.Label.Padding, plt.Y.Label.Padding = 12, 6, 6
	legend.Top, legend.Left, legend.Padding, legend.ThumbnailWidth = true, true, 6, 28
	for _, style := range []*text.Style{
		&plt.Title.TextStyle, &plt.X.Label.TextStyle, &plt.Y.Label.TextStyle,
		&plt.X.Tick.Label, &plt.Y.Tick.Label, &legend.TextStyle,
	} {
		style.Color, style.Font = t.ink, font.Font{Typeface: "Liberation", Variant: "Sans", Size: 13}
	}
	plt.Title.TextStyle.Font.Size = 16
	for _, axis := range []*plot.Axis{&plt.X, &plt.Y} {
		axis.Color, axis.Tick.Color = t.ink, t.ink
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Width = t.faint, 0
	plt.Add(grid)
	return plt, legend
}

// valuesAt are the values at 0, 1, 2 and so on.
func valuesAt(values plotter.Values) plotter.XYs {
	points := make(plotter.XYs, len(values))
	for i, v := range values {
		points[i] = plotter.XY{X: float64(i), Y: v}
	}
	return points
}

// logTicks marks 1, 2 and 5 of each power of ten, on an axis of logarithms.
func logTicks(lowest, highest float64) (ticks []plot.Tick) {
	for power := 1e-6; math.Log10(power) <= highest; power *= 10 {
		for _, digit := range []float64{1, 2, 5} {
			if v := math.Log10(power * digit); v >= lowest && v <= highest {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(power*digit, 'g', 3, 64)})
			}
		}
	}
	return ticks
}
