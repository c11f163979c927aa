package workpool

import (
	"slices"
	"time"
)

const (
	// runLength is how many jobs a goroutine takes at once at most.
	runLength = 32

	// shareLength is how many tasks of a Map a worker takes at once at most.
	shareLength = 1024

	// blockLength is how many tasks of a Stream lie side by side.
	blockLength = 64

	// runTime is how long the run of a worker is to take at most. Where tasks
	// take so long that fewer than two fit, they are taken one by one.
	runTime = 10 * time.Microsecond
)

// A run is a number of jobs that a worker or a receiver has taken at once and
// goes through one by one, so that it needs the mutex once for all of them.
//
// Nobody has to wait for that. What the owner has not claimed can be taken back:
// an idle worker does, a receiver who finds nothing else, and all that is about
// queued tasks, such as a pause or an abort. What a worker has done of its run is
// ended, as far as the pool is concerned, when somebody looks; those who wait for
// it have the owner look after each job, see watchLocked.
type run[T, R any] struct {
	progress

	// Of the owner alone:
	at   int // the job in hand
	left int // jobs to claim, if none was taken back

	jobs [runLength]*job[T, R] // written under the mutex, read by the owner where claimed
	ends [runLength]end        // written by a worker before its next claim

	// Guarded by the mutex:
	later, earlier *run[T, R] // in the list of those that have a rest
	listed         bool
	active         bool          // the owner has not yet come back for more
	began          time.Duration // on the clock of the pool
	ended          int           // jobs that the pool knows to have ended; of a receiver, that it had claimed
	rest           int           // jobs not claimed when somebody looked last
}

// An end is how a job ended of which the pool does not know yet.
type end uint8

const (
	collected end = iota // it succeeded, and is for Results
	answered             // it succeeded, and the caller of Do has it already
	dropped              // it succeeded, and nobody gets it
	failed               // it failed, and nobody gets it
	different            // see the job
)

// next claims the next job. It returns nil if there is none left.
func (r *run[T, R]) next() *job[T, R] {
	i, ok := r.claim()
	if !ok {
		r.left = 0
		return nil
	}
	r.at = i
	r.left--
	return r.jobs[i]
}

// A runList holds runs in the order in which they began.
type runList[T, R any] struct {
	first, last *run[T, R]
	rest        int // the sum of theirs
}

// beginLocked makes a run of its first n jobs, one of which is claimed.
func (l *runList[T, R]) beginLocked(r *run[T, R], n int) {
	r.at, r.left, r.ended, r.rest = 0, n-1, 0, n-1
	r.begin(n)
	r.active, r.listed = true, true
	r.earlier, r.later = l.last, nil
	if l.last == nil {
		l.first = r
	} else {
		l.last.later = r
	}
	l.last = r
	l.rest += r.rest
}

// setRestLocked notes how many jobs are not claimed.
func (l *runList[T, R]) setRestLocked(r *run[T, R], rest int) {
	l.rest += rest - r.rest
	r.rest = rest
	if rest > 0 || !r.listed {
		return
	}
	r.listed = false
	if r.earlier == nil {
		l.first = r.later
	} else {
		r.earlier.later = r.later
	}
	if r.later == nil {
		l.last = r.earlier
	} else {
		r.later.earlier = r.earlier
	}
	r.later, r.earlier = nil, nil
}

// settleLocked ends what the workers have done of their runs.
func (p *Pool[T, R]) settleLocked() {
	for r := p.runs.first; r != nil; {
		later := r.later
		p.settleRunLocked(r)
		r = later
	}
}

func (p *Pool[T, R]) settleRunLocked(r *run[T, R]) {
	claimed, n := r.claimed()
	if r.ended < claimed-1 {
		p.endInRunLocked(r, claimed-1)
	}
	p.runs.setRestLocked(r, n-claimed)
}

// endInRunLocked ends the first n jobs of r.
func (p *Pool[T, R]) endInRunLocked(r *run[T, R], n int) {
	for r.ended < n {
		i := r.ended
		for r.ended < n && r.ends[r.ended] == collected {
			r.ended++
		}
		if i < r.ended { // these are still linked to one another
			p.succeeded += uint64(r.ended - i)
			p.collector.pushLinked(r.jobs[i], r.jobs[r.ended-1], r.ended-i)
			p.collector.offerLocked()
			continue
		}
		j := r.jobs[i]
		r.ended++
		if e := r.ends[i]; e == failed || e == different && j.err != nil {
			p.failed++
		} else {
			p.succeeded++
		}
		switch r.ends[i] {
		case dropped, failed:
			p.freeLocked(j)
		case different:
			p.answerLocked(j)
		}
	}
}

// recallLocked puts what no worker has begun back into the task channel.
func (p *Pool[T, R]) recallLocked() {
	for r := p.runs.last; r != nil; {
		earlier := r.earlier
		p.recallRunLocked(r)
		r = earlier
	}
	p.recallSharesLocked()
	p.collectLocked()
}

func (p *Pool[T, R]) recallRunLocked(r *run[T, R]) {
	first, end := r.takeBack(runLength)
	for _, j := range slices.Backward(r.jobs[first:end]) {
		p.tasks.pushFront(j)
	}
	p.settleRunLocked(r)
}

// settleReceiversLocked notes what receivers have taken of their runs.
func (p *Pool[T, R]) settleReceiversLocked() {
	for r := p.receivers.first; r != nil; {
		later := r.later
		claimed, n := r.claimed()
		p.receivers.setRestLocked(r, n-claimed)
		r = later
	}
}

