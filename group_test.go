package workpool_test

import (
	"context"
	"errors"
	"fmt"
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

type group = workpool.Group[closure, int]

func TestGroup_WaitReturnsTheValuesInOrder(t *testing.T) {
	for _, workers := range []int{1, 3, 64} {
		for _, depth := range []int{0, 2, 1000} {
			for _, tasks := range []int{0, 1, 100} {
				bubble(t, fmt.Sprintf("workers=%d/depth=%d/tasks=%d", workers, depth, tasks), func(t *testing.T) {
					p := mustNew(t, func(_ context.Context, n int) (int, error) {
						time.Sleep(time.Duration(n%7) * time.Second)
						return n * n, nil
					}, workpool.WithWorkers(workers), workpool.WithQueueDepth(depth))
					g := p.Group(t.Context())
					var want []int
					for i := range tasks {
						require.NoError(t, g.Submit(i))
						want = append(want, i*i)
					}
					gives(t, want)(g.Wait())
					closed(t, p)
					assert.Empty(t, collect(p), "a group answers to its caller alone")
				})
			}
		}
	}
}

func TestGroup_WaitMayBeCalledAgain(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want []int
	}{"all well": {nil, []int{1, 2}}, "an error": {errFailed, nil}} {
		bubble(t, name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			p := newClosures(t)
			g := p.Group(ctx)
			begin := make(chan struct{})
			require.NoError(t, g.Submit(returning(1, nil)))
			require.NoError(t, g.Submit(func(context.Context) (int, error) {
				<-begin
				return 2, c.err
			}))
			var waits sync.WaitGroup
			wait := func() {
				values, err := g.Wait()
				assert.Equal(t, c.err, err)
				assert.Equal(t, c.want, values)
			}
			for range 3 {
				waits.Go(wait)
			}
			synctest.Wait()
			close(begin)
			waits.Wait()
			wait()
			cancel(errors.New("too late"))
			wait() // what has ended has ended
		})
	}
}

func TestGroup_TheFirstErrorCancelsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(10))
		g := p.Group(t.Context())
		var cause error
		ran := new(atomic.Int32)
		require.NoError(t, g.Submit(func(ctx context.Context) (int, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			time.Sleep(time.Second) // Wait waits for it
			return 0, nil
		}))
		require.NoError(t, g.Submit(func(context.Context) (int, error) {
			time.Sleep(time.Second)
			return 0, errFailed
		}))
		for range 5 {
			require.NoError(t, g.Submit(counted(ran)))
		}
		begin := time.Now()
		values, err := g.Wait()
		assert.Equal(t, 2*time.Second, time.Since(begin))
		assert.True(t, err == errFailed, "the error itself: %v", err)
		assert.Nil(t, values)
		assert.Equal(t, errFailed, cause)
		assert.Zero(t, ran.Load())
		closed(t, p)
		assert.Equal(t, uint64(5), p.Stats().Cancelled)
	})
}

