package workpool

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
)

// Submit hands task to the pool. Its answer comes from [Pool.Results], or
// goes to the function given with [WithResultFunc].
//
// It returns nil as soon as the task is accepted, waiting for room until ctx
// ends or the pool closes. An ended ctx is never accepted. ctx bounds this
// waiting only: the handler sees the values of ctx, not its end.
//
// Called with the context of a handler of the same pool, Submit does not wait
// for room: where there is none, the task runs at once in place of the
// calling one, and Submit returns when it has ended.
//
// It returns [ErrClosed] once the pool is closing, and otherwise an error
// that matches ctx.Err(); one that gave up waiting matches [ErrQueueFull] too,
// and says what the pool was busy with. [WithOverflow] sets what else it may do
// when there is no room.
func (p *Pool[T, R]) Submit(ctx context.Context, task T) error {
	if ctx == nil || ctx.Err() != nil {
		return endedContext(ctx)
	}
	if p.special {
		_, err := p.submit(ctx, ctx, task, false)
		return err
	}
	p.mu.lockYielding()
	if p.tasks.n+p.runs.accepted+p.granted+p.blocked >= p.queueDepth && !p.roomLocked() || !p.open {
		p.mu.Unlock()
		_, err := p.submit(ctx, ctx, task, false)
		return err
	}
	p.appendLocked(ctx, task)
	p.mu.Unlock()
	return nil
}

// submit is Submit where that may take more than to put the task into the
// channel. The context of the handler is made from handlerContext, and ends with
// that if it is bound.
func (p *Pool[T, R]) submit(ctx, handlerContext context.Context, task T, bound bool) (*job[T, R], error) {
	class, err := p.classify(task)
	if err != nil {
		return nil, err
	}
	inside := p.inside(ctx)
	p.mu.lockYielding()
	j := p.newJobLocked()
	j.ctx, j.task = handlerContext, task
	j.bound = bound
	p.joinLocked(j, class)
	ended, err := p.enterLocked(ctx, inside, j)
	p.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return j, p.gaveUp(err)
}

// TrySubmit hands task to the pool if there is room, and never waits. It
// returns [ErrQueueFull] or [ErrClosed] otherwise. The handler's context has
// no values but those of [WithContext].
func (p *Pool[T, R]) TrySubmit(task T) error {
	class, err := p.classify(task)
	if err != nil {
		return err
	}
	p.mu.lockYielding()
	defer p.mu.Unlock()
	if !p.open {
		return ErrClosed
	}
	if !p.special && p.roomLocked() {
		p.appendLocked(context.Background(), task)
		return nil
	}
	j := p.newJobLocked()
	j.ctx, j.task = context.Background(), task
	p.joinLocked(j, class)
	if !p.roomForLocked(j) {
		p.dismissLocked(j)
		return ErrQueueFull
	}
	p.acceptLocked(j)
	return nil
}

// SubmitCancel is like [Pool.Submit], and returns a function that cancels the
// task: a queued task ends with context.Canceled, without running, and a
// running one has its context cancelled. It may be called at any time, any
// number of times, by any goroutine; when the task has ended it does nothing.
// A queued task for whose result the buffer has no room ends when its turn comes.
// Whatever it does, the task yields its one [Result].
//
// The function is never nil. If it is never called nothing is lost but what the
// task itself takes. ctx, as in Submit, bounds the waiting for room alone.
func (p *Pool[T, R]) SubmitCancel(ctx context.Context, task T) (cancel func(), err error) {
	if err := endedContext(ctx); err != nil {
		return func() {}, err
	}
	values := ctx
	if h, ok := ctx.(handlerContext); ok {
		values = p.unwrap(h)
	}
	own, end := context.WithCancel(context.Background())
	bound := p.newBoundContext(own, values)
	j, err := p.submit(ctx, bound, task, true)
	if err != nil {
		end()
		return func() {}, err
	}
	return func() {
		end()
		p.mu.Lock()
		defer p.mu.Unlock()
		if j.ctx == context.Context(bound) && j.waits() && // else the job is at another task
			(!p.open || p.hasRoomForDroppedLocked()) { // else it keeps its place, and a worker finds that it has ended
			p.endQueuedLocked(j, context.Canceled)
		}
	}, nil
}

