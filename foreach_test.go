package workpool_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

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
		const tasks = 10_000
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

func TestForEach_OfNoTasks(t *testing.T) {
	nothing := func(context.Context, int) error { return errors.New("called") }
	require.NoError(t, workpool.ForEach(t.Context(), count(0), nothing))
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
		failure := errors.New("no such thing")
		err := workpool.ForEach(t.Context(), endless, func(ctx context.Context, n int) error {
			if n == 100 {
				return failure
			}
			if n > 100 {
				<-ctx.Done()
			}
			return nil
		}, workpool.WithWorkers(4), workpool.WithQueueDepth(3), workpool.WithResultBuffer(2))
		assert.True(t, err == failure, "the error itself: %v", err)
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
			failure := errors.New("no such thing")
			var running, ran atomic.Int32
			begin := time.Now()
			err := workpool.ForEach(t.Context(), count(1000), func(ctx context.Context, n int) error {
				running.Add(1)
				defer running.Add(-1)
				ran.Add(1)
				if n == 2 {
					time.Sleep(time.Second)
					return failure
				}
				<-ctx.Done()
				time.Sleep(time.Second)
				return context.Cause(ctx)
			}, append(opts, workpool.WithWorkers(4))...)
			assert.True(t, err == failure, "the error itself: %v", err)
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
