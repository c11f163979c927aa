package workpool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"runtime/pprof"
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

// A goroutine that a handler has left behind asks which task it belongs to, while the
// worker goes on with others. With -race, it must not read what the worker writes.
func TestInfoFrom_ByAGoroutineThatWasLeftBehind(t *testing.T) {
	const tasks = 500
	p := mustNew(t, func(ctx context.Context, n int) (int, error) {
		want, _ := workpool.InfoFrom(ctx)
		go func() {
			for range 20 {
				got, ok := workpool.InfoFrom(ctx)
				if !ok || got != want {
					panic(fmt.Sprintf("%v is now %v", want, got))
				}
				_, _, _ = ctx.Err(), ctx.Done(), ctx.Value(n)
			}
		}()
		if want.Attempt == 1 && n%5 == 0 {
			return 0, workpool.RetryAfter(0, nil)
		}
		return n, nil
	}, workpool.WithWorkers(3), workpool.WithoutResults())
	var all sync.WaitGroup
	all.Go(func() {
		_, err := p.Map(context.Background(), upTo(tasks))
		assert.NoError(t, err)
	})
	all.Go(func() {
		for r := range p.Stream(context.Background(), count(tasks)) {
			assert.NoError(t, r.Err)
		}
	})
	all.Go(func() {
		for i := range tasks {
			_, err := p.Do(t.Context(), i)
			assert.NoError(t, err)
		}
	})
	for i := range tasks {
		require.NoError(t, p.Submit(context.Background(), i))
	}
	all.Wait()
}

// Every method of a zero Pool returns, as that of a closed one does.
func TestPool_TheZeroOneBehavesAsAClosedOne(t *testing.T) {
	within(t, func() {
		var p closures
		task := returning(1, nil)
		for _, ctx := range []context.Context{context.Background(), t.Context()} {
			assert.ErrorIs(t, p.Submit(ctx, task), workpool.ErrClosed)
			assert.ErrorIs(t, p.TrySubmit(ctx, task), workpool.ErrClosed)
			accepted, err := p.SubmitAll(ctx, slices.Values([]closure{task}))
			assert.ErrorIs(t, err, workpool.ErrClosed)
			assert.Zero(t, accepted)
			cancel, err := p.SubmitCancel(ctx, task)
			assert.ErrorIs(t, err, workpool.ErrClosed)
			cancel()
			fails(t, workpool.ErrClosed)(p.Do(ctx, task))
			fails(t, workpool.ErrClosed)(p.TryDo(ctx, task))
			assert.ErrorIs(t, (<-p.DoChan(ctx, task)).Err, workpool.ErrClosed)
			for _, tasks := range [][]closure{nil, {task}} {
				fails(t, workpool.ErrClosed)(p.Map(ctx, tasks))
				results := streamed(p.Stream(ctx, slices.Values(tasks)))
				require.NotEmpty(t, results)
				assert.ErrorIs(t, results[len(results)-1].Err, workpool.ErrClosed)
				assert.Zero(t, results[len(results)-1].Attempt)
			}
			g := p.Group(ctx)
			assert.ErrorIs(t, g.Submit(task), workpool.ErrClosed)
			fails(t, workpool.ErrClosed)(g.Wait())
			assert.NoError(t, p.Wait(ctx))
			assert.NoError(t, p.Shutdown(ctx))
		}
		assert.Empty(t, collect(&p))
		assert.ErrorIs(t, p.Resize(3), workpool.ErrClosed)
		p.Pause()
		p.Resume()
		s := p.Stats()
		assert.True(t, s.Closed)
		assert.False(t, s.Paused)
		assertSum(t, s)
		assert.NoError(t, p.Shutdown(endedContext()))
		assert.NoError(t, p.Close())
		assert.NoError(t, p.Close())
	})
}

