package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

func TestRetryAfter_RunsTheTaskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := mustNew(t, after(4, time.Minute), workpool.WithWorkers(1))
		submit(t, p, 7)
		assert.Equal(t, workpool.Result[int, int]{Task: 7, Value: 7, Worker: 1, Attempt: 4}, receive(t, p))
		assert.Equal(t, 3*time.Minute, time.Since(begin))
		closed(t, p)
		assert.Equal(t, workpool.Stats{Submitted: 1, Succeeded: 1, Retried: 3}, counts(p.Stats()))
		assert.Zero(t, p.Stats().Parked)
	})
}

func TestRetryAfter_HoldsNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithShutdown(workpool.Abort, 0))
		submit(t, p, parked)
		synctest.Wait()
		assert.Equal(t, workpool.Stats{Queued: 1, Submitted: 1}, counts(p.Stats()))
		assert.Equal(t, 1, p.Stats().Parked)
		for n := range 100 {
			gives(t, n)(p.Do(t.Context(), returning(n, nil)))
		}
	})
}

func TestRetryAfter_ParkedTasksTakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, after(2, time.Hour), workpool.WithWorkers(2), workpool.WithQueueDepth(3))
		accepted := 0
		for ; p.TrySubmit(t.Context(), accepted) == nil; accepted++ {
			synctest.Wait()
			require.Less(t, accepted, 100, "the pool is not bounded")
		}
		assert.LessOrEqual(t, accepted, 3+2)
		assert.GreaterOrEqual(t, accepted, 3)
		err := p.Submit(limited(t, time.Second), 0)
		require.ErrorIs(t, err, workpool.ErrQueueFull)
		require.ErrorContains(t, err, "wait for their next attempt")
		submit(t, p, 0) // when the first are due
		closed(t, p)
		assert.Len(t, collect(p), accepted+1)
	})
}

func TestRetryAfter_IsWaitedForByADrain(t *testing.T) {
	for _, opts := range [][]workpool.Option{
		nil,
		{workpool.WithElastic(0, time.Millisecond)},
		{workpool.WithOrdered()},
	} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			p := mustNew(t, after(3, time.Hour), append(opts, workpool.WithWorkers(2))...)
			submit(t, p, upTo(5)...)
			require.NoError(t, p.Shutdown(t.Context()))
			assert.Equal(t, 2*time.Hour, time.Since(begin))
			for _, r := range collect(p) {
				require.NoError(t, r.Err)
				assert.Equal(t, 3, r.Attempt)
			}
		})
	}
}

// A parked task that is aborted yields what its last attempt returned, and says how many there
// were, whoever is told.
func TestRetryAfter_AnAbortAnswersParkedTasksWithTheirLastAttempt(t *testing.T) {
	for _, mode := range []workpool.ShutdownMode{workpool.FinishRunning, workpool.Abort} {
		for _, tells := range eitherWay {
			for attempts := 1; attempts <= 3; attempts++ {
				synctest.Test(t, func(t *testing.T) {
					var results []workpool.Result[closure, int]
					opts := []workpool.Option{workpool.WithWorkers(1), workpool.WithShutdown(mode, 0)}
					if tells {
						opts = append(opts, workpool.WithResultFunc(func(r workpool.Result[closure, int]) { results = append(results, r) }))
					}
					p := newClosures(t, opts...)
					submit(t, p, returning(7, workpool.RetryAfter(time.Second, errNotYet)))
					time.Sleep(time.Duration(attempts)*time.Second - time.Millisecond)
					begin := time.Now()
					closed(t, p)
					assert.Zero(t, time.Since(begin))
					if !tells {
						results = collect(p)
					}
					require.Len(t, results, 1)
					r := results[0]
					fails(t, workpool.ErrAborted, errNotYet)(r.Value, r.Err)
					assert.Equal(t, []int{7, attempts, 1}, []int{r.Value, r.Attempt, r.Worker})
					assert.EqualValues(t, 1, p.Stats().Aborted)
				})
			}
		}
	}
}

func TestRetryAfter_AnAttemptAfterTheAbortIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithShutdown(workpool.Abort, 0))
		submit(t, p, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, workpool.RetryAfter(0, errNotYet)
		})
		synctest.Wait()
		closed(t, p)
		r := receive(t, p)
		fails(t, workpool.ErrAborted, errNotYet)(r.Value, r.Err)
		assert.Empty(t, collect(p))
	})
}

