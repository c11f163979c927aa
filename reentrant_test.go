package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

// A selfUser is a handler that gets the pool it runs on.
type selfUser[T, R any] func(ctx context.Context, p *workpool.Pool[T, R], task T) (R, error)

// newSelfUsing makes a pool whose handler uses the pool itself.
func newSelfUsing[T, R any](t testing.TB, handler selfUser[T, R], opts ...workpool.Option) *workpool.Pool[T, R] {
	t.Helper()
	var p *workpool.Pool[T, R]
	p = mustNew(t, func(ctx context.Context, task T) (R, error) { return handler(ctx, p, task) }, opts...)
	return p
}

// tight are the pools on which a task that waits for a worker waits for
// itself: nearly all is taken by the task.
var tight = map[string][]workpool.Option{
	"one worker, depth 0":  {workpool.WithWorkers(1), workpool.WithQueueDepth(0)},
	"one worker, depth 1":  {workpool.WithWorkers(1), workpool.WithQueueDepth(1)},
	"two workers, depth 1": {workpool.WithWorkers(2), workpool.WithQueueDepth(1)},
	"defaults":             nil,
}

func eachTight(t *testing.T, test func(t *testing.T, opts []workpool.Option)) {
	t.Helper()
	for name, opts := range tight {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, slices.Clip(opts)) })
		})
	}
}

func TestRule6_ATaskMayUseItsOwnPool(t *testing.T) {
	// Each use sends the tasks 1, 2 and 3 through the pool from inside its
	// task 0, and returns the sum of what came back.
	uses := map[string]selfUser[int, int]{
		"Do": func(ctx context.Context, p *workpool.Pool[int, int], _ int) (int, error) {
			sum := 0
			for i := range 3 {
				value, err := p.Do(ctx, 1+i)
				if err != nil {
					return 0, err
				}
				sum += value
			}
			return sum, nil
		},
		"DoChan": func(ctx context.Context, p *workpool.Pool[int, int], _ int) (int, error) {
			sum := 0
			a, b, c := p.DoChan(ctx, 1), p.DoChan(ctx, 2), p.DoChan(ctx, 3)
			for range 3 {
				select {
				case r := <-a:
					sum += r.Value
				case r := <-b:
					sum += r.Value
				case r := <-c:
					sum += r.Value
				}
			}
			return sum, nil
		},
		"Map": func(ctx context.Context, p *workpool.Pool[int, int], _ int) (int, error) {
			values, err := p.Map(ctx, []int{1, 2, 3})
			sum := 0
			for _, value := range values {
				sum += value
			}
			return sum, err
		},
		"Stream": func(ctx context.Context, p *workpool.Pool[int, int], _ int) (int, error) {
			sum := 0
			for r := range p.Stream(ctx, slices.Values([]int{1, 2, 3})) {
				if r.Err != nil {
					return 0, r.Err
				}
				sum += r.Value
			}
			return sum, nil
		},
		"Do from goroutines of its own": func(ctx context.Context, p *workpool.Pool[int, int], _ int) (int, error) {
			var sum atomic.Int64
			var all sync.WaitGroup
			for i := range 3 {
				all.Go(func() {
					value, err := p.Do(ctx, 1+i)
					sum.Add(int64(value))
					if err != nil {
						sum.Add(1000)
					}
				})
			}
			all.Wait()
			return int(sum.Load()), nil
		},
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			eachTight(t, func(t *testing.T, opts []workpool.Option) {
				p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
					if n == 0 {
						return use(ctx, p, n)
					}
					return 10 * n, nil
				}, opts...)
				value, err := p.Do(t.Context(), 0)
				require.NoError(t, err)
				assert.Equal(t, 60, value)

				require.NoError(t, p.Submit(t.Context(), 0))
				for r := range p.Results() {
					require.NoError(t, r.Err)
					assert.Equal(t, 60, r.Value)
					break
				}
				closed(t, p)
				assert.Equal(t, uint64(8), p.Stats().Succeeded)
			})
		})
	}
}

