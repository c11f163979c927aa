package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

var errFailed = errors.New("failed")

// failing returns a handler that fails before a number of the attempt.
func failing(attempts int) workpool.Handler[int, int] {
	return func(ctx context.Context, n int) (int, error) {
		if info, _ := workpool.InfoFrom(ctx); info.Attempt < attempts {
			return 0, errFailed
		}
		return n, nil
	}
}

func seconds(attempt int) time.Duration { return time.Duration(attempt) * time.Second }

func TestRetry_RunsAFailedTaskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := mustNew(t, workpool.Retry[int, int](5, seconds)(failing(4)), workpool.WithWorkers(1))
		require.NoError(t, p.Submit(t.Context(), 7))
		r := receive(t, p)
		require.NoError(t, r.Err)
		assert.Equal(t, 4, r.Attempt)
		assert.Equal(t, (1+2+3)*time.Second, time.Since(begin))
		closed(t, p)
	})
}

func TestRetry_EndsWithTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, workpool.Retry[int, int](3, seconds)(failing(9)))
		require.NoError(t, p.Submit(t.Context(), 7))
		r := receive(t, p)
		assert.Equal(t, errFailed, r.Err)
		assert.Equal(t, 3, r.Attempt)
		assert.EqualValues(t, 1, p.Stats().Failed)
		_, err := p.Map(t.Context(), upTo(2))
		assert.Equal(t, errFailed, err)
		closed(t, p)
	})
}

func TestRetry_CountsAttemptsThatTheHandlerAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, handler := range []workpool.Handler[int, int]{
			after(9, time.Second),
			func(ctx context.Context, n int) (int, error) {
				value, err := after(9, time.Second)(ctx, n)
				return value, fmt.Errorf("wrapped: %w", err)
			},
		} {
			begin := time.Now()
			p := mustNew(t, workpool.Retry[int, int](3, seconds)(handler))
			require.NoError(t, p.Submit(t.Context(), 1))
			r := receive(t, p)
			require.ErrorIs(t, r.Err, errNotYet)
			require.ErrorContains(t, r.Err, "no attempt left")
			assert.Equal(t, 3, r.Attempt)
			assert.Equal(t, 2*time.Second, time.Since(begin), "the delays are the handler's")
			closed(t, p)
		}
	})
}

func TestRetry_NotWhenTheContextHasEndedNorAfterAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, workpool.Retry[int, int](3, seconds)(func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				panic("zero")
			}
			<-ctx.Done()
			return 0, errFailed
		}))
		cancel, err := p.SubmitCancel(t.Context(), 1)
		require.NoError(t, err)
		synctest.Wait()
		cancel()
		r := receive(t, p)
		assert.Equal(t, errFailed, r.Err)
		assert.Equal(t, 1, r.Attempt)
		_, err = p.Do(t.Context(), 0)
		var panicked *workpool.PanicError
		require.ErrorAs(t, err, &panicked)
		closed(t, p)
	})
}

func TestRetry_OutsideAPoolIsTheHandlerAlone(t *testing.T) {
	_, err := workpool.Retry[int, int](3, seconds)(failing(1e9))(t.Context(), 1)
	assert.Equal(t, errFailed, err)
}

func TestExponentialBackoff_IsRandomBelowADoublingLimit(t *testing.T) {
	backoff := workpool.ExponentialBackoff(100*time.Millisecond, time.Second)
	for attempt, highest := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 3: 400 * time.Millisecond, 4: 800 * time.Millisecond,
		5: time.Second, 6: time.Second, 1000: time.Second, math.MaxInt: time.Second,
	} {
		var lowest, most time.Duration = math.MaxInt64, 0
		for range 1000 {
			d := backoff(attempt)
			lowest, most = min(lowest, d), max(most, d)
		}
		assert.Less(t, lowest, highest/10, "attempt %d", attempt)
		assert.Greater(t, most, highest/10*9, "attempt %d", attempt)
		assert.Less(t, most, highest, "attempt %d", attempt)
	}
	assert.Zero(t, workpool.ExponentialBackoff(0, time.Second)(3))
	assert.GreaterOrEqual(t, workpool.ExponentialBackoff(math.MaxInt64/2+1, math.MaxInt64)(9), time.Duration(0))
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, workpool.Retry[int, int](3, workpool.ExponentialBackoff(-time.Second, time.Second))(failing(2)))
		_, err := p.Do(t.Context(), 1)
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
		require.ErrorIs(t, err, errFailed)
		require.ErrorContains(t, err, "-1s")
		closed(t, p)
	})
}

