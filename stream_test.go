package workpool_test

import (
	"context"
	"errors"
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

func TestStream_YieldsTheOutcomeOfEachTask(t *testing.T) {
	eachShape(t, func(t *testing.T, opts []workpool.Option) {
		p := mustNew(t, moody, opts...)
		const n = 40
		results := byIndex(t, slices.Collect(p.Stream(t.Context(), count(n))))
		require.Len(t, results, n)
		for i, r := range results {
			assert.Equal(t, i, r.Task)
			assert.Equal(t, 1, r.Attempt)
			assert.Positive(t, r.Worker)
			switch i % 4 {
			case 0:
				gives(t, i)(r.Value, r.Err)
			case 1:
				assert.Equal(t, errOdd, r.Err)
			case 2:
				panicked(t, i, r.Err)
			case 3:
				assert.Equal(t, workpool.ErrGoexit, r.Err)
			}
		}
		closed(t, p)
		assert.Empty(t, collect(p), "Stream answers to its caller alone")
	})
}

func TestStream_BreakAtEveryIndex(t *testing.T) {
	const n = 12
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			eachOf(t, upTo(n), func(t *testing.T, stop int) {
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
					if yielded++; yielded > stop {
						break
					}
				}
				assert.Zero(t, running.Load(), "the handlers that were started have returned")
				assert.True(t, inputLeft, "the input has been stopped")
				stats := p.Stats()
				assert.Zero(t, stats.Running+stats.Queued+int(stats.Failed))
				assertSum(t, stats)
				gives(t, upTo(5))(p.Map(t.Context(), upTo(5))) // the pool goes on
			})
		})
	}
}

// numbers yields 0, 1, 2, ... and calls pulled before each.
func numbers(pulled func()) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := 0; ; i++ {
			if pulled(); !yield(i) {
				return
			}
		}
	}
}

func TestStream_IsLazyAndBounded(t *testing.T) {
	eachOf(t, [][]int{{1, 0, 0}, {1, 1, 0}, {1, 0, 1}, {2, 3, 0}, {3, 0, 4}, {4, 2, 3}}, func(t *testing.T, c []int) {
		p := mustNew(t, square, workpool.WithWorkers(c[0]), workpool.WithQueueDepth(c[1]), workpool.WithResultBuffer(c[2]))
		var pulled atomic.Int64
		s := p.Stream(t.Context(), numbers(func() { pulled.Add(1) }))
		synctest.Wait()
		require.Zero(t, pulled.Load(), "nothing is pulled before the range")
		yielded := 0
		for range s {
			yielded++
			synctest.Wait()
			assert.LessOrEqual(t, int(pulled.Load())-yielded, c[0]+c[1]+c[2])
			if yielded == 20 {
				break
			}
		}
		after := pulled.Load()
		closed(t, p)
		assert.Equal(t, after, pulled.Load())
	})
}

func TestStream_SlowLoopBodyHoldsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithResultBuffer(1))
		for range p.Stream(t.Context(), count(20)) {
			synctest.Wait() // now the stream holds as much of the pool as it ever will
			for way, run := range ways[int, int]("Do", "DoChan", "Map", "Stream", "Group") {
				values, err := run(t.Context(), p, upTo(5)...)
				require.NoError(t, err, way)
				require.ElementsMatch(t, upTo(5), values, way)
			}
			submit(t, p, 16)
			require.Equal(t, 16, receive(t, p).Value)
		}
	})
}

func TestStream_RangedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		s := p.Stream(t.Context(), count(10))
		for range s {
			break
		}
		for range 2 {
			results := byIndex(t, slices.Collect(s))
			require.Len(t, results, 10)
			assert.Equal(t, 81, results[9].Value)
		}
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { assert.Len(t, byIndex(t, slices.Collect(s)), 10) })
		}
		both.Wait()
	})
}

func TestStream_PoolClosesOnTheWay(t *testing.T) {
	eachShape(t, func(t *testing.T, opts []workpool.Option) {
		p := mustNew(t, func(ctx context.Context, i int) (int, error) {
			time.Sleep(time.Second)
			return i, ctx.Err()
		}, opts...)
		time.AfterFunc(2500*time.Millisecond, func() { assert.NoError(t, p.Shutdown(t.Context())) })
		var pulled atomic.Int32
		results := slices.Collect(p.Stream(t.Context(), numbers(func() { pulled.Add(1) })))
		require.NotEmpty(t, results)
		assert.Zero(t, results[len(results)-1].Attempt, "the last Result says so")
		assert.Len(t, results, int(pulled.Load())+1)
		for i, r := range byIndex(t, results) {
			if i < len(results)-2 {
				assert.NoError(t, r.Err, "what was accepted runs")
			} else {
				assert.ErrorIs(t, r.Err, workpool.ErrClosed)
			}
		}
		synctest.Wait()
	})
}

