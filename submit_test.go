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
		submitted := make(chan error)
		go func() { submitted <- p.Submit(context.Background(), 3) }()
		synctest.Wait()
		select {
		case err := <-submitted:
			t.Fatal("did not wait for room", err)
		default:
		}
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
			eachSequenceWay(t, func(t *testing.T, feed sequenceWay) {
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
			eachSequenceWay(t, func(t *testing.T, feed sequenceWay) {
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