func TestRule6_ATreeOfTasksFromInsideTasks(t *testing.T) {
	const tasks = 3000
	// A growth says which tasks a task submits.
	growths := map[string]func(n int) []int{
		"binary": func(n int) []int { return []int{2*n + 1, 2*n + 2} },
		"chain":  func(n int) []int { return []int{n + 1} },
		"fan": func(n int) []int {
			if n > 0 {
				return nil
			}
			return upTo(tasks)[1:]
		},
	}
	for name, growth := range growths {
		t.Run(name, func(t *testing.T) {
			handler := func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
				for _, child := range growth(n) {
					if child >= tasks {
						break
					}
					if err := p.Submit(ctx, child); err != nil {
						return 0, err
					}
				}
				return n, nil
			}
			assertAll := func(t *testing.T, results []workpool.Result[int, int]) {
				t.Helper()
				values := make([]int, 0, tasks)
				for _, r := range results {
					require.NoError(t, r.Err)
					values = append(values, r.Value)
				}
				slices.Sort(values)
				assert.Equal(t, upTo(tasks), values, "each task is answered once")
				byIndex(t, results)
			}

			t.Run("consumer", func(t *testing.T) {
				eachTight(t, func(t *testing.T, opts []workpool.Option) {
					p := newSelfUsing(t, handler, opts...)
					require.NoError(t, p.Submit(t.Context(), 0))
					var results []workpool.Result[int, int]
					for r := range p.Results() {
						if results = append(results, r); len(results) == tasks {
							break
						}
					}
					assertAll(t, results)
					closed(t, p)
					assert.Empty(t, collect(p))
				})
			})
			t.Run("WithoutResults", func(t *testing.T) {
				eachTight(t, func(t *testing.T, opts []workpool.Option) {
					p := newSelfUsing(t, handler, append(opts, workpool.WithoutResults())...)
					require.NoError(t, p.Submit(t.Context(), 0))
					require.NoError(t, p.Wait(t.Context()))
					assert.Equal(t, uint64(tasks), p.Stats().Succeeded)
					closed(t, p)
				})
			})
			t.Run("WithResultFunc", func(t *testing.T) {
				eachTight(t, func(t *testing.T, opts []workpool.Option) {
					var mu sync.Mutex
					var results []workpool.Result[int, int]
					p := newSelfUsing(t, handler, append(opts, workpool.WithResultFunc(func(r workpool.Result[int, int]) {
						mu.Lock()
						defer mu.Unlock()
						results = append(results, r)
					}))...)
					require.NoError(t, p.Submit(t.Context(), 0))
					require.NoError(t, p.Wait(t.Context()))
					closed(t, p)
					assertAll(t, results)
				})
			})
		})
	}
}

func TestRule6_Recursion(t *testing.T) {
	recursions := map[string]func(ctx context.Context, p *workpool.Pool[int, int], a, b int) (int, error){
		"Do": func(ctx context.Context, p *workpool.Pool[int, int], a, b int) (int, error) {
			first, err := p.Do(ctx, a)
			if err != nil {
				return 0, err
			}
			second, err := p.Do(ctx, b)
			return first + second, err
		},
		"DoChan": func(ctx context.Context, p *workpool.Pool[int, int], a, b int) (int, error) {
			first, second := p.DoChan(ctx, a), p.DoChan(ctx, b)
			r, s := <-first, <-second
			return r.Value + s.Value, errors.Join(r.Err, s.Err)
		},
		"Map": func(ctx context.Context, p *workpool.Pool[int, int], a, b int) (int, error) {
			values, err := p.Map(ctx, []int{a, b})
			if err != nil {
				return 0, err
			}
			return values[0] + values[1], nil
		},
		"Stream": func(ctx context.Context, p *workpool.Pool[int, int], a, b int) (int, error) {
			sum := 0
			for r := range p.Stream(ctx, slices.Values([]int{a, b})) {
				if r.Err != nil {
					return 0, r.Err
				}
				sum += r.Value
			}
			return sum, nil
		},
	}
	for name, both := range recursions {
		t.Run(name, func(t *testing.T) {
			eachTight(t, func(t *testing.T, opts []workpool.Option) {
				fibonacci := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
					if n < 2 {
						return n, nil
					}
					return both(ctx, p, n-1, n-2)
				}, opts...)
				value, err := fibonacci.Do(t.Context(), 14)
				require.NoError(t, err)
				assert.Equal(t, 377, value)
				closed(t, fibonacci)
			})
		})
	}
}

func TestRule6_DeepRecursion(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
			if n == 0 {
				return 0, nil
			}
			value, err := p.Do(ctx, n-1)
			return value + 1, err
		}, opts...)
		value, err := p.Do(t.Context(), 2000)
		require.NoError(t, err)
		assert.Equal(t, 2000, value)
		closed(t, p)
	})
}