func TestRule8_StreamYieldsWhileASlowTaskRuns(t *testing.T) {
	eachShape(t, func(t *testing.T, opts []workpool.Option) {
		const fast = 30
		release := make(chan struct{})
		p := mustNew(t, func(_ context.Context, i int) (int, error) {
			if i == 0 {
				<-release
			}
			return i, nil
		}, append(opts, workpool.WithWorkers(2))...)
		yielded := 0
		for r := range p.Stream(t.Context(), count(1+fast)) {
			if yielded++; yielded <= fast {
				assert.NotZero(t, r.Task, "the fast ones first")
			}
			if yielded == fast {
				close(release)
			}
		}
		assert.Equal(t, 1+fast, yielded)
	})
}

func TestRule8_StreamRunsASingleTaskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(2))
		tasks := make(chan int, 1)
		tasks <- 0
		for r := range p.Stream(t.Context(), from(tasks)) {
			assert.Equal(t, r.Task*r.Task, r.Value)
			if r.Task == 5 {
				break
			}
			tasks <- r.Task + 1 // when the answer has been seen
		}
		close(tasks)
	})
}

// The loop over a Stream ends early, whatever its input then does: what runs is cancelled and
// waited for.
func TestStream_LoopThatEndsEarly(t *testing.T) {
	type stream = iter.Seq[workpool.Result[int, int]]
	obstinate := func(yield func(int) bool) { // against the rules of range-over-func
		for i := range 100 {
			yield(i)
		}
	}
	for name, end := range map[string]func(s stream){
		"break": func(s stream) {
			for range s {
				break
			}
		},
		"panic": func(s stream) {
			defer func() {
				if v := recover(); v != "in the loop body" {
					panic(v)
				}
			}()
			for range s {
				panic("in the loop body")
			}
		},
		"Goexit": func(s stream) {
			var body sync.WaitGroup
			body.Go(func() {
				for range s {
					runtime.Goexit()
				}
			})
			body.Wait()
		},
		"iter.Pull": func(s stream) {
			next, stop := iter.Pull(s)
			_, _ = next()
			stop()
		},
	} {
		for _, input := range []iter.Seq[int]{count(100), obstinate} {
			bubble(t, name, func(t *testing.T) {
				p := mustNew(t, func(ctx context.Context, i int) (int, error) {
					if i == 0 {
						return 0, nil
					}
					return untilEnd(ctx)
				}, workpool.WithWorkers(3))
				end(p.Stream(t.Context(), input))
				s := p.Stats()
				assert.Zero(t, s.Running+s.Queued)
				assertSum(t, s)
			})
		}
	}
}

func TestRule7_APanicOfTheInputIsTheLastResult(t *testing.T) {
	cause := errors.New("the file ended")
	for want, end := range map[error]func(){cause: func() { panic(cause) }, workpool.ErrGoexit: runtime.Goexit} {
		bubble(t, want.Error(), func(t *testing.T) {
			p := mustNew(t, square, workpool.WithWorkers(2))
			results := slices.Collect(p.Stream(t.Context(), func(yield func(int) bool) {
				count(5)(yield)
				end()
			}))
			require.Len(t, results, 6)
			last := results[5]
			require.ErrorIs(t, last.Err, want)
			if want == cause {
				panicked(t, cause, last.Err)
			}
			assert.Zero(t, last.Attempt)
			assert.EqualValues(t, 5, last.Index, "the position that failed")
			for i, r := range byIndex(t, results)[:5] {
				gives(t, i*i)(r.Value, r.Err)
			}
		})
	}
}

func TestStream_ContextEndsOnTheWay(t *testing.T) {
	eachShape(t, func(t *testing.T, opts []workpool.Option) {
		reason := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2500*time.Millisecond, reason)
		defer cancel()
		var running, started, pulled, late atomic.Int32
		p := mustNew(t, func(ctx context.Context, i int) (int, error) {
			started.Add(1)
			running.Add(1)
			defer running.Add(-1)
			value, err := lasting(time.Second, i)(ctx)
			if err != nil {
				assert.Equal(t, reason, err)
				time.Sleep(time.Second) // takes its time to end
			}
			return value, err
		}, opts...)
		results := slices.Collect(p.Stream(ctx, numbers(func() {
			if pulled.Add(1); ctx.Err() != nil {
				late.Add(1)
			}
		})))
		assert.Zero(t, running.Load(), "running tasks are waited for")
		assert.Zero(t, late.Load(), "nothing is pulled any more: an input may be costly")
		last := results[len(results)-1]
		require.Error(t, last.Err, "the last Result says that the input was cut short")
		assert.Zero(t, last.Attempt)
		var ran int32
		for i, r := range byIndex(t, results) {
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
		assert.Len(t, results, int(pulled.Load())+1, "what was pulled has been yielded")
	})
}

