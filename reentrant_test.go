package workpool_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
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

func TestRule6_ATaskMayUseItsOwnPool(t *testing.T) {
	for name, use := range nested {
		t.Run(name, func(t *testing.T) {
			eachTight(t, func(t *testing.T, opts []workpool.Option) {
				p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
					if n == 0 {
						return use(ctx, p, 1, 2, 3)
					}
					return 10 * n, nil
				}, opts...)
				gives(t, 60)(p.Do(t.Context(), 0))
				submit(t, p, 0)
				r := receive(t, p)
				gives(t, 60)(r.Value, r.Err)
				closed(t, p)
				assert.Equal(t, uint64(8), p.Stats().Succeeded)
			})
		})
	}
}

func TestRule6_ATreeOfTasksFromInsideTasks(t *testing.T) {
	const tasks = 3000
	for name, growth := range map[string]func(n int) []int{ // which tasks a task submits
		"binary": func(n int) []int { return []int{2*n + 1, 2*n + 2} },
		"chain":  func(n int) []int { return []int{n + 1} },
		"fan": func(n int) []int {
			if n > 0 {
				return nil
			}
			return upTo(tasks)[1:]
		},
	} {
		handler := func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) { //nolint:unparam // a handler
			for _, child := range growth(n) {
				if child < tasks {
					assert.NoError(t, p.Submit(ctx, child))
				}
			}
			return n, nil
		}
		for _, audience := range []string{"receiver", "WithoutResults", "WithResultFunc"} {
			t.Run(name+"/"+audience, func(t *testing.T) {
				eachTight(t, func(t *testing.T, opts []workpool.Option) {
					var mu sync.Mutex
					var values []int
					note := func(r workpool.Result[int, int]) {
						mu.Lock()
						defer mu.Unlock()
						assert.NoError(t, r.Err)
						values = append(values, r.Value)
					}
					switch audience {
					case "WithoutResults":
						opts = append(opts, workpool.WithoutResults())
					case "WithResultFunc":
						opts = append(opts, workpool.WithResultFunc(note))
					}
					p := newSelfUsing(t, handler, opts...)
					submit(t, p, 0)
					for audience == "receiver" && len(values) < tasks {
						note(receive(t, p))
					}
					require.NoError(t, p.Wait(t.Context()))
					assert.EqualValues(t, tasks, p.Stats().Succeeded)
					closed(t, p)
					if audience != "WithoutResults" {
						slices.Sort(values)
						assert.Equal(t, upTo(tasks), values, "each task is answered once")
					}
				})
			})
		}
	}
}

func TestRule6_Recursion(t *testing.T) {
	for name, use := range nested {
		t.Run(name, func(t *testing.T) {
			eachTight(t, func(t *testing.T, opts []workpool.Option) {
				fibonacci := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
					switch {
					case n > 1000: // deep, and not broad
						return use(ctx, p, n-1)
					case n == 1000:
						return 1, nil
					case n < 2:
						return n, nil
					}
					return use(ctx, p, n-1, n-2)
				}, opts...)
				gives(t, 144)(fibonacci.Do(t.Context(), 12))
				gives(t, 1)(fibonacci.Do(t.Context(), 1500))
			})
		})
	}
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
		for range 3 { // one at a time: two callers may hold the one worker that each needs of the other
			gives(t, 50)(ping.Do(t.Context(), 50))
		}
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
	})
}

func TestRule6_NestedTasksUseIdleWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(4))
		begin := time.Now()
		gives(t, 0)(p.Do(t.Context(), func(ctx context.Context) (int, error) {
			_, err := p.Map(ctx, []closure{napping, napping, napping})
			return 0, err
		}))
		assert.Equal(t, time.Second, time.Since(begin), "three tasks on three idle workers")
	})
}

