package workpool_test

import (
	"context"
	"maps"
	"math"
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

func TestResize_DownLetsBusyWorkersFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(5))
		var before, after crowd
		submitN(t, p, 5, before.task)
		synctest.Wait()
		submitN(t, p, 12, after.task)
		require.NoError(t, p.Resize(2))
		assert.Equal(t, int32(5), before.now.Load(), "no running task is touched")
		assert.Equal(t, 5, p.Stats().Workers, "three of them have to finish first")

		begin := time.Now()
		closed(t, p)
		assert.Equal(t, 7*time.Second, time.Since(begin))
		assert.Equal(t, int32(2), after.most.Load(), "after that, only two run at once")
		results := byIndex(t, collect(p))
		require.Len(t, results, 17)
		for _, r := range results[5:] {
			assert.Contains(t, []int{1, 2}, r.Worker)
		}
	})
}

func TestResize_OfAnIdlePoolShowsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(3))
		for _, size := range []int{1, 7, 2, 2, 30, 1} {
			require.NoError(t, p.Resize(size))
			assert.Equal(t, size, p.Stats().Workers)
			var c crowd
			submitN(t, p, 40, c.task)
			for range 40 {
				r := receive(t, p)
				assert.GreaterOrEqual(t, r.Worker, 1)
				assert.LessOrEqual(t, r.Worker, size)
			}
			assert.Equal(t, int32(min(size, 40)), c.most.Load())
			assert.Equal(t, size, p.Stats().Workers)
		}
		for _, n := range []int{0, -1, math.MaxInt32} {
			require.ErrorIs(t, p.Resize(n), workpool.ErrInvalidOption)
		}
		closed(t, p)
		require.ErrorIs(t, p.Resize(1), workpool.ErrClosed)
		assert.Zero(t, p.Stats().Workers)
	})
}

func TestResize_LeavesNoGoroutineOfASurplusWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		synctest.Wait()
		others := goroutinesOfBubble()
		for _, size := range []int{50, 1, 7, 1} {
			require.NoError(t, p.Resize(size))
			release := occupy(t, p, size) // workers start with tasks
			release()
			synctest.Wait()
			assert.Equal(t, size, goroutinesOfBubble()-others)
		}
	})
}

func TestResize_WhilePaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(20))
		p.Pause()
		var c crowd
		submitN(t, p, 20, c.task)
		require.NoError(t, p.Resize(6))
		require.NoError(t, p.Resize(5))
		synctest.Wait()
		assert.Zero(t, c.now.Load(), "new workers are paused too")
		p.Resume()
		synctest.Wait()
		assert.Equal(t, int32(5), c.now.Load())
		closed(t, p)
		assert.Equal(t, int32(5), c.most.Load())
	})
}

func TestPause_KeepsWorkersFromTakingTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(3))
		release := occupy(t, p, 1)
		p.Pause()
		p.Pause() // twice is as good as once
		fill(t, p, 3, returning(1, nil))
		release()
		synctest.Wait()
		assert.Equal(t, workpool.Stats{Submitted: 4, Succeeded: 1, Queued: 3, Undelivered: 1}, counts(p.Stats()), "running tasks go on")
		p.Resume()
		p.Resume()
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, uint64(4), p.Stats().Succeeded)
	})
}

func TestPause_HoldsMapAndStreamWithoutLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(2))
		go func() {
			for range 5 {
				time.Sleep(1500 * time.Millisecond)
				p.Pause()
				time.Sleep(time.Minute)
				p.Resume()
			}
		}()
		tasks := slices.Repeat([]closure{napping}, 10)
		gives(t, make([]int, 10))(p.Map(t.Context(), tasks))
		assert.Len(t, byIndex(t, slices.Collect(p.Stream(t.Context(), slices.Values(tasks)))), 10)
		closed(t, p)
		synctest.Wait()
		time.Sleep(time.Hour) // Pause and Resume do nothing on a closed pool
	})
}

func TestResize_UpMakesRoomForWhoWaits(t *testing.T) {
	uses := maps.Clone(waysIn)
	delete(uses, "TrySubmit") // which does not wait
	eachNamed(t, uses, func(t *testing.T, _ string, submit wayIn) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		release := occupy(t, p, 1)
		var c crowd
		time.AfterFunc(time.Minute, func() {
			assert.Zero(t, c.most.Load())
			assert.NoError(t, p.Resize(3))
			synctest.Wait()
			assert.EqualValues(t, 2, c.now.Load())
		})
		submit(t, p, []closure{c.task, c.task})()
		release()
	})
}

// Resume starts workers for what was queued meanwhile, though others are surplus.
func TestResume_StartsWorkersBesideSurplusOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(8), workpool.WithoutResults())
		var release [9]chan struct{} // by worker
		for i := range release {
			release[i] = make(chan struct{})
		}
		submitN(t, p, 8, func(ctx context.Context) (int, error) {
			info, _ := workpool.InfoFrom(ctx)
			return until(release[info.Worker])(ctx)
		})
		synctest.Wait()
		require.NoError(t, p.Resize(2))
		close(release[1])
		close(release[2])
		synctest.Wait()
		require.NoError(t, p.Resize(4))
		p.Pause()
		var ran atomic.Int32
		submitN(t, p, 5, counted(&ran))
		p.Resume()
		synctest.Wait()
		assert.EqualValues(t, 5, ran.Load())
		assert.Equal(t, 4+4, p.Stats().Workers)
		for _, c := range release[3:] {
			close(c)
		}
		synctest.Wait()
		assert.Equal(t, 4, p.Stats().Workers)
	})
}

