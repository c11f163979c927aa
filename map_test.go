package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
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
		var started, finished atomic.Int32
		begin := time.Now()
		values, err := run(t, t.Context(), upTo(100), func(ctx context.Context, i int) (int, error) {
			started.Add(1)
			defer finished.Add(1)
			if i == 1 {
				time.Sleep(time.Second)
				return 0, errFailed
			}
			<-ctx.Done()
			assert.Equal(t, context.Canceled, ctx.Err())
			time.Sleep(time.Minute)
			return 0, fmt.Errorf("task %d: %w", i, ctx.Err())
		}, workpool.WithWorkers(3), workpool.WithQueueDepth(5))
		assert.True(t, err == errFailed, "the error itself, not a wrapper and not a later one: %v", err)
		assert.Nil(t, values)
		assert.Equal(t, time.Second+time.Minute, time.Since(begin), "it waits for the handlers that it started")
		assert.Equal(t, int32(3), finished.Load())
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
		fails(t, workpool.ErrAborted, context.DeadlineExceeded)(p.Map(t.Context(), upTo(10)))
		assert.Len(t, started, 2)
		var cutShort *workpool.ShutdownError
		require.ErrorAs(t, p.Close(), &cutShort)

		_, err := workpool.Map(t.Context(), upTo(10), func(ctx context.Context, _ int) (int, error) { return untilEnd(ctx) },
			workpool.WithContext(ctx))
		require.Error(t, err, "its context has ended before")
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
		p := mustNew(t, func(ctx context.Context, i int) (int, error) {
			time.Sleep(time.Second)
			if i < 0 {
				return 0, errFailed
			}
			return i, ctx.Err()
		}, workpool.WithWorkers(2))
		var both sync.WaitGroup
		both.Go(func() {
			_, err := p.Map(t.Context(), []int{-1, -1, -1, -1, -1})
			assert.Equal(t, errFailed, err)
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

func TestForEach_CallsDoForEveryTask(t *testing.T) {
	for _, opts := range [][]workpool.Option{
		nil,
		{workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithResultBuffer(0)},
		{workpool.WithWorkers(7)},
		{workpool.WithElastic(0, time.Second)},
		{workpool.WithKey(func(n int) int { return n % 3 })},
		{workpool.WithPriority(sign)},
		{workpool.WithOrdered()},
	} {
		for _, tasks := range []int{0, 10_000} {
			var sum, n atomic.Int64
			err := workpool.ForEach(t.Context(), count(tasks), func(_ context.Context, task int) error {
				sum.Add(int64(task))
				n.Add(1)
				return nil
			}, opts...)
			require.NoError(t, err)
			assert.Equal(t, int64(tasks), n.Load())
			assert.Equal(t, int64(tasks*(tasks-1)/2), sum.Load())
		}
	}
}

// The sequence never ends: it is only pulled as far as there is room.
func TestForEach_TakesTheNextTaskWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pulled := 0
		endless := func(yield func(int) bool) {
			for yield(pulled) {
				pulled++
			}
		}
		err := workpool.ForEach(t.Context(), endless, func(ctx context.Context, n int) error {
			if n == 100 {
				return errFailed
			}
			if n > 100 {
				<-ctx.Done()
			}
			return nil
		}, workpool.WithWorkers(4), workpool.WithQueueDepth(3), workpool.WithResultBuffer(2))
		assert.True(t, err == errFailed, "the error itself: %v", err)
		assert.LessOrEqual(t, pulled, 100+1+4+3+2)
	})
}

func TestForEach_TheFirstErrorCancelsTheOthers(t *testing.T) {
	for _, opts := range [][]workpool.Option{
		nil,
		{workpool.WithOrdered()},
		{workpool.WithKey(func(n int) int { return n })},
		{workpool.WithPriority(func(int) workpool.Priority { return workpool.High })},
	} {
		synctest.Test(t, func(t *testing.T) {
			var running, ran atomic.Int32
			begin := time.Now()
			err := workpool.ForEach(t.Context(), count(1000), func(ctx context.Context, n int) error {
				running.Add(1)
				defer running.Add(-1)
				ran.Add(1)
				if n == 2 {
					time.Sleep(time.Second)
					return errFailed
				}
				<-ctx.Done()
				time.Sleep(time.Second)
				return context.Cause(ctx)
			}, append(opts, workpool.WithWorkers(4))...)
			assert.True(t, err == errFailed, "the error itself: %v", err)
			assert.Equal(t, 2*time.Second, time.Since(begin))
			assert.Zero(t, running.Load(), "it waits for what runs")
			assert.Equal(t, int32(4), ran.Load(), "and begins no more")
		})
	}
}

