package workpool

import (
	"context"
	"errors"
	"slices"
)

// Map runs the handler for every task and returns the values in the order of
// the tasks. The first task that fails cancels the context of the others, and
// Map returns its error, as it is, and no values. If ctx ends, Map returns an
// error that matches ctx.Err().
//
// Map returns when every handler that it started has returned. It waits for room
// as one task does. Its tasks are begun in the order of the slice, and take turns
// with all others in the queue. A Map that has begun when the pool is shut down
// runs to its end; an abort, or a Close with [FinishRunning], ends it. Called with
// the context of a handler of the same pool, tasks for which no worker is free
// run in place of the calling one.
func (p *Pool[T, R]) Map(ctx context.Context, tasks []T) ([]R, error) {
	if err := endedContext(ctx); err != nil {
		return nil, err
	}
	m := &mapBatch[T, R]{block: block[T, R]{tasks: tasks, values: make([]R, len(tasks))}}
	m.block.owner = m
	m.begin(ctx, p, m)
	defer m.end()
	if err := m.submitAll(); err != nil {
		m.cancel(err)
	}
	m.await(m.help)
	if m.succeeded == len(tasks) {
		return m.block.values, nil
	}
	err := context.Cause(m.ctx)
	switch {
	case err == nil:
		err = m.err
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		err = contextError(ctx)
	case errors.Is(err, ErrAborted) && errors.Is(m.err, ErrAborted):
		err = m.err // which has that of its last attempt, if there was one
	}
	return nil, err
}

// Map runs handler for every task on a pool of its own, made with opts, and
// returns the values in the order of the tasks. See [Pool.Map]. Without
// [WithWorkers], the pool has GOMAXPROCS workers, or one a task if these are
// fewer, but no less than the minimum of [WithElastic].
func Map[T, R any](ctx context.Context, tasks []T, handler Handler[T, R], opts ...Option) ([]R, error) {
	p, err := New(handler, append(slices.Clip(opts), workersFor(len(tasks)))...)
	if err != nil {
		return nil, err
	}
	values, err := p.Map(ctx, tasks)
	if closeErr := p.Close(); err == nil && closeErr != nil {
		return nil, closeErr
	}
	return values, err
}

type mapBatch[T, R any] struct {
	batch[T, R]
	block block[T, R]
	// Guarded by the pool's mutex:
	succeeded int
	err       error // the first, in case that it came without a cancellation
}

// submitAll gets the tasks accepted, in as few runs as there may be, or in a pool
// of another kind one by one.
func (m *mapBatch[T, R]) submitAll() error {
	tasks := m.block.tasks
	if m.pool.special {
		for i, task := range tasks {
			if err := m.submit(uint64(i), task, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for first := 0; first < len(tasks); first += maxRun {
		if err := m.submitRun(first, min(maxRun, len(tasks)-first)); err != nil {
			return err
		}
	}
	return nil
}

// submitRun gets n tasks accepted, as one run, and waits for its end if it had to
// run in place of the calling task.
func (m *mapBatch[T, R]) submitRun(first, n int) error {
	if m.ctx.Err() != nil {
		return contextError(m.ctx)
	}
	p := m.pool
	p.mu.Lock()
	r, j := p.newRunLocked(&m.block, first, n, uint64(first))
	r.ctx, r.ended = m.ctx, m.ctx.Context
	j.ctx, j.bound = m.ctx, true
	j.inside = m.inside // so that a task of it that is retried does not wait for a worker
	m.pending++
	ended, err := p.enterLocked(m.ctx, m.inside, j)
	if err != nil {
		m.pending--
	}
	p.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return err
}

// partedLocked is called when a part of a run has become one of its own.
func (m *mapBatch[T, R]) partedLocked() {
	m.pending++
	if m.inside != nil {
		m.wakeLocked() // to help
	}
}

func (m *mapBatch[T, R]) doneLocked(_ *run[T, R], n int) {
	m.succeeded += n
	m.pool.submitted += uint64(n)
	m.pool.succeeded += uint64(n)
}

func (m *mapBatch[T, R]) answerRunLocked(r *run[T, R], j *job[T, R]) {
	m.answerLocked(j)
	m.pool.freeRunLocked(r)
}

func (m *mapBatch[T, R]) answerer() answerer[T, R] { return m }

func (m *mapBatch[T, R]) failed(err error) { m.cancel(err) }

func (m *mapBatch[T, R]) answerLocked(j *job[T, R]) {
	switch {
	case j.err == nil:
		m.block.values[j.index] = j.value
		m.succeeded++
	case m.err == nil:
		m.err = j.err
	}
	m.pool.freeLocked(j)
	m.pending--
	if m.pending == 0 {
		m.wakeLocked()
	}
}

// help runs what of m is in the task channel in place of the handler that
// waits for them: the workers might all be waiting in the same way.
func (m *mapBatch[T, R]) help() {
	p := m.pool
	for {
		p.mu.Lock()
		var queued *job[T, R]
		p.tasks.each(func(j *job[T, R]) {
			if r, ok := j.to.(*run[T, R]); ok && r.owner == m.self {
				queued = j
			}
		})
		if queued == nil {
			p.mu.Unlock()
			return
		}
		p.unqueueLocked(queued)
		w := p.startNestedLocked(m.inside.id, queued)
		w.outer = m.inside
		p.mu.Unlock()
		<-w.nested
	}
}
