package workpool_test

import (
	"context"
	"errors"
	"fmt"
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

// A hostility is what the methods of hostile values do once it is armed. It calls the
// pool or panics.
type hostility struct {
	armed atomic.Bool
	do    func()
}

func (h *hostility) strike() {
	if h.armed.Load() {
		h.do()
	}
}

// A hostileError is one whose every method strikes.
type hostileError struct{ *hostility }

func (e hostileError) Error() string { e.strike(); return "hostile" }

func (e hostileError) String() string { e.strike(); return "hostile" }

func (e hostileError) Is(error) bool { e.strike(); return false }

func (e hostileError) As(any) bool { e.strike(); return false }

func (e hostileError) Unwrap() error { e.strike(); return nil }

// A hostileContext is one whose every method strikes. An opaque one hides the context
// behind it.
type hostileContext struct {
	context.Context
	*hostility
	opaque bool
}

func (c hostileContext) Deadline() (time.Time, bool) { c.strike(); return c.Context.Deadline() }

func (c hostileContext) Done() <-chan struct{} { c.strike(); return c.Context.Done() }

func (c hostileContext) Err() error { c.strike(); return c.Context.Err() }

func (c hostileContext) Value(key any) any {
	c.strike()
	if c.opaque {
		return nil
	}
	return c.Context.Value(key)
}

// hostilities are what hostile values do to a pool.
var hostilities = map[string]func(p *closures) func(){
	"calls": func(p *closures) func() {
		return func() {
			p.Stats()
			_ = p.TrySubmit(context.Background(), returning(0, nil))
			_ = p.Resize(3)
			_ = p.Wait(endedContext())
		}
	},
	"closes": func(p *closures) func() { return func() { _ = p.Shutdown(endedContext()) } },
	"panics": func(*closures) func() { return func() { panic("hostile") } },
	"panics with itself": func(p *closures) func() {
		return func() {
			h := &hostility{do: func() { p.Stats() }}
			h.armed.Store(true)
			panic(hostileError{h})
		}
	},
}

// surviving calls f. A panic is for the caller whose value is hostile, and is dropped.
func surviving(f func()) {
	defer func() { _ = recover() }()
	f()
}

// eachHostility runs test in a bubble for each, with a pool made with opts, and expects that
// the pool survives it.
func eachHostility(t *testing.T, opts []workpool.Option, test func(t *testing.T, p *closures, h *hostility)) {
	t.Helper()
	for name, hostile := range hostilities {
		bubble(t, name, func(t *testing.T) {
			p := newClosures(t, append(slices.Clip(opts), workpool.WithoutResults())...)
			h := new(hostility)
			h.do = hostile(p)
			test(t, p, h)
			survived(t, p, h)
		})
	}
}

// survived expects that p answers and ends.
func survived(t *testing.T, p *closures, h *hostility) {
	t.Helper()
	h.armed.Store(false)
	synctest.Wait()
	value, err := p.Do(context.Background(), returning(7, nil))
	if !p.Stats().Closed {
		assert.NoError(t, err)
		assert.Equal(t, 7, value)
	}
	assertSum(t, p.Stats())
	_ = p.Shutdown(endedContext())
	_ = p.Close()
	s := p.Stats()
	assertSum(t, s)
	assert.Zero(t, s.Running+s.Queued+s.Waiting+s.Held+s.Parked)
}

// errorPlaces are the ends of a task that have an error of the user in them.
var errorPlaces = map[string]func(err error) closure{
	"returned":        func(err error) closure { return returning(0, err) },
	"wrapped":         func(err error) closure { return returning(0, fmt.Errorf("wrapped: %w", err)) },
	"joined":          func(err error) closure { return returning(0, errors.Join(err, errors.New("another"))) },
	"permanent":       func(err error) closure { return returning(0, workpool.Permanent(err)) },
	"panicked":        func(err error) closure { return func(context.Context) (int, error) { panic(err) } },
	"wrong retry":     func(err error) closure { return returning(0, workpool.RetryAfter(-1, err)) },
	"retried at once": func(err error) closure { return thenReturning(err, workpool.RetryAfter(0, err)) },
	"retried later": func(err error) closure {
		return thenReturning(nil, fmt.Errorf("wrapped: %w", workpool.RetryAfter(time.Second, err)))
	},
}

// thenReturning is a task whose first two attempts end with again, and the third with last.
func thenReturning(last, again error) closure {
	attempts := 0
	return func(context.Context) (int, error) {
		if attempts++; attempts < 3 {
			return 0, again
		}
		return 0, last
	}
}

func TestRule11_ErrorsOfHandlersMayDoAnything(t *testing.T) {
	eachCallerAnd(t, errorPlaces, func(t *testing.T, run caller, task func(err error) closure) {
		eachHostility(t, nil, func(_ *testing.T, p *closures, h *hostility) {
			h.armed.Store(true)
			surviving(func() { _ = run(context.Background(), p, task(hostileError{h})) })
		})
	})
}

// eachCallerAnd runs test with each caller and each of the rows.
func eachCallerAnd[V any](t *testing.T, rows map[string]V, test func(t *testing.T, run caller, row V)) {
	t.Helper()
	for way, run := range callers {
		for name, row := range rows {
			t.Run(way+"/"+name, func(t *testing.T) { test(t, run, row) })
		}
	}
}

func TestRule11_ErrorsUnderRetryAndTimeoutMayDoAnything(t *testing.T) {
	for name, hostile := range hostilities {
		bubble(t, name, func(t *testing.T) {
			handler := workpool.Retry(workpool.Timeout(workpool.Call[int], time.Minute), 3, seconds)
			p := mustNew(t, handler, workpool.WithoutResults())
			h := new(hostility)
			h.do = hostile(p)
			h.armed.Store(true)
			surviving(func() { _, _ = p.Do(context.Background(), returning(0, hostileError{h})) })
			survived(t, p, h)
		})
	}
}

// A task waits for its next attempt, with the error of the last one, when it ends in
// another way.
func TestRule11_ErrorsOfParkedTasksMayDoAnything(t *testing.T) {
	type end = func(p *closures, cancel context.CancelCauseFunc, err error)
	ends := map[string]end{
		"aborted":           func(p *closures, _ context.CancelCauseFunc, _ error) { _ = p.Shutdown(endedContext()) },
		"cancelled":         func(_ *closures, cancel context.CancelCauseFunc, _ error) { cancel(nil) },
		"cancelled with it": func(_ *closures, cancel context.CancelCauseFunc, err error) { cancel(err) },
		"next attempt": func(p *closures, _ context.CancelCauseFunc, _ error) {
			time.Sleep(3 * time.Hour)
			_ = p.Wait(context.Background())
		},
	}
	eachCallerAnd(t, ends, func(t *testing.T, run caller, end end) {
		eachHostility(t, nil, func(t *testing.T, p *closures, h *hostility) {
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			err := hostileError{h}
			var caller sync.WaitGroup
			caller.Go(func() {
				surviving(func() { _ = run(ctx, p, thenReturning(err, workpool.RetryAfter(time.Hour, err))) })
			})
			synctest.Wait()
			require.Equal(t, 1, p.Stats().Parked)
			h.armed.Store(true)
			surviving(func() { end(p, cancel, err) })
			synctest.Wait()
			h.armed.Store(false)
			_ = p.Shutdown(endedContext()) // for Submit, which no context takes back
			caller.Wait()
		})
	})
}

func TestRule11_ErrorsOfDroppedTasksMayDoAnything(t *testing.T) {
	eachHostility(t, []workpool.Option{
		workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithOverflow(workpool.DropOldest),
	}, func(t *testing.T, p *closures, h *hostility) {
		answer := p.DoChan(context.Background(), returning(0, workpool.RetryAfter(time.Hour, hostileError{h})))
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Parked)
		release := occupy(t, p, 1)
		h.armed.Store(true)
		require.NoError(t, p.Submit(context.Background(), returning(0, nil)))
		r := <-answer
		h.armed.Store(false)
		assert.ErrorIs(t, r.Err, workpool.ErrDropped)
		release()
	})
}

