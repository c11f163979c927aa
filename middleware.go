package workpool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A Middleware makes a handler that does something around another one. One's own
// is a function that returns a function:
//
//	func logged(next workpool.Handler[string, int]) workpool.Handler[string, int] {
//		return func(ctx context.Context, task string) (int, error) {
//			begin := time.Now()
//			value, err := next(ctx, task)
//			info, _ := workpool.InfoFrom(ctx)
//			slog.InfoContext(ctx, "task", "index", info.Index, "attempt", info.Attempt, "took", time.Since(begin), "err", err)
//			return value, err
//		}
//	}
//
// See [Chain] for the order.
type Middleware[T, R any] func(next Handler[T, R]) Handler[T, R]

// Chain returns handler inside the middleware, the first outermost: it sees the
// task first and the answer last. Every attempt of a task passes through the
// whole chain, so that [Limit] counts attempts and [Timeout] is for one, wherever
// they stand. [Retry] retries the errors of what stands behind it: first in the
// chain, those of Limit and Timeout too.
func Chain[T, R any](handler Handler[T, R], middleware ...Middleware[T, R]) Handler[T, R] {
	for i, m := range slices.Backward(middleware) {
		if m == nil {
			m = broken[T, R](invalid("Chain: middleware %d of %d is nil", i+1, len(middleware)))
		}
		handler = m(handler)
	}
	return handler
}

// Retry runs a task that fails again, up to maxAttempts attempts in all, and
// then ends with the last error. Before attempt n+1 it waits for backoff(n), by
// [RetryAfter]: no worker is held. See [ExponentialBackoff]; many backoff
// libraries fit too.
//
// It does not retry when the context of the task has ended, nor after a panic.
// An attempt that itself asks for a RetryAfter is retried then, and counts. A
// maxAttempts of less than 1, or a nil backoff, fails every task with an error
// that wraps [ErrInvalidOption].
func Retry[T, R any](maxAttempts int, backoff func(attempt int) time.Duration) Middleware[T, R] {
	switch {
	case maxAttempts < 1:
		return broken[T, R](invalid("Retry(%d, backoff): a task has 1 attempt or more", maxAttempts))
	case backoff == nil:
		return broken[T, R](invalid("Retry(%d, nil): pass a function from the number of the attempt to the delay after it", maxAttempts))
	}
	return around(func(ctx context.Context, task T, next Handler[T, R]) (R, error) {
		value, err := next(ctx, task)
		if err == nil {
			return value, nil
		}
		info, inside := InfoFrom(ctx)
		_, asks := asRetry(err).(*retryError)
		switch {
		case !inside: // called by something else than a pool
			return value, err
		case info.Attempt >= maxAttempts || ctx.Err() != nil:
			if asks {
				err = &finalError{err}
			}
			return value, err
		case asks:
			return value, err
		}
		return value, RetryAfter(backoff(info.Attempt), err)
	})
}

// ExponentialBackoff returns a backoff for [Retry]: a random time between 0 and
// base after the first attempt, and up to twice as much after each further one,
// but never more than limit. This is what Marc Brooker calls full jitter, in
// "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: tasks that
// failed together don't come again together.
func ExponentialBackoff(base, limit time.Duration) func(attempt int) time.Duration {
	return func(attempt int) time.Duration {
		if base < 0 || limit < 0 {
			return min(base, limit) // which RetryAfter reports
		}
		highest := base
		for i := 1; i < attempt && highest < limit; i++ {
			if highest *= 2; highest < 0 {
				highest = limit
			}
		}
		return time.Duration(rand.Int64N(max(1, int64(min(highest, limit)))))
	}
}

// Timeout ends the context of each attempt after d, with an error that matches
// [context.DeadlineExceeded] and says so as its cause. It waits for the handler
// to return. A d of 0 or less fails every task with an error that wraps
// [ErrInvalidOption].
func Timeout[T, R any](d time.Duration) Middleware[T, R] {
	if d <= 0 {
		return broken[T, R](invalid("Timeout(%v): the time for an attempt is more than 0", d))
	}
	cause := fmt.Errorf("workpool: the handler took longer than %v: %w", d, context.DeadlineExceeded)
	return around(func(ctx context.Context, task T, next Handler[T, R]) (R, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, d, cause)
		defer cancel()
		return next(ctx, task)
	})
}

// A Limiter says when the next attempt may begin. A *rate.Limiter of
// golang.org/x/time/rate is one.
type Limiter interface {
	// Wait returns nil when it may, or an error if it can't before ctx ends.
	Wait(ctx context.Context) error
}

// Limit waits for limiter before each attempt, on the worker, and fails the
// attempt with the limiter's error. A nil limiter fails every task with an error
// that wraps [ErrInvalidOption].
func Limit[T, R any](limiter Limiter) Middleware[T, R] {
	if limiter == nil {
		return broken[T, R](invalid("Limit(nil): pass a limiter, such as a *rate.Limiter"))
	}
	return around(func(ctx context.Context, task T, next Handler[T, R]) (R, error) {
		if err := limiter.Wait(ctx); err != nil {
			var none R
			return none, fmt.Errorf("workpool: waiting for the limiter: %w", err)
		}
		return next(ctx, task)
	})
}

// around makes a middleware of what it does. Around a nil handler it is a nil
// handler, which New refuses.
func around[T, R any](f func(ctx context.Context, task T, next Handler[T, R]) (R, error)) Middleware[T, R] {
	return func(next Handler[T, R]) Handler[T, R] {
		if next == nil {
			return nil
		}
		return func(ctx context.Context, task T) (R, error) { return f(ctx, task, next) }
	}
}

// broken is the middleware that was made with a mistake.
func broken[T, R any](mistake error) Middleware[T, R] {
	return around(func(context.Context, T, Handler[T, R]) (R, error) {
		var none R
		return none, mistake
	})
}
