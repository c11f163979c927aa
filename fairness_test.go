package workpool_test

import (
	"context"
	"fmt"
	"math/bits"
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
