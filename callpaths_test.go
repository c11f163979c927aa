package workpool_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

func TestTryDo_RunsWhereThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1))
		gives(t, 1)(p.TryDo(t.Context(), returning(1, nil)))

		release := occupy(t, p, 1)
		answer := inBackground(t.Context(), func(ctx context.Context, p *closures, task closure) (int, error) {
			return p.TryDo(ctx, task)
		}, p, returning(2, nil))
		require.Equal(t, 1, p.Stats().Queued, "it waits for the answer, not for room")
		release()
		assert.Equal(t, outcome{2, nil, 0}, <-answer)
	})
}

// Also with WithOverflow: it is asked whether there is room.
func TestTryDo_RefusesAtOnceWhereThereIsNone(t *testing.T) {
	for _, overflow := range []workpool.Overflow{workpool.Block, workpool.Reject, workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
		bubble(t, overflow.String(), func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithOverflow(overflow))
			release := occupy(t, p, 1)
			require.NoError(t, p.Submit(t.Context(), returning(1, nil)))
			before := p.Stats()
			fails(t, workpool.ErrQueueFull)(p.TryDo(t.Context(), returning(2, nil)))
			after := p.Stats()
			before.Refused++
			assert.Equal(t, before, after, "only that it was refused has changed")
			release()
			closed(t, p)
			assert.Len(t, collect(p), 2)
		})
	}
}

func TestTryDo_OfAClosedPoolAndAnEndedContext(t *testing.T) {
	p := newClosures(t)
	_, err := p.TryDo(endedContext(), returning(1, nil))
	assert.ErrorIs(t, err, context.Canceled)
	assert.NotErrorIs(t, err, workpool.ErrQueueFull)
	closed(t, p)
	fails(t, workpool.ErrClosed)(p.TryDo(t.Context(), returning(1, nil)))
}

func TestTryDo_TheEndOfItsContextFreesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		release := occupy(t, p, 1)
		ctx := limited(t, time.Second)
		ran := new(atomic.Int32)
		fails(t, context.DeadlineExceeded)(p.TryDo(ctx, counted(ran)))
		assert.Zero(t, p.Stats().Queued)
		assert.Equal(t, uint64(1), p.Stats().Cancelled)
		release()
		closed(t, p)
		assert.Zero(t, ran.Load())
	})
}

// In a handler the task runs in its place, whatever is full.
func TestTryDo_InAHandler(t *testing.T) {
	eachTight(t, func(t *testing.T, opts []workpool.Option) {
		p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
			if n == 0 {
				return 0, nil
			}
			value, err := p.TryDo(ctx, n-1)
			return value + n, err
		}, opts...)
		gives(t, 55)(p.TryDo(t.Context(), 10))
	})
}

func TestDoChan_NeverBlocks(t *testing.T) {
	for name, opts := range map[string][]workpool.Option{
		"depth 0":  {workpool.WithQueueDepth(0)},
		"depth 1":  {workpool.WithQueueDepth(1)},
		"keys":     {workpool.WithQueueDepth(1), workpool.WithKey(func(closure) int { return 1 })},
		"ordered":  {workpool.WithQueueDepth(1), workpool.WithOrdered()},
		"priority": {workpool.WithQueueDepth(1), workpool.WithPriority(func(closure) workpool.Priority { return workpool.Low })},
		"elastic":  {workpool.WithQueueDepth(1), workpool.WithElastic(0, time.Second)},
	} {
		for _, canEnd := range []bool{false, true} {
			bubble(t, name, func(t *testing.T) {
				const calls = 20
				p := newClosures(t, append(opts, workpool.WithWorkers(1))...)
				ctx := context.Background()
				if canEnd {
					ctx = t.Context()
				}
				release := make(chan struct{})
				first := p.DoChan(ctx, until(release))
				synctest.Wait()
				var began []int // one worker: no two at once
				var answers []<-chan workpool.Result[closure, int]
				for i := range calls { // this goroutine alone: if one blocked, all would
					answers = append(answers, p.DoChan(ctx, func(context.Context) (int, error) {
						began = append(began, i)
						return i, nil
					}))
				}
				s := p.Stats()
				assert.Equal(t, calls, s.Queued+s.Waiting)
				assert.Equal(t, 1, s.Running)
				for _, answer := range answers {
					assertSilent(t, answer)
					assert.Equal(t, 1, cap(answer))
				}
				close(release)
				require.NoError(t, (<-first).Err)
				for i, answer := range answers {
					r := <-answer
					require.NoError(t, r.Err)
					assert.Equal(t, i, r.Value)
					assert.Equal(t, 1, r.Attempt)
				}
				assert.Equal(t, upTo(calls), began, "in the order of the calls")
			})
		}
	}
}