// What a zero Pool refuses counts as refused, as with a closed one.
func TestStats_OfTheZeroPool(t *testing.T) {
	var zero closures
	shut := newClosures(t)
	closed(t, shut)
	for name, use := range map[string]func(p *closures){
		"Submit":    func(p *closures) { _ = p.Submit(context.Background(), returning(1, nil)) },
		"TrySubmit": func(p *closures) { _ = p.TrySubmit(context.Background(), returning(1, nil)) },
		"Cancel":    func(p *closures) { _, _ = p.SubmitCancel(context.Background(), returning(1, nil)) },
		"Do":        func(p *closures) { _, _ = p.Do(context.Background(), returning(1, nil)) },
		"TryDo":     func(p *closures) { _, _ = p.TryDo(context.Background(), returning(1, nil)) },
		"DoChan":    func(p *closures) { <-p.DoChan(context.Background(), returning(1, nil)) },
		"Map":       func(p *closures) { _, _ = p.Map(context.Background(), []closure{returning(1, nil)}) },
		"Group":     func(p *closures) { _ = p.Group(context.Background()).Submit(returning(1, nil)) },
	} {
		was, wasShut := zero.Stats().Refused, shut.Stats().Refused
		use(&zero)
		use(shut)
		assert.Equal(t, wasShut+1, shut.Stats().Refused, name)
		assert.Equal(t, was+1, zero.Stats().Refused, name)
	}
}

// A chain is tasks each of which is handed in by the one before. Memory and stacks don't grow
// with its length.
func TestRule2_ChainsOfTasksTakeNoMemory(t *testing.T) {
	type task = int
	type hand func(ctx context.Context, p *workpool.Pool[task, int], n task) error
	submit := func(ctx context.Context, p *workpool.Pool[task, int], n task) error { return p.Submit(ctx, n) }
	hands := map[string]hand{
		"Submit":    submit,
		"TrySubmit": func(ctx context.Context, p *workpool.Pool[task, int], n task) error { return p.TrySubmit(ctx, n) },
		"SubmitAll": func(ctx context.Context, p *workpool.Pool[task, int], n task) error {
			_, err := p.SubmitAll(ctx, slices.Values([]task{n}))
			return err
		},
		"SubmitCancel": func(ctx context.Context, p *workpool.Pool[task, int], n task) error {
			_, err := p.SubmitCancel(ctx, n)
			return err
		},
		"DoChan": func(ctx context.Context, p *workpool.Pool[task, int], n task) error {
			p.DoChan(ctx, n)
			return nil
		},
	}
	if testing.Short() {
		delete(hands, "SubmitCancel")
	}
	starts := map[string]func(p *workpool.Pool[task, int]) error{
		"Submit": func(p *workpool.Pool[task, int]) error { return p.Submit(context.Background(), 0) },
		"values": func(p *workpool.Pool[task, int]) error {
			return p.Submit(context.WithValue(context.Background(), "k", "v"), 0) //nolint:staticcheck // any key will do
		},
		"Do": func(p *workpool.Pool[task, int]) error {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_, err := p.Do(ctx, 0)
			return err
		},
		"Map": func(p *workpool.Pool[task, int]) error {
			_, err := p.Map(context.Background(), []task{0})
			return err
		},
		"Group": func(p *workpool.Pool[task, int]) error {
			g := p.Group(context.Background())
			if err := g.Submit(0); err != nil {
				return err
			}
			_, err := g.Wait()
			return err
		},
	}
	arounds := map[string]func(h workpool.Handler[task, int]) workpool.Handler[task, int]{
		"directly": func(h workpool.Handler[task, int]) workpool.Handler[task, int] { return h },
		"Timeout": func(h workpool.Handler[task, int]) workpool.Handler[task, int] {
			return workpool.Timeout(h, time.Minute)
		},
		"two Timeouts": func(h workpool.Handler[task, int]) workpool.Handler[task, int] {
			return workpool.Retry(workpool.Timeout(workpool.Timeout(h, time.Minute), time.Minute), 2, seconds)
		},
	}
	generations, sane := rounds(20_000, 100_000), 1<<20
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 20))
	for handed, hand := range hands {
		for started, start := range starts {
			for around, wrap := range arounds {
				if handed == "DoChan" && (around != "directly" || started != "Submit" && started != "values") {
					continue // the next task would end with the handler, or with the first caller
				}
				t.Run(handed+"/"+started+"/"+around, func(t *testing.T) {
					var p *workpool.Pool[task, int]
					half, done := make(chan int, 1), make(chan struct{})
					handler := wrap(func(ctx context.Context, n task) (int, error) {
						switch n {
						case 100:
							half <- heap()
						case generations:
							close(done)
							return 0, nil
						}
						err := hand(ctx, p, n+1)
						for err != nil && errors.Is(err, workpool.ErrQueueFull) {
							err = hand(ctx, p, n+1)
						}
						return 0, err
					})
					p = mustNew(t, handler, workpool.WithoutResults(), workpool.WithWorkers(2))
					within(t, func() {
						require.NoError(t, start(p))
						before := <-half
						<-done
						assert.Less(t, heap()-before, sane)
					})
				})
			}
		}
	}
}

