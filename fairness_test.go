package workpool_test

import (
	"context"
	"fmt"
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

// permutations yields every order of 0..n-1.
func permutations(n int, yield func(order []int)) {
	order := upTo(n)
	var permute func(k int)
	permute = func(k int) {
		if k == n {
			yield(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			permute(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	permute(0)
}

// Three workers are made busy, and let go in every order: whichever is idle,
// a task that is submitted then is answered while the others still run.
func TestRule8_NobodyWaitsWithoutNeed(t *testing.T) {
	const workers = 3
	permutations(workers, func(order []int) {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(workers))
				var release [workers]chan struct{}
				for i := range release {
					release[i] = make(chan struct{})
					require.NoError(t, p.Submit(t.Context(), func(context.Context) (int, error) {
						<-release[i]
						return i, nil
					}))
				}
				for nth, i := range order {
					close(release[i])
					require.Equal(t, i, receive(t, p).Value, "the finished result is there while others run")
					for range 3 {
						require.NoError(t, p.Submit(t.Context(), returning(100, nil)))
						require.Equal(t, 100, receive(t, p).Value, "a fast task is not queued behind a slow one")
					}
					synctest.Wait()
					assert.Equal(t, workers-nth-1, p.Stats().Running)
				}
				closed(t, p)
			})
		})
	})
}

// receive returns the next of Results. In a bubble, one that never comes is a
// deadlock.
func receive[T, R any](t *testing.T, p *workpool.Pool[T, R]) (result workpool.Result[T, R]) {
	t.Helper()
	for r := range p.Results() {
		return r
	}
	require.Fail(t, "Results ended")
	return result
}

// Slow tasks stand at every position of a burst. All fast ones behind and
// before them end, and are received, while the slow ones are held.
func TestRule8_SlowTasksAnywhereInABurst(t *testing.T) {
	const burst = 6
	submits := map[string]func(p *closures, task closure) error{
		"Submit":    func(p *closures, task closure) error { return p.Submit(context.Background(), task) },
		"TrySubmit": func(p *closures, task closure) error { return p.TrySubmit(task) },
	}
	for name, submit := range submits {
		t.Run(name, func(t *testing.T) {
			for slow := range 1 << burst { // a bit for each slow task
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					fast, held := 0, 0
					for i := range burst {
						held += slow >> i & 1
					}
					p := newClosures(t, workpool.WithWorkers(held+1))
					for i := range burst {
						task := until(release)
						if slow>>i&1 == 0 {
							fast++
							task = returning(fast, nil)
						}
						require.NoError(t, submit(p, task))
					}
					received := 0
					if fast > 0 {
						for r := range p.Results() {
							assert.Positive(t, r.Value)
							if received++; received == fast {
								break
							}
						}
					}
					synctest.Wait()
					assert.Equal(t, held, p.Stats().Running)
					close(release)
					closed(t, p)
					assert.Len(t, collect(p), held)
				})
			}
		})
	}
}

// A worker must not take tasks in advance that another one could run.
func TestRule8_IdleWorkersShareABurst(t *testing.T) {
	for workers := 1; workers <= 8; workers++ {
		synctest.Test(t, func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(workers))
			begin := time.Now()
			for range 3 * workers {
				require.NoError(t, p.Submit(t.Context(), func(context.Context) (int, error) {
					time.Sleep(time.Second)
					return 0, nil
				}))
			}
			require.NoError(t, p.Wait(t.Context()))
			assert.Equal(t, 3*time.Second, time.Since(begin), "%d workers", workers)
			closed(t, p)
		})
	}
}

func TestRule8_EveryWorkerTakesPartWhenTasksComeOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 4
		p := newClosures(t, workpool.WithWorkers(workers))
		release := make(chan struct{})
		for busy := range workers {
			synctest.Wait()
			assert.Equal(t, busy, p.Stats().Running)
			require.NoError(t, p.Submit(t.Context(), until(release)))
		}
		synctest.Wait()
		assert.Equal(t, workers, p.Stats().Running)
		close(release)
		closed(t, p)
	})
}