// The error that asks for another attempt may be wrapped.
func TestRetryAfter_CallersWaitForTheLastAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(ctx context.Context, n int) (int, error) {
			value, err := after(3, time.Second)(ctx, n)
			if err != nil {
				err = fmt.Errorf("handling %d: %w", n, err)
			}
			return value, err
		}, workpool.WithWorkers(1))
		for way, run := range ways[int, int]() {
			values, err := run(t.Context(), p, upTo(10)...)
			require.NoError(t, err, way)
			assert.ElementsMatch(t, upTo(10), values, way)
		}
		assert.EqualValues(t, 6*10*2, p.Stats().Retried)
		assert.Equal(t, 3, (<-p.DoChan(t.Context(), 6)).Attempt)
		for r := range p.Stream(t.Context(), count(10)) {
			assert.Equal(t, 3, r.Attempt)
		}
	})
}

func TestRetryAfter_AParkedTaskIsTakenBackWhenItsCallerLeaves(t *testing.T) {
	eachNamed(t, ways[int, int](), func(t *testing.T, _ string, run way[int, int]) {
		p := mustNew(t, after(2, time.Hour), workpool.WithWorkers(1))
		begin := time.Now()
		fails(t, context.DeadlineExceeded)(run(limited(t, time.Second), p, upTo(3)...))
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, time.Second, time.Since(begin), "nothing is parked any more")
	})
}

// The caller leaves while an attempt runs, which then asks for another one.
func TestRetryAfter_AnAttemptThatNobodyWaitsForIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(context.Context, int) (int, error) {
			time.Sleep(2 * time.Second) // whatever becomes of the context
			return 0, workpool.RetryAfter(time.Hour, errNotYet)
		}, workpool.WithWorkers(7))
		ctx := limited(t, time.Second)
		begin := time.Now()
		var calls sync.WaitGroup
		for way, run := range ways[int, int]() {
			calls.Go(func() {
				_, err := run(ctx, p, 1)
				assert.ErrorIs(t, err, context.DeadlineExceeded, way)
				if way == "Stream" {
					assert.ErrorIs(t, err, errNotYet)
				}
			})
		}
		stop, err := p.SubmitCancel(t.Context(), 1)
		require.NoError(t, err)
		time.AfterFunc(time.Second, stop)
		r := receive(t, p)
		fails(t, context.Canceled, errNotYet)(r.Value, r.Err)
		calls.Wait()
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, 2*time.Second, time.Since(begin))
	})
}

func TestRetryAfter_WithoutDelayGoesToTheEndOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, after(3, 0), workpool.WithWorkers(1), workpool.WithQueueDepth(10))
		p.Pause()
		submit(t, p, upTo(3)...)
		closed(t, p)
		for i, r := range collect(p) {
			assert.Equal(t, i, r.Value)
			assert.Equal(t, 3, r.Attempt)
		}
		assert.EqualValues(t, 6, p.Stats().Retried)
	})
}

func TestRetryAfter_ANegativeDelayIsAMistake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := mustNew(t, after(2, -time.Second)).Do(t.Context(), 1)
		fails(t, workpool.ErrInvalidOption, errNotYet)(0, err)
		require.ErrorContains(t, err, "RetryAfter(-1s)")
		require.ErrorIs(t, workpool.RetryAfter(-1, nil), workpool.ErrInvalidOption)
		require.ErrorContains(t, workpool.RetryAfter(time.Second, errNotYet), "retry after 1s: not yet")
		require.EqualError(t, workpool.RetryAfter(time.Second, nil), "workpool: retry after 1s")
	})
}

func TestRetryAfter_AnAbortTellsMapTheLastErrorToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, after(3, time.Minute), workpool.WithShutdown(workpool.Abort, 0))
		time.AfterFunc(90*time.Second, func() { assert.NoError(t, p.Close()) })
		fails(t, workpool.ErrAborted, errNotYet)(p.Map(t.Context(), upTo(1)))
		synctest.Wait()
	})
}

