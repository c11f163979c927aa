package workpool

import (
	"cmp"
)

// WithKey runs tasks of one key one at a time, in the order of acceptance. Tasks of
// different keys share all workers. T must be that of the pool.
//
// When a task has ended, the next one of its key goes to the end of the queue, so a
// key with many tasks does not keep others from the workers. Tasks behind a running
// one of their key count as queued. They may fill the queue, unless [WithKeyDepth]
// limits them, but a task whose key is idle is accepted whenever a worker is free.
// The pool keeps nothing of a key without tasks.
//
// A retried task keeps its turn: the next one of its key waits until it has ended,
// unless a task that a handler waits for goes ahead of it meanwhile. Then the retried
// one waits for its turn again.
//
// A handler may submit tasks of any key to its own pool. If the key is busy, Submit
// queues the task, in excess of the queue depth if necessary. A task that the
// handler waits for, as with Do, goes ahead of the queued ones of its key. If the
// handler has the same key, or a handler that waits for this one has, the task runs
// in the handler's place. Two handlers of different keys that wait for tasks of
// each other's key deadlock until a context ends, as with two mutexes.
//
// f is called by the goroutine that submits the task, before it is accepted. A
// panic of f is the error of that call. A task whose key is a nil interface or a
// NaN has no key and runs freely.
func WithKey[T any, K comparable](f func(task T) K) Option {
	if f == nil {
		return mistaken("WithKey(nil): pass a function from a task to its key")
	}
	return setting(func(c *config) {
		c.keyFunc = f
		c.key = func(task T) any {
			if key := f(task); key == key { //nolint:gocritic // a NaN isn't, and could not be found again
				return key
			}
			return nil
		}
	})
}

// WithKeyDepth limits how many tasks of one key, with [WithKey], may be accepted
// and not ended: 1 or more. A further task waits as if the queue were full, or does
// what [WithOverflow] says. It does not keep tasks of other keys from being
// accepted. Tasks that handlers submit to their own pool are accepted in excess of
// the limit. Without the option, a busy key may fill the queue.
func WithKeyDepth(n int) Option {
	if n < 1 {
		return mistaken("WithKeyDepth(%d): the depth is 1 or more", n)
	}
	return setting(func(c *config) { c.keyDepth = n })
}

// keys are the keys that have tasks.
type keys[T, R any] struct {
	depth int // as given with WithKeyDepth, or 0
	queue map[any]*keyQueue[T, R]
	most  int // how many there were at most since queue was made
}

// manyKeys is the size from which a map of keys is replaced once it is empty: a map does
// not shrink.
const manyKeys = 1 << 10

// A keyQueue is the tasks of one key.
type keyQueue[T, R any] struct {
	key      any
	tasks    int        // accepted and not ended
	turn     *job[T, R] // the one that runs, or will next; nil if there is none
	ahead    list[T, R] // accepted, a handler waits for them
	behind   list[T, R] // accepted
	reserved list[T, R] // accepted, run only in the place of a handler that has the turn
	head     *job[T, R] // the first that waits to be accepted; in the line, unless the key is full
	after    list[T, R] // those that wait after it
}

// get returns the queue of a key.
func (ks *keys[T, R]) get(key any) *keyQueue[T, R] {
	k := ks.queue[key]
	if k == nil {
		if ks.queue == nil {
			ks.queue = map[any]*keyQueue[T, R]{}
		}
		k = &keyQueue[T, R]{key: key}
		ks.queue[key] = k
		ks.most = max(ks.most, len(ks.queue))
	}
	return k
}

// forget drops the queue of a key that has no tasks.
func (ks *keys[T, R]) forget(k *keyQueue[T, R]) {
	if k.tasks > 0 || k.head != nil {
		return
	}
	delete(ks.queue, k.key)
	if len(ks.queue) == 0 && ks.most > manyKeys {
		ks.queue, ks.most = nil, 0
	}
}

