package workpool_test

import (
	"bytes"
	"context"
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
	type pool = workpool.Pool[int, int]
	submit := func(submit func(ctx context.Context, p *pool, task int) error) way[int, int] {
		return func(ctx context.Context, p *pool, tasks ...int) ([]int, error) { return nil, submit(ctx, p, tasks[0]) }
	}
	for _, test := range []struct {
		way   workpool.Way
		tasks []int // how many seconds each sleeps, on two workers
		run   way[int, int]
	}{
		{workpool.BySubmit, []int{1}, submit(func(ctx context.Context, p *pool, task int) error { return p.Submit(ctx, task) })},
		{workpool.BySubmit, []int{1}, submit(func(ctx context.Context, p *pool, task int) error { return p.TrySubmit(ctx, task) })},
		{workpool.BySubmit, []int{1}, submit(func(ctx context.Context, p *pool, task int) error {
			_, err := p.SubmitCancel(ctx, task)
			return err
		})},
		{workpool.BySubmit, []int{1, 2, 3}, func(ctx context.Context, p *pool, tasks ...int) ([]int, error) {
			_, err := p.SubmitAll(ctx, slices.Values(tasks))
			return nil, err
		}},
		{workpool.ByCall, []int{1}, ways[int, int]()["Do"]},
		{workpool.ByCall, []int{1}, ways[int, int]()["TryDo"]},
		{workpool.ByCall, []int{1}, ways[int, int]()["DoChan"]},
		{workpool.ByMap, []int{1, 2, 3, 4}, ways[int, int]()["Map"]},
		{workpool.ByStream, []int{1, 2, 3}, ways[int, int]()["Stream"]},
		{workpool.ByGroup, []int{1, 2}, ways[int, int]()["Group"]},
	} {
		bubble(t, fmt.Sprintf("%v of %d", test.way, len(test.tasks)), func(t *testing.T) {
			var log eventLog
			p := mustNew(t, func(ctx context.Context, task int) (int, error) {
				return sleeping(time.Duration(task)*time.Second, task)(ctx)
			},
				workpool.WithWorkers(2), workpool.WithName("seen"), workpool.WithObserver(log.observer()), workpool.WithoutResults())
			succeeds(t)(test.run(t.Context(), p, test.tasks...))
			require.NoError(t, p.Shutdown(t.Context()))
			assert.Equal(t, 1, log.submits, "calls of Submit")
			require.Len(t, log.begun, len(test.tasks))
			require.Len(t, log.ended, len(test.tasks))
			for _, events := range [][]workpool.Event{log.begun, log.ended} { // two may begin and end at the same time
				slices.SortFunc(events, func(a, b workpool.Event) int { return int(a.Index) - int(b.Index) })
			}
			free := []time.Duration{0, 0} // when each worker is
			for i, seconds := range test.tasks {
				took := time.Duration(seconds) * time.Second
				slices.Sort(free)
				worker := log.begun[i].Worker
				want := workpool.Event{
					Info: workpool.Info{Pool: "seen", Worker: worker, Index: uint64(i), Attempt: 1},
					Way:  test.way, Value: 1, Waited: free[0],
				}
				assert.Equal(t, want, log.begun[i])
				want.Took = took
				assert.Equal(t, want, log.ended[i])
				assert.Contains(t, []int{1, 2}, worker)
				free[0] += took
			}
		})
	}
}

