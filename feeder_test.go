package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
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

// from is the sequence of what comes from a channel: an input that is blocked in
// between.
func from[T any](c <-chan T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for task := range c {
			if !yield(task) {
				return
			}
		}
	}
}

type feedFunc = func(ctx context.Context, p *closures, tasks iter.Seq[closure]) error

// feeders are the ways to hand in the tasks of a sequence through a feeder. Each
// returns when all have been handed in, and those of a Stream have ended.
var feeders = map[string]feedFunc{
	"SubmitAll": func(ctx context.Context, p *closures, tasks iter.Seq[closure]) error {
		_, err := p.SubmitAll(ctx, tasks)
		return err
	},
	"Stream": func(ctx context.Context, p *closures, tasks iter.Seq[closure]) (err error) {
		for r := range p.Stream(ctx, tasks) {
			err = errors.Join(err, r.Err)
		}
		return err
	},
}

func eachFeeder(t *testing.T, test func(t *testing.T, feed feedFunc)) {
	t.Helper()
	for name, feed := range feeders {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, feed) })
		})
	}
}

// feeding hands in what comes from the channel that it returns, through a feeder. The
// function waits for its end.
func feeding(t testing.TB, p *closures, feed feedFunc) (tasks chan closure, end func()) {
	t.Helper()
	tasks = make(chan closure)
	done := make(chan error, 1)
	go func() { done <- feed(context.Background(), p, from(tasks)) }()
	synctest.Wait()
	return tasks, func() {
		t.Helper()
		close(tasks)
		require.NoError(t, <-done)
	}
}

// What is handed in without the mutex is accepted before what is submitted after it,
// whichever way that comes.
func TestFeeder_IndexIsTheOrderOfAcceptance(t *testing.T) {
	ctx := context.Background()
	others := map[string]func(p *closures, task closure) error{
		"Submit":       func(p *closures, task closure) error { return p.Submit(ctx, task) },
		"TrySubmit":    func(p *closures, task closure) error { return p.TrySubmit(task) },
		"SubmitCancel": func(p *closures, task closure) error { _, err := p.SubmitCancel(ctx, task); return err },
		"DoChan":       func(p *closures, task closure) error { p.DoChan(ctx, task); return nil },
		"SubmitAll": func(p *closures, task closure) error {
			_, err := p.SubmitAll(ctx, slices.Values([]closure{task}))
			return err
		},
	}
	for name, submit := range others {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(100), workpool.WithoutResults())
				release := make(chan struct{})
				require.NoError(t, p.Submit(ctx, until(release)))
				synctest.Wait()
				var ran []int
				var indexes []uint64
				task := func(n int) closure {
					return func(ctx context.Context) (int, error) {
						info, _ := workpool.InfoFrom(ctx)
						ran, indexes = append(ran, n), append(indexes, info.Index)
						return 0, nil
					}
				}
				tasks, end := feeding(t, p, feeders["SubmitAll"])
				for n := range 6 {
					if n%3 == 1 {
						require.NoError(t, submit(p, task(n)))
					} else {
						tasks <- task(n)
						synctest.Wait()
					}
				}
				end()
				close(release)
				require.NoError(t, p.Wait(ctx))
				assert.Equal(t, []int{0, 1, 2, 3, 4, 5}, ran)
				assert.Equal(t, []uint64{1, 2, 3, 4, 5, 6}, indexes)
				closed(t, p)
			})
		})
	}
}

// Two sequences take turns: each task that one hands in was accepted before the next
// of the other.
func TestFeeder_TwoThatTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(100))
		release := make(chan struct{})
		require.NoError(t, p.Submit(t.Context(), until(release)))
		synctest.Wait()
		one, endOne := feeding(t, p, feeders["SubmitAll"])
		two, endTwo := feeding(t, p, feeders["SubmitAll"])
		for n := range 40 {
			c := one
			if n%2 == 1 {
				c = two
			}
			c <- returning(n, nil)
			synctest.Wait()
		}
		endOne()
		endTwo()
		close(release)
		require.NoError(t, p.Close())
		for i, r := range collect(p)[1:] {
			require.Equal(t, i, r.Value)
			require.EqualValues(t, i+1, r.Index)
		}
	})
}

