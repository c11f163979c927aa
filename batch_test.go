package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
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

// A mapping is one of the two ways to run a slice of tasks.
type mapping func(t *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error)

func methodMap(t *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error) {
	p := mustNew(t, handler, opts...)
	values, err := p.Map(ctx, tasks)
	stats := p.Stats()
	assert.Zero(t, stats.Running, "every handler that Map started has returned")
	assert.Zero(t, stats.Queued, "no task of Map is left behind")
	closed(t, p)
	assert.Empty(t, collect(p), "Map answers to its caller alone")
	return values, err
}

func packageMap(_ *testing.T, ctx context.Context, tasks []int, handler workpool.Handler[int, int], opts ...workpool.Option) ([]int, error) {
	return workpool.Map(ctx, tasks, handler, opts...)
}

// eachMap runs test for the method Map and the function Map, in a bubble each.
func eachMap(t *testing.T, test func(t *testing.T, run mapping)) {
	t.Helper()
	t.Run("method", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, methodMap) })
	})
	t.Run("function", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, packageMap) })
	})
}

func square(_ context.Context, n int) (int, error) { return n * n, nil }

// upTo returns 0, 1, ... n-1.
func upTo(n int) []int { return slices.Collect(count(n)) }

// shapes are pools that are narrow in one place each.
var shapes = map[string][]workpool.Option{
	"defaults":           nil,
	"one worker":         {workpool.WithWorkers(1)},
	"hand-over":          {workpool.WithWorkers(2), workpool.WithQueueDepth(0), workpool.WithResultBuffer(0)},
	"all at their least": {workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithResultBuffer(0)},
	"many workers":       {workpool.WithWorkers(50), workpool.WithQueueDepth(1)},
}

func TestMap_KeepsTheInputOrder(t *testing.T) {
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			eachMap(t, func(t *testing.T, run mapping) {
				t.Helper()
				const n = 40
				squares, err := run(t, t.Context(), upTo(n), func(_ context.Context, i int) (int, error) {
					time.Sleep(time.Duration(n-i) * time.Millisecond) // later tasks end first
					return i * i, nil
				}, opts...)
				require.NoError(t, err)
				require.Len(t, squares, n)
				for i, value := range squares {
					assert.Equal(t, i*i, value)
				}
			})
		})
	}
}

func TestMap_NoTasksGiveAnEmptySlice(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		for _, tasks := range [][]int{nil, {}} {
			values, err := run(t, t.Context(), tasks, square)
			require.NoError(t, err)
			assert.NotNil(t, values)
			assert.Empty(t, values)
		}
	})
}

func TestMap_FirstErrorCancelsTheRest(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		failure := errors.New("no such thing")
		var started atomic.Int32
		begin := time.Now()
		values, err := run(t, t.Context(), upTo(100), func(ctx context.Context, i int) (int, error) {
			started.Add(1)
			if i == 1 {
				time.Sleep(time.Second)
				return 0, failure
			}
			<-ctx.Done()
			assert.Equal(t, context.Canceled, ctx.Err())
			return 0, fmt.Errorf("task %d: %w", i, ctx.Err())
		}, workpool.WithWorkers(3), workpool.WithQueueDepth(5))
		assert.True(t, err == failure, "the error itself, not a wrapper and not a later one: %v", err)
		assert.Nil(t, values)
		assert.Equal(t, time.Second, time.Since(begin))
		assert.Equal(t, int32(3), started.Load(), "what had not started when the first one failed never starts")
	})
}

func TestMap_FirstOfManyErrors(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		_, err := run(t, t.Context(), upTo(4), func(_ context.Context, i int) (int, error) {
			time.Sleep(time.Duration(10-i) * time.Second)
			return 0, fmt.Errorf("task %d", i)
		}, workpool.WithWorkers(4))
		require.EqualError(t, err, "task 3", "the first in time")
	})
}

func TestMap_WaitsForTheHandlersThatItStarted(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		failure := errors.New("no such thing")
		begin := time.Now()
		var finished bool
		_, err := run(t, t.Context(), upTo(2), func(_ context.Context, i int) (int, error) {
			if i == 1 {
				return 0, failure
			}
			time.Sleep(time.Minute) // and ignore the context
			finished = true
			return 0, nil
		}, workpool.WithWorkers(2))
		assert.Equal(t, failure, err)
		assert.True(t, finished)
		assert.Equal(t, time.Minute, time.Since(begin))
	})
}