func TestRule11_PanicsOfTheResultFunctionMayHaveAnyValue(t *testing.T) {
	for name, hostile := range hostilities {
		for _, unrun := range eitherWay {
			bubble(t, fmt.Sprintf("%s/unrun=%v", name, unrun), func(t *testing.T) {
				h := new(hostility)
				var told atomic.Int32
				p := newClosures(t, workpool.WithWorkers(1), workpool.WithResultFunc(func(workpool.Result[closure, int]) {
					if told.Add(1) == 1 {
						panic(hostileError{h})
					}
				}))
				h.do = hostile(p)
				h.armed.Store(true)
				if unrun {
					p.Pause()
					cancel, err := p.SubmitCancel(context.Background(), returning(0, nil))
					require.NoError(t, err)
					cancel()
				} else {
					require.NoError(t, p.Submit(context.Background(), returning(0, nil)))
				}
				synctest.Wait()
				assert.Positive(t, told.Load())
				h.armed.Store(false)
				p.Resume()
				_ = p.Submit(context.Background(), returning(0, nil))
				synctest.Wait()
				err := p.Shutdown(context.Background())
				var panicked *workpool.PanicError
				require.ErrorAs(t, err, &panicked)
				assert.IsType(t, hostileError{}, panicked.Value)
				assertSum(t, p.Stats())
			})
		}
	}
}

