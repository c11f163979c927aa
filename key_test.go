package workpool_test

import (
	"context"
	"errors"
	"math"
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

// A message is the nth of its sender for one key.
type message struct{ key, sender, n int }

func (m message) keyOf() int { return m.key }

// 64 submitters and 1,000 keys, under resize and panics.
func TestKey_OneAtATimeInOrder(t *testing.T) {
	const submitters, keys, messages = 64, 1000, 500
	var mu sync.Mutex
	running := map[int]bool{}
	newest := map[[2]int]int{} // by key and sender
	handle := func(ctx context.Context, m message) (int, error) {
		mu.Lock()
		if last := newest[[2]int{m.key, m.sender}]; running[m.key] || m.n <= last {
			t.Errorf("key %d, sender %d: %d runs after %d, beside another one: %v", m.key, m.sender, m.n, last, running[m.key])
		}
		running[m.key] = true
		newest[[2]int{m.key, m.sender}] = m.n
		mu.Unlock()
		if m.n%3 == 0 {
			runtime.Gosched()
		}
		mu.Lock()
		running[m.key] = false
		mu.Unlock()
		switch m.n % 50 {
		case 1:
			return catchFire(ctx)
		case 2:
			return exit(ctx)
		}
		return m.n, nil
	}
	p := mustNew(t, handle, workpool.WithWorkers(4), workpool.WithoutResults(), workpool.WithKey(message.keyOf))
	var group sync.WaitGroup
	for sender := range submitters {
		group.Go(func() {
			for n := range messages {
				key := (sender*7 + n*n) % keys
				if n%4 == 0 {
					key = 0 // a hot one
				}
				assert.NoError(t, p.Submit(t.Context(), message{key, sender, n + 1}))
				if n%100 == 0 {
					assert.NoError(t, p.Resize(1+(sender+n)%9))
				}
			}
		})
	}
	group.Wait()
	closed(t, p)
	stats := p.Stats()
	assert.EqualValues(t, submitters*messages, stats.Succeeded+stats.Failed)
	assert.EqualValues(t, submitters*messages/50, stats.Panicked)
}

func TestKey_AHotKeyStarvesNoOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(3), workpool.WithQueueDepth(10), workpool.WithoutResults())
		ctx, cancel := context.WithCancel(t.Context())
		var hot sync.WaitGroup
		for range 20 { // they keep the queue full
			hot.Go(func() {
				for p.Submit(ctx, order{0, napping}) == nil {
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		for n := range 1000 {
			submit(t, p, order{1 + n, returning(0, nil)})
			synctest.Wait()
		}
		assert.Zero(t, time.Since(begin), "tasks of other keys are taken at once, by the workers that are idle")
		cancel()
		hot.Wait()
	})
}

func TestKey_WhatIsNotEqualToItselfIsNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		occupy(t, newClosures(t, workpool.WithWorkers(2), workpool.WithKey(func(closure) float64 { return math.NaN() })), 2)()
	})
}

func TestKey_AKeyThatCanNotBeComparedIsAnErrorOfTheCall(t *testing.T) {
	p := mustNew(t, identity, workpool.WithKey(func(int) any { return []int{1} }))
	var panicked *workpool.PanicError
	require.ErrorAs(t, p.Submit(t.Context(), 1), &panicked)
	assert.Zero(t, p.Stats().Submitted)
}

func TestKey_ARetryKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(ctx context.Context, m message) (int, error) {
			if m.n == 0 {
				return after(3, time.Second)(ctx, m.n)
			}
			return m.n, nil
		}, workpool.WithWorkers(4), workpool.WithKey(message.keyOf))
		begin := time.Now()
		submit(t, p, message{key: 1, n: 0}, message{key: 1, n: 1}, message{key: 1, n: 2}, message{key: 2, n: 9})
		closed(t, p)
		var order []int
		for _, r := range collect(p) {
			order = append(order, r.Value)
		}
		assert.Equal(t, []int{9, 0, 1, 2}, order)
		assert.Equal(t, 2*time.Second, time.Since(begin))
	})
}

