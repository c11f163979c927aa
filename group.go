package workpool

import (
	"cmp"
	"context"
)

// A groupError says why a group is closed.
type groupError struct{ why error }

func (e *groupError) Error() string   { return "workpool: group is closed: " + e.why.Error() }
func (e *groupError) Unwrap() []error { return []error{ErrClosed, e.why} }

// A Group is a set of tasks that belong together, on the workers of a pool. The
// first that fails cancels the others. Create one with [Pool.Group]; the zero Group
// is closed. All methods are safe for concurrent use.
type Group[T, R any] struct {
	batch batch[T, R]

	// Guarded by the pool's mutex:
	values  []R
	err     error // the first error
	decided bool  // outcome is set
	outcome error // the error that Wait returns
}

// Group returns a group without tasks. The contexts of their handlers are derived
// from ctx. Call [Group.Wait] at the end: it releases what the group holds.
func (p *Pool[T, R]) Group(ctx context.Context) *Group[T, R] {
	g := &Group[T, R]{}
	if err := g.batch.begin(ctx, p, ByGroup); err != nil {
		g.batch.pool, g.err = p, err
	}
	return g
}

// Submit submits task as one of the group. It waits for room as [Pool.Submit] does,
// until the group's context ends.
//
// It returns [ErrClosed] when the pool closes, after Wait has returned, and after
// the first error of the group or the end of its context; then the error also
// matches that one.
func (g *Group[T, R]) Submit(task T) error {
	if g.batch.pool == nil {
		return ErrClosed // the zero Group
	}
	if err := g.closed(); err != nil {
		return g.batch.pool.refused(err)
	}
	err := g.batch.handIn(g, task, policy{overflows: true})
	g.batch.pool.unlock()
	if err != nil {
		return cmp.Or(g.closed(), err)
	}
	return nil
}

// closed returns why the group takes no more tasks, or nil.
func (g *Group[T, R]) closed() error {
	g.batch.pool.lock()
	err, over := g.err, g.batch.over
	g.batch.pool.unlock()
	switch {
	case g.batch.ctx == nil:
		return &groupError{err}
	case over:
		return &groupError{errBatchOver}
	case err != nil || g.batch.ctx.Err() != nil:
		return &groupError{g.batch.failure(err)}
	}
	return nil
}

// Wait waits until all tasks of the group have ended and every handler that the
// group started has returned. It returns the values in the order in which the tasks
// were submitted; or no values and the first error, which has cancelled the context
// of the others. If the group's context ended first, the error matches ctx.Err().
// Afterwards the group accepts no more tasks.
//
// If the group was made with the context of a running handler of the same pool,
// tasks that no other worker takes run in the handler's place while it waits, one
// at a time.
func (g *Group[T, R]) Wait() ([]R, error) {
	if g.batch.ctx == nil {
		return nil, g.err
	}
	g.batch.await()
	g.batch.pool.lock()
	err := g.err
	g.batch.pool.unlock()
	outcome := g.batch.failure(err)
	g.batch.pool.lock()
	if !g.decided { // else another Wait was faster, and may have ended the context since
		g.decided, g.outcome = true, outcome
	}
	outcome = g.outcome
	g.batch.pool.unlock()
	g.batch.end()
	if outcome != nil {
		return nil, outcome
	}
	return g.values, nil
}

func (g *Group[T, R]) failed(err error) { g.batch.ctx.cancel(err) }

func (g *Group[T, R]) answerLocked(j *job[T, R]) {
	switch i := int(j.index); {
	case j.err == nil:
		if i >= len(g.values) {
			g.values = append(g.values, make([]R, i+1-len(g.values))...)
		}
		g.values[i] = j.value
	case g.err == nil:
		g.err = j.err
		if g.err == ErrDropped { //nolint:errorlint // our own; of others that have not run the pool or the context has ended
			go func() { // it may call code of the user
				defer func() { _ = recover() }() // nobody could be told of a panic
				g.batch.ctx.cancel(ErrDropped)
			}()
		}
	}
	g.batch.pool.freeLocked(j)
	g.batch.endedLocked()
}