// SubmitAll submits every task of the sequence, in order, as [Pool.Submit]
// does, and returns how many were accepted. It stops at the first that is
// not, and returns its error. A panic of the sequence is returned as a
// [*PanicError].
func (p *Pool[T, R]) SubmitAll(ctx context.Context, tasks iter.Seq[T]) (accepted int, err error) {
	if tasks == nil {
		return 0, errNilTasks
	}
	if err := endedContext(ctx); err != nil {
		return 0, err
	}
	defer func() {
		if v := recover(); v != nil && err == nil { // else it is of a sequence that did not stop when it was told
			err = newPanicError(v)
		}
	}()
	var f feeder[T, R]
	if !p.special {
		p.mu.Lock()
		p.feedLocked(ctx, &f)
		p.mu.Unlock()
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			f.endLocked()
		}()
	}
	for task := range tasks {
		if ctx.Err() == nil && f.handIn(task) {
			if f.room == 0 || p.ofFeeders.flag.Load() {
				p.mu.Lock()
				p.comeForLocked()
				if f.room == 0 {
					f.giveLocked(maxBlockLength)
				}
				p.mu.Unlock()
			}
		} else if err = p.submitNext(ctx, &f, task); err != nil {
			break
		}
		accepted++
	}
	return accepted, err
}

// feedLocked makes f the feeder of a SubmitAll.
func (p *Pool[T, R]) feedLocked(ctx context.Context, f *feeder[T, R]) {
	f.beginLocked(p, &p.collector, func(first, n int) {
		r, j := p.newRunLocked(f.block, first, n, p.index)
		r.ctx, j.ctx = ctx, ctx
		p.index += uint64(n)
		p.tasks.push(j)
	})
	f.giveLocked(maxBlockLength)
	p.watchFeedersLocked()
}

// submitNext submits a task of SubmitAll for which its feeder has no room.
func (p *Pool[T, R]) submitNext(ctx context.Context, f *feeder[T, R], task T) error {
	if f.block != nil {
		p.mu.Lock()
		f.recallLocked()
		f.room = 0
		p.mu.Unlock()
	}
	if err := p.Submit(ctx, task); err != nil || f.block == nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f.giveLocked(maxBlockLength)
	return nil
}

