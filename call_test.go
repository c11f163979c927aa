package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

func TestDo_AnswersToItsCallerAlone(t *testing.T) {
	eachCall(t, func(t *testing.T, call call) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithResultBuffer(0))
		for i := range 10 { // nobody receives results
			gives(t, i)(call(t.Context(), p, returning(i, nil)))
		}
		_, err := call(t.Context(), p, returning(0, errFailed))
		assert.True(t, err == errFailed, "the error itself, not a wrapper: %v", err)
		submit(t, p, returning(99, nil))
		closed(t, p)
		results := collect(p)
		require.Len(t, results, 1)
		assert.Equal(t, 99, results[0].Value)
		assert.Equal(t, uint64(11), results[0].Index, "all calls share the order of acceptance")
	})
}

func TestDoChan_YieldsOneResultAndStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2))
		release := occupy(t, p, 1) // the answers come while that runs
		for i, want := range []error{nil, errFailed} {
			answer := p.DoChan(t.Context(), returning(7, want))
			require.Equal(t, 1, cap(answer))
			r := <-answer
			assert.NotNil(t, r.Task)
			assert.Contains(t, []int{1, 2}, r.Worker)
			r.Task = nil
			assert.Equal(t, workpool.Result[closure, int]{Index: uint64(1 + i), Value: 7, Err: want, Worker: r.Worker, Attempt: 1}, r)
			assertSilent(t, answer)
		}
		release()
	})
}

func TestDoChan_ResultNobodyReceivesHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithResultBuffer(0))
		for range 100 {
			p.DoChan(t.Context(), returning(1, nil))
		}
		closed(t, p)
		assert.Equal(t, uint64(100), p.Stats().Succeeded)
	})
}

func TestWays_AnEndedContextRunsNothing(t *testing.T) {
	eachNamed(t, ways[closure, int](), func(t *testing.T, _ string, run way[closure, int]) {
		p := newClosures(t)
		reason := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		ran := new(atomic.Int32)
		_, err := run(ctx, p, counted(ran))
		fails(t, context.Canceled, reason)(0, err)
		assert.NotErrorIs(t, err, workpool.ErrQueueFull)
		synctest.Wait()
		assert.Zero(t, ran.Load())
		assert.Zero(t, p.Stats().Running)
	})
}

func TestDo_ContextEndsWhileRunning(t *testing.T) {
	eachCall(t, func(t *testing.T, call call) {
		p := newClosures(t, workpool.WithWorkers(1))
		reason := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		release := make(chan struct{})
		seen := make(chan error, 2)
		done := inBackground(ctx, call, p, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			seen <- ctx.Err()
			seen <- context.Cause(ctx)
			<-release // a handler that ignores the end of its context
			return 1, nil
		})
		cancel(reason)
		synctest.Wait()
		require.Len(t, done, 1, "the caller does not wait for the handler")
		fails(t, context.Canceled, reason)(0, (<-done).err)
		assert.Equal(t, context.Canceled, <-seen)
		assert.Equal(t, reason, <-seen, "the handler sees why its caller gave up")
		assert.Equal(t, 1, p.Stats().Running, "the handler is still counted")
		close(release)
		closed(t, p)
		stats := p.Stats()
		assert.Equal(t, uint64(1), stats.Succeeded+stats.Failed, "it ran")
		assert.Zero(t, stats.Aborted)
	})
}

