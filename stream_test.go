package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
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
	eachShape(t, 1, func(t *testing.T, opts []workpool.Option) {
		p := mustNew(t, func(_ context.Context, i int) (int, error) {
			switch i % 4 {
			case 1:
				return 0, errFailed
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
				assert.Equal(t, errFailed, r.Err)
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
				})
			}
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
	for _, options := range []struct{ workers, depth, buffer int }{
		{1, 0, 0}, {1, 1, 0}, {1, 0, 1}, {2, 3, 0}, {3, 0, 4}, {4, 2, 3},
	} {
		bubble(t, fmt.Sprintf("%+v", options), func(t *testing.T) {
			p := mustNew(t, square, workpool.WithWorkers(options.workers),
				workpool.WithQueueDepth(options.depth), workpool.WithResultBuffer(options.buffer))
			var pulled atomic.Int64
			s := p.Stream(t.Context(), numbers(func() { pulled.Add(1) }))
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
	}
}

func TestStream_SlowLoopBodyHoldsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithResultBuffer(1))
		for range p.Stream(t.Context(), count(20)) {
			synctest.Wait() // now the stream holds as much of the pool as it ever will
			for way, run := range ways[int, int]("Do", "DoChan", "Map", "Stream", "Group") {
				values, err := run(t.Context(), p, upTo(5)...)
				require.NoError(t, err, way)
				require.ElementsMatch(t, []int{0, 1, 4, 9, 16}, values, way)
			}
			submit(t, p, 4)
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
			results := byIndex(t, streamed(s))
			require.Len(t, results, 10)
			assert.Equal(t, 81, results[9].Value)
		}
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { assert.Len(t, byIndex(t, streamed(s)), 10) })
		}
		both.Wait()
	})
}

func TestStream_PoolClosesOnTheWay(t *testing.T) {
	eachShape(t, 1, func(t *testing.T, opts []workpool.Option) {
		p := mustNew(t, func(ctx context.Context, i int) (int, error) {
			time.Sleep(time.Second)
			return i, ctx.Err()
		}, opts...)
		go func() {
			time.Sleep(2500 * time.Millisecond)
			assert.NoError(t, p.Shutdown(t.Context()))
		}()
		var pulled atomic.Int32
		results := streamed(p.Stream(t.Context(), numbers(func() { pulled.Add(1) })))
		require.NotEmpty(t, results)
		require.ErrorIs(t, results[len(results)-1].Err, workpool.ErrClosed, "the last Result says so")
		assert.Zero(t, results[len(results)-1].Attempt)
		assert.Len(t, results, int(pulled.Load())+1)
		byIndex(t, results)
		for i, r := range results {
			if i < len(results)-2 {
				assert.NoError(t, r.Err, "what was accepted runs")
			} else {
				assert.ErrorIs(t, r.Err, workpool.ErrClosed)
			}
		}
		synctest.Wait()
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
	})
}

func TestRule8_StreamYieldsWhileASlowTaskRuns(t *testing.T) {
	eachShape(t, 2, func(t *testing.T, opts []workpool.Option) {
		const fast = 30
		release := make(chan struct{})
		p := mustNew(t, func(_ context.Context, i int) (int, error) {
			if i == 0 {
				<-release
			}
			return i, nil
		}, opts...)
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
	})
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
	})
}

// The loop over a Stream ends early: what runs is cancelled and waited for.
func TestStream_LoopThatEndsEarly(t *testing.T) {
	ends := map[string]func(s iter.Seq[workpool.Result[int, int]]){
		"break": func(s iter.Seq[workpool.Result[int, int]]) {
			for range s {
				break
			}
		},
		"panic": func(s iter.Seq[workpool.Result[int, int]]) {
			defer func() {
				if v := recover(); v != "in the loop body" {
					panic(v)
				}
			}()
			for range s {
				panic("in the loop body")
			}
		},
		"Goexit": func(s iter.Seq[workpool.Result[int, int]]) {
			var body sync.WaitGroup
			body.Go(func() {
				for range s {
					runtime.Goexit()
				}
			})
			body.Wait()
		},
		"iter.Pull": func(s iter.Seq[workpool.Result[int, int]]) {
			next, stop := iter.Pull(s)
			_, _ = next()
			stop()
		},
	}
	for name, end := range ends {
		bubble(t, name, func(t *testing.T) {
			p := mustNew(t, func(ctx context.Context, i int) (int, error) {
				if i == 0 {
					return 0, nil
				}
				return untilEnd(ctx)
			}, workpool.WithWorkers(3))
			end(p.Stream(t.Context(), count(100)))
			s := p.Stats()
			assert.Zero(t, s.Running+s.Queued)
			assert.Equal(t, s.Submitted, s.Succeeded+s.Failed+s.Aborted)
		})
	}
}

