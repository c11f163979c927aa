package workpool

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"
)

// Map runs the handler for every task and returns the values in the order of
// the tasks. The first task that fails cancels the context of the others, and
// Map returns its error, as it is, and no values. If ctx ends, Map returns an
// error that matches ctx.Err().
//
// Map returns when every handler that it started has returned. It waits for room
// as one task does. Its tasks are begun in the order of the slice, and take turns
// with all others in the queue. A Map that has begun when the pool is shut down
// runs to its end; an abort, or a Close with [FinishRunning], ends it. Called with
// the context of a handler of the same pool, tasks for which no worker is free
// run in place of the calling one.
func (p *Pool[T, R]) Map(ctx context.Context, tasks []T) ([]R, error) {
	if err := endedContext(ctx); err != nil {
		return nil, err
	}
	m := &mapBatch[T, R]{tasks: tasks, values: make([]R, len(tasks))}
	m.begin(ctx, p, m)
	defer m.end()
	if err := m.submitAll(); err != nil {
		m.cancel(err)
	}
	m.await(m.help)
	if m.succeeded == len(tasks) {
		return m.values, nil
	}
	err := context.Cause(m.ctx)
	switch {
	case err == nil:
		err = m.err
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		err = contextError(ctx)
	case errors.Is(err, ErrAborted) && errors.Is(m.err, ErrAborted):
		err = m.err // which has that of its last attempt, if there was one
	}
	return nil, err
}

// Map runs handler for every task on a pool of its own, made with opts, and
// returns the values in the order of the tasks. See [Pool.Map]. Without
// [WithWorkers], the pool has GOMAXPROCS workers, or one a task if these are
// fewer, but no less than the minimum of [WithElastic].
func Map[T, R any](ctx context.Context, tasks []T, handler Handler[T, R], opts ...Option) ([]R, error) {
	p, err := New(handler, append(slices.Clip(opts), workersFor(len(tasks)))...)
	if err != nil {
		return nil, err
	}
	values, err := p.Map(ctx, tasks)
	if closeErr := p.Close(); err == nil && closeErr != nil {
		return nil, closeErr
	}
	return values, err
}

// Stream runs the handler for every task of the sequence and yields each
// task's Result as it is ready, or with [WithOrdered] in the order of the
// tasks, with the position of the task as Index. It is
// lazy: it takes the next task only when fewer than queue depth, result buffer
// and workers together are on their way. An error ends no task but its own.
//
// The sequence of tasks runs on a goroutine of its own. If it panics, the last
// Result has the [*PanicError]. If ctx ends before the sequence does, queued
// tasks yield its error without running, running ones are cancelled and waited
// for, and the last Result, for the position of the next task, has the error
// too. It has [ErrClosed] if the pool closes first.
//
// When the loop over Stream ends, by a break too, every handler that it
// started has returned. So has the sequence of tasks, unless it is blocked: it
// is given a tenth of a second, and then left alone, to be stopped when it
// next yields.
//
// Called with the context of a handler of the same pool, tasks for which no
// worker is free run in place of the calling one. A Stream may be ranged over
// several times if the sequence of tasks may.
func (p *Pool[T, R]) Stream(ctx context.Context, tasks iter.Seq[T]) iter.Seq[Result[T, R]] {
	return func(yield func(Result[T, R]) bool) {
		err := endedContext(ctx)
		if err == nil && tasks == nil {
			err = errNilTasks
		}
		if err != nil {
			yield(Result[T, R]{Err: err, Attempt: 1})
			return
		}
		s := &streamBatch[T, R]{freed: make(chan struct{}, 1), fed: make(chan struct{})}
		s.begin(ctx, p, s)
		if p.ordered {
			s.window = new(window[T, R])
		}
		defer s.forget()
		defer s.stop()
		go s.feed(tasks)
		s.deliver(yield)
	}
}

// A batch is the tasks of one Map or Stream on their way through the pool.
type batch[T, R any] struct {
	pool   *Pool[T, R]
	self   answerer[T, R] // what embeds the batch
	ctx    *batchContext
	inside *worker[T, R]
	cancel context.CancelCauseFunc
	unlink func() bool   // from the abort of the pool
	signal chan struct{} // capacity 1; sent when the one who waits for answers should look again

	// Guarded by the pool's mutex:
	pending int           // accepted and not ended
	window  *window[T, R] // of the Stream of an ordered pool
}

func (b *batch[T, R]) begin(ctx context.Context, p *Pool[T, R], self answerer[T, R]) {
	b.pool, b.self, b.inside = p, self, p.inside(ctx)
	b.signal = make(chan struct{}, 1)
	ctx, b.cancel = context.WithCancelCause(ctx)
	b.ctx = &batchContext{ctx}
	b.unlink = context.AfterFunc(p.abortContext, func() { b.cancel(context.Cause(p.abortContext)) })
}