func TestRule8_AFinishedResultIsSeenAtOnce(t *testing.T) {
	for _, buffer := range []int{0, 1, 128} {
		t.Run(fmt.Sprintf("buffer=%d", buffer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(3), workpool.WithResultBuffer(buffer))
				release := occupy(t, p, 2)
				received := make(chan int, 10)
				go func() {
					for r := range p.Results() {
						received <- r.Value
					}
				}()
				for i := range 5 {
					begin := time.Now()
					require.NoError(t, p.Submit(t.Context(), func(context.Context) (int, error) {
						time.Sleep(time.Second)
						return 1 + i, nil
					}))
					assert.Equal(t, 1+i, <-received)
					assert.Equal(t, time.Second, time.Since(begin))
				}
				release()
				closed(t, p)
			})
		})
	}
}

// A receiver that is slow in its loop body keeps nothing but the one result
// that it is at.
func TestRule8_ASlowReceiverKeepsNothingFromAnother(t *testing.T) {
	for _, buffer := range []int{0, 1, 128} {
		t.Run(fmt.Sprintf("buffer=%d", buffer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const tasks = 50
				p := mustNew(t, square, workpool.WithWorkers(2), workpool.WithResultBuffer(buffer))
				release := make(chan struct{})
				var slow, fast atomic.Int32
				go func() {
					for range p.Results() {
						slow.Add(1)
						<-release
					}
				}()
				require.NoError(t, p.Submit(t.Context(), 0))
				synctest.Wait()
				require.Equal(t, int32(1), slow.Load())

				go func() {
					for range p.Results() {
						fast.Add(1)
					}
				}()
				accepted, err := p.SubmitAll(t.Context(), count(tasks))
				require.NoError(t, err)
				require.Equal(t, tasks, accepted)
				synctest.Wait()
				assert.Equal(t, int32(tasks), fast.Load())
				assert.Zero(t, p.Stats().Undelivered)
				close(release)
				closed(t, p)
			})
		})
	}
}

// Both receivers wait; each gets a result as soon as there is one for it.
func TestRule8_TwoWaitingReceiversAreBothServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square, workpool.WithWorkers(2))
		release := make(chan struct{})
		var inBody atomic.Int32
		for range 2 {
			go func() {
				for range p.Results() {
					inBody.Add(1)
					<-release
				}
			}()
		}
		synctest.Wait()
		require.NoError(t, p.Submit(t.Context(), 1))
		require.NoError(t, p.Submit(t.Context(), 2))
		synctest.Wait()
		assert.Equal(t, int32(2), inBody.Load())
		close(release)
		closed(t, p)
	})
}

func TestRule8_SubmittersAreServedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const submitters = 10
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0))
		release := occupy(t, p, 1)
		for i := range submitters {
			go func() { assert.NoError(t, p.Submit(t.Context(), returning(1+i, nil))) }()
			synctest.Wait() // they come one after the other
		}
		release()
		for i := range 1 + submitters {
			assert.Equal(t, i, receive(t, p).Value)
		}
		closed(t, p)
	})
}

func TestSubmit_OneWorkerKeepsTheOrder(t *testing.T) {
	for name, opts := range shapes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustNew(t, square, append(opts[:len(opts):len(opts)], workpool.WithWorkers(1))...)
				go func() {
					_, err := p.SubmitAll(t.Context(), count(200))
					assert.NoError(t, err)
					assert.NoError(t, p.Close())
				}()
				for i, r := range collect(p) {
					assert.Equal(t, uint64(i), r.Index)
					assert.Equal(t, i, r.Task)
				}
				synctest.Wait()
			})
		})
	}
}