func TestResize_VeryManyWorkersStartWhenTasksWaitForThem(t *testing.T) {
	const many = 5000
	synctest.Test(t, func(t *testing.T) {
		before := goroutinesOfBubble()
		release := make(chan struct{})
		p := newClosures(t, workpool.WithWorkers(many), workpool.WithQueueDepth(0), workpool.WithoutResults())
		assert.Equal(t, many, p.Stats().Workers)
		assert.Equal(t, before, goroutinesOfBubble())
		fill(t, p, many, until(release))
		synctest.Wait()
		assert.Equal(t, many, p.Stats().Running)
		require.NoError(t, p.Resize(1))
		require.NoError(t, p.Resize(2*many))
		p.Pause()
		fill(t, p, 0, until(release))
		p.Resume()
		fill(t, p, many, until(release))
		synctest.Wait()
		assert.Equal(t, 2*many, p.Stats().Running)
		close(release)
		closed(t, p)
		assert.EqualValues(t, 2*many, p.Stats().Succeeded)
	})
}

// sleepy sleeps for as many milliseconds as the task says.
func sleepy(_ context.Context, n int) (int, error) {
	time.Sleep(time.Duration(n) * time.Millisecond)
	return n, nil
}

func TestElastic_GrowsWithTheTasksAndShrinksAfterThem(t *testing.T) {
	eachOf(t, upTo(4), func(t *testing.T, minimum int) {
		before := goroutinesOfBubble()
		p := mustNew(t, sleepy, workpool.WithWorkers(8), workpool.WithoutResults(), workpool.WithElastic(minimum, time.Second))
		workers := func(want int, when string) {
			t.Helper()
			synctest.Wait()
			assert.Equal(t, want, p.Stats().Workers, when)
		}
		workers(minimum, "at the beginning")
		for n := range 5 {
			submit(t, p, 100)
			workers(max(minimum, n+1), "one for each task")
		}
		submitN(t, p, 19, 100)
		workers(8, "and no more than there may be")
		require.NoError(t, p.Wait(t.Context()))
		time.Sleep(time.Second - time.Millisecond)
		workers(8, "they stay for a time")
		time.Sleep(200 * time.Millisecond)
		workers(minimum, "and then leave")
		assert.LessOrEqual(t, goroutinesOfBubble(), before+minimum, "with their goroutines")
		gives(t, 1)(p.Do(t.Context(), 1))
	})
}

// Each worker has something to do now and then, but two are enough for all.
func TestElastic_LeavesWhenFewerAreEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, sleepy, workpool.WithWorkers(16), workpool.WithoutResults(), workpool.WithElastic(0, time.Second))
		submitN(t, p, 16, 500)
		time.Sleep(55 * time.Millisecond) // so that no task comes in the moment in which a worker leaves
		for range 40 {
			time.Sleep(100 * time.Millisecond)
			submit(t, p, 10, 10)
		}
		synctest.Wait()
		assert.LessOrEqual(t, p.Stats().Workers, 2)
	})
}

// A task is submitted at the very moment at which a worker leaves.
func TestElastic_ASubmitThatRacesAnExpiryIsNotStranded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 10 * time.Millisecond
		p := mustNew(t, identity, workpool.WithWorkers(3), workpool.WithElastic(0, idle))
		for n := range 5000 {
			submit(t, p, n)
			require.Equal(t, n, receive(t, p).Value)
			time.Sleep(idle - time.Duration(n%3) + 1)
		}
	})
}

func TestElastic_ManySubmittersAtTheEdge(t *testing.T) {
	p := mustNew(t, identity, workpool.WithWorkers(4), workpool.WithElastic(0, time.Nanosecond), workpool.WithoutResults())
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for n := range 2000 {
				if n%2 == 0 {
					assert.NoError(t, p.Submit(t.Context(), n))
				} else {
					succeeds(t)(p.Do(t.Context(), n))
				}
				if n%500 == 0 {
					assert.NoError(t, p.Resize(1+n/500))
				}
			}
		})
	}
	group.Wait()
	closed(t, p)
	assert.EqualValues(t, 16_000, p.Stats().Succeeded)
}

func TestElastic_WorkersThatAreNotStartedCountAsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(3), workpool.WithQueueDepth(0), workpool.WithElastic(0, time.Second))
		fill(t, p, 3, napping)
		synctest.Wait()
		assert.Equal(t, 3, p.Stats().Running)
	})
}

func TestElastic_Resize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, sleepy, workpool.WithWorkers(2), workpool.WithElastic(2, time.Second), workpool.WithoutResults(),
			workpool.WithQueueDepth(100))
		err := p.Resize(1)
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
		require.ErrorContains(t, err, "Resize(1)")
		require.ErrorContains(t, err, "WithElastic")
		submitN(t, p, 50, 1000)
		synctest.Wait()
		assert.Equal(t, 2, p.Stats().Workers)
		require.NoError(t, p.Resize(20))
		synctest.Wait()
		assert.Equal(t, 20, p.Stats().Running, "more start at once for those that wait")
		require.NoError(t, p.Resize(3))
		time.Sleep(1500 * time.Millisecond)
		assert.Equal(t, 3, p.Stats().Workers)
		require.NoError(t, p.Wait(t.Context()))
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, 2, p.Stats().Workers)
	})
}

func TestElastic_PausedPoolStartsNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(3), workpool.WithElastic(0, time.Second))
		p.Pause()
		submit(t, p, upTo(3)...)
		synctest.Wait()
		assert.Zero(t, p.Stats().Workers)
		p.Resume()
		for range 3 {
			receive(t, p)
		}
	})
}
