package workpool_test

import (
	"context"
	"errors"
	"fmt"
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

func TestRule3_SubmitWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		p := mustNew(t, g.handle, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults())
		submit(t, p, 1, 2)
		<-g.began
		submitted := make(chan error, 1)
		go func() { submitted <- p.Submit(context.Background(), 3) }()
		synctest.Wait()
		require.Empty(t, submitted)
		g.end <- 1
		require.NoError(t, <-submitted)

		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { submitted <- p.Submit(ctx, 4) }()
		synctest.Wait()
		because := errors.New("no longer needed")
		cancel(because)
		err := <-submitted
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, because)
		require.ErrorIs(t, err, workpool.ErrQueueFull)
		require.ErrorContains(t, err, "1 tasks queued, 1 running, 0 of 1 workers wait for a receiver")
		require.ErrorIs(t, p.Submit(ctx, 5), context.Canceled)

		go func() { submitted <- p.Submit(context.Background(), 6) }()
		synctest.Wait()
		go func() {
			for range g.began { //revive:disable-line:empty-block // the queued task begins too
			}
		}()
		close(g.end)
		closed(t, p)
		close(g.began)
		if err := <-submitted; err != nil {
			require.ErrorIs(t, err, workpool.ErrClosed)
		}
	})
}

// The room and the end of the context come at the same time: the task is either accepted
// or refused.
func TestRule3_ContextThatEndsAsRoomComes(t *testing.T) {
	for i := range 200 {
		synctest.Test(t, func(t *testing.T) {
			g := newGate()
			p := mustNew(t, g.handle, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
			require.NoError(t, p.Submit(t.Context(), 1))
			<-g.began
			ctx, cancel := context.WithCancel(t.Context())
			submitted := make(chan error)
			go func() { submitted <- p.Submit(ctx, 2) }()
			synctest.Wait()
			cancel()
			if i == 0 {
				synctest.Wait() // so that the end comes first
			}
			g.end <- 1
			accepted := uint64(1)
			if err := <-submitted; err == nil {
				assert.NotZero(t, i, "an ended context never enqueues")
				accepted++
				<-g.began
				g.end <- 2
			} else {
				require.ErrorIs(t, err, context.Canceled)
			}
			synctest.Wait()
			assert.Equal(t, accepted, p.Stats().Submitted)
			require.ErrorIs(t, p.Submit(ctx, 3), context.Canceled)
			require.NoError(t, p.TrySubmit(t.Context(), 4), "the room that it left is free")
			<-g.began
			g.end <- 4
		})
	}
}

func TestRule3_ValuesReachTheHandlerAndTheEndDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := context.WithValue(t.Context(), key{}, "of the pool")
		p := mustNew(t, func(ctx context.Context, _ int) (any, error) {
			time.Sleep(time.Second) // the submitter's context ends meanwhile
			_, limited := ctx.Deadline()
			assert.False(t, limited)
			return ctx.Value(key{}), ctx.Err()
		}, workpool.WithContext(base))
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "of the task"), time.Minute)
		require.NoError(t, p.Submit(ctx, 0))
		require.NoError(t, p.TrySubmit(ctx, 0))
		_, err := p.SubmitCancel(ctx, 0)
		require.NoError(t, err)
		cancel()
		stop, err := p.SubmitCancel(ctx, 0)
		require.ErrorIs(t, err, context.Canceled)
		stop()
		require.ErrorIs(t, p.TrySubmit(ctx, 0), context.Canceled)
		require.NoError(t, p.TrySubmit(t.Context(), 1))
		closed(t, p)
		for _, r := range collect(p) {
			require.NoError(t, r.Err)
			assert.Equal(t, []string{"of the task", "of the pool"}[r.Task], r.Value)
		}
	})
}

// A task that nobody waits for is not inside the handler that submitted it.
func TestSubmit_LeavesTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b *workpool.Pool[int, int]
		var running, most atomic.Int64
		a = mustNew(t, func(ctx context.Context, n int) (int, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Second)
			return n, b.Submit(ctx, n)
		}, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		b = mustNew(t, func(ctx context.Context, n int) (int, error) {
			assert.NoError(t, a.Wait(ctx), "it is not a handler of a")
			type derived struct{}
			if n == 0 {
				return n, nil
			}
			return n, a.Submit(context.WithValue(ctx, derived{}, 1), n-1)
		}, workpool.WithWorkers(9), workpool.WithQueueDepth(0), workpool.WithoutResults())
		submitN(t, a, 3, 3)
		for a.Stats().Submitted < 12 {
			time.Sleep(time.Second)
		}
		require.NoError(t, a.Wait(t.Context()))
		require.NoError(t, b.Wait(t.Context()))
		closed(t, a)
		closed(t, b)
		assert.Equal(t, int64(1), most.Load(), "handlers of a at the same time")
	})
}