func TestRule6_TwoPoolsThatCallEachOther(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		var ping, pong *workpool.Pool[int, int]
		to := func(other **workpool.Pool[int, int]) workpool.Handler[int, int] {
			return func(ctx context.Context, n int) (int, error) {
				if n == 0 {
					return 0, nil
				}
				value, err := (*other).Do(ctx, n-1)
				return value + 1, err
			}
		}
		ping = mustNew(t, to(&pong), opts...)
		pong = mustNew(t, to(&ping), opts...)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				value, err := ping.Do(t.Context(), 50)
				assert.NoError(t, err)
				assert.Equal(t, 50, value)
			})
			all.Wait() // one at a time: two callers may hold the one worker that each needs of the other
		}
		closed(t, ping)
		closed(t, pong)
	})
}

func TestRule6_NestedTaskRunsOnTheCallingWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, workpool.Info], n int) (workpool.Info, error) {
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			if n > 0 {
				inner, err := p.Do(ctx, n-1)
				assert.NoError(t, err)
				assert.Equal(t, info.Worker, inner.Worker)
				assert.Equal(t, info.Index+1, inner.Index)
				again, ok := workpool.InfoFrom(ctx)
				assert.True(t, ok)
				assert.Equal(t, info, again, "the outer task's own Info is untouched")
			}
			return info, nil
		}, workpool.WithWorkers(1), workpool.WithName("nested"))
		info, err := p.Do(t.Context(), 3)
		require.NoError(t, err)
		assert.Equal(t, workpool.Info{Pool: "nested", Worker: 1, Index: 0, Attempt: 1}, info)
		closed(t, p)
	})
}

func TestRule6_NestedTasksUseIdleWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
			if n == 0 {
				_, err := p.Map(ctx, []int{1, 1, 1})
				return 0, err
			}
			time.Sleep(time.Second)
			return 0, nil
		}, workpool.WithWorkers(4))
		begin := time.Now()
		_, err := p.Do(t.Context(), 0)
		require.NoError(t, err)
		assert.Equal(t, time.Second, time.Since(begin), "three tasks on three idle workers")
		closed(t, p)
	})
}

func TestRule6_WaitingForOneselfIsAnError(t *testing.T) {
	type key struct{}
	derivations := map[string]func(ctx context.Context) (context.Context, context.CancelFunc){
		"its own context": func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} },
		"WithTimeout": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Hour)
		},
		"WithValue": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithValue(ctx, key{}, 1), func() {}
		},
		"WithoutCancel": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithoutCancel(ctx), func() {}
		},
	}
	for name, derive := range derivations {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handler := func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
					ctx, cancel := derive(ctx)
					defer cancel()
					assert.ErrorIs(t, p.Shutdown(ctx), workpool.ErrReentrant)
					assert.ErrorIs(t, p.Wait(ctx), workpool.ErrReentrant)
					return n, nil
				}
				p := newSelfUsing(t, handler, workpool.WithWorkers(2))
				_, err := p.Do(t.Context(), 1)
				require.NoError(t, err)
				timed, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				_, err = p.Do(timed, 1)
				require.NoError(t, err)
				_, err = p.Map(t.Context(), []int{1, 2, 3})
				require.NoError(t, err)
				for r := range p.Stream(t.Context(), slices.Values([]int{1, 2, 3})) {
					require.NoError(t, r.Err)
				}
				require.NoError(t, p.Submit(timed, 1))
				require.NoError(t, p.TrySubmit(2))
				require.NoError(t, p.Wait(t.Context()), "the pool is still open, and Wait is for others")
				closed(t, p)
				require.Len(t, collect(p), 2)
			})
		})
	}
}

func TestRule6_WaitingForOneselfThroughAnotherPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := newClosures(t)
		inner := newClosures(t)
		_, err := outer.Do(t.Context(), func(ctx context.Context) (int, error) {
			assert.NoError(t, inner.Wait(ctx), "another pool's handlers may wait")
			return inner.Do(ctx, func(ctx context.Context) (int, error) {
				assert.ErrorIs(t, outer.Wait(ctx), workpool.ErrReentrant)
				assert.ErrorIs(t, outer.Shutdown(ctx), workpool.ErrReentrant)
				assert.ErrorIs(t, inner.Wait(ctx), workpool.ErrReentrant)
				return 0, nil
			})
		})
		require.NoError(t, err)

		_, err = outer.Do(t.Context(), func(ctx context.Context) (int, error) { return 0, inner.Shutdown(ctx) })
		require.NoError(t, err, "and shut it down")
		closed(t, inner)
		closed(t, outer)
	})
}