// The same with calls and batches in each handler, whose own tasks do nothing.
func TestRule2_ChainsThroughBatchesTakeNoMemory(t *testing.T) {
	generations, sane := rounds(10_000, 100_000), 1<<20
	inside := map[string]func(ctx context.Context, p *workpool.Pool[int, int]) error{
		"Do": func(ctx context.Context, p *workpool.Pool[int, int]) error {
			_, err := p.Do(ctx, -1)
			return err
		},
		"Map": func(ctx context.Context, p *workpool.Pool[int, int]) error {
			_, err := p.Map(ctx, []int{-1, -1, -1})
			return err
		},
		"Group": func(ctx context.Context, p *workpool.Pool[int, int]) error {
			g := p.Group(ctx)
			for range 3 {
				if err := g.Submit(-1); err != nil {
					return err
				}
			}
			_, err := g.Wait()
			return err
		},
		"Stream": func(ctx context.Context, p *workpool.Pool[int, int]) error {
			for r := range p.Stream(ctx, slices.Values([]int{-1, -1})) {
				if r.Err != nil {
					return r.Err
				}
			}
			return nil
		},
	}
	for name, use := range inside {
		t.Run(name, func(t *testing.T) {
			var p *workpool.Pool[int, int]
			first, last := make(chan int, 1), make(chan struct{})
			p = mustNew(t, func(ctx context.Context, n int) (int, error) {
				switch n {
				case -1:
					return 0, nil
				case 100:
					first <- heap()
				case generations:
					close(last)
					return 0, nil
				}
				if err := use(ctx, p); err != nil {
					return 0, err
				}
				return 0, p.Submit(ctx, n+1)
			}, workpool.WithoutResults(), workpool.WithWorkers(2))
			within(t, func() {
				require.NoError(t, p.Submit(context.Background(), 0))
				before := <-first
				<-last
				assert.Less(t, heap()-before, sane)
			})
			closed(t, p)
			assert.Zero(t, p.Stats().Failed)
		})
	}
}

// outlived are the ways in which a handler's context is used after the handler.
var outlived = map[string]func(ctx context.Context, use func(ctx context.Context)){
	"left behind": func(ctx context.Context, use func(ctx context.Context)) { go use(ctx) },
	"WithoutCancel": func(ctx context.Context, use func(ctx context.Context)) {
		go use(context.WithoutCancel(ctx))
	},
	"WithValue": func(ctx context.Context, use func(ctx context.Context)) {
		go use(context.WithValue(ctx, "k", "v")) //nolint:staticcheck // any key will do
	},
}