func TestRule6_WaitingForOneselfIsAnError(t *testing.T) {
	type derivation = func(ctx context.Context) (context.Context, context.CancelFunc)
	eachNamed(t, derivations, func(t *testing.T, _ string, derive derivation) {
		handler := func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
			ctx, cancel := derive(ctx)
			defer cancel()
			assert.ErrorIs(t, p.Shutdown(ctx), workpool.ErrReentrant)
			assert.ErrorIs(t, p.Wait(ctx), workpool.ErrReentrant)
			return n, nil
		}
		p := newSelfUsing(t, handler, workpool.WithWorkers(2))
		for _, ctx := range []context.Context{t.Context(), limited(t, time.Hour)} {
			for _, run := range ways[int, int]() {
				succeeds(t)(run(ctx, p, 1, 2, 3))
			}
			require.NoError(t, p.Submit(ctx, 1))
			require.NoError(t, p.TrySubmit(ctx, 2))
		}
		require.NoError(t, p.Wait(t.Context()), "the pool is still open, and Wait is for others")
		closed(t, p)
		require.Len(t, collect(p), 4)
	})
}

func TestRule6_WaitingForOneselfThroughAnotherPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer, inner := newClosures(t, workpool.WithName("outer")), newClosures(t, workpool.WithName("inner"))
		in := func(ctx context.Context, pool string) {
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			assert.Equal(t, pool, info.Pool)
		}
		gives(t, 0)(outer.Do(t.Context(), func(ctx context.Context) (int, error) {
			assert.NoError(t, inner.Wait(ctx), "another pool's handlers may wait")
			in(ctx, "outer")
			return inner.Do(ctx, func(ctx context.Context) (int, error) {
				in(ctx, "inner")
				assert.ErrorIs(t, outer.Wait(ctx), workpool.ErrReentrant)
				assert.ErrorIs(t, outer.Shutdown(ctx), workpool.ErrReentrant)
				assert.ErrorIs(t, inner.Wait(ctx), workpool.ErrReentrant)
				return 0, nil
			})
		}))
		// And they may shut it down.
		gives(t, 0)(outer.Do(t.Context(), func(ctx context.Context) (int, error) { return 0, inner.Shutdown(ctx) }))
		closed(t, inner)
		closed(t, outer)
	})
}

func TestRule6_InnerPanicLeavesTheOuterTaskAlone(t *testing.T) {
	for name, inner := range map[string]closure{"panic": catchFire, "Goexit": exit} {
		t.Run(name, func(t *testing.T) {
			eachTight(t, func(t *testing.T, opts []workpool.Option) {
				check := func(_ any, err error) {
					t.Helper()
					if name == "panic" {
						panicked(t, "on fire", err)
					} else {
						assert.ErrorIs(t, err, workpool.ErrGoexit)
					}
				}
				p := newClosures(t, opts...)
				gives(t, 7)(p.Do(t.Context(), func(ctx context.Context) (int, error) {
					for _, run := range ways[closure, int]() {
						check(run(ctx, p, inner))
					}
					check(p.Map(ctx, []closure{returning(1, nil), inner}))
					for range 5 {
						assert.NoError(t, p.Submit(ctx, inner))
					}
					assert.NoError(t, ctx.Err())
					return 7, nil
				}))
				closed(t, p)
				results := collect(p)
				require.Len(t, results, 5)
				for _, r := range results {
					check(r.Value, r.Err)
				}
			})
		})
	}
}

// The inner task heeds the end of its context, or ignores it.
func TestRule6_InnerTaskHasItsOwnDeadline(t *testing.T) {
	for _, inner := range []closure{untilEnd, sleeping(time.Hour, 0)} {
		eachTight(t, func(t *testing.T, opts []workpool.Option) {
			p := newClosures(t, opts...)
			begin := time.Now()
			gives(t, 0)(p.Do(t.Context(), func(ctx context.Context) (int, error) {
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				fails(t, context.DeadlineExceeded)(p.Do(short, inner))
				return 0, ctx.Err()
			}))
			assert.Equal(t, time.Second, time.Since(begin))
		})
	}
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
					return 1, ctx.Err()
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

func TestRule6_NestedWhilePaused(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newClosures(t, opts...)
		gives(t, 7)(p.Do(t.Context(), func(ctx context.Context) (int, error) {
			p.Pause()
			for way, run := range ways[closure, int]() {
				values, err := run(ctx, p, returning(1, nil), returning(2, nil))
				assert.NoError(t, err, way)
				assert.ElementsMatch(t, []int{1, 2}, values, way)
			}
			for range 3 {
				assert.NoError(t, p.Submit(ctx, returning(6, nil)))
			}
			return 7, nil
		}))
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
				gives(t, 4)(p.Do(t.Context(), func(ctx context.Context) (int, error) {
					time.Sleep(time.Second)
					assert.NoError(t, p.Resize(1))
					gives(t, []int{1, 2, 3})(p.Map(ctx, []closure{returning(1, nil), returning(2, nil), returning(3, nil)}))
					return p.Do(ctx, returning(4, nil))
				}))
			})
		}
		all.Wait()
		synctest.Wait()
		assert.Equal(t, 1, p.Stats().Workers)
	})
}

