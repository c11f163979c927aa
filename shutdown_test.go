package workpool_test

import (
	"context"
	"errors"
	"fmt"
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

// obedient returns when its context ends, stubborn does not look at it. Both
// take an hour.
func obedient(ctx context.Context, n int) (int, error) { return lasting(time.Hour, n)(ctx) }

func stubborn(ctx context.Context, n int) (int, error) { return sleeping(time.Hour, n)(ctx) }

func TestRule5_ShutdownRunsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, obedient, workpool.WithWorkers(2), workpool.WithQueueDepth(4))
		submit(t, p, upTo(6)...)
		waiting := make(chan error)
		go func() { waiting <- p.Submit(context.Background(), 7) }()
		synctest.Wait()
		start := time.Now()
		ended := make(chan error)
		go func() { ended <- p.Shutdown(context.Background()) }()
		require.ErrorIs(t, <-waiting, workpool.ErrClosed, "at once")
		require.ErrorIs(t, p.Submit(t.Context(), 8), workpool.ErrClosed)
		require.ErrorIs(t, p.TrySubmit(t.Context(), 8), workpool.ErrClosed)
		require.NoError(t, <-ended)
		assert.Equal(t, 3*time.Hour, time.Since(start))
		assert.Equal(t, uint64(6), p.Stats().Succeeded)
		assert.Len(t, collect(p), 6)
	})
}

// What becomes of a running and of a queued task, and of one that waits in line, when the
// pool ends.
func TestRule5_EachWayAtTheEndOfThePool(t *testing.T) {
	for name, c := range map[string]struct {
		mode            workpool.ShutdownMode
		end             func(p *closures) error
		running, queued error
	}{
		"Drain":                      {workpool.Drain, (*closures).Close, nil, nil},
		"FinishRunning":              {workpool.FinishRunning, (*closures).Close, nil, workpool.ErrAborted},
		"Abort":                      {workpool.Abort, (*closures).Close, workpool.ErrAborted, workpool.ErrAborted},
		"Shutdown that is cut short": {workpool.Drain, func(p *closures) error { return p.Shutdown(endedContext()) }, workpool.ErrAborted, workpool.ErrAborted},
	} {
		for way, run := range ways[closure, int]() {
			bubble(t, name+"/"+way, func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithShutdown(c.mode, 0))
				call := func(ctx context.Context, p *closures, task closure) (int, error) {
					values, err := run(ctx, p, task)
					return len(values), err
				}
				running := inBackground(t.Context(), call, p, lasting(time.Second, 1))
				queued := inBackground(t.Context(), call, p, returning(2, nil))
				inLine := inBackground(t.Context(), call, p, returning(3, nil))
				err := c.end(p)
				require.ErrorIs(t, (<-running).err, c.running)
				require.ErrorIs(t, (<-queued).err, c.queued)
				refused := func(_ any, err error) {
					t.Helper()
					aborted := (way == "Map" || way == "Stream") && c.running != nil && errors.Is(err, workpool.ErrAborted) // as a whole
					assert.True(t, aborted || errors.Is(err, workpool.ErrClosed), "%v", err)
				}
				if late := <-inLine; way == "TryDo" { // is never in line
					require.ErrorIs(t, late.err, workpool.ErrQueueFull)
				} else {
					refused(late.value, late.err)
				}
				assert.Equal(t, err, p.Close())
				refused(call(t.Context(), p, catchFire))
			})
		}
	}
}

func TestRule5_ShutdownCutShort(t *testing.T) {
	for _, handler := range []workpool.Handler[int, int]{obedient, stubborn} {
		synctest.Test(t, func(t *testing.T) {
			p := mustNew(t, handler, workpool.WithWorkers(2))
			submit(t, p, upTo(5)...)
			start := time.Now()
			ctx := limited(t, time.Minute)
			err := p.Shutdown(ctx)
			assert.Equal(t, time.Minute, time.Since(start), "at once")
			assert.Equal(t, &workpool.ShutdownError{Aborted: 3, Running: 2, Cause: context.DeadlineExceeded}, err)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Same(t, err, p.Close(), "waits for what still runs")
			assert.Same(t, err, p.Shutdown(ctx))
			for _, r := range collect(p) {
				switch {
				case r.Worker == 0:
					assert.Equal(t, workpool.ErrAborted, r.Err)
				case time.Since(start) == time.Minute:
					assert.Equal(t, workpool.ErrAborted, r.Err, "the cause of the handler's context")
				default:
					assert.Equal(t, time.Hour, time.Since(start))
					assert.NoError(t, r.Err)
				}
			}
			s := p.Stats()
			assert.Equal(t, []uint64{3, 2}, []uint64{s.Aborted, s.Succeeded + s.Failed})
		})
	}
}

