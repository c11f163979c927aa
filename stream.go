package workpool

import (
	"context"
	"iter"
	"slices"
	"time"
)

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

// iteratorGrace is how long Stream waits, at its end, for an input iterator
// that is at work or blocked.
const iteratorGrace = 100 * time.Millisecond

type streamBatch[T, R any] struct {
	batch[T, R]
	freed     chan struct{} // capacity 1; sent when the feeder should look for space again
	fed       chan struct{} // closed when the feeder has left
	abandoned bool          // the input is blocked and no longer waited for; of the consumer alone

	feeder feeder[T, R]

	// Guarded by the pool's mutex:
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
	from, n int
	index   uint64 // of the first
	worker  int32  // that has run them; 0 if they were not run
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

func (s *streamBatch[T, R]) answerer() answerer[T, R] { return s }

func (s *streamBatch[T, R]) doneLocked(r *run[T, R], n int) {
	s.pool.countDoneLocked(r, n)
	s.addEndedLocked(r, n, r.worker)
}

func (s *streamBatch[T, R]) answerRunLocked(r *run[T, R], j *job[T, R]) {
	s.addEndedLocked(r, r.restLocked(j.err), j.worker)
	s.pool.freeRunLocked(r)
	s.pool.freeLocked(j)
}

// addEndedLocked adds the next n tasks of a run to those that have ended.
func (s *streamBatch[T, R]) addEndedLocked(r *run[T, R], n int, worker int32) {
	first, index := r.first+r.done, r.index+uint64(r.done)
	s.endedN += n
	if last := len(s.ended) - 1; last >= 0 && s.ended[last].goesOnWith(r.block, first, index, worker) {
		s.ended[last].n += n
	} else {
		s.ended = append(s.ended, segment[T, R]{r.block, first, n, index, worker})
	}
	s.noteEndedLocked(n)
}

func (g *segment[T, R]) goesOnWith(b *block[T, R], first int, index uint64, worker int32) bool {
	return g.block == b && g.from+g.n == first && g.index+uint64(g.n) == index && g.worker == worker
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
		s.feeder.endLocked()
		s.allFed = true
		s.wakeConsumerLocked()
		s.wakeLocked()
		p.mu.Unlock()
		close(s.fed)
	}()
	p.mu.Lock()
	if !p.special && s.inside == nil {
		s.feeder.beginLocked(p, s, s.acceptLocked)
		s.giveLocked()
		p.watchFeedersLocked()
	}
	p.mu.Unlock()
	space := false
	entered := func(err error) {
		if err == nil {
			s.position++
		}
		space = s.giveLocked()
	}
	ended := s.ctx.Context // the batchContext around it would cost a call
	for task := range tasks {
		if ended.Err() == nil && s.feeder.handIn(task) {
			if s.feeder.room > 0 && !p.ofFeeders.flag.Load() {
				continue
			}
			space = s.comeFor()
		} else if err := s.submit(s.nextPosition(), task, entered); err != nil {
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

// comeFor sees to it that somebody comes for the tasks that were handed in, and
// gets room for more. It reports whether the stream may take another task from its
// input.
func (s *streamBatch[T, R]) comeFor() (space bool) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.comeForLocked()
	return s.feeder.room > 0 || s.giveLocked()
}

// nextPosition returns the position of a task that is not handed in by the feeder.
// The room that this may have left is given back.
func (s *streamBatch[T, R]) nextPosition() uint64 {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.feeder.block != nil {
		s.feeder.recallLocked()
		s.feeder.room = 0
	}
	return s.position
}

// giveLocked gets room for the next tasks. It reports whether the stream may take
// another task from its input.
func (s *streamBatch[T, R]) giveLocked() (space bool) {
	if s.feeder.block != nil && s.ctx.Err() == nil {
		s.feeder.giveLocked(s.pool.capacityLocked() - s.onTheWayLocked())
	}
	return s.feeder.room > 0 || s.hasSpaceLocked()
}

// acceptLocked puts tasks that were handed in into the task channel.
func (s *streamBatch[T, R]) acceptLocked(first, n int) {
	p := s.pool
	r, j := p.newRunLocked(s.feeder.block, first, n, s.position)
	r.ctx, r.ended = s.ctx, s.ctx.Context
	j.ctx, j.bound = s.ctx, true
	p.tasks.push(j)
	s.position += uint64(n)
	s.pending += n
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
			for i := range g.n {
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
	s.wakeFeederLocked()
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
	s.wakeFeederLocked()
	return true
}

// wakeFeederLocked has the feeder look for space again.
func (s *streamBatch[T, R]) wakeFeederLocked() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
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
		rest := &s.ended[whole]
		g.n = min(g.n, n-s.taken)
		s.segments = append(s.segments, g)
		s.taken += g.n
		if g.n < rest.n {
			rest.from, rest.n, rest.index = rest.from+g.n, rest.n-g.n, rest.index+uint64(g.n)
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
		s.pool.takenLocked(g.block, g.n)
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
	for _, g := range s.segments {
		for i := range g.n {
			g.forget(g.from + i)
		}
	}
	s.giveBackLocked()
	for s.results.n > 0 {
		p.freeLocked(s.results.pop())
	}
	for _, g := range s.ended { // the feeder may be left in its input, with its block
		for i := range g.n {
			g.forget(g.from + i)
		}
		p.takenLocked(g.block, g.n)
	}
	s.ended, s.endedN = nil, 0
}
