package workpool

import "time"

// maxShare is how many tasks a share has at most: its progress counts them in 32 bits.
const maxShare = 1 << 31

// A share is a number of tasks that lie side by side, which a worker goes through
// straight from the slice of tasks to that of values. It is the answerer of the job
// that stands for it in the task channel and in hand of the worker.
//
// A worker that takes it out of the channel keeps as many of its first tasks as
// make a run, and puts the rest back. What the worker has not claimed can be taken
// back, as with a run.
//
// All tasks of a Map begin as one share. The rest of it goes to the end of the
// channel, so that tasks of a Map take turns with all others. In the counts of the
// pool such a share in the channel is one task, its first; the next ones are
// accepted as they are claimed. The tasks of a Stream have been accepted one by
// one, and count and keep their place as other tasks do.
type share[T, R any] struct {
	progress
	*block[T, R]
	first int    // place of its first task in the block
	index uint64 // of its first task

	// Guarded by the pool's mutex:
	began  time.Duration // on the clock of the pool
	at     int           // its place in shares; -1 if it is in none
	ended  int           // tasks that the pool knows to have ended
	rest   int           // tasks not claimed when somebody looked last
	worker int32         // whose it is
	spare  *share[T, R]  // the next of those to use again
}

// A block is where tasks of a Map or Stream and what became of them lie side by
// side.
type block[T, R any] struct {
	owner  blockOwner[T, R]
	ctx    *batchContext
	tasks  []T
	values []R
	errs   []error // of a Stream; a Map ends with its first

	// Guarded by the pool's mutex, for a Stream:
	taken int          // places of which the result was taken
	spare *block[T, R] // the next of those to use again
}

// A blockOwner is a Map or a Stream.
type blockOwner[T, R any] interface {
	answerer[T, R]
	// shareLocked returns a job that stands for n tasks of a block.
	shareLocked(b *block[T, R], first, n int, index uint64) *job[T, R]
	// endedLocked is called when a worker has done the next n tasks of s.
	endedLocked(s *share[T, R], n int)
	// answerShareLocked is called when all of s that has not ended ends with what
	// j, which stands for s, says.
	answerShareLocked(s *share[T, R], j *job[T, R])
}

// forget drops a task and its answer, so that the block retains neither.
func (b *block[T, R]) forget(i int) {
	var noTask T
	var noValue R
	b.tasks[i], b.values[i] = noTask, noValue
	if b.errs[i] != nil {
		b.errs[i] = nil
	}
}

// accepts tells whether the tasks of the block are accepted one by one, each with
// an answer of its own.
func (b *block[T, R]) accepts() bool { return b.errs != nil }

// tasks returns how many accepted tasks a share in the channel stands for.
func (s *share[T, R]) accepted() int {
	if !s.accepts() {
		return 1
	}
	return s.left() + 1
}

func (s *share[T, R]) failed(err error) { s.owner.failed(err) }

func (s *share[T, R]) answerLocked(j *job[T, R]) { s.owner.answerShareLocked(s, j) }

// shares are those with a rest that workers have in hand.
type shares[T, R any] struct {
	all      []*share[T, R]
	rest     int // the sum of theirs
	accepted int // that of those whose tasks are accepted one by one
}

func (l *shares[T, R]) addLocked(s *share[T, R], rest int) {
	s.at = len(l.all)
	l.all = append(l.all, s)
	l.setRestLocked(s, rest)
}

func (l *shares[T, R]) removeLocked(s *share[T, R]) {
	if s.at < 0 {
		return
	}
	l.setRestLocked(s, 0)
	last := len(l.all) - 1
	l.all[s.at] = l.all[last]
	l.all[s.at].at = s.at
	l.all[last] = nil
	l.all = l.all[:last]
	s.at = -1
}

func (l *shares[T, R]) setRestLocked(s *share[T, R], rest int) {
	l.rest += rest - s.rest
	if s.accepts() {
		l.accepted += rest - s.rest
	}
	s.rest = rest
}

