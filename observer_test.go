package workpool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/trace"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// An eventLog is what an observer was told. Its Submit numbers the calls from 1.
type eventLog struct {
	mu      sync.Mutex
	submits int
	begun   []workpool.Event
	ended   []workpool.Event
}

func (l *eventLog) observer() workpool.Observer {
	return workpool.Observer{
		Submit: func(context.Context) any {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.submits++
			return l.submits
		},
		Begin: func(_ context.Context, e workpool.Event) context.Context {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.begun = append(l.begun, e)
			return nil
		},
		End: func(_ context.Context, e workpool.Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.ended = append(l.ended, e)
		},
	}
}

func TestWithObserver_EachWay(t *testing.T) {
	sleep := func(_ context.Context, task int) (int, error) {
		time.Sleep(time.Duration(task) * time.Second)
		return task, nil
	}
	for _, test := range []struct {
		way   workpool.Way
		tasks []int // how long each sleeps, on two workers
		run   func(ctx context.Context, p *workpool.Pool[int, int]) error
	}{
		{workpool.BySubmit, []int{1}, func(ctx context.Context, p *workpool.Pool[int, int]) error { return p.Submit(ctx, 1) }},
		{workpool.BySubmit, []int{1}, func(ctx context.Context, p *workpool.Pool[int, int]) error { return p.TrySubmit(ctx, 1) }},
		{workpool.BySubmit, []int{1}, func(ctx context.Context, p *workpool.Pool[int, int]) error {
			_, err := p.SubmitCancel(ctx, 1)
			return err
		}},
		{workpool.BySubmit, []int{1, 2, 3}, func(ctx context.Context, p *workpool.Pool[int, int]) error {
			_, err := p.SubmitAll(ctx, slices.Values([]int{1, 2, 3}))
			return err
		}},
		{workpool.ByCall, []int{1}, func(ctx context.Context, p *workpool.Pool[int, int]) error {
			_, err := p.Do(ctx, 1)
			return err
		}},
		{workpool.ByCall, []int{1}, func(ctx context.Context, p *workpool.Pool[int, int]) error {
			_, err := p.TryDo(ctx, 1)
			return err
		}},
		{workpool.ByCall, []int{1}, func(ctx context.Context, p *workpool.Pool[int, int]) error { return (<-p.DoChan(ctx, 1)).Err }},
		{workpool.ByMap, []int{1, 2, 3, 4}, func(ctx context.Context, p *workpool.Pool[int, int]) error {
			_, err := p.Map(ctx, []int{1, 2, 3, 4})
			return err
		}},
		{workpool.ByStream, []int{1, 2, 3}, func(ctx context.Context, p *workpool.Pool[int, int]) error {
			for r := range p.Stream(ctx, slices.Values([]int{1, 2, 3})) {
				if r.Err != nil {
					return r.Err
				}
			}
			return nil
		}},
		{workpool.ByGroup, []int{1, 2}, func(ctx context.Context, p *workpool.Pool[int, int]) error {
			g := p.Group(ctx)
			err := errors.Join(g.Submit(1), g.Submit(2))
			_, waitErr := g.Wait()
			return errors.Join(err, waitErr)
		}},
	} {
		bubble(t, fmt.Sprintf("%v of %d", test.way, len(test.tasks)), func(t *testing.T) {
			var log eventLog
			p := mustNew(t, sleep, workpool.WithWorkers(2), workpool.WithName("seen"), workpool.WithObserver(log.observer()), workpool.WithoutResults())
			require.NoError(t, test.run(t.Context(), p))
			require.NoError(t, p.Shutdown(t.Context()))

			assert.Equal(t, 1, log.submits, "calls of Submit")
			require.Len(t, log.ended, len(test.tasks))
			free := []time.Duration{0, 0} // when each worker is
			for i, seconds := range test.tasks {
				took := time.Duration(seconds) * time.Second
				slices.Sort(free)
				begun, ended := log.begun[i], log.ended[i]
				if ended.Index != uint64(i) { // two may end at the same time
					j := slices.IndexFunc(log.ended, func(e workpool.Event) bool { return e.Index == uint64(i) })
					require.GreaterOrEqual(t, j, 0)
					ended = log.ended[j]
				}
				if begun.Index != uint64(i) {
					begun = log.begun[slices.IndexFunc(log.begun, func(e workpool.Event) bool { return e.Index == uint64(i) })]
				}
				want := workpool.Event{
					Info: workpool.Info{Pool: "seen", Worker: begun.Worker, Index: uint64(i), Attempt: 1},
					Way:  test.way, Value: 1, Waited: free[0],
				}
				assert.Equal(t, want, begun)
				want.Took = took
				assert.Equal(t, want, ended)
				assert.Contains(t, []int{1, 2}, begun.Worker)
				free[0] += took
			}
		})
	}
}