func TestMap_PanicIsAnError(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		values, err := run(t, t.Context(), upTo(10), func(_ context.Context, i int) (int, error) {
			if i == 3 {
				panic(fmt.Sprintf("task %d is on fire", i))
			}
			return i, nil
		}, workpool.WithWorkers(2))
		var panicked *workpool.PanicError
		require.ErrorAs(t, err, &panicked)
		assert.Equal(t, "task 3 is on fire", panicked.Value)
		assert.Nil(t, values)
	})
}

func TestMap_GoexitIsAnError(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		values, err := run(t, t.Context(), upTo(10), func(_ context.Context, i int) (int, error) {
			if i == 3 {
				runtime.Goexit()
			}
			return i, nil
		}, workpool.WithWorkers(2))
		require.ErrorIs(t, err, workpool.ErrGoexit)
		assert.Nil(t, values)
	})
}

func TestMap_EndedContextRunsNothing(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		reason := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		values, err := run(t, ctx, upTo(10), func(context.Context, int) (int, error) {
			assert.Fail(t, "no task must run")
			return 0, nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, reason)
		assert.Nil(t, values)
	})
}

func TestMap_ContextEndsOnTheWay(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		reason := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2500*time.Millisecond, reason)
		defer cancel()
		var started, finished atomic.Int32
		values, err := run(t, ctx, upTo(100), func(ctx context.Context, i int) (int, error) {
			started.Add(1)
			defer finished.Add(1)
			select {
			case <-ctx.Done():
				assert.Equal(t, reason, context.Cause(ctx))
				time.Sleep(time.Second) // takes its time to end
				return 0, ctx.Err()
			case <-time.After(time.Second):
				return i, nil
			}
		}, workpool.WithWorkers(2), workpool.WithQueueDepth(2))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, reason)
		assert.Nil(t, values)
		assert.Equal(t, int32(6), started.Load(), "two in each second")
		assert.Equal(t, int32(6), finished.Load())
	})
}

func TestMap_ContextThatEndsAfterTheLastTaskIsTooLate(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		ctx, cancel := context.WithCancel(t.Context())
		values, err := run(t, ctx, upTo(1), func(ctx context.Context, i int) (int, error) {
			cancel()
			<-ctx.Done()
			return 7, nil
		})
		// Both are true: the context has ended and all tasks have succeeded.
		if err == nil {
			assert.Equal(t, []int{7}, values)
		} else {
			require.ErrorIs(t, err, context.Canceled)
			assert.Nil(t, values)
		}
	})
}

func TestMap_HandlerSeesTheContextOfTheCaller(t *testing.T) {
	type key struct{}
	eachMap(t, func(t *testing.T, run mapping) {
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "mine"), time.Hour)
		defer cancel()
		want, _ := ctx.Deadline()
		_, err := run(t, ctx, upTo(5), func(ctx context.Context, i int) (int, error) {
			deadline, _ := ctx.Deadline()
			assert.Equal(t, want, deadline)
			assert.Equal(t, "mine", ctx.Value(key{}))
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			assert.Equal(t, workpool.Info{Pool: "squares", Worker: info.Worker, Index: uint64(i), Attempt: 1}, info)
			return i, nil
		}, workpool.WithName("squares"))
		require.NoError(t, err)
	})
}

func TestMap_NilContextIsAnError(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		var none context.Context
		_, err := run(t, none, upTo(3), square)
		require.Error(t, err)
	})
}

func TestMap_FunctionChecksItsArguments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := workpool.Map[int, int](t.Context(), upTo(3), nil)
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
		_, err = workpool.Map(t.Context(), upTo(3), square, workpool.WithWorkers(0))
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
		_, err = workpool.Map(t.Context(), upTo(3), square, nil)
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
	})
}

func TestMap_FunctionLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fails := range []bool{false, true} {
			_, err := workpool.Map(t.Context(), upTo(50), func(ctx context.Context, i int) (int, error) {
				if fails && i == 20 {
					return 0, errors.New("no such thing")
				}
				return i, nil
			}, workpool.WithWorkers(8))
			assert.Equal(t, fails, err != nil)
		}
		// The bubble fails the test if a goroutine is left.
	})
}

func TestMap_EndOfThePoolsContext(t *testing.T) {
	eachMap(t, func(t *testing.T, run mapping) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		started := make(chan struct{}, 10)
		p := mustNew(t, func(ctx context.Context, _ int) (int, error) {
			started <- struct{}{}
			return untilEnd(ctx)
		}, workpool.WithContext(ctx), workpool.WithWorkers(2))
		_, err := p.Map(t.Context(), upTo(10))
		require.ErrorIs(t, err, workpool.ErrAborted)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Len(t, started, 2)
		var cutShort *workpool.ShutdownError
		require.ErrorAs(t, p.Close(), &cutShort)

		_, err = workpool.Map(t.Context(), upTo(10), func(ctx context.Context, _ int) (int, error) { return untilEnd(ctx) },
			workpool.WithContext(ctx))
		require.Error(t, err, "its context has ended before")
	})
}

