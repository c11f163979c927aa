package workpool

import (
	"context"
	"reflect"
	"sync"
	"time"
)

// Info tells a handler which task it runs, and where.
type Info struct {
	Pool    string // the name given with WithName
	Worker  int    // 1..N
	Index   uint64 // as in Result
	Attempt int    // as in Result
}

// InfoFrom returns the Info of the task whose handler was called with ctx, or
// with a context that ctx is derived from. It reports false for any other
// context. It is for use while the handler runs: later, the worker may be
// at another task, and InfoFrom speaks of that one or of none.
func InfoFrom(ctx context.Context) (Info, bool) {
	w, ok := ctx.Value(workerKey{}).(interface{ info() (Info, bool) })
	if !ok {
		return Info{}, false
	}
	return w.info()
}

// workerKey is the key under which the context of a handler has its worker.
// The worker's pool is another one: see inside.
type workerKey struct{}

// inside returns the worker of p whose handler ctx belongs to, or nil.
func (p *Pool[T, R]) inside(ctx context.Context) *worker[T, R] {
	w, _ := ctx.Value(p).(*worker[T, R])
	return w
}

// A handlerContext is what handlers get: a worker, or a taskContext.
type handlerContext interface {
	context.Context
	base() context.Context      // of the pool, for values that the task's context has not
	submitted() context.Context // what the task was submitted with
}

// A worker is itself the context of the tasks that were submitted with
// context.Background(): it ends when the pool is aborted.

func (w *worker[T, R]) Deadline() (time.Time, bool) { return w.pool.abortContext.Deadline() }
func (w *worker[T, R]) Done() <-chan struct{}       { return w.pool.abortContext.Done() }
func (w *worker[T, R]) Err() error                  { return w.pool.abortContext.Err() }

func (w *worker[T, R]) Value(key any) any {
	if key == (workerKey{}) || key == any(w.pool) {
		return w
	}
	if v := w.pool.abortContext.Value(key); v != nil {
		return v
	}
	return w.base().Value(key)
}

// String keeps fmt from printing the whole pool.
func (w *worker[T, R]) String() string { return "workpool handler context" }

func (w *worker[T, R]) base() context.Context      { return w.pool.ctx }
func (w *worker[T, R]) submitted() context.Context { return context.Background() }

// A taskContext is the context of a handler whose task came with a context
// that has something to say. It says where deadline and cancellation come from
// and where values do, and it never changes: so a worker uses one for all the
// tasks in a row that came with the same context, and one that a handler has
// kept stays true.
type taskContext struct {
	context.Context                 // deadline and cancellation
	values          context.Context // what the task was submitted with
	worker          handlerContext
	nested          bool // a handler of the same pool waits for the task
}

// Value first looks for the keys of the worker, which the task's context may
// have too if it comes from another handler. Then it asks the context that
// cancels: context.Cause and the like find their way to it by a value.
//
// That a context is inside a handler of some pool is a value too. A task that
// nobody waits for is not inside the handler that submitted it.
func (c *taskContext) Value(key any) any {
	if own := c.worker.Value(key); own == any(c.worker) {
		return own
	}
	if v := c.Context.Value(key); v != nil {
		return v
	}
	v := c.values.Value(key)
	if _, inside := v.(handlerContext); inside && !c.nested {
		v = nil
	}
	if v == nil {
		v = c.worker.base().Value(key)
	}
	return v
}

// String keeps fmt from printing the whole pool.
func (c *taskContext) String() string { return "workpool handler context" }

func (c *taskContext) base() context.Context { return c.worker.base() }

func (c *taskContext) submitted() context.Context {
	if b, ok := c.values.(*batchContext); ok {
		return b.Context
	}
	return c.values
}

// contextFor returns the context for a handler whose task came with ctx.
func (w *worker[T, R]) contextFor(ctx context.Context) context.Context {
	if ctx == context.Background() {
		return w
	}
	if w.ctx != nil && w.ctx.values == ctx {
		w.ctxOnce = 0
		return w.ctx
	}
	switch c := ctx.(type) {
	case *callContext:
		c.handler.worker = w
		return &c.handler
	case handlerContext:
		if inner := w.pool.unwrap(c); inner != c && w.nested == nil {
			return w.contextFor(inner)
		}
	}
	c := &taskContext{Context: w.pool.abortContext, values: ctx, worker: w, nested: w.nested != nil}
	if _, ofBatch := ctx.(*batchContext); ofBatch {
		c.Context = ctx
	}
	if v := reflect.ValueOf(ctx); v.Kind() == reflect.Pointer { // others may not be comparable with the next one
		w.ctx = c
		if v.Pointer() == w.ctxOnce {
			w.ctxOnce = 0
		} else {
			w.ctxOnce = v.Pointer()
		}
	}
	return c
}

