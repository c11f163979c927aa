package workpool_test

import (
	"context"
	"errors"
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

type group = workpool.Group[closure, int]

func TestGroup_WaitMayBeCalledAgain(t *testing.T) {
	eachOf(t, []error{nil, errFailed}, func(t *testing.T, want error) {
		ctx, cancel := context.WithCancelCause(t.Context())
		g := newClosures(t).Group(ctx)
		begin := make(chan struct{})
		require.NoError(t, g.Submit(returning(1, nil)))
		require.NoError(t, g.Submit(func(context.Context) (int, error) {
			<-begin
			return 2, want
		}))
		wait := func() {
			values, err := g.Wait()
			assert.Equal(t, want, err)
			assert.Equal(t, map[error][]int{nil: {1, 2}}[err], values)
		}
		var waits sync.WaitGroup
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

// The context of the others says why it has ended. Those that have not begun count as cancelled.
func TestGroup_TheFirstErrorIsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(10))
		g := p.Group(t.Context())
		var cause error
		ran := new(atomic.Int32)
		tasks := []closure{func(ctx context.Context) (int, error) {
			_, cause = untilEnd(ctx)
			return 0, nil
		}, func(context.Context) (int, error) {
			time.Sleep(time.Second)
			return 0, errFailed
		}}
		for _, task := range append(tasks, counted(ran), counted(ran), counted(ran)) {
			require.NoError(t, g.Submit(task))
		}
		fails(t, errFailed)(g.Wait())
		assert.Equal(t, errFailed, cause)
		assert.Zero(t, ran.Load())
		assert.Equal(t, uint64(3), p.Stats().Cancelled)
	})
}

func TestGroup_SubmitAfterTheFirstErrorSaysWhy(t *testing.T) {
	cause := errors.New("not needed any more")
	ends := func(task closure) func(t *testing.T, p *closures, g *group, cancel context.CancelCauseFunc) {
		return func(t *testing.T, _ *closures, g *group, _ context.CancelCauseFunc) {
			require.NoError(t, g.Submit(task))
		}
	}
	for name, test := range map[string]struct {
		end  func(t *testing.T, p *closures, g *group, cancel context.CancelCauseFunc)
		want error
	}{
		"an error":    {ends(returning(0, errFailed)), errFailed},
		"a panic":     {ends(func(context.Context) (int, error) { panic(errFailed) }), errFailed},
		"a Goexit":    {ends(exit), workpool.ErrGoexit},
		"the context": {func(_ *testing.T, _ *closures, _ *group, cancel context.CancelCauseFunc) { cancel(cause) }, cause},
		"the pool":    {func(t *testing.T, p *closures, _ *group, _ context.CancelCauseFunc) { closed(t, p) }, workpool.ErrClosed},
		"an abort": {func(_ *testing.T, p *closures, g *group, _ context.CancelCauseFunc) {
			_ = g.Submit(untilEnd)
			synctest.Wait()
			_ = p.Shutdown(endedContext())
		}, workpool.ErrClosed},
		"Wait": {func(t *testing.T, _ *closures, g *group, _ context.CancelCauseFunc) { succeeds(t)(g.Wait()) }, workpool.ErrClosed},
	} {
		bubble(t, name, func(t *testing.T) {
			p := newClosures(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			g := p.Group(ctx)
			test.end(t, p, g, cancel)
			synctest.Wait()
			refused := p.Stats().Refused
			fails(t, workpool.ErrClosed, test.want)(0, g.Submit(returning(1, nil)))
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
		next := inBackground(t.Context(), do, p, napping) // the room that comes goes to it
		fails(t, workpool.ErrClosed, errFailed)(0, g.Submit(returning(1, nil)))
		assert.Equal(t, time.Second, time.Since(begin))
		assert.Zero(t, p.Stats().Waiting)
		fails(t, errFailed)(g.Wait())
		release()
		require.NoError(t, (<-next).err)
	})
}

// However a task of a group ends without having run, it is an error of the group.
func TestGroup_ADroppedTaskEndsTheGroup(t *testing.T) {
	eachOf(t, []workpool.Overflow{workpool.DropNewest, workpool.DropOldest}, func(t *testing.T, overflow workpool.Overflow) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithOverflow(overflow))
		g := p.Group(t.Context())
		require.NoError(t, g.Submit(untilEnd))
		synctest.Wait()
		require.NoError(t, g.Submit(returning(1, nil)))
		require.NoError(t, g.Submit(returning(1, nil)))
		synctest.Wait()
		fails(t, workpool.ErrClosed, workpool.ErrDropped)(0, g.Submit(returning(1, nil)))
		fails(t, workpool.ErrDropped)(g.Wait())
		closed(t, p)
		assert.Equal(t, uint64(1), p.Stats().Dropped)
	})
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

func TestGroup_OfAnEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		g := p.Group(endedContext())
		fails(t, workpool.ErrClosed, context.Canceled)(0, g.Submit(returning(1, nil)))
		fails(t, context.Canceled)(g.Wait())
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
	slices.Sort(values)
	gives(t, upTo(goroutines*each))(values, err)
}

func TestGroup_TheIndexIsThePositionInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(ctx context.Context, _ int) (int, error) {
			info, ok := workpool.InfoFrom(ctx)
			assert.True(t, ok)
			return int(info.Index), nil
		}, workpool.WithoutResults())
		for range 2 {
			g := p.Group(t.Context())
			for i := range 10 {
				submit(t, p, 0) // not of the group
				require.NoError(t, g.Submit(i))
			}
			gives(t, upTo(10))(g.Wait())
		}
	})
}

func TestRule9_AGroupThatWasWaitedForRetainsNothing(t *testing.T) {
	type large [1 << 20]byte
	ctx := t.Context()
	p := mustNew(t, func(_ context.Context, task *large) (*large, error) { return task, nil })
	before := heap()
	for range 50 {
		succeeds(t)(ways[*large, *large]()["Group"](ctx, p, new(large), new(large)))
	}
	assert.Less(t, heap()-before, 10<<20)
}

func TestGroup_Zero(t *testing.T) {
	var g workpool.Group[int, int]
	require.ErrorIs(t, g.Submit(1), workpool.ErrClosed)
	values, err := g.Wait()
	require.NoError(t, err)
	assert.Empty(t, values)
}

func TestGroup_ItsErrorSpeaksOfTheGroup(t *testing.T) {
	p := newClosures(t)
	g := p.Group(t.Context())
	succeeds(t)(g.Wait())
	require.EqualError(t, g.Submit(returning(0, nil)), "workpool: group is closed: workpool: Wait has returned")
	closed(t, p)
}

// Of the tasks of a group, those that Submit accepts beside Wait belong to it, or are refused.
func TestGroup_SubmitBesideWait(t *testing.T) {
	p := mustNew(t, identity, workpool.WithWorkers(4), workpool.WithQueueDepth(16))
	for range rounds(500, 20_000) {
		g := p.Group(t.Context())
		var beside sync.WaitGroup
		beside.Go(func() {
			for i := 0; g.Submit(i) == nil && i < 50; i++ {
			}
		})
		values, err := g.Wait()
		require.NoError(t, err)
		for i, value := range values {
			require.Equal(t, i, value)
		}
		beside.Wait()
	}
	closed(t, p)
}
