package workpool

import (
	"cmp"
	linked "container/list"
	"context"
	"errors"
	"time"
)

// A batch is the tasks of one Map, Stream or Group, which share a context. It may also be a
// single task that a handler has submitted to its own pool and waits for.
type batch[T, R any] struct {
	pool   *Pool[T, R]
	ctx    *batchContext
	inside *handlerContext[T, R] // of the handler that made the call, or nil
	origin *origin
	at     time.Duration // when it began, on the observer's clock
	signal chan struct{} // capacity 1; tells whoever waits for the batch to look again

	// Guarded by the pool's mutex:
	done    <-chan struct{}  // of ctx; nil after its end has been noticed
	unbegun [2]unbegun[T, R] // tasks that no worker has begun: [0] not parked, [1] parked
	pending int              // tasks that were handed in and have not ended
	next    uint64           // the index of the next task to be accepted
	order   *order[T, R]     // of a Stream with WithOrdered
	place   *inPlace[T, R]   // of that handler while it runs, or nil
	element *linked.Element  // in the batches of place
	waits   int              // the number of callers that wait; while there are some, tasks may run in place
	feeds   bool             // one goroutine hands in the tasks, another one waits for them
	once    bool             // it is a single task
	over    bool             // all tasks have ended, and no more are accepted
}

// begin makes b a batch of a call with ctx.
func (b *batch[T, R]) begin(ctx context.Context, p *Pool[T, R], way Way) error {
	c, err := p.begin(ctx, way)
	if err != nil {
		return err
	}
	b.pool, b.ctx, b.signal = p, newBatchContext(ctx, &p.life), make(chan struct{}, 1)
	b.inside, b.origin, b.at, b.done = c.inside, c.origin, p.observer.now(), b.ctx.Done()
	p.lock()
	b.join(p.placeOfLocked(c.inside))
	p.unlock()
	return nil
}

// newJobLocked returns a job for one task, whose answer goes to to.
func (b *batch[T, R]) newJobLocked(to owner[T, R], task T, at time.Duration) *job[T, R] {
	j := b.pool.spare.get()
	j.origin, j.at = b.origin, at
	j.ctx, j.bound, j.to, j.task, j.batch = b.ctx, true, to, task, b
	return j
}

// handIn gets one task accepted. It enters the mutex, leaves it only while it waits for room, and
// returns with it held.
func (b *batch[T, R]) handIn(to owner[T, R], task T, how policy) error {
	p := b.pool
	var class class
	err := b.ended()
	if err == nil {
		class, err = p.classify(task)
	}
	at := p.observer.now()
	p.lock()
	if b.over {
		err = cmp.Or(err, errBatchOver)
	}
	if err != nil {
		p.count.refused++
		return err
	}
	j := b.newJobLocked(to, task, at)
	b.pending++
	p.classLocked(j, class)
	b.add(j)
	waits, err := p.offerLocked(j, b.inside, how)
	if waits {
		err = b.awaitRoomLocked(j)
	} else if err != nil {
		p.dismissLocked(j)
	}
	switch {
	case err != nil:
		b.endedLocked()
	case b.ctx.Context.Err() != nil: // ctx has ended since, and the other tasks may have been taken back already
		b.takeBackLocked(stdError(b.ctx.Context))
	}
	return err
}

// awaitRoomLocked waits until j, one of b, has been accepted. Meanwhile, tasks of b may run in
// place.
func (b *batch[T, R]) awaitRoomLocked(j *job[T, R]) error {
	p := b.pool
	if !b.feeds {
		p.awaitLocked(b)
	}
	err := p.awaitRoomLocked(b.ctx, j)
	p.lock()
	if !b.feeds {
		b.waits--
	}
	return err
}

// endedLocked notes that a task has ended, or was not accepted.
func (b *batch[T, R]) endedLocked() {
	b.pending--
	if b.pending == 0 {
		b.wake()
	}
}

