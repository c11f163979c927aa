package workpool

import (
	"context"
	"errors"
	"math"
	"reflect"
	"sync"
	"time"
	"unsafe"
)

// Info tells a handler which task it runs, and where.
type Info struct {
	Pool    string // the name given with WithName
	Worker  int    // as in Result
	Index   uint64 // as in Result
	Attempt int    // as in Result
}

// InfoFrom returns the Info of the task whose handler was called with ctx, or
// with a context that ctx is derived from. It reports false for any other
// context. It takes no lock.
func InfoFrom(ctx context.Context) (Info, bool) {
	if ctx == nil {
		return Info{}, false
	}
	s, ok := ctx.Value(infoKey{}).(interface{ info() Info })
	if !ok {
		return Info{}, false
	}
	return s.info(), true
}

// infoKey is the key under which a handler's context returns itself. Its pool is another such key.
type infoKey struct{}

// A handlerContext is the context of one handler. It never changes and is never reused, so a
// context that is used after its handler has returned can be told from that of a later task. To
// keep the memory for each task small, the contexts of many tasks share a block. A
// handlerContext has only its position in the block, and the difference between the index of
// its task and that of the block's first task.
type handlerContext[T, R any] struct {
	position uint16
	excess   uint16
}

// A contextBlock has what its handler contexts share: they are of one worker, and of tasks that
// were submitted with the same context. The handler contexts follow it in memory: see
// oneContext.
type contextBlock[T, R any] struct {
	worker  *worker[T, R]
	task    context.Context // the context that the tasks were submitted with; nil for context.Background()
	life    context.Context // its end ends the handlers' contexts
	index   uint64          // of the first task
	attempt int32
	number  int32 // of the worker
}

// The more tasks are submitted with the same context, the larger are its blocks: 64, 160 or 512
// bytes.
type (
	oneContext[T, R any] struct {
		contextBlock[T, R]
		contexts [1]handlerContext[T, R]
	}
	someContexts[T, R any] struct {
		contextBlock[T, R]
		contexts [28]handlerContext[T, R]
	}
	manyContexts[T, R any] struct {
		contextBlock[T, R]
		contexts [116]handlerContext[T, R]
	}
)

// block returns the block of s. The block ends where its first context begins, position
// contexts before s.
func (s *handlerContext[T, R]) block() *contextBlock[T, R] {
	before := uintptr(s.position)*unsafe.Sizeof(*s) + unsafe.Sizeof(contextBlock[T, R]{})
	return (*contextBlock[T, R])(unsafe.Add(unsafe.Pointer(s), -int(before)))
}

func (s *handlerContext[T, R]) index() uint64 { return s.block().index + uint64(s.excess) }

func (s *handlerContext[T, R]) Deadline() (time.Time, bool) { return s.block().life.Deadline() }
func (s *handlerContext[T, R]) Done() <-chan struct{}       { return s.block().life.Done() }
func (s *handlerContext[T, R]) Err() error                  { return s.block().life.Err() }

// Value first looks for the context that cancels this one, which package context finds by a value
// (see context.Cause). Then come the values of the task's context, and those of WithContext.
//
// The identity of a handler is a value too. It is not passed on to a task that the handler
// submitted and does not wait for: that task does not run inside the handler.
func (s *handlerContext[T, R]) Value(key any) any {
	o := s.block()
	p := o.worker.pool
	if key == (infoKey{}) || key == any(p) {
		return s
	}
	switch o.task.(type) {
	case *callContext, *batchContext:
		if v := o.task.Value(key); v != nil {
			return v
		}
	case nil:
		return p.life.value(key)
	default:
		if p.life.isKey(key) {
			break
		}
		if v := o.task.Value(key); v != nil {
			if _, inside := v.(carrier); !inside {
				return v
			}
		}
	}
	return p.life.value(key)
}

// String keeps fmt from printing the whole pool.
func (s *handlerContext[T, R]) String() string { return "workpool handler context" }

func (s *handlerContext[T, R]) info() Info {
	b := s.block()
	return Info{Pool: b.worker.pool.name, Worker: int(b.number), Index: s.index(), Attempt: int(b.attempt)}
}

// runsLocked reports whether the handler of s is still running. It reports false for nil.
func (s *handlerContext[T, R]) runsLocked() bool {
	if s == nil {
		return false
	}
	o := s.block()
	j := o.worker.job
	if j == nil || j.attempt != o.attempt {
		return false
	}
	its, _ := o.task.(*batchContext)
	batch, _ := j.ctx.(*batchContext)
	switch _, ofMap := j.to.(*mapping[T, R]); {
	case its != batch: // indexes of different batches are not comparable
		return false
	case ofMap:
		return o.worker.claimed.Load() == s.index()
	}
	return j.index == s.index()
}

