package debug

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

// minute is how many seconds of history there are.
const minute = 60

// A watch is what a page keeps of a pool.
type watch struct {
	pool     Pool
	observed bool
	number   int  // in the page
	ended    bool // guarded by the page's mutex
	base     time.Time
	failures failures

	mu    sync.Mutex // guards stats of the slots
	slots [64]slot   // a second has that of its number modulo 64
}

// A slot is a second, counted from 1 in the life of a watch. Nobody has to look at a pool that is
// observed once a second: whoever comes first in a second, with a task, notes how the pool was at the
// end of the last one in which something happened.
type slot struct {
	second    atomic.Int64
	stats     workpool.Stats // as the second began
	wait, run histogram
}

func newWatch() *watch { return &watch{observed: true, base: time.Now()} }

func (w *watch) second() int64 { return int64(time.Since(w.base)/time.Second) + 1 }

// sample sees to it that the current second has a slot, and returns it.
func (w *watch) sample() *slot {
	second := w.second()
	s := &w.slots[second%int64(len(w.slots))]
	if s.second.Load() != second {
		w.begin(s, second)
	}
	return s
}

func (w *watch) begin(s *slot, second int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.second.Load() >= second {
		return // somebody was faster
	}
	s.wait.reset()
	s.run.reset()
	s.stats = w.pool.Stats()
	s.second.Store(second)
}

// observe returns the option with which a pool tells w what happens.
func (w *watch) observe() workpool.Option {
	return workpool.WithObserver(workpool.Observer{
		Submit: func(context.Context) any {
			w.sample() // or a queue that fills while no task ends would not be seen to
			return nil
		},
		End: func(_ context.Context, e workpool.Event) {
			s := w.sample()
			s.wait.add(e.Waited)
			s.run.add(e.Took)
			if e.Err != nil {
				w.failures.add(e)
			}
		},
	})
}

// A point is a second of a pool's history.
type point struct {
	Ended   float64  `json:"ended"` // tasks that ran and ended
	Failed  float64  `json:"failed"`
	Running int      `json:"running"` // at the end of the second
	Queued  int      `json:"queued"`
	Run     *summary `json:"run"` // times of what ended in it; nil if nothing did, and without an observer
}

// A history is what is known of the last minute. Its points are those of the 60 seconds before
// the current one, and nil where nothing is known.
type history struct {
	points    [minute]*point
	wait, run sum
}

func (w *watch) history() (h history) {
	now := w.sample().second.Load()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range h.points {
		h.points[i] = w.pointLocked(now - minute + int64(i))
	}
	for i := range w.slots {
		s := &w.slots[i]
		ago := now - s.second.Load()
		if ago > minute || s.second.Load() == 0 {
			continue
		}
		h.wait.add(&s.wait)
		h.run.add(&s.run)
		if at := minute - ago; at < minute && h.points[at] != nil {
			h.points[at].Run = summaryOf(&s.run)
		}
	}
	return h
}

// pointLocked returns what is known of a second: how it began and how the next one did of which
// there is a slot.
func (w *watch) pointLocked(second int64) *point {
	var before, after *slot
	for i := range w.slots {
		s := &w.slots[i]
		switch n := s.second.Load(); {
		case n == 0:
		case n <= second:
			if before == nil || n > before.second.Load() {
				before = s
			}
		case after == nil || n < after.second.Load():
			after = s
		}
	}
	if before == nil || after == nil {
		return nil
	}
	a, b := before.stats, after.stats
	p := &point{Running: b.Running, Queued: b.Queued}
	seconds := after.second.Load() - before.second.Load()
	switch {
	case w.observed && before.second.Load() < second:
		return p // nothing happened since
	case w.observed:
		seconds = 1
	case seconds > 3:
		return nil // nobody looked
	}
	p.Ended = float64(b.Succeeded+b.Failed-a.Succeeded-a.Failed) / float64(seconds)
	p.Failed = float64(b.Failed-a.Failed) / float64(seconds)
	return p
}