func TestRule5_CloseDoesWhatItIsTold(t *testing.T) {
	for _, c := range []struct {
		mode      workpool.ShutdownMode
		timeout   time.Duration
		takes     time.Duration
		succeeded uint64
		cut       bool
	}{
		{workpool.Drain, 0, 2 * time.Hour, 4, false},
		{workpool.Drain, 3 * time.Hour, 2 * time.Hour, 4, false},
		{workpool.Drain, 90 * time.Minute, 90 * time.Minute, 2, true},
		{workpool.FinishRunning, 0, time.Hour, 2, false},
		{workpool.FinishRunning, time.Minute, time.Minute, 0, true},
		{workpool.Abort, 0, 0, 0, false},
		{workpool.Abort, time.Minute, 0, 0, false},
	} {
		bubble(t, fmt.Sprint(c), func(t *testing.T) {
			p := mustNew(t, obedient, workpool.WithWorkers(2), workpool.WithShutdown(c.mode, c.timeout))
			submit(t, p, upTo(4)...)
			synctest.Wait()
			start := time.Now()
			err := p.Close()
			assert.Equal(t, c.takes, time.Since(start))
			if c.cut {
				cutShort(t, int(2-c.succeeded), 2, err, context.DeadlineExceeded)
			} else {
				require.NoError(t, err)
			}
			assert.Equal(t, err, p.Close())
			assert.Len(t, collect(p), 4)
			assert.Equal(t, c.succeeded, p.Stats().Succeeded)
		})
	}
}

func TestShutdown_AllAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, obedient, workpool.WithWorkers(1), workpool.WithShutdown(workpool.FinishRunning, time.Minute))
		submit(t, p, upTo(3)...)
		synctest.Wait()
		outcomes := make(chan error)
		for range 3 {
			go func() { outcomes <- p.Shutdown(context.Background()) }()
		}
		synctest.Wait()
		for range 3 {
			go func() { outcomes <- p.Close() }() // cuts the drain short
		}
		first := <-outcomes
		cutShort(t, 2, 1, first)
		for range 5 {
			assert.Same(t, first, <-outcomes)
		}
	})
}

func TestShutdown_EndedContextOnAnIdlePool(t *testing.T) {
	for range 1000 {
		p := mustNew(t, identity)
		require.NoError(t, p.Shutdown(endedContext()), "there is nothing to abort")
		require.NoError(t, p.Shutdown(endedContext()))
	}
}

// Whatever the moment of a Shutdown, each task is either refused or answered,
// nobody blocks, and no task runs afterwards.
func TestStress_SubmitAgainstShutdown(t *testing.T) {
	rounds := rounds(5_000, 30_000)
	for round := range rounds {
		var down, late atomic.Bool
		p, err := workpool.New(func(_ context.Context, n int) (int, error) {
			if down.Load() {
				late.Store(true)
			}
			return n, nil
		}, workpool.WithWorkers(1+round%3), workpool.WithQueueDepth(round%4), workpool.WithResultBuffer(round%5))
		require.NoError(t, err)
		var accepted, answered atomic.Int64
		var wg sync.WaitGroup
		enough, many := make(chan struct{}), rand.Int64N(20)
		if round%2 == 1 {
			many = min(many, 1) // since nobody takes the results
		}
		for range 3 {
			wg.Go(func() {
				for p.Submit(context.Background(), 1) == nil {
					if accepted.Add(1) == many {
						close(enough)
					}
				}
			})
		}
		if round%2 == 0 {
			wg.Go(func() { answered.Add(int64(len(collect(p)))) })
		}
		if many > 0 {
			<-enough
		}
		require.NoError(t, p.Shutdown(context.Background()))
		down.Store(true)
		wg.Wait()
		answered.Add(int64(len(collect(p))))
		require.Equal(t, accepted.Load(), answered.Load())
		require.False(t, late.Load(), "a task ran after Shutdown")
		require.Zero(t, p.Stats().Workers)
	}
}

