package workpool

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
)

// Map runs the handler for every task and returns the values in the order of the
// tasks. The first task that fails cancels the context of the others. Map then
// returns its error unchanged, and no values. If ctx ends, Map returns an error
// that matches ctx.Err().
//
// Map returns when every handler that it started has returned. It waits for room as
// a single task does. Its tasks begin in the order of the slice, and take turns
// with the other queued tasks. A Map that has begun finishes when the pool is shut
// down; an abort, or a Close with [FinishRunning], ends it. With [WithKey] or
// [WithPriority], each of its tasks waits for room on its own instead, and
// [ErrClosed] ends the Map.
//
// Called with the context of a running handler of the same pool, tasks that no
// other worker takes run in the handler's place, one at a time.
func (p *Pool[T, R]) Map(ctx context.Context, tasks []T) ([]R, error) {
	m := &mapping[T, R]{tasks: tasks}
	if err := m.begin(ctx, p, ByMap); err != nil {
		return nil, p.refused(err)
	}
	defer m.end()
	m.values = make([]R, len(tasks))
	m.cursor.Store(noClaims)
	if err := m.handInAll(); err != nil {
		m.ctx.cancel(err)
	}
	m.await()
	if m.done == len(tasks) {
		return m.values, nil
	}
	return nil, m.failure(m.err)
}

// Map runs handler for every task on a pool of its own, created with opts, and
// returns the values in the order of the tasks. See [Pool.Map]. Without
// [WithWorkers], the number of workers is GOMAXPROCS or the number of tasks,
// whichever is smaller, but at least the minimum of [WithElastic].
func Map[T, R any](ctx context.Context, tasks []T, handler Handler[T, R], opts ...Option) ([]R, error) {
	p, err := New(handler, append(slices.Clip(opts), forTasks(len(tasks)))...)
	if err != nil {
		return nil, err
	}
	values, err := p.Map(ctx, tasks)
	if closeErr := p.Close(); err == nil && closeErr != nil {
		return nil, closeErr
	}
	return values, err
}

// A mapping is one Map on its way through the pool. It is one entry in the queue, from
// which workers draw its tasks, and which goes to the end of the queue each time. While
// nothing else is queued, a worker that has ended one task claims the next without the mutex.
type mapping[T, R any] struct {
	batch[T, R]
	tasks  []T
	values []R

	_      [64]byte     // so that claims, which write cursor, do not slow down who reads the others
	cursor atomic.Int64 // the next task to claim; noClaims or more if none may be claimed
	_      [64]byte

	// Guarded by the pool's mutex:
	entry *job[T, R] // stands for all that no worker has begun, and counts as one of these; nil if there is none
	drawn int        // the first of these
	done  int        // those that have succeeded
	err   error      // the first
}

const noClaims = math.MaxInt32 * 2

// handInAll gets the tasks accepted: as one entry, or where each has a key or a priority of
// its own one by one.
func (m *mapping[T, R]) handInAll() error {
	p := m.pool
	if !p.functions.classifies() {
		return m.handInEntry()
	}
	for _, task := range m.tasks {
		if err := m.handIn(m, task, policy{}); err != nil {
			return err
		}
	}
	return nil
}

func (m *mapping[T, R]) handInEntry() error {
	if len(m.tasks) == 0 {
		return nil
	}
	p := m.pool
	p.lock()
	defer p.unlock()
	m.entry = m.newJobLocked(m, m.tasks[0], m.origin)
	m.entry.positioned = true
	m.add(m.entry)
	m.pending++
	if _, err := p.offerLocked(m.entry, m.place, policy{}); err != nil {
		p.dismissLocked(m.entry)
		m.entry = nil
		m.endedLocked()
		return err
	}
	return nil
}

// drawLocked returns j, or if that is the entry of a Map a job for the next task of that.
func (w *worker[T, R]) drawLocked(j *job[T, R]) *job[T, R] {
	m, ok := j.to.(*mapping[T, R])
	if !ok {
		return j
	}
	if m.entry == j {
		j = m.nextLocked()
	}
	w.claimed.Store(j.index)
	return j
}

// nextLocked returns a job for the next task. The entry, if it stands for more, goes to the end
// of the queue.
func (m *mapping[T, R]) nextLocked() *job[T, R] {
	p, j, i := m.pool, m.entry, m.drawn
	m.drawn++
	if m.drawn == len(m.tasks) {
		m.entry = nil
		j.index, j.task = uint64(i), m.tasks[i]
		return j
	}
	one := m.newJobLocked(m, m.tasks[i], m.origin)
	one.index, one.positioned = uint64(i), true
	m.pending++
	p.countLocked(one)
	p.tasks.push(j)
	if p.tasks.n == 1 && p.line.n == 0 {
		m.cursor.Store(int64(m.drawn))
		p.claims = m
	}
	return one
}

// claim makes j, which has succeeded, the next task of the Map, without the mutex. It
// reports false where that may not be.
func (m *mapping[T, R]) claim(w *worker[T, R], j *job[T, R]) bool {
	if j.attempt != 1 || m.ctx.Err() != nil {
		return false
	}
	i := m.cursor.Add(1) - 1
	if i >= int64(len(m.tasks)) {
		return false
	}
	m.values[j.index] = j.value
	j.index, j.task = uint64(i), m.tasks[i]
	w.claimed.Store(j.index)
	return true
}

// settleLocked ends the claims without the mutex, and accounts for those that there were:
// by each claim a task has begun, and the one before it has succeeded.
func (m *mapping[T, R]) settleLocked() {
	p := m.pool
	p.claims = nil
	n := int(min(m.cursor.Swap(noClaims), int64(len(m.tasks)))) - m.drawn
	if n == 0 {
		return
	}
	m.drawn += n
	m.done += n
	p.count.submitted += uint64(n)
	p.count.succeeded += uint64(n)
	if m.drawn == len(m.tasks) { // the last of them was the one that the entry stood for
		p.tasks.remove(m.entry)
		m.remove(m.entry)
		p.freeLocked(m.entry)
		m.entry = nil
		p.count.submitted--
		m.pending--
	}
}

func (m *mapping[T, R]) failed(err error) { m.ctx.cancel(err) }

func (m *mapping[T, R]) answerLocked(j *job[T, R]) {
	if j == m.entry {
		m.entry = nil
	}
	switch {
	case j.err == nil:
		m.values[j.index] = j.value
		m.done++
	case m.err == nil:
		m.err = j.err
	}
	m.pool.freeLocked(j)
	m.endedLocked()
}