func TestMap_ClosedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		closed(t, p)
		values, err := p.Map(t.Context(), upTo(3))
		require.ErrorIs(t, err, workpool.ErrClosed)
		assert.Nil(t, values)
	})
}

func TestMap_PoolClosesOnTheWay(t *testing.T) {
	for mode, wantErr := range map[workpool.ShutdownMode]error{
		workpool.Drain:         nil, // a Map that has begun is accepted as a whole
		workpool.FinishRunning: workpool.ErrAborted,
		workpool.Abort:         workpool.ErrAborted,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var started, finished atomic.Int32
				p := mustNew(t, func(_ context.Context, i int) (int, error) {
					started.Add(1)
					time.Sleep(time.Second)
					finished.Add(1)
					return i, nil
				}, workpool.WithWorkers(2), workpool.WithQueueDepth(2), workpool.WithShutdown(mode, 0))
				go func() {
					time.Sleep(1500 * time.Millisecond)
					assert.NoError(t, p.Close())
					assert.Equal(t, started.Load(), finished.Load())
				}()
				values, err := p.Map(t.Context(), upTo(100))
				require.ErrorIs(t, err, wantErr)
				if wantErr == nil {
					assert.Equal(t, upTo(100), values)
				} else {
					assert.EqualValues(t, 4, started.Load())
				}
				synctest.Wait()
				stats := p.Stats()
				assert.Equal(t, stats.Submitted, stats.Succeeded+stats.Failed+stats.Aborted)
			})
		})
	}
}

func TestMap_CloseRunsWhatItHadTakenIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(_ context.Context, i int) (int, error) {
			time.Sleep(time.Second)
			return i, nil
		}, workpool.WithWorkers(2), workpool.WithQueueDepth(10))
		go func() {
			time.Sleep(500 * time.Millisecond)
			assert.NoError(t, p.Shutdown(t.Context()))
		}()
		values, err := p.Map(t.Context(), upTo(8))
		require.NoError(t, err, "all eight were accepted before the pool was closed")
		assert.Equal(t, upTo(8), values)
		synctest.Wait()
	})
}

func TestMap_SeveralAtOnceOnOnePool(t *testing.T) {
	p := mustNew(t, square, workpool.WithWorkers(3), workpool.WithQueueDepth(2))
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			values, err := p.Map(t.Context(), upTo(n*20))
			assert.NoError(t, err)
			assert.Len(t, values, n*20)
			for i, value := range values {
				assert.Equal(t, i*i, value)
			}
		})
	}
	all.Wait()
	closed(t, p)
}

func TestMap_ErrorOfOneLeavesTheOtherAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("no such thing")
		p := mustNew(t, func(ctx context.Context, i int) (int, error) {
			time.Sleep(time.Second)
			if i < 0 {
				return 0, failure
			}
			return i, ctx.Err()
		}, workpool.WithWorkers(2))
		defer closed(t, p)
		var both sync.WaitGroup
		both.Go(func() {
			_, err := p.Map(t.Context(), []int{-1, -1, -1, -1, -1})
			assert.Equal(t, failure, err)
		})
		both.Go(func() {
			values, err := p.Map(t.Context(), upTo(20))
			assert.NoError(t, err)
			assert.Equal(t, upTo(20), values)
		})
		both.Wait()
	})
}

func TestRule8_MapDoesNotQueueBehindASlowTask(t *testing.T) {
	for name, opts := range shapes {
		if name == "one worker" || name == "all at their least" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			eachMap(t, func(t *testing.T, run mapping) {
				t.Helper()
				const fast = 30
				opts := append([]workpool.Option{workpool.WithWorkers(2)}, opts...)
				allFast := make(chan struct{})
				var ended atomic.Int32
				values, err := run(t, t.Context(), upTo(1+fast), func(_ context.Context, i int) (int, error) {
					if i == 0 {
						<-allFast // the bubble reports a deadlock if a fast one is stuck behind
						return 0, nil
					}
					if ended.Add(1) == fast {
						close(allFast)
					}
					return i, nil
				}, opts...)
				require.NoError(t, err)
				assert.Equal(t, upTo(1+fast), values)
			})
		})
	}
}