func TestRetryDelay(t *testing.T) {
	asked := workpool.RetryAfter(3*time.Second, errNotYet)
	for _, err := range []error{asked, fmt.Errorf("handling 1: %w", asked)} {
		d, ok := workpool.RetryDelay(err)
		assert.True(t, ok)
		assert.Equal(t, 3*time.Second, d)
	}
	for _, err := range []error{nil, errNotYet, workpool.RetryAfter(-1, errNotYet)} {
		_, ok := workpool.RetryDelay(err)
		assert.False(t, ok, "%v", err)
	}
	again := func(context.Context, int) (int, error) { return 0, asked }
	once := workpool.Retry(again, 1, func(int) time.Duration { return 0 })
	_, err := workpool.Map(t.Context(), []int{1}, once)
	require.ErrorIs(t, err, errNotYet)
	_, ok := workpool.RetryDelay(err)
	assert.False(t, ok, "Retry had no attempt left")
}

func TestRetryAfter_TenThousandParkedTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := mustNew(t, after(3, time.Second), workpool.WithQueueDepth(10_000), workpool.WithResultBuffer(math.MaxInt))
		gives(t, 10_000)(p.SubmitAll(t.Context(), count(10_000)))
		closed(t, p)
		assert.Equal(t, 2*time.Second, time.Since(begin))
		assert.Len(t, collect(p), 10_000)
	})
}

// A parked task takes room. When its next attempt runs in place of the handler
// that waits for it, the room is free at once.
func TestRetryAfter_AnAttemptInPlaceOfAHandlerLeavesItsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0))
		inner := func(ctx context.Context) (int, error) {
			if _, err := after(2, time.Second)(ctx, 0); err != nil {
				return 0, err
			}
			return sleeping(10*time.Second, 0)(ctx)
		}
		submit(t, p, func(ctx context.Context) (int, error) { return p.Do(ctx, inner) })
		synctest.Wait()
		began := time.Now()
		submit(t, p, returning(0, nil))
		assert.Equal(t, time.Second, time.Since(began), "a worker is idle")
		closed(t, p)
		assert.Len(t, collect(p), 2)
	})
}

// What an attempt has tied to the contexts of its caller and of the pool is freed
// when there is no further one: else each such call would leave something behind.
func TestRetryAfter_AParkedTaskThatIsTakenBackLeavesNothingBehind(t *testing.T) {
	all := ways[int, int]("Do", "DoChan")
	all["SubmitCancel"] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) ([]int, error) {
		cancel, err := p.SubmitCancel(ctx, tasks[0])
		synctest.Wait()
		cancel()
		return nil, errors.Join(err, context.DeadlineExceeded)
	}
	eachNamed(t, all, func(t *testing.T, _ string, run way[int, int]) {
		var ended atomic.Int32
		p := mustNew(t, func(ctx context.Context, _ int) (int, error) {
			context.AfterFunc(ctx, func() { ended.Add(1) })
			return 0, workpool.RetryAfter(time.Hour, nil)
		}, workpool.WithoutResults())
		runs := func(n int) {
			for range n {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				fails(t, context.DeadlineExceeded)(run(ctx, p, 1))
				cancel()
			}
		}
		runs(200)
		before := heap()
		runs(2000)
		synctest.Wait()
		assert.Less(t, (heap()-before)/2000, 50, "bytes a call")
		assert.EqualValues(t, 2200, ended.Load(), "contexts of handlers that ended")
	})
}

// The same where closing ends the task, and the caller's context lives on.
func TestRetryAfter_AClosedPoolLeavesNothingWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		p := mustNew(t, func(ctx context.Context, _ int) (int, error) {
			context.AfterFunc(ctx, func() { ended <- ctx.Err() })
			return 0, workpool.RetryAfter(time.Hour, nil)
		}, workpool.WithShutdown(workpool.FinishRunning, 0))
		answer := p.DoChan(ctx, 1)
		synctest.Wait()
		closed(t, p)
		assert.ErrorIs(t, (<-answer).Err, workpool.ErrAborted)
		assert.ErrorIs(t, <-ended, context.Canceled)
	})
}