func TestRule11_PanicsOfInputsMayHaveAnyValue(t *testing.T) {
	for name, feed := range sequenceWays {
		t.Run(name, func(t *testing.T) {
			eachHostility(t, nil, func(_ *testing.T, p *closures, h *hostility) {
				h.armed.Store(true)
				surviving(func() {
					_ = feed(context.Background(), p, func(yield func(closure) bool) {
						yield(returning(0, nil))
						panic(hostileError{h})
					})
				})
			})
		})
	}
}

// A stage is how far a task has come when its context ends: a task that is handed in then gets
// there.
type stage struct {
	opts []workpool.Option
	busy int // workers
	task closure
	at   func(s workpool.Stats) int
}

var oneWorker = []workpool.Option{workpool.WithWorkers(1)}

var stages = map[string]stage{
	"in line": {
		[]workpool.Option{workpool.WithWorkers(1), workpool.WithQueueDepth(0)},
		1,
		returning(0, nil), func(s workpool.Stats) int { return s.Waiting },
	},
	"queued": {oneWorker, 1, returning(0, nil), func(s workpool.Stats) int { return s.Queued }},
	"running": {oneWorker, 0, func(ctx context.Context) (int, error) {
		_, _ = lasting(time.Second, 0)(ctx)
		return 0, ctx.Err()
	}, func(s workpool.Stats) int { return s.Running }},
	"running after it was parked": {oneWorker, 0, func(ctx context.Context) (int, error) {
		if i, _ := workpool.InfoFrom(ctx); i.Attempt == 1 {
			<-ctx.Done()
			return 0, workpool.RetryAfter(0, ctx.Err())
		}
		return 0, nil
	}, func(s workpool.Stats) int { return s.Running }},
	"parked": {oneWorker, 0, func(ctx context.Context) (int, error) {
		ctx.Done() // which makes a context that has to be freed
		return 0, workpool.RetryAfter(time.Hour, nil)
	}, func(s workpool.Stats) int { return s.Parked }},
}

// reach has run bring a task of s to its stage, and then calls strike while h is armed. It
// returns a function that waits for run.
func (s stage) reach(t *testing.T, p *closures, h *hostility, run func(task closure), strike func()) (wait func()) {
	t.Helper()
	release := func() {}
	if s.busy > 0 {
		release = occupy(t, p, s.busy)
	}
	var caller sync.WaitGroup
	caller.Go(func() { run(s.task) })
	synctest.Wait()
	require.Equal(t, 1, s.at(p.Stats()), "%+v", p.Stats())
	h.armed.Store(true)
	strike()
	synctest.Wait()
	h.armed.Store(false)
	release()
	return caller.Wait
}

func TestRule11_CausesOfContextsMayDoAnything(t *testing.T) {
	eachCallerAnd(t, stages, func(t *testing.T, run caller, s stage) {
		eachHostility(t, s.opts, func(t *testing.T, p *closures, h *hostility) {
			ctx, cancel := context.WithCancelCause(context.Background())
			hand := func(task closure) { surviving(func() { _ = run(ctx, p, task) }) }
			wait := s.reach(t, p, h, hand, func() { cancel(hostileError{h}) })
			_ = p.Shutdown(endedContext())
			wait()
		})
	})
}

// The methods of a context strike from the moment when its task has come so far. Those of
// an opaque one are called by package context on a goroutine of its own, where a panic is
// nobody's to catch.
func TestRule11_ContextsMayDoAnything(t *testing.T) {
	for _, opaque := range eitherWay {
		eachCallerAnd(t, stages, func(t *testing.T, run caller, s stage) {
			eachHostility(t, s.opts, func(t *testing.T, p *closures, h *hostility) {
				if do := h.do; opaque {
					h.do = func() { surviving(do) }
				}
				base, cancel := context.WithCancel(context.Background())
				hand := func(task closure) { surviving(func() { _ = run(hostileContext{base, h, opaque}, p, task) }) }
				wait := s.reach(t, p, h, hand, cancel)
				_ = p.Shutdown(endedContext())
				wait()
			})
		})
	}
}