func TestWithObserver_HowAnAttemptEnds(t *testing.T) {
	failure := errors.New("failure")
	handle := func(ctx context.Context, task string) (string, error) {
		info, _ := workpool.InfoFrom(ctx)
		switch task {
		case "error":
			return "", failure
		case "panic":
			panic("boom")
		case "inner panic":
			return "", &workpool.PanicError{Value: "boom"}
		case "panic with an error":
			panic(failure)
		case "goexit":
			runtime.Goexit()
		case "panic during a goexit":
			defer panic("boom")
			runtime.Goexit()
		case "retry":
			if info.Attempt < 3 {
				time.Sleep(time.Second)
				return "", workpool.RetryAfter(time.Minute, failure)
			}
		}
		return task, nil
	}
	synctest.Test(t, func(t *testing.T) {
		var log eventLog
		p := mustNew(t, handle, workpool.WithWorkers(1), workpool.WithObserver(log.observer()))
		last := func() workpool.Event { return log.ended[len(log.ended)-1] }

		_, err := p.Do(t.Context(), "error")
		require.Equal(t, failure, err)
		assert.Equal(t, failure, last().Err)

		_, err = p.Do(t.Context(), "panic")
		panicked(t, "boom", err)
		assert.Same(t, err, last().Err, "the same error with the same stack")
		assert.True(t, last().Panicked)
		var panicErr *workpool.PanicError
		require.ErrorAs(t, err, &panicErr)
		assert.Contains(t, string(panicErr.Stack), "TestWithObserver_HowAnAttemptEnds", "the stack of the handler")

		_, err = p.Do(t.Context(), "inner panic")
		panicked(t, "boom", err)
		assert.False(t, last().Panicked, "the handler returned")

		_, err = p.Do(t.Context(), "panic with an error")
		require.ErrorIs(t, err, failure)
		assert.Same(t, err, last().Err)

		_, err = p.Do(t.Context(), "goexit")
		require.ErrorIs(t, err, workpool.ErrGoexit)
		assert.Equal(t, workpool.ErrGoexit, last().Err)

		_, err = p.Do(t.Context(), "panic during a goexit")
		panicked(t, "boom", err)
		assert.Same(t, err, last().Err)
		assert.True(t, last().Panicked)

		log.ended, log.begun = nil, nil
		gives(t, "retry")(p.Do(t.Context(), "retry"))
		require.Len(t, log.ended, 3)
		for i, e := range log.ended {
			assert.Equal(t, i+1, e.Attempt)
			assert.Zero(t, e.Waited, "not counted: how long the handler asked to wait")
			delay, again := workpool.RetryDelay(e.Err)
			assert.Equal(t, i < 2, again)
			if again {
				assert.Equal(t, time.Minute, delay)
				assert.ErrorIs(t, e.Err, failure)
				assert.Equal(t, time.Second, e.Took)
			}
		}
		assert.Len(t, log.begun, 3)
		s := p.Stats()
		assert.Equal(t, [...]uint64{1, 6, 3}, [...]uint64{s.Succeeded, s.Failed, s.Panicked})
	})
}

// Of a task that never ran an observer is told nothing; Stats counts it.
func TestWithObserver_NeverRan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log eventLog
		p := mustNew(t, func(ctx context.Context, _ int) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithObserver(log.observer()))
		submitN(t, p, 3, 0)
		require.ErrorIs(t, p.TrySubmit(t.Context(), 0), workpool.ErrQueueFull)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := p.Do(ended, 0)
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		var shutdownErr *workpool.ShutdownError
		require.ErrorAs(t, p.Shutdown(ended), &shutdownErr)
		synctest.Wait()
		require.Len(t, log.begun, 1)
		require.Len(t, log.ended, 1)
		assert.ErrorIs(t, log.ended[0].Err, workpool.ErrAborted)
		s := p.Stats()
		assert.Equal(t, [...]uint64{2, 2, 1}, [...]uint64{s.Aborted, s.Refused, s.Failed})
	})
}

type observedKey struct{}

