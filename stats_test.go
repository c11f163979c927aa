package workpool_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

func TestStats_Waiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		release := occupy(t, p, 1)
		waiting := 0
		var all sync.WaitGroup
		for _, run := range callers {
			all.Go(func() { assert.NoError(t, run(t.Context(), p, returning(0, nil))) })
			synctest.Wait()
			waiting++
			assert.Equal(t, waiting, p.Stats().Waiting)
		}
		release()
		all.Wait()
		assert.Zero(t, p.Stats().Waiting)
		assert.Zero(t, p.Stats().Refused)
	})
}

// Cancelled are the tasks whose caller gave up before they ran, and Refused those that were
// not accepted.
func TestStats_CancelledAndRefused(t *testing.T) {
	for way, run := range callers {
		if way == "Submit" { // whose context bounds the wait for room alone
			continue
		}
		bubble(t, way, func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults())
			release := occupy(t, p, 1)
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for i := range 2 { // one is queued, the other one in line
				all.Go(func() { assert.Error(t, run(ctx, p, returning(0, nil))) })
				synctest.Wait()
				assert.Equal(t, 1, p.Stats().Queued)
				assert.Equal(t, i, p.Stats().Waiting)
			}
			cancel()
			all.Wait()
			s := p.Stats()
			assert.Positive(t, s.Cancelled)
			assert.Equal(t, uint64(2), s.Cancelled+s.Refused, "the one in line may have got the room of the other")
			assert.Equal(t, s.Cancelled, s.Aborted)
			assert.Zero(t, s.Queued+s.Waiting)
			assertSum(t, s)
			before := s
			if way != "Stream" { // which takes no task then
				assert.Error(t, run(ctx, p, returning(0, nil)), "its context has ended")
				before.Refused++
				assert.Equal(t, before, p.Stats())
			}
			release()
			closed(t, p)
			assert.ErrorIs(t, run(t.Context(), p, returning(0, nil)), workpool.ErrClosed)
			s = p.Stats()
			assert.Equal(t, before.Refused+1, s.Refused)
			assert.Equal(t, before.Cancelled, s.Cancelled)
		})
	}
}

// What an abort has ended is neither dropped nor cancelled.
func TestStats_AbortedIsNotCancelled(t *testing.T) {
	for way, run := range callers {
		bubble(t, way, func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults())
			require.NoError(t, p.Submit(t.Context(), untilEnd))
			synctest.Wait()
			var all sync.WaitGroup
			all.Go(func() { _ = run(t.Context(), p, returning(0, nil)) })
			synctest.Wait()
			require.Equal(t, 1, p.Stats().Queued)
			_ = p.Shutdown(endedContext())
			all.Wait()
			s := p.Stats()
			assert.Equal(t, uint64(1), s.Aborted)
			assert.Zero(t, s.Dropped+s.Cancelled)
			_ = p.Close()
		})
	}
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
		assert.True(t, p.Stats().Paused)
		p.Resume()
		assert.False(t, p.Stats().Paused)
		p.Pause()
		require.NoError(t, p.Resize(1))
		full.Paused, full.Size = true, 1
		full.Workers = 2 // until the other one is free
		assert.Equal(t, full, p.Stats())

		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, p.Shutdown(ended))
		require.Error(t, p.Close())
		p.Pause() // does nothing now
		assert.Equal(t, workpool.Stats{
			Name: "thumbnails", Size: 1, QueueDepth: 3, Closed: true, Undelivered: 5, Submitted: 5, Succeeded: 2, Aborted: 3, Refused: 4,
		}, p.Stats())
	})
}