func TestRule7_APanicOfTheInputIsTheLastResult(t *testing.T) {
	cause := errors.New("the file ended")
	for name, end := range map[string]func(){"panic": func() { panic(cause) }, "Goexit": runtime.Goexit} {
		bubble(t, name, func(t *testing.T) {
			p := mustNew(t, square, workpool.WithWorkers(2))
			results := streamed(p.Stream(t.Context(), func(yield func(int) bool) {
				count(5)(yield)
				end()
			}))
			require.Len(t, results, 6)
			last := results[5]
			if name == "panic" {
				var panicked *workpool.PanicError
				require.ErrorAs(t, last.Err, &panicked)
				require.ErrorIs(t, last.Err, cause)
				assert.NotEmpty(t, panicked.Stack)
			} else {
				require.ErrorIs(t, last.Err, workpool.ErrGoexit)
			}
			assert.Zero(t, last.Attempt)
			assert.EqualValues(t, 5, last.Index, "the position that failed")
			for i, r := range byIndex(t, results)[:5] {
				assert.NoError(t, r.Err)
				assert.Equal(t, i*i, r.Value)
			}
		})
	}
}

func TestStream_ContextEndsOnTheWay(t *testing.T) {
	eachShape(t, 1, func(t *testing.T, opts []workpool.Option) {
		reason := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2500*time.Millisecond, reason)
		defer cancel()
		var running, started, pulled, late atomic.Int32
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
		results := streamed(p.Stream(ctx, numbers(func() {
			if pulled.Add(1); ctx.Err() != nil {
				late.Add(1)
			}
		})))
		assert.Zero(t, running.Load(), "running tasks are waited for")
		assert.Zero(t, late.Load(), "nothing is pulled any more: an input may be costly")
		last := results[len(results)-1]
		require.Error(t, last.Err, "the last Result says that the input was cut short")
		assert.Zero(t, last.Attempt)

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
		assert.Len(t, results, int(pulled.Load())+1, "what was pulled has been yielded")
	})
}

// A Stream that can take nothing ends with a Result that says why, and one without tasks
// with none.
func TestStream_OfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		assert.Empty(t, streamed(p.Stream(t.Context(), count(0))))
		reason := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		results := streamed(p.Stream(ctx, count(10)))
		require.Len(t, results, 1)
		require.ErrorIs(t, results[0].Err, context.Canceled)
		require.ErrorIs(t, results[0].Err, reason)
		assert.Zero(t, results[0].Attempt)
		closed(t, p)

		pulled := 0
		results = streamed(p.Stream(t.Context(), func(yield func(int) bool) {
			for i := 0; i < 10 && yield(7); i++ {
				pulled++
			}
		}))
		require.Len(t, results, 2)
		assert.Zero(t, pulled)
		require.ErrorIs(t, results[0].Err, workpool.ErrClosed, "of the task that was taken from the input")
		require.ErrorIs(t, results[1].Err, workpool.ErrClosed, "of the Stream")
		for _, r := range results {
			r.Err = nil
			assert.Contains(t, []workpool.Result[int, int]{{Task: 7, Attempt: 1}, {Index: 1}}, r)
		}
		assert.Zero(t, p.Stats().Submitted)
	})
}

// The end does not wait for an input that is blocked, which is told when it next yields.
func TestStream_EndsWhileTheInputIsBlocked(t *testing.T) {
	for _, breaks := range []bool{false, true} { // or its context ends
		bubble(t, fmt.Sprintf("breaks=%v", breaks), func(t *testing.T) {
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
}