// A Stream that can take nothing ends with a Result that says why, and one without tasks
// with none.
func TestStream_OfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		assert.Empty(t, slices.Collect(p.Stream(t.Context(), count(0))))
		reason := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		results := slices.Collect(p.Stream(ctx, count(10)))
		require.Len(t, results, 1)
		fails(t, context.Canceled, reason)(0, results[0].Err)
		assert.Zero(t, results[0].Attempt)
		closed(t, p)
		pulled := 0
		results = slices.Collect(p.Stream(t.Context(), numbers(func() { pulled++ })))
		require.Len(t, results, 2)
		assert.Equal(t, 1, pulled)
		for _, r := range results { // of the task that was taken from the input, and of the Stream
			require.ErrorIs(t, r.Err, workpool.ErrClosed)
			r.Err = nil
			assert.Contains(t, []workpool.Result[int, int]{{Attempt: 1}, {Index: 1}}, r)
		}
		assert.Zero(t, p.Stats().Submitted)
	})
}

// The end does not wait for an input that is blocked, which is told when it next yields.
func TestStream_EndsWhileTheInputIsBlocked(t *testing.T) {
	eachOf(t, eitherWay, func(t *testing.T, breaks bool) { // or its context ends
		ctx := limited(t, time.Second)
		p := mustNew(t, square)
		unblock, goesOn := make(chan struct{}), make(chan bool, 1)
		input := func(yield func(int) bool) {
			if yield(0) && yield(1) {
				<-unblock
				goesOn <- yield(2)
			}
		}
		begin := time.Now()
		var results []workpool.Result[int, int]
		for r := range p.Stream(ctx, input) {
			results = append(results, r)
			if synctest.Wait(); breaks {
				break
			}
		}
		if breaks {
			assert.LessOrEqual(t, time.Since(begin), 100*time.Millisecond)
		} else {
			assert.LessOrEqual(t, time.Since(begin), time.Second+100*time.Millisecond)
			require.Len(t, byIndex(t, results), 3)
			assert.NoError(t, results[0].Err)
			assert.NoError(t, results[1].Err)
			require.ErrorIs(t, results[2].Err, context.DeadlineExceeded, "why the Stream ended early")
		}
		close(unblock)
		assert.False(t, <-goesOn)
		closed(t, p)
		assert.Equal(t, uint64(2), p.Stats().Submitted)
	})
}

func TestStream_EndsWithThePoolWhileTheInputIsBlocked(t *testing.T) {
	for name, end := range map[string]struct {
		pool func(p *workpool.Pool[int, int]) error
		err  error
	}{
		"Shutdown":      {func(p *workpool.Pool[int, int]) error { return p.Shutdown(context.Background()) }, workpool.ErrClosed},
		"an ended one":  {func(p *workpool.Pool[int, int]) error { return p.Shutdown(endedContext()) }, workpool.ErrAborted},
		"FinishRunning": {(*workpool.Pool[int, int]).Close, workpool.ErrClosed},
	} {
		bubble(t, name, func(t *testing.T) {
			p := mustNew(t, square, workpool.WithShutdown(workpool.FinishRunning, 0))
			unblock := make(chan struct{})
			time.AfterFunc(time.Second, func() { assert.NoError(t, end.pool(p)) })
			begin := time.Now()
			results := slices.Collect(p.Stream(t.Context(), func(yield func(int) bool) {
				if yield(3) {
					<-unblock
				}
			}))
			assert.LessOrEqual(t, time.Since(begin), time.Second+200*time.Millisecond)
			require.Len(t, results, 2)
			assert.Equal(t, workpool.Result[int, int]{Task: 3, Value: 9, Worker: 1, Attempt: 1}, results[0])
			require.ErrorIs(t, results[1].Err, end.err)
			require.NotErrorIs(t, results[1].Err, context.Canceled, "no context of the caller has ended")
			assert.Equal(t, workpool.Result[int, int]{Index: 1, Err: results[1].Err}, results[1])
			close(unblock)
		})
	}
}

// After a task that was not accepted, the last Result still says why the Stream has ended.
func TestStream_LastResultAfterATaskThatWasNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0))
		free := occupy(t, p, 1)
		unblock := make(chan struct{})
		results := slices.Collect(p.Stream(limited(t, time.Second), func(yield func(closure) bool) {
			yield(returning(1, nil))
			<-unblock
		}))
		require.Len(t, results, 2)
		for i, r := range results {
			assert.EqualValues(t, i, r.Index)
			require.ErrorIs(t, r.Err, context.DeadlineExceeded)
		}
		assert.Equal(t, 1, results[0].Attempt)
		assert.Zero(t, results[1].Attempt)
		close(unblock)
		free()
	})
}