func TestWithObserver_HowAnAttemptEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log eventLog
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithObserver(log.observer()))
		ends := func(task closure) (workpool.Event, error) {
			_, err := p.Do(t.Context(), task)
			last := log.ended[len(log.ended)-1]
			assert.True(t, err == last.Err, "the same error with the same stack")
			return last, err
		}
		last, err := ends(returning(0, errFailed))
		assert.Equal(t, errFailed, err)
		assert.False(t, last.Panicked)

		last, err = ends(catchFire)
		panicked(t, "on fire", err)
		assert.True(t, last.Panicked)
		var panicErr *workpool.PanicError
		require.ErrorAs(t, err, &panicErr)
		assert.Contains(t, string(panicErr.Stack), "catchFire", "the stack of the handler")

		last, err = ends(returning(0, &workpool.PanicError{Value: "inner"}))
		panicked(t, "inner", err)
		assert.False(t, last.Panicked, "the handler returned")

		_, err = ends(func(context.Context) (int, error) { panic(errFailed) })
		require.ErrorIs(t, err, errFailed)

		_, err = ends(exit)
		require.Equal(t, workpool.ErrGoexit, err)

		last, err = ends(func(context.Context) (int, error) {
			defer func() { panic("on fire") }()
			runtime.Goexit()
			return 0, nil
		})
		panicked(t, "on fire", err)
		assert.True(t, last.Panicked)

		log.ended, log.begun = nil, nil
		gives(t, 7)(p.Do(t.Context(), func(ctx context.Context) (int, error) {
			if info, _ := workpool.InfoFrom(ctx); info.Attempt < 3 {
				time.Sleep(time.Second)
				return 0, workpool.RetryAfter(time.Minute, errFailed)
			}
			return 7, nil
		}))
		require.Len(t, log.ended, 3)
		for i, e := range log.ended {
			assert.Equal(t, i+1, e.Attempt)
			assert.Zero(t, e.Waited, "not counted: how long the handler asked to wait")
			delay, again := workpool.RetryDelay(e.Err)
			assert.Equal(t, i < 2, again)
			if again {
				assert.Equal(t, []time.Duration{time.Minute, time.Second}, []time.Duration{delay, e.Took})
				assert.ErrorIs(t, e.Err, errFailed)
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
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithObserver(log.observer()))
		fill(t, p, 3, untilEnd)
		fails(t, context.Canceled)(p.Do(endedContext(), untilEnd))
		synctest.Wait()
		cutShort(t, 2, 1, p.Shutdown(endedContext()))
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
		seen, _ := ctx.Value(observedKey{}).(string)
		return context.WithValue(ctx, observedKey{}, fmt.Sprint(seen, e.Index))
	}
	var atEnd any
	end := func(ctx context.Context, _ workpool.Event) { atEnd = ctx.Value(observedKey{}) }
	type handler = func(context.Context) string
	p := mustNew(t, func(ctx context.Context, f handler) (string, error) { return f(ctx), nil },
		workpool.WithWorkers(1), workpool.WithObserver(workpool.Observer{Begin: begin, End: end}))
	seen := func(ctx context.Context) string { return ctx.Value(observedKey{}).(string) }
	gives(t, "0")(p.Do(t.Context(), seen))
	assert.Equal(t, "0", atEnd, "End gets the handler's context")
	valued := context.WithValue(t.Context(), observedKey{}, "x")
	gives(t, "x1")(p.Do(valued, seen))

	// What the handler hands in has the values of its own task: Begin's are not among them.
	for i, want := range []string{"x2 x3", "x4 x5"} {
		way := []string{"Do", "DoChan"}[i]
		gives(t, want)(p.Do(valued, func(ctx context.Context) string {
			values, err := ways[handler, string]()[way](ctx, p, seen)
			assert.NoError(t, err)
			return seen(ctx) + " " + values[0]
		}))
	}

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
	type chainKey struct{}
	depth := func(ctx context.Context) (n int) {
		for {
			before, ok := ctx.Value(chainKey{}).(context.Context)
			if !ok {
				return n
			}
			n, ctx = n+1, before
		}
	}
	for name, next := range map[string]func(ctx context.Context, p *workpool.Pool[int, int], task int) error{
		"Submit": func(ctx context.Context, p *workpool.Pool[int, int], task int) error { return p.Submit(ctx, task) },
		"DoChan": func(ctx context.Context, p *workpool.Pool[int, int], task int) error {
			p.DoChan(ctx, task)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan int, 1)
			p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], task int) (int, error) {
				if task == 0 {
					done <- depth(ctx)
					return 0, nil
				}
				return 0, next(ctx, p, task-1)
			}, workpool.WithWorkers(2), workpool.WithoutResults(), workpool.WithObserver(workpool.Observer{
				Begin: func(ctx context.Context, _ workpool.Event) context.Context {
					return context.WithValue(ctx, chainKey{}, ctx)
				},
			}))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			require.NoError(t, p.Submit(ctx, generations))
			assert.Equal(t, 1, <-done)
		})
	}
}

func TestWithObserver_Panics(t *testing.T) {
	pool := func(o workpool.Observer) *closures {
		return newClosures(t, workpool.WithWorkers(1), workpool.WithObserver(o))
	}
	t.Run("Submit", func(t *testing.T) {
		p := pool(workpool.Observer{Submit: func(context.Context) any { panic("boom") }})
		task := returning(1, nil)
		_, cancelErr := p.SubmitCancel(t.Context(), task)
		errs := []error{
			p.Submit(t.Context(), task), p.TrySubmit(t.Context(), task), cancelErr,
			sequenceWays["SubmitAll"](t.Context(), p, slices.Values([]closure{task})),
		}
		for _, run := range ways[closure, int]() {
			errs = append(errs, errorOf(run)(t.Context(), p, task))
		}
		for _, err := range errs {
			panicked(t, "boom", err)
			assert.ErrorContains(t, err, "observer")
		}
		assert.Zero(t, p.Stats().Submitted)
	})
	for name, o := range map[string]workpool.Observer{
		"Begin": {Begin: func(context.Context, workpool.Event) context.Context { panic("boom") }},
		"End":   {End: func(context.Context, workpool.Event) { panic("boom") }},
	} {
		t.Run(name, func(t *testing.T) {
			p := pool(o)
			for _, run := range ways[closure, int]() {
				panicked(t, "boom", errorOf(run)(t.Context(), p, returning(1, nil)))
			}
			assert.Empty(t, p.Working())
			s := p.Stats()
			assert.Equal(t, s.Failed, s.Panicked)
			assert.Zero(t, s.Succeeded)
		})
	}
	t.Run("Goexit", func(t *testing.T) {
		p := pool(workpool.Observer{End: func(context.Context, workpool.Event) { runtime.Goexit() }})
		fails(t, workpool.ErrGoexit)(p.Do(t.Context(), returning(1, nil)))
	})
}

