package workpool

import (
	"context"
	"fmt"
)

// A line is the callers that wait for room, each with its job. Whoever makes room
// accepts the first in line on its behalf, as the channels of the Go runtime do.
//
// Of the tasks of one key only the first is in one of the lists; the others wait behind it.
type line[T, R any] struct {
	n     int               // all that wait
	ready [lanes]list[T, R] // those that a free worker could take
	busy  [lanes]list[T, R] // those whose key is busy
	lanes bool              // with WithOrdered, tasks for Results wait apart from others, since they also wait for receivers
}

// lanes is how many lists there are for one: of each level, and of each for Results with
// WithOrdered.
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

// takable reports whether a worker could take j if it were accepted: no other task of
// its key has its turn.
func (j *job[T, R]) takable() bool { return j.key == nil || j.key.turn == nil }

// hasRoomLocked reports whether j may be accepted.
func (p *Pool[T, R]) hasRoomLocked(j *job[T, R]) bool {
	if p.results.order != nil && j.to == nil && !p.holdsFewerLocked(p.results.order.n()+p.results.list.n) {
		return false
	}
	return p.tasks.hasRoom(j.level, j.takable(), p.crew.free())
}

// holdsFewerLocked reports whether n tasks are fewer than an open pool may hold. It
// compares in a way that large options can't overflow.
func (p *Pool[T, R]) holdsFewerLocked(n int) bool {
	return n < p.queueDepth || n-p.queueDepth < p.resultBuffer || n-p.queueDepth-p.resultBuffer < p.crew.size
}

// admitLocked accepts those in line for whom there is room. Whoever follows one of the same
// key may stand in a list that has been looked at before.
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

// leaveLineLocked takes j out of the line, and accepts it if it is admitted. The next
// one of its key comes in its place.
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

// refuseLineLocked turns away all in line, since the pool is closing.
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

// refuseLocked turns away one in line.
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

// dropLocked ends what a job that was not accepted has to do with the pool.
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

// A submitter waits until its task has been accepted; or, in a handler or with CallerRuns, until
// that has run in its place.
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

// awaitRoom waits as s, the submitter of j.
func (p *Pool[T, R]) awaitRoom(ctx context.Context, j *job[T, R], s *submitter) error {
	select {
	case <-s.wake:
		return s.err
	case <-ctx.Done():
	}
	p.lock()
	if j.submitter != s || !j.isInLine() && !j.waits() { // it was accepted in this moment, or runs in the place of its submitter
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

// gaveUp says in the error of a context that ended why it waited in vain.
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
