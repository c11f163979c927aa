package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

func TestRule4_ClosingNeverWaitsForTheConsumer(t *testing.T) {
	eachOf(t, modes, func(t *testing.T, mode workpool.ShutdownMode) {
		p := mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(4), workpool.WithResultBuffer(1),
			workpool.WithShutdown(mode, 0))
		accepted := 0
		for p.TrySubmit(t.Context(), accepted) == nil {
			accepted++
			synctest.Wait()
		}
		assert.Equal(t, 2+4+1, accepted)
		closed(t, p) // nobody has received anything
		s := p.Stats()
		assert.Equal(t, accepted, s.Undelivered)
		assert.Zero(t, s.Workers)
		results := collect(p)
		assert.Len(t, results, accepted)
		for _, r := range results {
			if mode != workpool.Drain && r.Worker == 0 {
				assert.ErrorIs(t, r.Err, workpool.ErrAborted)
				assert.Equal(t, 1, r.Attempt)
			} else {
				assert.NoError(t, r.Err)
			}
		}
		assert.Empty(t, collect(p), "each once")
	})
}

func TestResults_BreakLosesNothing(t *testing.T) {
	const n = 20
	for at := range n {
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithResultBuffer(3))
		go func() {
			gives(t, n)(p.SubmitAll(context.Background(), count(n)))
			assert.NoError(t, p.Close())
		}()
		var got []int
		for r := range p.Results() {
			got = append(got, r.Task)
			if len(got) == at+1 {
				break
			}
		}
		for r := range p.Results() {
			got = append(got, r.Task)
		}
		assert.Equal(t, upTo(n), got)
	}
}

func TestWithoutResults(t *testing.T) {
	p := mustNew(t, moody, workpool.WithoutResults())
	assert.Empty(t, collect(p), "ends at once")
	gives(t, 1000)(p.SubmitAll(t.Context(), count(1000)))
	gives(t, 4)(p.Do(t.Context(), 4))
	closed(t, p)
	assert.Equal(t, uint64(250+1), p.Stats().Succeeded)
	assert.Equal(t, uint64(750), p.Stats().Failed)
}

func TestWithResultFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []workpool.Result[int, int]
		entered, leave := make(chan struct{}), make(chan struct{})
		p := mustNew(t, moody, workpool.WithWorkers(1), workpool.WithResultFunc(func(r workpool.Result[int, int]) {
			if r.Task == 0 {
				close(entered)
				<-leave
			}
			mu.Lock()
			defer mu.Unlock()
			told = append(told, r)
		}))
		assert.Empty(t, collect(p), "ends at once")
		gives(t, 8)(p.SubmitAll(t.Context(), count(8)))
		<-entered
		assert.Equal(t, 1, p.Stats().Running, "a task has ended when its function has")
		cut := p.Shutdown(endedContext())
		cutShort(t, 7, 1, cut)
		close(leave)
		require.ErrorIs(t, p.Close(), cut)
		assert.Len(t, told, 8)
		for _, r := range told {
			if r.Task != 0 {
				assert.ErrorIs(t, r.Err, workpool.ErrAborted)
				assert.Zero(t, r.Worker)
			}
		}
		assert.Equal(t, workpool.Stats{Submitted: 8, Succeeded: 1, Aborted: 7}, counts(p.Stats()))
	})
}

func TestWithResultFunc_FailureIsReportedAtTheEnd(t *testing.T) {
	eachOf(t, []workpool.ShutdownMode{workpool.Drain, workpool.Abort}, func(t *testing.T, mode workpool.ShutdownMode) {
		calls := 0
		p := mustNew(t, identity, workpool.WithWorkers(1), workpool.WithResultFunc(func(r workpool.Result[int, int]) {
			calls++
			switch r.Task {
			case 1:
				panic(errOdd)
			case 2:
				runtime.Goexit()
			}
		}), workpool.WithShutdown(mode, 0))
		if mode == workpool.Abort {
			p.Pause() // so that they are told of by another than a worker
		}
		gives(t, 5)(p.SubmitAll(t.Context(), count(5)))
		err := p.Close()
		panicked(t, errOdd, err)
		require.ErrorIs(t, err, errOdd)
		require.ErrorContains(t, err, "result of task 1")
		assert.Equal(t, 5, calls)
		assert.Equal(t, uint64(5), p.Stats().Succeeded+p.Stats().Aborted)
		assert.ErrorIs(t, p.Shutdown(t.Context()), errOdd, "the same to all")
	})
}

