package workpool_test

import (
	"context"
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
	eachOf(t, []int{1, 2, 3, 16}, func(t *testing.T, workers int) {
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
		assert.Equal(t, workers > 1, stats.Undelivered > 0, "tasks behind the slow one have run")
		inOrder(t, p, tasks)
	})
}

// inOrder expects so many results of tasks 0, 1, 2, ..., in this order, and then their end.
func inOrder(t *testing.T, p *workpool.Pool[int, int], tasks int) {
	t.Helper()
	next := 0
	for r := range p.Results() {
		if r.Task != next || r.Index != uint64(next) {
			t.Fatalf("result %d, of task %d, comes as number %d", r.Index, r.Task, next)
		}
		next++
	}
	assert.Equal(t, tasks, next)
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
		eachOf(t, upTo(20), func(t *testing.T, seed int) {
			random := rand.New(rand.NewPCG(uint64(seed), 1))
			fates := make([]int, 500)
			for i := range fates {
				fates[i] = random.IntN(10)
			}
			handle := func(ctx context.Context, n int) (int, error) {
				switch fates[n] {
				case 0:
					return catchFire(ctx)
				case 1:
					return exit(ctx)
				case 2:
					return 0, errFailed
				case 3:
					return after(3, time.Duration(n%7)*time.Millisecond)(ctx, n)
				case 4, 5:
					time.Sleep(time.Duration(n%11) * time.Millisecond)
				case 6:
					return untilEnd(ctx)
				}
				return n, nil
			}
			p := mustNew(t, handle, workpool.WithOrdered(), workpool.WithWorkers(workers),
				workpool.WithQueueDepth(random.IntN(4)), workpool.WithResultBuffer(random.IntN(4)),
				workpool.WithShutdown(workpool.ShutdownMode(random.IntN(3)), time.Second))
			end := random.IntN(2 * len(fates))
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
					if fates[n] == 6 {
						time.AfterFunc(time.Duration(n%13)*time.Millisecond, cancel)
					}
				}
				assert.NoError(t, p.Shutdown(t.Context()))
			})
			inOrder(t, p, min(end, len(fates)))
			submitter.Wait()
		})
	}
}

// The task that all wait for comes again when every worker has a result that
// finds no room in the window.
func TestOrdered_TheOldestTaskIsTakenByAWorkerThatIsHeldBack(t *testing.T) {
	eachOf(t, []int{1, 2, 3}, func(t *testing.T, workers int) {
		handle := func(ctx context.Context, n int) (int, error) {
			if n%10 == 0 {
				return after(4, time.Second)(ctx, n)
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
		inOrder(t, p, 100)
	})
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

// busyFor returns a task that keeps a processor busy for a time that differs by round.
func busyFor(round int) closure {
	d := []time.Duration{0, 5, 15, 40}[round%4] * time.Microsecond
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
			eachNamed(t, handsIn, func(t *testing.T, _ string, run way[closure, int]) {
				p := newClosures(t, workpool.WithWorkers(workers), workpool.WithQueueDepth(depth))
				began := make(chan int, tasks)
				ends := make([]chan struct{}, tasks)
				list := make([]closure, tasks)
				for i := range list {
					ends[i] = make(chan struct{})
					list[i] = func(ctx context.Context) (int, error) {
						began <- i
						return until(ends[i])(ctx)
					}
				}
				var all sync.WaitGroup
				all.Go(func() { succeeds(t)(run(t.Context(), p, list...)) })
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
		for name, run := range handsIn {
			t.Run(fmt.Sprintf("workers=%d/%s", workers, name), func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(workers))
				within(t, func() {
					for round := range rounds(300, 3_000) {
						freed := make(chan struct{})
						list := slices.Repeat([]closure{busyFor(round)}, round%20)
						for i := range tasks {
							list = append(list, until(freed))
							if i == frees {
								list[len(list)-1] = func(context.Context) (int, error) {
									close(freed)
									return 0, nil
								}
							}
						}
						if _, err := run(t.Context(), p, list...); !assert.NoError(t, err) {
							return
						}
					}
				})
			})
		}
	}
}

// Of many mirrors one among the first answers, and the others wait for the end of their
// context, which the first answer brings.
func TestRule8_ARaceOfMirrorsNeverHangs(t *testing.T) {
	const mirrors = 12
	races := map[string]func(p *closures, list []closure, winner int){
		"Stream": func(p *closures, list []closure, _ int) {
			for r := range p.Stream(context.Background(), slices.Values(list)) {
				if r.Err == nil {
					return
				}
			}
		},
	}
	for name, run := range ways[closure, int]("DoChan", "Map", "Group") {
		races[name] = func(p *closures, list []closure, winner int) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			task := list[winner]
			list[winner] = func(ctx context.Context) (int, error) {
				defer cancel()
				return task(ctx)
			}
			_, _ = run(ctx, p, list...)
		}
	}
	for name, race := range races {
		for _, workers := range []int{1, 2, 4, 8} {
			t.Run(fmt.Sprintf("%s/workers=%d", name, workers), func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(workers))
				within(t, func() {
					for round := range rounds(300, 3_000) {
						list := slices.Repeat([]closure{untilEnd}, mirrors)
						winner := rand.IntN(workers)
						list[winner] = busyFor(round)
						race(p, list, winner)
					}
				})
			})
		}
	}
}

