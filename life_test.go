package workpool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// The runtime lists every package that does something at import. This runs
// the test binary once more, without any test, to read the list.
func TestRule9_ImportStartsNothing(t *testing.T) {
	command := exec.Command(os.Args[0], "-test.run=^$")
	command.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	trace, err := command.CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(trace), "init testing @", "the list is there")
	assert.NotContains(t, string(trace), "init github.com/seed-a18b2dc9/workpool @")
}

// payload is large enough to be worth letting go of, and has no pointers, so
// that it is an allocation of its own.
type payload struct{ content [4096]byte }

// remains counts payloads that can still be reached.
type remains struct {
	mu    sync.Mutex
	weaks []weak.Pointer[payload]
}

// payload returns a new payload.
func (r *remains) payload() *payload {
	p := new(payload)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.weaks = append(r.weaks, weak.Make(p))
	return p
}

func (r *remains) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, w := range r.weaks {
		if w.Value() != nil {
			n++
		}
	}
	return n
}

// assertCollected waits for the collector, within reason.
func (r *remains) assertCollected(t *testing.T) {
	t.Helper()
	require.NotEmpty(t, r.weaks)
	for range 20 {
		if runtime.GC(); r.count() == 0 {
			return
		}
	}
	assert.Fail(t, "the pool retains payloads", "%d of %d", r.count(), len(r.weaks))
}

type payloads = workpool.Pool[*payload, *payload]