func TestWays_HandlersSeeTheContextOfTheCaller(t *testing.T) {
	type key string
	eachNamed(t, ways[closure, int](), func(t *testing.T, _ string, call way[closure, int]) {
		base := context.WithValue(context.WithValue(t.Context(), key("both"), "pool"), key("pool"), "pool")
		p := newClosures(t, workpool.WithContext(base))
		defer closed(t, p)
		ctx := context.WithValue(context.WithValue(t.Context(), key("both"), "caller"), key("caller"), "caller")
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		want, _ := ctx.Deadline()
		succeeds(t)(call(ctx, p, func(ctx context.Context) (int, error) {
			deadline, ok := ctx.Deadline()
			assert.True(t, ok)
			assert.Equal(t, want, deadline)
			assert.NoError(t, ctx.Err())
			assert.NoError(t, context.Cause(ctx))
			assert.Equal(t, "caller", ctx.Value(key("caller")))
			assert.Equal(t, "caller", ctx.Value(key("both")), "the caller's value hides the pool's")
			assert.Equal(t, "pool", ctx.Value(key("pool")))
			assert.Nil(t, ctx.Value(key("neither")))
			stop := context.AfterFunc(ctx, func() { assert.Fail(t, "it was stopped") })
			assert.True(t, stop())
			return 0, nil
		}))
		cancel()
		succeeds(t)(call(t.Context(), p, func(ctx context.Context) (int, error) {
			_, ok := ctx.Deadline()
			assert.False(t, ok, "that of an earlier task")
			return 0, nil
		}))
	})
}

func TestDo_DerivedContextsEndWithTheCallerAndThePool(t *testing.T) {
	reason := errors.New("the client went away")
	for name, derive := range derivations {
		t.Run(name, func(t *testing.T) {
			eachCall(t, func(t *testing.T, call call) {
				p := newClosures(t, workpool.WithShutdown(workpool.Abort, 0))
				ctx, cancel := context.WithCancelCause(t.Context())
				seen := make(chan error, 1)
				task := func(ctx context.Context) (int, error) {
					child, cancel := derive(ctx)
					defer cancel()
					<-child.Done()
					seen <- context.Cause(child)
					return 0, context.Cause(child)
				}
				done := inBackground(ctx, call, p, task)
				cancel(reason)
				require.ErrorIs(t, (<-done).err, reason)
				assert.Equal(t, reason, <-seen)
				done = inBackground(t.Context(), call, p, task)
				closed(t, p)
				require.ErrorIs(t, (<-done).err, workpool.ErrAborted)
				assert.Equal(t, workpool.ErrAborted, <-seen)
			})
		})
	}
}

// The worker may come to a queued task before anything has noticed that the
// task's context has ended. It must not run it then.
func TestDo_TaskWhoseContextHasEndedNeverStarts(t *testing.T) {
	eachCall(t, func(t *testing.T, call call) {
		for range 100 {
			p := newClosures(t, workpool.WithWorkers(1))
			ctx, cancel := context.WithCancel(t.Context())
			release := make(chan struct{})
			require.NoError(t, p.TrySubmit(t.Context(), until(release)))
			done := inBackground(ctx, call, p, func(context.Context) (int, error) {
				assert.Fail(t, "its context had ended before the worker was free")
				return 0, nil
			})
			cancel()
			close(release)
			require.ErrorIs(t, (<-done).err, context.Canceled)
			closed(t, p)
			assert.Equal(t, uint64(1), p.Stats().Aborted)
		}
	})
}

// A queued task is taken back as soon as the context of its caller ends, while the worker
// is busy, and leaves those beside it alone.
func TestRule3_AQueuedTaskIsTakenBackAtOnce(t *testing.T) {
	all := ways[closure, int]()
	all["SubmitCancel"] = func(ctx context.Context, p *closures, tasks ...closure) ([]int, error) {
		cancel, err := p.SubmitCancel(context.Background(), tasks[0])
		context.AfterFunc(ctx, cancel)
		<-ctx.Done()
		return nil, errors.Join(err, ctx.Err())
	}
	eachNamed(t, all, func(t *testing.T, name string, run way[closure, int]) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(6))
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		var ran, others atomic.Int32
		p.Pause()
		submit(t, p, counted(&others), until(release), counted(&others))
		answer := make(chan error, 1)
		go func() {
			_, err := run(ctx, p, counted(&ran), counted(&ran))
			answer <- err
		}()
		synctest.Wait()
		require.NoError(t, p.TrySubmit(t.Context(), counted(&others)))
		p.Resume()
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Running)
		var submitters sync.WaitGroup
		for range 4 { // of whom some get room that is free already
			submitters.Go(func() { assert.NoError(t, p.Submit(t.Context(), counted(&others))) })
		}
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-answer, context.Canceled)
		submitters.Wait()
		s := p.Stats()
		assert.Equal(t, 2+4, s.Queued, "its room is there for others")
		assert.Equal(t, s.Aborted, s.Cancelled)
		assert.NotZero(t, s.Cancelled)
		close(release)
		closed(t, p)
		assert.Zero(t, ran.Load())
		assert.EqualValues(t, 7, others.Load())
		ended := 0
		for _, r := range collect(p) {
			if r.Err == nil {
				ended++
				continue
			}
			assert.Equal(t, "SubmitCancel", name)
			assert.ErrorIs(t, r.Err, context.Canceled)
			assert.Zero(t, r.Worker)
		}
		assert.Equal(t, 8, ended)
	})
}

