package workpool

import (
	"errors"
	"math"
	"slices"
	"time"
)

const (
	// runLength is how many results a receiver takes at once at most.
	runLength = 32

	// maxRunLength is how many tasks a worker takes at once at most.
	maxRunLength = 1024

	// runTime is how long the run of a worker is to take at most. Where tasks
	// take so long that fewer than two fit, they are taken one by one.
	runTime = 50 * time.Microsecond

	// maxRun is how many tasks a run may have: its progress counts them in 32 bits.
	maxRun = 1 << 30
)

// inHand is what is known of a run that a worker or a receiver has in hand. It is
// guarded by the pool's mutex.
type inHand struct {
	began time.Duration // on the clock of the pool
	at    int           // its place in runs; -1 if it is in none
	done  int           // tasks that the pool knows to have ended; of a receiver, that it had claimed
	rest  int           // tasks not claimed when somebody looked last
}

// runs are those with a rest that workers, or receivers, have in hand, in the order
// in which they began.
type runs[T, R any] struct {
	all      []*run[T, R]
	rest     int // the sum of theirs
	accepted int // that of those whose tasks are accepted one by one
	expected int // that of those whose answers go to the collector
}

func (l *runs[T, R]) addLocked(r *run[T, R], rest int) {
	r.at = len(l.all)
	l.all = append(l.all, r)
	l.setRestLocked(r, rest)
}

func (l *runs[T, R]) removeLocked(r *run[T, R]) {
	if r.at < 0 {
		return
	}
	l.setRestLocked(r, 0)
	l.all = slices.Delete(l.all, r.at, r.at+1)
	for i, later := range l.all[r.at:] {
		later.at = r.at + i
	}
	r.at = -1
}

func (l *runs[T, R]) setRestLocked(r *run[T, R], rest int) {
	more := rest - r.rest
	r.rest = rest
	l.rest += more
	if r.accepts() {
		l.accepted += more
		if c, ok := r.owner.(*collector[T, R]); ok && c.pool.collects {
			l.expected += more
		}
	}
}

// takeRunLocked makes a run of n tasks at most, for a worker, of what j stands
// for, which was the first in the task channel. A task alone becomes a job of its
// own. The rest of a Map goes to the end of the channel, so that its tasks take
// turns with all others; other tasks keep their place.
func (p *Pool[T, R]) takeRunLocked(j *job[T, R], n int, now time.Duration) (taken *job[T, R], length int) {
	r := j.to.(*run[T, R])
	if r.accepts() {
		if _, collected := r.owner.(*collector[T, R]); collected {
			n = min(n, p.roomForRunLocked()+1)
		}
	}
	switch n = max(1, n); {
	case n >= r.n:
		n = r.n
		p.closeTailLocked(r)
		if n == 1 && r.accepts() {
			p.takeOutLocked(j)
			return j, 1
		}
	case n == 1 && r.accepts():
		rest := j
		j = p.newJobLocked()
		j.ctx, j.bound, j.positioned, j.attempt = rest.ctx, rest.bound, true, 1
		p.moveLocked(r, 0, j)
		r.shrinkLocked(1)
		p.tasks.pushFront(rest)
		return j, 1
	case r.accepts():
		rest := j
		r, j = p.partLocked(r, 0, n)
		rest.to.(*run[T, R]).shrinkLocked(n)
		p.tasks.pushFront(rest)
	default:
		p.requeueLocked(r, n, r.n)
		r.n = n
	}
	r.begin(n)
	r.began = now
	if n > 1 {
		p.runs.addLocked(r, n-1)
	}
	return j, n
}

// requeueLocked puts tasks of r, which a worker has in hand, back into the task
// channel.
func (p *Pool[T, R]) requeueLocked(r *run[T, R], from, to int) {
	_, j := p.partLocked(r, from, to-from)
	if r.accepts() {
		p.tasks.pushFront(j)
		return
	}
	r.owner.(*mapBatch[T, R]).partedLocked()
	p.countLocked(j)
	p.queueLocked(j)
}

// roomForRunLocked returns for how many results there is room, less those that
// are expected of other runs.
func (p *Pool[T, R]) roomForRunLocked() int {
	if !p.collects || !p.open {
		return math.MaxInt / 2
	}
	return p.resultBuffer - (p.undeliveredLocked() - p.held) - p.runs.expected
}

// handleRun calls the handler for one task of the run after the other. What is
// left of it when it returns is for leaveRunLocked.
func (w *worker[T, R]) handleRun(r *run[T, R]) {
	p := w.pool
	r.worker = w.id // known to others when they know of the first task that has ended
	j, handler, ctx := w.job, p.handler, w.contextFor(r.ctx)
	ended, accepts := r.ended, r.accepts()
	_, collected := r.owner.(*collector[T, R])
	keeps := !collected || p.collects
	tasks, values := r.tasks[r.first:], r.values[r.first:]
	for i, ok := 0, true; ok; i, ok = r.claim() {
		if i > 0 && accepts && p.ofWorkers.flag.Load() {
			w.attend(r)
		}
		value, err := handler(ctx, tasks[i])
		if err != nil {
			if err = asRetry(err); !accepts || retryIn(err) != nil {
				values[i], j.err = value, err
				return
			}
			r.errs[r.first+i] = err
		}
		if keeps {
			values[i] = value
		} else {
			w.tell(r, i, value, err)
		}
		if ended != nil && ended.Err() != nil {
			return
		}
	}
}

