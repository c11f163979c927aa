package debug

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// chartHeight is the height of a chart, which is as wide as a minute has steps. The page stretches
// it.
const chartHeight = 40

// A chart is a number, how it was in the last minute, and what is to be known besides.
type chart struct {
	Name  string
	Value string
	Note  string
	Alt   string // the chart in words
	Area  string // paths
	Line  string
	Extra string // a second line
	Kind  string // what Extra is: a class
}

// Charts returns those of a pool.
func (v view) Charts() []chart {
	s := v.Stats
	ended := v.series(func(p *point) float64 { return p.Ended })
	failed := v.series(func(p *point) float64 { return p.Failed })
	running := v.series(func(p *point) float64 { return float64(p.Running) })
	queued := v.series(func(p *point) float64 { return float64(p.Queued) })
	note := "peak " + rate(peak(ended))
	if v.Failing > 0 {
		note += " · " + rate(v.Failing) + " failed"
	}
	workers := "of " + plural(s.Size, "worker", "workers")
	if s.Workers != s.Size && !s.Closed {
		workers += ", " + count(s.Workers) + " started"
	}
	charts := []chart{
		newChart("Tasks a second", rate(v.Rate), note, peak(ended), ended, failed, "bad"),
		newChart("Running", count(s.Running), workers,
			max(peak(running), float64(s.Size)), running, nil, ""),
		newChart("Queued", count(s.Queued), "of "+count(s.QueueDepth)+" · peak "+count(int(peak(queued))),
			max(peak(queued), float64(s.QueueDepth)), queued, nil, ""),
	}
	if !v.Observed {
		return charts
	}
	typical := v.series(func(p *point) float64 { return nanoseconds(p.Run, func(s *summary) seconds { return s.P50 }) })
	slow := v.series(func(p *point) float64 { return nanoseconds(p.Run, func(s *summary) seconds { return s.P99 }) })
	value, note := "–", "none ended"
	if v.Run != nil {
		value, note = duration(v.Run.P99), "p50 "+duration(v.Run.P50)+" · max "+duration(v.Run.Max)
	}
	return append(charts, newChart("Run time, p99", value, note, peak(slow), slow, typical, "quiet"))
}

func nanoseconds(s *summary, of func(*summary) seconds) float64 {
	if s == nil {
		return math.NaN()
	}
	return float64(of(s))
}

func newChart(name, value, note string, top float64, line, extra []float64, kind string) chart {
	c := chart{Name: name, Value: value, Note: note, Kind: kind}
	c.Line, c.Area = draw(line, top)
	if peak(extra) > 0 {
		c.Extra, _ = draw(extra, top)
	}
	c.Alt = name + " in the last minute: now " + value + ", " + note
	return c
}

// series returns a number for each second of the history: NaN where it is not known.
func (v view) series(of func(*point) float64) []float64 {
	values := make([]float64, len(v.History))
	for i, p := range v.History {
		values[i] = math.NaN()
		if p != nil {
			values[i] = of(p)
		}
	}
	return values
}

func peak(values []float64) float64 {
	top := 0.0
	for _, v := range values {
		if v > top { // and not NaN
			top = v
		}
	}
	return top
}

// draw returns the paths of a line from 0 to top, and of the area below it. Where values are
// NaN there is a gap; a value between two gaps is drawn half a second wide.
func draw(values []float64, top float64) (line, area string) {
	y := func(v float64) string {
		if top > 0 {
			v /= top
		}
		return strconv.FormatFloat(1+(1-v)*(chartHeight-2), 'f', 1, 64)
	}
	for from := 0; from < len(values); {
		if math.IsNaN(values[from]) {
			from++
			continue
		}
		to := from
		var points []string
		for ; to < len(values) && !math.IsNaN(values[to]); to++ {
			points = append(points, strconv.Itoa(to)+" "+y(values[to]))
		}
		if len(points) == 1 {
			points = append(points, strconv.Itoa(from)+".5 "+y(values[from]))
		}
		path := strings.Join(points, "L")
		end, _, _ := strings.Cut(points[len(points)-1], " ")
		line += "M" + path
		area += fmt.Sprintf("M%d %dL%sL%s %dZ", from, chartHeight, path, end, chartHeight)
		from = to
	}
	return line, area
}

// thin is a space between a number and its unit that is narrow and does not break.
const thin = "\u202f"

// duration returns d as it is read: with two digits, or three from a hundred on.
func duration(d seconds) string {
	v := time.Duration(d)
	switch {
	case v < 1000:
		return strconv.Itoa(int(v)) + thin + "ns"
	case v < 999500*time.Nanosecond:
		return digits(float64(v)/float64(time.Microsecond)) + thin + "µs"
	case v < 999500*time.Microsecond:
		return digits(float64(v)/float64(time.Millisecond)) + thin + "ms"
	case v < 59500*time.Millisecond:
		return digits(v.Seconds()) + thin + "s"
	case v < time.Hour-time.Second/2:
		v = v.Round(time.Second)
		return strconv.Itoa(int(v/time.Minute)) + thin + "min " + strconv.Itoa(int(v%time.Minute/time.Second)) + thin + "s"
	}
	v = v.Round(time.Minute)
	return strconv.Itoa(int(v/time.Hour)) + thin + "h " + strconv.Itoa(int(v%time.Hour/time.Minute)) + thin + "min"
}

func digits(v float64) string {
	if v < 9.95 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// rate returns a number of tasks a second.
func rate(v float64) string {
	if v > 0 && v < 9.95 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return count(int(math.Round(v)))
}

// count returns n with its thousands set apart.
func count[N int | uint64](n N) string {
	text := strconv.FormatUint(uint64(n), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}