// It is in line when the pool closes, or its context ends.
func TestDoChan_AnswersFromTheLine(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(p *closures, cancel context.CancelFunc)
		want []error
	}{
		"context":  {func(_ *closures, cancel context.CancelFunc) { cancel() }, []error{workpool.ErrQueueFull, context.Canceled}},
		"Shutdown": {func(p *closures, _ context.CancelFunc) { go func() { _ = p.Shutdown(context.Background()) }() }, []error{workpool.ErrClosed}},
		"abort":    {func(p *closures, _ context.CancelFunc) { _ = p.Shutdown(endedContext()) }, []error{workpool.ErrClosed}},
	} {
		bubble(t, name, func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0))
			release := occupy(t, p, 1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ran := new(atomic.Int32)
			bound, free := p.DoChan(ctx, counted(ran)), p.DoChan(context.Background(), counted(ran))
			synctest.Wait()
			require.Equal(t, 2, p.Stats().Waiting)
			test.end(p, cancel)
			synctest.Wait()
			select {
			case r := <-bound:
				for _, want := range test.want {
					assert.ErrorIs(t, r.Err, want)
				}
				assert.Equal(t, 1, r.Attempt)
				assert.Zero(t, r.Worker)
				assert.NotNil(t, r.Task)
			default:
				t.Error("no answer")
			}
			if name == "context" {
				assertSilent(t, free)
				assert.Equal(t, 1, p.Stats().Waiting)
				release()
				require.NoError(t, (<-free).Err)
			} else {
				assert.ErrorIs(t, (<-free).Err, workpool.ErrClosed)
				release()
			}
			_ = p.Close()
			s := p.Stats()
			assertSum(t, s)
			assert.Equal(t, uint64(2-ran.Load()), s.Refused, "%+v", s)
		})
	}
}

// Only one answer comes, even where the context ends as the task does.
func TestDoChan_AnswersOnce(t *testing.T) {
	p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(1))
	for range 2_000 {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var answers []<-chan workpool.Result[closure, int]
		all.Go(cancel)
		for range 4 {
			answers = append(answers, p.DoChan(ctx, returning(1, nil)))
		}
		all.Wait()
		for _, answer := range answers {
			r := <-answer
			if r.Err != nil {
				assert.ErrorIs(t, r.Err, context.Canceled)
			}
			assert.Empty(t, answer)
		}
	}
	closed(t, p)
	assertSum(t, p.Stats())
}

// full returns a pool without room, in which a task of Do waits in the queue.
func full(t *testing.T, overflow workpool.Overflow) (p *closures, queued <-chan outcome, release func()) {
	t.Helper()
	p = newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithOverflow(overflow))
	release = occupy(t, p, 1)
	queued = inBackground(t.Context(), do, p, returning(1, nil))
	require.Equal(t, 1, p.Stats().Queued)
	return p, queued, release
}