// Handlers wait for tasks of their own key, and of busy ones, which they all take in the
// same order, as one does with mutexes.
func TestKey_HandlersWaitForTasksOfBusyKeys(t *testing.T) {
	eachOf(t, []int{1, 2, 3, 4}, func(t *testing.T, workers int) {
		p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[message, int], m message) (int, error) {
			time.Sleep(time.Millisecond)
			if m.n > 0 {
				next := message{key: m.key + 1, n: m.n - 1}
				succeeds(t)(p.Do(ctx, next))
				succeeds(t)(p.Map(ctx, []message{next, {key: m.key}, {key: 9}}))
			}
			return m.n, nil
		}, workpool.WithWorkers(workers), workpool.WithQueueDepth(2), workpool.WithKey(message.keyOf), workpool.WithoutResults())
		var callers sync.WaitGroup
		for key := range 3 {
			callers.Go(func() { submitN(t, p, 5, message{key: key, n: 4}) })
		}
		callers.Wait()
		require.NoError(t, p.Wait(t.Context()))
		assert.Zero(t, p.Stats().Failed)
	})
}

// A tree of tasks of one key, submitted from inside tasks, on a full queue.
func TestKey_TasksSubmittedFromInsideWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := 0
		p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[message, int], m message) (int, error) {
			running++
			defer func() { running-- }()
			assert.Equal(t, 1, running)
			for range min(m.n, 1) * 2 {
				assert.NoError(t, p.Submit(ctx, message{n: m.n - 1}))
			}
			return 0, nil
		}, workpool.WithWorkers(3), workpool.WithQueueDepth(1), workpool.WithoutResults(), workpool.WithKey(message.keyOf))
		submit(t, p, message{n: 9})
		require.NoError(t, p.Wait(t.Context()))
		closed(t, p)
		assert.EqualValues(t, 1023, p.Stats().Succeeded)
	})
}

func TestKey_AnAbortEndsThoseThatWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2))
		submitN(t, p, 10, order{1, untilEnd})
		synctest.Wait()
		assert.Equal(t, 9, p.Stats().Queued)
		cutShort(t, 9, 1, p.Shutdown(limited(t, time.Second)))
		results := collect(p)
		assert.Len(t, results, 10)
		for _, r := range results {
			assert.ErrorIs(t, r.Err, workpool.ErrAborted)
		}
	})
}

// Where a task ends that no worker has run, a Submit that its key kept waiting
// is let in all the same.
func TestKey_ATaskThatNoWorkerRanMakesRoomForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithOverflow(workpool.CallerRuns))
		submit(t, p, order{1, napping})
		go func() { assert.NoError(t, p.Submit(t.Context(), order{2, sleeping(2*time.Second, 0)})) }()
		synctest.Wait() // it runs beside the worker
		began := time.Now()
		require.NoError(t, p.Submit(limited(t, time.Minute), order{2, napping}), "the worker is idle, and so is the key")
		assert.Equal(t, 2*time.Second, time.Since(began))
		closed(t, p)
		assert.Len(t, collect(p), 3)
	})
}

// The same where the handler that has called for the task is gone.
func TestKey_ACallThatNobodyWaitsForMakesRoomForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0))
		submit(t, p, order{1, func(ctx context.Context) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			fails(t, context.DeadlineExceeded)(p.Do(ctx, order{2, sleeping(5*time.Second, 0)}))
			return 0, nil
		}})
		began := time.Now()
		require.NoError(t, p.Submit(limited(t, time.Minute), order{2, returning(0, nil)}))
		assert.Equal(t, 5*time.Second, time.Since(began), "the end of the task that the handler called for")
		closed(t, p)
		assert.Len(t, collect(p), 2)
	})
}

