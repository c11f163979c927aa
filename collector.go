package workpool

import (
	"context"
	"reflect"
)

// A collector is the collector channel: the results that no receiver has taken.
// Each job in it stands for one, or for a run of them. It owns the blocks that the
// tasks lie in that were submitted.
type collector[T, R any] struct {
	channel[T, R]
	pool  *Pool[T, R]
	extra int // results beyond one a job
}

// results returns how many there are.
func (c *collector[T, R]) results() int { return c.n + c.extra }

func (c *collector[T, R]) answerer() answerer[T, R] { return nil }

func (c *collector[T, R]) failed(error) {}

func (c *collector[T, R]) doneLocked(r *run[T, R], n int) {
	c.pool.countDoneLocked(r, n)
	c.addLocked(r, n, r.worker)
}

func (c *collector[T, R]) answerRunLocked(r *run[T, R], j *job[T, R]) {
	p := c.pool
	c.addLocked(r, r.restLocked(j.err), j.worker)
	p.freeRunLocked(r)
	p.freeLocked(j)
}

// addLocked adds the results of the next n tasks of r, or drops them if nobody
// gets them.
func (c *collector[T, R]) addLocked(r *run[T, R], n int, worker int32) {
	p := c.pool
	first, index := r.first+r.done, r.index+uint64(r.done)
	if !p.collects {
		for i := range n {
			r.forget(first + i)
		}
		p.takenLocked(r.block, n)
		return
	}
	if last := c.last; c.n > 0 && last.isRun && last.to.(*run[T, R]).goesOnWith(r.block, first, index, worker) {
		last.to.(*run[T, R]).n += n
		c.extra += n
	} else {
		ended, j := p.newRunLocked(r.block, first, n, index)
		ended.worker = worker
		c.push(j)
		c.extra += n - 1
	}
	c.offerLocked()
}

// takeLocked takes n results at most, which belong together, out of the channel.
func (c *collector[T, R]) takeLocked(n int) *job[T, R] {
	j := c.pop()
	if !j.isRun {
		return j
	}
	r := j.to.(*run[T, R])
	if n >= r.n {
		c.extra -= r.n - 1
		return j
	}
	part, taken := c.pool.partLocked(r, 0, n)
	part.worker = r.worker
	r.shrinkLocked(n)
	c.pushFront(j)
	c.extra -= n
	return taken
}

// putBackLocked puts back results of r that were not claimed.
func (c *collector[T, R]) putBackLocked(r *run[T, R], from, to int) {
	part, j := c.pool.partLocked(r, from, to-from)
	part.worker = r.worker
	c.pushFront(j)
	c.extra += to - from - 1
}

// appendLocked accepts a task that was submitted, for which there is room. It joins
// the last in the task channel if these came with the same context.
func (p *Pool[T, R]) appendLocked(ctx context.Context, task T) {
	if len(p.feeders) > 0 {
		p.collectLocked() // these come first
	}
	r := p.tail
	if r == nil || !r.joins || r.ctx != ctx || p.filled == len(r.tasks) || r.index+uint64(r.n) != p.index || p.tasks.normal.last != r.job {
		r = p.newTailLocked(ctx)
	}
	r.tasks[p.filled] = task
	p.filled++
	r.n++
	p.tasks.n++
	p.index++
	p.submitted++
	if !p.paused {
		p.offerTaskLocked()
	}
}

// newTailLocked puts a run of no tasks yet into the task channel.
func (p *Pool[T, R]) newTailLocked(ctx context.Context) *run[T, R] {
	if p.block == nil || p.filled == len(p.block.tasks) {
		p.block, p.filled = p.newBlockLocked(&p.collector), 0
	}
	r, j := p.newRunLocked(p.block, p.filled, 0, p.index)
	r.ctx, j.ctx = ctx, ctx
	r.joins = ctx == context.Background() || reflect.ValueOf(ctx).Kind() == reflect.Pointer // others may not be comparable
	p.tasks.push(j)
	p.tail = r
	return r
}

// closeTailLocked lets no more tasks join r, which leaves the task channel.
func (p *Pool[T, R]) closeTailLocked(r *run[T, R]) {
	if p.tail == r {
		p.tail = nil
	}
}