// streamed collects what Stream yields.
func streamed[T, R any](s iter.Seq[workpool.Result[T, R]]) []workpool.Result[T, R] {
	var results []workpool.Result[T, R]
	for r := range s {
		results = append(results, r)
	}
	return results
}

// byIndex sorts results by index and asserts that these are 0, 1, ...
func byIndex[T, R any](t *testing.T, results []workpool.Result[T, R]) []workpool.Result[T, R] {
	t.Helper()
	slices.SortFunc(results, func(a, b workpool.Result[T, R]) int { return int(a.Index) - int(b.Index) })
	for i, r := range results {
		assert.Equal(t, uint64(i), r.Index, "each position once")
	}
	return results
}

func TestStream_YieldsTheOutcomeOfEachTask(t *testing.T) {
	failure := errors.New("no such thing")
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, func(_ context.Context, i int) (int, error) {
					switch i % 4 {
					case 1:
						return 0, failure
					case 2:
						panic(i)
					case 3:
						runtime.Goexit()
					}
					return i * i, nil
				}, opts...)
				const n = 40
				results := byIndex(t, streamed(p.Stream(t.Context(), count(n))))
				require.Len(t, results, n)
				for i, r := range results {
					assert.Equal(t, i, r.Task)
					assert.Equal(t, 1, r.Attempt)
					assert.Positive(t, r.Worker)
					switch i % 4 {
					case 0:
						assert.NoError(t, r.Err)
						assert.Equal(t, i*i, r.Value)
					case 1:
						assert.Equal(t, failure, r.Err)
					case 2:
						var panicked *workpool.PanicError
						require.ErrorAs(t, r.Err, &panicked)
						assert.Equal(t, i, panicked.Value)
					case 3:
						assert.Equal(t, workpool.ErrGoexit, r.Err)
					}
				}
				closed(t, p)
				assert.Empty(t, collect(p), "Stream answers to its caller alone")
			})
		})
	}
}

func TestStream_NoTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		assert.Empty(t, streamed(p.Stream(t.Context(), count(0))))
		closed(t, p)
	})
}

func TestStream_NilArgumentsAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		defer closed(t, p)
		var none context.Context
		for _, s := range []iter.Seq[workpool.Result[int, int]]{
			p.Stream(none, count(3)),
			p.Stream(t.Context(), nil),
		} {
			results := streamed(s)
			require.Len(t, results, 1)
			require.Error(t, results[0].Err)
		}
	})
}

func TestStream_BreakAtEveryIndex(t *testing.T) {
	const n = 12
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			for stop := 1; stop <= n; stop++ {
				synctest.Test(t, func(t *testing.T) {
					var running atomic.Int32
					p := mustNew(t, func(_ context.Context, i int) (int, error) {
						running.Add(1)
						defer running.Add(-1)
						time.Sleep(time.Duration(1+i%3) * time.Second)
						return i, nil
					}, opts...)
					var inputLeft bool
					input := func(yield func(int) bool) {
						defer func() { inputLeft = true }()
						count(n)(yield)
					}
					yielded := 0
					for r := range p.Stream(t.Context(), input) {
						require.NoError(t, r.Err)
						if yielded++; yielded == stop {
							break
						}
					}
					assert.Zero(t, running.Load(), "the handlers that were started have returned")
					assert.True(t, inputLeft, "the input has been stopped")
					stats := p.Stats()
					assert.Zero(t, stats.Running+stats.Queued)
					assert.Equal(t, stats.Submitted, stats.Succeeded+stats.Aborted)

					values, err := p.Map(t.Context(), upTo(5))
					require.NoError(t, err, "the pool goes on")
					assert.Equal(t, upTo(5), values)
					closed(t, p)
				})
			}
		})
	}
}

func TestStream_BreakCancelsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(ctx context.Context, i int) (int, error) {
			if i == 0 {
				return 0, nil
			}
			return untilEnd(ctx)
		}, workpool.WithWorkers(3))
		for r := range p.Stream(t.Context(), count(10)) {
			assert.Equal(t, uint64(0), r.Index)
			break
		}
		assert.Zero(t, p.Stats().Running)
		closed(t, p)
	})
}

func TestStream_PanicInTheLoopBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(2))
		assert.PanicsWithValue(t, "in the loop body", func() {
			for range p.Stream(t.Context(), count(100)) {
				panic("in the loop body")
			}
		})
		stats := p.Stats()
		assert.Zero(t, stats.Running+stats.Queued)
		closed(t, p)
	})
}

func TestStream_GoexitInTheLoopBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(2))
		var body sync.WaitGroup
		body.Go(func() {
			for range p.Stream(t.Context(), count(100)) {
				runtime.Goexit()
			}
		})
		body.Wait()
		stats := p.Stats()
		assert.Zero(t, stats.Running+stats.Queued)
		closed(t, p)
	})
}