// Neither many keys at once, nor many one after the other, leave anything behind.
func TestKey_ManyKeysLeaveNothingBehind(t *testing.T) {
	const many = 100_000
	keys, atOnce := 1, true
	p := mustNew(t, identity, workpool.WithoutResults(), workpool.WithQueueDepth(many), workpool.WithKey(func(n int) int { return n % keys }))
	inUseAfter := func() int {
		if atOnce {
			p.Pause()
		}
		submit(t, p, upTo(many)...)
		p.Resume()
		require.NoError(t, p.Wait(t.Context()))
		return heap()
	}
	one := inUseAfter()
	keys = many
	assert.Less(t, inUseAfter(), one+2<<20)
	atOnce = false
	assert.Less(t, inUseAfter(), one+2<<20)
}

// Those that wait for a full key are refused when the pool closes.
func TestKeyDepth_CloseRefusesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(1), workpool.WithKeyDepth(1))
		p.Pause()
		submit(t, p, order{1, napping})
		for range 3 {
			go func() { assert.ErrorIs(t, p.Submit(t.Context(), order{1, napping}), workpool.ErrClosed) }()
			go func() { assert.ErrorIs(t, (<-p.DoChan(t.Context(), order{1, napping})).Err, workpool.ErrClosed) }()
		}
		synctest.Wait()
		closed(t, p)
		synctest.Wait()
		assert.Len(t, collect(p), 1)
		assert.EqualValues(t, 6, p.Stats().Refused)
	})
}

// A handler leaves a call for a busy key behind when it returns.
func TestKey_ACallThatOutlivesItsHandler(t *testing.T) {
	eachOf(t, []int{1, 2, 3}, func(t *testing.T, workers int) {
		p := newOrders(t, workpool.WithWorkers(workers))
		var answers [2]<-chan workpool.Result[order, int]
		submit(t, p, order{2, napping})
		synctest.Wait()
		submit(t, p, order{1, func(ctx context.Context) (int, error) {
			for i := range answers {
				answers[i] = p.DoChan(ctx, order{2, returning(20+i, nil)})
			}
			return 0, nil
		}})
		require.NoError(t, p.Wait(t.Context()))
		for i, answer := range answers {
			assert.Equal(t, 20+i, (<-answer).Value)
		}
	})
}

// What is above the depth of a key waits, and keeps no task of another key from being
// accepted.
func TestWithKeyDepth_LimitsTheTasksOfAKey(t *testing.T) {
	eachOf(t, []int{1, 2, 5}, func(t *testing.T, depth int) {
		p := newOrders(t, workpool.WithWorkers(3), workpool.WithKeyDepth(depth), workpool.WithoutResults())
		fill(t, p, depth, order{1, napping})
		fails(t, workpool.ErrQueueFull)(p.TryDo(t.Context(), order{1, napping}))
		for key := range 10 { // and they still are accepted
			require.NoError(t, p.TrySubmit(t.Context(), order{2 + key, napping}))
		}
		begin := time.Now()
		submit(t, p, order{1, napping})
		assert.Equal(t, time.Second, time.Since(begin), "until the first has ended")
		closed(t, p)
		s := p.Stats()
		assert.Equal(t, []uint64{uint64(depth + 11), 2}, []uint64{s.Succeeded, s.Refused})
	})
}

// The callers for one key are accepted in the order in which they came.
func TestWithKeyDepth_CallersAreAcceptedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithKeyDepth(1), workpool.WithoutResults())
		var began []int
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				assert.NoError(t, p.Submit(t.Context(), order{1, func(context.Context) (int, error) {
					began = append(began, i) // one of a key at a time
					time.Sleep(time.Second)
					return 0, nil
				}}))
			})
			synctest.Wait()
		}
		s := p.Stats()
		assert.Equal(t, 9, s.Waiting)
		assert.Equal(t, 1, s.Running)
		all.Wait()
		closed(t, p)
		assert.Equal(t, upTo(10), began)
	})
}