// within fails the test, with the stacks of all goroutines, if f takes longer
// than a minute. It is for tests outside a bubble, which would find a deadlock.
func within(t *testing.T, f func()) {
	const limit = time.Minute
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		require.Fail(t, "it hangs", "%s", stacks)
	}
}

// A wake-up that gets lost shows when there is just one task at a time, and
// real goroutines that fall asleep while it comes.
func TestRule8_NoWakeUpIsLost(t *testing.T) {
	const rounds = 20_000
	spun := 0
	for _, procs := range []int{1, 2, 8} {
		for _, workers := range []int{1, 2, 4, 8} {
			t.Run(fmt.Sprintf("procs=%d/workers=%d", procs, workers), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				within(t, func() {
					p := mustNew(t, square, workpool.WithWorkers(workers), workpool.WithQueueDepth(workers%2), workpool.WithResultBuffer(workers/4))
					results := make(chan int)
					var receivers sync.WaitGroup
					for range 1 + workers/2 {
						receivers.Go(func() {
							for r := range p.Results() {
								results <- r.Value
							}
						})
					}
					for i := range rounds {
						if err := p.Submit(context.Background(), i); err != nil {
							assert.NoError(t, err)
							break
						}
						if value := <-results; value != i*i {
							assert.Equal(t, i*i, value)
						}
						for range i % 128 * 16 {
							spun++ // give workers and receivers time to get to every point of falling asleep
						}
					}
					closed(t, p)
					receivers.Wait()
				})
			})
		}
	}
}

// As above, with as many tasks on the way as there are workers: each of them
// waits for all others, so that one worker left asleep stops everything.
func TestRule8_NoWakeUpIsLostAmongTasksThatMeet(t *testing.T) {
	const rounds = 1000
	for _, procs := range []int{1, 2, 8} {
		for _, workers := range []int{2, 3, 8} {
			t.Run(fmt.Sprintf("procs=%d/workers=%d", procs, workers), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				within(t, func() {
					p := newClosures(t, workpool.WithWorkers(workers))
					for range rounds {
						var meeting sync.WaitGroup
						meeting.Add(workers)
						for range workers {
							assert.NoError(t, p.Submit(context.Background(), func(context.Context) (int, error) {
								meeting.Done()
								meeting.Wait()
								return 0, nil
							}))
						}
						received := 0
						for range p.Results() {
							if received++; received == workers {
								break
							}
						}
					}
					closed(t, p)
				})
			})
		}
	}
}

// Submitters, callers, batches and receivers that come and go, on few workers.
func TestRule8_NoWakeUpIsLostInACrowd(t *testing.T) {
	const rounds = 1000
	for _, procs := range []int{1, 2, 8} {
		for _, workers := range []int{1, 3} {
			t.Run(fmt.Sprintf("procs=%d/workers=%d", procs, workers), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				within(t, func() {
					p := mustNew(t, square, workpool.WithWorkers(workers), workpool.WithQueueDepth(1), workpool.WithResultBuffer(0))
					var crowd, receivers sync.WaitGroup
					var received atomic.Int64
					for range 2 {
						receivers.Go(func() {
							for received.Load() < 2*rounds {
								for range p.Results() {
									received.Add(1)
									break // and come again
								}
							}
						})
					}
					for range 2 {
						crowd.Go(func() {
							for i := range rounds {
								assert.NoError(t, p.Submit(context.Background(), i))
							}
						})
						crowd.Go(func() {
							for i := range rounds {
								_, err := p.Do(context.Background(), i)
								assert.NoError(t, err)
							}
						})
						crowd.Go(func() {
							for range rounds / 10 {
								_, err := p.Map(context.Background(), upTo(10))
								assert.NoError(t, err)
							}
						})
					}
					crowd.Wait()
					closed(t, p)
					receivers.Wait()
					assert.Equal(t, int64(2*rounds), received.Load())
					assert.Empty(t, collect(p))
				})
			})
		}
	}
}
