package workpool_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// sign is a priority: that of negative tasks is Low, of zero Normal, else High.
func sign(n int) workpool.Priority {
	return workpool.Priority(max(-1, min(1, n)))
}

func TestPriority_HigherFirstWithAShareForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(200), workpool.WithResultBuffer(600),
			workpool.WithPriority(sign))
		p.Pause()
		for range 160 {
			submit(t, p, -1, 0, 1)
		}
		closed(t, p)
		results := collect(p)
		require.Len(t, results, 480)
		var counts [3]int
		for _, r := range results[:160] {
			counts[r.Value+1]++
		}
		assert.Equal(t, [3]int{10, 30, 120}, counts, "of 16 tasks, 12 are High, 3 Normal and 1 Low")
	})
}

func TestPriority_AHigherOneOvertakesABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		p := mustNew(t, g.handle, workpool.WithWorkers(1), workpool.WithPriority(sign))
		submitN(t, p, 50, -1)
		<-g.began
		require.NoError(t, p.Submit(t.Context(), 1))
		g.end <- 0
		assert.Equal(t, 1, <-g.began, "before the 49 that have waited longer")
		close(g.end)
		go func() {
			for range g.began {
			}
		}()
		closed(t, p)
		close(g.began)
		assert.Len(t, collect(p), 51)
	})
}

func TestPriority_EachHasAQueueOfItsOwn(t *testing.T) {
	p := mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(3), workpool.WithPriority(sign))
	p.Pause()
	for _, n := range []int{-1, 0, 1} {
		for range 3 {
			require.NoError(t, p.TrySubmit(t.Context(), n))
		}
		require.ErrorIs(t, p.TrySubmit(t.Context(), n), workpool.ErrQueueFull)
	}
	assert.Equal(t, 9, p.Stats().Queued)
	closed(t, p)
	assert.Len(t, collect(p), 9)
}

func TestPriority_WaitingForRoomOfOneHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithPriority(sign))
		p.Pause()
		require.NoError(t, p.Submit(t.Context(), -1))
		submitted := make(chan error)
		go func() { submitted <- p.Submit(t.Context(), -2) }()
		synctest.Wait()
		require.NoError(t, p.Submit(t.Context(), 1))
		p.Resume()
		require.NoError(t, <-submitted)
		closed(t, p)
		assert.Len(t, collect(p), 3)
	})
}

func TestPriority_FunctionThatPanicsOrErrsIsAnErrorOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithPriority(func(n int) workpool.Priority {
			if n == 0 {
				panic("zero")
			}
			return workpool.Priority(n)
		}))
		all := ways[int, int]()
		all["Submit"] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) ([]int, error) {
			return nil, p.Submit(ctx, tasks[0])
		}
		all["TrySubmit"] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) ([]int, error) {
			return nil, p.TrySubmit(ctx, tasks[0])
		}
		all["SubmitCancel"] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) ([]int, error) {
			cancel, err := p.SubmitCancel(ctx, tasks[0])
			cancel()
			return nil, err
		}
		all["SubmitAll"] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) ([]int, error) {
			_, err := p.SubmitAll(ctx, slices.Values(tasks))
			return nil, err
		}
		for name, run := range all {
			_, err := run(t.Context(), p, 0)
			panicked(t, "zero", err)
			_, err = run(t.Context(), p, 7)
			require.ErrorIs(t, err, workpool.ErrInvalidOption, name)
			assert.ErrorContains(t, err, "WithPriority", name)
			assert.ErrorContains(t, err, "Priority(7)", name)
		}
		assert.Zero(t, p.Stats().Submitted)
	})
}

// A task that a handler waits for counts on a worker that was free, even if
// others of a higher priority come in between.
func TestPriority_TasksThatHandlersWaitForComeBeforeAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *workpool.Pool[int, int]
		p = mustNew(t, func(ctx context.Context, n int) (int, error) {
			if n >= 10 {
				return p.Do(ctx, -1)
			}
			return n, nil
		}, workpool.WithWorkers(2), workpool.WithQueueDepth(100), workpool.WithoutResults(), workpool.WithPriority(sign))
		var submitters sync.WaitGroup
		for range 8 {
			submitters.Go(func() {
				for n := range 1000 {
					assert.NoError(t, p.Submit(t.Context(), n%20))
				}
			})
		}
		submitters.Wait()
		require.NoError(t, p.Wait(t.Context()))
		closed(t, p)
		assert.EqualValues(t, 8000+4000, p.Stats().Succeeded)
	})
}

func TestPriority_NamesOfConstants(t *testing.T) {
	assert.Equal(t, []string{"Low", "Normal", "High", "Priority(3)"},
		[]string{workpool.Low.String(), workpool.Normal.String(), workpool.High.String(), workpool.Priority(3).String()})
}

// Those of one key that wait in line have different priorities: closing refuses all, and
// room admits all, in their order.
func TestPriority_TasksOfOneKeyInLine(t *testing.T) {
	for _, order := range [][]int{{-1, 0, 1}, {-1, 1, 0}, {0, -1, 1}, {0, 1, -1}, {1, -1, 0}, {1, 0, -1}} {
		for _, closes := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%v/closes=%v", order, closes), func(t *testing.T) {
				p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults(),
					workpool.WithPriority(sign), workpool.WithKey(func(int) int { return 0 }))
				p.Pause()
				for _, n := range order {
					require.NoError(t, p.TrySubmit(t.Context(), n))
				}
				var want error
				if closes {
					want = workpool.ErrClosed
				}
				answers := make(chan error, 6)
				for _, n := range append(order, order...) {
					go func() { answers <- p.Submit(t.Context(), n) }()
					synctest.Wait()
				}
				require.Equal(t, 6, p.Stats().Waiting)
				if closes {
					go func() { assert.NoError(t, p.Close()) }()
				} else {
					p.Resume()
				}
				synctest.Wait()
				for range 6 {
					require.ErrorIs(t, <-answers, want)
				}
				closed(t, p)
			})
		}
	}
}