// incomparable is a context that == panics for.
type incomparable struct {
	context.Context
	_ []int
}

// mapped is one that is no pointer, but looks like one.
type mapped map[string]context.Context

func (m mapped) Deadline() (time.Time, bool) { return m["in"].Deadline() }

func (m mapped) Done() <-chan struct{} { return m["in"].Done() }

func (m mapped) Err() error { return m["in"].Err() }

func (m mapped) Value(key any) any { return m["in"].Value(key) }

// Each task has the values that it was submitted with, whatever kind of context
// carries them and whichever stand beside it, and keeps its place.
func TestRule3_ContextsOfAllKindsSideBySide(t *testing.T) {
	type key struct{}
	p := mustNew(t, func(ctx context.Context, _ any) (any, error) { return ctx.Value(key{}), nil }, workpool.WithWorkers(1))
	valued := func(v any) context.Context { return context.WithValue(context.Background(), key{}, v) }
	shared := valued("shared")
	kinds := []func(i int) (context.Context, any){
		func(int) (context.Context, any) { return context.Background(), nil },
		func(int) (context.Context, any) { return context.TODO(), nil },
		func(int) (context.Context, any) { return shared, "shared" },
		func(i int) (context.Context, any) { return valued(i), i },
		func(i int) (context.Context, any) { return incomparable{Context: valued(i)}, i },
		func(i int) (context.Context, any) { return mapped{"in": valued(i)}, i },
	}
	rng := rand.New(rand.NewPCG(1, 2))
	n := uint64(0)
	for range 200 {
		p.Pause()
		size := rng.IntN(100)
		k := 0
		for i := range size {
			if rng.IntN(3) == 0 {
				k = rng.IntN(len(kinds))
			}
			ctx, want := kinds[k](i)
			require.NoError(t, p.Submit(ctx, want))
		}
		p.Resume()
		for range size {
			r := receive(t, p)
			require.Equal(t, r.Task, r.Value)
			require.Equal(t, n, r.Index)
			n++
		}
	}
}

func TestSubmitAll_AcceptsEverything(t *testing.T) {
	eachShape(t, 1, func(t *testing.T, opts []workpool.Option) {
		p := mustNew(t, square, opts...)
		go func() {
			gives(t, 300)(p.SubmitAll(t.Context(), count(300)))
			assert.NoError(t, p.Shutdown(t.Context()))
		}()
		results := byIndex(t, collect(p))
		require.Len(t, results, 300)
		for i, r := range results {
			assert.Equal(t, i, r.Task, "accepted in order")
			assert.Equal(t, i*i, r.Value)
		}
		synctest.Wait()
	})
}

func TestSubmitAll_TakesNoMoreThanThereIsRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(3))
		release := make(chan struct{})
		var pulled atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan outcome, 1)
		go func() {
			accepted, err := p.SubmitAll(ctx, func(yield func(closure) bool) {
				for {
					if pulled.Add(1); !yield(until(release)) {
						return
					}
				}
			})
			done <- outcome{value: accepted, err: err}
		}()
		synctest.Wait()
		assert.Equal(t, int32(6), pulled.Load(), "two run, three are queued, one waits")

		cancel()
		got := <-done
		assert.Equal(t, 5, got.value)
		require.ErrorIs(t, got.err, context.Canceled)
		assert.Equal(t, int32(6), pulled.Load())
		close(release)
		closed(t, p)
		assert.Equal(t, uint64(5), p.Stats().Succeeded)
	})
}

func TestSubmitAll_StopsWhenThePoolCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(_ context.Context, i int) (int, error) {
			time.Sleep(time.Second)
			return i, nil
		}, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		go func() {
			time.Sleep(2500 * time.Millisecond)
			assert.NoError(t, p.Shutdown(t.Context()))
		}()
		accepted, err := p.SubmitAll(t.Context(), count(100))
		require.ErrorIs(t, err, workpool.ErrClosed)
		assert.Equal(t, 3, accepted)
		closed(t, p)
		assert.Equal(t, uint64(3), p.Stats().Succeeded)

		accepted, err = p.SubmitAll(t.Context(), count(100))
		require.ErrorIs(t, err, workpool.ErrClosed)
		assert.Zero(t, accepted)
	})
}