// endedContext returns why ctx can't be submitted with, or nil.
func endedContext(ctx context.Context) error {
	if ctx == nil {
		return errNilContext
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	return nil
}

// roomLocked tells whether one more task may be accepted: there is room in
// the queue, or a worker has nothing in hand. What can't be taken yet may fill
// the queue, but leaves the workers to others.
func (p *Pool[T, R]) roomLocked() bool {
	if p.seemingRoomLocked() > 0 {
		return true
	}
	if p.runs.accepted == 0 && len(p.feeders) == 0 {
		return false
	}
	p.settleLocked()
	p.recallRoomLocked()
	return p.seemingRoomLocked() > 0
}

// seemingRoomLocked returns how many more tasks may be accepted, if no more of what
// workers have in hand has been begun than the pool knows of.
func (p *Pool[T, R]) seemingRoomLocked() int {
	if p.blocked > p.queueDepth {
		return 0
	}
	const many = math.MaxInt / 2 // so that no sum overflows
	return min(p.queueDepth, many) - p.blocked + p.freeWorkersLocked() - (p.tasks.n + p.runs.accepted + p.granted)
}

// roomForLocked tells whether j may be accepted, in a pool of any kind.
func (p *Pool[T, R]) roomForLocked(j *job[T, R]) bool {
	if !p.special {
		return p.roomLocked()
	}
	if p.window != nil && !p.hasSpaceLocked(p.window.n()+p.collector.n) {
		return false
	}
	n, granted, blocked := p.usageLocked(j.level)
	others := p.tasks.n - n + p.granted - granted
	over := n + granted - max(0, p.freeWorkersLocked()-others)
	if over < 0 && !j.isBehindLocked() {
		return blocked <= p.queueDepth
	}
	return blocked+max(0, over) < p.queueDepth
}

// hasSpaceLocked tells whether n tasks are fewer than an open pool may hold. It
// compares in a way that large options can't overflow.
func (p *Pool[T, R]) hasSpaceLocked(n int) bool {
	return n < p.queueDepth || n-p.queueDepth < p.resultBuffer || n-p.queueDepth-p.resultBuffer < p.size
}

// capacityLocked returns how many tasks an open pool may hold, or less if that is
// very many.
func (p *Pool[T, R]) capacityLocked() int {
	const many = 1 << 20
	return min(p.queueDepth, many) + min(p.resultBuffer, many) + p.size
}

func (p *Pool[T, R]) freeWorkersLocked() int {
	if p.paused {
		return 0
	}
	return p.free
}

// countLocked makes j an accepted task.
func (p *Pool[T, R]) countLocked(j *job[T, R]) {
	p.collectLocked() // these come first
	p.submitted++
	j.attempt = 1
	if !j.positioned {
		j.index = p.index
		p.index++
	}
	if p.window != nil && j.to == nil {
		p.window.push(j)
	}
}

// acceptLocked makes j an accepted task that waits for a worker, or behind
// another of its key.
func (p *Pool[T, R]) acceptLocked(j *job[T, R]) {
	p.countLocked(j)
	if j.isBehindLocked() {
		p.queueBehindLocked(j)
		return
	}
	j.takeTurnLocked()
	if j.promised {
		p.promised++
		p.queueLocked(j)
		return
	}
	p.readyLocked(j)
}

// readyLocked sees to it that an accepted task runs as soon as it can. One that
// a handler waits for, or that stands before such a one, doesn't wait for a
// worker: they might all be waiting for it.
func (p *Pool[T, R]) readyLocked(j *job[T, R]) {
	switch {
	case j.inside != nil:
		p.startNestedLocked(j.inside.id, j)
	case j.lane != nil && j.lane.awaited > 0:
		p.startNestedLocked(j.lane.inside.id, j)
	default:
		p.queueLocked(j)
	}
}

// queueLocked puts a task into the task channel.
func (p *Pool[T, R]) queueLocked(j *job[T, R]) {
	p.collectLocked() // these come first
	p.tasks.push(j)
	if !p.paused {
		p.offerTaskLocked()
	}
	if p.special {
		p.noteTaskLocked()
	}
}

// noteTaskLocked does what else is to be done when there is a task to take.
func (p *Pool[T, R]) noteTaskLocked() {
	if p.elasticity != nil {
		p.startNeededLocked()
	}
	if p.window != nil {
		p.offerRoomLocked()
	}
}

// unqueueLocked takes j out of the task channel.
func (p *Pool[T, R]) unqueueLocked(j *job[T, R]) {
	p.tasks.remove(j)
	if j.isRun {
		p.closeTailLocked(j.to.(*run[T, R]))
	}
	if j.promised {
		j.promised = false
		p.promised--
	}
}

// dismissLocked frees the job of a task that was not accepted.
func (p *Pool[T, R]) dismissLocked(j *job[T, R]) {
	p.leaveLaneLocked(j)
	j.ctx = nil
	p.freeLocked(j)
}

// enterLocked gets a task accepted: at once if there is room; inside a
// handler by running it in place of the handler's task, and then it returns a
// channel that is closed when the task has ended; else after waiting for room.
// An error frees the job.
func (p *Pool[T, R]) enterLocked(ctx context.Context, inside *worker[T, R], j *job[T, R]) (ended <-chan struct{}, err error) {
	switch {
	case !p.open:
		err = ErrClosed
	case inside != nil && j.to != nil:
		ended = p.enterInsideLocked(inside, j)
	case p.roomForLocked(j):
		p.acceptLocked(j)
	default:
		var done bool
		if j.to == nil {
			ended, done, err = p.overflowLocked(j)
		}
		if done {
			break
		}
		if inside != nil {
			ended = p.runInPlaceLocked(inside, j)
		} else if err = p.awaitRoomLocked(ctx, j); err == nil {
			p.acceptLocked(j)
		}
	}
	if err != nil {
		p.dismissLocked(j)
	}
	return ended, err
}

// enterInsideLocked accepts a task that a handler waits for. It may only be
// queued if a worker is free to take it, and that one has to: all others might
// wait in the same way. A key that is busy with those that wait for this
// handler is no obstacle.
func (p *Pool[T, R]) enterInsideLocked(inside *worker[T, R], j *job[T, R]) <-chan struct{} {
	if j.isBehindLocked() && inside.isAwaitedByLocked(j.lane.current()) {
		j.lane.claim(j)
	}
	j.inside = inside
	if p.runs.accepted > 0 { // what a worker has claimed does not wait for one that is free
		p.settleLocked()
	}
	p.recallRoomLocked()
	if !j.isBehindLocked() && p.tasks.n+p.runs.accepted+p.granted < p.freeWorkersLocked() {
		j.promised, j.level = true, urgent
		p.acceptLocked(j)
		return nil
	}
	return p.runInPlaceLocked(inside, j)
}

// runInPlaceLocked accepts a task for which there is no room from a handler,
// and runs it in its place unless its key is busy.
func (p *Pool[T, R]) runInPlaceLocked(inside *worker[T, R], j *job[T, R]) <-chan struct{} {
	p.countLocked(j)
	if j.isBehindLocked() {
		p.queueBehindLocked(j)
		return nil
	}
	j.takeTurnLocked()
	w := p.startNestedLocked(inside.id, j)
	w.outer = inside
	return w.nested
}

// awaitRoomLocked waits in line for room, without the mutex.
func (p *Pool[T, R]) awaitRoomLocked(ctx context.Context, j *job[T, R]) error {
	if j.signal == nil {
		j.signal = make(chan struct{}, 1)
	}
	j.place = inLine
	p.waiting.push(j)
	p.watchLocked()
	p.mu.Unlock()
	var err error
	select {
	case <-j.signal:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		err = contextError(ctx)
	}
	p.mu.Lock()
	switch j.place {
	case inLine:
		p.waiting.remove(j)
	case granted:
		p.countGrantedLocked(j, -1)
	}
	j.place = elsewhere
	select { // sent after ctx had ended
	case <-j.signal:
	default:
	}
	switch {
	case err != nil:
		p.grantLocked() // the room that it leaves is the next one's
	case !p.open:
		err = ErrClosed
	}
	return err
}

// grantLocked gives the room that there is to those who wait for it.
func (p *Pool[T, R]) grantLocked() {
	for j := p.waiting.first; j != nil; {
		next := j.next
		if p.roomForLocked(j) {
			p.waiting.remove(j)
			j.place = granted
			p.countGrantedLocked(j, 1)
			j.signal <- struct{}{}
		} else if p.priorityOf == nil && !j.isBehindLocked() {
			return // there is no more room for another one
		}
		j = next
	}
}

// refuseLocked turns away all who wait for room.
func (p *Pool[T, R]) refuseLocked() {
	for p.waiting.n > 0 {
		j := p.waiting.pop()
		j.place = elsewhere
		j.signal <- struct{}{}
	}
}

// gaveUp says in the error of a context that ended why it waited in vain. It
// returns any other error as it is.
func (p *Pool[T, R]) gaveUp(err error) error {
	if err == nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrQueueFull) {
		return err
	}
	return fmt.Errorf("%w: gave up waiting for room: %s: %w", ErrQueueFull, p.load(), err)
}

// load describes what keeps the pool busy.
func (p *Pool[T, R]) load() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.collectLocked()
	p.settleLocked()
	load := fmt.Sprintf("%d tasks queued, %d running, %d of %d workers wait for a receiver of their results",
		p.queuedLocked(), p.running, p.held, p.size)
	if p.parked.n > 0 {
		load += fmt.Sprintf(", %d of the queued wait for their next attempt", p.parked.n)
	}
	if p.paused {
		load += ", paused"
	}
	return load
}
