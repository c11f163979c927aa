package workpool

import "time"

// WithElastic makes the number of workers follow the load: the pool begins with
// minimum workers, more start while tasks wait for one, up to the number of
// [WithWorkers], and they leave when they have not been needed for the time
// idle. A pool at its minimum has no timer, and one of minimum 0 no goroutine.
//
// A worker that is not started counts as one that has nothing to do: the queue
// fills only when all that the pool may have are busy. The minimum is 0 to the
// number of workers, idle is more than 0, and [Pool.Resize] refuses to go below
// the minimum.
func WithElastic(minimum int, idle time.Duration) Option {
	return optionFunc(func(c *config) error {
		if minimum < 0 {
			return invalid("WithElastic(%d, %v): the minimum is 0 or more", minimum, idle)
		}
		if idle <= 0 {
			return invalid("WithElastic(%d, %v): the time after which a worker leaves is more than 0", minimum, idle)
		}
		c.elastic, c.minWorkers, c.idle = true, minimum, idle
		return nil
	})
}

// An elastic is what a pool has with WithElastic.
//
// It is not the workers that are measured but their number: each takes a task
// now and then, but if at all times two of them were idle, two are too many.
// So since has, for each n, the time from which on at least n+1 workers have
// been idle.
type elastic struct {
	since   []time.Time
	leaving int // idle workers that are to leave, whichever come first
	timer   *time.Timer
}

// noteIdleLocked is called when a worker becomes idle.
func (p *Pool[T, R]) noteIdleLocked() {
	p.elasticity.since = append(p.elasticity.since, time.Now())
	p.armLocked()
}

// noteBusyLocked is called when an idle worker takes a task.
func (p *Pool[T, R]) noteBusyLocked() {
	if e := p.elasticity; len(e.since) > 0 {
		e.since = e.since[:len(e.since)-1]
	}
}

// startNeededLocked starts workers for the tasks that idle ones can't take.
func (p *Pool[T, R]) startNeededLocked() {
	e := p.elasticity
	for p.tasks.n > len(e.since) && !p.paused {
		if e.leaving > 0 {
			e.leaving--
			p.noteIdleLocked()
			continue
		}
		if !p.startVacantLocked() {
			return
		}
		p.noteIdleLocked()
	}
}

// recountLocked is called when the number of workers has been changed.
func (p *Pool[T, R]) recountLocked() {
	e, n := p.elasticity, 0
	for _, w := range p.workers[:p.size] {
		if w != nil && !w.busy {
			n++
		}
	}
	e.leaving = 0
	e.since = e.since[max(0, len(e.since)-n):]
	for len(e.since) < n {
		p.noteIdleLocked()
	}
	p.startNeededLocked()
	p.armLocked()
}

// noteLeftLocked is called when a worker has left.
func (p *Pool[T, R]) noteLeftLocked(w *worker[T, R]) {
	e := p.elasticity
	switch {
	case e.leaving > 0:
		e.leaving--
	case int(w.id) <= p.size:
		p.noteBusyLocked()
	}
	if e.leaving > 0 {
		p.offerTaskLocked()
	}
	p.startNeededLocked()
}

// armLocked sets the timer for when the next worker is to leave, unless it is
// set.
func (p *Pool[T, R]) armLocked() {
	e := p.elasticity
	if e.timer != nil || len(e.since) == 0 || p.alive-e.leaving <= p.minWorkers || !p.open {
		return
	}
	e.timer = p.afterFuncLocked(time.Until(e.since[0].Add(p.idle)), func() {
		e.timer = nil
		p.expireLocked()
		p.armLocked()
	})
}

// expireLocked sends those home that have not been needed.
func (p *Pool[T, R]) expireLocked() {
	e, now, n := p.elasticity, time.Now(), 0
	for n < len(e.since) && p.alive-e.leaving > p.minWorkers && now.Sub(e.since[n]) >= p.idle {
		n++
		e.leaving++
	}
	e.since = append(e.since[:0], e.since[n:]...)
	p.offerTaskLocked()
}

// disarmLocked stops the timer of a pool that is closing.
func (p *Pool[T, R]) disarmLocked() {
	if e := p.elasticity; e != nil && e.timer != nil {
		p.stopTimerLocked(e.timer)
		e.timer = nil
	}
}
