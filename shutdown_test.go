package workpool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// obedient returns when its context ends, stubborn does not look at it. Both
// take an hour.
func obedient(ctx context.Context, n int) (int, error) {
	select {
	case <-time.After(time.Hour):
		return n, nil
	case <-ctx.Done():
		return n, context.Cause(ctx)
	}
}

func stubborn(_ context.Context, n int) (int, error) {
	time.Sleep(time.Hour)
	return n, nil
}

func TestRule5_ShutdownRunsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, obedient, workpool.WithWorkers(2), workpool.WithQueueDepth(4))
		_, err := p.SubmitAll(t.Context(), count(6))
		require.NoError(t, err)
		waiting := make(chan error)
		go func() { waiting <- p.Submit(context.Background(), 7) }()
		synctest.Wait()
		start := time.Now()
		ended := make(chan error)
		go func() { ended <- p.Shutdown(context.Background()) }()
		require.ErrorIs(t, <-waiting, workpool.ErrClosed, "at once")
		require.ErrorIs(t, p.Submit(t.Context(), 8), workpool.ErrClosed)
		require.ErrorIs(t, p.TrySubmit(8), workpool.ErrClosed)
		_, err = p.Do(t.Context(), 8)
		require.ErrorIs(t, err, workpool.ErrClosed)
		require.NoError(t, <-ended)
		assert.Equal(t, 3*time.Hour, time.Since(start))
		assert.Equal(t, uint64(6), p.Stats().Succeeded)
		assert.Len(t, collect(p), 6)
	})
}

func TestRule5_ShutdownCutShort(t *testing.T) {
	for _, handler := range []workpool.Handler[int, int]{obedient, stubborn} {
		synctest.Test(t, func(t *testing.T) {
			p := mustNew(t, handler, workpool.WithWorkers(2))
			_, err := p.SubmitAll(t.Context(), count(5))
			require.NoError(t, err)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err = p.Shutdown(ctx)
			assert.Equal(t, time.Minute, time.Since(start), "at once")
			var cut *workpool.ShutdownError
			require.ErrorAs(t, err, &cut)
			assert.Equal(t, workpool.ShutdownError{Aborted: 3, Running: 2, Cause: context.DeadlineExceeded}, *cut)
			require.ErrorIs(t, err, context.DeadlineExceeded)

			assert.Same(t, cut, p.Close(), "waits for what still runs")
			assert.Same(t, cut, p.Shutdown(ctx))
			for _, r := range collect(p) {
				switch {
				case r.Worker == 0:
					assert.Equal(t, workpool.ErrAborted, r.Err)
				case time.Since(start) == time.Minute:
					assert.Equal(t, workpool.ErrAborted, r.Err, "the cause of the handler's context")
				default:
					assert.Equal(t, time.Hour, time.Since(start))
					assert.NoError(t, r.Err)
				}
			}
			s := p.Stats()
			assert.Equal(t, uint64(3), s.Aborted)
			assert.Equal(t, uint64(2), s.Succeeded+s.Failed)
		})
	}
}

func TestRule5_CloseDoesWhatItIsTold(t *testing.T) {
	for _, c := range []struct {
		mode      workpool.ShutdownMode
		timeout   time.Duration
		takes     time.Duration
		succeeded uint64
		cut       bool
	}{
		{workpool.Drain, 0, 2 * time.Hour, 4, false},
		{workpool.Drain, 3 * time.Hour, 2 * time.Hour, 4, false},
		{workpool.Drain, 90 * time.Minute, 90 * time.Minute, 2, true},
		{workpool.FinishRunning, 0, time.Hour, 2, false},
		{workpool.FinishRunning, time.Minute, time.Minute, 0, true},
		{workpool.Abort, 0, 0, 0, false},
		{workpool.Abort, time.Minute, 0, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := mustNew(t, obedient, workpool.WithWorkers(2), workpool.WithShutdown(c.mode, c.timeout))
			_, err := p.SubmitAll(t.Context(), count(4))
			require.NoError(t, err)
			synctest.Wait()
			start := time.Now()
			err = p.Close()
			assert.Equal(t, c.takes, time.Since(start), "%+v", c)
			if c.cut {
				var cut *workpool.ShutdownError
				require.ErrorAs(t, err, &cut)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, 2, cut.Running)
			} else {
				require.NoError(t, err)
			}
			assert.Equal(t, err, p.Close())
			assert.Len(t, collect(p), 4)
			assert.Equal(t, c.succeeded, p.Stats().Succeeded, "%+v", c)
		})
	}
}