// All who ask when everything has ended get one error, also where it is made of two.
func TestShutdown_AllAgreeOnTheFailureOfAResultFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithResultFunc(func(workpool.Result[closure, int]) { panic("result function") }))
		submit(t, p, sleeping(2*time.Second, 1))
		cutShort(t, 0, 1, p.Shutdown(limited(t, time.Second)))
		err := p.Shutdown(t.Context())
		cutShort(t, 0, 1, err)
		panicked(t, "result function", err)
		assert.True(t, err == p.Shutdown(t.Context()), "the same error")
		assert.True(t, err == p.Close(), "the same error")
	})
}

// Whatever comes while a worker is at the second of five tasks: each ends as it should.
func TestRule1_ATaskInTheMiddleIsInterrupted(t *testing.T) {
	type pool struct {
		*closures
		end     context.CancelFunc // of its context
		release func()             // ends the second task
	}
	mode := func(mode workpool.ShutdownMode, timeout time.Duration) []workpool.Option {
		return []workpool.Option{workpool.WithShutdown(mode, timeout)}
	}
	for name, c := range map[string]struct {
		opts []workpool.Option
		act  func(t *testing.T, p pool)
		ok   int // of the tasks; the others are aborted
	}{
		"Pause": {nil, func(t *testing.T, p pool) {
			p.Pause()
			p.release()
			synctest.Wait()
			assert.Equal(t, workpool.Stats{Queued: 3, Undelivered: 2, Submitted: 5, Succeeded: 2}, counts(p.Stats()))
			p.Resume()
			synctest.Wait()
			assert.Equal(t, 5, p.Stats().Undelivered)
		}, 5},
		"Pause and Close":         {nil, func(_ *testing.T, p pool) { p.Pause(); p.release() }, 5},
		"Pause and FinishRunning": {mode(workpool.FinishRunning, 0), func(_ *testing.T, p pool) { p.Pause(); p.release() }, 2},
		"Pause and Abort":         {mode(workpool.Abort, 0), func(_ *testing.T, p pool) { p.Pause(); p.release(); synctest.Wait() }, 2},
		"Resize up and down": {nil, func(t *testing.T, p pool) {
			require.NoError(t, p.Resize(3))
			synctest.Wait()
			assert.Equal(t, 4, p.Stats().Undelivered)
			require.NoError(t, p.Resize(1))
			p.release()
			synctest.Wait()
			assert.Equal(t, 1, p.Stats().Workers)
		}, 5},
		"Drain": {nil, func(t *testing.T, p pool) {
			go func() { assert.NoError(t, p.Close()) }()
			synctest.Wait()
			assert.Equal(t, 3, p.Stats().Queued)
			require.ErrorIs(t, p.TrySubmit(t.Context(), nil), workpool.ErrClosed)
			p.release()
		}, 5},
		"FinishRunning": {mode(workpool.FinishRunning, 0), func(t *testing.T, p pool) {
			go func() { assert.NoError(t, p.Close()) }()
			synctest.Wait()
			assert.EqualValues(t, 3, p.Stats().Aborted)
			p.release()
		}, 2},
		"Abort":                         {mode(workpool.Abort, 0), func(t *testing.T, p pool) { assert.NoError(t, p.Close()) }, 1},
		"timeout":                       {mode(workpool.Drain, time.Second), func(t *testing.T, p pool) { cutShort(t, 3, 1, p.Close()) }, 1},
		"Shutdown with an ended ctx":    {nil, func(t *testing.T, p pool) { cutShort(t, 3, 1, p.Shutdown(endedContext())) }, 1},
		"the end of the pool's context": {nil, func(_ *testing.T, p pool) { p.end() }, 1},
		"Wait": {nil, func(t *testing.T, p pool) {
			err := p.Wait(endedContext())
			require.ErrorIs(t, err, context.Canceled)
			assert.ErrorContains(t, err, "tasks: 3 queued, 1 running")
			time.AfterFunc(time.Second, p.release)
			assert.NoError(t, p.Wait(t.Context()))
			assert.Equal(t, 5, p.Stats().Undelivered)
		}, 5},
	} {
		bubble(t, name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			end := make(chan struct{})
			p := pool{newClosures(t, append(c.opts, workpool.WithWorkers(1), workpool.WithContext(ctx))...), cancel, sync.OnceFunc(func() { close(end) })}
			waits := func(ctx context.Context) (int, error) {
				select {
				case <-end:
					return 0, nil
				case <-ctx.Done():
					return 0, context.Cause(ctx)
				}
			}
			short := returning(1, nil)
			inOneGo(t, p.closures, short, waits, short, short, short)
			require.Equal(t, 3, p.Stats().Queued)
			c.act(t, p)
			_ = p.Close()
			ok := 0
			for _, r := range collect(p.closures) {
				if r.Err == nil {
					ok++
					continue
				}
				assert.ErrorIs(t, r.Err, workpool.ErrAborted)
				assert.Equal(t, 1, r.Attempt)
			}
			assert.Equal(t, c.ok, ok)
			s := p.Stats()
			assert.EqualValues(t, 5, s.Succeeded+s.Failed+s.Aborted)
			assert.Zero(t, s.Queued+s.Running+s.Undelivered+s.Workers)
		})
	}
}

