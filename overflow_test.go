package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// fates says for each task what it ended with: its value, or -1 if it was
// dropped.
func fates(t *testing.T, results []workpool.Result[int, int]) map[int]int {
	t.Helper()
	m := map[int]int{}
	for _, r := range results {
		if _, twice := m[r.Task]; twice {
			t.Errorf("task %d is answered twice", r.Task)
		}
		m[r.Task] = r.Value
		if r.Err != nil {
			require.ErrorIs(t, r.Err, workpool.ErrDropped)
			assert.Zero(t, r.Worker)
			m[r.Task] = -1
		}
	}
	return m
}

// overflowing returns a paused pool, whose queue of 2 is full of tasks 0 and 1.
func overflowing(t *testing.T, opts ...workpool.Option) *workpool.Pool[int, int] {
	t.Helper()
	opts = append([]workpool.Option{workpool.WithWorkers(1), workpool.WithQueueDepth(2)}, opts...)
	p := mustNew(t, func(_ context.Context, n int) (int, error) { return n, nil }, opts...)
	p.Pause()
	submit(t, p, 0, 1)
	return p
}

// Submit, SubmitCancel and SubmitAll of 2, 3 and 4 to a full queue.
func TestOverflow_Submit(t *testing.T) {
	for _, c := range []struct {
		overflow workpool.Overflow
		err      error
		fates    map[int]int
	}{
		{workpool.Block, context.DeadlineExceeded, map[int]int{0: 0, 1: 1}},
		{workpool.Reject, workpool.ErrQueueFull, map[int]int{0: 0, 1: 1}},
		{workpool.DropOldest, nil, map[int]int{0: -1, 1: -1, 2: -1, 3: 3, 4: 4}},
		{workpool.DropNewest, nil, map[int]int{0: 0, 1: 1, 2: -1, 3: -1, 4: -1}},
		{workpool.CallerRuns, nil, map[int]int{0: 0, 1: 1, 2: 2, 3: 3, 4: 4}},
	} {
		for _, tells := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%v/resultFunc=%v", c.overflow, tells), func(t *testing.T) {
				opts := []workpool.Option{workpool.WithOverflow(c.overflow)}
				var mu sync.Mutex
				var results []workpool.Result[int, int]
				if tells {
					opts = append(opts, workpool.WithResultFunc(func(r workpool.Result[int, int]) {
						mu.Lock()
						defer mu.Unlock()
						results = append(results, r)
					}))
				}
				p := overflowing(t, opts...)
				ctx := limited(t, time.Second)
				require.ErrorIs(t, p.Submit(ctx, 2), c.err)
				fails(t, c.err)(p.SubmitCancel(ctx, 3))
				accepted, err := p.SubmitAll(ctx, slices.Values([]int{4}))
				require.ErrorIs(t, err, c.err)
				assert.Equal(t, c.err == nil, accepted == 1)
				require.ErrorIs(t, p.TrySubmit(t.Context(), 5), workpool.ErrQueueFull)
				synctest.Wait()
				dropped := uint64(0)
				for _, fate := range c.fates {
					if fate < 0 {
						dropped++
					}
				}
				s := p.Stats()
				assert.Equal(t, []uint64{uint64(len(c.fates)), dropped, dropped}, []uint64{s.Submitted, s.Aborted, s.Dropped})
				assert.Equal(t, 2, s.Queued)
				if !tells && c.overflow == workpool.CallerRuns {
					assert.Equal(t, workpool.Result[int, int]{Index: 2, Task: 2, Value: 2, Attempt: 1}, receive(t, p), "on no worker")
					results = append(results, workpool.Result[int, int]{Task: 2, Value: 2})
				}
				closed(t, p)
				results = append(results, collect(p)...) // none with a result function
				assert.Equal(t, c.fates, fates(t, results))
			})
		}
	}
}

// Results of dropped tasks are bounded like all others.
func TestOverflow_ADropNeedsRoomForItsResult(t *testing.T) {
	for _, overflow := range []workpool.Overflow{workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
		bubble(t, overflow.String(), func(t *testing.T) {
			p := overflowing(t, workpool.WithOverflow(overflow), workpool.WithResultBuffer(3))
			for n := 2; n < 5; n++ {
				require.NoError(t, p.Submit(t.Context(), n))
			}
			ctx := limited(t, time.Second)
			require.ErrorIs(t, p.Submit(ctx, 5), context.DeadlineExceeded)
			receive(t, p)
			require.NoError(t, p.Submit(t.Context(), 6))
			closed(t, p)
			assert.Len(t, collect(p), 5)
		})
	}
}

