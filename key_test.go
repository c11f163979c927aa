package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
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

// A message is the nth of its sender for one key.
type message struct{ key, sender, n int }

func (m message) keyOf() int { return m.key }

// 64 submitters and 1,000 keys, under resize and panics.
func TestKey_OneAtATimeInOrder(t *testing.T) {
	const submitters, keys, messages = 64, 1000, 500
	var mu sync.Mutex
	running := map[int]bool{}
	newest := map[[2]int]int{} // by key and sender
	handle := func(_ context.Context, m message) (int, error) {
		mu.Lock()
		if running[m.key] {
			t.Errorf("two tasks of key %d run at once", m.key)
		}
		running[m.key] = true
		if last := newest[[2]int{m.key, m.sender}]; m.n <= last {
			t.Errorf("key %d, sender %d: %d runs after %d", m.key, m.sender, m.n, last)
		}
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
			panic("a panic")
		case 2:
			runtime.Goexit()
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
				if err := p.Submit(t.Context(), message{key, sender, n + 1}); err != nil {
					t.Errorf("Submit: %v", err)
				}
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
		handle := func(_ context.Context, m message) (int, error) {
			if m.key == 0 {
				time.Sleep(time.Second)
			}
			return m.key, nil
		}
		p := mustNew(t, handle, workpool.WithWorkers(3), workpool.WithQueueDepth(10), workpool.WithKey(message.keyOf))
		ctx, cancel := context.WithCancel(t.Context())
		var hot sync.WaitGroup
		for range 20 { // they keep the queue full
			hot.Go(func() {
				for p.Submit(ctx, message{}) == nil {
				}
			})
		}
		go func() {
			for range p.Results() {
			}
		}()
		synctest.Wait()
		begin := time.Now()
		for n := range 1000 {
			require.NoError(t, p.Submit(t.Context(), message{key: 1 + n}))
			synctest.Wait()
		}
		assert.Zero(t, time.Since(begin), "tasks of other keys are taken at once, by the workers that are idle")
		cancel()
		hot.Wait()
	})
}

func TestKey_AnIdleKeyLeavesNothingBehind(t *testing.T) {
	type large [1 << 10]byte
	p := mustNew(t, func(_ context.Context, m large) (int, error) { return int(m[0]), nil },
		workpool.WithoutResults(), workpool.WithKey(func(m large) large { return m }))
	before := 0
	for n := range 40_000 {
		submit(t, p, large{byte(n), byte(n >> 8), byte(n >> 16)})
		if n == 10_000 {
			require.NoError(t, p.Wait(t.Context()))
			before = heap()
		}
	}
	require.NoError(t, p.Wait(t.Context()))
	assert.Less(t, heap(), before+5<<20, "30,000 keys of 1 KiB are not kept")
}

func TestKey_WhatIsNotEqualToItselfIsNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		p := mustNew(t, g.handle, workpool.WithWorkers(2), workpool.WithoutResults(),
			workpool.WithKey(func(int) float64 { return math.NaN() }))
		submit(t, p, 1, 2)
		<-g.began
		<-g.began
		close(g.end)
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
		handle := func(ctx context.Context, m message) (int, error) {
			if info, _ := workpool.InfoFrom(ctx); m.n == 0 && info.Attempt < 3 {
				return 0, workpool.RetryAfter(time.Second, nil)
			}
			return m.n, nil
		}
		p := mustNew(t, handle, workpool.WithWorkers(4), workpool.WithKey(message.keyOf))
		begin := time.Now()
		for n := range 3 {
			require.NoError(t, p.Submit(t.Context(), message{key: 1, n: n}))
		}
		require.NoError(t, p.Submit(t.Context(), message{key: 2, n: 9}))
		var order []int
		closed(t, p)
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
	for workers := 1; workers <= 4; workers++ {
		synctest.Test(t, func(t *testing.T) {
			var p *workpool.Pool[message, int]
			handle := func(ctx context.Context, m message) (int, error) {
				time.Sleep(time.Millisecond)
				if m.n > 0 {
					next := message{key: m.key + 1, n: m.n - 1}
					if _, err := p.Do(ctx, next); err != nil {
						return 0, err
					}
					if _, err := p.Map(ctx, []message{next, {key: m.key}, {key: 9}}); err != nil {
						return 0, err
					}
				}
				return m.n, nil
			}
			p = mustNew(t, handle, workpool.WithWorkers(workers), workpool.WithQueueDepth(2), workpool.WithKey(message.keyOf))
			var callers sync.WaitGroup
			for key := range 3 {
				callers.Go(func() {
					for range 5 {
						assert.NoError(t, p.Submit(t.Context(), message{key: key, n: 4}))
					}
				})
			}
			callers.Wait()
			require.NoError(t, p.Wait(t.Context()))
			closed(t, p)
			results := collect(p)
			assert.Len(t, results, 15)
			for _, r := range results {
				assert.NoError(t, r.Err)
			}
		})
	}
}

