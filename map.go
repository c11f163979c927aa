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

// A mapping is one running Map. It has one entry in the queue, which stands for all tasks that have
// not begun. A worker that takes the entry begins the next task and puts the entry back at the end
// of the queue. While nothing else is queued, a worker that has ended a task claims the next one
// without the mutex.
type mapping[T, R any] struct {
	batch[T, R]
	tasks  []T
	values []R

	_      [64]byte     // keeps cursor, which every claim writes, in a cache line of its own
	cursor atomic.Int64 // the next task to claim; noClaims or more if none may be claimed
	_      [64]byte

	// Guarded by the pool's mutex:
	entry *job[T, R] // stands for the tasks that no worker has begun, and counts as one of them; nil if there are none
	drawn int        // the position of the first task that no worker has begun
	done  int        // tasks that have succeeded
	err   error      // the first error
}

const noClaims = math.MaxInt64 / 2

// handInAll gets the tasks accepted: as one entry, or one by one if they have keys or
// priorities.
func (m *mapping[T, R]) handInAll() error {
	p := m.pool
	if !p.functions.classifies() {
		return m.handInEntry()
	}
	for _, task := range m.tasks {
		err := m.handIn(m, task, policy{})
		p.unlock()
		if err != nil {
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
	m.entry = m.newJobLocked(m, m.tasks[0], m.at)
	m.add(m.entry)
	m.pending++
	if _, err := p.offerLocked(m.entry, m.inside, policy{}); err != nil {
		p.dismissLocked(m.entry)
		m.entry = nil
		m.endedLocked()
		return err
	}
	return nil
}

// drawLocked returns j, or if j is the entry of a Map, a job for the next task of the Map.
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

// nextLocked returns a job for the next task. If more tasks are left, the entry goes to the end of
// the queue.
func (m *mapping[T, R]) nextLocked() *job[T, R] {
	p, j, i := m.pool, m.entry, m.drawn
	m.drawn++
	if m.drawn == len(m.tasks) {
		m.entry = nil
		j.index, j.task = uint64(i), m.tasks[i]
		return j
	}
	one := m.newJobLocked(m, m.tasks[i], m.at)
	m.pending++
	p.countLocked(one)
	one.index = uint64(i)
	p.tasks.push(j)
	if p.tasks.n == 1 && p.line.n == 0 {
		m.cursor.Store(int64(m.drawn))
		p.claims = m
	}
	return one
}

// claim reuses j, which has succeeded, for the next task of the Map, without the mutex. It reports
// false if that is not possible.
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

// settleLocked stops claims and accounts for those that were made. Each claim means that one task
// has succeeded and the next one has begun.
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
	if m.drawn == len(m.tasks) { // none is left for the entry to stand for
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