// Whatever room a feeder has been given, it may not use it when there is none any
// more.
func TestFeeder_RoomThatThereIsNoMore(t *testing.T) {
	for name, shrink := range map[string]func(p *closures){
		"Pause":  func(p *closures) { p.Pause() },
		"Resize": func(p *closures) { _ = p.Resize(1) },
	} {
		t.Run(name, func(t *testing.T) {
			eachFeeder(t, func(t *testing.T, feed feedFunc) {
				const depth = 2
				p := newClosures(t, workpool.WithWorkers(8), workpool.WithQueueDepth(depth), workpool.WithoutResults())
				release := make(chan struct{})
				tasks, end := feeding(t, p, feed)
				shrink(p)
				synctest.Wait()
				go func() {
					for range 8 {
						tasks <- until(release)
					}
					end()
				}()
				synctest.Wait()
				assert.LessOrEqual(t, p.Stats().Queued, depth)
				p.Resume()
				close(release)
				synctest.Wait()
				assert.EqualValues(t, 8, p.Stats().Succeeded)
				closed(t, p)
			})
		})
	}
}

// A context holds on to what it carries. It must not outlive the Stream in the pool.
func TestRule9_ContextOfAFeederIsNotRetained(t *testing.T) {
	type key struct{}
	for name, feed := range feeders {
		t.Run(name, func(t *testing.T) {
			p := newClosures(t, workpool.WithoutResults())
			var r remains
			for range 3 {
				ctx := context.WithValue(context.Background(), key{}, r.payload())
				require.NoError(t, feed(ctx, p, slices.Values([]closure{returning(0, nil)})))
				require.NoError(t, p.Wait(context.Background()))
			}
			r.assertCollected(t)
			closed(t, p)
		})
	}
}

// Results that were not yielded are dropped at the end of the loop, though the
// sequence is blocked.
func TestRule9_ResultsThatAStreamHasNotYieldedAreNotRetained(t *testing.T) {
	var r remains
	p := newPayloads(t, &r, workpool.WithWorkers(1))
	blocked, left := make(chan struct{}), make(chan struct{})
	ended := make(chan struct{})
	for range p.Stream(context.Background(), func(yield func(*payload) bool) {
		defer close(left)
		for range 60 {
			if !yield(r.payload()) {
				return
			}
		}
		close(ended)
		<-blocked
	}) {
		<-ended
		require.NoError(t, p.Wait(context.Background()))
		break
	}
	r.assertCollected(t)
	close(blocked)
	<-left
	closed(t, p)
}

// The room of the pool is what Resize has made it, also for a Stream that waits for
// room.
func TestFeeder_ResizeWakesAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithResultBuffer(0))
		release := make(chan struct{})
		var began atomic.Int32
		task := func(ctx context.Context) (int, error) {
			began.Add(1)
			return until(release)(ctx)
		}
		done := make(chan error, 1)
		go func() { done <- feeders["Stream"](context.Background(), p, slices.Values([]closure{task, task, task})) }()
		synctest.Wait()
		require.NoError(t, p.Resize(3))
		synctest.Wait()
		assert.EqualValues(t, 3, began.Load())
		close(release)
		require.NoError(t, <-done)
		closed(t, p)
	})
}