func TestSubmitAll_PanicOfTheSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		cause := errors.New("the file ended")
		accepted, err := p.SubmitAll(t.Context(), func(yield func(int) bool) {
			_ = yield(1) && yield(2)
			panic(cause)
		})
		var panicked *workpool.PanicError
		require.ErrorAs(t, err, &panicked)
		require.ErrorIs(t, err, cause)
		assert.Equal(t, 2, accepted)
		closed(t, p)
		assert.Len(t, collect(p), 2)
	})
}

func TestSubmitAll_GoexitOfTheSequenceEndsItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, square)
		var caller sync.WaitGroup
		caller.Go(func() {
			_, _ = p.SubmitAll(t.Context(), func(yield func(int) bool) {
				_ = yield(1)
				runtime.Goexit()
			})
			assert.Fail(t, "Goexit ends the goroutine that calls it")
		})
		caller.Wait()
		closed(t, p)
		assert.Len(t, collect(p), 1)
	})
}

// Each task has the Index that says when it was accepted, whichever way it comes, also
// beside inputs that take their time.
func TestRule1_IndexIsTheOrderOfAcceptance(t *testing.T) {
	for name, submit := range waysIn {
		if slices.Contains([]string{"Map", "Stream", "Group"}, name) { // whose Index is the position
			continue
		}
		bubble(t, name, func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(100), workpool.WithoutResults())
			release := occupy(t, p, 1)
			var ran []int
			var indexes []uint64
			task := func(n int) closure {
				return func(ctx context.Context) (int, error) {
					info, _ := workpool.InfoFrom(ctx)
					ran, indexes = append(ran, n), append(indexes, info.Index)
					return 0, nil
				}
			}
			one, endOne := feeding(t, p, sequenceWays["SubmitAll"])
			two, endTwo := feeding(t, p, sequenceWays["SubmitAll"])
			var waits []func()
			var order []int
			var expected []uint64
			for n := range 30 {
				switch n % 3 {
				case 0:
					one <- task(n)
				case 1:
					two <- task(n)
				case 2:
					waits = append(waits, submit(t, p, []closure{task(n)}))
				}
				synctest.Wait()
				order, expected = append(order, n), append(expected, uint64(1+n))
			}
			endOne()
			endTwo()
			release()
			for _, wait := range waits {
				wait()
			}
			closed(t, p)
			assert.Equal(t, order, ran)
			assert.Equal(t, expected, indexes)
		})
	}
}

// While an input is blocked, all room that there is can be had by others.
func TestRule2_RoomBesideABlockedInputIsThereForOthers(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct{ workers, depth, busy, fed int }{
		{1, 0, 0, 0}, {1, 0, 1, 0}, {2, 0, 1, 0}, {2, 0, 0, 1}, {1, 1, 1, 0}, {1, 1, 1, 1}, {2, 2, 2, 1}, {2, 2, 1, 3}, {1, 128, 1, 70}, {2, 128, 2, 128},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			eachNamed(t, sequenceWays, func(t *testing.T, _ string, feed sequenceWay) {
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
					require.NoError(t, p.TrySubmit(t.Context(), until(release)), "%d of %d", i, free)
				}
				require.ErrorIs(t, p.TrySubmit(t.Context(), until(release)), workpool.ErrQueueFull)
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
			})
		})
	}
}

// Cancelled tasks leave no more results behind than others.
func TestRule2_CancelledTasksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		p := mustNew(t, g.handle, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithResultBuffer(1))
		require.NoError(t, p.Submit(t.Context(), 0))
		<-g.began
		ctx, giveUp := context.WithCancel(t.Context())
		var loop sync.WaitGroup
		accepted := 1
		loop.Go(func() {
			for n := 1; ; n++ {
				cancel, err := p.SubmitCancel(ctx, n)
				if err != nil {
					return
				}
				accepted++
				cancel()
			}
		})
		synctest.Wait()
		s := p.Stats()
		assert.LessOrEqual(t, s.Queued+s.Running+s.Undelivered, 2+1+1)
		giveUp()
		loop.Wait()
		close(g.end)
		closed(t, p)
		results := collect(p)
		assert.Len(t, results, accepted)
		for _, r := range results {
			assert.Equal(t, r.Task > 0, errors.Is(r.Err, context.Canceled))
		}
	})
}