func TestGroup_SubmitAfterTheFirstErrorSaysWhy(t *testing.T) {
	cause := errors.New("not needed any more")
	for name, test := range map[string]struct {
		end  func(t *testing.T, p *closures, g *group, cancel context.CancelCauseFunc)
		want error
	}{
		"an error": {func(t *testing.T, _ *closures, g *group, _ context.CancelCauseFunc) {
			require.NoError(t, g.Submit(returning(0, errFailed)))
		}, errFailed},
		"a panic": {func(t *testing.T, _ *closures, g *group, _ context.CancelCauseFunc) {
			require.NoError(t, g.Submit(func(context.Context) (int, error) { panic(errFailed) }))
		}, errFailed},
		"a Goexit": {func(t *testing.T, _ *closures, g *group, _ context.CancelCauseFunc) {
			require.NoError(t, g.Submit(exit))
		}, workpool.ErrGoexit},
		"the context": {func(_ *testing.T, _ *closures, _ *group, cancel context.CancelCauseFunc) {
			cancel(cause)
		}, cause},
		"the pool": {func(t *testing.T, p *closures, _ *group, _ context.CancelCauseFunc) {
			closed(t, p)
		}, workpool.ErrClosed},
		"an abort": {func(_ *testing.T, p *closures, g *group, _ context.CancelCauseFunc) {
			_ = g.Submit(untilEnd)
			synctest.Wait()
			_ = p.Shutdown(endedContext())
		}, workpool.ErrClosed},
		"Wait": {func(t *testing.T, _ *closures, g *group, _ context.CancelCauseFunc) {
			_, err := g.Wait()
			require.NoError(t, err)
		}, workpool.ErrClosed},
	} {
		bubble(t, name, func(t *testing.T) {
			p := newClosures(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			g := p.Group(ctx)
			test.end(t, p, g, cancel)
			synctest.Wait()
			refused := p.Stats().Refused
			err := g.Submit(returning(1, nil))
			assert.ErrorIs(t, err, workpool.ErrClosed)
			assert.ErrorIs(t, err, test.want)
			assert.Equal(t, refused+1, p.Stats().Refused)
			_, _ = g.Wait()
			_ = p.Close()
		})
	}
}

// A submitter that waits for room is told at once.
func TestGroup_TheFirstErrorEndsASubmitThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0))
		release := occupy(t, p, 1)
		g := p.Group(t.Context())
		require.NoError(t, g.Submit(func(context.Context) (int, error) {
			time.Sleep(time.Second)
			return 0, errFailed
		}))
		begin := time.Now()
		release2 := make(chan struct{})
		go func() { _, _ = p.Do(t.Context(), until(release2)) }() // the room that comes goes to it
		synctest.Wait()
		err := g.Submit(returning(1, nil))
		assert.Equal(t, time.Second, time.Since(begin))
		assert.ErrorIs(t, err, workpool.ErrClosed)
		assert.ErrorIs(t, err, errFailed)
		assert.Zero(t, p.Stats().Waiting)
		_, err = g.Wait()
		assert.Equal(t, errFailed, err)
		release()
		close(release2)
	})
}

// However a task of a group ends without having run, it is an error of the group.
func TestGroup_ADroppedTaskEndsTheGroup(t *testing.T) {
	for _, overflow := range []workpool.Overflow{workpool.DropNewest, workpool.DropOldest} {
		bubble(t, overflow.String(), func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithOverflow(overflow))
			g := p.Group(t.Context())
			require.NoError(t, g.Submit(untilEnd))
			synctest.Wait()
			require.NoError(t, g.Submit(returning(1, nil)))
			require.NoError(t, g.Submit(returning(1, nil)))
			synctest.Wait()
			err := g.Submit(returning(1, nil))
			assert.ErrorIs(t, err, workpool.ErrClosed)
			assert.ErrorIs(t, err, workpool.ErrDropped)
			fails(t, workpool.ErrDropped)(g.Wait())
			closed(t, p)
			assert.Equal(t, uint64(1), p.Stats().Dropped)
		})
	}
}

func TestGroup_OverflowsAsThePoolDoes(t *testing.T) {
	for _, c := range []struct {
		overflow workpool.Overflow
		err      error // of the second task; the third comes when there is room
		waits    time.Duration
		values   []int
	}{
		{workpool.Reject, workpool.ErrQueueFull, 0, []int{1, 3}}, // which is no error of the group
		{workpool.CallerRuns, nil, 0, []int{1, 2, 3}},
		{workpool.Block, nil, time.Second, []int{1, 2, 3}},
	} {
		bubble(t, c.overflow.String(), func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithOverflow(c.overflow))
			release := occupy(t, p, 1)
			g := p.Group(t.Context())
			require.NoError(t, g.Submit(returning(1, nil)))
			time.AfterFunc(time.Second, release)
			begin := time.Now()
			assert.ErrorIs(t, g.Submit(func(ctx context.Context) (int, error) {
				info, _ := workpool.InfoFrom(ctx)
				assert.Equal(t, c.overflow == workpool.CallerRuns, info.Worker == 0)
				return 2, nil
			}), c.err)
			assert.Equal(t, c.waits, time.Since(begin))
			time.Sleep(2 * time.Second)
			require.NoError(t, g.Submit(returning(3, nil)))
			gives(t, c.values)(g.Wait())
		})
	}
}