// A task that a feeder hands in, and that then waits for its input, runs as soon as
// a worker is free.
func TestRule8_WhatIsHandedInRunsAtOnce(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		workers int
		busy    int // workers, at first
		paused  bool
		then    func(p *closures, release chan struct{})
	}{
		"idle":             {workers: 2, then: func(*closures, chan struct{}) {}},
		"one busy":         {workers: 2, busy: 1, then: func(*closures, chan struct{}) {}},
		"busy, then one":   {workers: 2, busy: 2, then: func(_ *closures, release chan struct{}) { release <- struct{}{} }},
		"paused":           {workers: 2, paused: true, then: func(p *closures, _ chan struct{}) { p.Resume() }},
		"paused, one busy": {workers: 2, busy: 1, paused: true, then: func(p *closures, _ chan struct{}) { p.Resume() }},
		"more workers":     {workers: 2, busy: 2, then: func(p *closures, _ chan struct{}) { _ = p.Resize(3) }},
		"not started":      {workers: 1100, busy: 1090, then: func(*closures, chan struct{}) {}},
		"very many more":   {workers: 1030, busy: 1030, then: func(p *closures, _ chan struct{}) { _ = p.Resize(1040) }},
	} {
		t.Run(name, func(t *testing.T) {
			eachFeeder(t, func(t *testing.T, feed feedFunc) {
				p := newClosures(t, workpool.WithWorkers(c.workers), workpool.WithQueueDepth(10), workpool.WithoutResults())
				release := make(chan struct{})
				for range c.busy {
					require.NoError(t, p.Submit(ctx, until(release)))
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
				closed(t, p)
			})
		})
	}
}

// Resume starts workers for what was queued meanwhile, though there are others who
// are surplus.
func TestRule8_ResumeStartsWorkersBesideSurplusOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 1100
		p := newClosures(t, workpool.WithWorkers(many), workpool.WithQueueDepth(many), workpool.WithoutResults())
		release := [many + 1]chan struct{}{}
		for i := range release {
			release[i] = make(chan struct{})
		}
		block := func(ctx context.Context) (int, error) {
			info, _ := workpool.InfoFrom(ctx)
			<-release[info.Worker]
			return 0, nil
		}
		for range many {
			require.NoError(t, p.Submit(t.Context(), block))
		}
		synctest.Wait()
		require.NoError(t, p.Resize(10))
		for id := 11; id <= 100; id++ {
			close(release[id]) // these leave, so that 1010 are left, which all are busy
			release[id] = make(chan struct{})
		}
		synctest.Wait()
		require.NoError(t, p.Resize(90)) // of which 14 are started at once
		synctest.Wait()
		for range 14 {
			require.NoError(t, p.Submit(t.Context(), block))
			synctest.Wait()
		}
		var ran atomic.Int32
		p.Pause()
		_, err := p.SubmitAll(t.Context(), slices.Values(slices.Repeat([]closure{counted(&ran)}, 5)))
		require.NoError(t, err)
		p.Resume()
		synctest.Wait()
		assert.EqualValues(t, 5, ran.Load())
		for _, c := range release {
			close(c)
		}
		closed(t, p)
	})
}

// The room that a feeder holds while its input is blocked is there for all others,
// to the last place.
func TestFeeder_RoomIsThereForOthers(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct{ workers, depth, busy, fed int }{
		{1, 0, 0, 0}, {1, 0, 1, 0}, {2, 0, 1, 0}, {2, 0, 0, 1}, {1, 1, 1, 0}, {1, 1, 1, 1}, {2, 2, 2, 1}, {2, 2, 1, 3}, {1, 128, 1, 70}, {2, 128, 2, 128},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			eachFeeder(t, func(t *testing.T, feed feedFunc) {
				p := newClosures(t, workpool.WithWorkers(c.workers), workpool.WithQueueDepth(c.depth), workpool.WithoutResults())
				release := make(chan struct{})
				for range c.busy {
					require.NoError(t, p.Submit(ctx, until(release)))
				}
				tasks, end := feeding(t, p, feed)
				for range c.fed {
					tasks <- until(release)
				}
				synctest.Wait()
				free := c.depth + c.workers - c.busy - c.fed
				for i := range free {
					require.NoError(t, p.TrySubmit(until(release)), "%d of %d", i, free)
				}
				require.ErrorIs(t, p.TrySubmit(until(release)), workpool.ErrQueueFull)
				synctest.Wait()
				s := p.Stats()
				assert.Equal(t, []int{c.depth, c.workers}, []int{s.Queued, s.Running})
				assert.EqualValues(t, c.depth+c.workers, s.Submitted)

				short, cancel := context.WithTimeout(ctx, time.Second)
				assert.ErrorIs(t, p.Wait(short), context.DeadlineExceeded)
				cancel()
				close(release)
				synctest.Wait()
				require.NoError(t, p.Wait(ctx))
				end()
				closed(t, p)
			})
		})
	}
}

