package debug

import (
	"cmp"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

const (
	maxTasks = 12  // rows of what workers are at
	maxCells = 256 // workers that are drawn
	recent   = 10  // seconds that a rate is the mean of
)

// A snapshot is what a page shows.
type snapshot struct {
	Program    string    `json:"program"`
	PID        int       `json:"pid"`
	Go         string    `json:"go"`
	Processors int       `json:"processors"`
	Goroutines int       `json:"goroutines"`
	Time       time.Time `json:"time"`
	Pools      []view    `json:"pools"`
}

// A view is what a page shows of a pool.
type view struct {
	Number   int            `json:"-"`
	Title    string         `json:"-"`
	State    string         `json:"state"` // open, paused, closing or closed
	Observed bool           `json:"observed"`
	Stats    workpool.Stats `json:"stats"`
	Rate     float64        `json:"rate"`    // tasks that ended a second, over the last ten
	Failing  float64        `json:"failing"` // those of them that failed
	Wait     *summary       `json:"wait"`    // of what ended in the last minute
	Run      *summary       `json:"run"`
	Slowest  []task         `json:"slowest"` // of those that run, the one that has run longest first
	Failures []failure      `json:"failures"`
	History  [minute]*point `json:"history"` // by the second, the oldest first
	working  []workpool.Event
}

// A task is one that runs.
type task struct {
	Worker  int     `json:"worker"`
	Index   uint64  `json:"index"`
	Attempt int     `json:"attempt"`
	Way     string  `json:"way"`
	Waited  seconds `json:"waited"`
	Running seconds `json:"running"`
}

func (p *Page) look() snapshot {
	s := snapshot{
		Program:    filepath.Base(os.Args[0]),
		PID:        os.Getpid(),
		Go:         runtime.Version(),
		Processors: runtime.GOMAXPROCS(0),
		Goroutines: runtime.NumGoroutine(),
		Time:       time.Now(),
		Pools:      []view{},
	}
	names := map[string]int{}
	for _, w := range p.list() {
		v := w.look()
		v.Title = cmp.Or(v.Stats.Name, "unnamed")
		names[v.Title]++
		if n := names[v.Title]; n > 1 {
			v.Title += " (" + strconv.Itoa(n) + ")"
		}
		s.Pools = append(s.Pools, v)
	}
	return s
}

func (w *watch) look() view {
	h := w.history()
	v := view{
		Number:   w.number,
		Observed: w.observed,
		Stats:    w.pool.Stats(),
		Wait:     h.wait.summary(),
		Run:      h.run.summary(),
		Slowest:  []task{},
		Failures: w.failures.latest(),
		History:  h.points,
		working:  w.pool.Working(),
	}
	switch s := v.Stats; {
	case ended(s):
		v.State = "closed"
	case s.Closed:
		v.State = "closing"
	case s.Paused:
		v.State = "paused"
	default:
		v.State = "open"
	}
	n := 0
	for _, at := range h.points[minute-recent:] {
		if at != nil {
			v.Rate += at.Ended
			v.Failing += at.Failed
			n++
		}
	}
	v.Rate /= float64(max(1, n))
	v.Failing /= float64(max(1, n))
	slices.SortStableFunc(v.working, func(a, b workpool.Event) int { return cmp.Compare(b.Took, a.Took) })
	for _, e := range v.working[:min(maxTasks, len(v.working))] {
		v.Slowest = append(v.Slowest, task{e.Worker, e.Index, e.Attempt, e.Way.String(), seconds(e.Waited), seconds(e.Took)})
	}
	return v
}

// More returns how many tasks run besides those of Slowest.
func (v view) More() int { return len(v.working) - len(v.Slowest) }

// A cell is a worker, as it is drawn.
type cell struct {
	Worker int
	Busy   bool
	Long   bool // for a second or more
	Task   uint64
	Took   seconds
}

// Cells returns the workers, or nil where there is nothing to know about them, or too many.
func (v view) Cells() []cell {
	n := v.Stats.Size
	for _, e := range v.working {
		n = max(n, e.Worker)
	}
	if v.working == nil || n < 1 || n > maxCells || v.State == "closed" {
		return nil
	}
	cells := make([]cell, n)
	for i := range cells {
		cells[i].Worker = i + 1
	}
	for _, e := range v.working { // the longest first: of nested ones, the outermost
		if c := &cells[max(0, e.Worker-1)]; !c.Busy {
			*c = cell{e.Worker, true, e.Took >= time.Second, e.Index, seconds(e.Took)}
		}
	}
	return cells
}

// A note says in words what there is to know besides.
type note struct {
	Text string
	Held bool // that something is held up
}

// Notes returns those of a pool.
func (v view) Notes() []note {
	var notes []note
	add := func(held bool, n int, one, many string) {
		if n > 0 {
			notes = append(notes, note{plural(n, one, many), held})
		}
	}
	s := v.Stats
	add(true, s.Waiting, "caller waits for room", "callers wait for room")
	add(true, s.Held, "worker waits for a receiver of its result", "workers wait for a receiver of their results")
	add(false, s.Parked, "queued task waits for its next attempt", "queued tasks wait for their next attempt")
	if s.Closed {
		add(true, s.Undelivered, "result has not been received", "results have not been received")
	}
	return notes
}

// A counter is one of those of Stats.
type counter struct {
	Name  string
	Value uint64
	Bad   bool
}

// Counters returns those that say something: the first three always, the others if they count.
func (v view) Counters() []counter {
	s := v.Stats
	all := []counter{
		{"submitted", s.Submitted, false},
		{"succeeded", s.Succeeded, false},
		{"failed", s.Failed, s.Failed > 0},
		{"panicked", s.Panicked, true},
		{"retried", s.Retried, false},
		{"aborted", s.Aborted, false},
		{"dropped", s.Dropped, false},
		{"cancelled", s.Cancelled, false},
		{"refused", s.Refused, false},
	}
	shown := all[:3]
	for _, c := range all[3:] {
		if c.Value > 0 {
			shown = append(shown, c)
		}
	}
	return shown
}