func TestTryDo_RunsWhereThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1))
		gives(t, 1)(p.TryDo(t.Context(), returning(1, nil)))
		release := occupy(t, p, 1)
		answer := inBackground(t.Context(), tryDo, p, returning(2, nil))
		require.Equal(t, 1, p.Stats().Queued, "it waits for the answer, not for room")
		release()
		assert.Equal(t, outcome{2, nil, 0}, <-answer)
	})
}

// Also with WithOverflow: it is asked whether there is room.
func TestTryDo_RefusesAtOnceWhereThereIsNone(t *testing.T) {
	eachOf(t, overflows, func(t *testing.T, overflow workpool.Overflow) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithOverflow(overflow))
		release := occupy(t, p, 1)
		submit(t, p, returning(1, nil))
		before := p.Stats()
		fails(t, workpool.ErrQueueFull)(p.TryDo(t.Context(), returning(2, nil)))
		before.Refused++
		assert.Equal(t, before, p.Stats(), "only that it was refused has changed")
		release()
		closed(t, p)
		assert.Len(t, collect(p), 2)
	})
}

func TestDoChan_NeverBlocks(t *testing.T) {
	for name, opts := range map[string][]workpool.Option{
		"depth 0":  {workpool.WithQueueDepth(0)},
		"depth 1":  {workpool.WithQueueDepth(1)},
		"keys":     {workpool.WithQueueDepth(1), oneKey},
		"ordered":  {workpool.WithQueueDepth(1), workpool.WithOrdered()},
		"priority": {workpool.WithQueueDepth(1), workpool.WithPriority(func(closure) workpool.Priority { return workpool.Low })},
		"elastic":  {workpool.WithQueueDepth(1), workpool.WithElastic(0, time.Second)},
	} {
		for _, canEnd := range eitherWay {
			bubble(t, name, func(t *testing.T) {
				const calls = 20
				p := newClosures(t, append(opts, workpool.WithWorkers(1))...)
				ctx := context.Background()
				if canEnd {
					ctx = t.Context()
				}
				release := occupy(t, p, 1)
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
				release()
				for i, answer := range answers {
					r := <-answer
					gives(t, i)(r.Value, r.Err)
					assert.Equal(t, 1, r.Attempt)
				}
				assert.Equal(t, upTo(calls), began, "in the order of the calls")
			})
		}
	}
}

