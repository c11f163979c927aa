package workpool

// WithOrdered makes [Pool.Results] yield results in the order in which the
// tasks were accepted, and [Pool.Stream] in the order of its input. A result
// that is ready before its turn waits, in a window: those that wait count
// towards the result buffer, and the pool holds no more tasks than without the
// option. When the window is full, workers wait for the oldest task, unless it
// waits for them: then one of them takes it.
//
// One slow task holds up the results of all behind it; the tasks run on, until
// the window is full. WithOrdered excludes [WithoutResults] and
// [WithResultFunc].
func WithOrdered() Option {
	return optionFunc(func(c *config) error {
		c.ordered = true
		return nil
	})
}

// A window puts jobs that end in any order back into the one they came in.
type window[T, R any] struct {
	jobs     []*job[T, R] // in order, from first
	first    int
	finished int // how many of jobs have ended
}

func (w *window[T, R]) n() int { return len(w.jobs) - w.first }

// push adds the next job.
func (w *window[T, R]) push(j *job[T, R]) {
	if w.first > len(w.jobs)/2 {
		n := copy(w.jobs, w.jobs[w.first:])
		clear(w.jobs[n:])
		w.jobs, w.first = w.jobs[:n], 0
	}
	w.jobs = append(w.jobs, j)
}

// finish marks j as ended, and moves to out all those whose turn has come.
func (w *window[T, R]) finish(j *job[T, R], out *list[T, R]) {
	j.place = finished
	w.finished++
	for w.n() > 0 && w.jobs[w.first].place == finished {
		next := w.jobs[w.first]
		next.place = elsewhere
		w.jobs[w.first] = nil
		w.first++
		w.finished--
		out.push(next)
	}
}

// oldestQueuedLocked returns the task that the results of an ordered pool wait
// for, if all they need is that it be taken. Behind another task of its key,
// it is that one.
func (p *Pool[T, R]) oldestQueuedLocked() *job[T, R] {
	if p.window == nil || p.collector.n > 0 || p.window.n() == 0 || p.paused {
		return nil
	}
	j := p.window.jobs[p.window.first]
	if j.place == behind {
		j = j.lane.current()
	}
	if j.place != queued {
		return nil
	}
	return j
}