func TestStream_IsLazyAndBounded(t *testing.T) {
	for _, options := range []struct{ workers, depth, buffer int }{
		{1, 0, 0}, {1, 1, 0}, {1, 0, 1}, {2, 3, 0}, {3, 0, 4}, {4, 2, 3},
	} {
		t.Run(fmt.Sprintf("%+v", options), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, square, workpool.WithWorkers(options.workers),
					workpool.WithQueueDepth(options.depth), workpool.WithResultBuffer(options.buffer))
				var pulled atomic.Int64
				endless := func(yield func(int) bool) {
					for i := 0; ; i++ {
						pulled.Add(1)
						if !yield(i) {
							return
						}
					}
				}
				s := p.Stream(t.Context(), endless)
				synctest.Wait()
				require.Zero(t, pulled.Load(), "nothing is pulled before the range")

				bound := int64(options.workers + options.depth + options.buffer)
				yielded := int64(0)
				for range s {
					yielded++
					synctest.Wait()
					assert.LessOrEqual(t, pulled.Load()-yielded, bound)
					if yielded == 20 {
						break
					}
				}
				after := pulled.Load()
				closed(t, p)
				assert.Equal(t, after, pulled.Load())
			})
		})
	}
}

func TestStream_SlowLoopBodyHoldsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithResultBuffer(1))
		for range p.Stream(t.Context(), count(20)) {
			synctest.Wait() // now the stream holds as much of the pool as it ever will

			value, err := p.Do(t.Context(), 3)
			require.NoError(t, err)
			require.Equal(t, 9, value)

			values, err := p.Map(t.Context(), upTo(5))
			require.NoError(t, err)
			require.Len(t, values, 5)

			require.NoError(t, p.Submit(t.Context(), 4))
			for r := range p.Results() {
				require.Equal(t, 16, r.Value)
				break
			}

			inner := byIndex(t, streamed(p.Stream(t.Context(), count(7))))
			require.Len(t, inner, 7)
		}
		closed(t, p)
	})
}

func TestStream_SeveralAtOnceOnOnePool(t *testing.T) {
	p := mustNew(t, square, workpool.WithWorkers(3), workpool.WithQueueDepth(2))
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			results := byIndex(t, streamed(p.Stream(t.Context(), count(n*20))))
			assert.Len(t, results, n*20)
			for i, r := range results {
				assert.Equal(t, i*i, r.Value)
			}
		})
		all.Go(func() {
			values, err := p.Map(t.Context(), upTo(n*20))
			assert.NoError(t, err)
			assert.Len(t, values, n*20)
		})
	}
	all.Wait()
	closed(t, p)
}

func TestStream_RangedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		s := p.Stream(t.Context(), count(10))
		for range s {
			break
		}
		for range 2 {
			results := byIndex(t, streamed(s))
			require.Len(t, results, 10)
			assert.Equal(t, 81, results[9].Value)
		}
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { assert.Len(t, byIndex(t, streamed(s)), 10) })
		}
		both.Wait()
		closed(t, p)
	})
}

func TestStream_ThroughIterPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(2))
		next, stop := iter.Pull(p.Stream(t.Context(), count(10)))
		for range 3 {
			_, ok := next()
			require.True(t, ok)
		}
		stop()
		stats := p.Stats()
		assert.Zero(t, stats.Running+stats.Queued)
		closed(t, p)
	})
}

func TestStream_EndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		defer closed(t, p)
		reason := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		results := streamed(p.Stream(ctx, count(10)))
		require.Len(t, results, 1)
		require.ErrorIs(t, results[0].Err, context.Canceled)
		require.ErrorIs(t, results[0].Err, reason)
		assert.Zero(t, p.Stats().Submitted)
	})
}