// A receiver that has taken several results and is at the first of them keeps none from
// another, however its loop body ends.
func TestResults_AnotherReceiverGetsWhatTheFirstHasNotComeTo(t *testing.T) {
	for name, end := range map[string]func(){
		"return": func() {}, "break": nil, "panic": func() { panic("in the loop body") }, "Goexit": runtime.Goexit,
		"another loop": func() {},
	} {
		for _, early := range eitherWay { // the second is there before the first ends
			bubble(t, fmt.Sprintf("%s/early=%v", name, early), func(t *testing.T) {
				p := mustNew(t, identity, workpool.WithWorkers(1))
				submit(t, p, upTo(5)...)
				synctest.Wait()
				release := make(chan struct{})
				var mu sync.Mutex
				var got []int
				note := func(r workpool.Result[int, int]) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, r.Value)
				}
				noteAll := func() {
					for r := range p.Results() {
						note(r)
					}
				}
				var receivers sync.WaitGroup
				receivers.Go(func() {
					defer func() { _ = recover() }()
					n := 0
					for r := range p.Results() {
						note(r)
						<-release
						if end == nil {
							break
						}
						if n++; name == "another loop" && n == 1 {
							noteAll()
						}
						end()
					}
				})
				synctest.Wait()
				assert.Equal(t, 4, p.Stats().Undelivered)
				if early {
					receivers.Go(noteAll)
					synctest.Wait()
					assert.ElementsMatch(t, upTo(5), got)
				}
				close(release)
				synctest.Wait()
				if !early {
					receivers.Go(noteAll)
					synctest.Wait()
				}
				assert.ElementsMatch(t, upTo(5), got)
				assert.Zero(t, p.Stats().Undelivered)
				closed(t, p)
				receivers.Wait()
			})
		}
	}
}

// A receiver is stuck in its loop body. Another one gets the results before newer ones.
func TestResults_OfAReceiverThatIsStuckComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(1))
		submit(t, p, upTo(5)...)
		synctest.Wait()
		release := make(chan struct{})
		go func() {
			for range p.Results() {
				<-release
				break
			}
		}()
		synctest.Wait()
		for n := range 100 {
			submit(t, p, 5+n)
			synctest.Wait()
			assert.Equal(t, 1+n, receive(t, p).Value)
		}
		close(release)
	})
}

