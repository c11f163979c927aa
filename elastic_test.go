package workpool_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// sleepy sleeps for as many milliseconds as the task says.
func sleepy(_ context.Context, n int) (int, error) {
	time.Sleep(time.Duration(n) * time.Millisecond)
	return n, nil
}

func TestElastic_GrowsWithTheTasksAndShrinksAfterThem(t *testing.T) {
	for minimum := range 4 {
		synctest.Test(t, func(t *testing.T) {
			p := mustNew(t, sleepy, workpool.WithWorkers(8), workpool.WithoutResults(), workpool.WithElastic(minimum, time.Second))
			synctest.Wait()
			assert.Equal(t, minimum, p.Stats().Workers, "at the beginning")
			for n := range 5 {
				require.NoError(t, p.Submit(t.Context(), 100))
				synctest.Wait()
				assert.Equal(t, max(minimum, n+1), p.Stats().Workers, "one for each task")
			}
			submitN(t, p, 19, 100)
			synctest.Wait()
			assert.Equal(t, 8, p.Stats().Workers, "and no more than there may be")
			require.NoError(t, p.Wait(t.Context()))
			time.Sleep(time.Second - time.Millisecond)
			assert.Equal(t, 8, p.Stats().Workers, "they stay for a time")
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			assert.Equal(t, minimum, p.Stats().Workers, "and then leave")
			gives(t, 1)(p.Do(t.Context(), 1))
		})
	}
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

func TestElastic_IdlePoolHasNoGoroutineAndNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := goroutinesOfBubble()
		p := mustNew(t, sleepy, workpool.WithWorkers(8), workpool.WithElastic(0, time.Second), workpool.WithoutResults())
		submitN(t, p, 8, 10)
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Zero(t, p.Stats().Workers)
		assert.Equal(t, before, goroutinesOfBubble())
	})
}

// A task is submitted at the very moment at which a worker leaves.
func TestElastic_ASubmitThatRacesAnExpiryIsNotStranded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 10 * time.Millisecond
		p := mustNew(t, identity, workpool.WithWorkers(3), workpool.WithElastic(0, idle))
		for n := range 5000 {
			require.NoError(t, p.Submit(t.Context(), n))
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
				} else if _, err := p.Do(t.Context(), n); err != nil {
					t.Errorf("Do: %v", err)
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
		g := newGate()
		p := mustNew(t, g.handle, workpool.WithWorkers(3), workpool.WithQueueDepth(0), workpool.WithElastic(0, time.Second),
			workpool.WithoutResults())
		for n := range 3 {
			require.NoError(t, p.TrySubmit(t.Context(), n))
		}
		require.ErrorIs(t, p.TrySubmit(t.Context(), 3), workpool.ErrQueueFull)
		for range 3 {
			<-g.began
		}
		close(g.end)
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

func TestElastic_HandlersThatUseTheirPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *workpool.Pool[int, int]
		p = mustNew(t, func(ctx context.Context, n int) (int, error) {
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			if n < 2 {
				return 1, nil
			}
			a, err := p.Do(ctx, n-1)
			if err != nil {
				return 0, err
			}
			b, err := p.Do(ctx, n-2)
			return a + b, err
		}, workpool.WithWorkers(3), workpool.WithElastic(0, 5*time.Millisecond))
		gives(t, []int{1, 1, 2, 3, 5, 8, 13, 21, 34, 55})(p.Map(t.Context(), upTo(10)))
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
