package workpool

import (
	"context"
	"fmt"
)

// A line has the callers that wait for room, each with its job. Whoever makes room accepts
// the first in line on its behalf, as the channels of the Go runtime do.
//
// Of each key, only the first task is in one of the lists. The others wait behind it.
type line[T, R any] struct {
	n     int               // the number of jobs that wait
	ready [lanes]list[T, R] // jobs that a free worker could take
	busy  [lanes]list[T, R] // jobs whose key is busy
	lanes bool              // WithOrdered: jobs for Results have lists of their own, since they also wait for receivers
}

// lanes is the number of lists: one for each level, and with WithOrdered a second one for jobs
// whose answers go to Results.
const lanes = 2 * levels

func (l *line[T, R]) lane(j *job[T, R]) level {
	if l.lanes && j.to == nil {
		return levels + j.level
	}
	return j.level
}

func (l *line[T, R]) push(j *job[T, R]) {
	if j.takable() {
		j.state = inLine
		l.ready[l.lane(j)].push(j)
	} else {
		j.state = inBusyLine
		l.busy[l.lane(j)].push(j)
	}
}

// remove takes j out of its list, if it is in one.
func (l *line[T, R]) remove(j *job[T, R]) {
	switch j.state {
	case inLine:
		l.ready[l.lane(j)].remove(j)
	case inBusyLine:
		l.busy[l.lane(j)].remove(j)
	}
	j.state = inKey
}

// takable reports whether a worker could take j if it were accepted: no other task has the turn
// of its key.
func (j *job[T, R]) takable() bool { return j.key == nil || j.key.turn == nil }

// hasRoomLocked reports whether j may be accepted.
func (p *Pool[T, R]) hasRoomLocked(j *job[T, R]) bool {
	if p.results.order != nil && j.to == nil && !p.holdsFewerLocked(p.results.order.n()+p.results.list.n) {
		return false
	}
	return p.tasks.hasRoom(j.level, j.takable(), p.crew.free())
}

// holdsFewerLocked reports whether n is less than the number of tasks that an open pool may
// hold. The comparison does not overflow with large options.
func (p *Pool[T, R]) holdsFewerLocked(n int) bool {
	return n < p.queueDepth || n-p.queueDepth < p.resultBuffer || n-p.queueDepth-p.resultBuffer < p.crew.size
}

// admitLocked accepts the callers in line for whom there is room. When one with a key is
// accepted, the next of its key may enter a list that was looked at before, so it looks
// again.
func (p *Pool[T, R]) admitLocked() {
	for again := true; again; {
		again = false
		p.line.each(func(waiting *list[T, R]) {
			for waiting.n > 0 && p.hasRoomLocked(waiting.first) {
				j := waiting.first
				again = again || j.key != nil
				p.leaveLineLocked(j, true)
				p.releaseSubmitterLocked(j, nil)
			}
		})
	}
}

// each calls f for each list.
func (l *line[T, R]) each(f func(waiting *list[T, R])) {
	for i := range l.ready {
		f(&l.ready[i])
		f(&l.busy[i])
	}
}

// lineUpLocked adds j to the line.
func (p *Pool[T, R]) lineUpLocked(j *job[T, R]) {
	p.line.n++
	switch k := j.key; {
	case k == nil:
		p.line.push(j)
	case k.head == nil:
		k.head, j.state = j, inKey
		p.placeHeadLocked(k)
	default:
		j.state = inKey
		k.after.push(j)
	}
}

// leaveLineLocked removes j from the line, and accepts it if admitted is true. The next one of
// its key takes its place.
func (p *Pool[T, R]) leaveLineLocked(j *job[T, R], admitted bool) {
	p.line.n--
	k := j.key
	first := k != nil && k.head == j
	switch {
	case first:
		k.head = nil
		p.line.remove(j)
	case k != nil:
		k.after.remove(j)
	default:
		p.line.remove(j)
	}
	j.state = outside
	if admitted {
		p.acceptLocked(j)
	}
	if first && k.after.n > 0 {
		k.head = k.after.pop()
		p.placeHeadLocked(k)
	}
}

