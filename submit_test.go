package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults())
		release := occupy(t, p, 1)
		submit(t, p, napping)
		submitted := make(chan error, 1)
		hand := func(ctx context.Context) {
			go func() { submitted <- p.Submit(ctx, napping) }()
			synctest.Wait()
			require.Empty(t, submitted)
		}
		hand(context.Background())
		release()
		require.NoError(t, <-submitted)

		ctx, cancel := context.WithCancelCause(t.Context())
		hand(ctx)
		because := errors.New("no longer needed")
		cancel(because)
		err := <-submitted
		fails(t, context.Canceled, because, workpool.ErrQueueFull)(0, err)
		require.ErrorContains(t, err, "tasks: 1 queued, 1 running")
		require.ErrorIs(t, p.Submit(ctx, napping), context.Canceled)

		hand(context.Background())
		closed(t, p)
		require.ErrorIs(t, <-submitted, workpool.ErrClosed)
	})
}

// The room and the end of the context come at the same time: the task is either accepted
// or refused.
func TestRule3_ContextThatEndsAsRoomComes(t *testing.T) {
	eachOf(t, upTo(200), func(t *testing.T, i int) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		release := occupy(t, p, 1)
		ctx, cancel := context.WithCancel(t.Context())
		submitted := make(chan error)
		go func() { submitted <- p.Submit(ctx, returning(2, nil)) }()
		synctest.Wait()
		cancel()
		if i == 0 {
			synctest.Wait() // so that the end comes first
		}
		release()
		accepted := uint64(1)
		if err := <-submitted; err == nil {
			assert.NotZero(t, i, "an ended context never enqueues")
			accepted++
		} else {
			require.ErrorIs(t, err, context.Canceled)
		}
		synctest.Wait()
		assert.Equal(t, accepted, p.Stats().Submitted)
		require.ErrorIs(t, p.Submit(ctx, returning(3, nil)), context.Canceled)
		require.NoError(t, p.TrySubmit(t.Context(), returning(4, nil)), "the room that it left is free")
	})
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
		succeeds(t)(p.SubmitCancel(ctx, 0))
		cancel()
		stop, err := p.SubmitCancel(ctx, 0)
		require.ErrorIs(t, err, context.Canceled)
		stop()
		require.ErrorIs(t, p.TrySubmit(ctx, 0), context.Canceled)
		require.NoError(t, p.TrySubmit(t.Context(), 1))
		closed(t, p)
		for _, r := range collect(p) {
			gives(t, []string{"of the task", "of the pool"}[r.Task])(r.Value, r.Err)
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
	eachShape(t, func(t *testing.T, opts []workpool.Option) {
		p := mustNew(t, square, opts...)
		go func() {
			gives(t, 300)(p.SubmitAll(t.Context(), count(300)))
			assert.NoError(t, p.Shutdown(t.Context()))
		}()
		results := byIndex(t, collect(p))
		require.Len(t, results, 300)
		for i, r := range results {
			assert.Equal(t, []int{i, i * i}, []int{r.Task, r.Value}, "accepted in order")
		}
		synctest.Wait()
	})
}

func TestSubmitAll_TakesNoMoreThanThereIsRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, stubborn, workpool.WithWorkers(2), workpool.WithQueueDepth(3))
		var pulled atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan outcome, 1)
		go func() {
			accepted, err := p.SubmitAll(ctx, numbers(func() { pulled.Add(1) }))
			done <- outcome{value: accepted, err: err}
		}()
		synctest.Wait()
		assert.Equal(t, int32(6), pulled.Load(), "two run, three are queued, one waits")
		cancel()
		got := <-done
		assert.Equal(t, 5, got.value)
		require.ErrorIs(t, got.err, context.Canceled)
		assert.Equal(t, int32(6), pulled.Load())
		closed(t, p)
		assert.Equal(t, uint64(5), p.Stats().Succeeded)
	})
}

func TestSubmitAll_StopsWhenThePoolCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, stubborn, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		time.AfterFunc(150*time.Minute, func() { assert.NoError(t, p.Shutdown(context.Background())) })
		for _, want := range []int{3, 0} {
			accepted, err := p.SubmitAll(t.Context(), count(100))
			require.ErrorIs(t, err, workpool.ErrClosed)
			assert.Equal(t, want, accepted)
		}
		closed(t, p)
		assert.Equal(t, uint64(3), p.Stats().Succeeded)
	})
}