func TestRule6_NestedDuringADrainIsRefused(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newClosures(t, opts...)
		submit(t, p, func(ctx context.Context) (int, error) {
			time.Sleep(time.Second)
			assert.NoError(t, ctx.Err(), "a drain cancels nothing")
			assert.ErrorIs(t, p.Submit(ctx, returning(1, nil)), workpool.ErrClosed)
			assert.ErrorIs(t, p.TrySubmit(t.Context(), returning(1, nil)), workpool.ErrClosed)
			fails(t, workpool.ErrClosed)(p.SubmitAll(ctx, slices.Values([]closure{returning(1, nil)})))
			for _, run := range ways[closure, int]() {
				fails(t, workpool.ErrClosed)(run(ctx, p, returning(1, nil)))
			}
			results := slices.Collect(p.Stream(ctx, slices.Values([]closure{returning(1, nil), returning(2, nil)})))
			if assert.Len(t, results, 2, "of the task that was pulled, and of the Stream") {
				assert.ErrorIs(t, results[0].Err, workpool.ErrClosed)
				assert.ErrorIs(t, results[1].Err, workpool.ErrClosed)
				assert.Equal(t, []int{1, 0}, []int{results[0].Attempt, results[1].Attempt})
			}
			assert.ErrorIs(t, p.Shutdown(ctx), workpool.ErrReentrant)
			assert.ErrorIs(t, p.Wait(ctx), workpool.ErrReentrant)
			return 0, nil
		})
		require.NoError(t, p.Shutdown(t.Context()))
		require.Len(t, collect(p), 1)
	})
}

func TestRule6_AbortReachesNestedTasks(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newClosures(t, append(opts, workpool.WithShutdown(workpool.Abort, 0))...)
		done := inBackground(t.Context(), do, p, func(ctx context.Context) (int, error) {
			_, err := p.Do(ctx, func(ctx context.Context) (int, error) { return p.Do(ctx, untilEnd) })
			<-ctx.Done() // the outer context may end a moment after the inner one
			assert.ErrorIs(t, context.Cause(ctx), workpool.ErrAborted)
			return 0, err
		})
		closed(t, p)
		require.ErrorIs(t, (<-done).err, workpool.ErrAborted)
	})
}

// Many callers from outside, and each handler uses the pool in another way; while the pool
// is resized and paused.
func TestRule6_ManyOutsideAndInsideAtOnce(t *testing.T) {
	uses := slices.Sorted(maps.Keys(nested))
	for name, opts := range tight {
		t.Run(name, func(t *testing.T) {
			p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
				if n == 0 {
					return 1, nil
				}
				return nested[uses[n%len(uses)]](ctx, p, n-1)
			}, opts...)
			within(t, func() {
				var over atomic.Bool
				var callers, disturber sync.WaitGroup
				disturber.Go(func() {
					for !over.Load() {
						assert.NoError(t, p.Resize(1+rand.N(4)))
						p.Pause()
						p.Resume()
						runtime.Gosched()
					}
				})
				for range 8 {
					callers.Go(func() {
						for n := range 20 {
							gives(t, 1)(p.Do(t.Context(), n))
						}
					})
				}
				callers.Wait()
				over.Store(true)
				disturber.Wait()
			})
		})
	}
}