func TestShutdown_AllAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, obedient, workpool.WithWorkers(1), workpool.WithShutdown(workpool.FinishRunning, time.Minute))
		_, err := p.SubmitAll(t.Context(), count(3))
		require.NoError(t, err)
		synctest.Wait()
		outcomes := make(chan error)
		for range 3 {
			go func() { outcomes <- p.Shutdown(context.Background()) }()
		}
		synctest.Wait()
		for range 3 {
			go func() { outcomes <- p.Close() }() // cuts the drain short
		}
		first := <-outcomes
		var cut *workpool.ShutdownError
		require.ErrorAs(t, first, &cut)
		assert.Equal(t, 2, cut.Aborted)
		for range 5 {
			assert.Same(t, cut, <-outcomes)
		}
	})
}

func TestShutdown_EndedContextOnAnIdlePool(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 1000 {
		p := mustNew(t, identity)
		require.NoError(t, p.Shutdown(ctx), "there is nothing to abort")
		require.NoError(t, p.Shutdown(ctx))
	}
}

func TestWithContext_EndAborts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		because := errors.New("because")
		ctx, cancel := context.WithCancelCause(t.Context())
		p := mustNew(t, obedient, workpool.WithWorkers(1), workpool.WithContext(ctx))
		_, err := p.SubmitAll(t.Context(), count(3))
		require.NoError(t, err)
		cancel(because)
		for _, r := range collect(p) { // ends, without a Shutdown
			require.ErrorIs(t, r.Err, workpool.ErrAborted)
			require.ErrorIs(t, r.Err, because)
		}
		require.ErrorIs(t, p.Submit(t.Context(), 1), workpool.ErrClosed)
		var cut *workpool.ShutdownError
		require.ErrorAs(t, p.Shutdown(t.Context()), &cut)
		require.ErrorIs(t, cut, because)

		p = mustNew(t, identity, workpool.WithContext(ctx))
		require.ErrorIs(t, p.Submit(t.Context(), 1), workpool.ErrClosed, "the context had ended before")
		closed(t, p)
	})
}

// Whatever the moment of a Shutdown, each task is either refused or answered,
// nobody blocks, and no task runs afterwards.
func TestStress_SubmitAgainstShutdown(t *testing.T) {
	rounds := 30_000
	if testing.Short() {
		rounds = 5_000
	}
	for round := range rounds {
		var down, late atomic.Bool
		p := mustNew(t, func(_ context.Context, n int) (int, error) {
			if down.Load() {
				late.Store(true)
			}
			return n, nil
		}, workpool.WithWorkers(1+round%3), workpool.WithQueueDepth(round%4), workpool.WithResultBuffer(round%5))
		var accepted, answered atomic.Int64
		var wg sync.WaitGroup
		enough, many := make(chan struct{}), rand.Int64N(20)
		if round%2 == 1 {
			many = min(many, 1) // since nobody takes the results
		}
		for range 3 {
			wg.Go(func() {
				for p.Submit(context.Background(), 1) == nil {
					if accepted.Add(1) == many {
						close(enough)
					}
				}
			})
		}
		if round%2 == 0 {
			wg.Go(func() { answered.Add(int64(len(collect(p)))) })
		}
		if many > 0 {
			<-enough
		}
		require.NoError(t, p.Shutdown(context.Background()))
		down.Store(true)
		wg.Wait()
		answered.Add(int64(len(collect(p))))
		require.Equal(t, accepted.Load(), answered.Load())
		require.False(t, late.Load(), "a task ran after Shutdown")
		require.Zero(t, p.Stats().Workers)
	}
}

// All who ask when everything has ended get one error, also where it is made of two.
func TestShutdown_AllAgreeOnTheFailureOfAResultFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(ctx context.Context, n int) (int, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			return n, nil
		}, workpool.WithResultFunc(func(workpool.Result[int, int]) { panic("result function") }))
		require.NoError(t, p.Submit(t.Context(), 1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var cut *workpool.ShutdownError
		require.ErrorAs(t, p.Shutdown(ctx), &cut)

		err := p.Shutdown(t.Context())
		var panicked *workpool.PanicError
		require.ErrorAs(t, err, &cut)
		require.ErrorAs(t, err, &panicked)
		assert.True(t, err == p.Shutdown(t.Context()), "the same error")
		assert.True(t, err == p.Close(), "the same error")
	})
}