// A Goexit ends the caller.
func TestSubmitAll_PanicAndGoexitOfTheSequence(t *testing.T) {
	for exits, end := range map[bool]func(){false: func() { panic(errFailed) }, true: runtime.Goexit} {
		synctest.Test(t, func(t *testing.T) {
			p := mustNew(t, square)
			var caller sync.WaitGroup
			caller.Go(func() {
				accepted, err := p.SubmitAll(t.Context(), func(yield func(int) bool) {
					_ = yield(1) && yield(2)
					end()
				})
				assert.False(t, exits, "Goexit ends the goroutine that calls it")
				panicked(t, errFailed, err)
				assert.Equal(t, 2, accepted)
			})
			caller.Wait()
			closed(t, p)
			assert.Len(t, collect(p), 2)
		})
	}
}

// Each task has the Index that says when it was accepted, whichever way it comes, also
// beside inputs that take their time.
func TestRule1_IndexIsTheOrderOfAcceptance(t *testing.T) {
	ways := maps.Clone(waysIn)
	maps.DeleteFunc(ways, func(name string, _ wayIn) bool { // whose Index is the position
		return slices.Contains([]string{"Map", "Stream", "Group"}, name)
	})
	eachNamed(t, ways, func(t *testing.T, _ string, submit wayIn) {
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
		waits := []func(){endOne, endTwo, release}
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
			expected = append(expected, uint64(1+n))
		}
		for _, wait := range waits {
			wait()
		}
		closed(t, p)
		assert.Equal(t, upTo(30), ran)
		assert.Equal(t, expected, indexes)
	})
}

// While an input is blocked, all room that there is can be had by others.
func TestRule2_RoomBesideABlockedInputIsThereForOthers(t *testing.T) {
	for _, c := range []struct{ workers, depth, busy, fed int }{
		{1, 0, 0, 0}, {1, 0, 1, 0}, {2, 0, 1, 0}, {2, 0, 0, 1}, {1, 1, 1, 0}, {1, 1, 1, 1}, {2, 2, 2, 1}, {2, 2, 1, 3}, {1, 128, 1, 70}, {2, 128, 2, 128},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			eachNamed(t, sequenceWays, func(t *testing.T, _ string, feed sequenceWay) {
				p := newClosures(t, workpool.WithWorkers(c.workers), workpool.WithQueueDepth(c.depth), workpool.WithoutResults())
				release := make(chan struct{})
				submitN(t, p, c.busy, until(release))
				tasks, end := feeding(t, p, feed)
				for range c.fed {
					tasks <- until(release)
				}
				synctest.Wait()
				fill(t, p, c.depth+c.workers-c.busy-c.fed, until(release))
				synctest.Wait()
				s := p.Stats()
				assert.Equal(t, []int{c.depth, c.workers, c.depth + c.workers}, []int{s.Queued, s.Running, int(s.Submitted)})
				assert.ErrorIs(t, p.Wait(limited(t, time.Second)), context.DeadlineExceeded)
				close(release)
				synctest.Wait()
				require.NoError(t, p.Wait(t.Context()))
				end()
			})
		})
	}
}

// Cancelled tasks leave no more results behind than others.
func TestRule2_CancelledTasksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithResultBuffer(1))
		release := occupy(t, p, 1)
		ctx, giveUp := context.WithCancel(t.Context())
		var loop sync.WaitGroup
		accepted := 1
		loop.Go(func() {
			for ; ; accepted++ {
				cancel, err := p.SubmitCancel(ctx, returning(1, nil))
				if err != nil {
					return
				}
				cancel()
			}
		})
		synctest.Wait()
		s := p.Stats()
		assert.LessOrEqual(t, s.Queued+s.Running+s.Undelivered, 2+1+1)
		giveUp()
		loop.Wait()
		release()
		closed(t, p)
		cancelled := 0
		for _, r := range collect(p) {
			if errors.Is(r.Err, context.Canceled) {
				cancelled++
			}
		}
		assert.Equal(t, accepted-1, cancelled)
	})
}