// A context that has outlived its handler is inside nothing: a pool of one worker
// never runs more than one task, and those who come with such a context wait for room.
func TestRule6_AContextThatHasOutlivedItsHandlerIsInsideNothing(t *testing.T) {
	uses := map[string]func(ctx context.Context, p *closures, task closure) error{
		"Submit": func(ctx context.Context, p *closures, task closure) error { return p.Submit(ctx, task) },
	}
	maps.Copy(uses, callers)
	delete(uses, "SubmitCancel")
	for way, use := range uses {
		for by, outlive := range outlived {
			for _, through := range []bool{false, true} {
				bubble(t, fmt.Sprintf("%s/%s/through=%v", way, by, through), func(t *testing.T) {
					p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
					other := newClosures(t) // through which a context goes
					var running, most atomic.Int32
					busy := func(context.Context) (int, error) {
						most.Store(max(most.Load(), running.Add(1)))
						defer running.Add(-1)
						time.Sleep(time.Second)
						return 0, nil
					}
					over := make(chan struct{})
					var left sync.WaitGroup
					for range 3 {
						left.Add(1)
						_, err := p.Do(context.Background(), func(ctx context.Context) (int, error) {
							late := func(ctx context.Context) {
								defer left.Done()
								<-over
								_ = use(ctx, p, busy)
							}
							if through {
								answer := other.DoChan(context.WithoutCancel(ctx), func(ctx context.Context) (int, error) {
									outlive(ctx, late)
									return 0, nil
								})
								<-answer
								return 0, nil
							}
							outlive(ctx, late)
							return 0, nil
						})
						require.NoError(t, err)
					}
					var next sync.WaitGroup
					next.Go(func() { _, _ = p.Do(context.Background(), busy) })
					synctest.Wait()
					close(over) // the worker has another task now
					synctest.Wait()
					assert.Equal(t, 1, p.Stats().Running)
					assert.Equal(t, 1, p.Stats().Workers)
					next.Wait()
					left.Wait()
					_ = p.Wait(context.Background())
					assert.Equal(t, int32(1), most.Load())
					require.NoError(t, p.Shutdown(context.Background()))
					closed(t, other)
				})
			}
		}
	}
}

// The same with keys: two tasks of one key never run at once.
func TestRule6_AContextThatHasOutlivedItsHandlerHoldsNoKey(t *testing.T) {
	for by, outlive := range outlived {
		bubble(t, by, func(t *testing.T) {
			type task struct {
				key int
				run closure
			}
			p := mustNew(t, func(ctx context.Context, task task) (int, error) { return task.run(ctx) },
				workpool.WithWorkers(4), workpool.WithKey(func(task task) int { return task.key }), workpool.WithoutResults())
			var running, most atomic.Int32
			busy := task{1, func(context.Context) (int, error) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				time.Sleep(time.Second)
				return 0, nil
			}}
			over := make(chan struct{})
			var left sync.WaitGroup
			for range 3 {
				left.Add(1)
				_, err := p.Do(context.Background(), task{1, func(ctx context.Context) (int, error) {
					outlive(ctx, func(ctx context.Context) {
						defer left.Done()
						<-over
						_, _ = p.Do(context.WithoutCancel(ctx), busy)
					})
					return 0, nil
				}})
				require.NoError(t, err)
			}
			require.NoError(t, p.Submit(context.Background(), busy))
			synctest.Wait()
			close(over)
			left.Wait()
			require.NoError(t, p.Wait(context.Background()))
			assert.Equal(t, int32(1), most.Load())
		})
	}
}

// Many goroutines of one handler call: the handler is one worker, and so one task runs in
// its place at a time.
func TestRule6_ManyCallsOfOneHandlerRunOneAtATime(t *testing.T) {
	for name, call := range map[string]call{"Do": do, "DoChan": doChan, "Map": func(ctx context.Context, p *closures, task closure) (int, error) {
		_, err := p.Map(ctx, []closure{task, task})
		return 0, err
	}} {
		for _, workers := range []int{1, 2, 4} {
			for _, handlers := range []int{1, 2} {
				bubble(t, fmt.Sprintf("%s/workers=%d/handlers=%d", name, workers, handlers), func(t *testing.T) {
					p := newClosures(t, workpool.WithWorkers(workers), workpool.WithQueueDepth(3))
					var running, most atomic.Int32
					nap := func(context.Context) (int, error) {
						n := running.Add(1)
						defer running.Add(-1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
							continue
						}
						time.Sleep(time.Second)
						return 0, nil
					}
					var all sync.WaitGroup
					for range handlers {
						all.Go(func() {
							_, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
								var calls sync.WaitGroup
								for range 500 {
									calls.Go(func() {
										_, err := call(ctx, p, nap)
										assert.NoError(t, err)
									})
								}
								calls.Wait()
								return 0, nil
							})
							assert.NoError(t, err)
						})
					}
					all.Wait()
					assert.LessOrEqual(t, int(most.Load()), workers, "each handler waits, and so one runs in its place")
					assert.Positive(t, most.Load())
				})
			}
		}
	}
}