// The input may use the pool, in every way, also inside a handler; and it may end in
// every way.
func TestRule6_AnInputMayUseThePool(t *testing.T) {
	type input = func(ctx context.Context, p *closures, yield func(closure) bool)
	one := returning(1, nil)
	inputs := map[string]input{
		"TrySubmit": func(_ context.Context, p *closures, _ func(closure) bool) { _ = p.TrySubmit(t.Context(), one) },
		"SubmitAll of the rest": func(ctx context.Context, p *closures, yield func(closure) bool) {
			_, _ = p.SubmitAll(ctx, func(inner func(closure) bool) { _ = yield(one) && inner(one) && yield(one) && inner(one) })
		},
		"Stream of the rest": func(ctx context.Context, p *closures, yield func(closure) bool) {
			for range p.Stream(ctx, slices.Values([]closure{one, one, one})) {
				if !yield(one) {
					return
				}
			}
		},
		"Submit":  func(ctx context.Context, p *closures, _ func(closure) bool) { _ = p.Submit(ctx, one) },
		"Wait":    func(ctx context.Context, p *closures, _ func(closure) bool) { _ = p.Wait(ctx) },
		"Stats":   func(_ context.Context, p *closures, _ func(closure) bool) { p.Stats() },
		"Resize":  func(_ context.Context, p *closures, _ func(closure) bool) { _ = p.Resize(1); _ = p.Resize(3) },
		"Pause":   func(_ context.Context, p *closures, _ func(closure) bool) { p.Pause(); p.Resume() },
		"panic":   func(context.Context, *closures, func(closure) bool) { panic("input") },
		"Goexit":  func(context.Context, *closures, func(closure) bool) { runtime.Goexit() },
		"nothing": func(context.Context, *closures, func(closure) bool) {},
	}
	for name, run := range ways[closure, int]("Do", "Map") {
		inputs[name] = func(ctx context.Context, p *closures, _ func(closure) bool) { _, _ = run(ctx, p, one, one, one) }
	}
	for name, use := range inputs {
		for _, inside := range eitherWay {
			for _, c := range []struct{ workers, depth, buffer int }{{1, 0, 0}, {1, 1, 0}, {2, 2, 1}, {2, 128, 128}} {
				t.Run(fmt.Sprint(name, inside, c), func(t *testing.T) {
					eachNamed(t, sequenceWays, func(t *testing.T, _ string, feed sequenceWay) {
						p := newClosures(t, workpool.WithWorkers(c.workers), workpool.WithQueueDepth(c.depth), workpool.WithResultBuffer(c.buffer))
						received := make(chan int)
						go func() { received <- len(collect(p)) }()
						var ran atomic.Int32
						run := func(ctx context.Context) (int, error) {
							return 0, feed(ctx, p, func(yield func(closure) bool) {
								for i := 0; i < 5 && yield(counted(&ran)); i++ {
									use(ctx, p, yield)
								}
							})
						}
						var caller sync.WaitGroup
						caller.Go(func() {
							if inside {
								_, _ = p.Do(context.Background(), run)
							} else {
								_, _ = run(context.Background())
							}
						})
						caller.Wait()
						require.NoError(t, p.Wait(context.Background()))
						want := int32(5)
						if name == "panic" || name == "Goexit" {
							want = 1
						}
						assert.Equal(t, want, ran.Load())
						closed(t, p)
						<-received
						s := p.Stats()
						assert.Equal(t, s.Submitted, s.Succeeded+s.Failed)
					})
				})
			}
		}
	}
}

// The tasks of a Map that a handler has begun in its own place during a pause are there
// for all after it.
func TestRule8_ResumeReachesTheTasksOfANestedMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2))
		paused, end := make(chan struct{}), make(chan struct{})
		var behind atomic.Int32
		require.NoError(t, p.TrySubmit(t.Context(), func(ctx context.Context) (int, error) {
			<-paused
			_, err := p.Map(ctx, []closure{until(end), counted(&behind), counted(&behind)})
			return 0, err
		}))
		synctest.Wait()
		p.Pause()
		close(paused)
		synctest.Wait()
		require.Equal(t, 2, p.Stats().Running)
		p.Resume()
		synctest.Wait()
		assert.Equal(t, int32(2), behind.Load())
		close(end)
	})
}

func TestRule8_TasksOfAMapInsideAHandlerMeet(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(2))
			var meeting sync.WaitGroup
			meeting.Add(2)
			meet := func(context.Context) (int, error) { //nolint:unparam // a task
				meeting.Done()
				meeting.Wait()
				return 0, nil
			}
			one := returning(1, nil)
			inOneGo(t, p, one, one, one, func(ctx context.Context) (int, error) {
				_, err := p.Map(ctx, []closure{meet, meet})
				return 0, err
			})
			assert.Equal(t, 0, p.Stats().Running)
		})
	}
}