// refuseLineLocked refuses everybody in line, because the pool is closing.
func (p *Pool[T, R]) refuseLineLocked() {
	for _, k := range p.keys.queue {
		for k.head != nil {
			p.refuseLocked(k.head)
		}
	}
	p.line.each(func(waiting *list[T, R]) {
		for waiting.n > 0 {
			p.refuseLocked(waiting.first)
		}
	})
}

// refuseLocked refuses j, which is in line.
func (p *Pool[T, R]) refuseLocked(j *job[T, R]) {
	p.leaveLineLocked(j, false)
	if j.submitter == nil { // a call
		j.err, j.attempt = ErrClosed, 1
		p.count.refused++
		p.dropLocked(j)
		j.to.answerLocked(j)
		return
	}
	p.releaseSubmitterLocked(j, ErrClosed)
	p.dismissLocked(j)
}

// dropLocked detaches a job that was not accepted from its batch, submitter and key.
func (p *Pool[T, R]) dropLocked(j *job[T, R]) {
	if j.batch != nil {
		j.batch.remove(j)
	}
	j.ctx, j.submitter = nil, nil
	p.unclassLocked(j)
}

// dismissLocked frees the job of a task that was not accepted.
func (p *Pool[T, R]) dismissLocked(j *job[T, R]) {
	p.count.refused++
	p.dropLocked(j)
	p.freeLocked(j)
}

// A submitter waits until its task has been accepted. In a handler, or with CallerRuns, it
// waits until the task has run in its place.
type submitter struct {
	waiter
	err error // why it was not accepted
}

// releaseSubmitterLocked lets the submitter of j go on, if one waits.
func (p *Pool[T, R]) releaseSubmitterLocked(j *job[T, R], err error) {
	if s := j.submitter; s != nil {
		j.submitter, s.err = nil, err
		p.woken.push(&s.waiter)
	}
}

// awaitRoomLocked leaves the mutex and waits until j has been accepted, or ctx ends. In a handler,
// or with CallerRuns, it waits until j has run in the place of the caller.
func (p *Pool[T, R]) awaitRoomLocked(ctx context.Context, j *job[T, R]) error {
	s, ok := p.submitters.Get().(*submitter)
	if !ok {
		s = &submitter{waiter: waiter{wake: make(chan struct{}, 1)}}
	}
	j.submitter = s
	p.unlock()
	err := p.awaitRoom(ctx, j, s)
	s.err = nil
	p.submitters.Put(s)
	return err
}

// awaitRoom waits until s, the submitter of j, is released or ctx ends.
func (p *Pool[T, R]) awaitRoom(ctx context.Context, j *job[T, R], s *submitter) error {
	select {
	case <-s.wake:
		return s.err
	case <-ctx.Done():
	}
	p.lock()
	if j.submitter != s || !j.isInLine() && !j.waits() { // j has just been accepted, or runs in the place of its submitter
		p.unlock()
		<-s.wake
		return s.err
	}
	if j.waits() { // accepted, in a handler
		j.submitter = nil
		if j.to == nil {
			j.batch.remove(j)
		}
		p.unlock()
		return nil
	}
	p.leaveLineLocked(j, false)
	p.dismissLocked(j)
	p.unlock()
	return p.gaveUp(contextError(ctx))
}

// gaveUp adds to err, of a context that has ended, that and why there was no room.
func (p *Pool[T, R]) gaveUp(err error) error {
	return fmt.Errorf("%w: gave up waiting for room: %s: %w", ErrQueueFull, p.load(), err)
}

// refused counts a task that was refused before anything was done with it.
func (p *Pool[T, R]) refused(err error) error {
	p.lock()
	p.count.refused++
	p.unlock()
	return err
}