// Those in line for a full key give up.
func TestWithKeyDepth_CallersGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithKeyDepth(1), workpool.WithoutResults())
		release := make(chan struct{})
		submit(t, p, order{1, until(release)})
		synctest.Wait()
		ends := make([]context.CancelFunc, 3)
		errs := make([]error, 3)
		var callers sync.WaitGroup
		for i := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			ends[i] = cancel
			callers.Go(func() {
				if i == 1 {
					_, errs[i] = p.Do(ctx, order{1, napping})
				} else {
					errs[i] = p.Submit(ctx, order{1, napping})
				}
			})
			synctest.Wait()
		}
		require.Equal(t, 3, p.Stats().Waiting)
		for n, i := range rand.Perm(2) { // in any order; the last is told by the pool
			ends[i]()
			synctest.Wait()
			fails(t, context.Canceled, workpool.ErrQueueFull)(0, errs[i])
			assert.Equal(t, 2-n, p.Stats().Waiting)
		}
		close(release)
		callers.Wait()
		assert.NoError(t, errs[2])
		ends[2]()
	})
}

func TestWithKeyDepth_Overflows(t *testing.T) {
	for _, c := range []struct {
		overflow workpool.Overflow
		err      error
		dropped  int // the value of the task that is
		waits    time.Duration
	}{
		{workpool.Reject, workpool.ErrQueueFull, 0, 0},
		{workpool.DropOldest, nil, 2, 0}, // of the same key
		{workpool.DropNewest, nil, 3, 0},
		{workpool.CallerRuns, nil, 0, time.Second}, // the key is busy
	} {
		bubble(t, c.overflow.String(), func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(2), workpool.WithKeyDepth(2), workpool.WithOverflow(c.overflow))
			submit(t, p, order{1, sleeping(time.Second, 1)}, order{1, sleeping(time.Second, 2)})
			synctest.Wait()
			begin := time.Now()
			assert.ErrorIs(t, p.Submit(t.Context(), order{1, sleeping(time.Second, 3)}), c.err)
			assert.Equal(t, c.waits, time.Since(begin))
			if c.dropped > 0 {
				r := receive(t, p)
				assert.ErrorIs(t, r.Err, workpool.ErrDropped)
				gives(t, c.dropped)(r.Task.run(t.Context()))
				assert.Equal(t, uint64(1), p.Stats().Dropped)
			}
			submit(t, p, order{2, napping})
			closed(t, p)
			s := p.Stats()
			assertSum(t, s)
			assert.Len(t, collect(p), int(s.Submitted-s.Dropped))
		})
	}
}

// However tasks come, no more of a key than its depth are accepted and not ended. Those of
// Map, Stream and Group come to an end.
func TestWithKeyDepth_OfBatches(t *testing.T) {
	const tasks, keys = 60, 4
	all := ways[order, int]("Map", "Stream", "Group")
	all["Do"] = doAtOnce[order, int]
	all["Submit"] = func(ctx context.Context, p *workpool.Pool[order, int], list ...order) ([]int, error) {
		_, err := p.SubmitAll(ctx, slices.Values(list))
		return make([]int, len(list)), errors.Join(err, p.Wait(ctx))
	}
	for _, opts := range [][]workpool.Option{
		nil,
		{workpool.WithQueueDepth(0)},
		{workpool.WithQueueDepth(1), workpool.WithPriority(func(o order) workpool.Priority { return workpool.Priority(o.key%3 - 1) })},
		{workpool.WithElastic(0, time.Second)},
		{workpool.WithOverflow(workpool.CallerRuns), workpool.WithQueueDepth(1)},
	} {
		for _, depth := range []int{1, 3} {
			eachNamed(t, all, func(t *testing.T, _ string, run way[order, int]) {
				p := newOrders(t, append(opts, workpool.WithWorkers(3), workpool.WithKeyDepth(depth), workpool.WithoutResults())...)
				var running [keys]atomic.Int32
				var ran atomic.Int32
				var list []order
				for range tasks {
					key := rand.IntN(keys)
					list = append(list, order{key, func(context.Context) (int, error) {
						assert.Equal(t, int32(1), running[key].Add(1), "two of a key at once")
						defer running[key].Add(-1)
						s := p.Stats()
						assert.LessOrEqual(t, s.Queued+s.Running, depth*keys)
						assertSum(t, s)
						time.Sleep(time.Second)
						ran.Add(1)
						return 0, nil
					}})
				}
				gives(t, make([]int, tasks))(run(t.Context(), p, list...))
				assert.Equal(t, int32(tasks), ran.Load())
			})
		}
	}
}