// The pool closes while the input is blocked, with tasks handed in. What was accepted
// ends, and the feeder hears of it with its next task.
func TestFeeder_CloseWhileTheInputIsBlocked(t *testing.T) {
	for _, mode := range []workpool.ShutdownMode{workpool.Drain, workpool.FinishRunning, workpool.Abort} {
		eachFeeder(t, func(t *testing.T, feed feedFunc) {
			for _, fed := range []int{0, 1, 2, 30} {
				p := newClosures(t, workpool.WithWorkers(1), workpool.WithShutdown(mode, 0),
					workpool.WithResultFunc(func(workpool.Result[closure, int]) { runtime.Goexit() }))
				tasks, done, release := make(chan closure), make(chan error, 1), make(chan struct{})
				go func() { done <- feed(context.Background(), p, from(tasks)) }()
				for range fed {
					tasks <- until(release)
				}
				synctest.Wait()
				go func() { _ = p.Close() }()
				synctest.Wait()
				close(release)
				_ = p.Close()
				s := p.Stats()
				assert.EqualValues(t, fed, s.Submitted)
				assert.EqualValues(t, fed, s.Succeeded+s.Aborted)
				assert.True(t, mode != workpool.Drain || s.Aborted == 0)
				tasks <- returning(0, nil)
				if err := <-done; mode != workpool.Abort || !errors.Is(err, workpool.ErrAborted) {
					require.ErrorIs(t, err, workpool.ErrClosed)
				}
			}
		})
	}
}