// requeueLocked puts tasks that were part of s back into the task channel.
func (p *Pool[T, R]) requeueLocked(s *share[T, R], first, end int) {
	j := s.owner.shareLocked(s.block, s.first+first, end-first, s.index+uint64(first))
	if s.accepts() {
		j.attempt = 1
		p.tasks.pushFront(j)
		return
	}
	p.countLocked(j)
	p.queueLocked(j)
}

// takeShareLocked makes j, which is taken out of the task channel, a share of n
// tasks at most. It returns how many these are.
func (p *Pool[T, R]) takeShareLocked(j *job[T, R], n int, now time.Duration) (length int) {
	s := j.to.(*share[T, R])
	if first, end := s.takeBack(s.left() + 1 - n); first < end {
		p.requeueLocked(s, first, end)
	}
	s.began = now
	rest := s.left()
	if rest > 0 {
		p.shares.addLocked(s, rest)
		if s.accepts() {
			p.watchLocked()
		}
	}
	return rest + 1
}

// handleShare calls the handler for one task of the share after the other. What is
// left of it when it returns is for leaveShareLocked.
func (w *worker[T, R]) handleShare(s *share[T, R]) {
	p := w.pool
	s.worker = w.id // known to others when they know of the first task that has ended
	j, handler, ctx, ended, accepts := w.job, p.handler, w.contextFor(s.ctx), s.ctx.Context, s.accepts()
	tasks, values := s.tasks[s.first:], s.values[s.first:]
	for i, ok := 0, true; ok; i, ok = s.claim() {
		if i > 0 && accepts && p.attention.Load() {
			w.attendShare(s)
		}
		value, err := handler(ctx, tasks[i])
		if err != nil {
			if err = asRetry(err); !accepts || retryIn(err) != nil {
				j.err = err
				return
			}
		}
		values[i] = value
		if err != nil {
			s.errs[s.first+i] = err
		}
		if ended.Err() != nil {
			return
		}
	}
}

// attendShare is what a worker does after a task of its share while somebody
// waits.
func (w *worker[T, R]) attendShare(s *share[T, R]) {
	p := w.pool
	p.mu.Lock()
	p.settleShareLocked(s)
	p.wakeLocked()
	p.watchLocked()
	p.mu.Unlock()
}

// settleShareLocked counts what a worker has done of its share.
func (p *Pool[T, R]) settleShareLocked(s *share[T, R]) {
	claimed, n := s.claimed()
	if done := claimed - 1 - s.ended; done > 0 {
		s.owner.endedLocked(s, done)
		s.ended += done
	}
	if s.at >= 0 {
		p.shares.setRestLocked(s, n-claimed)
	}
}

// settleSharesLocked counts what the workers have done of their shares.
func (p *Pool[T, R]) settleSharesLocked() {
	for _, s := range p.shares.all {
		p.settleShareLocked(s)
	}
}

// recallSharesLocked puts what no worker has begun back into the task channel.
func (p *Pool[T, R]) recallSharesLocked() {
	for _, s := range p.shares.all {
		if first, end := s.takeBack(maxShare); first < end {
			p.requeueLocked(s, first, end)
		}
		p.settleShareLocked(s)
	}
}

// leaveShareLocked leaves j, in hand of a worker, to stand for the last task of the
// share that it has come to, and the rest to others. A task that has not ended in
// the way of the others becomes a job like any other.
func (p *Pool[T, R]) leaveShareLocked(j *job[T, R]) {
	s := j.to.(*share[T, R])
	if first, end := s.takeBack(maxShare); first < end && (s.accepts() || s.ctx.Err() == nil) {
		p.requeueLocked(s, first, end)
	}
	p.settleShareLocked(s)
	p.shares.removeLocked(s)
	at := s.first + s.ended
	j.index = s.index + uint64(s.ended)
	if s.accepts() && retryIn(j.err) == nil {
		if j.err == nil {
			j.err = s.errs[at]
		}
		return
	}
	j.to, j.kind = s.owner, other
	j.task, j.value = s.tasks[at], s.values[at]
	if s.accepts() {
		s.forget(at)
		s.taken++
	}
}