// The uses of a pool that a payload may get stuck in. Each returns with an
// idle pool that is open.
var payloadUses = map[string]func(t *testing.T, p *payloads, r *remains){
	"Submit": func(t *testing.T, p *payloads, r *remains) {
		for range 10 {
			require.NoError(t, p.Submit(t.Context(), r.payload()))
		}
		for range 10 {
			require.NotNil(t, receive(t, p).Value)
		}
	},
	"Submit, one after the other": func(t *testing.T, p *payloads, r *remains) {
		for range 10 {
			require.NoError(t, p.Submit(t.Context(), r.payload()))
			require.NotNil(t, receive(t, p).Value)
		}
	},
	"TrySubmit": func(t *testing.T, p *payloads, r *remains) {
		require.NoError(t, p.TrySubmit(r.payload()))
		require.NotNil(t, receive(t, p).Value)
	},
	"Do": func(t *testing.T, p *payloads, r *remains) {
		for range 10 {
			value, err := p.Do(context.Background(), r.payload())
			require.NoError(t, err)
			require.NotNil(t, value)
			_, err = p.Do(t.Context(), r.payload())
			require.NoError(t, err)
		}
	},
	"DoChan": func(t *testing.T, p *payloads, r *remains) {
		for range 10 {
			require.NotNil(t, (<-p.DoChan(t.Context(), r.payload())).Value)
		}
	},
	"Map": func(t *testing.T, p *payloads, r *remains) {
		values, err := p.Map(t.Context(), []*payload{r.payload(), r.payload(), r.payload()})
		require.NoError(t, err)
		require.Len(t, values, 3)
	},
	"Stream": func(t *testing.T, p *payloads, r *remains) {
		for result := range p.Stream(t.Context(), func(yield func(*payload) bool) {
			for i := 0; i < 10 && yield(r.payload()); i++ {
			}
		}) {
			require.NotNil(t, result.Value)
		}
	},
	"Stream, broken off": func(t *testing.T, p *payloads, r *remains) {
		for range p.Stream(t.Context(), func(yield func(*payload) bool) {
			for yield(r.payload()) {
			}
		}) {
			break
		}
	},
	"Do, given up while queued": func(t *testing.T, p *payloads, r *remains) {
		p.Pause()
		ctx, cancel := context.WithCancel(t.Context())
		answer := p.DoChan(ctx, r.payload())
		cancel()
		require.ErrorIs(t, (<-answer).Err, context.Canceled)
		p.Resume()
	},
	"Do, given up while running": func(t *testing.T, p *payloads, r *remains) {
		ctx, cancel := context.WithCancel(t.Context())
		task := r.payload()
		task.content[0] = 5
		answer := p.DoChan(ctx, task)
		cancel()
		if err := (<-answer).Err; err != nil { // the handler may be faster
			require.ErrorIs(t, err, context.Canceled)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := p.Do(ctx, task); err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	},
	"Submit, given up": func(t *testing.T, p *payloads, r *remains) {
		p.Pause()
		for p.TrySubmit(r.payload()) == nil {
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, p.Submit(ctx, r.payload()), context.DeadlineExceeded)
		stats := p.Stats()
		p.Resume()
		for range stats.Queued {
			receive(t, p)
		}
	},
	"nested": func(t *testing.T, p *payloads, r *remains) {
		task := r.payload()
		task.content[0] = 1
		_, err := p.Do(t.Context(), task)
		require.NoError(t, err)
	},
	"panic": func(t *testing.T, p *payloads, r *remains) {
		task := r.payload()
		task.content[0] = 2
		_, err := p.Do(t.Context(), task)
		require.Error(t, err)
	},
	"Goexit": func(t *testing.T, p *payloads, r *remains) {
		task := r.payload()
		task.content[0] = 3
		_, err := p.Do(t.Context(), task)
		require.Error(t, err)
	},
	"Do with a context that was waited for": func(t *testing.T, p *payloads, r *remains) {
		task := r.payload()
		task.content[0] = 4
		_, err := p.Do(t.Context(), task)
		require.NoError(t, err)
	},
}

// newPayloads makes a pool whose values are payloads of r too.
func newPayloads(t *testing.T, r *remains, opts ...workpool.Option) *payloads {
	return newSelfUsing(t, func(ctx context.Context, p *payloads, task *payload) (*payload, error) {
		switch task.content[0] {
		case 1:
			return p.Do(ctx, r.payload())
		case 2:
			panic(task)
		case 3:
			runtime.Goexit()
		case 4:
			stop := context.AfterFunc(ctx, func() { task.content[0] = 9 })
			child, cancel := context.WithTimeout(ctx, time.Hour)
			_ = child.Done()
			cancel()
			stop()
		case 5:
			<-ctx.Done()
			runtime.Gosched() // the caller gives up first, most of the time
		}
		return r.payload(), nil
	}, opts...)
}

func TestRule9_TasksAndValuesAreNotRetained(t *testing.T) {
	for name, use := range payloadUses {
		for _, workers := range []int{1, 3} {
			t.Run(name, func(t *testing.T) {
				var r remains
				p := newPayloads(t, &r, workpool.WithWorkers(workers), workpool.WithQueueDepth(5))
				use(t, p, &r)
				require.NoError(t, p.Wait(t.Context()))
				r.assertCollected(t)
				closed(t, p)
			})
		}
	}
}

func TestRule9_TasksAreNotRetainedWithoutAReceiver(t *testing.T) {
	var r remains
	for name, option := range map[string]workpool.Option{
		"WithoutResults": workpool.WithoutResults(),
		"WithResultFunc": workpool.WithResultFunc(func(workpool.Result[*payload, *payload]) {}),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPayloads(t, &r, option)
			for range 50 {
				require.NoError(t, p.Submit(t.Context(), r.payload()))
			}
			require.NoError(t, p.Wait(t.Context()))
			r.assertCollected(t)
			closed(t, p)
		})
	}
}

func TestRule9_AbortedTasksAreNotRetained(t *testing.T) {
	var r remains
	p := newPayloads(t, &r, workpool.WithWorkers(2), workpool.WithShutdown(workpool.Abort, 0))
	p.Pause()
	for range 50 {
		require.NoError(t, p.Submit(t.Context(), r.payload()))
	}
	answer := p.DoChan(t.Context(), r.payload())
	closed(t, p)
	require.ErrorIs(t, (<-answer).Err, workpool.ErrAborted)
	require.Len(t, collect(p), 50)
	r.assertCollected(t)
	runtime.KeepAlive(p)
}