// Without a receiver a pool takes exactly as much as it may hold, and one more with each
// result that is received.
func TestRule2_HoldsExactlyWhatItMay(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		for _, depth := range []int{0, 1, 4, 9} {
			for _, buffer := range []int{0, 1, 3, 7} {
				bubble(t, fmt.Sprintf("workers=%d/depth=%d/buffer=%d", workers, depth, buffer), func(t *testing.T) {
					p := newClosures(t, workpool.WithWorkers(workers), workpool.WithQueueDepth(depth), workpool.WithResultBuffer(buffer))
					var others sync.WaitGroup
					others.Go(func() {
						for i := 0; p.Submit(t.Context(), returning(i, nil)) == nil; i++ {
						}
					})
					synctest.Wait()
					for received := range 40 {
						s := p.Stats()
						require.Equal(t, workers+depth+buffer, int(s.Submitted)-received, "%+v", s)
						require.Equal(t, []int{depth, 0, buffer + workers, workers, 1}, []int{s.Queued, s.Running, s.Undelivered, s.Held, s.Waiting})
						require.ErrorIs(t, p.TrySubmit(t.Context(), returning(0, nil)), workpool.ErrQueueFull)
						receive(t, p)
						synctest.Wait()
					}
					closed(t, p)
					others.Wait()
					assert.Len(t, collect(p), int(p.Stats().Submitted)-40)
				})
			}
		}
	}
}

// The same with one range over all results, which may take several at once.
func TestRule2_AReceiverThatIsAheadHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(4), workpool.WithResultBuffer(3))
		var submitter sync.WaitGroup
		submitter.Go(func() {
			for p.Submit(t.Context(), 1) == nil {
			}
		})
		received := 0
		for range p.Results() {
			synctest.Wait()
			received++
			require.Equal(t, 2+4+3, int(p.Stats().Submitted)-received)
			if received == 100 {
				break
			}
		}
		closed(t, p)
		submitter.Wait()
	})
}

// Each task that begins leaves room for one: for who waits in line, or for TrySubmit.
func TestRule2_EachTaskThatBeginsLeavesRoomForOne(t *testing.T) {
	const depth = 4
	for _, waiting := range []int{0, 1, 5} {
		bubble(t, fmt.Sprintf("waiting=%d", waiting), func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(depth), workpool.WithoutResults())
			step := make(chan struct{})
			task := func(context.Context) (int, error) { //nolint:unparam // a task
				<-step
				return 0, nil
			}
			full := func() {
				t.Helper()
				synctest.Wait()
				require.ErrorIs(t, p.TrySubmit(t.Context(), task), workpool.ErrQueueFull)
				require.Equal(t, depth, p.Stats().Queued)
			}
			p.Pause()
			for range depth {
				require.NoError(t, p.TrySubmit(t.Context(), task))
			}
			full()
			var submitters sync.WaitGroup
			for range waiting {
				submitters.Go(func() { assert.NoError(t, p.Submit(t.Context(), task)) })
			}
			synctest.Wait()
			require.Equal(t, waiting, p.Stats().Waiting)
			p.Resume()
			for begun := 1; begun <= 7; begun++ {
				synctest.Wait()
				require.Equal(t, max(0, waiting-begun), p.Stats().Waiting)
				if begun > waiting {
					require.NoError(t, p.TrySubmit(t.Context(), task))
				}
				full()
				step <- struct{}{}
			}
			synctest.Wait()
			require.NoError(t, p.Resize(3))
			for range 3 {
				require.NoError(t, p.TrySubmit(t.Context(), task))
			}
			full()
			close(step)
			submitters.Wait()
		})
	}
}

// What an input may hand in is what there is room for at that moment.
func TestRule2_APauseAndAResizeTakeRoomFromABlockedInput(t *testing.T) {
	for name, shrink := range map[string]func(p *closures){
		"Pause":  func(p *closures) { p.Pause() },
		"Resize": func(p *closures) { _ = p.Resize(1) },
	} {
		t.Run(name, func(t *testing.T) {
			eachNamed(t, sequenceWays, func(t *testing.T, _ string, feed sequenceWay) {
				const depth = 2
				p := newClosures(t, workpool.WithWorkers(8), workpool.WithQueueDepth(depth), workpool.WithoutResults())
				release := make(chan struct{})
				tasks, end := feeding(t, p, feed)
				shrink(p)
				go func() {
					for range 8 {
						tasks <- until(release)
					}
					end()
				}()
				synctest.Wait()
				assert.Equal(t, depth, p.Stats().Queued)
				p.Resume()
				close(release)
				synctest.Wait()
				assert.EqualValues(t, 8, p.Stats().Succeeded)
			})
		})
	}
}