func TestOverflow_TasksOfMapAndStreamAreNotDropped(t *testing.T) {
	for name, run := range ways[int, int]("Map", "Stream") {
		for _, overflow := range []workpool.Overflow{workpool.Reject, workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
			bubble(t, fmt.Sprintf("%s/%v", name, overflow), func(t *testing.T) {
				p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithOverflow(overflow))
				p.Pause()
				done := make(chan error, 1)
				go func() {
					_, err := run(t.Context(), p, 1, 2, 3, 4)
					done <- err
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				for n := range 4 { // DropOldest waits, since there is nothing to drop
					if err := p.Submit(ctx, n); err != nil {
						assert.Condition(t, func() bool { return errors.Is(err, workpool.ErrQueueFull) || errors.Is(err, context.DeadlineExceeded) }, "%v", err)
					}
				}
				cancel()
				require.Empty(t, done)
				p.Resume()
				require.NoError(t, <-done)
			})
		}
	}
}

func TestOverflow_DropOldestKeepsToKeyAndPriority(t *testing.T) {
	byTens := func(n int) int { return n / 10 }
	t.Run("key", func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(3),
			workpool.WithOverflow(workpool.DropOldest), workpool.WithKey(byTens))
		p.Pause()
		submit(t, p, 1, 11, 12, 13)
		closed(t, p)
		assert.Equal(t, map[int]int{1: 1, 11: 11, 12: -1, 13: 13}, fates(t, collect(p)), "behind 11 of the same key")
	})
	t.Run("priority", func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(2),
			workpool.WithOverflow(workpool.DropOldest), workpool.WithPriority(sign))
		p.Pause()
		submit(t, p, -1, -2, 1, 2, 3)
		closed(t, p)
		assert.Equal(t, []int{1}, dropped(collect(p)))
	})
}

// dropped returns the tasks that were dropped.
func dropped(results []workpool.Result[int, int]) (tasks []int) {
	for _, r := range results {
		if r.Err != nil {
			tasks = append(tasks, r.Task)
		}
	}
	return tasks
}

func TestOverflow_FromInsideAHandler(t *testing.T) {
	for _, overflow := range []workpool.Overflow{workpool.Block, workpool.Reject, workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
		bubble(t, overflow.String(), func(t *testing.T) {
			var p *workpool.Pool[int, int]
			p = mustNew(t, func(ctx context.Context, n int) (int, error) {
				if n == 0 {
					return 0, p.Submit(ctx, 1)
				}
				return n, nil
			}, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithOverflow(overflow))
			require.NoError(t, p.Submit(t.Context(), 0))
			require.NoError(t, p.Wait(t.Context()))
			closed(t, p)
			results := collect(p)
			switch overflow {
			case workpool.Reject:
				require.Len(t, results, 1)
				require.ErrorIs(t, results[0].Err, workpool.ErrQueueFull)
			case workpool.DropNewest:
				require.Len(t, results, 2)
				require.ErrorIs(t, results[0].Err, workpool.ErrDropped)
			default:
				require.Len(t, results, 2)
				assert.Equal(t, 1, results[0].Value)
			}
		})
	}
}

func TestOverflow_NamesOfConstants(t *testing.T) {
	var names []string
	for o := workpool.Block; o <= workpool.CallerRuns+1; o++ {
		names = append(names, o.String())
	}
	assert.Equal(t, []string{"Block", "Reject", "DropOldest", "DropNewest", "CallerRuns", "Overflow(5)"}, names)
}