func TestRule9_AClosedPoolCanBeCollected(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := newClosures(t, workpool.WithContext(ctx))
	_, err := p.Do(ctx, returning(1, nil))
	require.NoError(t, err)
	closed(t, p)
	pool := weak.Make(p)
	for range 20 {
		if runtime.GC(); pool.Value() == nil {
			return
		}
	}
	assert.Fail(t, "something retains the pool: its context, or that of a call")
}

// A context holds on to what it carries, such as all that belongs to a
// request. It must not outlive its request in an idle pool.
func TestRule9_ContextOfARequestIsNotRetained(t *testing.T) {
	type key struct{}
	calls := map[string]func(p *closures, ctx context.Context) error{
		"Do": func(p *closures, ctx context.Context) error {
			_, err := p.Do(ctx, returning(1, nil))
			return err
		},
		"DoChan": func(p *closures, ctx context.Context) error { return (<-p.DoChan(ctx, returning(1, nil))).Err },
		"Submit": func(p *closures, ctx context.Context) error { return p.Submit(ctx, returning(1, nil)) },
		"Map": func(p *closures, ctx context.Context) error {
			_, err := p.Map(ctx, []closure{returning(1, nil)})
			return err
		},
		"Wait": func(p *closures, ctx context.Context) error { return p.Wait(ctx) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			p := newClosures(t, workpool.WithoutResults())
			var r remains
			for range 5 {
				ctx := context.WithValue(context.Background(), key{}, r.payload())
				require.NoError(t, call(p, ctx))
				ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, r.payload()))
				require.NoError(t, call(p, ctx))
				cancel()
				require.NoError(t, p.Wait(context.Background()))
			}
			r.assertCollected(t)
			closed(t, p)
		})
	}
}

// The hot path allocates nothing, and a call without a context that can end
// next to nothing.
func TestSubmit_AllocatesNothing(t *testing.T) {
	type key struct{}
	shared := context.WithValue(t.Context(), key{}, "shared by many tasks")
	for name, ctx := range map[string]context.Context{"Background": context.Background(), "t.Context": t.Context(), "WithValue": shared} {
		t.Run(name, func(t *testing.T) {
			p := mustNew(t, square, workpool.WithWorkers(2))
			received := make(chan struct{}, 128)
			go func() {
				for range p.Results() {
					received <- struct{}{}
				}
				close(received)
			}()
			allocations := testing.AllocsPerRun(2000, func() {
				if err := p.Submit(ctx, 3); err != nil {
					t.Error(err)
				}
				<-received
			})
			assert.Zero(t, allocations, "one at a time")
			allocations = testing.AllocsPerRun(100, func() {
				for range 50 {
					if err := p.Submit(ctx, 3); err != nil {
						t.Error(err)
					}
				}
				for range 50 {
					<-received
				}
			})
			assert.Zero(t, allocations, "in bursts")
			closed(t, p)
			<-received
		})
	}
}

func TestTrySubmit_AllocatesNothing(t *testing.T) {
	done := make(chan struct{}, 1)
	p := mustNew(t, square, workpool.WithResultFunc(func(workpool.Result[int, int]) { done <- struct{}{} }))
	defer closed(t, p)
	assert.Zero(t, testing.AllocsPerRun(2000, func() {
		if err := p.TrySubmit(3); err != nil {
			t.Error(err)
		}
		<-done
	}))
}

func TestDo_AllocatesNextToNothing(t *testing.T) {
	p := mustNew(t, square, workpool.WithWorkers(2))
	defer closed(t, p)
	assert.LessOrEqual(t, testing.AllocsPerRun(2000, func() {
		if _, err := p.Do(context.Background(), 3); err != nil {
			t.Error(err)
		}
	}), 1.0)
}

