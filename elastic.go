package workpool

import "time"

// WithElastic makes the number of workers follow the load. Workers start while
// tasks wait for one, up to the number of [WithWorkers], and exit when they have
// been idle for the time idle, until minimum are left. The worker that has been
// idle longest exits first, and the one that has been idle shortest gets the next
// task, so the pool shrinks to what its load needs. A pool with no more workers
// than its minimum has no timer, and one without workers has no goroutine.
//
// A worker that is not started counts as idle: the queue fills only when all
// workers that the pool may have are busy. minimum is 0 to the number of workers,
// idle is more than 0, and [Pool.Resize] refuses to go below the minimum.
func WithElastic(minimum int, idle time.Duration) Option {
	if minimum < 0 {
		return mistaken("WithElastic(%d, %v): the minimum is 0 or more", minimum, idle)
	}
	if idle <= 0 {
		return mistaken("WithElastic(%d, %v): the time after which a worker leaves is more than 0", minimum, idle)
	}
	return setting(func(c *config) { c.elastic, c.minWorkers, c.idle = true, minimum, idle })
}

// An elastic has the settings of WithElastic, and the timer for them.
type elastic struct {
	least int
	idle  time.Duration
	timer *time.Timer // runs while there is an idle worker that may have to leave
}

// expires returns how long until the next worker has been idle for too long: 0 if one
// already has, negative if none will.
func (c *crew) expires() time.Duration {
	if c.elastic == nil || c.idle.n == 0 || c.alive <= c.elastic.least {
		return -1
	}
	return max(0, time.Until(c.idle.first.since.Add(c.elastic.idle)))
}

// watchIdleLocked sets a timer for when the next worker is to exit.
func (p *Pool[T, R]) watchIdleLocked() {
	e := p.crew.elastic
	wait := p.crew.expires()
	if e.timer != nil || wait < 0 || !p.life.open {
		return
	}
	e.timer = p.afterFuncLocked(wait, func() {
		e.timer = nil
		p.dismissIdleLocked()
	})
}

// dismissIdleLocked makes workers exit that have been idle for too long.
func (p *Pool[T, R]) dismissIdleLocked() {
	c := &p.crew
	surplus := c.alive - c.elastic.least
	for ; surplus > 0 && c.idle.n > 0 && time.Since(c.idle.first.since) >= c.elastic.idle; surplus-- {
		w := c.idle.first
		w.dismissed = true
		c.idle.wake(w)
	}
	p.watchIdleLocked()
}

// unwatchIdleLocked stops the timer of a pool that is closing.
func (p *Pool[T, R]) unwatchIdleLocked() {
	if e := p.crew.elastic; e != nil && e.timer != nil {
		p.stopTimerLocked(e.timer)
		e.timer = nil
	}
}
