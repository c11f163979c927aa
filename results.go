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
	var j *job[T, R] // the one before
	for {
		j = p.receive(j)
		if j == nil {
			return
		}
		more := yield(j.result())
		j.reset()
		if !more {
			p.mu.Lock()
			p.keepLocked(j)
			p.mu.Unlock()
			return
		}
	}
}

// receive gives back the job that was received before, if any, and waits for
// the next one. It returns nil at the end of all results.
func (p *Pool[T, R]) receive(before *job[T, R]) *job[T, R] {
	p.mu.Lock()
	if before != nil {
		p.keepLocked(before)
	}
	for p.collector.n == 0 {
		if !p.open && p.quietLocked() {
			p.mu.Unlock()
			return nil
		}
		p.collector.waitLocked(&p.mu)
	}
	j := p.collector.pop()
	if p.collector.n > 0 {
		p.collector.offerLocked()
	}
	p.offerRoomLocked()
	if p.window != nil {
		p.grantLocked()
	}
	p.mu.Unlock()
	return j
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
	if p.window == nil {
		return p.collector.n
	}
	return p.collector.n + p.window.finished
}

// overfullLocked tells whether a result has just been added for which there
// was no room: every worker that is held back stands for one such result.
func (p *Pool[T, R]) overfullLocked() bool { return p.undeliveredLocked()-p.held > p.resultBuffer }

// hasRoomForResultLocked tells whether a worker that is held back can go on.
func (p *Pool[T, R]) hasRoomForResultLocked() bool {
	return p.undeliveredLocked()-p.held < p.resultBuffer
}

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