func TestForEach_APanicIsAnError(t *testing.T) {
	var panicked *workpool.PanicError
	err := workpool.ForEach(t.Context(), count(10), func(_ context.Context, n int) error {
		if n == 5 {
			panic("on fire")
		}
		return nil
	})
	require.ErrorAs(t, err, &panicked)
	assert.Equal(t, "on fire", panicked.Value)

	err = workpool.ForEach(t.Context(), panicAfter(3), func(context.Context, int) error { return nil })
	require.ErrorAs(t, err, &panicked)

	err = workpool.ForEach(t.Context(), count(10), func(ctx context.Context, _ int) error {
		_, err := exit(ctx)
		return err
	})
	assert.ErrorIs(t, err, workpool.ErrGoexit)

	key := workpool.WithKey(func(int) int { panic("no key") })
	err = workpool.ForEach(t.Context(), count(10), func(context.Context, int) error { return nil }, key)
	require.ErrorAs(t, err, &panicked)
	assert.Equal(t, "no key", panicked.Value)
}

// Whatever the handlers return, that the context has ended is told.
func TestForEach_TheEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tasks := range []iter.Seq[int]{count(1), count(3), count(1000)} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := workpool.ForEach(ctx, tasks, func(ctx context.Context, _ int) error {
				<-ctx.Done()
				return errors.New("of the handler")
			}, workpool.WithWorkers(4))
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		for _, ctx := range []context.Context{endedContext()} {
			err := workpool.ForEach(ctx, count(3), func(context.Context, int) error { return errors.New("called") })
			assert.ErrorIs(t, err, context.Canceled)
		}
		cause := errors.New("not needed any more")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		silent := func(yield func(int) bool) { // blocked, until the end
			yield(0)
			time.Sleep(time.Hour)
		}
		begin := time.Now()
		err := workpool.ForEach(ctx, silent, func(context.Context, int) error { return nil })
		assert.ErrorIs(t, err, cause)
		assert.ErrorIs(t, err, context.Canceled)
		assert.Less(t, time.Since(begin), 2*time.Second)
		time.Sleep(2 * time.Hour)
	})
}

func TestForEach_RefusesMistakes(t *testing.T) {
	nothing := func(context.Context, int) error { return nil }
	assert.ErrorIs(t, workpool.ForEach(t.Context(), count(1), nil), workpool.ErrInvalidOption)
	assert.ErrorIs(t, workpool.ForEach(t.Context(), count(1), nothing, workpool.WithWorkers(0)), workpool.ErrInvalidOption)
	require.Error(t, workpool.ForEach(t.Context(), nil, nothing))
	require.Error(t, workpool.ForEach(nil, count(1), nothing)) //nolint:staticcheck // that is what it is about
}

func TestForEach_RetriesAndOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int32
		err := workpool.ForEach(t.Context(), slices.Values([]int{1, 2, 3}), func(ctx context.Context, _ int) error {
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			assert.Equal(t, "each", info.Pool)
			if attempts.Add(1); info.Attempt < 2 {
				return workpool.RetryAfter(time.Second, nil)
			}
			return nil
		}, workpool.WithName("each"))
		require.NoError(t, err)
		assert.Equal(t, int32(6), attempts.Load())
	})
}

// Its pool ends with it, at the first error too.
func TestForEach_LeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := goroutinesOfBubble()
		for _, failure := range []error{nil, errors.New("no such thing")} {
			_ = workpool.ForEach(t.Context(), count(100), func(context.Context, int) error { return failure })
			synctest.Wait()
			assert.Equal(t, before, goroutinesOfBubble())
		}
	})
}