// A tree of tasks of one key, submitted from inside tasks, on a full queue.
func TestKey_TasksSubmittedFromInsideWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p *workpool.Pool[message, int]
		running := 0
		p = mustNew(t, func(ctx context.Context, m message) (int, error) {
			running++
			defer func() { running-- }()
			if running != 1 {
				t.Error("two run at once")
			}
			for range 2 {
				if m.n > 0 {
					if err := p.Submit(ctx, message{n: m.n - 1}); err != nil {
						return 0, err
					}
				}
			}
			return 0, nil
		}, workpool.WithWorkers(3), workpool.WithQueueDepth(1), workpool.WithoutResults(), workpool.WithKey(message.keyOf))
		require.NoError(t, p.Submit(t.Context(), message{n: 9}))
		require.NoError(t, p.Wait(t.Context()))
		closed(t, p)
		assert.EqualValues(t, 1023, p.Stats().Succeeded)
	})
}

func TestKey_AnAbortEndsThoseThatWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(ctx context.Context, _ message) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}, workpool.WithWorkers(2), workpool.WithKey(message.keyOf))
		for n := range 10 {
			require.NoError(t, p.Submit(t.Context(), message{n: n}))
		}
		synctest.Wait()
		assert.Equal(t, 9, p.Stats().Queued)
		ctx := limited(t, time.Second)
		cutShort(t, 9, 1, p.Shutdown(ctx))
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
		p := mustNew(t, func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Duration(n) * time.Second)
			return n, nil
		},
			workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithOverflow(workpool.CallerRuns),
			workpool.WithKey(func(n int) bool { return n > 1 }))
		require.NoError(t, p.Submit(t.Context(), 1)) // on the worker, for a second
		go func() { assert.NoError(t, p.Submit(t.Context(), 2)) }()
		synctest.Wait() // it runs beside the worker, for two
		ctx := limited(t, time.Minute)
		began := time.Now()
		require.NoError(t, p.Submit(ctx, 3), "the worker is idle, and so is the key")
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
			fails(t, context.DeadlineExceeded)(p.Do(ctx, order{2, func(context.Context) (int, error) {
				time.Sleep(5 * time.Second)
				return 0, nil
			}}))
			return 0, nil
		}})
		began := time.Now()
		require.NoError(t, p.Submit(limited(t, time.Minute), order{2, returning(0, nil)}))
		assert.Equal(t, 5*time.Second, time.Since(began), "the end of the task that the handler called for")
		closed(t, p)
		assert.Len(t, collect(p), 2)
	})
}

func TestKey_ManyAtOnceLeaveNothingBehind(t *testing.T) {
	const many = 100_000
	keys := 1
	p := mustNew(t, identity, workpool.WithoutResults(), workpool.WithQueueDepth(many), workpool.WithKey(func(n int) int { return n % keys }))
	inUseAfter := func() int {
		p.Pause()
		for n := range many {
			require.NoError(t, p.TrySubmit(context.Background(), n))
		}
		p.Resume()
		require.NoError(t, p.Wait(t.Context()))
		return heap()
	}
	one := inUseAfter()
	keys = many
	assert.Less(t, inUseAfter(), one+2<<20)
}