// A call is in line when the pool closes, or its context ends.
func TestDo_IsAnsweredInLine(t *testing.T) {
	reason := errors.New("the client went away")
	for name, c := range map[string]struct {
		end  func(p *closures, cancel context.CancelCauseFunc)
		want []error
	}{
		"context":  {func(_ *closures, cancel context.CancelCauseFunc) { cancel(reason) }, []error{workpool.ErrQueueFull, context.Canceled, reason}},
		"Shutdown": {func(p *closures, _ context.CancelCauseFunc) { go func() { _ = p.Shutdown(context.Background()) }() }, []error{workpool.ErrClosed}},
		"abort":    {func(p *closures, _ context.CancelCauseFunc) { _ = p.Shutdown(endedContext()) }, []error{workpool.ErrClosed}},
	} {
		t.Run(name, func(t *testing.T) {
			eachWaitingCall(t, func(t *testing.T, call call) {
				p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0))
				release := occupy(t, p, 1)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				ran := new(atomic.Int32)
				bound, result := inBackground(ctx, call, p, counted(ran)), p.DoChan(ctx, counted(ran))
				free := inBackground(context.Background(), call, p, counted(ran))
				require.Equal(t, 3, p.Stats().Waiting)
				c.end(p, cancel)
				synctest.Wait()
				require.Len(t, bound, 1, "at once, not at the end of a drain")
				fails(t, c.want...)(0, (<-bound).err)
				require.Len(t, result, 1)
				r := <-result
				fails(t, c.want...)(0, r.Err)
				assert.Equal(t, []int{1, 0}, []int{r.Attempt, r.Worker})
				assert.NotNil(t, r.Task)
				if name == "context" {
					require.Empty(t, free)
					assert.Equal(t, 1, p.Stats().Waiting)
					release()
					require.NoError(t, (<-free).err)
				} else {
					assert.ErrorIs(t, (<-free).err, workpool.ErrClosed)
					release()
				}
				_ = p.Close()
				s := p.Stats()
				assertSum(t, s)
				assert.Equal(t, uint64(3-ran.Load()), s.Refused, "%+v", s)
			})
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
			if r := <-answer; r.Err != nil {
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
	for _, c := range []struct {
		overflow                  workpool.Overflow
		err, queued               error // of the call, and of the one that is queued
		atOnce                    bool
		waiting, refused, dropped int
	}{
		{overflow: workpool.Block, waiting: 1},
		{overflow: workpool.Reject, err: workpool.ErrQueueFull, atOnce: true, refused: 1},
		{overflow: workpool.DropOldest, queued: workpool.ErrDropped, dropped: 1},
		{overflow: workpool.DropNewest, err: workpool.ErrDropped, atOnce: true, dropped: 1},
		{overflow: workpool.CallerRuns, atOnce: true},
	} {
		t.Run(c.overflow.String(), func(t *testing.T) {
			eachWaitingCall(t, func(t *testing.T, call call) {
				p, queued, release := full(t, c.overflow)
				answer := inBackground(t.Context(), call, p, func(ctx context.Context) (int, error) {
					info, _ := workpool.InfoFrom(ctx)
					assert.Equal(t, c.overflow == workpool.CallerRuns, info.Worker == 0)
					assert.Equal(t, c.overflow == workpool.CallerRuns, p.Stats().Running == 2)
					return 2, nil
				})
				assert.Equal(t, c.atOnce, len(answer) == 1)
				assert.Equal(t, c.queued != nil, len(queued) == 1)
				s := p.Stats()
				assert.Equal(t, []int{c.waiting, c.refused, c.dropped}, []int{s.Waiting, int(s.Refused), int(s.Dropped)})
				release()
				got := <-answer
				assert.ErrorIs(t, got.err, c.err)
				assert.Equal(t, c.err == nil, got.value == 2)
				assert.ErrorIs(t, (<-queued).err, c.queued)
				closed(t, p)
				s = p.Stats()
				assertSum(t, s)
				assert.Zero(t, s.Cancelled)
			})
		})
	}
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
	})
}

// A Do of a full pool with DropOldest drops neither tasks of a Map nor of a Stream.
func TestWithOverflow_DropOldestSparesBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithOverflow(workpool.DropOldest))
		release := occupy(t, p, 1)
		var batches sync.WaitGroup
		batches.Go(func() { gives(t, []int{1, 2})(p.Map(t.Context(), []closure{returning(1, nil), returning(2, nil)})) })
		synctest.Wait()
		dropped := inBackground(t.Context(), do, p, returning(3, nil))
		last := inBackground(t.Context(), do, p, returning(4, nil))
		assert.ErrorIs(t, (<-dropped).err, workpool.ErrDropped)
		release()
		assert.Equal(t, outcome{4, nil, 0}, <-last)
		batches.Wait()
	})
}

