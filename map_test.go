package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// A mapping is one of the two ways to run a slice of tasks.
type mapping func(t *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error)

func methodMap(t *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error) {
	p := mustNew(t, handler, opts...)
	values, err := p.Map(ctx, tasks)
	stats := p.Stats()
	assert.Zero(t, stats.Running, "every handler that Map started has returned")
	assert.Zero(t, stats.Queued, "no task of Map is left behind")
	closed(t, p)
	assert.Empty(t, collect(p), "Map answers to its caller alone")
	return values, err
}

func packageMap(_ *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error) {
	return workpool.Map(ctx, tasks, handler, opts...)
}

// eachMap runs test for the method Map and the function Map, in a bubble each.
func eachMap(t *testing.T, test func(t *testing.T, run mapping)) {
	t.Helper()
	t.Run("method", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, methodMap) })
	})
	t.Run("function", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, packageMap) })
	})
}

func TestMap_KeepsTheInputOrder(t *testing.T) {
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			eachMap(t, func(t *testing.T, run mapping) {
				t.Helper()
				const n = 40
				squares, err := run(t, t.Context(), upTo(n), func(_ context.Context, i int) (int, error) {
					time.Sleep(time.Duration(n-i) * time.Millisecond) // later tasks end first
					return i * i, nil
				}, opts...)
				require.NoError(t, err)
				require.Len(t, squares, n)
				for i, value := range squares {
					assert.Equal(t, i*i, value)
				}
			})
		})
	}
}

func TestMap_NoTasksGiveAnEmptySlice(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		for _, tasks := range [][]int{nil, {}} {
			values, err := run(t, t.Context(), tasks, square)
			require.NoError(t, err)
			assert.NotNil(t, values)
			assert.Empty(t, values)
		}
	})
}

func TestMap_FirstErrorCancelsTheRest(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		failure := errors.New("no such thing")
		var started atomic.Int32
		begin := time.Now()
		values, err := run(t, t.Context(), upTo(100), func(ctx context.Context, i int) (int, error) {
			started.Add(1)
			if i == 1 {
				time.Sleep(time.Second)
				return 0, failure
			}
			<-ctx.Done()
			assert.Equal(t, context.Canceled, ctx.Err())
			return 0, fmt.Errorf("task %d: %w", i, ctx.Err())
		}, workpool.WithWorkers(3), workpool.WithQueueDepth(5))
		assert.True(t, err == failure, "the error itself, not a wrapper and not a later one: %v", err)
		assert.Nil(t, values)
		assert.Equal(t, time.Second, time.Since(begin))
		assert.Equal(t, int32(3), started.Load(), "what had not started when the first one failed never starts")
	})
}

func TestMap_FirstOfManyErrors(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		_, err := run(t, t.Context(), upTo(4), func(_ context.Context, i int) (int, error) {
			time.Sleep(time.Duration(10-i) * time.Second)
			return 0, fmt.Errorf("task %d", i)
		}, workpool.WithWorkers(4))
		require.EqualError(t, err, "task 3", "the first in time")
	})
}

func TestMap_WaitsForTheHandlersThatItStarted(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		failure := errors.New("no such thing")
		begin := time.Now()
		var finished bool
		_, err := run(t, t.Context(), upTo(2), func(_ context.Context, i int) (int, error) {
			if i == 1 {
				return 0, failure
			}
			time.Sleep(time.Minute) // and ignore the context
			finished = true
			return 0, nil
		}, workpool.WithWorkers(2))
		assert.Equal(t, failure, err)
		assert.True(t, finished)
		assert.Equal(t, time.Minute, time.Since(begin))
	})
}

func TestMap_EndedContextRunsNothing(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		reason := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		values, err := run(t, ctx, upTo(10), func(context.Context, int) (int, error) {
			assert.Fail(t, "no task must run")
			return 0, nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, reason)
		assert.Nil(t, values)
	})
}

func TestMap_ContextEndsOnTheWay(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		reason := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2500*time.Millisecond, reason)
		defer cancel()
		var started, finished atomic.Int32
		values, err := run(t, ctx, upTo(100), func(ctx context.Context, i int) (int, error) {
			started.Add(1)
			defer finished.Add(1)
			select {
			case <-ctx.Done():
				assert.Equal(t, reason, context.Cause(ctx))
				time.Sleep(time.Second) // takes its time to end
				return 0, ctx.Err()
			case <-time.After(time.Second):
				return i, nil
			}
		}, workpool.WithWorkers(2), workpool.WithQueueDepth(2))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, reason)
		assert.Nil(t, values)
		assert.Equal(t, int32(6), started.Load(), "two in each second")
		assert.Equal(t, int32(6), finished.Load())
	})
}