func TestRule6_InnerPanicLeavesTheOuterTaskAlone(t *testing.T) {
	ends := map[string]struct {
		inner closure
		check func(t *testing.T, err error)
	}{
		"panic": {
			func(context.Context) (int, error) { panic("inner") },
			func(t *testing.T, err error) {
				var panicked *workpool.PanicError
				if assert.ErrorAs(t, err, &panicked) {
					assert.Equal(t, "inner", panicked.Value)
				}
			},
		},
		"Goexit": {
			func(context.Context) (int, error) { runtime.Goexit(); return 0, nil },
			func(t *testing.T, err error) { assert.ErrorIs(t, err, workpool.ErrGoexit) },
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			eachTight(t, func(t *testing.T, opts []workpool.Option) {
				p := newClosures(t, opts...)
				value, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
					_, err := p.Do(ctx, end.inner)
					end.check(t, err)
					end.check(t, (<-p.DoChan(ctx, end.inner)).Err)
					_, err = p.Map(ctx, []closure{returning(1, nil), end.inner})
					end.check(t, err)
					for r := range p.Stream(ctx, slices.Values([]closure{end.inner})) {
						end.check(t, r.Err)
					}
					for range 5 {
						assert.NoError(t, p.Submit(ctx, end.inner))
					}
					assert.NoError(t, ctx.Err())
					return 7, nil
				})
				require.NoError(t, err)
				assert.Equal(t, 7, value)
				closed(t, p)
				results := collect(p)
				require.Len(t, results, 5)
				for _, r := range results {
					end.check(t, r.Err)
				}
			})
		})
	}
}

func TestRule6_InnerTaskHasItsOwnDeadline(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newClosures(t, opts...)
		begin := time.Now()
		_, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := p.Do(short, untilEnd)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.NoError(t, ctx.Err())
			return 0, nil
		})
		require.NoError(t, err)
		assert.Equal(t, time.Second, time.Since(begin))
		closed(t, p)
	})
}

func TestRule6_NestedCallGivesUpOnAHandlerThatIgnoresItsContext(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newClosures(t, opts...)
		release := make(chan struct{})
		begin := time.Now()
		_, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return p.Do(short, until(release))
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(begin))
		close(release)
		closed(t, p)
	})
}

// Submit's context bounds the waiting, from inside a handler as from outside.
func TestRule6_SubmittedTaskOutlivesTheTaskThatSubmittedIt(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newClosures(t, opts...)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := p.Do(ctx, func(ctx context.Context) (int, error) {
			for range 3 {
				err := p.Submit(ctx, func(ctx context.Context) (int, error) {
					cancel()
					assert.NoError(t, ctx.Err())
					return 1, nil
				})
				if ctx.Err() != nil { // another worker was that fast, and the pool may be closed
					break
				}
				assert.NoError(t, err)
			}
			return 0, nil
		})
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
		closed(t, p)
		for _, r := range collect(p) {
			require.NoError(t, r.Err)
		}
	})
}

// What is left of a Map inside a handler is taken back when the pool is paused, and
// its tasks ask for another attempt. There is no worker but the one that waits.
func TestRule6_RetriedTasksOfAMapThatWasTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		again := func(ctx context.Context) (int, error) {
			time.Sleep(time.Second)
			if info, _ := workpool.InfoFrom(ctx); info.Attempt < 3 {
				return 0, workpool.RetryAfter(time.Minute, nil)
			}
			return 1, nil
		}
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0))
		go func() {
			time.Sleep(500 * time.Millisecond)
			p.Pause()
			p.Resume()
		}()
		values, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
			values, err := p.Map(ctx, []closure{again, again, again, again})
			return len(values), err
		})
		require.NoError(t, err)
		assert.Equal(t, 4, values)
		closed(t, p)
	})
}

func TestRule6_NestedWhilePaused(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newClosures(t, opts...)
		value, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
			p.Pause()
			value, err := p.Do(ctx, returning(1, nil))
			if err != nil {
				return 0, err
			}
			values, err := p.Map(ctx, []closure{returning(2, nil), returning(3, nil)})
			if err != nil {
				return 0, err
			}
			value += values[0] + values[1]
			for r := range p.Stream(ctx, slices.Values([]closure{returning(4, nil), returning(5, nil)})) {
				value += r.Value
			}
			for range 3 {
				if err := p.Submit(ctx, returning(6, nil)); err != nil {
					return 0, err
				}
			}
			return value + (<-p.DoChan(ctx, returning(7, nil))).Value, nil
		})
		require.NoError(t, err)
		assert.Equal(t, 22, value)
		p.Resume()
		closed(t, p)
		assert.Len(t, collect(p), 3)
	})
}