// handlerOf returns the context of a handler of p from which ctx is derived, which may be ctx
// itself, or nil.
func (p *Pool[T, R]) handlerOf(ctx context.Context) *handlerContext[T, R] {
	s, _ := ctx.Value(p).(*handlerContext[T, R])
	return s
}

// placeOfLocked returns the inPlace of the handler of s, or nil if s is nil or its handler has
// returned.
func (p *Pool[T, R]) placeOfLocked(s *handlerContext[T, R]) *inPlace[T, R] {
	if !s.runsLocked() {
		return nil
	}
	return s.block().worker.placeLocked()
}

// contexts makes the contexts for the tasks of a worker.
type contexts[T, R any] struct {
	block    *contextBlock[T, R]
	spare    []handlerContext[T, R] // the unused ones of the block
	position uint16                 // the position of the first of them
	once     uintptr                // the address of the last task's context if it was seen only once, or 0
}

// contextFor returns the context for the handler of j.
func (w *worker[T, R]) contextFor(j *job[T, R]) *handlerContext[T, R] {
	c := &w.contexts
	b := c.block
	if b == nil || len(c.spare) == 0 || j.index-b.index > math.MaxUint16 || j.attempt != b.attempt || !sameContext(b.task, j.ctx) {
		b = w.newContexts(j)
	}
	s := &c.spare[0]
	s.position, s.excess = c.position, uint16(j.index-b.index)
	c.spare = c.spare[1:]
	c.position++
	return s
}

// newContexts makes a block whose first context is for the handler of j. It is larger than the
// last one if that was filled by tasks with the same context.
func (w *worker[T, R]) newContexts(j *job[T, R]) *contextBlock[T, R] {
	c := &w.contexts
	again := c.block != nil && sameContext(c.block.task, j.ctx)
	if !again {
		c.note(j.ctx)
	}
	switch {
	case !again || len(c.spare) > 0: // the last block was not filled, so the next one would not be either
		one := new(oneContext[T, R])
		c.block, c.spare = &one.contextBlock, one.contexts[:]
	case c.position == 1:
		some := new(someContexts[T, R])
		c.block, c.spare = &some.contextBlock, some.contexts[:]
	default:
		many := new(manyContexts[T, R])
		c.block, c.spare = &many.contextBlock, many.contexts[:]
	}
	c.position = 0
	b := c.block
	b.worker, b.task, b.life, b.index = w, j.ctx, w.pool.life.ctx, j.index
	b.attempt, b.number = j.attempt, j.worker
	switch j.ctx.(type) {
	case *callContext, *batchContext:
		b.life = j.ctx
	}
	return b
}

// note updates once for ctx, the context of the next task.
func (c *contexts[T, R]) note(ctx context.Context) {
	if ctx == nil || reflect.TypeOf(ctx).Kind() != reflect.Pointer {
		c.once = 0
		return
	}
	if address := reflect.ValueOf(ctx).Pointer(); address == c.once {
		c.once = 0
	} else {
		c.once = address
	}
}

// forgetContext releases the context of the last task if it belongs to a batch, or was seen
// only once, as that of a request is. A context that was seen again is kept until the next
// task: many tasks share it, and keeping its block saves an allocation each time that w wakes.
func (w *worker[T, R]) forgetContext() {
	c := &w.contexts
	if c.block == nil || c.block.task == nil {
		return
	}
	if _, batch := c.block.task.(*batchContext); batch || c.once != 0 {
		c.block, c.spare = nil, nil
	}
}

// sameContext reports whether two contexts are the same. Contexts that are not pointers count as
// different, since they may not be comparable.
func sameContext(a, b context.Context) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	if of, ok := a.(*batchContext); ok {
		other, ok := b.(*batchContext)
		return ok && of == other
	}
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Kind() == reflect.Pointer && a == b
}

// A carrier is a context of this package that tasks may be submitted with. A task that is
// submitted with a carrier takes the context from which the carrier has its values. Otherwise
// tasks that submit tasks would form a chain of contexts that grows with each.
type carrier interface {
	context.Context
	carries(pool any) (inner context.Context, ok bool)
}

// carried returns the context whose values a task gets that is submitted with ctx, or nil for
// context.Background().
func (p *Pool[T, R]) carried(ctx context.Context) context.Context {
	for ctx != nil && ctx != context.Background() {
		c, ok := ctx.(carrier)
		if !ok {
			return ctx
		}
		inner, ok := c.carries(p)
		if !ok {
			return ctx
		}
		ctx = inner
	}
	return nil
}

func (s *handlerContext[T, R]) carries(pool any) (context.Context, bool) {
	p := s.block().worker.pool
	if p.ctx != context.Background() && any(p) != pool {
		return nil, false // s also has the values of WithContext
	}
	return s.block().task, true
}