// The pool closes while an input is blocked, with tasks handed in. What was accepted
// ends, and the input is told with its next task.
func TestShutdown_WhileAnInputIsBlocked(t *testing.T) {
	eachOf(t, modes, func(t *testing.T, mode workpool.ShutdownMode) {
		for _, feed := range sequenceWays {
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
		}
	})
}

func TestWait_ReturnsWhenAllIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2))
		require.NoError(t, p.Wait(t.Context()), "nothing to wait for")
		for round := range 3 {
			begin := time.Now()
			submitN(t, p, 6, napping)
			p.DoChan(t.Context(), napping)
			require.NoError(t, p.Wait(t.Context()))
			assert.Equal(t, 4*time.Second, time.Since(begin), "round %d", round)
			stats := p.Stats()
			assert.Zero(t, stats.Queued+stats.Running)
			assert.Equal(t, 6*(1+round), stats.Undelivered, "receivers are not waited for")
		}
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
		fails(t, context.DeadlineExceeded, reason)(0, p.Wait(ctx))
		assert.Equal(t, time.Second, time.Since(begin))
		release()
		require.NoError(t, p.Wait(t.Context()), "the pool goes on")
		closed(t, p)
		require.NoError(t, p.Wait(t.Context()), "nothing runs in a closed pool")
	})
}

// Several wait at once, during a shutdown.
func TestWait_DuringAShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		submitN(t, p, 3, napping)
		begin := time.Now()
		var all sync.WaitGroup
		for _, wait := range []func(context.Context) error{p.Shutdown, p.Wait, p.Wait, p.Wait} {
			all.Go(func() {
				assert.NoError(t, wait(t.Context()))
				assert.Equal(t, 3*time.Second, time.Since(begin))
			})
			synctest.Wait()
		}
		all.Wait()
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
	})
}