func TestRule6_NestedWhileThePoolShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(4), workpool.WithQueueDepth(1))
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				value, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
					time.Sleep(time.Second)
					if err := p.Resize(1); err != nil {
						return 0, err
					}
					values, err := p.Map(ctx, []closure{returning(1, nil), returning(2, nil), returning(3, nil)})
					if err != nil {
						return 0, err
					}
					inner, err := p.Do(ctx, returning(4, nil))
					return values[0] + values[1] + values[2] + inner, err
				})
				assert.NoError(t, err)
				assert.Equal(t, 10, value)
			})
		}
		all.Wait()
		assert.Equal(t, 1, p.Stats().Workers)
		closed(t, p)
	})
}

func TestRule6_NestedDuringADrainIsRefused(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newClosures(t, opts...)
		begun := make(chan struct{})
		require.NoError(t, p.Submit(t.Context(), func(ctx context.Context) (int, error) {
			<-begun
			assert.NoError(t, ctx.Err(), "a drain cancels nothing")
			assert.ErrorIs(t, p.Submit(ctx, returning(1, nil)), workpool.ErrClosed)
			assert.ErrorIs(t, p.TrySubmit(returning(1, nil)), workpool.ErrClosed)
			_, err := p.SubmitAll(ctx, slices.Values([]closure{returning(1, nil)}))
			assert.ErrorIs(t, err, workpool.ErrClosed)
			_, err = p.Do(ctx, returning(1, nil))
			assert.ErrorIs(t, err, workpool.ErrClosed)
			assert.ErrorIs(t, (<-p.DoChan(ctx, returning(1, nil))).Err, workpool.ErrClosed)
			_, err = p.Map(ctx, []closure{returning(1, nil)})
			assert.ErrorIs(t, err, workpool.ErrClosed)
			results := streamed(p.Stream(ctx, slices.Values([]closure{returning(1, nil), returning(2, nil)})))
			if assert.Len(t, results, 1) {
				assert.ErrorIs(t, results[0].Err, workpool.ErrClosed)
			}
			assert.ErrorIs(t, p.Shutdown(ctx), workpool.ErrReentrant)
			assert.ErrorIs(t, p.Wait(ctx), workpool.ErrReentrant)
			return 0, nil
		}))
		synctest.Wait()
		go func() {
			synctest.Wait()
			close(begun)
		}()
		require.NoError(t, p.Shutdown(t.Context()))
		require.Len(t, collect(p), 1)
	})
}

func TestRule6_AbortReachesNestedTasks(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newClosures(t, append(opts, workpool.WithShutdown(workpool.Abort, 0))...)
		done := make(chan error, 1)
		go func() {
			_, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
				_, err := p.Do(ctx, func(ctx context.Context) (int, error) { return p.Do(ctx, untilEnd) })
				<-ctx.Done() // the outer context may end a moment after the inner one
				assert.ErrorIs(t, context.Cause(ctx), workpool.ErrAborted)
				return 0, err
			})
			done <- err
		}()
		synctest.Wait()
		closed(t, p)
		require.ErrorIs(t, <-done, workpool.ErrAborted)
	})
}

func TestRule6_ManyOutsideAndInsideAtOnce(t *testing.T) {
	for name, opts := range tight {
		t.Run(name, func(t *testing.T) {
			p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
				if n == 0 {
					return 1, nil
				}
				switch n % 3 {
				case 0:
					return p.Do(ctx, n-1)
				case 1:
					values, err := p.Map(ctx, []int{n - 1, 0})
					if err != nil {
						return 0, err
					}
					return values[0], nil
				default:
					for r := range p.Stream(ctx, slices.Values([]int{n - 1})) {
						return r.Value, r.Err
					}
					return 0, fmt.Errorf("task %d: Stream yielded nothing", n)
				}
			}, opts...)
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for n := range 20 {
						value, err := p.Do(t.Context(), n)
						assert.NoError(t, err)
						assert.Equal(t, 1, value)
					}
				})
			}
			all.Wait()
			closed(t, p)
		})
	}
}
