package workpool

import "time"

// maxShare is how many tasks a share has at most: its progress counts them in 32 bits.
const maxShare = 1 << 31

// A share is a part of the tasks of a Map, which a worker goes through straight
// from the slice of tasks to that of values. It is the answerer of the job that
// stands for it in the task channel and in hand of the worker.
//
// All tasks of a Map begin as one share. A worker that takes it out of the channel
// keeps as many of its first tasks as make a run, and puts the rest to the end of
// the channel, so that tasks of a Map take turns with all others. What the worker
// has not claimed can be taken back, as with a run.
//
// In the counts of the pool, a share in the channel is one task, its first; the
// next ones are accepted as they are claimed.
type share[T, R any] struct {
	*mapBatch[T, R]
	progress
	first int // position of its first task

	// Guarded by the pool's mutex:
	began time.Duration // on the clock of the pool
	at    int           // its place in shares; -1 if it is in none
	ended int           // tasks that the pool knows to have ended
	rest  int           // tasks not claimed when somebody looked last
}

// shares are those with a rest that workers have in hand.
type shares[T, R any] struct {
	all  []*share[T, R]
	rest int // the sum of theirs
}

func (l *shares[T, R]) add(s *share[T, R], rest int) {
	s.at = len(l.all)
	l.all = append(l.all, s)
	l.setRest(s, rest)
}

func (l *shares[T, R]) remove(s *share[T, R]) {
	if s.at < 0 {
		return
	}
	l.setRest(s, 0)
	last := len(l.all) - 1
	l.all[s.at] = l.all[last]
	l.all[s.at].at = s.at
	l.all[last] = nil
	l.all = l.all[:last]
	s.at = -1
}

func (l *shares[T, R]) setRest(s *share[T, R], rest int) {
	l.rest += rest - s.rest
	s.rest = rest
}

// newShareLocked returns a job that stands for the tasks from first to end.
func (m *mapBatch[T, R]) newShareLocked(first, end int) *job[T, R] {
	s := &share[T, R]{mapBatch: m, first: first, at: -1}
	s.begin(end - first)
	m.pending++
	j := m.pool.newJobLocked()
	j.ctx, j.to, j.bound = m.ctx, s, true
	j.index, j.positioned = uint64(first), true
	j.kind, j.inside = shared, m.inside // so that a task of it that is retried does not wait for a worker
	return j
}

// queueShareLocked puts tasks that were part of a share into the task channel.
func (p *Pool[T, R]) queueShareLocked(m *mapBatch[T, R], first, end int) {
	j := m.newShareLocked(first, end)
	p.countLocked(j)
	p.queueLocked(j)
	if m.inside != nil {
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
	j := m.newShareLocked(first, end)
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

// takeShareLocked makes j, which is taken out of the task channel, a share of n
// tasks at most. It returns how many these are.
func (p *Pool[T, R]) takeShareLocked(j *job[T, R], n int, now time.Duration) (length int) {
	s := j.to.(*share[T, R])
	if first, end := s.takeBack(s.left() + 1 - n); first < end {
		p.queueShareLocked(s.mapBatch, s.first+first, s.first+end)
	}
	s.began = now
	if rest := s.left(); rest > 0 {
		p.shares.add(s, rest)
	}
	return s.left() + 1
}

// handleShare calls the handler for one task of the share after the other. What is
// left of it when it returns is for leaveShareLocked.
func (w *worker[T, R]) handleShare(s *share[T, R]) {
	j, handler, ctx := w.job, w.pool.handler, w.contextFor(s.ctx)
	tasks, values := s.tasks[s.first:], s.values[s.first:]
	for i, ok := 0, true; ok; i, ok = s.claim() {
		value, err := handler(ctx, tasks[i])
		if err != nil {
			j.err = asRetry(err)
			return
		}
		values[i] = value
		if s.ctx.Err() != nil {
			return
		}
	}
}

// settleShareLocked counts what a worker has done of its share.
func (p *Pool[T, R]) settleShareLocked(s *share[T, R]) {
	claimed, n := s.claimed()
	done := claimed - 1 - s.ended
	s.ended += done
	s.succeeded += done
	p.submitted += uint64(done)
	p.succeeded += uint64(done)
	if s.at >= 0 {
		p.shares.setRest(s, n-claimed)
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
			p.queueShareLocked(s.mapBatch, s.first+first, s.first+end)
		}
		p.settleShareLocked(s)
	}
}

// leaveShareLocked makes j, in hand of a worker as the last task of the share that
// it has come to, a job like any other, and leaves the rest to others.
func (p *Pool[T, R]) leaveShareLocked(j *job[T, R]) {
	s := j.to.(*share[T, R])
	first, end := s.takeBack(maxShare)
	p.settleShareLocked(s)
	p.shares.remove(s)
	position := s.first + s.ended
	j.index, j.task, j.to, j.kind = uint64(position), s.tasks[position], s.self, other
	j.value = s.values[position]
	if first < end && s.ctx.Err() == nil {
		p.queueShareLocked(s.mapBatch, s.first+first, s.first+end)
	}
}

// help runs shares of m that are in the task channel in place of the handler that
// waits for them: the workers might all be waiting in the same way.
func (m *mapBatch[T, R]) help() {
	p := m.pool
	for {
		p.mu.Lock()
		var queued *job[T, R]
		p.tasks.each(func(j *job[T, R]) {
			if s, ok := j.to.(*share[T, R]); ok && s.mapBatch == m {
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
