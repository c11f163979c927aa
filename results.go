package workpool

import (
	"fmt"
	"iter"
	"sync/atomic"
)

// Results returns an iterator over the results of submitted tasks, each once, as
// they become ready, or with [WithOrdered] in the order of acceptance. It may be
// ranged over before, during and after closing, by several goroutines at once: each
// result goes to one of them. The sequence ends when the pool is closed and all
// results have been received. A break loses nothing; the next range continues from
// there.
//
// While the pool is open, workers wait when the result buffer is full. Once it is
// closing, they don't, and the remaining results can be received afterwards.
//
// In a handler of the same pool, a range yields the results that are ready and then
// ends, since it might otherwise wait for the handler's own. The handler is
// recognized by its goroutine: do not let a handler wait for another goroutine that
// ranges over Results.
func (p *Pool[T, R]) Results() iter.Seq[Result[T, R]] {
	return func(yield func(Result[T, R]) bool) {
		if !p.results.on {
			return
		}
		r := receiver[T, R]{pool: p}
		r.begin()
		defer r.leave()
		for r.receive() {
			for ok := true; ok; ok = r.claim() {
				j := r.jobs[r.i-1]
				if !yield(Result[T, R]{Index: j.index, Task: j.task, Value: j.value, Err: j.err, Worker: int(j.worker), Attempt: int(j.attempt)}) {
					return
				}
				j.forget()
			}
		}
	}
}

// maxTake is the maximum number of results that a receiver takes at once.
const maxTake = 32

// A receiver is one range over Results. While it is the only one, it takes several results
// under one lock, and then claims them one by one without the lock. Another receiver, or a
// worker whose result has no room, can recall those that it has not claimed.
type receiver[T, R any] struct {
	waiter
	pool    *Pool[T, R]
	inside  bool // a handler of the pool receives
	jobs    [maxTake]*job[T, R]
	n       int          // how many it has taken
	i       int          // how many of these it has claimed; used by its goroutine only
	yielded atomic.Int32 // the same for others; more than n when the rest was recalled
}

func (r *receiver[T, R]) claim() bool {
	if int(r.yielded.Add(1)) > r.n {
		return false
	}
	r.i++
	return true
}

// inHand returns how many results r has taken and not claimed.
func (r *receiver[T, R]) inHand() int { return max(0, r.n-int(r.yielded.Load())) }

// begin is called at the start of a range, and leave at its end.
func (r *receiver[T, R]) begin() {
	p := r.pool
	_, r.inside = p.workers.Load(goroutineID())
	p.lockAhead()
	defer p.unlock()
	p.results.ranges++
	p.results.recall()
}

func (r *receiver[T, R]) leave() {
	p := r.pool
	p.lockAhead()
	defer p.unlock()
	p.results.ranges--
	r.giveBackLocked()
}

// receive gives back the jobs that were yielded, waits for more, and claims the first of
// them. It returns false at the end of the results.
func (r *receiver[T, R]) receive() bool {
	p := r.pool
	c := &p.results
	p.lockAhead()
	defer p.unlock()
	r.giveBackLocked()
	for c.list.n == 0 {
		if r.inside || !p.life.open && p.isQuietLocked() {
			return false
		}
		c.readers.push(&r.waiter)
		p.unlock()
		<-r.wake
		p.lockAhead()
		if c.called == &r.waiter {
			c.called = nil
		}
	}
	r.n, r.i = 1, 1
	if c.ranges == 1 && c.order == nil && p.crew.held.n == 0 { // else each result that it takes makes room
		r.n = min(c.list.n, maxTake)
		c.ahead = r
	}
	for i := range r.n {
		r.jobs[i] = c.list.pop()
	}
	r.yielded.Store(1)
	return true
}

// giveBackLocked gives back all that r has taken.
func (r *receiver[T, R]) giveBackLocked() {
	p := r.pool
	if p.results.ahead == r {
		p.results.recall()
	}
	if r.i > 0 {
		r.jobs[r.i-1].forget() // if the loop body did not return
	}
	for _, j := range r.jobs[:r.i] {
		p.spare.put(j)
	}
	r.i = 0
}

// answerLocked hands a job that has ended to its owner, or to Results.
func (p *Pool[T, R]) answerLocked(j *job[T, R]) {
	j.ctx, j.origin, j.state = nil, nil, outside // the job may wait for a receiver
	if j.batch != nil {
		j.batch.remove(j)
	}
	if j.submitter != nil {
		p.releaseSubmitterLocked(j, nil)
	}
	switch {
	case j.to != nil:
		j.to.answerLocked(j)
	case p.results.order != nil:
		p.results.order.finish(j, &p.results.list)
	case p.results.on:
		p.results.list.push(j)
	default:
		p.freeLocked(j)
	}
}

// freeLocked makes a job that is no longer needed available for another task.
func (p *Pool[T, R]) freeLocked(j *job[T, R]) {
	j.forget()
	p.spare.put(j)
}

// resultFuncFailed keeps the first panic or Goexit of the result function for
// Shutdown and Close.
func (p *Pool[T, R]) resultFuncFailed(index uint64, err error) {
	err = fmt.Errorf("workpool: result function, given the result of task %d: %w", index, err)
	p.lock()
	defer p.unlock()
	if p.life.resultFuncErr == nil {
		p.life.resultFuncErr = err
	}
}