// Whatever a pool does takes no time of the clock, so that a program under
// test can run in a bubble. Only Close's timeout, and a Stream whose input is
// blocked, look at it.
func TestRule10_APoolLivesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(2), workpool.WithShutdown(workpool.Drain, time.Minute))
		require.NoError(t, p.Submit(t.Context(), returning(1, nil)))
		require.NoError(t, p.TrySubmit(catchFire))
		require.NoError(t, p.Wait(t.Context()))
		receive(t, p)
		receive(t, p)
		value, err := p.Do(t.Context(), returning(2, nil))
		require.NoError(t, err)
		assert.Equal(t, 2, value)
		_, err = p.Map(t.Context(), []closure{returning(1, nil), exit, returning(3, nil)})
		require.ErrorIs(t, err, workpool.ErrGoexit)
		for range p.Stream(t.Context(), slices.Values([]closure{returning(1, nil), returning(2, nil), returning(3, nil)})) {
			break
		}
		p.Pause()
		queued := p.DoChan(t.Context(), returning(3, nil))
		p.Resume()
		assert.Equal(t, 3, (<-queued).Value)
		require.NoError(t, p.Resize(5))
		require.NoError(t, p.Resize(1))
		require.NoError(t, p.Shutdown(t.Context()))
		closed(t, p)
		assert.Zero(t, time.Since(begin))
	})
}

func TestRule10_AnHourOfSleepInNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		values, err := workpool.Map(t.Context(), upTo(60), func(_ context.Context, i int) (int, error) {
			time.Sleep(2 * time.Minute)
			return i, nil
		}, workpool.WithWorkers(2))
		require.NoError(t, err)
		assert.Equal(t, upTo(60), values)
		assert.Equal(t, time.Hour, time.Since(begin))
	})
}

func TestRule10_CloseTimeoutIsOnTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithShutdown(workpool.Drain, time.Minute))
		done := inBackground(t.Context(), do, p, untilEnd)
		begin := time.Now()
		var cutShort *workpool.ShutdownError
		require.ErrorAs(t, p.Close(), &cutShort)
		assert.Equal(t, time.Minute, time.Since(begin))
		require.ErrorIs(t, cutShort, context.DeadlineExceeded)
		require.ErrorIs(t, (<-done).err, workpool.ErrAborted)
		assert.Equal(t, error(cutShort), p.Shutdown(t.Context()))
	})
}

// crowd counts how many of its tasks run at once.
type crowd struct{ now, most atomic.Int32 }

func (c *crowd) task(ctx context.Context) (int, error) {
	now := c.now.Add(1)
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
	}
	time.Sleep(time.Second)
	c.now.Add(-1)
	return 0, nil
}

func TestResize_UpStartsWorkersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		var c crowd
		for range 10 {
			require.NoError(t, p.Submit(t.Context(), c.task))
		}
		synctest.Wait()
		require.Equal(t, int32(1), c.now.Load())
		require.NoError(t, p.Resize(4))
		assert.Equal(t, 4, p.Stats().Workers)
		synctest.Wait()
		assert.Equal(t, int32(4), c.now.Load())
		closed(t, p)
		for _, r := range collect(p) {
			assert.GreaterOrEqual(t, r.Worker, 1)
			assert.LessOrEqual(t, r.Worker, 4)
		}
	})
}

func TestResize_UpMakesRoomForAWaitingSubmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0))
		release := occupy(t, p, 1)
		submitted := make(chan error, 1)
		go func() { submitted <- p.Submit(t.Context(), returning(1, nil)) }()
		synctest.Wait()
		require.Empty(t, submitted)
		require.NoError(t, p.Resize(2))
		require.NoError(t, <-submitted)
		assert.Equal(t, 1, receive(t, p).Value)
		release()
		closed(t, p)
	})
}

func TestResize_DownLetsBusyWorkersFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(5))
		var before, after crowd
		for range 5 {
			require.NoError(t, p.Submit(t.Context(), before.task))
		}
		synctest.Wait()
		for range 12 {
			require.NoError(t, p.Submit(t.Context(), after.task))
		}
		require.NoError(t, p.Resize(2))
		assert.Equal(t, int32(5), before.now.Load(), "no running task is touched")
		assert.Equal(t, 5, p.Stats().Workers, "three of them have to finish first")

		begin := time.Now()
		closed(t, p)
		assert.Equal(t, 7*time.Second, time.Since(begin))
		assert.Equal(t, int32(2), after.most.Load(), "after that, only two run at once")
		results := byIndex(t, collect(p))
		require.Len(t, results, 17)
		for _, r := range results[5:] {
			assert.Contains(t, []int{1, 2}, r.Worker)
		}
	})
}

func TestResize_OfAnIdlePoolShowsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(3))
		for _, size := range []int{1, 7, 2, 2, 30, 1} {
			require.NoError(t, p.Resize(size))
			assert.Equal(t, size, p.Stats().Workers)
			var c crowd
			for range 40 {
				require.NoError(t, p.Submit(t.Context(), c.task))
			}
			for range 40 {
				r := receive(t, p)
				assert.GreaterOrEqual(t, r.Worker, 1)
				assert.LessOrEqual(t, r.Worker, size)
			}
			assert.Equal(t, int32(min(size, 40)), c.most.Load())
			assert.Equal(t, size, p.Stats().Workers)
		}
		closed(t, p)
		assert.Zero(t, p.Stats().Workers)
	})
}

func TestResize_LeavesNoGoroutineOfASurplusWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		synctest.Wait()
		others := goroutinesOfBubble() - 1
		for _, size := range []int{50, 1, 7, 1} {
			require.NoError(t, p.Resize(size))
			synctest.Wait()
			assert.Equal(t, size, goroutinesOfBubble()-others)
		}
		closed(t, p)
	})
}

// goroutinesOfBubble counts the goroutines in the bubble of its caller. Others
// belong to tests that have just ended.
func goroutinesOfBubble() int {
	buffer := make([]byte, 1<<20)
	stacks := string(buffer[:runtime.Stack(buffer, true)]) // its caller's comes first
	_, rest, _ := strings.Cut(stacks, "synctest bubble ")
	bubble, _, _ := strings.Cut(rest, "]")
	return strings.Count(stacks, "synctest bubble "+bubble+"]")
}

func TestResize_WhilePaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(20))
		p.Pause()
		var c crowd
		for range 20 {
			require.NoError(t, p.Submit(t.Context(), c.task))
		}
		require.NoError(t, p.Resize(6))
		require.NoError(t, p.Resize(5))
		synctest.Wait()
		assert.Zero(t, c.now.Load(), "new workers are paused too")
		p.Resume()
		synctest.Wait()
		assert.Equal(t, int32(5), c.now.Load())
		closed(t, p)
		assert.Equal(t, int32(5), c.most.Load())
	})
}

func TestResize_RacesWithEverything(t *testing.T) {
	const tasks = 3000
	p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(3), workpool.WithResultBuffer(2))
	within(t, func() {
		stop := make(chan struct{})
		var disturbers, users, receivers sync.WaitGroup
		disturbers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := p.Resize(1 + rand.IntN(8)); err != nil {
					assert.NoError(t, err)
				}
				p.Pause()
				stats := p.Stats()
				if stats.Submitted != uint64(stats.Queued+stats.Running)+stats.Succeeded+stats.Failed+stats.Aborted {
					assert.Fail(t, "the numbers of Stats belong to one moment", "%+v", stats)
				}
				p.Resume()
			}
		})
		var seen sync.Map
		var received atomic.Int32
		for range 2 {
			receivers.Go(func() {
				for r := range p.Results() {
					received.Add(1)
					if _, again := seen.LoadOrStore(r.Index, true); again || r.Worker < 1 || r.Worker > 8 {
						assert.Fail(t, "a second Result, or one of no worker", "%+v", r)
					}
				}
			})
		}
		users.Go(func() {
			for i := range tasks {
				task := returning(i, nil)
				switch i % 10 {
				case 7:
					task = catchFire
				case 8:
					task = exit
				}
				assert.NoError(t, p.Submit(t.Context(), task))
			}
		})
		users.Go(func() {
			for i := range tasks / 4 {
				value, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
					return p.Do(ctx, returning(i, nil))
				})
				assert.NoError(t, err)
				assert.Equal(t, i, value)
			}
		})
		users.Go(func() {
			for range tasks / 40 {
				values, err := p.Map(t.Context(), slices.Repeat([]closure{returning(5, nil)}, 10))
				assert.NoError(t, err)
				assert.Equal(t, slices.Repeat([]int{5}, 10), values)
			}
		})
		users.Go(func() {
			for range tasks / 40 {
				results := streamed(p.Stream(t.Context(), slices.Values(slices.Repeat([]closure{returning(5, nil)}, 10))))
				assert.Len(t, results, 10)
			}
		})
		users.Wait()
		close(stop)
		disturbers.Wait()
		closed(t, p)
		receivers.Wait()
		assert.Equal(t, int32(tasks), received.Load())
	})
}

func TestPause_KeepsWorkersFromTakingTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(3))
		release := occupy(t, p, 1)
		p.Pause()
		p.Pause() // twice is as good as once
		for range 3 {
			require.NoError(t, p.TrySubmit(returning(1, nil)))
		}
		require.ErrorIs(t, p.TrySubmit(returning(1, nil)), workpool.ErrQueueFull)
		release()
		synctest.Wait()
		stats := p.Stats()
		assert.Equal(t, uint64(1), stats.Succeeded, "running tasks go on")
		assert.Equal(t, 3, stats.Queued)
		assert.Zero(t, stats.Running)

		p.Resume()
		p.Resume()
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, uint64(4), p.Stats().Succeeded)
		closed(t, p)
	})
}

func TestPause_ResumeLetsAWaitingSubmitIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0))
		p.Pause()
		submitted := make(chan error, 2)
		for range 2 {
			go func() { submitted <- p.Submit(t.Context(), returning(1, nil)) }()
		}
		synctest.Wait()
		require.Empty(t, submitted)
		p.Resume()
		require.NoError(t, <-submitted)
		require.NoError(t, <-submitted)
		closed(t, p)
		assert.Len(t, collect(p), 2)
	})
}

func TestPause_HoldsMapAndStreamWithoutLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(_ context.Context, i int) (int, error) {
			time.Sleep(time.Second)
			return i, nil
		}, workpool.WithWorkers(2), workpool.WithQueueDepth(2))
		go func() {
			for range 5 {
				time.Sleep(1500 * time.Millisecond)
				p.Pause()
				time.Sleep(time.Minute)
				p.Resume()
			}
		}()
		values, err := p.Map(t.Context(), upTo(10))
		require.NoError(t, err)
		assert.Equal(t, upTo(10), values)
		assert.Len(t, byIndex(t, streamed(p.Stream(t.Context(), count(10)))), 10)
		closed(t, p)
		synctest.Wait()
		time.Sleep(time.Hour) // Pause and Resume do nothing on a closed pool
	})
}

func TestPause_EndsWithTheOpenPool(t *testing.T) {
	for _, mode := range []workpool.ShutdownMode{workpool.Drain, workpool.FinishRunning, workpool.Abort} {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newClosures(t, workpool.WithShutdown(mode, 0))
				p.Pause()
				for range 5 {
					require.NoError(t, p.Submit(t.Context(), returning(1, nil)))
				}
				closed(t, p)
				p.Pause()
				p.Resume()
				require.ErrorIs(t, p.Resize(3), workpool.ErrClosed)
				results := collect(p)
				require.Len(t, results, 5)
				for _, r := range results {
					if mode == workpool.Drain {
						assert.NoError(t, r.Err)
					} else {
						assert.ErrorIs(t, r.Err, workpool.ErrAborted)
						assert.Zero(t, r.Worker)
						assert.Equal(t, 1, r.Attempt)
					}
				}
			})
		})
	}
}

