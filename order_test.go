package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// The first task is slow, and 100,000 fast ones stand behind it.
func TestOrdered_ASlowTaskHoldsUpItsFollowersAndKeepsTheWindow(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 16} {
		synctest.Test(t, func(t *testing.T) {
			const tasks, depth, buffer = 100_000, 8, 5
			slow := func(_ context.Context, n int) (int, error) {
				if n == 0 {
					time.Sleep(time.Hour)
				}
				return n, nil
			}
			p := mustNew(t, slow, workpool.WithOrdered(), workpool.WithWorkers(workers),
				workpool.WithQueueDepth(depth), workpool.WithResultBuffer(buffer))
			go func() {
				gives(t, tasks)(p.SubmitAll(t.Context(), count(tasks)))
				assert.NoError(t, p.Shutdown(t.Context()))
			}()
			time.Sleep(time.Minute)
			synctest.Wait()
			stats := p.Stats()
			assert.LessOrEqual(t, stats.Submitted, uint64(depth+buffer+workers), "what is accepted fits the window")
			if workers > 1 {
				assert.Positive(t, stats.Undelivered, "tasks behind the slow one have run")
			}
			next := uint64(0)
			for r := range p.Results() {
				if r.Index != next {
					t.Fatalf("result %d comes as number %d", r.Index, next)
				}
				next++
			}
			assert.EqualValues(t, tasks, next)
		})
	}
}

func TestOrdered_StreamYieldsInTheOrderOfItsInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nap := func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			return n, nil
		}
		p := mustNew(t, nap, workpool.WithOrdered(), workpool.WithWorkers(7), workpool.WithQueueDepth(3))
		next := 0
		for r := range p.Stream(t.Context(), count(1000)) {
			require.NoError(t, r.Err)
			require.Equal(t, next, r.Value)
			next++
		}
		assert.Equal(t, 1000, next)
	})
}

// Failures, panics, Goexit, retries and cancellations at random places.
func TestOrdered_WhateverBecomesOfTheTasks(t *testing.T) {
	for _, workers := range []int{1, 2, 5} {
		for seed := range uint64(20) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				fates := make([]int, 500)
				for i := range fates {
					fates[i] = random.IntN(10)
				}
				handle := func(ctx context.Context, n int) (int, error) {
					info, _ := workpool.InfoFrom(ctx)
					switch fates[n] {
					case 0:
						panic(n)
					case 1:
						runtime.Goexit()
					case 2:
						return 0, errors.New("failed")
					case 3:
						if info.Attempt < 3 {
							return 0, workpool.RetryAfter(time.Duration(n%7)*time.Millisecond, errors.New("not yet"))
						}
					case 4, 5:
						time.Sleep(time.Duration(n%11) * time.Millisecond)
					case 6:
						<-ctx.Done()
						return 0, context.Cause(ctx)
					}
					return n, nil
				}
				p := mustNew(t, handle, workpool.WithOrdered(), workpool.WithWorkers(workers),
					workpool.WithQueueDepth(random.IntN(4)), workpool.WithResultBuffer(random.IntN(4)),
					workpool.WithShutdown(workpool.ShutdownMode(random.IntN(3)), time.Second))
				end := random.IntN(2 * len(fates))
				accepted := 0
				var submitter sync.WaitGroup
				submitter.Go(func() {
					for n := range fates {
						if n == end {
							assert.NoError(t, p.Close())
						}
						cancel, err := p.SubmitCancel(t.Context(), n)
						if err != nil {
							assert.ErrorIs(t, err, workpool.ErrClosed)
							break
						}
						accepted++
						if fates[n] == 6 {
							time.AfterFunc(time.Duration(n%13)*time.Millisecond, cancel)
						}
					}
					assert.NoError(t, p.Shutdown(t.Context()))
				})
				next := 0
				for r := range p.Results() {
					require.EqualValues(t, next, r.Index)
					require.Equal(t, next, r.Task)
					next++
				}
				submitter.Wait()
				assert.Equal(t, accepted, next)
			})
		}
	}
}

// The task that all wait for comes again when every worker has a result that
// finds no room in the window.
func TestOrdered_TheOldestTaskIsTakenByAWorkerThatIsHeldBack(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		synctest.Test(t, func(t *testing.T) {
			handle := func(ctx context.Context, n int) (int, error) {
				info, _ := workpool.InfoFrom(ctx)
				if n%10 == 0 && info.Attempt < 4 {
					return 0, workpool.RetryAfter(time.Second, nil)
				}
				return n, nil
			}
			p := mustNew(t, handle, workpool.WithOrdered(), workpool.WithWorkers(workers),
				workpool.WithQueueDepth(2), workpool.WithResultBuffer(1))
			go func() {
				gives(t, 100)(p.SubmitAll(t.Context(), count(100)))
				assert.NoError(t, p.Wait(t.Context()))
				assert.NoError(t, p.Close())
			}()
			next := 0
			for r := range p.Results() {
				require.Equal(t, next, r.Value)
				next++
			}
			assert.Equal(t, 100, next)
		})
	}
}

func TestOrdered_CallsTakeNoPlaceInTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithOrdered(), workpool.WithWorkers(2))
		for n := range 10 {
			require.NoError(t, p.Submit(t.Context(), n))
			gives(t, 100+n)(p.Do(t.Context(), 100+n))
		}
		closed(t, p)
		for i, r := range collect(p) {
			assert.Equal(t, i, r.Value)
		}
	})
}