// Those that wait for a full key are refused when the pool closes.
func TestKeyDepth_CloseRefusesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithKey(func(int) int { return 0 }), workpool.WithKeyDepth(1))
		p.Pause()
		require.NoError(t, p.Submit(t.Context(), 0))
		for range 3 {
			go func() { assert.ErrorIs(t, p.Submit(t.Context(), 1), workpool.ErrClosed) }()
			go func() { assert.ErrorIs(t, (<-p.DoChan(t.Context(), 1)).Err, workpool.ErrClosed) }()
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
	for workers := 1; workers <= 3; workers++ {
		synctest.Test(t, func(t *testing.T) {
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
}

// What is above the depth of a key waits, and keeps no task of another key from being
// accepted.
func TestWithKeyDepth_LimitsTheTasksOfAKey(t *testing.T) {
	for _, depth := range []int{1, 2, 5} {
		bubble(t, fmt.Sprint(depth), func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(3), workpool.WithKeyDepth(depth), workpool.WithoutResults())
			for range depth {
				require.NoError(t, p.TrySubmit(t.Context(), order{1, napping}))
			}
			assert.ErrorIs(t, p.TrySubmit(t.Context(), order{1, napping}), workpool.ErrQueueFull)
			fails(t, workpool.ErrQueueFull)(p.TryDo(t.Context(), order{1, napping}))
			for key := range 10 { // and they still are accepted
				require.NoError(t, p.TrySubmit(t.Context(), order{2 + key, napping}))
			}

			begin := time.Now()
			require.NoError(t, p.Submit(t.Context(), order{1, napping}))
			assert.Equal(t, time.Second, time.Since(begin), "until the first has ended")
			closed(t, p)
			s := p.Stats()
			assert.Equal(t, uint64(depth+11), s.Succeeded)
			assert.Equal(t, uint64(2), s.Refused)
		})
	}
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
		require.NoError(t, p.Submit(t.Context(), order{1, until(release)}))
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
			assert.ErrorIs(t, errs[i], context.Canceled)
			assert.ErrorIs(t, errs[i], workpool.ErrQueueFull)
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
			handIn := func(key, value int) error {
				return p.Submit(t.Context(), order{key, func(context.Context) (int, error) {
					time.Sleep(time.Second)
					return value, nil
				}})
			}
			require.NoError(t, handIn(1, 1))
			require.NoError(t, handIn(1, 2))
			synctest.Wait()
			begin := time.Now()
			assert.ErrorIs(t, handIn(1, 3), c.err)
			assert.Equal(t, c.waits, time.Since(begin))
			if c.dropped > 0 {
				r := receive(t, p)
				assert.ErrorIs(t, r.Err, workpool.ErrDropped)
				gives(t, c.dropped)(r.Task.run(t.Context()))
				assert.Equal(t, uint64(1), p.Stats().Dropped)
			}
			assert.NoError(t, handIn(2, 4))
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
	all["Submit"] = func(ctx context.Context, p *workpool.Pool[order, int], list ...order) (values []int, err error) {
		for _, o := range list {
			values, err = append(values, 0), errors.Join(err, p.Submit(ctx, o))
		}
		return values, errors.Join(err, p.Wait(ctx))
	}
	for name, run := range all {
		for _, opts := range [][]workpool.Option{
			nil,
			{workpool.WithQueueDepth(0)},
			{workpool.WithQueueDepth(1), workpool.WithPriority(func(o order) workpool.Priority { return workpool.Priority(o.key%3 - 1) })},
			{workpool.WithElastic(0, time.Second)},
			{workpool.WithOverflow(workpool.CallerRuns), workpool.WithQueueDepth(1)},
		} {
			for _, depth := range []int{1, 3} {
				bubble(t, fmt.Sprintf("%s/depth=%d", name, depth), func(t *testing.T) {
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
}

// A handler submits and calls with its own full key and with others.
func TestWithKeyDepth_InAHandler(t *testing.T) {
	for _, workers := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(workers), workpool.WithKeyDepth(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
			ran := new(atomic.Int32)
			var inner sync.WaitGroup
			_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				for way, use := range ways[order, int]() {
					_, err := use(ctx, p, order{1, counted(ran)}, order{2, counted(ran)}, order{1, counted(ran)})
					assert.NoError(t, err, way)
				}
				assert.NoError(t, p.Submit(ctx, order{2, counted(ran)}))
				inner.Go(func() { _ = p.Submit(context.WithoutCancel(ctx), order{1, counted(ran)}) }) // of its own key
				return 0, nil
			}})
			require.NoError(t, err)
			inner.Wait()
			require.NoError(t, p.Wait(t.Context()))
			assert.Equal(t, int32(6*3+2), ran.Load())
		})
	}
}

// A key that is full, and one that is not, with all the rest of the queue taken.
func TestWithKeyDepth_BesideAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithKeyDepth(2), workpool.WithoutResults())
		release := make(chan struct{})
		require.NoError(t, p.TrySubmit(t.Context(), order{1, until(release)}))
		require.NoError(t, p.TrySubmit(t.Context(), order{1, napping}))
		require.NoError(t, p.TrySubmit(t.Context(), order{2, napping}))
		assert.ErrorIs(t, p.TrySubmit(t.Context(), order{2, napping}), workpool.ErrQueueFull)
		var line sync.WaitGroup
		for key := range 4 {
			line.Go(func() { assert.NoError(t, p.Submit(t.Context(), order{key, napping})) })
		}
		synctest.Wait()
		assert.Equal(t, 4, p.Stats().Waiting)
		close(release)
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
	for _, depth := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(3), workpool.WithQueueDepth(depth), workpool.WithoutResults())
			_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				for range depth + 1 {
					assert.NoError(t, p.Submit(ctx, order{1, returning(0, nil)}))
				}
				return p.Do(context.WithoutCancel(t.Context()), order{2, returning(0, nil)}) // as somebody else
			}})
			require.NoError(t, err)
			require.NoError(t, p.Wait(t.Context()))
			closed(t, p)
			assert.Equal(t, uint64(depth+3), p.Stats().Succeeded)
		})
	}
}