// A handler submits and calls with its own full key and with others.
func TestWithKeyDepth_InAHandler(t *testing.T) {
	eachOf(t, []int{1, 3}, func(t *testing.T, workers int) {
		p := newOrders(t, workpool.WithWorkers(workers), workpool.WithKeyDepth(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		ran := new(atomic.Int32)
		var inner sync.WaitGroup
		gives(t, 0)(p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
			for way, use := range ways[order, int]() {
				_, err := use(ctx, p, order{1, counted(ran)}, order{2, counted(ran)}, order{1, counted(ran)})
				assert.NoError(t, err, way)
			}
			assert.NoError(t, p.Submit(ctx, order{2, counted(ran)}))
			inner.Go(func() { _ = p.Submit(context.WithoutCancel(ctx), order{1, counted(ran)}) }) // of its own key
			return 0, nil
		}}))
		inner.Wait()
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, int32(6*3+2), ran.Load())
	})
}

// A key that is full, and one that is not, with all the rest of the queue taken.
func TestWithKeyDepth_BesideAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithKeyDepth(2), workpool.WithoutResults())
		submit(t, p, order{1, napping}, order{1, napping})
		fill(t, p, 1, order{2, napping})
		var line sync.WaitGroup
		for key := range 4 {
			line.Go(func() { assert.NoError(t, p.Submit(t.Context(), order{key, napping})) })
		}
		synctest.Wait()
		assert.Equal(t, 4, p.Stats().Waiting)
		line.Wait()
		closed(t, p)
		assert.Equal(t, uint64(7), p.Stats().Succeeded)
	})
}

// A key that becomes full while others of it wait in line, by a task that goes ahead of one that
// is parked. Closing the pool turns them away.
func TestWithKeyDepth_ClosedWhileAKeyIsFull(t *testing.T) {
	for name, use := range ways[order, int]("Do", "Map", "Stream", "Group") {
		t.Run(name, func(t *testing.T) {
			within(t, func() {
				p := newOrders(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithKeyDepth(2), workpool.WithoutResults(),
					workpool.WithShutdown(workpool.FinishRunning, 0))
				attempts := 0
				require.NoError(t, p.Submit(t.Context(), order{1, func(context.Context) (int, error) {
					attempts++
					return 0, workpool.RetryAfter(time.Hour, nil)
				}}))
				waiting := func(n int) func() bool { return func() bool { return p.Stats().Waiting == n } }
				require.Eventually(t, func() bool { return p.Stats().Parked == 1 }, time.Minute, time.Millisecond)
				var line sync.WaitGroup
				refused := new(atomic.Int32)
				_, err := p.Do(t.Context(), order{2, func(ctx context.Context) (int, error) {
					for range 3 {
						line.Go(func() {
							if errors.Is(p.Submit(t.Context(), order{1, napping}), workpool.ErrClosed) {
								refused.Add(1)
							}
						})
					}
					assert.Eventually(t, waiting(3), time.Minute, time.Millisecond)
					_, err := use(ctx, p, order{1, func(context.Context) (int, error) {
						line.Go(func() { assert.NoError(t, p.Close()) })
						assert.Eventually(t, func() bool { return p.Stats().Closed }, time.Minute, time.Millisecond)
						return 0, nil
					}})
					return 0, err
				}})
				require.NoError(t, err)
				line.Wait()
				assert.Equal(t, int32(3), refused.Load())
				assert.Equal(t, 1, attempts)
			})
		})
	}
}

// A handler has submitted a task of its own key in excess of the queue's depth. That keeps no
// other key's task from an idle worker.
func TestRule8_ATaskBehindItsKeyKeepsNoOtherKeyFromAnIdleWorker(t *testing.T) {
	eachOf(t, []int{0, 1}, func(t *testing.T, depth int) {
		p := newOrders(t, workpool.WithWorkers(3), workpool.WithQueueDepth(depth), workpool.WithoutResults())
		gives(t, 7)(p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
			for range depth + 1 {
				assert.NoError(t, p.Submit(ctx, order{1, returning(0, nil)}))
			}
			return p.Do(context.WithoutCancel(t.Context()), order{2, returning(7, nil)}) // as somebody else
		}}))
		require.NoError(t, p.Wait(t.Context()))
		closed(t, p)
		assert.Equal(t, uint64(depth+3), p.Stats().Succeeded)
	})
}

