package workpool_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

func TestRule4_ClosingNeverWaitsForTheConsumer(t *testing.T) {
	for _, mode := range []workpool.ShutdownMode{workpool.Drain, workpool.FinishRunning, workpool.Abort} {
		synctest.Test(t, func(t *testing.T) {
			p := mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(4), workpool.WithResultBuffer(1),
				workpool.WithShutdown(mode, 0))
			accepted := 0
			for p.TrySubmit(accepted) == nil {
				accepted++
				synctest.Wait()
			}
			assert.Equal(t, 2+4+1, accepted)
			closed(t, p) // nobody has received anything
			s := p.Stats()
			assert.Equal(t, accepted, s.Undelivered)
			assert.Zero(t, s.Workers)
			results := collect(p)
			assert.Len(t, results, accepted)
			for _, r := range results {
				if mode != workpool.Drain && r.Worker == 0 {
					assert.ErrorIs(t, r.Err, workpool.ErrAborted)
				} else {
					assert.NoError(t, r.Err)
				}
			}
			assert.Empty(t, collect(p), "each once")
		})
	}
}

func TestResults_BreakLosesNothing(t *testing.T) {
	const n = 20
	for at := range n {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithResultBuffer(3))
		go func() {
			_, err := p.SubmitAll(context.Background(), count(n))
			assert.NoError(t, err)
			assert.NoError(t, p.Close())
		}()
		var got []int
		for r := range p.Results() {
			got = append(got, r.Task)
			if len(got) == at+1 {
				break
			}
		}
		for r := range p.Results() {
			got = append(got, r.Task)
		}
		for i, task := range got {
			assert.Equal(t, i, task)
		}
		assert.Len(t, got, n)
	}
}

func TestResults_PanicOfTheLoopLosesNothingElse(t *testing.T) {
	p := mustNew(t, identity, workpool.WithWorkers(1))
	_, err := p.SubmitAll(t.Context(), count(3))
	require.NoError(t, err)
	closed(t, p)
	assert.Panics(t, func() {
		for range p.Results() {
			panic("loop")
		}
	})
	assert.Len(t, collect(p), 2)
}

func TestResults_SeveralReceivers(t *testing.T) {
	const n, receivers = 10_000, 5
	p := mustNew(t, identity, workpool.WithWorkers(3), workpool.WithResultBuffer(2))
	var mu sync.Mutex
	seen := map[int]int{}
	var wg sync.WaitGroup
	for range receivers {
		wg.Go(func() {
			for { // an endless row of short ranges
				received := false
				for r := range p.Results() {
					received = true
					mu.Lock()
					seen[r.Task]++
					mu.Unlock()
					if r.Task%3 == 0 {
						break
					}
				}
				if !received {
					return
				}
			}
		})
	}
	_, err := p.SubmitAll(t.Context(), count(n))
	require.NoError(t, err)
	closed(t, p)
	wg.Wait()
	assert.Len(t, seen, n)
	for task, times := range seen {
		assert.Equal(t, 1, times, "task %d", task)
	}
}

func TestResults_WithoutBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithResultBuffer(0))
		require.NoError(t, p.Submit(t.Context(), 1))
		synctest.Wait()
		require.NoError(t, p.Submit(t.Context(), 2))
		synctest.Wait()
		s := p.Stats()
		assert.Equal(t, 1, s.Undelivered)
		assert.Equal(t, 1, s.Queued, "the worker waits with its result")
		assert.Zero(t, s.Running)
		for range p.Results() {
			break
		}
		synctest.Wait()
		assert.Equal(t, 1, p.Stats().Undelivered, "the next one")
		closed(t, p)
		assert.Len(t, collect(p), 1)
	})
}

func TestWithoutResults(t *testing.T) {
	p := mustNew(t, moody, workpool.WithoutResults())
	assert.Empty(t, collect(p), "ends at once")
	_, err := p.SubmitAll(t.Context(), count(1000))
	require.NoError(t, err)
	value, err := p.Do(t.Context(), 4)
	require.NoError(t, err)
	assert.Equal(t, 4, value)
	closed(t, p)
	assert.Equal(t, uint64(250+1), p.Stats().Succeeded)
	assert.Equal(t, uint64(750), p.Stats().Failed)
}

func TestWithResultFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []workpool.Result[int, int]
		entered, leave := make(chan struct{}), make(chan struct{})
		p := mustNew(t, moody, workpool.WithWorkers(1), workpool.WithResultFunc(func(r workpool.Result[int, int]) {
			if r.Task == 0 {
				close(entered)
				<-leave
			}
			mu.Lock()
			defer mu.Unlock()
			told = append(told, r)
		}))
		assert.Empty(t, collect(p), "ends at once")
		_, err := p.SubmitAll(t.Context(), count(8))
		require.NoError(t, err)
		<-entered
		assert.Equal(t, 1, p.Stats().Running, "a task has ended when its function has")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var cut *workpool.ShutdownError
		require.ErrorAs(t, p.Shutdown(ctx), &cut)
		assert.Equal(t, 7, cut.Aborted)
		assert.Equal(t, 1, cut.Running)
		close(leave)
		require.ErrorIs(t, p.Close(), error(cut))
		assert.Len(t, told, 8)
		for _, r := range told {
			if r.Task != 0 {
				assert.ErrorIs(t, r.Err, workpool.ErrAborted)
				assert.Zero(t, r.Worker)
			}
		}
		s := p.Stats()
		assert.Equal(t, uint64(7), s.Aborted)
		assert.Equal(t, uint64(1), s.Succeeded)
	})
}

func TestWithResultFunc_FailureIsReportedAtTheEnd(t *testing.T) {
	for _, aborted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithResultFunc(func(r workpool.Result[int, int]) {
				calls++
				switch r.Task {
				case 1:
					panic(errOdd)
				case 2:
					runtime.Goexit()
				}
			}), workpool.WithShutdown(map[bool]workpool.ShutdownMode{false: workpool.Drain, true: workpool.Abort}[aborted], 0))
			if aborted {
				p.Pause() // so that they are told of by another than a worker
			}
			_, err := p.SubmitAll(t.Context(), count(5))
			require.NoError(t, err)
			err = p.Close()
			var panicked *workpool.PanicError
			require.ErrorAs(t, err, &panicked)
			require.ErrorIs(t, err, errOdd)
			require.ErrorContains(t, err, "result of task 1")
			assert.Equal(t, 5, calls)
			assert.Equal(t, uint64(5), p.Stats().Succeeded+p.Stats().Aborted)
			assert.ErrorIs(t, p.Shutdown(t.Context()), errOdd, "the same to all")
		})
	}
}