// A batchContext is the context of a Map, Stream or Group. It ends with that of its
// caller and with the pool.
type batchContext struct {
	context.Context
	caller context.Context
	pool   *life
	cancel context.CancelCauseFunc
	unlink func() bool
}

func newBatchContext(ctx context.Context, pool *life) *batchContext {
	b := &batchContext{caller: ctx, pool: pool}
	b.Context, b.cancel = context.WithCancelCause(ctx)
	b.unlink = pool.onAbort(b.cancel)
	return b
}

// Err reports the end of the pool's context at once. Done is closed a moment later, by another
// goroutine.
func (b *batchContext) Err() error {
	if err := b.Context.Err(); err != nil || !b.pool.tied {
		return err
	}
	return b.pool.err()
}

// Value finds the cause of an abort by the pool's context, even if Context has ended with that
// context's own cause or has not been cancelled yet.
func (b *batchContext) Value(key any) any {
	if b.pool.tied && b.pool.err() != nil && b.pool.isKey(key) {
		if cause := context.Cause(b.Context); cause == nil || errors.Is(context.Cause(b.pool.ctx), cause) {
			return b.pool.aborted().Value(key)
		}
	}
	return b.Context.Value(key)
}

func (b *batchContext) carries(any) (context.Context, bool) { return b.caller, true }

// end releases the link to the caller's context.
func (b *batchContext) end() {
	b.unlink()
	b.cancel(nil)
}

// A callContext is the context that a call submits its task with, if the caller's context can
// end. It ends with the caller's context and with the pool. If somebody has waited for it, it
// also ends when the handler has returned. The two are only merged when somebody asks for Done,
// which most handlers never do.
type callContext struct {
	caller context.Context
	values context.Context
	pool   *life

	mu     sync.Mutex // guards the rest
	merged context.Context
	cancel context.CancelCauseFunc
	unlink func() bool
	ended  bool // the handler has returned
}

// callContextFor returns the context that a call with ctx submits its task with. Nested calls
// do not make a chain of contexts.
func (p *Pool[T, R]) callContextFor(ctx context.Context) (task context.Context, bound bool) {
	caller, values := ctx, ctx
	if ctx == context.Background() {
		return nil, false
	}
	if o, ok := ctx.(*observedContext); ok {
		ctx = o.handler
	}
	if s, ok := ctx.(*handlerContext[T, R]); ok && s.block().worker.pool == p {
		switch task := s.block().task.(type) {
		case *callContext:
			caller, values = task.caller, task.values
		case *batchContext:
		default:
			return task, false // it ends with the pool alone
		}
	}
	if caller.Done() == nil {
		return values, false
	}
	return &callContext{caller: caller, values: values, pool: &p.life}, true
}

func (c *callContext) merge() context.Context {
	c.mu.Lock()
	merged := c.merged
	c.mu.Unlock()
	if merged != nil {
		return merged
	}
	merged, cancel := context.WithCancelCause(c.caller) // without the mutex, since it may call user code
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.merged != nil { // another goroutine was faster
		defer cancel(nil)
		return c.merged
	}
	c.merged, c.cancel = merged, cancel
	switch {
	case c.ended:
		defer cancel(nil)
	default:
		c.unlink = c.pool.onAbort(cancel)
	}
	return merged
}

// isMerged reports whether end has something to release.
func (c *callContext) isMerged() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = c.ended || c.merged == nil
	return c.merged != nil
}

// end releases the link to the caller's context. It is called when the handler has returned for
// the last time, without the pool's mutex.
func (c *callContext) end() {
	c.mu.Lock()
	c.ended = true
	merged, cancel, unlink := c.merged, c.cancel, c.unlink
	c.mu.Unlock()
	if unlink != nil {
		unlink()
	}
	if merged != nil {
		cancel(nil)
	}
}

// current returns the context that Err and Value ask.
func (c *callContext) current() context.Context {
	c.mu.Lock()
	merged := c.merged
	c.mu.Unlock()
	switch {
	case merged != nil && merged.Err() != nil:
		return merged
	case c.pool.err() != nil && c.caller.Err() == nil: // Done is closed a moment later
		return c.pool.aborted()
	case merged != nil:
		return merged
	}
	return c.caller
}

func (c *callContext) Deadline() (time.Time, bool) { return c.caller.Deadline() }
func (c *callContext) Done() <-chan struct{}       { return c.merge().Done() }
func (c *callContext) Err() error                  { return c.current().Err() }

func (c *callContext) Value(key any) any {
	if v := c.current().Value(key); v != nil || c.values == nil {
		return v
	}
	return c.values.Value(key)
}

func (c *callContext) carries(any) (context.Context, bool) { return c.values, true }