func TestMap_HandlerSeesTheContextOfTheCaller(t *testing.T) {
	type key struct{}
	eachMap(t, func(t *testing.T, run mapping) {
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "mine"), time.Hour)
		defer cancel()
		want, _ := ctx.Deadline()
		_, err := run(t, ctx, upTo(5), func(ctx context.Context, i int) (int, error) {
			deadline, _ := ctx.Deadline()
			assert.Equal(t, want, deadline)
			assert.Equal(t, "mine", ctx.Value(key{}))
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			assert.Equal(t, workpool.Info{Pool: "squares", Worker: info.Worker, Index: uint64(i), Attempt: 1}, info)
			return i, nil
		}, workpool.WithName("squares"))
		require.NoError(t, err)
	})
}

func TestMap_FunctionChecksItsArguments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails(t, workpool.ErrInvalidOption)(workpool.Map[int, int](t.Context(), upTo(3), nil))
		fails(t, workpool.ErrInvalidOption)(workpool.Map(t.Context(), upTo(3), square, workpool.WithWorkers(0)))
		fails(t, workpool.ErrInvalidOption)(workpool.Map(t.Context(), upTo(3), square, nil))
	})
}

func TestMap_EndOfThePoolsContext(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		started := make(chan struct{}, 10)
		p := mustNew(t, func(ctx context.Context, _ int) (int, error) {
			started <- struct{}{}
			return untilEnd(ctx)
		}, workpool.WithContext(ctx), workpool.WithWorkers(2))
		_, err := p.Map(t.Context(), upTo(10))
		require.ErrorIs(t, err, workpool.ErrAborted)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Len(t, started, 2)
		var cutShort *workpool.ShutdownError
		require.ErrorAs(t, p.Close(), &cutShort)

		_, err = workpool.Map(t.Context(), upTo(10), func(ctx context.Context, _ int) (int, error) { return untilEnd(ctx) },
			workpool.WithContext(ctx))
		require.Error(t, err, "its context has ended before")
	})
}

func TestMap_ClosedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		closed(t, p)
		values, err := p.Map(t.Context(), upTo(3))
		require.ErrorIs(t, err, workpool.ErrClosed)
		assert.Nil(t, values)
	})
}

func TestMap_PoolClosesOnTheWay(t *testing.T) {
	for mode, wantErr := range map[workpool.ShutdownMode]error{
		workpool.Drain:         nil, // a Map that has begun is accepted as a whole
		workpool.FinishRunning: workpool.ErrAborted,
		workpool.Abort:         workpool.ErrAborted,
	} {
		bubble(t, mode.String(), func(t *testing.T) {
			var started, finished atomic.Int32
			p := mustNew(t, func(_ context.Context, i int) (int, error) {
				started.Add(1)
				time.Sleep(time.Second)
				finished.Add(1)
				return i, nil
			}, workpool.WithWorkers(2), workpool.WithQueueDepth(2), workpool.WithShutdown(mode, 0))
			go func() {
				time.Sleep(1500 * time.Millisecond)
				assert.NoError(t, p.Close())
				assert.Equal(t, started.Load(), finished.Load())
			}()
			values, err := p.Map(t.Context(), upTo(100))
			require.ErrorIs(t, err, wantErr)
			if wantErr == nil {
				assert.Equal(t, upTo(100), values)
			} else {
				assert.EqualValues(t, 4, started.Load())
			}
			synctest.Wait()
			stats := p.Stats()
			assert.Equal(t, stats.Submitted, stats.Succeeded+stats.Failed+stats.Aborted)
		})
	}
}

func TestMap_ErrorOfOneLeavesTheOtherAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("no such thing")
		p := mustNew(t, func(ctx context.Context, i int) (int, error) {
			time.Sleep(time.Second)
			if i < 0 {
				return 0, failure
			}
			return i, ctx.Err()
		}, workpool.WithWorkers(2))
		var both sync.WaitGroup
		both.Go(func() {
			_, err := p.Map(t.Context(), []int{-1, -1, -1, -1, -1})
			assert.Equal(t, failure, err)
		})
		both.Go(func() {
			gives(t, upTo(20))(p.Map(t.Context(), upTo(20)))
		})
		both.Wait()
	})
}

func TestMap_FunctionWithFewTasksKeepsTheElasticMinimum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gives(t, []int{0})(workpool.Map(t.Context(), upTo(1), square, workpool.WithElastic(2, time.Second)))
		fails(t, workpool.ErrInvalidOption)(workpool.Map(t.Context(), upTo(1), square, workpool.WithWorkers(1), workpool.WithElastic(2, time.Second)))
	})
}
