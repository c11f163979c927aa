package workpool

import (
	"cmp"
	"context"
	"runtime/trace"
	"time"
)

// An Observer has functions that a pool calls when tasks begin and end. See
// [WithObserver]. A nil function is not called.
//
// The functions are called by many goroutines at once. They run on the goroutine of
// the caller or the worker, and may use the pool as a handler may: with the context
// that they get. A panic of Submit is the error of the call that submitted the task;
// a panic of Begin or End is the error of the task.
type Observer struct {
	// Submit is called by the caller that submits tasks, with its context: once for each
	// Submit, TrySubmit, SubmitCancel, Do, TryDo and DoChan, and once in all for a SubmitAll,
	// Map, Stream or Group. The tasks may still be refused. What it returns becomes the Value
	// of their events. Return a span context or the like, and not ctx: if each task submits the
	// next one, the contexts would form a chain that grows with each.
	Submit func(ctx context.Context) any

	// Begin is called by the worker when an attempt of a task begins, with the context of its
	// handler. It returns the context that the handler gets, which must be ctx or derived from
	// it; nil stands for ctx. A task that the handler itself submits by Submit, Do or one of
	// their variants has the values of the handler's own task, without those that Begin added.
	Begin func(ctx context.Context, e Event) context.Context

	// End is called when an attempt has ended, by a return, a panic or a Goexit, with the
	// context that its handler got. A task that never ran has neither Begin nor End; [Stats]
	// counts it.
	End func(ctx context.Context, e Event)
}

// An Event describes one attempt of a task.
type Event struct {
	Info
	Way      Way           // how the task was submitted
	Value    any           // what Submit of the observer returned
	Waited   time.Duration // from when the task was submitted, or its next attempt was due, until the attempt began
	Took     time.Duration // at the end: how long Begin and the handler took; in what Working returns, how long so far
	Panicked bool          // at the end: the handler itself panicked; Err may also be a *PanicError that it returned
	Err      error         // at the end: what the handler returned, a *PanicError or ErrGoexit; RetryDelay reports whether it asks for another attempt
}

// A Way is how a task was submitted. With [BySubmit] nobody waits for the task, so
// a trace links it to the caller. With all others the caller waits, and is the
// parent.
type Way uint8

// The ways to submit a task.
const (
	BySubmit Way = iota // by Submit, TrySubmit, SubmitAll or SubmitCancel
	ByCall              // by Do, TryDo or DoChan
	ByMap               // by Map
	ByStream            // by Stream or ForEach
	ByGroup             // by Group.Submit
)

// String returns "submit", "call", "map", "stream" or "group".
func (w Way) String() string {
	if int(w) < len(ways) {
		return ways[w]
	}
	return "unknown"
}

var ways = [...]string{"submit", "call", "map", "stream", "group"}

// WithObserver has the pool call the functions of o when tasks begin and end. If it
// is given several times, each observer is called: Begin in the order of the
// options, End in the reverse order. Without it, nothing is measured. With it,
// [Pool.Working] reports what the workers are doing.
func WithObserver(o Observer) Option {
	return setting(func(c *config) { c.observers = append(c.observers, o) })
}

// Working returns an [Event] for each attempt that a worker is running, in the
// order of the workers. Took is the time so far. A handler that waits for tasks of
// its own pool is followed by the one that runs in its place, which has the same
// worker number. Tasks that [CallerRuns] runs are not included. With several
// observers, Value is a []any with one element for each. Without [WithObserver],
// Working returns nil.
func (p *Pool[T, R]) Working() []Event {
	if p.observer == nil {
		return nil
	}
	p.lock()
	defer p.unlock()
	events := make([]Event, 0, p.crew.alive)
	for _, w := range p.crew.members {
		if w != nil {
			events = w.report(events)
		}
	}
	return events
}

// An observer is what a pool has of all its Observers.
type observer struct {
	Observer
	base time.Time // a moment before the pool was made, so that nothing happens at 0
}

func newObserver(observers []Observer) *observer {
	switch len(observers) {
	case 0:
		return nil
	case 1:
		return &observer{observers[0], time.Now().Add(-1)}
	}
	return &observer{joined(observers), time.Now().Add(-1)}
}

// now returns the time since the pool was made, or 0 without an observer. That takes half as
// long as reading the time of day.
func (o *observer) now() time.Duration {
	if o == nil {
		return 0
	}
	return time.Since(o.base)
}