// A task that a handler waits for comes again, also where its key is the handler's.
func TestRetryAfter_InsideAHandler(t *testing.T) {
	for name, use := range nested {
		for _, keyed := range eitherWay {
			for _, delay := range []time.Duration{0, time.Second} {
				t.Run(fmt.Sprintf("%s/keyed=%v/delay=%v", name, keyed, delay), func(t *testing.T) {
					eachTight(t, func(t *testing.T, opts []workpool.Option) {
						if keyed {
							opts = append(opts, workpool.WithKey(func(int) int { return 7 }))
						}
						p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
							if n == 0 {
								return use(ctx, p, 1, 2)
							}
							return after(3, delay)(ctx, n)
						}, opts...)
						gives(t, 3)(p.Do(t.Context(), 0))
						closed(t, p)
						assert.EqualValues(t, 4, p.Stats().Retried)
					})
				})
			}
		}
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
	for way, use := range callers {
		if way == "SubmitCancel" {
			continue
		}
		for by, outlive := range outlived {
			for _, through := range eitherWay {
				bubble(t, fmt.Sprintf("%s/%s/through=%v", way, by, through), func(t *testing.T) {
					p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
					other := newClosures(t) // through which a context goes
					var c crowd
					over := make(chan struct{})
					var left sync.WaitGroup
					left.Add(3)
					leave := func(ctx context.Context) (int, error) { //nolint:unparam // a task
						outlive(ctx, func(ctx context.Context) {
							defer left.Done()
							<-over
							_ = use(ctx, p, c.task)
						})
						return 0, nil
					}
					for range 3 {
						gives(t, 0)(p.Do(context.Background(), func(ctx context.Context) (int, error) {
							if through {
								return doChan(context.WithoutCancel(ctx), other, leave)
							}
							return leave(ctx)
						}))
					}
					next := inBackground(context.Background(), do, p, c.task)
					close(over) // the worker has another task now
					synctest.Wait()
					assert.Equal(t, []int{1, 1}, []int{p.Stats().Running, p.Stats().Workers})
					<-next
					left.Wait()
					_ = p.Wait(context.Background())
					assert.Equal(t, int32(1), c.most.Load())
					closed(t, p)
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
			p := newOrders(t, workpool.WithWorkers(4), workpool.WithoutResults())
			var c crowd
			busy := order{1, c.task}
			over := make(chan struct{})
			var left sync.WaitGroup
			left.Add(3)
			for range 3 {
				gives(t, 0)(p.Do(context.Background(), order{1, func(ctx context.Context) (int, error) {
					outlive(ctx, func(ctx context.Context) {
						defer left.Done()
						<-over
						_, _ = p.Do(context.WithoutCancel(ctx), busy)
					})
					return 0, nil
				}}))
			}
			submit(t, p, busy)
			synctest.Wait()
			close(over)
			left.Wait()
			require.NoError(t, p.Wait(context.Background()))
			assert.Equal(t, int32(1), c.most.Load())
		})
	}
}

// Many goroutines of one handler call: the handler is one worker, and so one task runs in
// its place at a time.
func TestRule6_ManyCallsOfOneHandlerRunOneAtATime(t *testing.T) {
	for _, workers := range []int{1, 2, 4} {
		for _, handlers := range []int{1, 2} {
			eachNamed(t, ways[closure, int]("Do", "DoChan", "Map"), func(t *testing.T, _ string, run way[closure, int]) {
				p := newClosures(t, workpool.WithWorkers(workers), workpool.WithQueueDepth(3))
				var c crowd
				handler := func(ctx context.Context) (int, error) {
					var calls sync.WaitGroup
					for range 500 {
						calls.Go(func() { succeeds(t)(run(ctx, p, c.task, c.task)) })
					}
					calls.Wait()
					return 0, nil
				}
				succeeds(t)(doAtOnce(t.Context(), p, slices.Repeat([]closure{handler}, handlers)...))
				assert.LessOrEqual(t, int(c.most.Load()), workers, "each handler waits, and so one runs in its place")
				assert.Positive(t, c.most.Load())
			})
		}
	}
}
