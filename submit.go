package workpool

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
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
// and says what the pool was busy with.
func (p *Pool[T, R]) Submit(ctx context.Context, task T) error {
	if ctx == nil || ctx.Err() != nil {
		return endedContext(ctx)
	}
	p.mu.Lock()
	if !p.open || !p.roomLocked() {
		p.mu.Unlock()
		return p.submitWithoutRoom(ctx, task)
	}
	j := p.newJobLocked()
	j.ctx, j.task = ctx, task
	p.acceptLocked(j)
	ahead := p.tasks.n > p.queueDepth
	p.mu.Unlock()
	if ahead {
		runtime.Gosched() // for the workers that the task counts on
	}
	return nil
}

func (p *Pool[T, R]) submitWithoutRoom(ctx context.Context, task T) error {
	inside := p.inside(ctx)
	p.mu.Lock()
	j := p.newJobLocked()
	j.ctx, j.task = ctx, task
	ended, err := p.enterLocked(ctx, inside, j)
	p.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return p.gaveUp(err)
}

// TrySubmit hands task to the pool if there is room, and never waits. It
// returns [ErrQueueFull] or [ErrClosed] otherwise. The handler's context has
// no values but those of [WithContext].
func (p *Pool[T, R]) TrySubmit(task T) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return ErrClosed
	}
	if !p.roomLocked() {
		return ErrQueueFull
	}
	j := p.newJobLocked()
	j.ctx, j.task = context.Background(), task
	p.acceptLocked(j)
	return nil
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
		if v := recover(); v != nil {
			err = newPanicError(v)
		}
	}()
	for task := range tasks {
		if err := p.Submit(ctx, task); err != nil {
			return accepted, err
		}
		accepted++
	}
	return accepted, nil
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
// the queue, or a worker has nothing in hand.
func (p *Pool[T, R]) roomLocked() bool {
	return p.tasks.n+p.granted-p.freeWorkersLocked() < p.queueDepth
}

func (p *Pool[T, R]) freeWorkersLocked() int {
	if p.paused {
		return 0
	}
	return p.free
}

// acceptLocked puts a task into the task channel.
func (p *Pool[T, R]) acceptLocked(j *job[T, R]) {
	p.countLocked(j)
	if j.promised {
		p.promised++
	}
	p.tasks.push(j)
	if !p.paused {
		p.tasks.offerLocked()
	}
}

// countLocked makes j an accepted task.
func (p *Pool[T, R]) countLocked(j *job[T, R]) {
	p.submitted++
	j.attempt = 1
	if !j.positioned {
		j.index = p.index
		p.index++
	}
}

// enterLocked gets a task accepted: at once if there is room; inside a
// handler by running it in place of the handler's task, and then it returns a
// channel that is closed when the task has ended; else after waiting for room.
//
// A task that a handler waits for (it has an answerer) may only be queued if
// a worker is free to take it, and that one has to: all others might wait in
// the same way.
//
// An error frees the job.
func (p *Pool[T, R]) enterLocked(ctx context.Context, inside *worker[T, R], j *job[T, R]) (<-chan struct{}, error) {
	room := p.roomLocked()
	if inside != nil && j.to != nil {
		room = p.tasks.n+p.granted < p.freeWorkersLocked()
		j.promised = room && p.open
	}
	var ended <-chan struct{}
	var err error
	switch {
	case !p.open:
		err = ErrClosed
	case room:
		p.acceptLocked(j)
	case inside != nil:
		ended = p.startNestedLocked(inside, j)
	default:
		if err = p.awaitRoomLocked(ctx, j); err == nil {
			p.acceptLocked(j)
		}
	}
	if err != nil {
		p.freeLocked(j)
	}
	return ended, err
}

// awaitRoomLocked waits in line for room, without the mutex.
func (p *Pool[T, R]) awaitRoomLocked(ctx context.Context, j *job[T, R]) error {
	if j.signal == nil {
		j.signal = make(chan struct{}, 1)
	}
	p.waiting.push(j)
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
	if j.listed {
		p.waiting.remove(j)
	}
	select { // sent after ctx had ended
	case <-j.signal:
	default:
	}
	if j.granted {
		j.granted = false
		p.granted--
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
	for p.waiting.n > 0 && p.roomLocked() {
		j := p.waiting.pop()
		j.granted = true
		p.granted++
		j.signal <- struct{}{}
	}
}

// refuseLocked turns away all who wait for room.
func (p *Pool[T, R]) refuseLocked() {
	for p.waiting.n > 0 {
		p.waiting.pop().signal <- struct{}{}
	}
}

// gaveUp says in the error of a context that ended why it waited in vain. It
// returns any other error as it is.
func (p *Pool[T, R]) gaveUp(err error) error {
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: gave up waiting for room: %s: %w", ErrQueueFull, p.load(), err)
}

// load describes what keeps the pool busy.
func (p *Pool[T, R]) load() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	load := fmt.Sprintf("%d tasks queued, %d running, %d of %d workers wait for a receiver of their results",
		p.tasks.n, p.running, p.held, p.size)
	if p.paused {
		load += ", paused"
	}
	return load
}