func (b *batch[T, R]) end() {
	b.unlink()
	b.cancel(nil)
}

// submit gets one task accepted, and waits for its end if it had to run in
// place of the calling one. It calls entered, unless that is nil, under the mutex
// when the task has been accepted or not.
func (b *batch[T, R]) submit(position uint64, task T, entered func(err error)) error {
	if b.ctx.Err() != nil {
		return contextError(b.ctx)
	}
	p := b.pool
	class, err := p.classify(task)
	if err != nil {
		return err
	}
	p.mu.Lock()
	j := p.newJobLocked()
	j.ctx, j.task, j.to, j.bound = b.ctx, task, b.self, true
	j.index, j.positioned, j.kind = position, true, plain
	p.joinLocked(j, class)
	b.pending++
	ended, err := p.enterLocked(b.ctx, b.inside, j)
	switch {
	case err != nil:
		b.pending--
	case b.window != nil:
		b.window.push(j)
	}
	if entered != nil {
		entered(err)
	}
	p.mu.Unlock()
	if ended != nil {
		<-ended
	}
	if err == nil && b.ctx.Err() != nil {
		b.takeBack() // the one who did so when the context ended was faster
	}
	return err
}

func (b *batch[T, R]) wakeLocked() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// await waits until every task of the batch has ended. When the context ends,
// it takes back those that are queued. Inside a handler it calls help, unless that
// is nil, before it waits.
func (b *batch[T, R]) await(help func()) {
	p := b.pool
	ended := b.ctx.Done()
	if b.ctx.Err() != nil {
		b.takeBack()
		ended = nil
	}
	p.mu.Lock()
	p.awaited++
	p.watchLocked()
	for b.pending > 0 {
		p.mu.Unlock()
		if b.inside != nil && help != nil {
			help()
		}
		select {
		case <-b.signal:
		case <-ended:
			ended = nil
			b.takeBack()
		}
		p.mu.Lock()
	}
	p.awaited--
	p.watchLocked()
	p.mu.Unlock()
}

// takeBack ends the tasks of the batch that no worker has taken.
func (b *batch[T, R]) takeBack() {
	err := contextError(b.ctx)
	p := b.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recallLocked()
	var own []*job[T, R]
	p.eachQueuedLocked(func(j *job[T, R]) {
		if s, ok := j.to.(*share[T, R]); j.to == b.self || ok && s.self == b.self {
			own = append(own, j)
		}
	})
	for _, j := range own {
		if j.waits() { // and did not get its turn by the end of another
			p.endQueuedLocked(j, err)
		}
	}
}

type mapBatch[T, R any] struct {
	batch[T, R]
	tasks  []T
	values []R
	// Guarded by the pool's mutex:
	succeeded int
	err       error // the first, in case that it came without a cancellation
}

