package workpool_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

func TestWait_ReturnsWhenAllIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2))
		require.NoError(t, p.Wait(t.Context()), "nothing to wait for")
		for round := range 3 {
			begin := time.Now()
			var c crowd
			submitN(t, p, 6, c.task)
			p.DoChan(t.Context(), c.task)
			require.NoError(t, p.Wait(t.Context()))
			assert.Equal(t, 4*time.Second, time.Since(begin), "round %d", round)
			stats := p.Stats()
			assert.Zero(t, stats.Queued+stats.Running)
			assert.Equal(t, 6*(1+round), stats.Undelivered, "receivers are not waited for")
		}
	})
}

func TestWait_ManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		release := occupy(t, p, 1)
		var returned atomic.Int32
		for range 5 {
			go func() {
				assert.NoError(t, p.Wait(t.Context()))
				returned.Add(1)
			}()
		}
		synctest.Wait()
		assert.Zero(t, returned.Load())
		release()
		synctest.Wait()
		assert.Equal(t, int32(5), returned.Load())
	})
}

func TestWait_ContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		release := occupy(t, p, 1)
		reason := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, reason)
		defer cancel()
		begin := time.Now()
		err := p.Wait(ctx)
		assert.Equal(t, time.Second, time.Since(begin))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, reason)
		var none context.Context
		require.Error(t, p.Wait(none))
		release()
		require.NoError(t, p.Wait(t.Context()), "the pool goes on")
		closed(t, p)
		require.NoError(t, p.Wait(t.Context()), "nothing runs in a closed pool")
	})
}

func TestWait_DuringAShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		var c crowd
		submitN(t, p, 3, c.task)
		begin := time.Now()
		go func() { assert.NoError(t, p.Shutdown(t.Context())) }()
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, 3*time.Second, time.Since(begin))
		synctest.Wait()
	})
}

func TestWait_EndsWhenTheLastQueuedTaskIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t)
		p.Pause()
		ctx, cancel := context.WithCancel(t.Context())
		p.DoChan(ctx, returning(1, nil))
		waited := make(chan error, 1)
		go func() { waited <- p.Wait(t.Context()) }()
		synctest.Wait()
		require.Empty(t, waited)
		cancel()
		require.NoError(t, <-waited)
	})
}

func TestWait_CoversTheResultFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Bool
		p := mustNew(t, square, workpool.WithResultFunc(func(workpool.Result[int, int]) {
			time.Sleep(time.Second)
			told.Store(true)
		}))
		require.NoError(t, p.Submit(t.Context(), 1))
		require.NoError(t, p.Wait(t.Context()))
		assert.True(t, told.Load())
	})
}

func TestStats_SaysWhatThePoolIsAndWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithName("thumbnails"), workpool.WithWorkers(2), workpool.WithQueueDepth(3), workpool.WithResultBuffer(0))
		is := workpool.Stats{Name: "thumbnails", Size: 2, QueueDepth: 3, Workers: 2}
		assert.Equal(t, is, p.Stats())

		require.NoError(t, p.Submit(t.Context(), returning(0, workpool.RetryAfter(time.Hour, nil))))
		synctest.Wait()
		parked := is
		parked.Submitted, parked.Queued, parked.Parked = 1, 1, 1
		assert.Equal(t, parked, p.Stats())

		for range 4 { // two have results that nobody takes
			require.NoError(t, p.Submit(t.Context(), returning(1, nil)))
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			go func() { assert.ErrorIs(t, p.Submit(ctx, returning(1, nil)), workpool.ErrQueueFull) }()
		}
		require.ErrorIs(t, p.TrySubmit(t.Context(), returning(1, nil)), workpool.ErrQueueFull)
		synctest.Wait()
		full := is
		full.Submitted, full.Succeeded, full.Queued, full.Parked, full.Undelivered, full.Held, full.Waiting, full.Refused = 5, 2, 3, 1, 2, 2, 3, 1
		assert.Equal(t, full, p.Stats())
		cancel()
		synctest.Wait()
		full.Waiting, full.Refused = 0, 4
		assert.Equal(t, full, p.Stats())

		p.Pause()
		require.NoError(t, p.Resize(1))
		full.Paused, full.Size = true, 1
		full.Workers = 2 // until the other one is free
		assert.Equal(t, full, p.Stats())

		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, p.Shutdown(ended))
		require.Error(t, p.Close())
		assert.Equal(t, workpool.Stats{
			Name: "thumbnails", Size: 1, QueueDepth: 3, Closed: true, Undelivered: 5, Submitted: 5, Succeeded: 2, Aborted: 3, Refused: 4,
		}, p.Stats())
	})
}

func TestInfoFrom_TellsWhichTaskRunsWhere(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		_, ok := workpool.InfoFrom(t.Context())
		assert.False(t, ok, "not the context of a handler")

		seen := map[uint64]bool{}
		p := newClosures(t, workpool.WithWorkers(3), workpool.WithName("thumbnails"))
		for range 20 {
			value := make(chan workpool.Info, 1)
			require.NoError(t, p.Submit(t.Context(), func(ctx context.Context) (int, error) {
				info, ok := workpool.InfoFrom(ctx)
				assert.True(t, ok)
				child, cancel := context.WithTimeout(context.WithValue(ctx, key{}, 1), time.Hour)
				defer cancel()
				derived, ok := workpool.InfoFrom(child)
				assert.True(t, ok)
				assert.Equal(t, info, derived)
				value <- info
				return 0, nil
			}))
			r, info := receive(t, p), <-value
			assert.Equal(t, workpool.Info{Pool: "thumbnails", Worker: r.Worker, Index: r.Index, Attempt: r.Attempt}, info)
			assert.Contains(t, []int{1, 2, 3}, info.Worker)
			assert.False(t, seen[info.Index], "an index of its own")
			seen[info.Index] = true
		}
	})
}

func TestInfoFrom_TheInnermostPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := newClosures(t, workpool.WithName("outer"))
		inner := newClosures(t, workpool.WithName("inner"))
		_, err := outer.Do(t.Context(), func(ctx context.Context) (int, error) {
			_, err := inner.Do(ctx, func(ctx context.Context) (int, error) {
				info, ok := workpool.InfoFrom(ctx)
				assert.True(t, ok)
				assert.Equal(t, "inner", info.Pool)
				return 0, nil
			})
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			assert.Equal(t, "outer", info.Pool)
			return 0, err
		})
		require.NoError(t, err)
		closed(t, inner)
	})
}