func TestGroup_TheEndOfItsContextEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		ctx := limited(t, time.Second)
		g := p.Group(ctx)
		require.NoError(t, g.Submit(untilEnd))
		ran := new(atomic.Int32)
		require.NoError(t, g.Submit(counted(ran)))
		fails(t, context.DeadlineExceeded)(g.Wait())
		assert.Zero(t, ran.Load())
	})
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		g := p.Group(endedContext())
		err := g.Submit(returning(1, nil))
		assert.ErrorIs(t, err, workpool.ErrClosed)
		assert.ErrorIs(t, err, context.Canceled)
		fails(t, context.Canceled)(g.Wait())
	})
}

// Wait does not end before what it has started.
func TestGroup_WaitWaitsForItsHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(4))
		ctx, cancel := context.WithCancel(t.Context())
		g := p.Group(ctx)
		var running atomic.Int32
		for range 4 {
			require.NoError(t, g.Submit(func(context.Context) (int, error) {
				running.Add(1)
				defer running.Add(-1)
				time.Sleep(time.Minute)
				return 0, nil
			}))
		}
		synctest.Wait()
		require.Equal(t, int32(4), running.Load())
		cancel()
		_, err := g.Wait()
		assert.Zero(t, running.Load())
		assert.ErrorIs(t, err, context.Canceled)
	})
}

func TestGroup_SubmitByManyAtOnce(t *testing.T) {
	const goroutines, each = 8, 200
	p := mustNew(t, identity, workpool.WithWorkers(3), workpool.WithQueueDepth(2))
	g := p.Group(t.Context())
	var all sync.WaitGroup
	for i := range goroutines {
		all.Go(func() {
			for j := range each {
				assert.NoError(t, g.Submit(i*each+j))
			}
		})
	}
	all.Wait()
	values, err := g.Wait()
	require.NoError(t, err)
	assert.ElementsMatch(t, upTo(goroutines*each), values)
}

func TestGroup_TheIndexIsThePositionInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(ctx context.Context, n int) (int, error) {
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			return int(info.Index), nil
		}, workpool.WithoutResults())
		for range 2 {
			g := p.Group(t.Context())
			for i := range 10 {
				require.NoError(t, p.Submit(t.Context(), 0)) // not of the group
				require.NoError(t, g.Submit(i))
			}
			gives(t, upTo(10))(g.Wait())
		}
	})
}

// The pool closes while the group has tasks in line, queued and running.
func TestGroup_WhenThePoolCloses(t *testing.T) {
	for mode, want := range map[workpool.ShutdownMode]error{
		workpool.Drain: nil, workpool.FinishRunning: workpool.ErrAborted, workpool.Abort: workpool.ErrAborted,
	} {
		bubble(t, mode.String(), func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithShutdown(mode, 0))
			g := p.Group(t.Context())
			nap := func(ctx context.Context) (int, error) {
				select {
				case <-time.After(time.Second):
					return 1, nil
				case <-ctx.Done():
					return 0, context.Cause(ctx)
				}
			}
			require.NoError(t, g.Submit(nap))
			require.NoError(t, g.Submit(nap))
			line := make(chan error, 1)
			go func() { line <- g.Submit(nap) }()
			synctest.Wait()
			require.Equal(t, 1, p.Stats().Waiting)
			closed(t, p)
			assert.ErrorIs(t, <-line, workpool.ErrClosed)
			values, err := g.Wait()
			assert.ErrorIs(t, err, want)
			if want == nil {
				assert.Equal(t, []int{1, 1}, values)
			}
		})
	}
}

func TestRule9_AGroupThatWasWaitedForRetainsNothing(t *testing.T) {
	type large [1 << 20]byte
	ctx := t.Context()
	p := mustNew(t, func(_ context.Context, task *large) (*large, error) { return task, nil })
	before := heap()
	for range 50 {
		g := p.Group(ctx)
		for range 2 {
			require.NoError(t, g.Submit(new(large)))
		}
		_, err := g.Wait()
		require.NoError(t, err)
	}
	runtime.GC()
	assert.Less(t, heap()-before, 10<<20)
}