// fates says for each task what it ended with: its value, or -1 if it was
// dropped.
func fates(t *testing.T, results []workpool.Result[int, int]) map[int]int {
	t.Helper()
	m := map[int]int{}
	for _, r := range results {
		if _, twice := m[r.Task]; twice {
			t.Errorf("task %d is answered twice", r.Task)
		}
		m[r.Task] = r.Value
		if r.Err != nil {
			require.ErrorIs(t, r.Err, workpool.ErrDropped)
			assert.Zero(t, r.Worker)
			m[r.Task] = -1
		}
	}
	return m
}

// overflowing returns a paused pool, whose queue of 2 is full of tasks 0 and 1.
func overflowing(t *testing.T, opts ...workpool.Option) *workpool.Pool[int, int] {
	t.Helper()
	opts = append([]workpool.Option{workpool.WithWorkers(1), workpool.WithQueueDepth(2)}, opts...)
	p := mustNew(t, func(_ context.Context, n int) (int, error) { return n, nil }, opts...)
	p.Pause()
	submit(t, p, 0, 1)
	return p
}

// Submit, SubmitCancel and SubmitAll of 2, 3 and 4 to a full queue.
func TestOverflow_Submit(t *testing.T) {
	for _, c := range []struct {
		overflow workpool.Overflow
		err      error
		fates    map[int]int
	}{
		{workpool.Block, context.DeadlineExceeded, map[int]int{0: 0, 1: 1}},
		{workpool.Reject, workpool.ErrQueueFull, map[int]int{0: 0, 1: 1}},
		{workpool.DropOldest, nil, map[int]int{0: -1, 1: -1, 2: -1, 3: 3, 4: 4}},
		{workpool.DropNewest, nil, map[int]int{0: 0, 1: 1, 2: -1, 3: -1, 4: -1}},
		{workpool.CallerRuns, nil, map[int]int{0: 0, 1: 1, 2: 2, 3: 3, 4: 4}},
	} {
		for _, tells := range eitherWay {
			bubble(t, fmt.Sprintf("%v/resultFunc=%v", c.overflow, tells), func(t *testing.T) {
				opts := []workpool.Option{workpool.WithOverflow(c.overflow)}
				var mu sync.Mutex
				var results []workpool.Result[int, int]
				if tells {
					opts = append(opts, workpool.WithResultFunc(func(r workpool.Result[int, int]) {
						mu.Lock()
						defer mu.Unlock()
						results = append(results, r)
					}))
				}
				p := overflowing(t, opts...)
				ctx := limited(t, time.Second)
				require.ErrorIs(t, p.Submit(ctx, 2), c.err)
				fails(t, c.err)(p.SubmitCancel(ctx, 3))
				accepted, err := p.SubmitAll(ctx, slices.Values([]int{4}))
				require.ErrorIs(t, err, c.err)
				assert.Equal(t, c.err == nil, accepted == 1)
				require.ErrorIs(t, p.TrySubmit(t.Context(), 5), workpool.ErrQueueFull)
				synctest.Wait()
				dropped := uint64(0)
				for _, fate := range c.fates {
					if fate < 0 {
						dropped++
					}
				}
				s := p.Stats()
				assert.Equal(t, []uint64{uint64(len(c.fates)), dropped, dropped}, []uint64{s.Submitted, s.Aborted, s.Dropped})
				assert.Equal(t, 2, s.Queued)
				if !tells && c.overflow == workpool.CallerRuns {
					assert.Equal(t, workpool.Result[int, int]{Index: 2, Task: 2, Value: 2, Attempt: 1}, receive(t, p), "on no worker")
					results = append(results, workpool.Result[int, int]{Task: 2, Value: 2})
				}
				closed(t, p)
				results = append(results, collect(p)...) // none with a result function
				assert.Equal(t, c.fates, fates(t, results))
			})
		}
	}
}