func TestWithObserver_Several(t *testing.T) {
	var told []string
	observer := func(name string) workpool.Option {
		return workpool.WithObserver(workpool.Observer{
			Submit: func(context.Context) any { return name },
			Begin: func(ctx context.Context, e workpool.Event) context.Context {
				seen, _ := ctx.Value(observedKey{}).(string)
				told = append(told, fmt.Sprint("begin ", name, e.Value, seen))
				return context.WithValue(ctx, observedKey{}, seen+name)
			},
			End: func(ctx context.Context, e workpool.Event) {
				told = append(told, fmt.Sprint("end ", name, e.Value, ctx.Value(observedKey{})))
			},
		})
	}
	p := newClosures(t, observer("a"), workpool.WithObserver(workpool.Observer{}), observer("b"))
	var working []workpool.Event
	gives(t, 2)(p.Do(t.Context(), func(ctx context.Context) (int, error) {
		working = p.Working()
		return len(ctx.Value(observedKey{}).(string)), nil
	}))
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
			p := mustNew(t, identity, workpool.WithWorkers(1),
				workpool.WithObserver(first.observer()), workpool.WithObserver(stops), workpool.WithObserver(last.observer()))
			for range 2 {
				_, err := p.Do(t.Context(), 1)
				require.Error(t, err)
			}
			assert.Len(t, first.begun, 2)
			require.Len(t, first.ended, 2)
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
	look := func() { p.Stats(); p.Working() }
	p = mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(4), workpool.WithResultBuffer(4),
		workpool.WithObserver(workpool.Observer{
			Submit: func(context.Context) any { look(); return nil },
			Begin: func(context.Context, workpool.Event) context.Context {
				look()
				_ = p.TrySubmit(context.Background(), 0)
				return nil
			},
			End: func(context.Context, workpool.Event) { look() },
		}))
	go func() {
		gives(t, 200)(p.SubmitAll(context.Background(), count(200)))
		assert.NoError(t, p.Shutdown(context.Background()))
	}()
	assert.GreaterOrEqual(t, len(collect(p)), 200)
}

func TestWorking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log eventLog
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithName("seen"), workpool.WithObserver(log.observer()))
		assert.Empty(t, p.Working())
		submit(t, p, sleeping(2*time.Second, 0), func(ctx context.Context) (int, error) {
			return p.Do(ctx, sleeping(5*time.Second, 0))
		}, sleeping(7*time.Second, 0))
		time.Sleep(time.Second)
		working := p.Working()
		require.Len(t, working, 3)
		worker := map[uint64]int{} // by index
		event := func(index uint64, way workpool.Way, value int, waited, took time.Duration) workpool.Event {
			for _, e := range working {
				worker[e.Index] = e.Worker
			}
			return workpool.Event{
				Info: workpool.Info{Pool: "seen", Worker: worker[index], Index: index, Attempt: 1},
				Way:  way, Value: value, Waited: waited, Took: took,
			}
		}
		want := []workpool.Event{
			event(0, workpool.BySubmit, 1, 0, time.Second),
			event(1, workpool.BySubmit, 2, 0, time.Second),
			event(3, workpool.ByCall, 4, 0, time.Second),
		}
		assert.Equal(t, worker[1], worker[3], "what the handler of task 1 waits for runs in its place")
		slices.SortStableFunc(want, func(a, b workpool.Event) int { return a.Worker - b.Worker })
		assert.Equal(t, want, working)
		time.Sleep(2 * time.Second)
		working = p.Working()
		require.Len(t, working, 3)
		assert.Contains(t, working, event(2, workpool.BySubmit, 3, 2*time.Second, time.Second))
		require.NoError(t, p.Shutdown(t.Context()))
		assert.Empty(t, p.Working())
	})
	assert.Nil(t, newClosures(t).Working(), "without an observer")
	assert.Nil(t, new(closures).Working(), "the zero Pool")
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
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithObserver(log.observer()))
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
		succeeds(t)(p.Map(t.Context(), slices.Repeat([]closure{napping}, 100)))
		synctest.Wait()
		assert.Len(t, log.ended, 100)
	})
}

// A task is a region of the trace of the Go runtime, under the name of the pool.
func TestTraceRegions(t *testing.T) {
	if trace.IsEnabled() {
		t.Skip("the tests are being traced")
	}
	p := newClosures(t, workpool.WithName("name-of-the-region"))
	var out bytes.Buffer
	require.NoError(t, trace.Start(&out))
	gives(t, 1)(p.Do(t.Context(), returning(1, nil)))
	_, err := p.Do(t.Context(), catchFire)
	trace.Stop()
	panicked(t, "on fire", err)
	assert.Contains(t, out.String(), "name-of-the-region")
}