func TestSubmitCancel_CancelsARunningTaskAndARetry(t *testing.T) {
	for name, c := range map[string]struct {
		handler workpool.Handler[int, int]
		want    []error
	}{
		"running": {func(ctx context.Context, _ int) (int, error) { return untilEnd(ctx) }, []error{context.Canceled}},
		"parked":  {after(2, time.Hour), []error{context.Canceled, errNotYet}},
	} {
		bubble(t, name, func(t *testing.T) {
			begin := time.Now()
			p := mustNew(t, c.handler, workpool.WithWorkers(2))
			cancel, err := p.SubmitCancel(t.Context(), 1)
			require.NoError(t, err)
			synctest.Wait()
			cancel()
			r := receive(t, p)
			fails(t, c.want...)(r.Value, r.Err)
			assert.NotZero(t, r.Worker)
			assert.Equal(t, 1, r.Attempt)
			closed(t, p)
			assert.Zero(t, time.Since(begin))
		})
	}
}

func TestSubmitCancel_LeavesOtherTasksAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1))
		var cancels []func()
		for n := range 1000 {
			cancel, err := p.SubmitCancel(t.Context(), n)
			require.NoError(t, err)
			cancels = append(cancels, cancel)
			require.NoError(t, receive(t, p).Err)
			require.NoError(t, p.Submit(t.Context(), n)) // perhaps on the same job
			for _, late := range cancels[max(0, n-3):] {
				late()
			}
			require.NoError(t, receive(t, p).Err)
		}
	})
}

// Without a buffer a dropped task needs a receiver that waits, or the pool would
// hold more than it may.
func TestOverflow_ADropWithoutResultBufferNeedsAReceiver(t *testing.T) {
	for _, overflow := range []workpool.Overflow{workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
		bubble(t, overflow.String(), func(t *testing.T) {
			end := make(chan struct{})
			p := mustNew(t, func(_ context.Context, n int) (int, error) {
				if n == 1 {
					<-end
				}
				return n, nil
			}, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithResultBuffer(0), workpool.WithOverflow(overflow))
			require.NoError(t, p.Submit(t.Context(), 1))
			synctest.Wait()
			require.NoError(t, p.Submit(t.Context(), 2))
			ctx := limited(t, time.Second)
			require.ErrorIs(t, p.Submit(ctx, 3), context.DeadlineExceeded)
			assert.Equal(t, 2, p.Stats().Queued+p.Stats().Running+p.Stats().Undelivered)

			results := make(chan workpool.Result[int, int], 9)
			go func() {
				for r := range p.Results() {
					results <- r
				}
				close(results)
			}()
			synctest.Wait()
			require.NoError(t, p.Submit(t.Context(), 4))
			first := <-results
			switch overflow {
			case workpool.DropOldest:
				assert.Equal(t, 2, first.Task)
			default:
				assert.Equal(t, 4, first.Task)
			}
			close(end)
			closed(t, p)
			n := 1
			for range results {
				n++
			}
			assert.Equal(t, 3, n)
		})
	}
}

// Tasks that run beside the workers come again, handed in from outside and from handlers.
func TestOverflow_CallerRunsTasksThatComeAgain(t *testing.T) {
	for _, mode := range []workpool.ShutdownMode{workpool.Drain, workpool.FinishRunning, workpool.Abort} {
		for _, delay := range []time.Duration{0, time.Second} {
			for _, closeAfter := range []time.Duration{0, 500 * time.Millisecond, time.Second, 10 * time.Second} {
				synctest.Test(t, func(t *testing.T) {
					var p *workpool.Pool[int, int]
					p = mustNew(t, func(ctx context.Context, n int) (int, error) {
						if n == 1 {
							for range 5 {
								_ = p.Submit(ctx, 2)
							}
							return 1, nil
						}
						return after(3, delay)(ctx, n)
					}, workpool.WithWorkers(2), workpool.WithQueueDepth(1), workpool.WithOverflow(workpool.CallerRuns), workpool.WithShutdown(mode, 0))
					done := make(chan int)
					go func() {
						n := 0
						for r := range p.Results() {
							n++
							assert.NotZero(t, r.Task)
						}
						done <- n
					}()
					var submitters sync.WaitGroup
					for n := range 3 {
						submitters.Go(func() {
							for p.Submit(context.Background(), 1+n%2) == nil && n > 0 {
								time.Sleep(100 * time.Millisecond)
							}
						})
					}
					time.Sleep(closeAfter)
					synctest.Wait()
					require.NoError(t, p.Close())
					s := p.Stats()
					assert.Equal(t, s.Submitted, s.Succeeded+s.Failed+s.Aborted)
					assert.EqualValues(t, s.Submitted, <-done)
					submitters.Wait()
				})
			}
		}
	}
}