// The key of a task that a handler waits for is busy at first, and idle later, when no worker is.
func TestRule6_ATaskInLineRunsInPlaceWhenItsKeyIsIdle(t *testing.T) {
	eachNamed(t, ways[order, int]("Do", "Map", "Stream", "Group"), func(t *testing.T, _ string, use way[order, int]) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0), workpool.WithKeyDepth(1), workpool.WithoutResults())
		release, held := make(chan struct{}), make(chan struct{})
		submit(t, p, order{2, until(release)})
		var all sync.WaitGroup
		all.Go(func() {
			gives(t, 0)(p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				_, err := use(ctx, p, order{2, returning(0, nil)})
				return 0, err
			}}))
		})
		synctest.Wait()
		all.Go(func() { assert.NoError(t, p.Submit(t.Context(), order{3, until(held)})) }) // which takes the worker
		synctest.Wait()
		close(release)
		synctest.Wait()
		assert.Equal(t, 1, p.Stats().Running, "the other one alone")
		close(held)
		all.Wait()
	})
}

// The same, where somebody else is in line for the key before it.
func TestRule6_ATaskInLineRunsInPlaceBehindAnotherOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0), workpool.WithoutResults())
		release, held, first := make(chan struct{}), make(chan struct{}), make(chan struct{})
		submit(t, p, order{2, until(release)})
		var all sync.WaitGroup
		hand := func(o order) {
			all.Go(func() { assert.NoError(t, p.Submit(t.Context(), o)) })
			synctest.Wait()
		}
		hand(order{1, func(ctx context.Context) (int, error) {
			<-first
			succeeds(t)(p.Map(ctx, []order{{2, returning(0, nil)}}))
			return 0, nil
		}})
		hand(order{2, returning(0, nil)})
		close(first)
		synctest.Wait()
		hand(order{3, until(held)})
		close(release) // the worker takes the task of key 3, while key 2 is idle
		synctest.Wait()
		assert.Equal(t, 1, p.Stats().Running, "the one of key 3")
		close(held)
		all.Wait()
	})
}

// The task whose turn it is asks for another attempt. Until that begins, a handler that waits
// for one of the same key runs it in its place: no worker may be left for either.
func TestRule6_ATaskGoesAheadOfOneThatIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithoutResults())
		fails, held := make(chan struct{}), make(chan struct{})
		submit(t, p, order{2, func(ctx context.Context) (int, error) {
			<-fails
			return after(2, time.Second)(ctx, 0)
		}})
		synctest.Wait()
		answer := make(chan error, 1)
		go func() {
			_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				return p.Do(ctx, order{2, returning(0, nil)})
			}})
			answer <- err
		}()
		synctest.Wait()
		submit(t, p, order{3, until(held)}) // for the worker that the first one leaves
		close(fails)
		synctest.Wait()
		require.Len(t, answer, 1, "it does not wait for the next attempt of another one")
		require.NoError(t, <-answer)
		close(held)
	})
}

// A handler waits for tasks of its own key, of which one runs in its place. The others are kept
// for it, and end with the pool.
func TestKey_TasksKeptForAHandlerEndWithThePool(t *testing.T) {
	eachOf(t, []workpool.ShutdownMode{workpool.FinishRunning, workpool.Abort}, func(t *testing.T, mode workpool.ShutdownMode) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithShutdown(mode, 0))
		var begun atomic.Int32
		release := make(chan struct{})
		one := order{1, func(context.Context) (int, error) {
			begun.Add(1)
			<-release
			return 0, nil
		}}
		answers := make(chan error, 3)
		submit(t, p, order{1, func(ctx context.Context) (int, error) {
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() {
					_, err := p.Do(ctx, one)
					answers <- err
				})
			}
			_, err := p.Map(ctx, []order{one, one, one})
			answers <- err
			both.Wait()
			return 0, nil
		}})
		synctest.Wait()
		go func() { assert.NoError(t, p.Close()) }()
		synctest.Wait()
		close(release)
		closed(t, p)
		assert.EqualValues(t, 1, begun.Load())
		s := p.Stats()
		assert.EqualValues(t, 4, s.Aborted, "of the two Do and the three of Map")
		assertSum(t, s)
		aborted := 0
		for range 3 {
			if errors.Is(<-answers, workpool.ErrAborted) {
				aborted++
			}
		}
		assert.GreaterOrEqual(t, aborted, 2)
	})
}

