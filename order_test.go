package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
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

// Three workers are made busy, and let go in every order: whichever is idle,
// a task that is submitted then is answered while the others still run.
func TestRule8_NobodyWaitsWithoutNeed(t *testing.T) {
	const workers = 3
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		bubble(t, fmt.Sprint(order), func(t *testing.T) {
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
		submit(t, p, 1, 2)
		synctest.Wait()
		assert.Equal(t, int32(2), inBody.Load())
		close(release)
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
	})
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
				})
			})
		}
	}
}

// The results of what a worker has done are there while it is at the next task.
func TestRule8_ResultsBeforeABlockedTaskAreReceived(t *testing.T) {
	for _, buffer := range []int{0, 1, 128} {
		for _, first := range []bool{false, true} {
			bubble(t, fmt.Sprintf("buffer=%d/receiverFirst=%v", buffer, first), func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(1), workpool.WithResultBuffer(buffer))
				release := make(chan struct{})
				var got []int
				var receivers sync.WaitGroup
				receive := func() {
					receivers.Go(func() {
						for r := range p.Results() {
							got = append(got, r.Value)
						}
					})
					synctest.Wait()
				}
				if first {
					receive()
				}
				inOneGo(t, p, returning(1, nil), returning(2, errOdd), returning(3, nil), until(release), returning(5, nil))
				if !first {
					receive()
				}
				answer := p.DoChan(t.Context(), returning(6, nil))
				assert.Equal(t, []int{1, 2, 3}, got)
				assert.Equal(t, workpool.Stats{Running: 1, Queued: 2, Submitted: 6, Succeeded: 2, Failed: 1}, counts(p.Stats()))
				close(release)
				assert.Equal(t, 6, (<-answer).Value)
				closed(t, p)
				receivers.Wait()
				assert.Equal(t, []int{1, 2, 3, 0, 5}, got)
			})
		}
	}
}

// A task that is handed in by an input that then blocks runs as soon as a worker is free.
func TestRule8_WhatAnInputHandsInRunsAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		busy   int // of two workers, at first
		paused bool
		then   func(p *closures, release chan struct{})
	}{
		"idle":             {then: func(*closures, chan struct{}) {}},
		"one busy":         {busy: 1, then: func(*closures, chan struct{}) {}},
		"busy, then one":   {busy: 2, then: func(_ *closures, release chan struct{}) { release <- struct{}{} }},
		"paused":           {paused: true, then: func(p *closures, _ chan struct{}) { p.Resume() }},
		"paused, one busy": {busy: 1, paused: true, then: func(p *closures, _ chan struct{}) { p.Resume() }},
		"more workers":     {busy: 2, then: func(p *closures, _ chan struct{}) { _ = p.Resize(3) }},
	} {
		t.Run(name, func(t *testing.T) {
			eachSequenceWay(t, func(t *testing.T, feed sequenceWay) {
				p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(10), workpool.WithoutResults())
				release := make(chan struct{})
				for range c.busy {
					require.NoError(t, p.Submit(t.Context(), until(release)))
				}
				synctest.Wait()
				tasks, end := feeding(t, p, feed)
				if c.paused {
					p.Pause()
				}
				var ran atomic.Int32
				for i := range 5 {
					tasks <- counted(&ran)
					synctest.Wait()
					if i == 1 {
						c.then(p, release)
						synctest.Wait()
					}
					if i > 0 {
						assert.EqualValues(t, i+1, ran.Load())
					}
				}
				close(release)
				end()
			})
		})
	}
}

// Slow tasks stand at every position of a burst, and there is a worker more than these.
// All fast ones end while the slow ones are held.
func TestRule8_SlowTasksAnywhereInABurst(t *testing.T) {
	const burst = 5
	eachWayIn(t, func(t *testing.T, submit wayIn) {
		for slow := range 1 << burst { // a bit for each slow task
			release := make(chan struct{})
			held := bits.OnesCount(uint(slow))
			p := newClosures(t, workpool.WithWorkers(held+1))
			var ran atomic.Int32
			tasks := slices.Repeat([]closure{counted(&ran)}, burst)
			for i := range tasks {
				if slow>>i&1 == 1 {
					tasks[i] = until(release)
				}
			}
			others := occupy(t, p, held) // so that they are all queued, and begin in order
			p.Pause()
			wait := submit(t, p, tasks)
			synctest.Wait()
			p.Resume()
			synctest.Wait()
			if held > 0 {
				assert.EqualValues(t, bits.TrailingZeros(uint(slow)), ran.Load(), "of %b", slow)
			}
			others()
			synctest.Wait()
			assert.EqualValues(t, burst-held, ran.Load(), "of %b", slow)
			assert.Equal(t, held, p.Stats().Running)
			close(release)
			wait()
			closed(t, p)
		}
	})
}

// sign is a priority: that of negative tasks is Low, of zero Normal, else High.
func sign(n int) workpool.Priority {
	return workpool.Priority(max(-1, min(1, n)))
}

func TestPriority_HigherFirstWithAShareForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(200), workpool.WithResultBuffer(600),
			workpool.WithPriority(sign))
		p.Pause()
		for range 160 {
			submit(t, p, -1, 0, 1)
		}
		closed(t, p)
		results := collect(p)
		require.Len(t, results, 480)
		var counts [3]int
		for _, r := range results[:160] {
			counts[r.Value+1]++
		}
		assert.Equal(t, [3]int{10, 30, 120}, counts, "of 16 tasks, 12 are High, 3 Normal and 1 Low")
	})
}