// unwrap returns, for the context of a handler, what the handler's own task
// was submitted with: the same values, without the handler around them. Else
// tasks that submit tasks would make a chain of contexts that grows with each.
func (p *Pool[T, R]) unwrap(h handlerContext) context.Context {
	if h.base() != context.Background() && h.Value(p) == nil {
		return h // of another pool, which has values of its own
	}
	return h.submitted()
}

// forgetContext drops the context that w keeps for its next task, if that has
// come only once, as the context of a request does, or is that of a batch. One
// that has come again is kept: many tasks share it, and it spares them an
// allocation each time that w wakes.
func (w *worker[T, R]) forgetContext() {
	if w.ctx != nil && (w.ctxOnce != 0 || w.ctx.Context == w.ctx.values) {
		w.ctx = nil
	}
}

// info is what InfoFrom returns.
func (w *worker[T, R]) info() (Info, bool) {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	j := w.job
	if j == nil {
		return Info{}, false
	}
	index := j.index
	if j.isRun {
		r := j.to.(*run[T, R])
		claimed, _ := r.claimed()
		index = r.index + uint64(claimed-1)
	}
	return Info{Pool: w.pool.name, Worker: int(w.id), Index: index, Attempt: int(j.attempt)}, true
}

// A batchContext marks the context of a Map or Stream, which ends with that
// of its caller and with the pool.
type batchContext struct{ context.Context }

// A callContext is what a call with a context that can end submits its task
// with, and SubmitCancel: it ends when the caller's context ends, when the pool is aborted, or,
// if it was ever waited for, when the handler has returned. The two are only
// merged when a handler first asks, since most never do.
type callContext struct {
	handler taskContext // what the handler gets; its Context is the callContext
	caller  context.Context
	abort   context.Context

	mu     sync.Mutex // guards the rest
	merged context.Context
	cancel context.CancelCauseFunc
	stops  []func() bool // of what waits for the caller's context, or the pool's
	ended  bool          // the handler has returned
}

// newCallContext returns what a call with ctx submits its task with.
func (p *Pool[T, R]) newCallContext(ctx context.Context) context.Context {
	if ctx.Done() == nil {
		return ctx // nothing to merge: it lends its values, as in Submit
	}
	return p.newBoundContext(ctx, ctx)
}

// newBoundContext returns a context that ends with caller, and has the values of
// values.
func (p *Pool[T, R]) newBoundContext(caller, values context.Context) *callContext {
	c := &callContext{caller: caller, abort: p.abortContext}
	c.handler = taskContext{Context: c, values: values}
	return c
}

func (c *callContext) merge() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.merged != nil {
		return c.merged
	}
	c.merged, c.cancel = context.WithCancelCause(c.caller)
	switch {
	case c.abort.Err() != nil:
		c.cancel(context.Cause(c.abort))
	case c.ended:
		c.cancel(nil)
	default:
		stop := context.AfterFunc(c.abort, func() { c.cancel(context.Cause(c.abort)) })
		c.stops = append(c.stops, stop)
	}
	return c.merged
}

// watch calls f when the caller's context ends before the handler does.
func (c *callContext) watch(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.stops = append(c.stops, context.AfterFunc(c.caller, f))
	}
}

// endNothing ends c if there is nothing to free, and reports whether that is so.
// Unlike end it never calls code of the user, nor waits for it.
func (c *callContext) endNothing() bool {
	if !c.mu.TryLock() {
		return false
	}
	defer c.mu.Unlock()
	if c.merged != nil || len(c.stops) > 0 {
		return false
	}
	c.ended = true
	return true
}

// end frees all that c has tied to the caller's context and the pool's. It is
// called when the handler has returned for the last time, or its task has ended
// before another attempt.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for _, stop := range c.stops {
		stop()
	}
	if c.merged != nil {
		c.cancel(nil)
	}
}

// current returns the context that answers for c at this time.
func (c *callContext) current() context.Context {
	c.mu.Lock()
	merged := c.merged
	c.mu.Unlock()
	if merged == nil && c.abort.Err() == nil {
		return c.caller
	}
	return c.merge()
}

func (c *callContext) Deadline() (time.Time, bool) { return c.caller.Deadline() }
func (c *callContext) Done() <-chan struct{}       { return c.merge().Done() }
func (c *callContext) Err() error                  { return c.current().Err() }
func (c *callContext) Value(key any) any           { return c.current().Value(key) }