func TestWait_ReturnsWhenAllIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2))
		require.NoError(t, p.Wait(t.Context()), "nothing to wait for")
		for round := range 3 {
			begin := time.Now()
			var c crowd
			for range 6 {
				require.NoError(t, p.Submit(t.Context(), c.task))
			}
			p.DoChan(t.Context(), c.task)
			require.NoError(t, p.Wait(t.Context()))
			assert.Equal(t, 4*time.Second, time.Since(begin), "round %d", round)
			stats := p.Stats()
			assert.Zero(t, stats.Queued+stats.Running)
			assert.Equal(t, 6*(1+round), stats.Undelivered, "receivers are not waited for")
		}
		closed(t, p)
	})
}

func TestWait_ManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		release := occupy(t, p, 1)
		var returned atomic.Int32
		for range 5 {
			go func() {
				assert.NoError(t, p.Wait(t.Context()))
				returned.Add(1)
			}()
		}
		synctest.Wait()
		assert.Zero(t, returned.Load())
		release()
		synctest.Wait()
		assert.Equal(t, int32(5), returned.Load())
		closed(t, p)
	})
}

func TestWait_ContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		release := occupy(t, p, 1)
		reason := errors.New("too slow")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, reason)
		defer cancel()
		begin := time.Now()
		err := p.Wait(ctx)
		assert.Equal(t, time.Second, time.Since(begin))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, reason)
		var none context.Context
		require.Error(t, p.Wait(none))
		release()
		require.NoError(t, p.Wait(t.Context()), "the pool goes on")
		closed(t, p)
		require.NoError(t, p.Wait(t.Context()), "nothing runs in a closed pool")
	})
}

func TestWait_DuringAShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		var c crowd
		for range 3 {
			require.NoError(t, p.Submit(t.Context(), c.task))
		}
		begin := time.Now()
		go func() { assert.NoError(t, p.Shutdown(t.Context())) }()
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, 3*time.Second, time.Since(begin))
		synctest.Wait()
	})
}

func TestWait_EndsWhenTheLastQueuedTaskIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t)
		p.Pause()
		ctx, cancel := context.WithCancel(t.Context())
		p.DoChan(ctx, returning(1, nil))
		waited := make(chan error, 1)
		go func() { waited <- p.Wait(t.Context()) }()
		synctest.Wait()
		require.Empty(t, waited)
		cancel()
		require.NoError(t, <-waited)
		closed(t, p)
	})
}

func TestWait_CoversTheResultFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Bool
		p := mustNew(t, square, workpool.WithResultFunc(func(workpool.Result[int, int]) {
			time.Sleep(time.Second)
			told.Store(true)
		}))
		require.NoError(t, p.Submit(t.Context(), 1))
		require.NoError(t, p.Wait(t.Context()))
		assert.True(t, told.Load())
		closed(t, p)
	})
}