func TestStream_ContextEndsOnTheWay(t *testing.T) {
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reason := errors.New("too slow")
				ctx, cancel := context.WithTimeoutCause(t.Context(), 2500*time.Millisecond, reason)
				defer cancel()
				var running, started, pulled atomic.Int32
				p := mustNew(t, func(ctx context.Context, i int) (int, error) {
					started.Add(1)
					running.Add(1)
					defer running.Add(-1)
					select {
					case <-ctx.Done():
						assert.Equal(t, reason, context.Cause(ctx))
						time.Sleep(time.Second) // takes its time to end
						return 0, context.Cause(ctx)
					case <-time.After(time.Second):
						return i, nil
					}
				}, opts...)
				endless := func(yield func(int) bool) {
					for i := 0; ; i++ {
						if pulled.Add(1); !yield(i) {
							return
						}
					}
				}
				results := streamed(p.Stream(ctx, endless))
				assert.Zero(t, running.Load(), "running tasks are waited for")
				last := results[len(results)-1]
				require.Error(t, last.Err, "the last Result says that the input was cut short")

				byIndex(t, results)
				var ran int32
				for i, r := range results {
					if r.Worker > 0 {
						ran++
						assert.Equal(t, i, r.Task)
					}
					if r.Err != nil {
						assert.ErrorIs(t, r.Err, reason)
					} else {
						assert.Equal(t, i, r.Value)
					}
				}
				assert.Equal(t, started.Load(), ran, "what ran has been yielded")
				assert.GreaterOrEqual(t, len(results), int(pulled.Load()), "what was pulled has been yielded")
				assert.LessOrEqual(t, len(results), int(pulled.Load())+1, "and perhaps a last Result, without a task")
				closed(t, p)
			})
		})
	}
}

// An input may be costly to read from. Once the context has ended, nobody has
// any use for what it yields.
func TestStream_ContextEndsAndNothingMoreIsPulled(t *testing.T) {
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				p := mustNew(t, func(ctx context.Context, _ int) (int, error) { return untilEnd(ctx) }, opts...)
				var pulled, late atomic.Int32
				endless := func(yield func(int) bool) {
					for i := 0; ; i++ {
						if pulled.Add(1); ctx.Err() != nil {
							late.Add(1)
						}
						if !yield(i) {
							return
						}
					}
				}
				results := make(chan []workpool.Result[int, int], 1)
				go func() { results <- streamed(p.Stream(ctx, endless)) }()
				synctest.Wait() // the pool is full, and so is the stream
				cancel()
				got := <-results
				assert.Zero(t, late.Load(), "nothing is pulled any more")
				require.ErrorIs(t, got[len(got)-1].Err, context.Canceled)
				byIndex(t, got)
				assert.GreaterOrEqual(t, len(got), int(pulled.Load()))
				assert.LessOrEqual(t, len(got), int(pulled.Load())+1, "a last one may say why the stream ended early")
				closed(t, p)
			})
		})
	}
}

func TestStream_ContextEndsWhileTheInputIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := mustNew(t, square)
		unblock := make(chan struct{})
		goesOn := make(chan bool, 1)
		input := func(yield func(int) bool) {
			if !yield(0) || !yield(1) {
				return
			}
			<-unblock
			goesOn <- yield(2)
		}
		begin := time.Now()
		results := streamed(p.Stream(ctx, input))
		assert.LessOrEqual(t, time.Since(begin), time.Second+100*time.Millisecond, "it does not wait for a blocked input")

		require.Len(t, results, 3)
		byIndex(t, results)
		assert.NoError(t, results[0].Err)
		assert.NoError(t, results[1].Err)
		require.ErrorIs(t, results[2].Err, context.DeadlineExceeded, "the last Result says why the stream ended early")

		close(unblock)
		assert.False(t, <-goesOn, "the input is stopped when it next yields")
		closed(t, p)
		assert.Equal(t, uint64(2), p.Stats().Submitted)
	})
}

func TestStream_BreakWhileTheInputIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		asked, unblock := make(chan struct{}), make(chan struct{})
		goesOn := make(chan bool, 1)
		input := func(yield func(int) bool) {
			if !yield(0) {
				return
			}
			close(asked)
			<-unblock
			goesOn <- yield(1)
		}
		begin := time.Now()
		for range p.Stream(t.Context(), input) {
			<-asked // or the input is told to stop already
			break
		}
		assert.LessOrEqual(t, time.Since(begin), 100*time.Millisecond)
		closed(t, p)

		close(unblock)
		assert.False(t, <-goesOn)
	})
}

func TestStream_ClosedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		closed(t, p)
		pulled := 0
		results := streamed(p.Stream(t.Context(), func(yield func(int) bool) {
			for i := range 10 {
				pulled++
				if !yield(i) {
					return
				}
			}
		}))
		require.Len(t, results, 1)
		require.ErrorIs(t, results[0].Err, workpool.ErrClosed)
		assert.Equal(t, 1, pulled)
	})
}

