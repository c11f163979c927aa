package workpool

import (
	"context"
	"iter"
	"math"
	"slices"
)

// ForEach calls do for every task of the sequence, on a pool of its own, created
// with opts. It takes the next task only when there is room for it, so the sequence
// may be of any length. It returns nil when all have succeeded.
//
// The first error cancels the context of the others, and no more tasks begin.
// ForEach returns that error when the running ones have returned. If do or the
// sequence panics, the error is or wraps a [*PanicError]. If ctx ends, ForEach
// returns an error that matches ctx.Err().
func ForEach[T any](ctx context.Context, tasks iter.Seq[T], do func(ctx context.Context, task T) error, opts ...Option) error {
	p, err := New(NoValue(do), append(slices.Clip(opts), forTasks(math.MaxInt))...)
	if err != nil {
		return err
	}
	s := newStream[T, struct{}](true)
	var first error
	err = s.run(ctx, p, tasks, func(r Result[T, struct{}]) bool {
		first = r.Err
		return first == nil
	})
	if err == nil && first != nil {
		err = s.failure(first)
	}
	if closeErr := p.Close(); err == nil {
		return closeErr
	}
	return err
}