// joined combines several Observers into one. The value of a task is a slice of theirs.
func joined(observers []Observer) Observer {
	return Observer{
		Submit: func(ctx context.Context) any {
			values := make([]any, len(observers))
			for i, o := range observers {
				if o.Submit != nil {
					values[i] = o.Submit(ctx)
				}
			}
			return values
		},
		Begin: func(ctx context.Context, e Event) context.Context {
			values := e.Value.([]any)
			told := 0
			defer func() {
				if told == len(observers) {
					return
				}
				v := recover() // those who were told of the beginning are told of the end
				e.Err, e.Panicked = errorOf(v), v != nil
				tellEnd(ctx, e, observers[:told], values)
				if v != nil {
					panic(v)
				}
			}()
			for i, o := range observers {
				if o.Begin != nil {
					e.Value = values[i]
					if own := o.Begin(ctx, e); own != nil {
						ctx = own
					}
				}
				told++
			}
			return ctx
		},
		End: func(ctx context.Context, e Event) {
			tellEnd(ctx, e, observers, e.Value.([]any))
		},
	}
}

// tellEnd calls End of the observers, the last one first, even if one of them panics.
func tellEnd(ctx context.Context, e Event, observers []Observer, values []any) {
	if len(observers) == 0 {
		return
	}
	last := len(observers) - 1
	defer tellEnd(ctx, e, observers[:last], values)
	if end := observers[last].End; end != nil {
		e.Value = values[last]
		end(ctx, e)
	}
}

// An origin is what an observer is told about how tasks were submitted. It does not change.
type origin struct {
	way   Way
	value any
}

// origins are those of tasks about which the observer has said nothing.
var origins = [...]origin{{way: BySubmit}, {way: ByCall}, {way: ByMap}, {way: ByStream}, {way: ByGroup}}

// origin returns the origin of tasks that are submitted with ctx, or nil without an observer.
func (p *Pool[T, R]) origin(ctx context.Context, way Way) (*origin, error) {
	if p.observer == nil {
		return nil, nil
	}
	return p.observer.origin(ctx, way)
}

func (o *observer) origin(ctx context.Context, way Way) (_ *origin, err error) {
	if o.Submit == nil {
		return &origins[way], nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = from("observer", newPanicError(v))
		}
	}()
	return &origin{way, o.Submit(ctx)}, nil
}

// callObserved calls the handler for j and reports the beginning and end of the attempt to
// the observer and to the tracer of the Go runtime. Nothing else does.
func (w *worker[T, R]) callObserved(j *job[T, R]) {
	ctx := w.contextFor(j)
	if trace.IsEnabled() {
		defer trace.StartRegion(ctx, cmp.Or(w.pool.name, "workpool")).End()
	}
	o := w.pool.observer
	if o == nil {
		j.value, j.err = w.pool.handler(ctx, j.task)
		return
	}
	a := attempt[T, R]{worker: w, ctx: ctx}
	a.Info, a.Way, a.Value = ctx.info(), j.origin.way, j.origin.value
	a.began = o.now()
	a.Waited = a.began - j.at
	if o.Begin != nil {
		if changed := o.Begin(ctx, a.Event); changed != nil && changed != a.ctx {
			a.ctx = &observedContext{changed, ctx}
		}
	}
	w.began.Store(int64(a.began))
	defer a.end(j)
	j.value, j.err = w.pool.handler(a.ctx, j.task)
	a.returned = true
}

// An attempt is one call of the handler in a pool with an observer.
type attempt[T, R any] struct {
	Event
	worker   *worker[T, R]
	ctx      context.Context // the handler's
	began    time.Duration
	returned bool
}

func (a *attempt[T, R]) end(j *job[T, R]) {
	w, o := a.worker, a.worker.pool.observer
	w.began.Store(0)
	if !a.returned {
		w.failed(recover())
	}
	if o.End != nil {
		a.Took, a.Panicked, a.Err = o.now()-a.began, w.panicked, j.err
		o.End(a.ctx, a.Event)
	}
}

// working adds what w is running to events.
func (w *worker[T, R]) working(events []Event) []Event {
	j, began := w.job, time.Duration(w.began.Load())
	if j != nil && began > 0 {
		index := w.claimed.Load()
		if _, ofMap := j.to.(*mapping[T, R]); !ofMap {
			index = j.index
		}
		events = append(events, Event{
			Info:   Info{Pool: w.pool.name, Worker: int(w.number), Index: index, Attempt: int(j.attempt)},
			Way:    j.origin.way,
			Value:  j.origin.value,
			Waited: began - j.at,
			Took:   w.pool.observer.now() - began,
		})
	}
	if w.place != nil && w.place.helper != nil {
		events = w.place.helper.working(events)
	}
	return events
}

// An observedContext is the context that an observer's Begin returned. See carrier.
type observedContext struct {
	context.Context
	handler context.Context
}

func (c *observedContext) carries(any) (context.Context, bool) { return c.handler, true }