func TestKey_AnAttemptThatWaitsForItsTurnIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2))
		submit(t, p, order{2, func(ctx context.Context) (int, error) { return after(2, time.Second)(ctx, 0) }})
		synctest.Wait()
		go func() {
			_, _ = p.Do(context.Background(), order{1, func(ctx context.Context) (int, error) {
				return p.Do(ctx, order{2, untilEnd}) // goes ahead of the one that is parked
			}})
		}()
		time.Sleep(2 * time.Second)
		assert.Equal(t, 1, p.Stats().Queued)
		_ = p.Shutdown(endedContext())
		results := collect(p)
		require.Len(t, results, 1)
		require.ErrorIs(t, results[0].Err, workpool.ErrAborted)
		assert.Equal(t, 1, results[0].Attempt)
	})
}

func TestWithKeyDepth_TheErrorOfWhoGivesUpSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithKeyDepth(1))
		release := make(chan struct{})
		submit(t, p, order{1, until(release)})
		err := p.Submit(limited(t, time.Second), order{1, nil})
		require.ErrorIs(t, err, workpool.ErrQueueFull)
		require.ErrorContains(t, err, "1 running; of the same key: 1: ")
		close(release)
	})
}

// A handler of key 1 returns while one of no key runs in its place. A task of key 1 that that one
// waits for has to wait for its turn then.
func TestKey_ATaskKeptForAHandlerWhoseCallerReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithoutResults())
		var c crowd
		ended := make(chan struct{})
		submit(t, p, order{1, func(ctx context.Context) (int, error) {
			p.DoChan(ctx, order{0, func(ctx context.Context) (int, error) {
				defer close(ended)
				p.DoChan(ctx, order{0, sleeping(2*time.Second, 0)}) // keeps its place busy
				return p.Do(ctx, order{1, c.task})
			}})
			time.Sleep(time.Second)
			return 0, nil
		}})
		synctest.Wait()
		submitN(t, p, 3, order{1, c.task})
		<-ended
		closed(t, p)
		assert.EqualValues(t, 1, c.most.Load(), "tasks of one key at once")
	})
}

func TestKey_ARetryWaitsForATaskInItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithoutResults())
		var inPlace atomic.Bool
		submit(t, p, order{1, func(ctx context.Context) (int, error) {
			if info, _ := workpool.InfoFrom(ctx); info.Attempt == 2 {
				assert.False(t, inPlace.Load())
				return 0, nil
			}
			p.DoChan(ctx, order{1, func(context.Context) (int, error) {
				inPlace.Store(true)
				defer inPlace.Store(false)
				return sleeping(2*time.Second, 0)(ctx)
			}})
			return 0, workpool.RetryAfter(time.Second, nil)
		}})
		require.NoError(t, p.Wait(t.Context()))
		assert.EqualValues(t, 2, p.Stats().Succeeded)
	})
}

// A task that CallerRuns runs for a handler may wait for one of the handler's key.
func TestRule6_CallerRunsInAHandlerThatHasAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithOverflow(workpool.CallerRuns), workpool.WithoutResults())
		var of1 atomic.Int32
		succeeds(t)(p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
			return 0, p.Submit(ctx, order{2, func(ctx context.Context) (int, error) {
				return p.Do(ctx, order{1, counted(&of1)})
			}})
		}}))
		assert.EqualValues(t, 1, of1.Load())
		closed(t, p)
	})
}