// Without a receiver a pool takes exactly as much as it may hold, and one more with each
// result that is received.
func TestRule2_HoldsExactlyWhatItMay(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		for _, depth := range []int{0, 1, 4, 9} {
			eachOf(t, []int{0, 1, 3, 7}, func(t *testing.T, buffer int) {
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
					fill(t, p, 0, returning(0, nil))
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
	eachOf(t, []int{0, 1, 5}, func(t *testing.T, waiting int) {
		const depth = 4
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(depth), workpool.WithoutResults())
		step := make(chan struct{})
		task := until(step)
		roomFor := func(n int) {
			t.Helper()
			synctest.Wait()
			fill(t, p, n, task)
			require.Equal(t, depth, p.Stats().Queued)
		}
		p.Pause()
		roomFor(depth)
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
				roomFor(1)
			} else {
				roomFor(0)
			}
			step <- struct{}{}
		}
		synctest.Wait()
		require.NoError(t, p.Resize(3))
		for range 3 {
			require.NoError(t, p.TrySubmit(t.Context(), task))
		}
		roomFor(0)
		close(step)
		submitters.Wait()
	})
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
		assert.NotContains(t, m, r.Task, "answered twice")
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
	p := mustNew(t, identity, append([]workpool.Option{workpool.WithWorkers(1), workpool.WithQueueDepth(2)}, opts...)...)
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
		dropped  uint64
	}{
		{workpool.Block, context.DeadlineExceeded, map[int]int{0: 0, 1: 1}, 0},
		{workpool.Reject, workpool.ErrQueueFull, map[int]int{0: 0, 1: 1}, 0},
		{workpool.DropOldest, nil, map[int]int{0: -1, 1: -1, 2: -1, 3: 3, 4: 4}, 3},
		{workpool.DropNewest, nil, map[int]int{0: 0, 1: 1, 2: -1, 3: -1, 4: -1}, 3},
		{workpool.CallerRuns, nil, map[int]int{0: 0, 1: 1, 2: 2, 3: 3, 4: 4}, 0},
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
				fill(t, p, 0, 5)
				synctest.Wait()
				s := p.Stats()
				assert.Equal(t, []uint64{uint64(len(c.fates)), c.dropped, c.dropped}, []uint64{s.Submitted, s.Aborted, s.Dropped})
				assert.Equal(t, 2, s.Queued)
				if !tells && c.overflow == workpool.CallerRuns {
					results = append(results, receive(t, p))
					assert.Equal(t, workpool.Result[int, int]{Index: 2, Task: 2, Value: 2, Attempt: 1}, results[0], "on no worker")
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
	eachOf(t, overflows[2:], func(t *testing.T, overflow workpool.Overflow) {
		p := overflowing(t, workpool.WithOverflow(overflow), workpool.WithResultBuffer(3))
		submit(t, p, 2, 3, 4)
		require.ErrorIs(t, p.Submit(limited(t, time.Second), 5), context.DeadlineExceeded)
		receive(t, p)
		submit(t, p, 6)
		closed(t, p)
		assert.Len(t, collect(p), 5)
	})
}

func TestOverflow_TasksOfMapAndStreamAreNotDropped(t *testing.T) {
	for name, run := range ways[int, int]("Map", "Stream") {
		t.Run(name, func(t *testing.T) {
			eachOf(t, overflows[1:], func(t *testing.T, overflow workpool.Overflow) {
				p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithOverflow(overflow))
				p.Pause()
				done := make(chan error, 1)
				go func() {
					_, err := run(t.Context(), p, 1, 2, 3, 4)
					done <- err
				}()
				synctest.Wait()
				ctx := limited(t, time.Second)
				for n := range 4 { // DropOldest waits, since there is nothing to drop
					if err := p.Submit(ctx, n); err != nil {
						assert.True(t, errors.Is(err, workpool.ErrQueueFull) || errors.Is(err, context.DeadlineExceeded), "%v", err)
					}
				}
				require.Empty(t, done)
				p.Resume()
				require.NoError(t, <-done)
			})
		})
	}
}

func TestOverflow_DropOldestKeepsToKeyAndPriority(t *testing.T) {
	byTens := workpool.WithKey(func(n int) int { return n / 10 })
	for _, c := range []struct {
		option  workpool.Option
		depth   int
		tasks   []int
		dropped int
	}{
		{byTens, 3, []int{1, 11, 12, 13}, 12}, // behind 11 of the same key
		{workpool.WithPriority(sign), 2, []int{-1, -2, 1, 2, 3}, 1},
	} {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(c.depth), workpool.WithOverflow(workpool.DropOldest), c.option)
		p.Pause()
		submit(t, p, c.tasks...)
		closed(t, p)
		for task, fate := range fates(t, collect(p)) {
			assert.Equal(t, task == c.dropped, fate == -1 && task != -1, task)
		}
		assert.Equal(t, uint64(len(c.tasks)-1), p.Stats().Succeeded)
	}
}