// Several callers hand in tasks at once: those of each begin in its order, since all
// take turns.
func TestRule8_TheTasksOfEachCallerBeginInOrder(t *testing.T) {
	const callers, tasks = 4, 50
	for name, run := range handsIn {
		t.Run(name, func(t *testing.T) {
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
				all.Go(func() { succeeds(t)(run(t.Context(), p, list...)) })
			}
			all.Wait()
			for c := range callers {
				assert.Equal(t, upTo(tasks), began[c])
			}
		})
	}
}

// Three workers are made busy, and let go in every order: whichever is idle,
// a task that is submitted then is answered while the others still run.
func TestRule8_NobodyWaitsWithoutNeed(t *testing.T) {
	const workers = 3
	eachOf(t, [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}, func(t *testing.T, order []int) {
		p := newClosures(t, workpool.WithWorkers(workers))
		var release [workers]chan struct{}
		for i := range release {
			release[i] = make(chan struct{})
			submit(t, p, func(context.Context) (int, error) {
				<-release[i]
				return i, nil
			})
		}
		for nth, i := range order {
			close(release[i])
			require.Equal(t, i, receive(t, p).Value, "the finished result is there while others run")
			for range 3 {
				submit(t, p, returning(100, nil))
				require.Equal(t, 100, receive(t, p).Value, "a fast task is not queued behind a slow one")
			}
			synctest.Wait()
			assert.Equal(t, workers-nth-1, p.Stats().Running)
		}
	})
}

// A worker must not take tasks in advance that another one could run.
func TestRule8_IdleWorkersShareABurst(t *testing.T) {
	eachOf(t, upTo(8), func(t *testing.T, others int) {
		p := newClosures(t, workpool.WithWorkers(1+others))
		begin := time.Now()
		submitN(t, p, 3*(1+others), napping)
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, 3*time.Second, time.Since(begin))
	})
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
	onProcessors(t, []int{1, 2, 4, 8}, func(t *testing.T, workers int) {
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
}

// onProcessors runs test for each number of workers, on 1, 2 and 8 processors.
func onProcessors(t *testing.T, workers []int, test func(t *testing.T, workers int)) {
	t.Helper()
	for _, procs := range []int{1, 2, 8} {
		for _, workers := range workers {
			t.Run(fmt.Sprintf("procs=%d/workers=%d", procs, workers), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				within(t, func() { test(t, workers) })
			})
		}
	}
}

// As above, with as many tasks on the way as there are workers: each of them
// waits for all others, so that one worker left asleep stops everything.
func TestRule8_NoWakeUpIsLostAmongTasksThatMeet(t *testing.T) {
	onProcessors(t, []int{2, 3, 8}, func(t *testing.T, workers int) {
		p := newClosures(t, workpool.WithWorkers(workers))
		for range 1000 {
			var meeting sync.WaitGroup
			meeting.Add(workers)
			submitN(t, p, workers, func(context.Context) (int, error) {
				meeting.Done()
				meeting.Wait()
				return 0, nil
			})
			receiveN(p, workers)
		}
	})
}