// large is as large as a task or a value may be.
type large [60_000]byte

func TestPool_OfLargeTypes(t *testing.T) {
	value := large{0: 1, 59_999: 2}
	t.Run("T", func(t *testing.T) {
		p := mustNew(t, func(_ context.Context, task large) (int, error) { return int(task[0]) + int(task[59_999]), nil })
		usesAll(t, p, value, 3)
	})
	t.Run("R", func(t *testing.T) {
		p := mustNew(t, func(context.Context, int) (large, error) { return value, nil })
		usesAll(t, p, 1, value)
	})
}

// usesAll has a task come and go in all ways, and closes the pool.
func usesAll[T, R any](t *testing.T, p *workpool.Pool[T, R], task T, want R) {
	t.Helper()
	value, err := p.Do(t.Context(), task)
	require.NoError(t, err)
	assert.True(t, assert.ObjectsAreEqual(want, value))
	assert.True(t, assert.ObjectsAreEqual(want, (<-p.DoChan(t.Context(), task)).Value))
	values, err := p.Map(t.Context(), []T{task, task})
	require.NoError(t, err)
	assert.True(t, assert.ObjectsAreEqual([]R{want, want}, values))
	for r := range p.Stream(t.Context(), slices.Values([]T{task, task})) {
		require.NoError(t, r.Err)
		assert.True(t, assert.ObjectsAreEqual(want, r.Value))
	}
	g := p.Group(t.Context())
	require.NoError(t, g.Submit(task))
	values, err = g.Wait()
	require.NoError(t, err)
	assert.True(t, assert.ObjectsAreEqual([]R{want}, values))
	require.NoError(t, p.Submit(t.Context(), task))
	closed(t, p)
	for _, r := range collect(p) {
		assert.True(t, assert.ObjectsAreEqual(want, r.Value))
	}
}

// Workers have a label of their own, whoever started them.
func TestPool_WorkersCarryItsNameAsALabel(t *testing.T) {
	profile := func() string {
		var text bytes.Buffer
		require.NoError(t, pprof.Lookup("goroutine").WriteTo(&text, 1))
		return text.String()
	}
	release := make(chan struct{})
	var running sync.WaitGroup
	running.Add(3)
	task := func(context.Context) (int, error) { //nolint:unparam // a task
		running.Done()
		<-release
		return 0, nil
	}
	named := newClosures(t, workpool.WithWorkers(2), workpool.WithName("letters"))
	unnamed := newClosures(t, workpool.WithWorkers(1))
	pprof.Do(t.Context(), pprof.Labels("of", "somebody else"), func(ctx context.Context) {
		require.NoError(t, named.Submit(ctx, task))
		require.NoError(t, named.Submit(ctx, task))
		require.NoError(t, unnamed.Submit(ctx, task))
	})
	running.Wait()
	text := profile()
	assert.Contains(t, text, `{"workpool":"letters"}`)
	assert.NotContains(t, text, "somebody else", "this goroutine has its old labels, and the workers never had those")
	close(release)
	closed(t, named)
}

// A worker has its label after a task that panicked or exited its goroutine, too.
func TestPool_WorkersKeepTheirLabel(t *testing.T) {
	p := newClosures(t, workpool.WithWorkers(1), workpool.WithName("letters"))
	for _, task := range []closure{catchFire, exit} {
		_, err := p.Do(t.Context(), task)
		require.Error(t, err)
		_, err = p.Do(t.Context(), func(context.Context) (int, error) {
			var text bytes.Buffer
			err := pprof.Lookup("goroutine").WriteTo(&text, 1)
			assert.Contains(t, text.String(), `{"workpool":"letters"}`)
			return 0, err
		})
		require.NoError(t, err)
	}
}