func TestOverflow_FromInsideAHandler(t *testing.T) {
	eachOf(t, overflows, func(t *testing.T, overflow workpool.Overflow) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithOverflow(overflow))
		submit(t, p, func(ctx context.Context) (int, error) { return 0, p.Submit(ctx, returning(1, nil)) })
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

func TestOverflow_NamesOfConstants(t *testing.T) {
	var names []string
	for o := workpool.Block; o <= workpool.CallerRuns+1; o++ {
		names = append(names, o.String())
	}
	assert.Equal(t, []string{"Block", "Reject", "DropOldest", "DropNewest", "CallerRuns", "Overflow(5)"}, names)
}

func TestSubmitCancel_CancelsARunningTaskAndARetry(t *testing.T) {
	for name, c := range map[string]struct {
		task closure
		want []error
	}{
		"running": {untilEnd, []error{context.Canceled}},
		"parked":  {returning(0, workpool.RetryAfter(time.Hour, errNotYet)), []error{context.Canceled, errNotYet}},
	} {
		bubble(t, name, func(t *testing.T) {
			begin := time.Now()
			p := newClosures(t, workpool.WithWorkers(2))
			cancel, err := p.SubmitCancel(t.Context(), c.task)
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
			submit(t, p, n) // perhaps on the same job
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
	eachOf(t, overflows[2:], func(t *testing.T, overflow workpool.Overflow) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithResultBuffer(0), workpool.WithOverflow(overflow))
		release := occupy(t, p, 1)
		submit(t, p, returning(2, nil))
		require.ErrorIs(t, p.Submit(limited(t, time.Second), returning(3, nil)), context.DeadlineExceeded)
		assert.Equal(t, 2, p.Stats().Queued+p.Stats().Running+p.Stats().Undelivered)
		results := make(chan workpool.Result[closure, int], 9)
		go func() {
			for r := range p.Results() {
				results <- r
			}
			close(results)
		}()
		synctest.Wait()
		submit(t, p, returning(4, nil))
		first := <-results
		assert.Equal(t, map[bool]uint64{true: 1, false: 2}[overflow == workpool.DropOldest], first.Index)
		release()
		closed(t, p)
		synctest.Wait()
		assert.Len(t, results, 2)
	})
}

// Tasks that run beside the workers come again, handed in from outside and from handlers.
func TestOverflow_CallerRunsTasksThatComeAgain(t *testing.T) {
	for _, mode := range modes {
		for _, delay := range []time.Duration{0, time.Second} {
			eachOf(t, []time.Duration{0, 500 * time.Millisecond, time.Second, 10 * time.Second}, func(t *testing.T, closeAfter time.Duration) {
				p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
					if n != 1 {
						return after(3, delay)(ctx, n)
					}
					for range 5 {
						_ = p.Submit(ctx, 2)
					}
					return 1, nil
				}, workpool.WithWorkers(2), workpool.WithQueueDepth(1), workpool.WithOverflow(workpool.CallerRuns), workpool.WithShutdown(mode, 0))
				done := make(chan int)
				go func() { done <- len(collect(p)) }()
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
				assertSum(t, p.Stats())
				assert.EqualValues(t, p.Stats().Submitted, <-done)
				submitters.Wait()
			})
		}
	}
}

// A program may end its context and close its pool at the same time.
func TestRule5_AClosedPoolSaysSoWithAnEndedContext(t *testing.T) {
	p := newClosures(t)
	closed(t, p)
	for name, run := range ways[closure, int]() {
		t.Run(name, func(t *testing.T) {
			_, err := run(endedContext(), p, returning(1, nil))
			require.ErrorIs(t, err, workpool.ErrClosed)
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

func TestSubmitAll_SequenceThatPanicsAfterATaskWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithOverflow(workpool.Reject))
		free := occupy(t, p, 1)
		_, err := p.SubmitAll(t.Context(), func(yield func(closure) bool) {
			yield(returning(0, nil))
			panic("on fire")
		})
		require.ErrorIs(t, err, workpool.ErrQueueFull)
		panicked(t, "on fire", err)
		free()
	})
}