// tell calls the result function, if there is one, for a task of the run that has
// ended, and forgets the task.
func (w *worker[T, R]) tell(r *run[T, R], i int, value R, err error) {
	if w.pool.resultFunc != nil {
		w.job.index = r.index + uint64(i)
		w.phase = telling
		w.pool.resultFunc(Result[T, R]{Index: w.job.index, Task: r.tasks[r.first+i], Value: value, Err: err, Worker: int(w.id), Attempt: 1})
		w.phase = handling
	}
	var none T
	r.tasks[r.first+i] = none
	if err != nil {
		r.errs[r.first+i] = errTold
	}
}

// errTold stands for the error of a task that nobody gets any more.
var errTold = errors.New("workpool: failed")

// attend is what a worker does after a task of its run while somebody waits.
func (w *worker[T, R]) attend(r *run[T, R]) {
	p := w.pool
	p.mu.Lock()
	p.settleRunLocked(r)
	if p.waiting.n > 0 {
		p.grantLocked()
	}
	p.watchLocked()
	p.mu.Unlock()
}

// settleLocked ends what the workers have done of their runs.
func (p *Pool[T, R]) settleLocked() {
	for _, r := range p.runs.all {
		p.settleRunLocked(r)
	}
}

func (p *Pool[T, R]) settleRunLocked(r *run[T, R]) {
	claimed, n := r.claimed()
	if done := claimed - 1 - r.done; done > 0 {
		r.owner.doneLocked(r, done)
		r.done += done
	}
	if r.at >= 0 {
		p.runs.setRestLocked(r, n-claimed)
	}
}

// recallLocked puts what no worker has begun back into the task channel.
func (p *Pool[T, R]) recallLocked() {
	for _, r := range slices.Backward(p.runs.all) {
		if first, end := r.takeBack(maxRun); first < end {
			p.requeueLocked(r, first, end)
		}
		p.settleRunLocked(r)
	}
	p.collectLocked()
}

// leaveRunLocked leaves j, in hand of a worker, to stand for the last task of the
// run that it has come to, and the rest to others. A task that has not ended in
// the way of the others becomes a job of its own.
func (p *Pool[T, R]) leaveRunLocked(j *job[T, R]) {
	r := j.to.(*run[T, R])
	if first, end := r.takeBack(maxRun); first < end && (r.accepts() || r.ended.Err() == nil) {
		p.requeueLocked(r, first, end)
	}
	p.settleRunLocked(r)
	p.runs.removeLocked(r)
	_, r.n = r.claimed()
	at := r.first + r.done
	j.index = r.index + uint64(r.done)
	told := p.resultFunc == nil || r.owner.answerer() != nil || j.err == nil
	if r.accepts() && told && retryIn(j.err) == nil {
		if j.err == nil {
			j.err = r.errs[at]
		}
		return
	}
	p.takeOutLocked(j)
}

// takeOutLocked makes j, which stands for a run, a job of its own for the next task
// of the run.
func (p *Pool[T, R]) takeOutLocked(j *job[T, R]) {
	r := j.to.(*run[T, R])
	j.isRun = false
	p.moveLocked(r, r.done, j)
	p.freeRunLocked(r)
}

// moveLocked moves a task out of the block into j.
func (p *Pool[T, R]) moveLocked(r *run[T, R], i int, j *job[T, R]) {
	at := r.first + i
	j.to, j.index = r.owner.answerer(), r.index+uint64(i)
	j.task, j.value = r.tasks[at], r.values[at]
	if r.accepts() {
		r.forget(at)
		p.takenLocked(r.block, 1)
	}
}

// overdueLocked tells whether a run that began before then has a rest.
func (p *Pool[T, R]) overdueLocked(then time.Duration) bool {
	return slices.ContainsFunc(p.runs.all, func(r *run[T, R]) bool { return r.began < then })
}

// A pace is how long runs may be, by how long tasks take. It is taken of one
// worker at a time.
type pace[T, R any] struct {
	limit  int           // how many tasks a worker may take at once
	worker *worker[T, R] // whose tasks are timed, if any
	began  time.Duration // when it took them
	tasks  int           // how many these were
}

// updateLocked is called by a worker that comes for more.
func (c *pace[T, R]) updateLocked(w *worker[T, R], now time.Duration) {
	took := now - c.began
	switch {
	case c.worker == w:
		c.limit = min(maxRunLength, max(1, int(runTime*time.Duration(c.tasks)/max(1, took))))
	case c.worker != nil && took < 2*runTime:
		return
	case c.worker != nil: // it is at a long task
		c.limit = 1
	}
	c.worker, c.began, c.tasks = w, now, 1
}

// forgetLocked is called by a worker that waits, for a task or a receiver.
func (c *pace[T, R]) forgetLocked(w *worker[T, R]) {
	if c.worker == w {
		c.worker = nil
	}
}

// popLocked takes the next task out of the channel, and those behind it of the same
// run where that is worth it and takes nothing from anybody.
func (w *worker[T, R]) popLocked() *job[T, R] {
	p := w.pool
	var now time.Duration
	limit := 1
	alone := p.tasks.n == 1 && !p.tasks.startsWithMap() && len(p.runs.all) == 0
	timed := !p.special && !alone && w.staysLocked()
	if timed {
		now = time.Since(p.began)
		p.pace.updateLocked(w, now)
		if p.overdueLocked(now - 2*runTime) {
			p.recallLocked() // or the tasks behind a long one would be overtaken by all that come
		}
		limit = p.pace.limit
	}
	j := p.tasks.pop()
	length := 1
	if j.isRun {
		j, length = p.takeRunLocked(j, limit, now)
	}
	if timed && p.pace.worker == w {
		p.pace.tasks = length
	}
	return j
}