// recallStuckReceiversLocked puts the results of receivers that have not come to
// any since it was called last back into the collector channel, or they would be
// overtaken by all that come later.
func (p *Pool[T, R]) recallStuckReceiversLocked() {
	for r := p.receivers.last; r != nil; {
		earlier := r.earlier
		claimed, n := r.claimed()
		if r.ended == claimed {
			p.recallReceiverLocked(r)
		} else {
			r.ended = claimed
			p.receivers.setRestLocked(r, n-claimed)
		}
		r = earlier
	}
}

// recallReceiversLocked puts the results that receivers have not come to back
// into the collector channel.
func (p *Pool[T, R]) recallReceiversLocked() {
	for r := p.receivers.last; r != nil; {
		earlier := r.earlier
		p.recallReceiverLocked(r)
		r = earlier
	}
}

func (p *Pool[T, R]) recallReceiverLocked(r *run[T, R]) {
	first, end := r.takeBack(runLength)
	for _, j := range slices.Backward(r.jobs[first:end]) {
		p.collector.pushFront(j)
	}
	p.receivers.setRestLocked(r, 0)
}

// watchLocked sees to it that goroutines at work on their runs look after each
// job while somebody waits for what they do, and only then. It is called when
// somebody begins or ceases to wait and when a run begins.
//
// The one side sets attention and then looks how far the runs are, the other
// claims and then looks for attention: so one of them sees the other.
func (p *Pool[T, R]) watchLocked() {
	p.watchFeedersLocked()
	if !p.watched && p.wantsLocked() {
		p.watched = true
		p.attention.Store(true)
		p.settleLocked()
		p.settleReceiversLocked()
		p.settleSharesLocked()
		p.wakeLocked()
	}
	if p.watched && !p.wantsLocked() {
		p.watched = false
		p.attention.Store(false)
	}
}

// wantsLocked tells whether somebody waits who has not been woken.
func (p *Pool[T, R]) wantsLocked() bool {
	if p.runs.first == nil && p.receivers.first == nil && p.shares.accepted == 0 {
		return false
	}
	return p.waiting.n > 0 || p.awaited > 0 || p.collector.wantsLocked() || p.room.wantsLocked()
}

// wakeLocked wakes those whom what runs have come to lets go on. Whoever waits for
// a result has been woken when it was handed in.
func (p *Pool[T, R]) wakeLocked() {
	if p.waiting.n > 0 {
		p.grantLocked()
	}
	p.offerRoomLocked()
}

// attend is what a worker does after a job of its run while somebody waits.
func (w *worker[T, R]) attend() {
	p := w.pool
	p.mu.Lock()
	p.settleRunLocked(w.run)
	p.wakeLocked()
	p.watchLocked()
	p.mu.Unlock()
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
		c.limit = min(shareLength, max(1, int(runTime*time.Duration(c.tasks)/max(1, took))))
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

// popLocked takes the next task out of the channel, and the ones behind it for a
// run of w where that is worth it and takes nothing from anybody.
func (w *worker[T, R]) popLocked() *job[T, R] {
	p := w.pool
	alone := p.tasks.n == 1 && !p.tasks.startsWithShare() && p.runs.first == nil && len(p.shares.all) == 0
	if p.special || alone {
		return p.tasks.pop()
	}
	if !w.staysLocked() {
		j := p.tasks.pop()
		if j.kind == shared {
			p.takeShareLocked(j, 1, 0)
		}
		return j
	}
	now := time.Since(p.began)
	p.pace.updateLocked(w, now)
	if p.overdueLocked(now - 2*runTime) {
		p.recallLocked() // or the tasks behind a long one would be overtaken by all that come
	}
	j := p.tasks.pop()
	length := 1
	switch {
	case j.kind == shared:
		length = p.takeShareLocked(j, p.pace.limit, now)
	case j.kind == plain && p.tasks.isNormal():
		length = w.takeRunLocked(j, min(runLength, p.pace.limit, p.tasks.n+1, p.roomForRunLocked()+1), now)
	}
	if p.pace.worker == w {
		p.pace.tasks = length
	}
	return j
}

// overdueLocked tells whether a run or share that began before then has a rest.
func (p *Pool[T, R]) overdueLocked(then time.Duration) bool {
	if r := p.runs.first; r != nil && r.began < then {
		return true
	}
	return slices.ContainsFunc(p.shares.all, func(s *share[T, R]) bool { return s.began < then })
}

// roomForRunLocked returns for how many results there is room, less those that
// are expected of other runs.
func (p *Pool[T, R]) roomForRunLocked() int {
	if !p.collects || !p.open {
		return runLength
	}
	return p.resultBuffer - (p.undeliveredLocked() - p.held) - p.runs.rest
}

// takeRunLocked makes j and the next tasks a run of w, of n tasks at most. It
// returns how many these are.
func (w *worker[T, R]) takeRunLocked(j *job[T, R], n int, now time.Duration) (length int) {
	if n < 2 {
		return 1
	}
	p := w.pool
	if w.run == nil {
		w.run = new(run[T, R])
	}
	r := w.run
	r.jobs[0] = j
	length = 1 + p.tasks.popPlain(r.jobs[1:n])
	if length == 1 {
		return 1
	}
	clear(r.ends[:length])
	r.began = now
	p.runs.beginLocked(r, length)
	p.watchLocked()
	return length
}