func TestWithOverflow_OfCalls(t *testing.T) {
	eachOverflow := func(t *testing.T, overflow workpool.Overflow, test func(t *testing.T, call call, p *closures, queued <-chan outcome, release func())) {
		t.Run(overflow.String(), func(t *testing.T) {
			eachWaitingCall(t, func(t *testing.T, call call) {
				p, queued, release := full(t, overflow)
				test(t, call, p, queued, release)
				release()
				closed(t, p)
				s := p.Stats()
				assertSum(t, s)
				assert.Zero(t, s.Cancelled)
			})
		})
	}
	eachOverflow(t, workpool.Reject, func(t *testing.T, call call, p *closures, queued <-chan outcome, release func()) {
		fails(t, workpool.ErrQueueFull)(call(t.Context(), p, returning(2, nil)))
		assert.Equal(t, uint64(1), p.Stats().Refused)
		release()
		assert.NoError(t, (<-queued).err)
	})
	eachOverflow(t, workpool.DropOldest, func(t *testing.T, call call, p *closures, queued <-chan outcome, release func()) {
		answer := inBackground(t.Context(), call, p, returning(2, nil))
		assert.ErrorIs(t, (<-queued).err, workpool.ErrDropped)
		assert.Equal(t, uint64(1), p.Stats().Dropped)
		release()
		assert.Equal(t, outcome{2, nil, 0}, <-answer)
	})
	eachOverflow(t, workpool.DropNewest, func(t *testing.T, call call, p *closures, queued <-chan outcome, release func()) {
		fails(t, workpool.ErrDropped)(call(t.Context(), p, returning(2, nil)))
		assert.Equal(t, uint64(1), p.Stats().Dropped)
		release()
		assert.NoError(t, (<-queued).err)
	})
	eachOverflow(t, workpool.CallerRuns, func(t *testing.T, call call, p *closures, queued <-chan outcome, release func()) {
		value, err := call(t.Context(), p, func(ctx context.Context) (int, error) {
			info, _ := workpool.InfoFrom(ctx)
			assert.Zero(t, info.Worker)
			assert.Equal(t, 2, p.Stats().Running)
			return 2, nil
		})
		assert.Equal(t, 2, value)
		assert.NoError(t, err)
		release()
		assert.NoError(t, (<-queued).err)
	})
	eachOverflow(t, workpool.Block, func(t *testing.T, call call, p *closures, queued <-chan outcome, release func()) {
		answer := inBackground(t.Context(), call, p, returning(2, nil))
		assert.Equal(t, 1, p.Stats().Waiting)
		release()
		assert.Equal(t, outcome{2, nil, 0}, <-answer)
		assert.NoError(t, (<-queued).err)
	})
}

// With CallerRuns a call gives up waiting for the task that runs in its place, too.
func TestWithOverflow_CallerRunsDoesNotHoldACallerWhoseContextEnds(t *testing.T) {
	eachWaitingCall(t, func(t *testing.T, call call) {
		p, queued, release := full(t, workpool.CallerRuns)
		ctx := limited(t, time.Second)
		ends := make(chan struct{})
		fails(t, context.DeadlineExceeded)(call(ctx, p, until(ends)))
		close(ends)
		release()
		assert.NoError(t, (<-queued).err)
		closed(t, p)
	})
}

// A Do of a full pool with DropOldest drops neither tasks of a Map nor of a Stream.
func TestWithOverflow_DropOldestSparesBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithOverflow(workpool.DropOldest))
		release := occupy(t, p, 1)
		var batches sync.WaitGroup
		batches.Go(func() {
			gives(t, []int{1, 2})(p.Map(t.Context(), []closure{returning(1, nil), returning(2, nil)}))
		})
		synctest.Wait()
		dropped := inBackground(t.Context(), do, p, returning(3, nil))
		last := inBackground(t.Context(), do, p, returning(4, nil))
		assert.ErrorIs(t, (<-dropped).err, workpool.ErrDropped)
		release()
		assert.Equal(t, outcome{4, nil, 0}, <-last)
		batches.Wait()
	})
}

func TestTrySubmit_HasTheValuesOfItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		p := newClosures(t)
		got := make(chan any, 1)
		require.NoError(t, p.TrySubmit(context.WithValue(t.Context(), key{}, 7), func(ctx context.Context) (int, error) {
			got <- ctx.Value(key{})
			return 0, nil
		}))
		assert.Equal(t, 7, <-got)
		assert.ErrorIs(t, p.TrySubmit(endedContext(), returning(0, nil)), context.Canceled)
		closed(t, p)
		assert.ErrorIs(t, p.TrySubmit(t.Context(), returning(0, nil)), workpool.ErrClosed)
	})
}

func TestNoValue_RunsAFunctionThatHasOnlyAnError(t *testing.T) {
	failure := errors.New("no such thing")
	p := mustNew(t, workpool.NoValue(func(_ context.Context, fails bool) error {
		if fails {
			return failure
		}
		return nil
	}))
	_, err := p.Do(t.Context(), false)
	require.NoError(t, err)
	_, err = p.Do(t.Context(), true)
	assert.True(t, err == failure)
	closed(t, p)
	fails(t, workpool.ErrInvalidOption)(workpool.New(workpool.NoValue[int](nil)))
}