// Results of dropped tasks are bounded like all others.
func TestOverflow_ADropNeedsRoomForItsResult(t *testing.T) {
	for _, overflow := range []workpool.Overflow{workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
		bubble(t, overflow.String(), func(t *testing.T) {
			p := overflowing(t, workpool.WithOverflow(overflow), workpool.WithResultBuffer(3))
			for n := 2; n < 5; n++ {
				require.NoError(t, p.Submit(t.Context(), n))
			}
			ctx := limited(t, time.Second)
			require.ErrorIs(t, p.Submit(ctx, 5), context.DeadlineExceeded)
			receive(t, p)
			require.NoError(t, p.Submit(t.Context(), 6))
			closed(t, p)
			assert.Len(t, collect(p), 5)
		})
	}
}

func TestOverflow_TasksOfMapAndStreamAreNotDropped(t *testing.T) {
	for name, run := range ways[int, int]("Map", "Stream") {
		for _, overflow := range []workpool.Overflow{workpool.Reject, workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
			bubble(t, fmt.Sprintf("%s/%v", name, overflow), func(t *testing.T) {
				p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithOverflow(overflow))
				p.Pause()
				done := make(chan error, 1)
				go func() {
					_, err := run(t.Context(), p, 1, 2, 3, 4)
					done <- err
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				for n := range 4 { // DropOldest waits, since there is nothing to drop
					if err := p.Submit(ctx, n); err != nil {
						assert.Condition(t, func() bool { return errors.Is(err, workpool.ErrQueueFull) || errors.Is(err, context.DeadlineExceeded) }, "%v", err)
					}
				}
				cancel()
				require.Empty(t, done)
				p.Resume()
				require.NoError(t, <-done)
			})
		}
	}
}

func TestOverflow_DropOldestKeepsToKeyAndPriority(t *testing.T) {
	byTens := func(n int) int { return n / 10 }
	t.Run("key", func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(3),
			workpool.WithOverflow(workpool.DropOldest), workpool.WithKey(byTens))
		p.Pause()
		submit(t, p, 1, 11, 12, 13)
		closed(t, p)
		assert.Equal(t, map[int]int{1: 1, 11: 11, 12: -1, 13: 13}, fates(t, collect(p)), "behind 11 of the same key")
	})
	t.Run("priority", func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(2),
			workpool.WithOverflow(workpool.DropOldest), workpool.WithPriority(sign))
		p.Pause()
		submit(t, p, -1, -2, 1, 2, 3)
		closed(t, p)
		assert.Equal(t, []int{1}, dropped(collect(p)))
	})
}

// dropped returns the tasks that were dropped.
func dropped(results []workpool.Result[int, int]) (tasks []int) {
	for _, r := range results {
		if r.Err != nil {
			tasks = append(tasks, r.Task)
		}
	}
	return tasks
}

func TestOverflow_FromInsideAHandler(t *testing.T) {
	for _, overflow := range []workpool.Overflow{workpool.Block, workpool.Reject, workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
		bubble(t, overflow.String(), func(t *testing.T) {
			var p *workpool.Pool[int, int]
			p = mustNew(t, func(ctx context.Context, n int) (int, error) {
				if n == 0 {
					return 0, p.Submit(ctx, 1)
				}
				return n, nil
			}, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithOverflow(overflow))
			require.NoError(t, p.Submit(t.Context(), 0))
			require.NoError(t, p.Wait(t.Context()))
			closed(t, p)
			results := collect(p)
			switch overflow {
			case workpool.Reject:
				require.Len(t, results, 1)
				require.ErrorIs(t, results[0].Err, workpool.ErrQueueFull)
			case workpool.DropNewest:
				require.Len(t, results, 2)
				require.ErrorIs(t, results[0].Err, workpool.ErrDropped)
			default:
				require.Len(t, results, 2)
				assert.Equal(t, 1, results[0].Value)
			}
		})
	}
}

func TestOverflow_NamesOfConstants(t *testing.T) {
	var names []string
	for o := workpool.Block; o <= workpool.CallerRuns+1; o++ {
		names = append(names, o.String())
	}
	assert.Equal(t, []string{"Block", "Reject", "DropOldest", "DropNewest", "CallerRuns", "Overflow(5)"}, names)
}