// A cancelled task keeps its place if the buffer has no room for its result. The
// worker that comes to it then tells of the last attempt as well.
func TestRetryAfter_CancelledBeforeItsNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithResultBuffer(1))
		cancel, err := p.SubmitCancel(t.Context(), returning(1, workpool.RetryAfter(time.Minute, errNotYet)))
		require.NoError(t, err)
		synctest.Wait()
		submit(t, p, returning(2, nil))
		synctest.Wait()
		cancel()
		time.Sleep(time.Hour)
		assert.Equal(t, 2, receive(t, p).Value)
		r := receive(t, p)
		fails(t, context.Canceled, errNotYet)(r.Value, r.Err)
		assert.Equal(t, []int{1, 1}, []int{r.Value, r.Attempt})
	})
}

func TestRetry_RunsAFailedTaskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := mustNew(t, workpool.Retry(failing(4), 5, seconds), workpool.WithWorkers(1))
		submit(t, p, 7)
		r := receive(t, p)
		require.NoError(t, r.Err)
		assert.Equal(t, 4, r.Attempt)
		assert.Equal(t, (1+2+3)*time.Second, time.Since(begin))
	})
}

func TestRetry_EndsWithTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, workpool.Retry(failing(9), 3, seconds))
		submit(t, p, 7)
		r := receive(t, p)
		assert.Equal(t, errFailed, r.Err)
		assert.Equal(t, 3, r.Attempt)
		assert.EqualValues(t, 1, p.Stats().Failed)
		_, err := p.Map(t.Context(), upTo(2))
		assert.Equal(t, errFailed, err)
	})
}

func TestRetry_CountsAttemptsThatTheHandlerAsksFor(t *testing.T) {
	for _, format := range []string{"%w", "wrapped: %w"} {
		bubble(t, format, func(t *testing.T) {
			begin := time.Now()
			p := mustNew(t, workpool.Retry(func(ctx context.Context, n int) (int, error) {
				value, err := after(9, time.Second)(ctx, n)
				return value, fmt.Errorf(format, err)
			}, 3, seconds))
			submit(t, p, 1)
			r := receive(t, p)
			require.ErrorIs(t, r.Err, errNotYet)
			require.ErrorContains(t, r.Err, "no attempt left")
			assert.Equal(t, 3, r.Attempt)
			assert.Equal(t, 2*time.Second, time.Since(begin), "the delays are the handler's")
		})
	}
}

func TestRetry_NotWhenTheContextHasEndedNorAfterAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, workpool.Retry(workpool.Call[int], 3, seconds))
		cancel, err := p.SubmitCancel(t.Context(), func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, errFailed
		})
		require.NoError(t, err)
		synctest.Wait()
		cancel()
		r := receive(t, p)
		assert.Equal(t, errFailed, r.Err)
		assert.Equal(t, 1, r.Attempt)
		submit(t, p, catchFire)
		r = receive(t, p)
		panicked(t, "on fire", r.Err)
		assert.Equal(t, 1, r.Attempt)
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
		p := mustNew(t, workpool.Timeout(workpool.Call[int], time.Second))
		_, err := p.Do(t.Context(), lasting(5*time.Second, 5))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "took longer than 1s")
		assert.Equal(t, time.Second, time.Since(begin))
		gives(t, 7)(p.Do(t.Context(), lasting(time.Second/2, 7)))
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
		_, err := mustNew(t, handler).Do(t.Context(), 1)
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
		require.ErrorContains(t, err, text)
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
		p := mustNew(t, workpool.Retry(workpool.Call[int], 5, seconds))
		begin := time.Now()
		for _, err := range []error{
			workpool.Permanent(errFailed),
			fmt.Errorf("wrapped: %w", workpool.Permanent(errFailed)),
			workpool.Permanent(workpool.RetryAfter(time.Hour, errFailed)),
		} {
			submit(t, p, returning(0, err))
			r := receive(t, p)
			require.ErrorIs(t, r.Err, errFailed)
			assert.True(t, workpool.IsPermanent(r.Err))
			assert.Equal(t, 1, r.Attempt)
		}
		assert.Zero(t, time.Since(begin))
	})
	require.NoError(t, workpool.Permanent(nil))
	assert.False(t, workpool.IsPermanent(errFailed))
	require.EqualError(t, workpool.Permanent(errFailed), errFailed.Error())
}