func TestWithObserver_BeginReplacesTheContext(t *testing.T) {
	begin := func(ctx context.Context, e workpool.Event) context.Context {
		if seen := ctx.Value(observedKey{}); seen != nil {
			return context.WithValue(ctx, observedKey{}, fmt.Sprint(seen, e.Index))
		}
		return context.WithValue(ctx, observedKey{}, fmt.Sprint(e.Index))
	}
	var atEnd any
	end := func(ctx context.Context, _ workpool.Event) { atEnd = ctx.Value(observedKey{}) }
	p := mustNew(t, func(ctx context.Context, f func(context.Context) string) (string, error) { return f(ctx), nil },
		workpool.WithWorkers(1), workpool.WithObserver(workpool.Observer{Begin: begin, End: end}))
	seen := func(ctx context.Context) string { return ctx.Value(observedKey{}).(string) }

	gives(t, "0")(p.Do(t.Context(), seen))
	assert.Equal(t, "0", atEnd, "End gets the handler's context")
	gives(t, "x1")(p.Do(context.WithValue(t.Context(), observedKey{}, "x"), seen))

	// What the handler hands in has the values of its own task: Begin's are not among them.
	inner := func(hand func(ctx context.Context) (string, error)) func(ctx context.Context) string {
		return func(ctx context.Context) string {
			value, err := hand(ctx)
			assert.NoError(t, err)
			return ctx.Value(observedKey{}).(string) + " " + value
		}
	}
	gives(t, "x2 x3")(p.Do(context.WithValue(t.Context(), observedKey{}, "x"), inner(func(ctx context.Context) (string, error) { return p.Do(ctx, seen) })))
	gives(t, "x4 x5")(p.Do(context.WithValue(t.Context(), observedKey{}, "x"), inner(func(ctx context.Context) (string, error) {
		r := <-p.DoChan(ctx, seen)
		return r.Value, r.Err
	})))

	// It is known as the context of a handler.
	gives(t, "true")(p.Do(t.Context(), func(ctx context.Context) string {
		info, ok := workpool.InfoFrom(ctx)
		assert.Equal(t, 1, info.Worker)
		assert.ErrorIs(t, p.Wait(ctx), workpool.ErrReentrant)
		return fmt.Sprint(ok)
	}))
}

// A chain of tasks, each submitted by the one before, keeps nothing of those before.
func TestWithObserver_NoChainOfContexts(t *testing.T) {
	const generations = 20000
	depth := func(ctx context.Context) (n int) {
		for ctx != nil {
			m, ok := ctx.Value(chainKey{}).(*chainLink)
			if !ok {
				return n
			}
			n++
			ctx = m.ctx
		}
		return n
	}
	for name, next := range map[string]func(ctx context.Context, p *workpool.Pool[int, int], task int){
		"Submit": func(ctx context.Context, p *workpool.Pool[int, int], task int) {
			assert.NoError(t, p.Submit(ctx, task))
		},
		"DoChan": func(ctx context.Context, p *workpool.Pool[int, int], task int) { p.DoChan(ctx, task) },
	} {
		t.Run(name, func(t *testing.T) {
			var p *workpool.Pool[int, int]
			done := make(chan int, 1)
			p = mustNew(t, func(ctx context.Context, task int) (int, error) {
				if task == 0 {
					done <- depth(ctx)
					return 0, nil
				}
				next(ctx, p, task-1)
				return 0, nil
			}, workpool.WithWorkers(2), workpool.WithoutResults(), workpool.WithObserver(workpool.Observer{
				Begin: func(ctx context.Context, _ workpool.Event) context.Context {
					return context.WithValue(ctx, chainKey{}, &chainLink{ctx})
				},
			}))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			require.NoError(t, p.Submit(ctx, generations))
			assert.Equal(t, 1, <-done)
		})
	}
}

type chainKey struct{}

type chainLink struct{ ctx context.Context }

