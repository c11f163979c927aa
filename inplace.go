package workpool

import linked "container/list"

// A handler that waits for tasks of its own pool must not depend on a free worker: all workers
// might be waiting in the same way. A waiting handler occupies a worker without using it. So the
// tasks that it waits for run in its place, one at a time, if no other worker takes them.

// An inPlace runs tasks in the place of whoever waits for them: a handler, or a Submit with
// CallerRuns. The pool has one more, which calls the result function for tasks that have not
// run. An inPlace has a worker, the helper, while it has tasks.
type inPlace[T, R any] struct {
	worker  *worker[T, R] // the worker whose handler waits, or nil
	own     list[T, R]    // tasks that nobody else may take: those that are untold
	batches linked.List   // the batches that the handler has submitted
	helper  *worker[T, R] // runs the tasks; nil while none runs
}

// isAwaited reports whether a handler waits for j.
func (j *job[T, R]) isAwaited() bool { return j.batch != nil && j.batch.place != nil }

// placeLocked returns the inPlace of the handler of w.
func (w *worker[T, R]) placeLocked() *inPlace[T, R] {
	if w.place == nil {
		w.place = &inPlace[T, R]{worker: w}
	}
	return w.place
}

// holds reports whether the task of the waiting handler has key k, or the task of a handler
// that waits for that one.
func (s *inPlace[T, R]) holds(k *keyQueue[T, R]) bool {
	for ; s != nil && s.worker != nil; s = s.worker.serves {
		if j := s.worker.job; j != nil && j.key == k {
			return true
		}
	}
	return false
}

// heir returns the task with key k that runs in place, directly or further down, or nil.
func (s *inPlace[T, R]) heir(k *keyQueue[T, R]) *job[T, R] {
	for ; s != nil && s.helper != nil; s = s.helper.place {
		if j := s.helper.job; j != nil && j.key == k {
			return j
		}
	}
	return nil
}

// awaitLocked notes that a caller waits for b, so that tasks of b may run in place.
func (p *Pool[T, R]) awaitLocked(b *batch[T, R]) {
	b.waits++
	p.helpForLocked(b)
}

// awaitOnceLocked notes that the handler of place waits for the single task j.
func (p *Pool[T, R]) awaitOnceLocked(j *job[T, R], place *inPlace[T, R]) {
	b := &batch[T, R]{once: true, waits: 1}
	b.join(place)
	b.add(j)
}

// isIdle reports whether a handler waits for tasks of b and runs none in its place.
func (b *batch[T, R]) isIdle() bool {
	return b != nil && b.waits > 0 && b.place != nil && b.place.helper == nil
}

// helpForLocked lets tasks of b run in place if a handler waits for them.
func (p *Pool[T, R]) helpForLocked(b *batch[T, R]) {
	if b != nil && b.waits > 0 && b.place != nil {
		p.helpLocked(b.place)
	}
}

// helpLocked starts a helper for what can run in place, unless there is one. Without a
// helper there is never anything that could run: whoever makes a task runnable calls
// helpLocked, or begins it with a helper at once.
func (p *Pool[T, R]) helpLocked(s *inPlace[T, R]) {
	if s.helper != nil {
		return
	}
	if j := s.nextLocked(p); j != nil {
		p.helpWithLocked(s, j)
	}
}

// helpWithLocked starts a helper with j. It then runs what else can run in place.
func (p *Pool[T, R]) helpWithLocked(s *inPlace[T, R], j *job[T, R]) {
	s.helper = p.newWorker()
	s.helper.serves = s
	if s.worker != nil {
		s.helper.number = s.worker.number
	}
	s.helper.beginLocked(j)
	p.startLocked(s.helper)
}

// nextLocked takes a task that can run in place, or returns nil if there is none.
func (s *inPlace[T, R]) nextLocked(p *Pool[T, R]) *job[T, R] {
	if s.own.n > 0 {
		j := s.own.pop()
		p.tasks.setAside(j.level, -1)
		return j
	}
	for e := s.batches.Front(); e != nil; e = e.Next() {
		b := e.Value.(*batch[T, R])
		for j := b.unbegun[0].first; j != nil && b.waits > 0; j = j.nextInBatch {
			switch {
			case j.state == queued:
				p.tasks.remove(j)
				return j
			case j.state == reserved:
				p.takeFromBehindLocked(j)
				return j
			case j.state == ahead && j.key.turn.waits(): // no other of its key runs
				p.takeFromBehindLocked(j)
				p.giveTurnLocked(j)
				return j
			}
		}
	}
	return nil
}

// runBesideLocked runs a task in the place of its caller, in addition to those of the
// workers.
func (p *Pool[T, R]) runBesideLocked(j *job[T, R]) {
	p.countLocked(j)
	if k := j.key; k != nil {
		k.turn = j
		p.placeHeadLocked(k)
	}
	p.helpWithLocked(new(inPlace[T, R]), j)
}

// closePlaceLocked ends the inPlace of w, whose handler has returned. Tasks that have not
// begun wait for a worker like any others. If a helper still runs a task, it takes over the
// place of w, and closePlaceLocked returns true.
func (w *worker[T, R]) closePlaceLocked() bool {
	p, s := w.pool, w.place
	w.place = nil
	for e := s.batches.Front(); e != nil; e = s.batches.Front() {
		b := e.Value.(*batch[T, R])
		b.leave()
		for j := b.unbegun[0].first; j != nil; j = j.nextInBatch {
			if j.state == reserved {
				p.takeFromBehindLocked(j)
				p.queueLocked(j)
			}
		}
	}
	helper := s.helper
	if helper == nil {
		return false
	}
	helper.serves = w.serves
	if w.serves == nil {
		p.crew.replace(&w.waiter, &helper.waiter)
	} else {
		w.serves.helper = helper
	}
	for h := helper; h != nil && h.place != nil; h = h.place.helper {
		h.place.unreserveLocked(p)
	}
	return true
}

// unreserveLocked lets those of the tasks that are reserved for s wait for their turn whose key s
// no longer holds, since a handler further up has returned.
func (s *inPlace[T, R]) unreserveLocked(p *Pool[T, R]) {
	var free []*job[T, R]
	for e := s.batches.Front(); e != nil; e = e.Next() {
		for j := e.Value.(*batch[T, R]).unbegun[0].first; j != nil; j = j.nextInBatch {
			if j.state == reserved && !s.holds(j.key) {
				free = append(free, j)
			}
		}
	}
	for _, j := range free {
		p.takeFromBehindLocked(j)
		p.queueLocked(j)
	}
}