func TestTimeout_EndsTheContextOfAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := mustNew(t, workpool.Timeout[int, int](time.Second)(func(ctx context.Context, n int) (int, error) {
			select {
			case <-time.After(time.Duration(n) * time.Second):
				return n, nil
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}))
		_, err := p.Do(t.Context(), 5)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "took longer than 1s")
		assert.Equal(t, time.Second, time.Since(begin))
		value, err := p.Do(t.Context(), 0)
		require.NoError(t, err)
		assert.Zero(t, value)
		closed(t, p)
	})
}

// ticks is a Limiter that lets one attempt begin a second.
type ticks struct{ next time.Time }

func (l *ticks) Wait(ctx context.Context) error {
	wait := time.Until(l.next)
	l.next = time.Now().Add(max(0, wait) + time.Second)
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestLimit_WaitsBeforeEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		limited := workpool.Chain(failing(2), workpool.Retry[int, int](2, func(int) time.Duration { return 0 }), workpool.Limit[int, int](new(ticks)))
		p := mustNew(t, limited, workpool.WithWorkers(1))
		values, err := p.Map(t.Context(), upTo(5))
		require.NoError(t, err)
		assert.Equal(t, upTo(5), values)
		assert.Equal(t, 9*time.Second, time.Since(begin), "ten attempts, the first at once")

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		r := <-p.DoChan(ctx, 1)
		require.ErrorIs(t, r.Err, context.DeadlineExceeded)
		closed(t, p)
	})
}

func TestChain_TheFirstIsOutermost(t *testing.T) {
	var order []string
	named := func(name string) workpool.Middleware[int, int] {
		return func(next workpool.Handler[int, int]) workpool.Handler[int, int] {
			return func(ctx context.Context, n int) (int, error) {
				order = append(order, name)
				value, err := next(ctx, n)
				order = append(order, "/"+name)
				return value, err
			}
		}
	}
	p := mustNew(t, workpool.Chain(identity, named("a"), named("b")))
	_, err := p.Do(t.Context(), 1)
	require.NoError(t, err)
	closed(t, p)
	assert.Equal(t, []string{"a", "b", "/b", "/a"}, order)
}

// Retry sees what stands behind it.
func TestChain_RetryOfATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handle := workpool.Chain(func(ctx context.Context, n int) (int, error) {
			if info, _ := workpool.InfoFrom(ctx); info.Attempt < 3 {
				<-ctx.Done()
				return 0, context.Cause(ctx)
			}
			return n, nil
		}, workpool.Retry[int, int](3, seconds), workpool.Timeout[int, int](10*time.Second))
		begin := time.Now()
		p := mustNew(t, handle)
		value, err := p.Do(t.Context(), 4)
		require.NoError(t, err)
		assert.Equal(t, 4, value)
		assert.Equal(t, (10+1+10+2)*time.Second, time.Since(begin))
		closed(t, p)
	})
}

func TestMiddleware_MistakesAreErrorsOfTheTasks(t *testing.T) {
	for text, middleware := range map[string]workpool.Middleware[int, int]{
		"Retry(0":         workpool.Retry[int, int](0, seconds),
		"Retry(3, nil)":   workpool.Retry[int, int](3, nil),
		"Timeout(0s)":     workpool.Timeout[int, int](0),
		"Timeout(-1s)":    workpool.Timeout[int, int](-time.Second),
		"Limit(nil)":      workpool.Limit[int, int](nil),
		"middleware 1 of": nil,
	} {
		p := mustNew(t, workpool.Chain(identity, middleware))
		_, err := p.Do(t.Context(), 1)
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
		require.ErrorContains(t, err, text)
		closed(t, p)
	}
	_, err := workpool.New(workpool.Chain(nil, workpool.Timeout[int, int](1)))
	require.ErrorIs(t, err, workpool.ErrInvalidOption)
}
