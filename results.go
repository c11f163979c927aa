package workpool

import (
	"fmt"
	"iter"
)

// Results returns the answers to the tasks that were submitted, as they are
// ready, each once. It may be ranged over before, during and after the life of
// the pool, by several goroutines at once: each result goes to one of them.
// The sequence ends when the pool is closed and all results were received. A
// break loses nothing; the next range goes on from there.
//
// While the pool is open, workers wait when the buffer of results is full.
// From the moment that it is closing, they don't, and what is left can be
// received afterwards.
func (p *Pool[T, R]) Results() iter.Seq[Result[T, R]] { return p.deliver }

func (p *Pool[T, R]) deliver(yield func(Result[T, R]) bool) {
	if !p.collects {
		return
	}
	r := receiver[T, R]{pool: p}
	defer r.leave()
	for r.take() {
		if !r.yieldTo(yield) {
			return
		}
	}
}

// A receiver is one range over Results.
type receiver[T, R any] struct {
	pool *Pool[T, R]
	job  *job[T, R] // what it has taken
	run  *run[T, R] // that the job stands for, if it stands for one
	i    int        // which of the run it has in hand
}

// yieldTo yields what was taken, unless another receiver takes it over. It reports
// whether the range goes on.
func (r *receiver[T, R]) yieldTo(yield func(Result[T, R]) bool) bool {
	if r.run == nil {
		return yield(r.job.result())
	}
	p, run := r.pool, r.run
	for i, ok := 0, true; ok; i, ok = run.claim() {
		r.i = i
		if i > 0 && p.ofReceivers.flag.Load() {
			r.attend()
		}
		at := run.first + i
		if !yield(Result[T, R]{
			Index: run.index + uint64(i), Task: run.tasks[at], Value: run.values[at], Err: run.errs[at],
			Worker: int(run.worker), Attempt: 1,
		}) {
			return false
		}
		run.forget(at)
	}
	return true
}

// take waits for the next result. It reports false at the end of all.
func (r *receiver[T, R]) take() bool {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	r.giveBackLocked()
	p.recallStuckReceiversLocked()
	for !p.findResultLocked() {
		if !p.open && p.quietLocked() {
			return false
		}
		p.waitLocked(&p.collector.claims)
	}
	n := runLength
	if p.collector.waiting > 0 {
		n = 1
	}
	r.job = p.collector.takeLocked(n)
	if r.job.isRun {
		r.run, r.i = r.job.to.(*run[T, R]), 0
		r.run.begin(r.run.n)
		r.run.done = 0
		p.receivers.addLocked(r.run, r.run.n-1)
		p.watchLocked()
	}
	if p.collector.n > 0 {
		p.collector.offerLocked()
	}
	p.offerRoomLocked()
	if p.window != nil {
		p.grantLocked()
	}
	return true
}

// attend is what a receiver does after a result of its run while somebody waits.
func (r *receiver[T, R]) attend() {
	p := r.pool
	p.mu.Lock()
	p.settleReceiversLocked()
	p.offerRoomLocked()
	p.watchLocked()
	p.mu.Unlock()
}

// findResultLocked tells whether there is a result, and looks for one where they
// may be.
func (p *Pool[T, R]) findResultLocked() bool {
	p.settleLocked() // always, or results of a worker at a long task would be overtaken for ever
	if p.collector.n == 0 {
		p.recallReceiversLocked()
	}
	return p.collector.n > 0
}

// giveBackLocked gives back what r has received, and what it has not come to.
func (r *receiver[T, R]) giveBackLocked() {
	if r.job == nil {
		return
	}
	p := r.pool
	if r.run != nil {
		r.run.forget(r.run.first + r.i) // if what it was yielded to did not return
		p.recallReceiverLocked(r.run)
		p.receivers.removeLocked(r.run)
		n, _ := r.run.claimed()
		p.takenLocked(r.run.block, n)
		p.freeRunLocked(r.run)
	}
	p.freeLocked(r.job)
	r.job, r.run = nil, nil
}

// settleReceiversLocked notes what receivers have taken of their runs.
func (p *Pool[T, R]) settleReceiversLocked() {
	for _, r := range p.receivers.all {
		claimed, n := r.claimed()
		p.receivers.setRestLocked(r, n-claimed)
	}
}

// recallStuckReceiversLocked puts the results of receivers that have not come to
// any since it was called last back into the collector channel, or they would be
// overtaken by all that come later.
func (p *Pool[T, R]) recallStuckReceiversLocked() {
	for _, r := range p.receivers.all {
		claimed, n := r.claimed()
		if r.done == claimed {
			p.recallReceiverLocked(r)
		} else {
			r.done = claimed
			p.receivers.setRestLocked(r, n-claimed)
		}
	}
}

// recallReceiversLocked puts the results that receivers have not come to back
// into the collector channel.
func (p *Pool[T, R]) recallReceiversLocked() {
	for _, r := range p.receivers.all {
		p.recallReceiverLocked(r)
	}
}

func (p *Pool[T, R]) recallReceiverLocked(r *run[T, R]) {
	if first, end := r.takeBack(runLength); first < end {
		p.collector.putBackLocked(r, first, end)
	}
	p.receivers.setRestLocked(r, 0)
}

// leave ends the range, by whatever it ended.
func (r *receiver[T, R]) leave() {
	p := r.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	r.giveBackLocked()
	if p.collector.n > 0 {
		p.collector.offerLocked()
	}
	p.offerRoomLocked()
}

// answerLocked hands a job that has ended to whom its answer is for.
func (p *Pool[T, R]) answerLocked(j *job[T, R]) {
	j.ctx = nil
	if j.lane != nil {
		p.leaveLaneLocked(j)
	}
	switch {
	case j.to == nil && p.collects:
		if p.window == nil {
			p.collector.push(j)
		} else if p.window.finish(j, &p.collector.list); p.collector.n == 0 {
			return
		}
		p.collector.offerLocked()
	case j.to != nil && !j.abandoned:
		j.to.answerLocked(j)
	default:
		p.freeLocked(j)
	}
}

// undeliveredLocked returns how many results wait for a receiver, or for their
// turn.
func (p *Pool[T, R]) undeliveredLocked() int {
	n := p.collector.results() + p.receivers.rest
	if p.window != nil {
		n += p.window.finished
	}
	return n
}

// overfullLocked tells whether n results more are too many for the buffer. Every
// worker that is held back stands for one that has found no room. For those that
// are expected of runs, room is kept, unless it is needed for one that is there.
func (p *Pool[T, R]) overfullLocked(n int) bool {
	if p.undeliveredLocked()-p.held+p.runs.expected+n <= p.resultBuffer {
		return false
	}
	p.recallLocked()
	p.settleReceiversLocked()
	return p.undeliveredLocked()-p.held+n > p.resultBuffer
}

// hasRoomForResultLocked tells whether a worker that is held back can go on.
func (p *Pool[T, R]) hasRoomForResultLocked() bool { return !p.overfullLocked(1) }

func (p *Pool[T, R]) offerRoomLocked() {
	if p.held > 0 && (p.hasRoomForResultLocked() || p.oldestQueuedLocked() != nil) {
		p.room.offerLocked()
	}
}

// resultFuncFailed keeps the first panic or Goexit of the result function for
// Shutdown and Close.
func (p *Pool[T, R]) resultFuncFailed(j *job[T, R], err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.misdeed == nil {
		p.misdeed = fmt.Errorf("workpool: result function, given the result of task %d: %w", j.index, err)
	}
}
