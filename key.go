package workpool

import "slices"

// WithKey makes tasks of one key run one at a time, in the order of acceptance.
// Tasks of different keys share all workers. T must be that of the pool.
//
// A key takes part only while it has tasks. When one of them has ended, the
// next one of that key goes to the end of the queue: so a key with many tasks
// keeps no other from the workers. The tasks behind a running one of their key
// count as queued. They may fill the queue, but a task whose key is idle is
// accepted whenever a worker is free.
//
// A task that is retried keeps its place: the next one of its key waits until
// it has ended.
//
// A handler may hand in tasks of any key. With Submit, one whose key is busy is
// queued, in excess of the queue depth where that is full. With Do, Map or
// Stream, one of the handler's own key, or of the key of another handler that
// waits for this one, runs in the place of those that wait. One of any other
// busy key waits for its turn, for which the pool adds workers where none is
// free: so handlers never wait for one another in a circle.
//
// f is called by the goroutine that hands in the task, before it is accepted.
// A panic of f is the error of that call. A nil interface is no key, and neither
// is what does not equal itself, as a NaN: such a task runs freely.
func WithKey[T any, K comparable](f func(task T) K) Option {
	return optionFunc(func(c *config) error {
		if f == nil {
			return invalid("WithKey(nil): pass a function from a task to its key")
		}
		c.keyFunc = f
		c.key = func(task T) any {
			if key := f(task); key == key { //nolint:gocritic // a NaN isn't, and could not be found again
				return key
			}
			return nil
		}
		return nil
	})
}

// manyKeys is from how many on a map is worth making anew.
const manyKeys = 1 << 10

// A lane is a key that has tasks.
type lane[T, R any] struct {
	key     any
	tasks   int          // that are accepted or in line, and have not ended
	turn    []*job[T, R] // the one whose turn it is; where handlers wait for tasks of their own key, the last of these
	waiting list[T, R]   // those behind it

	awaited int           // how many of waiting a handler waits for
	inside  *worker[T, R] // the worker of one that does
}

// current returns the job whose turn it is, or nil.
func (l *lane[T, R]) current() *job[T, R] {
	if len(l.turn) == 0 {
		return nil
	}
	return l.turn[len(l.turn)-1]
}

// claim makes it the turn of j.
func (l *lane[T, R]) claim(j *job[T, R]) { l.turn = append(l.turn, j) }

// A class is what the functions of the user say about a task.
type class struct {
	key   any // nil without one
	level level
}

// classify calls the functions given with WithKey and WithPriority.
func (p *Pool[T, R]) classify(task T) (c class, err error) {
	if p.keyOf == nil && p.priorityOf == nil {
		return c, nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v)
		}
	}()
	if p.keyOf != nil {
		c.key = p.keyOf(task)
	}
	if p.priorityOf != nil {
		c.level, err = levelOf(p.priorityOf(task))
	}
	return c, err
}

// joinLocked gives j its class.
func (p *Pool[T, R]) joinLocked(j *job[T, R], c class) {
	j.level = c.level
	if c.key == nil {
		return
	}
	l := p.lanes[c.key]
	if l == nil {
		l = &lane[T, R]{key: c.key}
		p.lanes[c.key] = l
		p.most = max(p.most, len(p.lanes))
	}
	l.tasks++
	j.lane = l
}

// isBehindLocked tells whether j has to wait for another task of its key.
func (j *job[T, R]) isBehindLocked() bool {
	return j.lane != nil && len(j.lane.turn) > 0 && j.lane.current() != j
}

// takeTurnLocked makes it the turn of j, which is behind no other.
func (j *job[T, R]) takeTurnLocked() {
	if j.lane != nil && len(j.lane.turn) == 0 {
		j.lane.claim(j)
	}
}

// queueBehindLocked puts j behind the others of its key.
func (p *Pool[T, R]) queueBehindLocked(j *job[T, R]) {
	l := j.lane
	j.place = behind
	l.waiting.push(j)
	p.countBlockedLocked(j, 1)
	if j.inside == nil {
		return
	}
	l.awaited++
	l.inside = j.inside
	if first := l.current(); first.place == queued {
		p.unqueueLocked(first)
		p.readyLocked(first)
		p.grantLocked()
	}
}

// takeFromBehindLocked takes j, which is behind another task, out of the line.
func (p *Pool[T, R]) takeFromBehindLocked(j *job[T, R]) {
	j.place = elsewhere
	j.lane.waiting.remove(j)
	p.countBlockedLocked(j, -1)
	if j.inside != nil {
		j.lane.awaited--
	}
}

// leaveLaneLocked ends the part of j in its lane, if it has one. If it was its
// turn, the next one's comes.
func (p *Pool[T, R]) leaveLaneLocked(j *job[T, R]) {
	l := j.lane
	if l == nil {
		return
	}
	j.lane = nil
	if l.tasks--; l.tasks == 0 {
		delete(p.lanes, l.key)
		if len(p.lanes) == 0 && p.most > manyKeys { // a map keeps the room that it once needed
			p.lanes, p.most = map[any]*lane[T, R]{}, 0
		}
	}
	i := slices.Index(l.turn, j)
	if i < 0 {
		return
	}
	l.turn = slices.Delete(l.turn, i, i+1)
	next := l.nextLocked()
	if next != nil {
		p.takeFromBehindLocked(next)
		l.claim(next)
		p.readyLocked(next)
	}
	if l.tasks > len(l.turn)+l.waiting.n || next != nil && next.place != queued {
		p.grantLocked() // to one of the key, or where next has left, which no worker may do later
	}
}

// nextLocked returns the task whose turn comes next. While a handler of the key
// waits for others, that can only be one that it waits for.
func (l *lane[T, R]) nextLocked() *job[T, R] {
	if len(l.turn) == 0 {
		return l.waiting.first
	}
	for j := l.waiting.first; j != nil; j = j.next {
		if j.inside != nil && j.inside.isAwaitedByLocked(l.current()) {
			return j
		}
	}
	return nil
}

// isAwaitedByLocked tells whether j is the task of w, or of a handler that
// waits for it, if only through others: then that one does not go on before w
// does, and w may run tasks in its place.
func (w *worker[T, R]) isAwaitedByLocked(j *job[T, R]) bool {
	found := []*worker[T, R]{w}
	add := func(w *worker[T, R]) {
		if w != nil && !slices.Contains(found, w) {
			found = append(found, w)
		}
	}
	for i := 0; i < len(found); i++ { //nolint:intrange // it grows
		own := found[i].job
		if own == nil {
			continue
		}
		if own == j {
			return true
		}
		if !own.abandoned {
			add(found[i].outer)
			add(own.inside)
		}
		if own.lane != nil {
			own.lane.waiting.each(func(behind *job[T, R]) { add(behind.inside) })
		}
	}
	return false
}