// The results of what a worker has done are there while it is at the next task.
func TestRule8_ResultsBeforeABlockedTaskAreReceived(t *testing.T) {
	for _, buffer := range []int{0, 1, 128} {
		eachOf(t, eitherWay, func(t *testing.T, first bool) { // the receiver
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
			eachNamed(t, sequenceWays, func(t *testing.T, _ string, feed sequenceWay) {
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
	eachNamed(t, waysIn, func(t *testing.T, _ string, submit wayIn) {
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

// One that waits for room of its priority holds up no other one.
func TestPriority_EachHasAQueueOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(3), workpool.WithPriority(sign))
		p.Pause()
		for _, n := range []int{-1, 0, 1} {
			fill(t, p, 3, n)
			go func() { assert.NoError(t, p.Submit(t.Context(), n)) }()
			synctest.Wait()
		}
		assert.Equal(t, []int{9, 3}, []int{p.Stats().Queued, p.Stats().Waiting})
		p.Resume()
		synctest.Wait()
		closed(t, p)
		assert.Len(t, collect(p), 12)
	})
}

func TestPriority_FunctionThatPanicsOrErrsIsAnErrorOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithPriority(func(task closure) workpool.Priority {
			n, _ := task(context.Background()) // or panics
			return workpool.Priority(n)
		}))
		handIns := map[string]caller{}
		for name, run := range ways[closure, int]() {
			handIns[name] = errorOf(run)
		}
		handIns["Submit"] = func(ctx context.Context, p *closures, task closure) error { return p.Submit(ctx, task) }
		handIns["TrySubmit"] = func(ctx context.Context, p *closures, task closure) error { return p.TrySubmit(ctx, task) }
		handIns["SubmitCancel"] = callers["SubmitCancel"]
		handIns["SubmitAll"] = func(ctx context.Context, p *closures, task closure) error {
			return sequenceWays["SubmitAll"](ctx, p, slices.Values([]closure{task}))
		}
		for name, run := range handIns {
			panicked(t, "on fire", run(t.Context(), p, catchFire))
			err := run(t.Context(), p, returning(7, nil))
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
		p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
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
	for _, closes := range eitherWay {
		eachOf(t, [][]int{{-1, 0, 1}, {-1, 1, 0}, {0, -1, 1}, {0, 1, -1}, {1, -1, 0}, {1, 0, -1}}, func(t *testing.T, order []int) {
			p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults(),
				workpool.WithPriority(sign), workpool.WithKey(func(int) int { return 0 }))
			p.Pause()
			submit(t, p, order...)
			answers := make(chan error, 6)
			for _, n := range append(order, order...) {
				go func() { answers <- p.Submit(t.Context(), n) }()
				synctest.Wait()
			}
			require.Equal(t, 6, p.Stats().Waiting)
			var want error
			if closes {
				want = workpool.ErrClosed
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

// The receiver has one result in hand, and no more than that are under way beside it.
func TestOrdered_HoldsNoMoreInTheHandOfAReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithOrdered(), workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithResultBuffer(1))
		submitN(t, p, 3, returning(0, nil))
		synctest.Wait()
		err := p.Submit(limited(t, time.Second), returning(0, nil))
		require.ErrorIs(t, err, workpool.ErrQueueFull)
		require.ErrorContains(t, err, "results not received: 3")
		goOn := make(chan struct{})
		go func() {
			for range p.Results() {
				<-goOn
			}
		}()
		synctest.Wait()
		require.NoError(t, p.TrySubmit(t.Context(), returning(0, nil)), "in place of the one in hand")
		synctest.Wait()
		require.ErrorIs(t, p.TrySubmit(t.Context(), returning(0, nil)), workpool.ErrQueueFull)
		close(goOn)
		closed(t, p)
	})
}

// Without a queue, a free worker is the only room.
func TestPriority_AHigherOneIsFirstInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var begun []workpool.Priority
		p := mustNew(t, func(_ context.Context, priority workpool.Priority) (int, error) {
			mu.Lock()
			begun = append(begun, priority)
			mu.Unlock()
			time.Sleep(time.Second)
			return 0, nil
		}, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithPriority(func(p workpool.Priority) workpool.Priority { return p }))
		for _, priority := range []workpool.Priority{workpool.Normal, workpool.Low, workpool.Normal, workpool.Normal, workpool.High} {
			p.DoChan(t.Context(), priority)
		}
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, []workpool.Priority{workpool.Normal, workpool.High, workpool.Normal, workpool.Normal, workpool.Low}, begun)
	})
}