// When cancel has returned, nothing is accepted, nothing begins, and the contexts of running
// handlers have ended.
func TestWithContext_ItsEndIsNoticedAtOnce(t *testing.T) {
	for way, run := range callers {
		for _, bound := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%s/bound=%v", way, bound), func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(context.Background())
				p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(3), workpool.WithContext(ctx))
				own := context.Background()
				if bound {
					var end context.CancelFunc
					own, end = context.WithCancel(own)
					defer end()
				}
				contexts := make(chan context.Context, 2)
				release := make(chan struct{})
				ran := new(atomic.Int32)
				var all sync.WaitGroup
				for range 2 {
					all.Go(func() {
						_ = run(own, p, func(ctx context.Context) (int, error) {
							contexts <- ctx
							<-release
							return 0, nil
						})
					})
				}
				synctest.Wait()
				for range 4 { // one of them in line
					all.Go(func() { _ = run(own, p, counted(ran)) })
				}
				synctest.Wait()
				s := p.Stats()
				require.Equal(t, 2, s.Running)
				require.Equal(t, 3, s.Queued)
				require.Equal(t, 1, s.Waiting)

				cause := errors.New("the machine goes down")
				cancel(cause)
				for range 2 {
					ctx := <-contexts
					assert.Error(t, ctx.Err())
					assert.ErrorIs(t, context.Cause(ctx), workpool.ErrAborted)
					assert.ErrorIs(t, context.Cause(ctx), cause)
				}
				assert.ErrorIs(t, p.Submit(context.Background(), counted(ran)), workpool.ErrClosed)
				assert.ErrorIs(t, p.TrySubmit(context.Background(), counted(ran)), workpool.ErrClosed)
				fails(t, workpool.ErrClosed)(p.Do(context.Background(), counted(ran)))
				s = p.Stats()
				assert.True(t, s.Closed)
				assert.Zero(t, s.Queued+s.Waiting)
				close(release)
				all.Wait()
				assert.Zero(t, ran.Load())
				var cut *workpool.ShutdownError
				require.ErrorAs(t, p.Close(), &cut)
				assert.ErrorIs(t, cut, cause)
				assert.Equal(t, 3, cut.Aborted)
				assert.Equal(t, 2, cut.Running)
			})
		}
	}
}

// It ends a pool that is being closed, too.
func TestWithContext_ItsEndAbortsAPoolThatIsClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithContext(ctx))
		ran := new(atomic.Int32)
		require.NoError(t, p.Submit(t.Context(), untilEnd))
		submitN(t, p, 5, counted(ran))
		outcome := make(chan error)
		go func() { outcome <- p.Close() }()
		synctest.Wait()
		cancel()
		var cut *workpool.ShutdownError
		require.ErrorAs(t, <-outcome, &cut)
		assert.Equal(t, 5, cut.Aborted)
		assert.Equal(t, 1, cut.Running)
		assert.ErrorIs(t, cut, context.Canceled)
		assert.Zero(t, ran.Load())
		assert.Len(t, collect(p), 6)
	})
}

// A handler that ranges over the results of its own pool gets what is ready, and then the
// end at once: it would wait for its own.
func TestResults_InAHandlerEndAfterWhatIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		for i := range 3 {
			require.NoError(t, p.Submit(t.Context(), returning(i, nil)))
		}
		require.NoError(t, p.Submit(t.Context(), func(context.Context) (int, error) { return len(collect(p)), nil }))
		synctest.Wait()
		r := receive(t, p)
		assert.Equal(t, 3, r.Value)
		value, err := p.Do(t.Context(), func(context.Context) (int, error) { return len(collect(p)), nil })
		require.NoError(t, err)
		assert.Zero(t, value)
		values, err := p.Map(t.Context(), []closure{func(context.Context) (int, error) { return len(collect(p)), nil }})
		require.NoError(t, err)
		assert.Equal(t, []int{0}, values)
		value, err = p.Do(t.Context(), func(ctx context.Context) (int, error) { // and in one that runs in its place
			return p.Do(ctx, func(context.Context) (int, error) { return len(collect(p)), nil })
		})
		require.NoError(t, err)
		assert.Zero(t, value)
		closed(t, p)
		assert.Empty(t, collect(p))
	})
}