// They strike from the first.
func TestRule11_ContextsMayDoAnythingFromTheFirst(t *testing.T) {
	ends := map[string]bool{"can not end": false, "can end": true}
	for _, opaque := range eitherWay {
		eachCallerAnd(t, ends, func(t *testing.T, run caller, ends bool) {
			eachHostility(t, nil, func(t *testing.T, p *closures, h *hostility) {
				base := context.Background()
				if ends {
					base = limited(t, time.Hour)
				}
				if do := h.do; opaque {
					h.do = func() { surviving(do) }
				}
				h.armed.Store(true)
				surviving(func() {
					_ = run(hostileContext{base, h, opaque}, p, func(ctx context.Context) (int, error) {
						ctx.Done()
						return 0, ctx.Err()
					})
				})
			})
		})
	}
}

func TestRule11_ContextsOfWaitAndShutdownMayDoAnything(t *testing.T) {
	waits := map[string]func(ctx context.Context, p *closures) error{
		"Wait":     func(ctx context.Context, p *closures) error { return p.Wait(ctx) },
		"Shutdown": func(ctx context.Context, p *closures) error { return p.Shutdown(ctx) },
	}
	for name, wait := range waits {
		for _, cause := range eitherWay {
			t.Run(fmt.Sprintf("%s/cause=%v", name, cause), func(t *testing.T) {
				eachHostility(t, []workpool.Option{workpool.WithWorkers(2)}, func(t *testing.T, p *closures, h *hostility) {
					release := occupy(t, p, 2)
					require.NoError(t, p.Submit(context.Background(), returning(0, nil)))
					base, cancel := context.WithCancelCause(context.Background())
					ctx := base
					if !cause {
						ctx = hostileContext{base, h, false}
					}
					done := make(chan struct{})
					go func() {
						defer close(done)
						surviving(func() { _ = wait(ctx, p) })
					}()
					synctest.Wait()
					h.armed.Store(true)
					cancel(hostileError{h})
					<-done
					h.armed.Store(false)
					release()
				})
			})
		}
	}
}

func TestRule11_TheContextOfThePoolMayDoAnything(t *testing.T) {
	for name, hostile := range hostilities {
		for stage, s := range stages {
			for _, cause := range eitherWay {
				bubble(t, fmt.Sprintf("%s/%s/cause=%v", name, stage, cause), func(t *testing.T) {
					h := new(hostility)
					base, cancel := context.WithCancelCause(context.Background())
					ctx := base
					if !cause {
						ctx = hostileContext{base, h, false}
					}
					p := newClosures(t, append(slices.Clip(s.opts), workpool.WithContext(ctx), workpool.WithoutResults())...)
					h.do = hostile(p)
					hand := func(task closure) { surviving(func() { _, _ = p.Do(context.Background(), task) }) }
					s.reach(t, p, h, hand, func() { surviving(func() { cancel(hostileError{h}) }) })()
					survived(t, p, h)
				})
			}
		}
	}
}

// A listError can't be compared.
type listError []string

func (listError) Error() string { return "list" }

// A listContext ends with an error that can't be compared.
type listContext struct{ context.Context }

func (c listContext) Value(any) any { return nil }

func (c listContext) Err() error {
	if c.Context.Err() == nil {
		return nil
	}
	return listError{"ended"}
}

func TestRule11_ErrorsOfContextsNeedNotBeComparable(t *testing.T) {
	for stage, s := range stages {
		eachNamed(t, callers, func(t *testing.T, way string, run caller) {
			p := newClosures(t, append(slices.Clip(s.opts), workpool.WithoutResults())...)
			base, cancel := context.WithCancel(context.Background())
			var err error
			wait := s.reach(t, p, new(hostility), func(task closure) { err = run(listContext{base}, p, task) }, cancel)
			if way != "Submit" && stage != "running after it was parked" {
				wait() // the end of the context ends the call, and the handler
				assert.ErrorAs(t, err, new(listError))
			}
			_ = p.Shutdown(endedContext())
			wait()
			survived(t, p, new(hostility))
		})
	}
	bubble(t, "WithContext", func(t *testing.T) {
		base, cancel := context.WithCancel(context.Background())
		p := newClosures(t, workpool.WithContext(listContext{base}))
		submit(t, p, untilEnd)
		synctest.Wait()
		cancel()
		synctest.Wait() // package context hears of such a context on a goroutine
		var cut *workpool.ShutdownError
		require.ErrorAs(t, p.Close(), &cut)
		assert.ErrorAs(t, cut.Cause, new(listError))
	})
}