// The input may use the pool, in every way, also inside a handler; and it may end in
// every way.
func TestFeeder_InputThatUsesThePool(t *testing.T) {
	type input = func(ctx context.Context, p *closures, yield func(closure) bool)
	one := returning(1, nil)
	inputs := map[string]input{
		"Submit":    func(ctx context.Context, p *closures, _ func(closure) bool) { _ = p.Submit(ctx, one) },
		"TrySubmit": func(_ context.Context, p *closures, _ func(closure) bool) { _ = p.TrySubmit(one) },
		"Do":        func(ctx context.Context, p *closures, _ func(closure) bool) { _, _ = p.Do(ctx, one) },
		"Map": func(ctx context.Context, p *closures, _ func(closure) bool) {
			_, _ = p.Map(ctx, []closure{one, one, one})
		},
		"SubmitAll of the rest": func(ctx context.Context, p *closures, yield func(closure) bool) {
			_, _ = p.SubmitAll(ctx, func(inner func(closure) bool) { _ = yield(one) && inner(one) && yield(one) && inner(one) })
		},
		"Stream": func(ctx context.Context, p *closures, yield func(closure) bool) {
			for range p.Stream(ctx, slices.Values([]closure{one, one, one})) {
				if !yield(one) {
					return
				}
			}
		},
		"Wait":    func(ctx context.Context, p *closures, _ func(closure) bool) { _ = p.Wait(ctx) },
		"Stats":   func(_ context.Context, p *closures, _ func(closure) bool) { p.Stats() },
		"Resize":  func(_ context.Context, p *closures, _ func(closure) bool) { _ = p.Resize(1); _ = p.Resize(3) },
		"Pause":   func(_ context.Context, p *closures, _ func(closure) bool) { p.Pause(); p.Resume() },
		"panic":   func(context.Context, *closures, func(closure) bool) { panic("input") },
		"Goexit":  func(context.Context, *closures, func(closure) bool) { runtime.Goexit() },
		"nothing": func(context.Context, *closures, func(closure) bool) {},
	}
	for name, use := range inputs {
		for _, inside := range []bool{false, true} {
			for _, c := range []struct{ workers, depth, buffer int }{{1, 0, 0}, {1, 1, 0}, {2, 2, 1}, {2, 128, 128}} {
				t.Run(fmt.Sprint(name, inside, c), func(t *testing.T) {
					eachFeeder(t, func(t *testing.T, feed feedFunc) {
						p := newClosures(t, workpool.WithWorkers(c.workers), workpool.WithQueueDepth(c.depth), workpool.WithResultBuffer(c.buffer))
						received := make(chan int)
						go func() { received <- len(collect(p)) }()
						var ran atomic.Int32
						run := func(ctx context.Context) (int, error) {
							return 0, feed(ctx, p, func(yield func(closure) bool) {
								for range 5 {
									if !yield(counted(&ran)) {
										return
									}
									use(ctx, p, yield)
								}
							})
						}
						ended := make(chan struct{})
						go func() {
							defer close(ended)
							if inside {
								_, _ = p.Do(context.Background(), run)
							} else {
								_, _ = run(context.Background())
							}
						}()
						<-ended
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

// Streams that are left at any moment share no place in which their tasks lie.
func TestFeeder_StreamsThatAreLeft(t *testing.T) {
	for round := range 8 {
		p := mustNew(t, identity, workpool.WithWorkers(1+round%2), workpool.WithQueueDepth(round/2), workpool.WithResultBuffer(0))
		var users, others sync.WaitGroup
		var stop atomic.Bool
		others.Go(func() { // so that the feeders wait for the mutex
			for !stop.Load() {
				p.Stats()
				runtime.Gosched()
			}
		})
		for range 2 {
			users.Go(func() {
				for i := range 400 {
					ctx, cancel := context.WithCancel(context.Background())
					n := 0
					for r := range p.Stream(ctx, count(10)) {
						if r.Err != nil {
							break
						}
						assert.EqualValues(t, r.Index, r.Task)
						assert.Equal(t, r.Task, r.Value)
						if n++; n > i%5 {
							if cancel(); i%2 == 0 {
								break
							}
						}
					}
					cancel()
				}
			})
		}
		users.Wait()
		stop.Store(true)
		others.Wait()
		closed(t, p)
	}
}

// Feeders that compete for little room, among all that may disturb them. The numbers
// add up at any moment, and the tasks of each keep their order.
func TestFeeder_ManyAtOnce(t *testing.T) {
	for round := range 6 {
		ctx, workers := context.Background(), 1+round%3
		p := mustNew(t, moody, workpool.WithWorkers(workers), workpool.WithQueueDepth(round), workpool.WithResultBuffer(round/2))
		var users, others, disturber sync.WaitGroup
		var stop atomic.Bool
		got := 0
		others.Go(func() {
			last := [2]int{-1, -1}
			for r := range p.Results() {
				checkMood(t, r)
				who := r.Task / 1000
				assert.True(t, workers > 1 || r.Task > last[who])
				last[who] = r.Task
				got++
			}
		})
		disturber.Go(func() {
			defer p.Resume()
			for i := 0; !stop.Load(); i++ {
				switch i % 8 {
				case 0:
					p.Pause()
				case 1:
					p.Resume()
				case 2:
					assert.NoError(t, p.Resize(1+rand.N(workers)))
				}
				s := p.Stats()
				assert.Equal(t, s.Submitted, uint64(s.Queued)+uint64(s.Running)+s.Succeeded+s.Failed+s.Aborted)
				runtime.Gosched()
			}
		})
		for who := range 2 {
			users.Go(func() {
				n, err := p.SubmitAll(ctx, func(yield func(int) bool) {
					for task := 0; task < 300 && yield(who*1000+task); task++ {
					}
				})
				assert.NoError(t, err)
				assert.Equal(t, 300, n)
			})
			users.Go(func() {
				n := 0
				for r := range p.Stream(ctx, count(300)) {
					checkMood(t, r)
					assert.EqualValues(t, r.Index, r.Task)
					n++
				}
				assert.Equal(t, 300, n)
			})
		}
		users.Wait()
		stop.Store(true)
		disturber.Wait()
		require.NoError(t, p.Wait(ctx))
		closed(t, p)
		others.Wait()
		assert.Equal(t, 600, got)
	}
}