func (b *batch[T, R]) wake() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// waitLocked waits until it is signalled, changed is closed, or timeout fires. If the context ends
// first, it takes back the tasks that no worker has begun.
func (b *batch[T, R]) waitLocked(changed <-chan struct{}, timeout <-chan time.Time) (timedOut bool) {
	p := b.pool
	done := b.done
	p.awaitLocked(b)
	p.unlock()
	var err error
	select {
	case <-b.signal:
	case <-changed:
	case <-done:
		err = contextError(b.ctx)
	case <-timeout:
		timedOut = true
	}
	p.lockAhead()
	b.waits--
	if err != nil {
		b.done = nil
		b.takeBackLocked(err)
	}
	return timedOut
}

// errBatchOver is the error of a task that is handed in after await has returned.
var errBatchOver = errors.New("workpool: Wait has returned")

// await waits until all tasks have ended. From then on no more are accepted.
func (b *batch[T, R]) await() {
	b.pool.lockAhead()
	for b.pending > 0 {
		b.waitLocked(nil, nil)
	}
	b.over = true
	b.pool.unlock()
	b.wake() // in case another goroutine waits too
}

// end releases what a batch holds.
func (b *batch[T, R]) end() {
	b.ctx.end()
	b.pool.lock()
	b.leave()
	b.pool.unlock()
}

// ended returns why the context of b has ended, or nil.
func (b *batch[T, R]) ended() error {
	if b.ctx.Err() == nil {
		return nil
	}
	return b.failure(nil)
}

// failure returns why not all tasks have succeeded. err is the first error of a task, or
// nil.
func (b *batch[T, R]) failure(err error) error {
	cause := context.Cause(b.ctx)
	switch caller := b.ctx.caller; {
	case cause == nil, errors.Is(cause, ErrAborted) && errors.Is(err, ErrAborted): // err may also have the error of the last attempt
		return err
	case caller.Err() != nil && errors.Is(cause, context.Cause(caller)):
		return contextError(caller)
	}
	return cause
}

// takeBackLocked ends the tasks that no worker has begun with err.
func (b *batch[T, R]) takeBackLocked(err error) {
	p := b.pool
	for l := range b.unbegun {
		var next *job[T, R]
		for j := b.unbegun[l].first; j != nil; j = next {
			next = j.nextInBatch
			switch {
			case j.waits():
				p.endQueuedLocked(j, err, cancelled)
			case j.state == inLine && j.submitter == nil: // the entry of a Map; other callers in line see ctx end themselves
				p.leaveLineLocked(j, false)
				p.turnAwayLocked(j)
				j.err = err
				j.to.answerLocked(j)
			}
		}
	}
}

// An unbegun is a list of jobs of one batch.
type unbegun[T, R any] struct{ first, last *job[T, R] }

// add adds j, which no worker has begun, to b.
func (b *batch[T, R]) add(j *job[T, R]) {
	j.batch, j.linked = b, 1
	if j.state == parked {
		j.linked = 2
	}
	l := &b.unbegun[j.linked-1]
	if j.prevInBatch = l.last; j.prevInBatch == nil {
		l.first = j
	} else {
		j.prevInBatch.nextInBatch = j
	}
	l.last = j
}

// inBatch reports whether j shares a context with other tasks.
func (j *job[T, R]) inBatch() bool { return j.batch != nil && !j.batch.once }

// begun removes j from its list, because a worker has begun it.
func (b *batch[T, R]) begun(j *job[T, R]) {
	if j.linked == 0 {
		return
	}
	l := &b.unbegun[j.linked-1]
	if j.prevInBatch == nil {
		l.first = j.nextInBatch
	} else {
		j.prevInBatch.nextInBatch = j.nextInBatch
	}
	if j.nextInBatch == nil {
		l.last = j.prevInBatch
	} else {
		j.nextInBatch.prevInBatch = j.prevInBatch
	}
	j.nextInBatch, j.prevInBatch, j.linked = nil, nil, 0
}

// remove removes j from b.
func (b *batch[T, R]) remove(j *job[T, R]) {
	b.begun(j)
	j.batch = nil
	if b.once {
		b.leave()
	}
}

// join adds b to place, the inPlace of the handler that made the call, unless place is nil.
func (b *batch[T, R]) join(place *inPlace[T, R]) {
	if place != nil {
		b.place, b.element = place, place.batches.PushBack(b)
	}
}

// leave undoes join.
func (b *batch[T, R]) leave() {
	if b.element != nil {
		b.place.batches.Remove(b.element)
		b.element, b.place = nil, nil
	}
}
