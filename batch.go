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
	m := &mapBatch[T, R]{block: block[T, R]{tasks: tasks, values: make([]R, len(tasks))}}
	m.begin(ctx, p, m)
	m.block.owner, m.block.ctx = m, m.batch.ctx
	defer m.end()
	if err := m.submitAll(); err != nil {
		m.cancel(err)
	}
	m.await(m.help)
	if m.succeeded == len(tasks) {
		return m.block.values, nil
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
	p.recallRoomLocked()
	var own []*job[T, R]
	p.eachQueuedLocked(func(j *job[T, R]) {
		if s, ok := j.to.(*share[T, R]); j.to == b.self || ok && s.owner == b.self {
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
	block block[T, R]
	// Guarded by the pool's mutex:
	succeeded int
	err       error // the first, in case that it came without a cancellation
}

// submitAll gets the tasks accepted, in as few shares as there may be, or in a
// pool of another kind one by one.
func (m *mapBatch[T, R]) submitAll() error {
	if m.pool.special {
		for i, task := range m.block.tasks {
			if err := m.submit(uint64(i), task, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for first := 0; first < len(m.block.tasks); first += maxShare {
		if err := m.submitShare(first, min(first+maxShare, len(m.block.tasks))); err != nil {
			return err
		}
	}
	return nil
}

func (m *mapBatch[T, R]) failed(err error) { m.cancel(err) }

func (m *mapBatch[T, R]) answerLocked(j *job[T, R]) {
	switch {
	case j.err == nil:
		m.block.values[j.index] = j.value
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

// submitShare gets the tasks from first to end accepted, as one share, and waits
// for its end if it had to run in place of the calling task.
func (m *mapBatch[T, R]) submitShare(first, end int) error {
	if m.ctx.Err() != nil {
		return contextError(m.ctx)
	}
	p := m.pool
	p.mu.Lock()
	j := m.shareLocked(&m.block, first, end-first, uint64(first))
	ended, err := p.enterLocked(m.ctx, m.inside, j)
	if err != nil {
		m.pending--
	}
	p.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return err
}

func (m *mapBatch[T, R]) shareLocked(b *block[T, R], first, n int, index uint64) *job[T, R] {
	s := &share[T, R]{block: b, first: first, index: index, at: -1}
	s.begin(n)
	m.pending++
	j := m.pool.newJobLocked()
	j.ctx, j.to, j.bound = m.ctx, s, true
	j.index, j.positioned = index, true
	j.kind, j.inside = shared, m.inside // so that a task of it that is retried does not wait for a worker
	if m.inside != nil {
		m.wakeLocked() // to help
	}
	return j
}

func (m *mapBatch[T, R]) endedLocked(_ *share[T, R], n int) {
	m.succeeded += n
	m.pool.submitted += uint64(n)
	m.pool.succeeded += uint64(n)
}

func (m *mapBatch[T, R]) answerShareLocked(_ *share[T, R], j *job[T, R]) { m.answerLocked(j) }

// help runs shares of m that are in the task channel in place of the handler that
// waits for them: the workers might all be waiting in the same way.
func (m *mapBatch[T, R]) help() {
	p := m.pool
	for {
		p.mu.Lock()
		var queued *job[T, R]
		p.tasks.each(func(j *job[T, R]) {
			if s, ok := j.to.(*share[T, R]); ok && s.owner == m.self {
				queued = j
			}
		})
		if queued == nil {
			p.mu.Unlock()
			return
		}
		p.unqueueLocked(queued)
		w := p.startNestedLocked(m.inside.id, queued)
		w.outer = m.inside
		p.mu.Unlock()
		<-w.nested
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

	// What the feeder uses for each task, in cache lines of their own:
	_      [64]byte
	feeder feeder[T, R]
	filled int // places of the block that are used
	room   int // tasks to hand in without the mutex, if none was taken back
	_      [64]byte

	// Guarded by the pool's mutex:
	block    *block[T, R]    // that the feeder fills; nil where tasks are handed in one by one
	roomAt   int             // where in the block the room begins that the feeder was given last
	spares   *block[T, R]    // to use again
	shares   *share[T, R]    // to use again
	results  list[T, R]      // ended tasks, not yet yielded
	ended    []segment[T, R] // ended tasks that are in blocks, not yet yielded
	endedN   int             // how many
	jobs     []*job[T, R]    // those of results that the consumer has taken at once, linked to one another
	array    [runLength]*job[T, R]
	segments []segment[T, R] // those of ended that the consumer has taken at once
	taken    int             // how many results the consumer has taken at once
	waits    bool            // the consumer waits for a result
	position uint64          // of the next task of the input
	allFed   bool            // no more tasks will come
	refused  *Result[T, R]
}

// A segment is tasks that lie side by side in a block and have ended.
type segment[T, R any] struct {
	*block[T, R]
	from, to int
	index    uint64 // of the first
	worker   int32  // that has run them; 0 if they were not run
}

func (g segment[T, R]) n() int { return g.to - g.from }

func (g segment[T, R]) goesOnWith(next segment[T, R]) bool {
	return g.block == next.block && g.to == next.from && g.index+uint64(g.n()) == next.index && g.worker == next.worker
}

func (s *streamBatch[T, R]) failed(error) {}

func (s *streamBatch[T, R]) answerLocked(j *job[T, R]) {
	if s.window == nil {
		s.results.push(j)
	} else {
		s.window.finish(j, &s.results)
	}
	s.noteEndedLocked(1)
}

func (s *streamBatch[T, R]) noteEndedLocked(n int) {
	s.pending -= n
	if s.results.n+s.endedN > 0 {
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

func (s *streamBatch[T, R]) shareLocked(b *block[T, R], first, n int, index uint64) *job[T, R] {
	sh := s.shares
	if sh == nil {
		sh = new(share[T, R])
	} else {
		s.shares = sh.spare
	}
	*sh = share[T, R]{block: b, first: first, index: index, at: -1}
	sh.begin(n)
	j := s.pool.newJobLocked()
	j.ctx, j.to, j.bound = s.ctx, sh, true
	j.index, j.positioned, j.attempt, j.kind = index, true, 1, shared
	return j
}

func (s *streamBatch[T, R]) endedLocked(sh *share[T, R], n int) {
	at := sh.first + sh.ended
	failed := 0
	for _, err := range sh.errs[at : at+n] {
		if err != nil {
			failed++
		}
	}
	s.pool.failed += uint64(failed)
	s.pool.succeeded += uint64(n - failed)
	s.addEndedLocked(sh, n, sh.worker)
}

func (s *streamBatch[T, R]) answerShareLocked(sh *share[T, R], j *job[T, R]) {
	_, n := sh.claimed()
	n -= sh.ended
	at := sh.first + sh.ended
	for i := range n {
		sh.errs[at+i] = j.err
	}
	s.addEndedLocked(sh, n, j.worker)
	s.pool.freeLocked(j)
	sh.spare, s.shares = s.shares, sh
}

// addEndedLocked adds the next n tasks of a share to those that have ended.
func (s *streamBatch[T, R]) addEndedLocked(sh *share[T, R], n int, worker int32) {
	next := segment[T, R]{block: sh.block, from: sh.first + sh.ended, index: sh.index + uint64(sh.ended), worker: worker}
	next.to = next.from + n
	s.endedN += n
	if last := len(s.ended) - 1; last >= 0 && s.ended[last].goesOnWith(next) {
		s.ended[last].to = next.to
	} else {
		s.ended = append(s.ended, next)
	}
	s.noteEndedLocked(n)
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
		s.endFeedingLocked()
		s.allFed = true
		s.wakeConsumerLocked()
		s.wakeLocked()
		p.mu.Unlock()
		close(s.fed)
	}()
	p.mu.Lock()
	s.beginFeedingLocked()
	p.mu.Unlock()
	space := false
	entered := func(err error) {
		if err == nil {
			s.position++
		}
		space = s.giveLocked()
	}
	for task := range tasks {
		switch {
		case s.handIn(task):
			if s.room > 0 && !p.hungry.Load() {
				continue
			}
			space = s.comeFor()
		default:
			if err := s.submit(s.nextPosition(), task, entered); err != nil {
				s.refuse(task, err)
				returned = true
				return
			}
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

// beginFeedingLocked lets the feeder hand in tasks without the mutex, where that
// is possible.
func (s *streamBatch[T, R]) beginFeedingLocked() {
	if s.pool.special || s.inside != nil {
		return
	}
	s.feeder.queueLocked = s.queueLocked
	s.pool.feeders = append(s.pool.feeders, &s.feeder)
	s.newBlockLocked()
	s.giveLocked()
	s.pool.watchFeedersLocked()
}

func (s *streamBatch[T, R]) endFeedingLocked() {
	if s.block == nil {
		return
	}
	p := s.pool
	p.recallRoomOfLocked(&s.feeder)
	p.feeders = slices.DeleteFunc(p.feeders, func(f *feeder[T, R]) bool { return f == &s.feeder })
	p.comeForLocked()
}

// handIn hands in a task without the mutex. It reports false if there is no room
// for it left.
func (s *streamBatch[T, R]) handIn(task T) bool {
	if s.room == 0 || s.ctx.Context.Err() != nil {
		return false
	}
	s.block.tasks[s.filled] = task
	if _, ok := s.feeder.claim(); !ok {
		s.block.forget(s.filled)
		s.room = 0
		return false
	}
	s.filled++
	s.room--
	return true
}

// comeFor sees to it that somebody comes for the tasks that were handed in, and
// gets room for more. It reports whether the stream may take another task from its
// input.
func (s *streamBatch[T, R]) comeFor() (space bool) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.comeForLocked()
	return s.room > 0 || s.giveLocked()
}

// nextPosition returns the position of a task that is not handed in without the
// mutex. The room that there may be left is given back.
func (s *streamBatch[T, R]) nextPosition() uint64 {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.block != nil {
		s.pool.recallRoomOfLocked(&s.feeder)
		s.room = 0
	}
	return s.position
}

// giveLocked gets room for the next tasks. It reports whether the stream may take
// another task from its input.
func (s *streamBatch[T, R]) giveLocked() (space bool) {
	p := s.pool
	if s.block != nil && s.ctx.Err() == nil {
		p.collectFromLocked(&s.feeder)
		if s.filled == len(s.block.tasks) {
			full := s.block
			s.newBlockLocked()
			s.recycleLocked(full)
		}
		s.roomAt = s.filled
		s.room = p.giveLocked(&s.feeder, min(len(s.block.tasks)-s.filled, p.capacityLocked()-s.onTheWayLocked()))
	}
	return s.room > 0 || s.hasSpaceLocked()
}

// queueLocked puts tasks that the feeder has handed in into the task channel.
func (s *streamBatch[T, R]) queueLocked(first, n int) {
	s.pool.tasks.push(s.shareLocked(s.block, s.roomAt+first, n, s.position))
	s.position += uint64(n)
	s.pending += n
}

func (s *streamBatch[T, R]) newBlockLocked() {
	s.filled = 0
	if s.block = s.spares; s.block != nil {
		s.spares, s.block.taken = s.block.spare, 0
		return
	}
	n := min(blockLength, s.pool.capacityLocked())
	s.block = &block[T, R]{owner: s, ctx: s.ctx, tasks: make([]T, n), values: make([]R, n), errs: make([]error, n)}
}

// recycleLocked keeps a block for further tasks if it is full and all its results
// were taken.
func (s *streamBatch[T, R]) recycleLocked(b *block[T, R]) {
	if b.taken == len(b.tasks) && b != s.block {
		b.spare, s.spares = s.spares, b
	}
}

// refuse makes the last Result: for the next position, whose task the pool did
// not get, or nobody took from the input.
func (s *streamBatch[T, R]) refuse(task T, err error) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.pool.collectLocked()
	s.refused = &Result[T, R]{Index: s.position, Task: task, Err: err, Attempt: 1}
}

// last returns the last Result, if the input has not come to its end.
func (s *streamBatch[T, R]) last() *Result[T, R] {
	err := contextError(s.ctx)
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.pool.collectLocked()
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
		space := s.giveLocked()
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
func (s *streamBatch[T, R]) hasSpaceLocked() bool { return s.pool.hasSpaceLocked(s.onTheWayLocked()) }

// onTheWayLocked returns how many tasks are on their way, but for the one whose
// result the consumer has in hand.
func (s *streamBatch[T, R]) onTheWayLocked() int {
	n := s.pending + s.results.n + s.endedN + max(0, s.taken-1)
	if s.window != nil {
		n += s.window.finished
	}
	return n
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
		for _, g := range s.segments {
			for i := range g.to - g.from {
				at := g.from + i
				if !yield(Result[T, R]{
					Index: g.index + uint64(i), Task: g.tasks[at], Value: g.values[at], Err: g.errs[at],
					Worker: int(g.worker), Attempt: 1,
				}) {
					return
				}
				g.forget(at)
			}
		}
	}
	if last := s.last(); last != nil {
		yield(*last)
	}
}

// receive gives back what was received before, if anything, and waits for
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
	for s.results.n+s.endedN == 0 {
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
	s.takeResultsLocked(min(runLength, max(1, p.capacityLocked()/8)))
	select {
	case s.freed <- struct{}{}:
	default:
	}
	return true
}

// takeResultsLocked takes n results at most.
func (s *streamBatch[T, R]) takeResultsLocked(n int) {
	if s.results.n > 0 {
		s.taken = min(n, s.results.n)
		s.jobs = s.array[:s.taken]
		s.results.popLinked(s.jobs)
		return
	}
	whole := 0
	for whole < len(s.ended) && s.taken < n {
		g := s.ended[whole]
		g.to = min(g.to, g.from+n-s.taken)
		s.segments = append(s.segments, g)
		s.taken += g.to - g.from
		if g.to < s.ended[whole].to {
			s.ended[whole].from, s.ended[whole].index = g.to, g.index+uint64(g.to-g.from)
			break
		}
		whole++
	}
	s.endedN -= s.taken
	s.ended = slices.Delete(s.ended, 0, whole)
}

// giveBackLocked gives back what the consumer has taken.
func (s *streamBatch[T, R]) giveBackLocked() {
	if len(s.jobs) > 0 {
		s.pool.keepLinkedLocked(s.jobs)
		s.jobs = nil
	}
	for _, g := range s.segments {
		g.block.taken += g.to - g.from
		s.recycleLocked(g.block)
	}
	s.segments, s.taken = s.segments[:0], 0
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
	s.ended, s.endedN = nil, 0
}