// Each order of ends: every task has its own, and on one worker they come in order.
func TestRule1_EachOrderOfEnds(t *testing.T) {
	again := func(ctx context.Context) (int, error) { return after(2, 0)(ctx, 5) }
	type result = workpool.Result[closure, int]
	kinds := []struct {
		task closure
		is   func(r result) bool
		adds [4]uint64 // succeeded, failed, panicked, retried
	}{
		{returning(1, nil), func(r result) bool { return r.Value == 1 && r.Err == nil }, [4]uint64{1, 0, 0, 0}},
		{returning(2, errOdd), func(r result) bool { return r.Value == 2 && r.Err == errOdd }, [4]uint64{0, 1, 0, 0}},
		{catchFire, func(r result) bool {
			var panicked *workpool.PanicError
			return r.Value == 0 && errors.As(r.Err, &panicked) && panicked.Value == "on fire"
		}, [4]uint64{0, 1, 1, 0}},
		{exit, func(r result) bool { return r.Value == 0 && errors.Is(r.Err, workpool.ErrGoexit) }, [4]uint64{0, 1, 0, 0}},
		{again, func(r result) bool { return r.Value == 5 && r.Err == nil && r.Attempt == 2 }, [4]uint64{1, 0, 0, 1}},
	}
	const length = 4
	for _, workers := range []int{1, 2} {
		for program := range 5 * 5 * 5 * 5 {
			synctest.Test(t, func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(workers))
				var tasks []closure
				var digits []int
				var want [4]uint64
				for rest := program; len(tasks) < length; rest /= 5 {
					kind := kinds[rest%5]
					digits, tasks = append(digits, rest%5), append(tasks, kind.task)
					for i, n := range kind.adds {
						want[i] += n
					}
				}
				inOneGo(t, p, tasks...)
				assert.Equal(t, workpool.Stats{
					Submitted: length, Undelivered: length, Succeeded: want[0], Failed: want[1], Panicked: want[2], Retried: want[3],
				}, counts(p.Stats()), "%v", digits)
				closed(t, p)
				results := collect(p)
				require.Len(t, results, length)
				var order []uint64
				for _, r := range results {
					kind := digits[r.Index]
					assert.True(t, kinds[kind].is(r), "%v: %+v", digits, r)
					assert.NotZero(t, r.Worker)
					if kind != 4 { // which comes again
						order = append(order, r.Index)
					}
				}
				assert.True(t, workers > 1 || slices.IsSorted(order), "%v: %v", digits, order)
			})
		}
	}
}

// large is as large as a task or a value may be.
type large [60_000]byte

func TestPool_TypesOfAllSizes(t *testing.T) {
	value := large{0: 1, 59_999: 2}
	t.Run("T", func(t *testing.T) {
		p := mustNew(t, func(_ context.Context, task large) (int, error) { return int(task[0]) + int(task[59_999]), nil })
		usesAll(t, p, value, 3)
	})
	t.Run("R", func(t *testing.T) {
		p := mustNew(t, func(context.Context, int) (large, error) { return value, nil })
		usesAll(t, p, 1, value)
	})
	t.Run("no bytes", func(t *testing.T) {
		p := mustNew(t, func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil })
		usesAll(t, p, struct{}{}, struct{}{})
	})
	type wide [16_000]byte
	p := mustNew(t, func(_ context.Context, task wide) (wide, error) { return task, nil }, workpool.WithWorkers(2))
	for range 5 { // each has its own
		var want, got []byte
		for i := range byte(100) {
			require.NoError(t, p.TrySubmit(t.Context(), wide{i, 15_999: i}))
			want = append(want, i, i)
		}
		for range 100 {
			r := receive(t, p)
			assert.Equal(t, r.Task[0], r.Task[15_999])
			got = append(got, r.Value[0], r.Value[15_999])
		}
		assert.ElementsMatch(t, want, got)
	}
}

// usesAll has a task come and go in all ways, and closes the pool.
func usesAll[T, R any](t *testing.T, p *workpool.Pool[T, R], task T, want R) {
	t.Helper()
	for way, run := range ways[T, R]() {
		values, err := run(t.Context(), p, task, task)
		require.NoError(t, err)
		assert.True(t, assert.ObjectsAreEqual([]R{want, want}, values), way)
	}
	submit(t, p, task)
	closed(t, p)
	for _, r := range collect(p) {
		assert.True(t, assert.ObjectsAreEqual(want, r.Value))
	}
}

// A handler that ranges over the results of its own pool gets what is ready, and then the
// end at once: it would wait for its own.
func TestResults_InAHandlerEndAfterWhatIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		ranges := func(context.Context) (int, error) { return len(collect(p)), nil } //nolint:unparam // a task
		submitN(t, p, 3, returning(1, nil))
		submit(t, p, ranges)
		synctest.Wait()
		assert.Equal(t, 3, receive(t, p).Value)
		gives(t, 0)(p.Do(t.Context(), ranges))
		gives(t, []int{0})(p.Map(t.Context(), []closure{ranges}))
		gives(t, 0)(p.Do(t.Context(), func(ctx context.Context) (int, error) { return p.Do(ctx, ranges) })) // in its place
		closed(t, p)
		assert.Empty(t, collect(p))
	})
}
