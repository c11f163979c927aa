package workpool_test

import (
	"context"
	"math"
	"runtime"
	"sync"
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
	p := mustNew(t, func(_ context.Context, m [1 << 10]byte) (int, error) { return int(m[0]), nil },
		workpool.WithoutResults(), workpool.WithKey(func(m [1 << 10]byte) [1 << 10]byte { return m }))
	inUse := func() uint64 {
		require.NoError(t, p.Wait(t.Context()))
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	var before uint64
	for n := range 40_000 {
		var m [1 << 10]byte
		m[0], m[1], m[2] = byte(n), byte(n>>8), byte(n>>16)
		require.NoError(t, p.Submit(t.Context(), m))
		if n == 10_000 {
			before = inUse()
		}
	}
	assert.Less(t, inUse(), before+5<<20, "30,000 keys of 1 KiB are not kept")
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
			var mu sync.Mutex
			depth := map[int]int{}
			handle := func(ctx context.Context, m message) (int, error) {
				mu.Lock()
				depth[m.key]++
				mu.Unlock()
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
				mu.Lock()
				depth[m.key]--
				mu.Unlock()
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
		var cut *workpool.ShutdownError
		require.ErrorAs(t, p.Shutdown(ctx), &cut)
		assert.Equal(t, 9, cut.Aborted)
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
		type task struct {
			key, calls int
			naps       time.Duration
		}
		var p *workpool.Pool[task, int]
		p = mustNew(t, func(ctx context.Context, tk task) (int, error) {
			for range tk.calls {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				fails(t, context.DeadlineExceeded)(p.Do(ctx, task{key: tk.key + 1, naps: 5 * time.Second}))
			}
			time.Sleep(tk.naps)
			return tk.key, nil
		}, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithKey(func(tk task) int { return tk.key }))
		require.NoError(t, p.Submit(t.Context(), task{key: 1, calls: 1}))
		ctx := limited(t, time.Minute)
		began := time.Now()
		require.NoError(t, p.Submit(ctx, task{key: 2}))
		assert.Equal(t, 5*time.Second, time.Since(began), "the end of the task that the handler called for")
		closed(t, p)
		assert.Len(t, collect(p), 2)
	})
}

func TestKey_ManyAtOnceLeaveNothingBehind(t *testing.T) {
	const many = 100_000
	keys := 1
	p := mustNew(t, identity, workpool.WithoutResults(), workpool.WithQueueDepth(many), workpool.WithKey(func(n int) int { return n % keys }))
	inUseAfter := func() uint64 {
		p.Pause()
		for n := range many {
			require.NoError(t, p.TrySubmit(context.Background(), n))
		}
		p.Resume()
		require.NoError(t, p.Wait(t.Context()))
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
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
			var p *workpool.Pool[int, int]
			var answers [2]<-chan workpool.Result[int, int]
			p = mustNew(t, func(ctx context.Context, n int) (int, error) {
				switch n {
				case 1:
					for i := range answers {
						answers[i] = p.DoChan(ctx, 20+i)
					}
				case 2:
					time.Sleep(time.Second)
				}
				return n, nil
			}, workpool.WithWorkers(workers), workpool.WithKey(func(n int) int {
				if n >= 20 {
					return 2
				}
				return n
			}))
			require.NoError(t, p.Submit(context.Background(), 2))
			synctest.Wait()
			require.NoError(t, p.Submit(context.Background(), 1))
			require.NoError(t, p.Wait(t.Context()))
			for i, answer := range answers {
				assert.Equal(t, 20+i, (<-answer).Value)
			}
		})
	}
}