// When cancel has returned, nothing is accepted, nothing begins, and the contexts of running
// handlers have ended.
func TestWithContext_ItsEndIsNoticedAtOnce(t *testing.T) {
	for way, run := range callers {
		for _, bound := range eitherWay {
			bubble(t, fmt.Sprintf("%s/bound=%v", way, bound), func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(context.Background())
				p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(3), workpool.WithContext(ctx))
				own := context.Background()
				if bound {
					own = limited(t, time.Hour)
				}
				contexts := make(chan context.Context, 2)
				release := make(chan struct{})
				ran := new(atomic.Int32)
				var all sync.WaitGroup
				hand := func(n int, task closure) {
					for range n {
						all.Go(func() { _ = run(own, p, task) })
					}
					synctest.Wait()
				}
				hand(2, func(ctx context.Context) (int, error) {
					contexts <- ctx
					return until(release)(ctx)
				})
				hand(4, counted(ran)) // one of them in line
				s := p.Stats()
				require.Equal(t, []int{2, 3, 1}, []int{s.Running, s.Queued, s.Waiting})
				cause := errors.New("the machine goes down")
				cancel(cause)
				for range 2 {
					ctx := <-contexts
					assert.Error(t, ctx.Err())
					fails(t, workpool.ErrAborted, cause)(0, context.Cause(ctx))
				}
				assert.ErrorIs(t, p.Submit(context.Background(), counted(ran)), workpool.ErrClosed)
				assert.ErrorIs(t, p.TrySubmit(context.Background(), counted(ran)), workpool.ErrClosed)
				fails(t, workpool.ErrClosed)(p.Do(context.Background(), counted(ran)))
				s = p.Stats()
				assert.True(t, s.Closed)
				assert.Zero(t, s.Queued+s.Waiting)
				close(release)
				all.Wait()
				assert.Zero(t, ran.Load())
				aborted := 0
				for _, r := range collect(p) { // which ends without a Shutdown
					if r.Err != nil {
						fails(t, workpool.ErrAborted, cause)(0, r.Err)
						aborted++
					}
				}
				assert.Equal(t, way == "Submit" || way == "SubmitCancel", aborted == 3)
				cutShort(t, 3, 2, p.Close(), cause)
				late := newClosures(t, workpool.WithContext(ctx))
				assert.ErrorIs(t, late.Submit(t.Context(), counted(ran)), workpool.ErrClosed, "it had ended before")
			})
		}
	}
}

// The goroutine that aborts the pool may be faster than New.
func TestWithContext_ThatHasEndedBeforeNew(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2000 {
		p, err := workpool.New(square, workpool.WithContext(ended))
		require.NoError(t, err)
		require.ErrorIs(t, p.Submit(t.Context(), 1), workpool.ErrClosed)
		require.NoError(t, p.Close(), "nothing was accepted")
	}
}

// It ends a pool that is being closed, too.
func TestWithContext_ItsEndAbortsAPoolThatIsClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithContext(ctx))
		ran := new(atomic.Int32)
		require.NoError(t, p.Submit(t.Context(), untilEnd))
		submitN(t, p, 5, counted(ran))
		outcome := make(chan error)
		go func() { outcome <- p.Close() }()
		synctest.Wait()
		cancel()
		cutShort(t, 5, 1, <-outcome, context.Canceled)
		assert.Zero(t, ran.Load())
		assert.Len(t, collect(p), 6)
	})
}

func TestShutdownError_CountsEachTaskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithShutdown(workpool.FinishRunning, time.Second),
			workpool.WithResultFunc(func(workpool.Result[closure, int]) { <-release }))
		free := occupy(t, p, 1)
		submitN(t, p, 10, returning(0, nil))
		var cut *workpool.ShutdownError
		require.ErrorAs(t, p.Close(), &cut)
		assert.Equal(t, 10, cut.Aborted)
		free()
		close(release)
		_ = p.Close()
	})
}

// Close ends only tasks for which the result function is still to be called. The earlier
// Shutdown has kept its promise.
func TestShutdown_CloseFindsNothingToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithShutdown(workpool.FinishRunning, 0),
			workpool.WithResultFunc(func(workpool.Result[closure, int]) { <-release }))
		free := occupy(t, p, 1)
		for range 3 {
			cancel, err := p.SubmitCancel(t.Context(), returning(0, nil))
			require.NoError(t, err)
			cancel()
		}
		ended := make(chan error, 2)
		go func() { ended <- p.Shutdown(context.Background()) }()
		synctest.Wait()
		go func() { ended <- p.Close() }()
		synctest.Wait()
		free()
		close(release)
		require.NoError(t, <-ended)
		require.NoError(t, <-ended)
	})
}
