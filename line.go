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
	n       int               // the number of jobs that wait
	lists   [lanes]list[T, R] // in the order in which room is given to them; noLane stays empty
	ordered bool              // WithOrdered: jobs for Results have lanes of their own, since they also wait for receivers
}

// A lane says which list of the line a job is in.
type lane uint8

const (
	noLane lane = 0 // none: it waits behind another one of its key, or its key is full

	// For each level there are four: for the tasks of Results with WithOrdered and all others, and
	// for those that a free worker could take and those whose key is busy.
	lanes = 1 + 4*lane(levels)
)

// laneOf returns the lane that j belongs in, unless it waits for its key.
func (l *line[T, R]) laneOf(j *job[T, R]) lane {
	lane := 1 + 4*[levels]lane{high: 0, normal: 1, low: 2}[j.level]
	if l.ordered && j.to == nil {
		lane += 2
	}
	if !j.takable() {
		lane++
	}
	return lane
}

// move puts j, which is in line, at the end of a lane, unless it is in it.
func (l *line[T, R]) move(j *job[T, R], to lane) {
	if j.lane == to {
		return
	}
	if j.lane != noLane {
		l.lists[j.lane].remove(j)
	}
	if j.lane = to; to != noLane {
		l.lists[to].push(j)
	}
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
		for i := range p.line.lists {
			for waiting := &p.line.lists[i]; waiting.n > 0 && p.hasRoomLocked(waiting.first); {
				j := waiting.first
				again = again || j.key != nil
				p.leaveLineLocked(j, true)
				p.releaseSubmitterLocked(j, nil)
			}
		}
	}
}

// lineUpLocked adds j to the line.
func (p *Pool[T, R]) lineUpLocked(j *job[T, R]) {
	p.line.n++
	j.state = inLine
	switch k := j.key; {
	case k == nil:
		p.line.move(j, p.line.laneOf(j))
	case k.head == nil:
		k.head = j
		p.placeHeadLocked(k)
	default:
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
		fallthrough
	case k == nil:
		p.line.move(j, noLane)
	default:
		k.after.remove(j)
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
	for i := range p.line.lists {
		for waiting := &p.line.lists[i]; waiting.n > 0; {
			p.refuseLocked(waiting.first)
		}
	}
}

// refuseLocked refuses j, which is in line.
func (p *Pool[T, R]) refuseLocked(j *job[T, R]) {
	p.leaveLineLocked(j, false)
	if j.submitter == nil { // of a call, or the entry of a Map: its owner is told
		j.err, j.attempt = ErrClosed, 1
		p.turnAwayLocked(j)
		j.to.answerLocked(j)
		return
	}
	p.releaseSubmitterLocked(j, ErrClosed)
	p.dismissLocked(j)
}

// turnAwayLocked counts a task that was not accepted, and detaches its job from its batch,
// submitter and key.
func (p *Pool[T, R]) turnAwayLocked(j *job[T, R]) {
	p.count.refused++
	if j.batch != nil {
		j.batch.remove(j)
	}
	j.ctx, j.submitter = nil, nil
	p.unclassLocked(j)
}

// dismissLocked frees the job of a task that was not accepted.
func (p *Pool[T, R]) dismissLocked(j *job[T, R]) {
	p.turnAwayLocked(j)
	p.freeLocked(j)
}

// A submitter waits until its task has been accepted. In a handler, or with CallerRuns, it
// waits until the task has run in its place.
type submitter struct {
	waiter
	err error // why it was not accepted
}

// releaseSubmitterLocked lets the submitter of j go on, if one waits. If that is a handler, it no
// longer waits for j.
func (p *Pool[T, R]) releaseSubmitterLocked(j *job[T, R], err error) {
	s := j.submitter
	if s == nil {
		return
	}
	j.submitter, s.err = nil, err
	p.woken.push(&s.waiter)
	if j.to == nil && j.batch != nil {
		j.batch.remove(j)
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
	switch {
	case j.submitter != s: // j has just been accepted
	case j.state == inLine:
		ofKey := j.ofKey()
		p.leaveLineLocked(j, false)
		p.dismissLocked(j)
		p.unlock()
		return p.gaveUp(contextError(ctx), ofKey)
	case j.waits(): // accepted, in a handler; else it runs in the place of the submitter
		p.releaseSubmitterLocked(j, nil)
	}
	p.unlock()
	<-s.wake
	return s.err
}

// gaveUp adds to err, of a context that has ended, that and why there was no room for a task.
// ofKey is how many tasks of its key had been accepted and not ended.
func (p *Pool[T, R]) gaveUp(err error, ofKey int) error {
	load := p.load()
	if ofKey > 0 {
		load += fmt.Sprintf("; of the same key: %d", ofKey)
	}
	return fmt.Errorf("%w: gave up waiting for room: %s: %w", ErrQueueFull, load, err)
}

// refused counts a task that was refused before anything was done with it. If the pool is closed,
// it adds that to err.
func (p *Pool[T, R]) refused(err error) error {
	p.lock()
	p.count.refused++
	open := p.life.open
	p.unlock()
	if open || err == ErrClosed { //nolint:errorlint // our own
		return err
	}
	return after(ErrClosed, err)
}