func TestNoValue_RunsAFunctionThatHasOnlyAnError(t *testing.T) {
	for _, want := range []error{nil, errFailed} {
		_, err := workpool.NoValue(func(context.Context, int) error { return want })(t.Context(), 1)
		assert.True(t, err == want)
	}
}

func TestInfoFrom_TellsWhichTaskRunsWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ok := workpool.InfoFrom(t.Context())
		assert.False(t, ok, "not the context of a handler")
		p := newClosures(t, workpool.WithWorkers(3), workpool.WithName("thumbnails"))
		for i := range uint64(20) {
			value := make(chan workpool.Info, 1)
			submit(t, p, func(ctx context.Context) (int, error) {
				info, ok := workpool.InfoFrom(ctx)
				assert.True(t, ok)
				child, cancel := context.WithTimeout(context.WithValue(ctx, key{}, 1), time.Hour)
				defer cancel()
				derived, ok := workpool.InfoFrom(child)
				assert.True(t, ok)
				assert.Equal(t, info, derived)
				value <- info
				return 0, nil
			})
			r, info := receive(t, p), <-value
			assert.Equal(t, workpool.Info{Pool: "thumbnails", Worker: r.Worker, Index: i, Attempt: 1}, info)
			assert.Equal(t, i, r.Index)
			assert.Contains(t, []int{1, 2, 3}, info.Worker)
		}
	})
}

// The contract gives a handler its context until it returns. A goroutine that it has left
// behind uses it for longer, while the worker goes on with others. With -race, it must not read
// what the worker writes, and asked which task it belongs to it gets the right answer.
func TestInfoFrom_ByAGoroutineThatWasLeftBehind(t *testing.T) {
	const tasks = 500
	var left sync.WaitGroup
	p := mustNew(t, func(ctx context.Context, n int) (int, error) {
		want, _ := workpool.InfoFrom(ctx)
		left.Go(func() {
			for range 20 {
				got, ok := workpool.InfoFrom(ctx)
				if !ok || got != want {
					panic(fmt.Sprintf("%v is now %v", want, got))
				}
				_, _, _, _ = ctx.Err(), context.Cause(ctx), ctx.Done(), ctx.Value(key{})
				_, _ = ctx.Deadline()
				child, cancel := context.WithCancel(ctx)
				cancel()
				<-child.Done()
			}
			if n%100 == 1 && ctx.Value(key{}) != nil {
				<-ctx.Done() // that of a call ends at the latest when the pool has closed
			}
		})
		if want.Attempt == 1 && n%5 == 0 {
			return 0, workpool.RetryAfter(0, nil)
		}
		return n, nil
	}, workpool.WithWorkers(3), workpool.WithoutResults())
	var users sync.WaitGroup
	for _, run := range ways[int, int]("Map", "Stream", "Group") {
		users.Go(func() { succeeds(t)(run(context.Background(), p, upTo(tasks)...)) })
	}
	users.Go(func() {
		for i := range tasks {
			ctx, cancel := context.WithValue(t.Context(), key{}, i), func() {}
			if i%100 != 1 {
				ctx, cancel = context.WithCancel(ctx)
			}
			gives(t, i)(p.Do(ctx, i))
			cancel()
		}
	})
	for i := range tasks {
		require.NoError(t, p.Submit(context.Background(), i))
	}
	users.Wait()
	closed(t, p)
	left.Wait()
}

func TestInfoFrom_NilContext(t *testing.T) {
	_, inside := workpool.InfoFrom(nil) //nolint:staticcheck // on purpose
	assert.False(t, inside)
}

// A fickle context has another Done each time that it is asked.
type fickle struct {
	context.Context
	asked *atomic.Int32
}

func (c fickle) Done() <-chan struct{} {
	if c.asked.Add(1)%2 == 0 {
		return nil
	}
	return make(chan struct{})
}

func TestDoChan_ContextWithAnotherDoneEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t)
		for range 4 {
			answer := p.DoChan(fickle{t.Context(), new(atomic.Int32)}, returning(1, nil))
			assert.Equal(t, 1, (<-answer).Value)
		}
		require.NoError(t, p.Shutdown(t.Context()))
	})
}