func TestStream_PoolClosesOnTheWay(t *testing.T) {
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, func(ctx context.Context, i int) (int, error) {
					time.Sleep(time.Second)
					return i, ctx.Err()
				}, opts...)
				go func() {
					time.Sleep(2500 * time.Millisecond)
					assert.NoError(t, p.Shutdown(t.Context()))
				}()
				var pulled atomic.Int32
				endless := func(yield func(int) bool) {
					for i := 0; ; i++ {
						if pulled.Add(1); !yield(i) {
							return
						}
					}
				}
				results := streamed(p.Stream(t.Context(), endless))
				require.NotEmpty(t, results)
				require.ErrorIs(t, results[len(results)-1].Err, workpool.ErrClosed, "the last Result says so")
				assert.Len(t, results, int(pulled.Load()))
				byIndex(t, results)
				for i, r := range results {
					if i < len(results)-1 {
						assert.NoError(t, r.Err, "what was accepted runs")
					} else {
						assert.ErrorIs(t, r.Err, workpool.ErrClosed)
					}
				}
				synctest.Wait()
			})
		})
	}
}

func TestStream_PoolAbortsOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(ctx context.Context, i int) (int, error) { return untilEnd(ctx) },
			workpool.WithWorkers(2), workpool.WithQueueDepth(2), workpool.WithShutdown(workpool.Abort, 0))
		go func() {
			time.Sleep(time.Second)
			assert.NoError(t, p.Close())
		}()
		results := byIndex(t, streamed(p.Stream(t.Context(), count(100))))
		require.GreaterOrEqual(t, len(results), 4)
		for _, r := range results {
			if !errors.Is(r.Err, workpool.ErrAborted) {
				assert.ErrorIs(t, r.Err, workpool.ErrClosed)
			}
		}
		synctest.Wait()
	})
}

func TestStream_PanicOfTheInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(2))
		cause := errors.New("the file ended")
		results := streamed(p.Stream(t.Context(), func(yield func(int) bool) {
			for i := range 5 {
				if !yield(i) {
					return
				}
			}
			panic(cause)
		}))
		require.Len(t, results, 6)
		last := results[5]
		var panicked *workpool.PanicError
		require.ErrorAs(t, last.Err, &panicked)
		require.ErrorIs(t, last.Err, cause)
		assert.NotEmpty(t, panicked.Stack)
		for i, r := range byIndex(t, results)[:5] {
			assert.NoError(t, r.Err)
			assert.Equal(t, i*i, r.Value)
		}
		assert.Equal(t, uint64(5), last.Index, "the position that failed")
		closed(t, p)
	})
}

func TestStream_GoexitOfTheInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(2))
		results := byIndex(t, streamed(p.Stream(t.Context(), func(yield func(int) bool) {
			_ = yield(0)
			runtime.Goexit()
		})))
		require.Len(t, results, 2)
		require.ErrorIs(t, results[1].Err, workpool.ErrGoexit)
		closed(t, p)
	})
}

// An input that goes on after it was told to stop breaks the rules of
// range-over-func. It must not take the process or the pool along.
func TestStream_InputThatIgnoresTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		for range p.Stream(t.Context(), func(yield func(int) bool) {
			for i := range 1000 {
				yield(i)
			}
		}) {
			break
		}
		closed(t, p)
	})
}

func TestRule8_StreamYieldsWhileASlowTaskRuns(t *testing.T) {
	for name, opts := range shapes {
		if name == "one worker" || name == "all at their least" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const fast = 30
				release := make(chan struct{})
				p := mustNew(t, func(_ context.Context, i int) (int, error) {
					if i == 0 {
						<-release
					}
					return i, nil
				}, append([]workpool.Option{workpool.WithWorkers(2)}, opts...)...)
				yielded := 0
				for r := range p.Stream(t.Context(), count(1+fast)) {
					yielded++
					if yielded <= fast {
						assert.NotZero(t, r.Task, "the fast ones first")
					}
					if yielded == fast {
						close(release)
					}
				}
				assert.Equal(t, 1+fast, yielded)
				closed(t, p)
			})
		})
	}
}

func TestRule8_StreamRunsASingleTaskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(2))
		answered := make(chan struct{})
		for r := range p.Stream(t.Context(), func(yield func(int) bool) {
			for i := range 5 {
				if !yield(i) {
					return
				}
				<-answered // the input goes on when the answer has been seen
			}
		}) {
			assert.Equal(t, r.Task*r.Task, r.Value)
			answered <- struct{}{}
		}
		closed(t, p)
	})
}

func TestSubmitAll_AcceptsEverything(t *testing.T) {
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, square, opts...)
				go func() {
					accepted, err := p.SubmitAll(t.Context(), count(300))
					assert.NoError(t, err)
					assert.Equal(t, 300, accepted)
					assert.NoError(t, p.Shutdown(t.Context()))
				}()
				results := byIndex(t, collect(p))
				require.Len(t, results, 300)
				for i, r := range results {
					assert.Equal(t, i, r.Task, "accepted in order")
					assert.Equal(t, i*i, r.Value)
				}
				synctest.Wait()
			})
		})
	}
}