func TestWithObserver_Panics(t *testing.T) {
	boom := func() { panic("boom") }
	pool := func(o workpool.Observer) *workpool.Pool[int, int] {
		return mustNew(t, func(_ context.Context, task int) (int, error) { return task, nil }, workpool.WithWorkers(1), workpool.WithObserver(o))
	}
	t.Run("Submit", func(t *testing.T) {
		p := pool(workpool.Observer{Submit: func(context.Context) any { boom(); return nil }})
		ctx := t.Context()
		_, doErr := p.Do(ctx, 1)
		_, cancelErr := p.SubmitCancel(ctx, 1)
		_, allErr := p.SubmitAll(ctx, slices.Values([]int{1}))
		_, mapErr := p.Map(ctx, []int{1})
		g := p.Group(ctx)
		_, waitErr := g.Wait()
		errs := []error{p.Submit(ctx, 1), p.TrySubmit(ctx, 1), doErr, cancelErr, allErr, mapErr, (<-p.DoChan(ctx, 1)).Err, waitErr}
		for r := range p.Stream(ctx, slices.Values([]int{1})) {
			errs = append(errs, r.Err)
		}
		require.Len(t, errs, 9)
		for _, err := range errs {
			panicked(t, "boom", err)
			assert.ErrorContains(t, err, "observer")
		}
		assert.Zero(t, p.Stats().Submitted)
	})
	for name, o := range map[string]workpool.Observer{
		"Begin": {Begin: func(context.Context, workpool.Event) context.Context { boom(); return nil }},
		"End":   {End: func(context.Context, workpool.Event) { boom() }},
	} {
		t.Run(name, func(t *testing.T) {
			p := pool(o)
			_, err := p.Do(t.Context(), 1)
			panicked(t, "boom", err)
			_, err = p.Map(t.Context(), []int{1, 2, 3})
			panicked(t, "boom", err)
			assert.Empty(t, p.Working())
			s := p.Stats()
			assert.Equal(t, s.Failed, s.Panicked)
			assert.Zero(t, s.Succeeded)
		})
	}
	t.Run("Goexit", func(t *testing.T) {
		p := pool(workpool.Observer{End: func(context.Context, workpool.Event) { runtime.Goexit() }})
		_, err := p.Do(t.Context(), 1)
		assert.ErrorIs(t, err, workpool.ErrGoexit)
	})
}

func TestWithObserver_Several(t *testing.T) {
	var told []string
	observer := func(name string) workpool.Observer {
		return workpool.Observer{
			Submit: func(context.Context) any { return name },
			Begin: func(ctx context.Context, e workpool.Event) context.Context {
				seen, _ := ctx.Value(observedKey{}).(string)
				told = append(told, fmt.Sprint("begin ", name, e.Value, seen))
				return context.WithValue(ctx, observedKey{}, seen+name)
			},
			End: func(ctx context.Context, e workpool.Event) {
				told = append(told, fmt.Sprint("end ", name, e.Value, ctx.Value(observedKey{})))
			},
		}
	}
	var working []workpool.Event
	var p *workpool.Pool[int, int]
	p = mustNew(t, func(ctx context.Context, _ int) (int, error) {
		working = p.Working()
		return len(ctx.Value(observedKey{}).(string)), nil
	}, workpool.WithObserver(observer("a")), workpool.WithObserver(workpool.Observer{}), workpool.WithObserver(observer("b")))
	gives(t, 2)(p.Do(t.Context(), 1))
	assert.Equal(t, []string{"begin aa", "begin bba", "end bbab", "end aaab"}, told)
	require.Len(t, working, 1)
	assert.Equal(t, []any{"a", nil, "b"}, working[0].Value)
}

// Who was told of the beginning is told of the end, whatever other observers do.
func TestWithObserver_SeveralOfWhichOnePanics(t *testing.T) {
	for name, stop := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			var first, last eventLog
			stops := workpool.Observer{
				Begin: func(_ context.Context, e workpool.Event) context.Context {
					if e.Index == 0 {
						stop()
					}
					return nil
				},
				End: func(context.Context, workpool.Event) { stop() },
			}
			p := mustNew(t, func(_ context.Context, task int) (int, error) { return task, nil }, workpool.WithWorkers(1),
				workpool.WithObserver(first.observer()), workpool.WithObserver(stops), workpool.WithObserver(last.observer()))
			for range 2 {
				_, err := p.Do(t.Context(), 1)
				require.Error(t, err)
			}
			assert.Len(t, first.begun, 2)
			assert.Len(t, first.ended, 2)
			assert.Error(t, first.ended[0].Err)
			assert.NoError(t, first.ended[1].Err)
			assert.Len(t, last.begun, 1)
			assert.Len(t, last.ended, 1)
		})
	}
}

// The functions of an observer use the pool, and so does what they get.
func TestWithObserver_CallsBack(t *testing.T) {
	var p *workpool.Pool[int, int]
	look := func() { p.Stats(); p.Working(); _ = p.TrySubmit(context.Background(), 0) }
	p = mustNew(t, func(_ context.Context, task int) (int, error) { return task, nil },
		workpool.WithWorkers(2), workpool.WithQueueDepth(4), workpool.WithResultBuffer(4),
		workpool.WithObserver(workpool.Observer{
			Submit: func(context.Context) any { p.Stats(); p.Working(); return nil },
			Begin:  func(context.Context, workpool.Event) context.Context { look(); return nil },
			End:    func(context.Context, workpool.Event) { p.Stats(); p.Working() },
		}))
	go func() {
		for i := range 200 {
			assert.NoError(t, p.Submit(context.Background(), i))
		}
		assert.NoError(t, p.Shutdown(context.Background()))
	}()
	n := 0
	for range p.Results() {
		n++
	}
	assert.GreaterOrEqual(t, n, 200)
}