// The key of a task that a handler waits for is busy at first, and idle later, when no worker is.
func TestRule6_ATaskInLineRunsInPlaceWhenItsKeyIsIdle(t *testing.T) {
	for name, use := range ways[order, int]("Do", "Map", "Stream", "Group") {
		bubble(t, name, func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0), workpool.WithKeyDepth(1), workpool.WithoutResults())
			release, held := make(chan struct{}), make(chan struct{})
			require.NoError(t, p.Submit(t.Context(), order{2, until(release)}))
			var all sync.WaitGroup
			all.Go(func() {
				_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
					_, err := use(ctx, p, order{2, returning(0, nil)})
					return 0, err
				}})
				assert.NoError(t, err)
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
}

// The same, where somebody else is in line for the key before it.
func TestRule6_ATaskInLineRunsInPlaceBehindAnotherOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0), workpool.WithoutResults())
		release, held := make(chan struct{}), make(chan struct{})
		require.NoError(t, p.Submit(t.Context(), order{2, until(release)}))
		var all sync.WaitGroup
		first := make(chan struct{})
		all.Go(func() {
			_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				<-first
				_, err := p.Map(ctx, []order{{2, returning(0, nil)}})
				return 0, err
			}})
			assert.NoError(t, err)
		})
		synctest.Wait()
		all.Go(func() { assert.NoError(t, p.Submit(t.Context(), order{2, returning(0, nil)})) })
		synctest.Wait()
		close(first)
		synctest.Wait()
		all.Go(func() { assert.NoError(t, p.Submit(t.Context(), order{3, until(held)})) })
		synctest.Wait()
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
		require.NoError(t, p.Submit(t.Context(), order{2, func(ctx context.Context) (int, error) {
			if info, _ := workpool.InfoFrom(ctx); info.Attempt == 1 {
				<-fails
				return 0, workpool.RetryAfter(time.Second, nil)
			}
			return 0, nil
		}}))
		synctest.Wait()
		answer := make(chan error, 1)
		go func() {
			_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				return p.Do(ctx, order{2, returning(0, nil)})
			}})
			answer <- err
		}()
		synctest.Wait()
		require.NoError(t, p.Submit(t.Context(), order{3, until(held)})) // for the worker that the first one leaves
		close(fails)
		synctest.Wait()
		require.Len(t, answer, 1, "it does not wait for the next attempt of another one")
		require.NoError(t, <-answer)
		close(held)
	})
}