func TestStats_AddUpAtAnyMoment(t *testing.T) {
	p := newClosures(t, workpool.WithWorkers(3), workpool.WithQueueDepth(4), workpool.WithResultBuffer(2))
	stop := make(chan struct{})
	var watchers sync.WaitGroup
	for range 2 {
		watchers.Go(func() {
			for {
				stats := p.Stats()
				held := stats.Queued + stats.Running + stats.Undelivered
				if stats.Submitted != uint64(stats.Queued+stats.Running)+stats.Succeeded+stats.Failed+stats.Aborted ||
					stats.Running > 3 || held > 4+2+3 || stats.Panicked > stats.Failed || stats.Retried != 0 || stats.Workers != 3 {
					assert.Fail(t, "these numbers can't be", "%+v", stats)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	within(t, func() {
		var users sync.WaitGroup
		users.Go(func() {
			for i := range 2000 {
				assert.NoError(t, p.Submit(t.Context(), []closure{returning(1, nil), catchFire, exit}[i%3]))
			}
		})
		users.Go(func() {
			received := 0
			for range p.Results() {
				if received++; received == 2000 {
					break
				}
			}
		})
		users.Go(func() {
			for range 500 {
				ctx, cancel := context.WithCancel(t.Context())
				users.Go(cancel)
				_, _ = p.Do(ctx, returning(1, nil))
			}
		})
		users.Wait()
	})
	close(stop)
	watchers.Wait()
	closed(t, p)
	stats := p.Stats()
	assert.Equal(t, stats.Submitted, stats.Succeeded+stats.Failed+stats.Aborted)
	assert.Equal(t, uint64(667), stats.Panicked)
	assert.Equal(t, uint64(667+666), stats.Failed)
	assert.Zero(t, stats.Workers+stats.Queued+stats.Running+stats.Undelivered)
}

func TestInfoFrom_TellsWhichTaskRunsWhere(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		_, ok := workpool.InfoFrom(t.Context())
		assert.False(t, ok, "not the context of a handler")

		seen := map[uint64]bool{}
		p := newClosures(t, workpool.WithWorkers(3), workpool.WithName("thumbnails"))
		for range 20 {
			value := make(chan workpool.Info, 1)
			require.NoError(t, p.Submit(t.Context(), func(ctx context.Context) (int, error) {
				info, ok := workpool.InfoFrom(ctx)
				assert.True(t, ok)
				child, cancel := context.WithTimeout(context.WithValue(ctx, key{}, 1), time.Hour)
				defer cancel()
				derived, ok := workpool.InfoFrom(child)
				assert.True(t, ok)
				assert.Equal(t, info, derived)
				value <- info
				return 0, nil
			}))
			r, info := receive(t, p), <-value
			assert.Equal(t, workpool.Info{Pool: "thumbnails", Worker: r.Worker, Index: r.Index, Attempt: r.Attempt}, info)
			assert.Contains(t, []int{1, 2, 3}, info.Worker)
			assert.False(t, seen[info.Index], "an index of its own")
			seen[info.Index] = true
		}
		closed(t, p)
	})
}

func TestInfoFrom_TheInnermostPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := newClosures(t, workpool.WithName("outer"))
		inner := newClosures(t, workpool.WithName("inner"))
		_, err := outer.Do(t.Context(), func(ctx context.Context) (int, error) {
			_, err := inner.Do(ctx, func(ctx context.Context) (int, error) {
				info, ok := workpool.InfoFrom(ctx)
				assert.True(t, ok)
				assert.Equal(t, "inner", info.Pool)
				return 0, nil
			})
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			assert.Equal(t, "outer", info.Pool)
			return 0, err
		})
		require.NoError(t, err)
		closed(t, inner)
		closed(t, outer)
	})
}

func TestWithWorkers_VeryManyAreStartedWhenTasksWaitForThem(t *testing.T) {
	const many, eager = 5000, 1024
	synctest.Test(t, func(t *testing.T) {
		before := runtime.NumGoroutine()
		gate := make(chan struct{})
		p := mustNew(t, func(context.Context, int) (int, error) {
			<-gate
			return 1, nil
		}, workpool.WithWorkers(many), workpool.WithQueueDepth(0), workpool.WithoutResults())
		assert.Equal(t, many, p.Stats().Workers)
		assert.Less(t, runtime.NumGoroutine(), before+eager+100)
		for n := range many {
			require.NoError(t, p.TrySubmit(n), "task %d", n)
		}
		require.ErrorIs(t, p.TrySubmit(many), workpool.ErrQueueFull)
		synctest.Wait()
		assert.Equal(t, many, p.Stats().Running)

		require.NoError(t, p.Resize(1))
		require.NoError(t, p.Resize(2*many))
		p.Pause()
		require.ErrorIs(t, p.TrySubmit(0), workpool.ErrQueueFull)
		p.Resume()
		for n := range many {
			require.NoError(t, p.TrySubmit(n), "task %d after Resize", n)
		}
		synctest.Wait()
		assert.Equal(t, 2*many, p.Stats().Running)
		close(gate)
		closed(t, p)
		assert.EqualValues(t, 2*many, p.Stats().Succeeded)
	})
	values, err := workpool.Map(t.Context(), upTo(3*many), func(_ context.Context, n int) (int, error) { return n, nil }, workpool.WithWorkers(many))
	require.NoError(t, err)
	assert.Equal(t, upTo(3*many), values)
}