func TestSubmitAll_NoTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		accepted, err := p.SubmitAll(t.Context(), count(0))
		require.NoError(t, err)
		assert.Zero(t, accepted)
		closed(t, p)
	})
}

func TestSubmitAll_NilArgumentsAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		defer closed(t, p)
		var none context.Context
		_, err := p.SubmitAll(none, count(3))
		require.Error(t, err)
		_, err = p.SubmitAll(t.Context(), nil)
		require.Error(t, err)
		assert.Zero(t, p.Stats().Submitted)
	})
}

func TestSubmitAll_TakesNoMoreThanThereIsRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(3))
		release := make(chan struct{})
		var pulled atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan outcome, 1)
		go func() {
			accepted, err := p.SubmitAll(ctx, func(yield func(closure) bool) {
				for {
					if pulled.Add(1); !yield(until(release)) {
						return
					}
				}
			})
			done <- outcome{value: accepted, err: err}
		}()
		synctest.Wait()
		assert.Equal(t, int32(6), pulled.Load(), "two run, three are queued, one waits")

		cancel()
		got := <-done
		assert.Equal(t, 5, got.value)
		require.ErrorIs(t, got.err, context.Canceled)
		assert.Equal(t, int32(6), pulled.Load())
		close(release)
		closed(t, p)
		assert.Equal(t, uint64(5), p.Stats().Succeeded)
	})
}

func TestSubmitAll_StopsWhenThePoolCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(_ context.Context, i int) (int, error) {
			time.Sleep(time.Second)
			return i, nil
		}, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		go func() {
			time.Sleep(2500 * time.Millisecond)
			assert.NoError(t, p.Shutdown(t.Context()))
		}()
		accepted, err := p.SubmitAll(t.Context(), count(100))
		require.ErrorIs(t, err, workpool.ErrClosed)
		assert.Equal(t, 3, accepted)
		closed(t, p)
		assert.Equal(t, uint64(3), p.Stats().Succeeded)

		accepted, err = p.SubmitAll(t.Context(), count(100))
		require.ErrorIs(t, err, workpool.ErrClosed)
		assert.Zero(t, accepted)
	})
}

func TestSubmitAll_PanicOfTheSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		cause := errors.New("the file ended")
		accepted, err := p.SubmitAll(t.Context(), func(yield func(int) bool) {
			_ = yield(1) && yield(2)
			panic(cause)
		})
		var panicked *workpool.PanicError
		require.ErrorAs(t, err, &panicked)
		require.ErrorIs(t, err, cause)
		assert.Equal(t, 2, accepted)
		closed(t, p)
		assert.Len(t, collect(p), 2)
	})
}

func TestSubmitAll_GoexitOfTheSequenceEndsItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		var caller sync.WaitGroup
		caller.Go(func() {
			_, _ = p.SubmitAll(t.Context(), func(yield func(int) bool) {
				_ = yield(1)
				runtime.Goexit()
			})
			assert.Fail(t, "Goexit ends the goroutine that calls it")
		})
		caller.Wait()
		closed(t, p)
		assert.Len(t, collect(p), 1)
	})
}

func TestRule8_SubmitAllDoesNotQueueBehindASlowTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fast = 30
		p := newClosures(t, workpool.WithWorkers(2))
		release := make(chan struct{})
		accepted, err := p.SubmitAll(t.Context(), func(yield func(closure) bool) {
			if !yield(until(release)) {
				return
			}
			for i := range fast {
				if !yield(returning(1+i, nil)) {
					return
				}
			}
		})
		require.NoError(t, err)
		require.Equal(t, 1+fast, accepted)

		received := 0
		for r := range p.Results() {
			assert.NotZero(t, r.Value)
			if received++; received == fast {
				break // all fast ones were received while the slow one is held
			}
		}
		close(release)
		closed(t, p)
		require.Len(t, collect(p), 1)
	})
}

func TestMap_FunctionWithFewTasksKeepsTheElasticMinimum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values, err := workpool.Map(t.Context(), upTo(1), square, workpool.WithElastic(2, time.Second))
		require.NoError(t, err)
		assert.Equal(t, []int{0}, values)
		_, err = workpool.Map(t.Context(), upTo(1), square, workpool.WithWorkers(1), workpool.WithElastic(2, time.Second))
		require.ErrorIs(t, err, workpool.ErrInvalidOption)
	})
}