func TestSubmitCancel_CancelsARunningTaskAndARetry(t *testing.T) {
	for name, c := range map[string]struct {
		handler workpool.Handler[int, int]
		want    []error
	}{
		"running": {func(ctx context.Context, _ int) (int, error) { return untilEnd(ctx) }, []error{context.Canceled}},
		"parked":  {after(2, time.Hour), []error{context.Canceled, errNotYet}},
	} {
		bubble(t, name, func(t *testing.T) {
			begin := time.Now()
			p := mustNew(t, c.handler, workpool.WithWorkers(2))
			cancel, err := p.SubmitCancel(t.Context(), 1)
			require.NoError(t, err)
			synctest.Wait()
			cancel()
			r := receive(t, p)
			fails(t, c.want...)(r.Value, r.Err)
			assert.NotZero(t, r.Worker)
			assert.Equal(t, 1, r.Attempt)
			closed(t, p)
			assert.Zero(t, time.Since(begin))
		})
	}
}

func TestSubmitCancel_LeavesOtherTasksAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1))
		var cancels []func()
		for n := range 1000 {
			cancel, err := p.SubmitCancel(t.Context(), n)
			require.NoError(t, err)
			cancels = append(cancels, cancel)
			require.NoError(t, receive(t, p).Err)
			require.NoError(t, p.Submit(t.Context(), n)) // perhaps on the same job
			for _, late := range cancels[max(0, n-3):] {
				late()
			}
			require.NoError(t, receive(t, p).Err)
		}
	})
}

// Without a buffer a dropped task needs a receiver that waits, or the pool would
// hold more than it may.
func TestOverflow_ADropWithoutResultBufferNeedsAReceiver(t *testing.T) {
	for _, overflow := range []workpool.Overflow{workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
		bubble(t, overflow.String(), func(t *testing.T) {
			end := make(chan struct{})
			p := mustNew(t, func(_ context.Context, n int) (int, error) {
				if n == 1 {
					<-end
				}
				return n, nil
			}, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithResultBuffer(0), workpool.WithOverflow(overflow))
			require.NoError(t, p.Submit(t.Context(), 1))
			synctest.Wait()
			require.NoError(t, p.Submit(t.Context(), 2))
			ctx := limited(t, time.Second)
			require.ErrorIs(t, p.Submit(ctx, 3), context.DeadlineExceeded)
			assert.Equal(t, 2, p.Stats().Queued+p.Stats().Running+p.Stats().Undelivered)

			results := make(chan workpool.Result[int, int], 9)
			go func() {
				for r := range p.Results() {
					results <- r
				}
				close(results)
			}()
			synctest.Wait()
			require.NoError(t, p.Submit(t.Context(), 4))
			first := <-results
			switch overflow {
			case workpool.DropOldest:
				assert.Equal(t, 2, first.Task)
			default:
				assert.Equal(t, 4, first.Task)
			}
			close(end)
			closed(t, p)
			n := 1
			for range results {
				n++
			}
			assert.Equal(t, 3, n)
		})
	}
}

// Tasks that run beside the workers come again, handed in from outside and from handlers.
func TestOverflow_CallerRunsTasksThatComeAgain(t *testing.T) {
	for _, mode := range []workpool.ShutdownMode{workpool.Drain, workpool.FinishRunning, workpool.Abort} {
		for _, delay := range []time.Duration{0, time.Second} {
			for _, closeAfter := range []time.Duration{0, 500 * time.Millisecond, time.Second, 10 * time.Second} {
				synctest.Test(t, func(t *testing.T) {
					var p *workpool.Pool[int, int]
					p = mustNew(t, func(ctx context.Context, n int) (int, error) {
						if n == 1 {
							for range 5 {
								_ = p.Submit(ctx, 2)
							}
							return 1, nil
						}
						return after(3, delay)(ctx, n)
					}, workpool.WithWorkers(2), workpool.WithQueueDepth(1), workpool.WithOverflow(workpool.CallerRuns), workpool.WithShutdown(mode, 0))
					done := make(chan int)
					go func() {
						n := 0
						for r := range p.Results() {
							n++
							assert.NotZero(t, r.Task)
						}
						done <- n
					}()
					var submitters sync.WaitGroup
					for n := range 3 {
						submitters.Go(func() {
							for p.Submit(context.Background(), 1+n%2) == nil && n > 0 {
								time.Sleep(100 * time.Millisecond)
							}
						})
					}
					time.Sleep(closeAfter)
					synctest.Wait()
					require.NoError(t, p.Close())
					s := p.Stats()
					assert.Equal(t, s.Submitted, s.Succeeded+s.Failed+s.Aborted)
					assert.EqualValues(t, s.Submitted, <-done)
					submitters.Wait()
				})
			}
		}
	}
}
