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

// A batch runs tasks that belong together, of which the first error ends all.
type batch func(t *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error)

// batches are all of them. ForEach has no values.
var batches = map[string]batch{
	"Map": batchOf(func(ctx context.Context, p *workpool.Pool[int, int], tasks []int) ([]int, error) {
		return p.Map(ctx, tasks)
	}),
	"Group": batchOf(func(ctx context.Context, p *workpool.Pool[int, int], tasks []int) ([]int, error) {
		g := p.Group(ctx)
		for _, task := range tasks {
			if g.Submit(task) != nil {
				break // Wait says why
			}
		}
		return g.Wait()
	}),
	"function Map": func(_ *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error) {
		return workpool.Map(ctx, tasks, handler, opts...)
	},
	"ForEach": func(_ *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error) {
		return nil, workpool.ForEach(ctx, slices.Values(tasks), func(ctx context.Context, task int) error {
			_, err := handler(ctx, task)
			return err
		}, opts...)
	},
}

// batchOf makes a pool for the batch that run runs.
func batchOf(run func(ctx context.Context, p *workpool.Pool[int, int], tasks []int) ([]int, error)) batch {
	return func(t *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error) {
		p := mustNew(t, handler, opts...)
		values, err := run(ctx, p, tasks)
		stats := p.Stats()
		assert.Zero(t, stats.Running, "every handler that was started has returned")
		assert.Zero(t, stats.Queued, "no task is left behind")
		closed(t, p)
		assert.Empty(t, collect(p), "it answers to its caller alone")
		return values, err
	}
}

func TestBatches_KeepTheInputOrder(t *testing.T) {
	for shape, opts := range shapes {
		for name, run := range batches {
			if name == "ForEach" { // which has no values
				continue
			}
			for _, n := range []int{0, 1, 40} {
				bubble(t, fmt.Sprintf("%s/%s/%d", shape, name, n), func(t *testing.T) {
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
			}
		}
	}
}

func TestBatches_TheFirstErrorCancelsTheOthers(t *testing.T) {
	for name, opts := range map[string][]workpool.Option{
		"defaults": nil,
		"narrow":   {workpool.WithQueueDepth(5), workpool.WithResultBuffer(0)},
		"keys":     {workpool.WithKey(func(n int) int { return n })},
		"priority": {workpool.WithPriority(func(int) workpool.Priority { return workpool.High })},
		"ordered":  {workpool.WithOrdered()},
	} {
		t.Run(name, func(t *testing.T) {
			eachNamed(t, batches, func(t *testing.T, _ string, run batch) {
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
					return 0, fmt.Errorf("task %d: %w", i, context.Cause(ctx))
				}, append(opts, workpool.WithWorkers(3))...)
				assert.True(t, err == errFailed, "the error itself, not a wrapper and not a later one: %v", err)
				assert.Nil(t, values)
				assert.Equal(t, time.Second+time.Minute, time.Since(begin), "it waits for the handlers that it started")
				assert.Equal(t, int32(3), finished.Load())
				assert.Equal(t, int32(3), started.Load(), "what had not started when the first one failed never starts")
			})
		})
	}
}

func TestBatches_FirstOfManyErrors(t *testing.T) {
	eachNamed(t, batches, func(t *testing.T, _ string, run batch) {
		_, err := run(t, t.Context(), upTo(4), func(_ context.Context, i int) (int, error) {
			time.Sleep(time.Duration(10-i) * time.Second)
			return 0, fmt.Errorf("task %d", i)
		}, workpool.WithWorkers(4))
		require.EqualError(t, err, "task 3", "the first in time")
	})
}

func TestBatches_ContextEndsOnTheWay(t *testing.T) {
	eachNamed(t, batches, func(t *testing.T, _ string, run batch) {
		reason := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2500*time.Millisecond, reason)
		defer cancel()
		var started, finished atomic.Int32
		values, err := run(t, ctx, upTo(100), func(ctx context.Context, i int) (int, error) {
			started.Add(1)
			defer finished.Add(1)
			value, err := lasting(time.Second, i)(ctx)
			if err != nil {
				assert.Equal(t, reason, err)
				time.Sleep(time.Second) // takes its time to end
			}
			return value, ctx.Err()
		}, workpool.WithWorkers(2), workpool.WithQueueDepth(2))
		fails(t, context.DeadlineExceeded, reason)(values, err)
		assert.Nil(t, values)
		assert.Equal(t, int32(6), started.Load(), "two in each second")
		assert.Equal(t, int32(6), finished.Load())
	})
}

func TestMap_NoTasksGiveAnEmptySlice(t *testing.T) {
	for _, run := range []batch{batches["Map"], batches["function Map"]} {
		for _, tasks := range [][]int{nil, {}} {
			gives(t, []int{})(run(t, t.Context(), tasks, square))
		}
	}
}

func TestMap_FunctionChecksItsArguments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails(t, workpool.ErrInvalidOption)(workpool.Map[int, int](t.Context(), upTo(3), nil))
		for _, opt := range []workpool.Option{workpool.WithWorkers(0), nil} {
			fails(t, workpool.ErrInvalidOption)(workpool.Map(t.Context(), upTo(3), square, opt))
		}
		gives(t, []int{0})(workpool.Map(t.Context(), upTo(1), square, workpool.WithElastic(2, time.Second)))
		fails(t, workpool.ErrInvalidOption)(workpool.Map(t.Context(), upTo(1), square, workpool.WithWorkers(1), workpool.WithElastic(2, time.Second)))
	})
}