func TestWorking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log eventLog
		var p *workpool.Pool[int, int]
		p = mustNew(t, func(ctx context.Context, task int) (int, error) {
			if task == 0 {
				return p.Do(ctx, 5)
			}
			time.Sleep(time.Duration(task) * time.Second)
			return task, nil
		}, workpool.WithWorkers(2), workpool.WithName("seen"), workpool.WithObserver(log.observer()))
		assert.Empty(t, p.Working())
		submit(t, p, 2, 0, 7)
		time.Sleep(time.Second)
		event := func(worker int, index uint64, way workpool.Way, value int, waited, took time.Duration) workpool.Event {
			return workpool.Event{
				Info: workpool.Info{Pool: "seen", Worker: worker, Index: index, Attempt: 1},
				Way:  way, Value: value, Waited: waited, Took: took,
			}
		}
		working := p.Working()
		require.Len(t, working, 3)
		of := func(index uint64) int {
			return working[slices.IndexFunc(working, func(e workpool.Event) bool { return e.Index == index })].Worker
		}
		// The task that the handler of task 1 waits for runs in its place.
		want := []workpool.Event{
			event(of(0), 0, workpool.BySubmit, 1, 0, time.Second),
			event(of(1), 1, workpool.BySubmit, 2, 0, time.Second),
			event(of(1), 3, workpool.ByCall, 4, 0, time.Second),
		}
		slices.SortStableFunc(want, func(a, b workpool.Event) int { return a.Worker - b.Worker })
		assert.Equal(t, want, working)

		time.Sleep(2 * time.Second)
		working = p.Working()
		require.Len(t, working, 3)
		assert.Contains(t, working, event(of(2), 2, workpool.BySubmit, 3, 2*time.Second, time.Second))
		require.NoError(t, p.Shutdown(t.Context()))
		assert.Empty(t, p.Working())
	})
	t.Run("without an observer", func(t *testing.T) {
		p := mustNew(t, func(_ context.Context, task int) (int, error) { return task, nil })
		assert.Nil(t, p.Working())
		assert.Nil(t, new(workpool.Pool[int, int]).Working(), "the zero Pool")
	})
}

// It keeps everybody from the pool for as long as it takes, and so allocates once.
func TestWorking_OfManyWorkers(t *testing.T) {
	const workers = 1000
	release := make(chan struct{})
	p := mustNew(t, func(context.Context, int) (int, error) { <-release; return 0, nil },
		workpool.WithWorkers(workers), workpool.WithQueueDepth(workers), workpool.WithoutResults(), workpool.WithObserver(workpool.Observer{}))
	submitN(t, p, workers, 0)
	for len(p.Working()) < workers {
		runtime.Gosched()
	}
	assert.LessOrEqual(t, testing.AllocsPerRun(10, func() { p.Working() }), 1.0)
	close(release)
}

// The tasks of a Map that workers take without a look at the queue are told of one by one.
func TestWorking_OfAMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log eventLog
		p := mustNew(t, func(_ context.Context, task int) (int, error) {
			time.Sleep(time.Second)
			return task, nil
		}, workpool.WithWorkers(2), workpool.WithObserver(log.observer()))
		go func() {
			for second := range 50 {
				time.Sleep(time.Second / 2)
				working := p.Working()
				if assert.Len(t, working, 2) {
					assert.ElementsMatch(t, []uint64{uint64(2 * second), uint64(2*second + 1)}, []uint64{working[0].Index, working[1].Index})
					assert.Equal(t, time.Second/2, working[0].Took)
					assert.Equal(t, time.Duration(second)*time.Second, working[0].Waited)
				}
				time.Sleep(time.Second / 2)
			}
		}()
		_, err := p.Map(t.Context(), make([]int, 100))
		require.NoError(t, err)
		synctest.Wait()
		assert.Len(t, log.ended, 100)
	})
}

// A task is a region of the trace of the Go runtime, under the name of the pool.
func TestTraceRegions(t *testing.T) {
	if trace.IsEnabled() {
		t.Skip("the tests are being traced")
	}
	p := mustNew(t, func(_ context.Context, task int) (int, error) {
		if task == 2 {
			panic("boom")
		}
		return task, nil
	}, workpool.WithName("name-of-the-region"))
	traced := func() string {
		var out bytes.Buffer
		require.NoError(t, trace.Start(&out))
		gives(t, 1)(p.Do(t.Context(), 1))
		_, err := p.Do(t.Context(), 2)
		panicked(t, "boom", err)
		trace.Stop()
		return out.String()
	}
	assert.Contains(t, traced(), "name-of-the-region")
}