// ofKey returns how many tasks of the key of j have been accepted and not ended.
func (j *job[T, R]) ofKey() int {
	if j.key == nil {
		return 0
	}
	return j.key.tasks
}

// isFull reports whether a key has as many tasks as it may.
func (ks *keys[T, R]) isFull(k *keyQueue[T, R]) bool { return ks.depth > 0 && k.tasks >= ks.depth }

// placeHeadLocked puts the first task of k that waits to be accepted where it belongs.
func (p *Pool[T, R]) placeHeadLocked(k *keyQueue[T, R]) {
	switch {
	case k.head == nil:
	case p.keys.isFull(k):
		p.line.move(k.head, noLane)
	default:
		p.line.move(k.head, p.line.laneOf(k.head))
	}
}

// queueBehindLocked lets an accepted task wait, because another one of its key has the
// turn.
func (p *Pool[T, R]) queueBehindLocked(j *job[T, R]) {
	p.tasks.setAside(j.level, 1)
	switch {
	case !j.isAwaited():
		j.state = behind
		j.key.behind.push(j)
	case j.batch.place.holds(j.key): // it runs in place, or never
		j.state = reserved
		j.key.reserved.push(j)
		p.helpForLocked(j.batch)
	default:
		j.state = ahead
		j.key.ahead.push(j)
		p.helpForLocked(j.batch)
	}
}

// giveTurnLocked gives j the turn of its key, which another task has that no worker runs.
// That task waits for the turn again; if it is parked, it does so when its next attempt is
// due.
func (p *Pool[T, R]) giveTurnLocked(j *job[T, R]) {
	k := j.key
	last := k.turn
	k.turn = j
	if last.state != queued {
		return
	}
	p.tasks.remove(last)
	p.tasks.setAside(last.level, 1)
	if last.isAwaited() {
		last.state = ahead
		k.ahead.pushFront(last)
		return
	}
	last.state = behind
	k.behind.pushFront(last)
}

// takeFromBehindLocked removes a task that waits for its turn.
func (p *Pool[T, R]) takeFromBehindLocked(j *job[T, R]) {
	switch j.state {
	case ahead:
		j.key.ahead.remove(j)
	case reserved:
		j.key.reserved.remove(j)
	default:
		j.key.behind.remove(j)
	}
	j.state = outside
	p.tasks.setAside(j.level, -1)
}

// releaseKeyLocked removes j from its key. If j had the turn, a task of the same key that still
// runs in the place of j gets it, or else the next one.
func (p *Pool[T, R]) releaseKeyLocked(j *job[T, R], place *inPlace[T, R]) {
	k := j.key
	j.key = nil
	k.tasks--
	if k.turn == j {
		k.turn = place.heir(k)
		if k.turn == nil {
			p.nextTurnLocked(k)
		}
	}
	p.placeHeadLocked(k)
	p.keys.forget(k)
}

// helpKeyLocked lets a handler that waits for a task of k run it in its place, if the task
// can begin at once: no task of k runs, and the one that has the turn waits.
func (p *Pool[T, R]) helpKeyLocked(k *keyQueue[T, R]) {
	if j := k.firstIdle(); j != nil {
		p.helpForLocked(j.batch)
	}
}

// firstIdle returns the first task whose handler waits for it and runs nothing in its
// place, or nil.
func (k *keyQueue[T, R]) firstIdle() *job[T, R] {
	for j := k.ahead.first; j != nil; j = j.next {
		if j.batch.isIdle() {
			return j
		}
	}
	return nil
}

// nextTurnLocked gives the turn to the next task of k. Tasks that a handler waits for come
// first, and of these the one that can begin at once.
func (p *Pool[T, R]) nextTurnLocked(k *keyQueue[T, R]) {
	next := cmp.Or(k.firstIdle(), k.ahead.first, k.behind.first)
	if next == nil {
		return
	}
	p.takeFromBehindLocked(next)
	p.queueLocked(next)
}
