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
		p := mustNew(t, workpool.Retry(failing(4), 5, seconds), workpool.WithWorkers(1))
		require.NoError(t, p.Submit(t.Context(), 7))
		r := receive(t, p)
		require.NoError(t, r.Err)
		assert.Equal(t, 4, r.Attempt)
		assert.Equal(t, (1+2+3)*time.Second, time.Since(begin))
	})
}

func TestRetry_EndsWithTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, workpool.Retry(failing(9), 3, seconds))
		require.NoError(t, p.Submit(t.Context(), 7))
		r := receive(t, p)
		assert.Equal(t, errFailed, r.Err)
		assert.Equal(t, 3, r.Attempt)
		assert.EqualValues(t, 1, p.Stats().Failed)
		_, err := p.Map(t.Context(), upTo(2))
		assert.Equal(t, errFailed, err)
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
			p := mustNew(t, workpool.Retry(handler, 3, seconds))
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
		p := mustNew(t, workpool.Retry(func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				panic("zero")
			}
			<-ctx.Done()
			return 0, errFailed
		}, 3, seconds))
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
	})
}

func TestRetry_OutsideAPoolIsTheHandlerAlone(t *testing.T) {
	_, err := workpool.Retry(failing(1e9), 3, seconds)(t.Context(), 1)
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
		p := mustNew(t, workpool.Retry(failing(2), 3, workpool.ExponentialBackoff(-time.Second, time.Second)))
		_, err := p.Do(t.Context(), 1)
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
		require.ErrorIs(t, err, errFailed)
		require.ErrorContains(t, err, "-1s")
	})
}

func TestTimeout_EndsTheContextOfAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := mustNew(t, workpool.Timeout(func(ctx context.Context, n int) (int, error) {
			select {
			case <-time.After(time.Duration(n) * time.Second):
				return n, nil
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}, time.Second))
		_, err := p.Do(t.Context(), 5)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "took longer than 1s")
		assert.Equal(t, time.Second, time.Since(begin))
		value, err := p.Do(t.Context(), 0)
		require.NoError(t, err)
		assert.Zero(t, value)
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
		handler := workpool.Retry(workpool.Limit(failing(2), new(ticks)), 2, func(int) time.Duration { return 0 })
		p := mustNew(t, handler, workpool.WithWorkers(1))
		gives(t, upTo(5))(p.Map(t.Context(), upTo(5)))
		assert.Equal(t, 9*time.Second, time.Since(begin), "ten attempts, the first at once")

		r := <-p.DoChan(limited(t, time.Millisecond), 1)
		require.ErrorIs(t, r.Err, context.DeadlineExceeded)
	})
}

// Retry sees what it is around.
func TestRetry_OfATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handle := workpool.Retry(workpool.Timeout(func(ctx context.Context, n int) (int, error) {
			if info, _ := workpool.InfoFrom(ctx); info.Attempt < 3 {
				<-ctx.Done()
				return 0, context.Cause(ctx)
			}
			return n, nil
		}, 10*time.Second), 3, seconds)
		begin := time.Now()
		p := mustNew(t, handle)
		gives(t, 4)(p.Do(t.Context(), 4))
		assert.Equal(t, (10+1+10+2)*time.Second, time.Since(begin))
	})
}

func TestHandlers_MistakesAreErrorsOfTheTasks(t *testing.T) {
	for text, handler := range map[string]workpool.Handler[int, int]{
		"Retry(handler, 0":       workpool.Retry(identity, 0, seconds),
		"Retry(handler, 3, nil)": workpool.Retry(identity, 3, nil),
		"Timeout(handler, 0s)":   workpool.Timeout(identity, 0),
		"Timeout(handler, -1s)":  workpool.Timeout(identity, -time.Second),
		"Limit(handler, nil)":    workpool.Limit(identity, nil),
	} {
		p := mustNew(t, handler)
		_, err := p.Do(t.Context(), 1)
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
		require.ErrorContains(t, err, text)
		closed(t, p)
	}
}

func TestHandlers_AroundANilHandlerAreNil(t *testing.T) {
	for _, handler := range []workpool.Handler[int, struct{}]{
		workpool.Retry[int, struct{}](nil, 3, seconds),
		workpool.Timeout[int, struct{}](nil, time.Second),
		workpool.Limit[int, struct{}](nil, new(ticks)),
		workpool.NoValue[int](nil),
	} {
		fails(t, workpool.ErrInvalidOption)(workpool.New(handler))
	}
}

func TestPermanent_IsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wrap := range []func(error) error{
			workpool.Permanent,
			func(err error) error { return fmt.Errorf("wrapped: %w", workpool.Permanent(err)) },
			func(err error) error { return workpool.Permanent(workpool.RetryAfter(time.Hour, err)) },
		} {
			begin := time.Now()
			p := mustNew(t, workpool.Retry(func(context.Context, int) (int, error) { return 0, wrap(errFailed) }, 5, seconds))
			require.NoError(t, p.Submit(t.Context(), 1))
			r := receive(t, p)
			require.ErrorIs(t, r.Err, errFailed)
			assert.True(t, workpool.IsPermanent(r.Err))
			assert.Equal(t, 1, r.Attempt)
			assert.Zero(t, time.Since(begin))
			closed(t, p)
		}
	})
	require.NoError(t, workpool.Permanent(nil))
	assert.False(t, workpool.IsPermanent(errFailed))
	require.EqualError(t, workpool.Permanent(errFailed), errFailed.Error())
}