func TestPriority_AHigherOneOvertakesABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var began []int // one worker: no two at once
		p := mustNew(t, func(_ context.Context, n int) (int, error) {
			began = append(began, n)
			<-release
			return n, nil
		}, workpool.WithWorkers(1), workpool.WithPriority(sign))
		submitN(t, p, 50, -1)
		synctest.Wait()
		submit(t, p, 1)
		close(release)
		closed(t, p)
		assert.Equal(t, 1, began[1], "before the 49 that have waited longer")
		assert.Len(t, collect(p), 51)
	})
}

func TestPriority_EachHasAQueueOfItsOwn(t *testing.T) {
	p := mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(3), workpool.WithPriority(sign))
	p.Pause()
	for _, n := range []int{-1, 0, 1} {
		for range 3 {
			require.NoError(t, p.TrySubmit(t.Context(), n))
		}
		require.ErrorIs(t, p.TrySubmit(t.Context(), n), workpool.ErrQueueFull)
	}
	assert.Equal(t, 9, p.Stats().Queued)
	closed(t, p)
	assert.Len(t, collect(p), 9)
}

func TestPriority_WaitingForRoomOfOneHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithPriority(sign))
		p.Pause()
		require.NoError(t, p.Submit(t.Context(), -1))
		submitted := make(chan error)
		go func() { submitted <- p.Submit(t.Context(), -2) }()
		synctest.Wait()
		require.NoError(t, p.Submit(t.Context(), 1))
		p.Resume()
		require.NoError(t, <-submitted)
		closed(t, p)
		assert.Len(t, collect(p), 3)
	})
}

func TestPriority_FunctionThatPanicsOrErrsIsAnErrorOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithPriority(func(n int) workpool.Priority {
			if n == 0 {
				panic("zero")
			}
			return workpool.Priority(n)
		}))
		all := ways[int, int]()
		all["Submit"] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) ([]int, error) {
			return nil, p.Submit(ctx, tasks[0])
		}
		all["TrySubmit"] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) ([]int, error) {
			return nil, p.TrySubmit(ctx, tasks[0])
		}
		all["SubmitCancel"] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) ([]int, error) {
			cancel, err := p.SubmitCancel(ctx, tasks[0])
			cancel()
			return nil, err
		}
		all["SubmitAll"] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) ([]int, error) {
			_, err := p.SubmitAll(ctx, slices.Values(tasks))
			return nil, err
		}
		for name, run := range all {
			_, err := run(t.Context(), p, 0)
			panicked(t, "zero", err)
			_, err = run(t.Context(), p, 7)
			require.ErrorIs(t, err, workpool.ErrInvalidOption, name)
			assert.ErrorContains(t, err, "WithPriority", name)
			assert.ErrorContains(t, err, "Priority(7)", name)
		}
		assert.Zero(t, p.Stats().Submitted)
	})
}

// A task that a handler waits for counts on a worker that was free, even if
// others of a higher priority come in between.
func TestPriority_TasksThatHandlersWaitForComeBeforeAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *workpool.Pool[int, int]
		p = mustNew(t, func(ctx context.Context, n int) (int, error) {
			if n >= 10 {
				return p.Do(ctx, -1)
			}
			return n, nil
		}, workpool.WithWorkers(2), workpool.WithQueueDepth(100), workpool.WithoutResults(), workpool.WithPriority(sign))
		var submitters sync.WaitGroup
		for range 8 {
			submitters.Go(func() {
				for n := range 1000 {
					assert.NoError(t, p.Submit(t.Context(), n%20))
				}
			})
		}
		submitters.Wait()
		require.NoError(t, p.Wait(t.Context()))
		closed(t, p)
		assert.EqualValues(t, 8000+4000, p.Stats().Succeeded)
	})
}

func TestPriority_NamesOfConstants(t *testing.T) {
	assert.Equal(t, []string{"Low", "Normal", "High", "Priority(3)"},
		[]string{workpool.Low.String(), workpool.Normal.String(), workpool.High.String(), workpool.Priority(3).String()})
}

// Those of one key that wait in line have different priorities: closing refuses all, and
// room admits all, in their order.
func TestPriority_TasksOfOneKeyInLine(t *testing.T) {
	for _, order := range [][]int{{-1, 0, 1}, {-1, 1, 0}, {0, -1, 1}, {0, 1, -1}, {1, -1, 0}, {1, 0, -1}} {
		for _, closes := range []bool{false, true} {
			bubble(t, fmt.Sprintf("%v/closes=%v", order, closes), func(t *testing.T) {
				p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults(),
					workpool.WithPriority(sign), workpool.WithKey(func(int) int { return 0 }))
				p.Pause()
				for _, n := range order {
					require.NoError(t, p.TrySubmit(t.Context(), n))
				}
				var want error
				if closes {
					want = workpool.ErrClosed
				}
				answers := make(chan error, 6)
				for _, n := range append(order, order...) {
					go func() { answers <- p.Submit(t.Context(), n) }()
					synctest.Wait()
				}
				require.Equal(t, 6, p.Stats().Waiting)
				if closes {
					go func() { assert.NoError(t, p.Close()) }()
				} else {
					p.Resume()
				}
				synctest.Wait()
				for range 6 {
					require.ErrorIs(t, <-answers, want)
				}
				closed(t, p)
			})
		}
	}
}