func TestMap_EndOfThePoolsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := limited(t, time.Second)
		started := make(chan struct{}, 10)
		task := func(ctx context.Context, _ int) (int, error) {
			started <- struct{}{}
			return untilEnd(ctx)
		}
		p := mustNew(t, task, workpool.WithContext(ctx), workpool.WithWorkers(2))
		fails(t, workpool.ErrAborted, context.DeadlineExceeded)(p.Map(t.Context(), upTo(10)))
		assert.Len(t, started, 2)
		require.ErrorAs(t, p.Close(), new(*workpool.ShutdownError))
		_, err := workpool.Map(t.Context(), upTo(10), task, workpool.WithContext(ctx))
		require.Error(t, err, "its context has ended before")
	})
}

func TestMap_PoolClosesOnTheWay(t *testing.T) {
	eachOf(t, modes, func(t *testing.T, mode workpool.ShutdownMode) {
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
		if mode == workpool.Drain { // a Map that has begun is accepted as a whole
			gives(t, upTo(100))(values, err)
		} else {
			require.ErrorIs(t, err, workpool.ErrAborted)
			assert.EqualValues(t, 4, started.Load())
		}
		synctest.Wait()
		assertSum(t, p.Stats())
	})
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
		both.Go(func() { fails(t, errFailed)(p.Map(t.Context(), []int{-1, -1, -1, -1, -1})) })
		both.Go(func() { gives(t, upTo(20))(p.Map(t.Context(), upTo(20))) })
		both.Wait()
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
			require.NoError(t, workpool.ForEach(t.Context(), count(tasks), func(_ context.Context, task int) error {
				sum.Add(int64(task))
				n.Add(1)
				return nil
			}, opts...))
			assert.Equal(t, int64(tasks), n.Load())
			assert.Equal(t, int64(tasks*(tasks-1)/2), sum.Load())
		}
	}
}

// The sequence never ends: it is only pulled as far as there is room.
func TestForEach_TakesTheNextTaskWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pulled := 0
		err := workpool.ForEach(t.Context(), numbers(func() { pulled++ }), func(ctx context.Context, n int) error {
			if n == 100 {
				return errFailed
			}
			if n > 100 {
				<-ctx.Done()
			}
			return nil
		}, workpool.WithWorkers(4), workpool.WithQueueDepth(3), workpool.WithResultBuffer(2))
		assert.True(t, err == errFailed, "the error itself: %v", err)
		assert.LessOrEqual(t, pulled, 1+100+1+4+3+2)
	})
}

func TestForEach_APanicIsAnError(t *testing.T) {
	nothing := func(context.Context, int) error { return nil }
	panicked(t, "on fire", workpool.ForEach(t.Context(), count(10), func(context.Context, int) error { panic("on fire") }))
	panicked(t, "no more", workpool.ForEach(t.Context(), panicAfter(3), nothing))
	panicked(t, "no key", workpool.ForEach(t.Context(), count(10), nothing, workpool.WithKey(func(int) int { panic("no key") })))
	assert.ErrorIs(t, workpool.ForEach(t.Context(), count(10), func(ctx context.Context, _ int) error {
		_, err := exit(ctx)
		return err
	}), workpool.ErrGoexit)
}

// Whatever the handlers return, that the context has ended is told.
func TestForEach_TheEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tasks := range []iter.Seq[int]{count(1), count(3), count(1000)} {
			err := workpool.ForEach(limited(t, time.Second), tasks, func(ctx context.Context, _ int) error {
				<-ctx.Done()
				return errors.New("of the handler")
			}, workpool.WithWorkers(4))
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		}
		err := workpool.ForEach(endedContext(), count(3), func(context.Context, int) error { return errors.New("called") })
		assert.ErrorIs(t, err, context.Canceled)
		cause := errors.New("not needed any more")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		silent := func(yield func(int) bool) { // blocked, until the end
			yield(0)
			time.Sleep(time.Hour)
		}
		begin := time.Now()
		err = workpool.ForEach(ctx, silent, func(context.Context, int) error { return nil })
		fails(t, cause, context.Canceled)(0, err)
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
		require.NoError(t, workpool.ForEach(t.Context(), count(3), func(ctx context.Context, _ int) error {
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			assert.Equal(t, "each", info.Pool)
			if attempts.Add(1); info.Attempt < 2 {
				return workpool.RetryAfter(time.Second, nil)
			}
			return nil
		}, workpool.WithName("each")))
		assert.Equal(t, int32(6), attempts.Load())
	})
}

// Its pool ends with it, at the first error too.
func TestForEach_LeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := goroutinesOfBubble()
		for _, failure := range []error{nil, errFailed} {
			_ = workpool.ForEach(t.Context(), count(100), func(context.Context, int) error { return failure })
			synctest.Wait()
			assert.Equal(t, before, goroutinesOfBubble())
		}
	})
}