// submitAll gets the tasks accepted, in as few shares as there may be, or in a
// pool of another kind one by one.
func (m *mapBatch[T, R]) submitAll() error {
	if m.pool.special {
		for i, task := range m.tasks {
			if err := m.submit(uint64(i), task, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for first := 0; first < len(m.tasks); first += maxShare {
		if err := m.submitShare(first, min(first+maxShare, len(m.tasks))); err != nil {
			return err
		}
	}
	return nil
}

func (m *mapBatch[T, R]) failed(err error) { m.cancel(err) }

func (m *mapBatch[T, R]) answerLocked(j *job[T, R]) {
	switch {
	case j.err == nil:
		m.values[j.index] = j.value
		m.succeeded++
	case m.err == nil:
		m.err = j.err
	}
	m.pool.freeLocked(j)
	m.pending--
	if m.pending == 0 {
		m.wakeLocked()
	}
}

// iteratorGrace is how long Stream waits, at its end, for an input iterator
// that is at work or blocked.
const iteratorGrace = 100 * time.Millisecond

type streamBatch[T, R any] struct {
	batch[T, R]
	freed     chan struct{} // capacity 1; sent when the feeder should look for space again
	fed       chan struct{} // closed when the feeder has left
	abandoned bool          // the input is blocked and no longer waited for; of the consumer alone

	// Guarded by the pool's mutex:
	results  list[T, R]   // ended tasks, not yet yielded
	jobs     []*job[T, R] // those of them that the consumer has taken at once, linked to one another
	array    [runLength]*job[T, R]
	waits    bool   // the consumer waits for a result
	position uint64 // of the next task of the input
	allFed   bool   // no more tasks will come
	refused  *Result[T, R]
}

func (s *streamBatch[T, R]) failed(error) {}

func (s *streamBatch[T, R]) answerLocked(j *job[T, R]) {
	s.pending--
	if s.window == nil {
		s.results.push(j)
	} else {
		s.window.finish(j, &s.results)
	}
	if s.results.n > 0 {
		s.wakeConsumerLocked()
	}
	if s.pending == 0 {
		s.wakeLocked() // for await
	}
}

func (s *streamBatch[T, R]) wakeConsumerLocked() {
	if s.waits {
		s.waits = false
		s.pool.awaited--
		s.wakeLocked()
	}
}

// feed submits the tasks of the sequence.
func (s *streamBatch[T, R]) feed(tasks iter.Seq[T]) {
	p := s.pool
	var none T
	returned := false
	defer func() {
		if v := recover(); v != nil || !returned {
			s.refuse(none, errorOf(v))
		}
		p.mu.Lock()
		s.allFed = true
		s.wakeConsumerLocked()
		s.wakeLocked()
		p.mu.Unlock()
		close(s.fed)
	}()
	space := false
	entered := func(err error) {
		if err == nil {
			s.position++
		}
		space = s.hasSpaceLocked()
	}
	for task := range tasks {
		if err := s.submit(s.position, task, entered); err != nil {
			s.refuse(task, err)
			break
		}
		if !space {
			s.awaitSpace()
		}
		if s.ctx.Err() != nil {
			s.refuse(none, contextError(s.ctx)) // without taking another one
			break
		}
	}
	returned = true
}

// refuse makes the last Result: for the next position, whose task the pool did
// not get, or nobody took from the input.
func (s *streamBatch[T, R]) refuse(task T, err error) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.refused = &Result[T, R]{Index: s.position, Task: task, Err: err, Attempt: 1}
}

// last returns the last Result, if the input has not come to its end.
func (s *streamBatch[T, R]) last() *Result[T, R] {
	err := contextError(s.ctx)
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.refused == nil && !s.allFed {
		return &Result[T, R]{Index: s.position, Err: err, Attempt: 1}
	}
	return s.refused
}

// awaitSpace waits until the stream may take another task from its input, or
// its context has ended.
func (s *streamBatch[T, R]) awaitSpace() {
	p := s.pool
	for {
		p.mu.Lock()
		space := s.hasSpaceLocked()
		p.mu.Unlock()
		if space {
			return
		}
		select {
		case <-s.freed:
		case <-s.ctx.Done():
			return
		}
	}
}

// hasSpaceLocked tells whether fewer tasks are on their way than the pool may
// hold.
func (s *streamBatch[T, R]) hasSpaceLocked() bool {
	n := s.pending + s.results.n + max(0, len(s.jobs)-1)
	if s.window != nil {
		n += s.window.finished
	}
	return s.pool.hasSpaceLocked(n)
}

// deliver yields results until the last.
func (s *streamBatch[T, R]) deliver(yield func(Result[T, R]) bool) {
	for s.receive() {
		for _, j := range s.jobs {
			if !yield(j.result()) {
				return
			}
			j.reset()
		}
	}
	if last := s.last(); last != nil {
		yield(*last)
	}
}

// receive gives back the jobs that were received before, if any, and waits for
// the next, of which it takes several at once, but never so many that the feeder
// would be held up by what is not yielded yet. It reports false when there will be
// no more.
func (s *streamBatch[T, R]) receive() bool {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	s.giveBackLocked()
	ended := s.ctx.Done()
	var grace <-chan time.Time
	for s.results.n == 0 {
		if s.pending == 0 && (s.allFed || s.abandoned) {
			s.wakeConsumerLocked()
			return false
		}
		if !s.waits {
			s.waits = true
			p.awaited++
			p.watchLocked()
		}
		p.mu.Unlock()
		select {
		case <-s.signal:
		case <-ended:
			ended = nil
			s.takeBack()
			grace = time.After(iteratorGrace)
		case <-grace:
			grace = nil
			s.abandoned = true
		}
		p.mu.Lock()
	}
	s.jobs = s.array[:min(runLength, s.results.n, max(1, p.capacityLocked()/8))]
	s.results.popLinked(s.jobs)
	select {
	case s.freed <- struct{}{}:
	default:
	}
	return true
}

// giveBackLocked gives back the jobs that the consumer has taken.
func (s *streamBatch[T, R]) giveBackLocked() {
	if len(s.jobs) > 0 {
		s.pool.keepLinkedLocked(s.jobs)
		s.jobs = nil
	}
}

// stop ends what is still under way.
func (s *streamBatch[T, R]) stop() {
	s.end()
	s.takeBack()
	s.await(nil)
	if s.abandoned {
		return
	}
	select {
	case <-s.fed:
	case <-time.After(iteratorGrace):
	}
	s.await(nil) // for a task that the feeder was just submitting
}

// forget drops the results that were not yielded.
func (s *streamBatch[T, R]) forget() {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, j := range s.jobs {
		j.reset()
	}
	s.giveBackLocked()
	for s.results.n > 0 {
		p.freeLocked(s.results.pop())
	}
}