// busyFor returns a task that keeps a processor busy for that long.
func busyFor(d time.Duration) closure {
	return func(context.Context) (int, error) {
		for begin := time.Now(); time.Since(begin) < d; {
			continue
		}
		return 0, nil
	}
}

// Tasks are let end one by one, in any order. Each time the oldest that has not begun
// begins, and no other.
func TestRule8_TasksBeginInTheOrderOfAcceptance(t *testing.T) {
	const tasks = 24
	for _, workers := range []int{1, 2, 3, 8} {
		for _, depth := range []int{0, 1, 100} {
			t.Run(fmt.Sprintf("workers=%d/depth=%d", workers, depth), func(t *testing.T) {
				eachHandIn(t, func(t *testing.T, run way[closure, int]) {
					synctest.Test(t, func(t *testing.T) {
						p := newClosures(t, workpool.WithWorkers(workers), workpool.WithQueueDepth(depth))
						began := make(chan int, tasks)
						ends := make([]chan struct{}, tasks)
						list := make([]closure, tasks)
						for i := range list {
							ends[i] = make(chan struct{})
							list[i] = func(context.Context) (int, error) {
								began <- i
								<-ends[i]
								return 0, nil
							}
						}
						var all sync.WaitGroup
						all.Go(func() {
							_, err := run(t.Context(), p, list...)
							assert.NoError(t, err)
						})

						synctest.Wait()
						var running []int
						for range workers {
							running = append(running, <-began)
						}
						slices.Sort(running)
						require.Equal(t, upTo(workers), running)
						for next := workers; len(running) > 0; next++ {
							i := rand.IntN(len(running))
							close(ends[running[i]])
							running = slices.Delete(running, i, i+1)
							synctest.Wait()
							if next < tasks {
								require.Len(t, began, 1)
								require.Equal(t, next, <-began)
								running = append(running, next)
							}
						}
						all.Wait()
					})
				})
			})
		}
	}
}

// One of the first tasks frees all others, after tasks that kept the workers busy for
// different times. If a younger task began while an older one was stuck behind a task
// that waits, all would hang.
func TestRule8_TasksThatWaitForAnOlderOneNeverHang(t *testing.T) {
	const tasks = 16
	for _, workers := range []int{2, 4, 8, 64} {
		frees := min(workers, tasks, 3) - 1 // the third, or the second of two workers
		t.Run(fmt.Sprintf("workers=%d", workers), func(t *testing.T) {
			eachHandIn(t, func(t *testing.T, run way[closure, int]) {
				p := newClosures(t, workpool.WithWorkers(workers))
				within(t, func() {
					for round := range rounds(300, 3_000) {
						spin := []time.Duration{0, 5, 15, 40}[round%4] * time.Microsecond
						freed := make(chan struct{})
						var list []closure
						for range round % 20 {
							list = append(list, busyFor(spin))
						}
						for i := range tasks {
							if i == frees {
								list = append(list, func(context.Context) (int, error) {
									close(freed)
									return 0, nil
								})
							} else {
								list = append(list, until(freed))
							}
						}
						if _, err := run(t.Context(), p, list...); !assert.NoError(t, err) {
							return
						}
					}
				})
			})
		})
	}
}

// Of many mirrors one among the first answers, and the others wait for the end of their
// context, which the first answer brings.
func TestRule8_ARaceOfMirrorsNeverHangs(t *testing.T) {
	const mirrors = 12
	races := map[string]func(p *closures, list []closure){
		"Stream": func(p *closures, list []closure) {
			for r := range p.Stream(context.Background(), slices.Values(list)) {
				if r.Err == nil {
					return
				}
			}
		},
	}
	for name, run := range ways[closure, int]("DoChan", "Map", "Group") {
		races[name] = func(p *closures, list []closure) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_, _ = run(ctx, p, winnerCalls(list, cancel)...)
		}
	}
	for name, race := range races {
		for _, workers := range []int{1, 2, 4, 8} {
			t.Run(fmt.Sprintf("%s/workers=%d", name, workers), func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(workers))
				within(t, func() {
					for round := range rounds(300, 3_000) {
						spin := []time.Duration{0, 5, 15, 40}[round%4] * time.Microsecond
						list := make([]closure, mirrors)
						for i := range list {
							list[i] = untilEnd
						}
						list[rand.IntN(workers)] = busyFor(spin)
						race(p, list)
					}
				})
			})
		}
	}
}

// winnerCalls has each of the tasks that returns no error call f.
func winnerCalls(list []closure, f func()) []closure {
	calling := make([]closure, len(list))
	for i, task := range list {
		calling[i] = func(ctx context.Context) (int, error) {
			value, err := task(ctx)
			if err == nil {
				f()
			}
			return value, err
		}
	}
	return calling
}

// Several callers hand in tasks at once: those of each begin in its order, since all
// take turns.
func TestRule8_TheTasksOfEachCallerBeginInOrder(t *testing.T) {
	const callers, tasks = 4, 50
	eachHandIn(t, func(t *testing.T, run way[closure, int]) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(8))
		began := make([][]int, callers)
		var all sync.WaitGroup
		for c := range callers {
			var list []closure
			for i := range tasks {
				list = append(list, func(context.Context) (int, error) {
					began[c] = append(began[c], i) // one worker: no two at once
					return 0, nil
				})
			}
			all.Go(func() {
				_, err := run(t.Context(), p, list...)
				assert.NoError(t, err)
			})
		}
		all.Wait()
		for c := range callers {
			assert.Equal(t, upTo(tasks), began[c])
		}
	})
}
