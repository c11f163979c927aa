package workpool

// A taskChannel is the buffered channel of accepted tasks that no worker has. It is not a
// bare Go channel, because tasks have to be removed from anywhere in it: when the context
// of a caller ends, and to wait for their key or their next attempt.
//
// Its methods, like those of the other parts of the pool, are called with the mutex held.
type taskChannel[T, R any] struct {
	depth  int
	n      int                // tasks that a worker may take
	levels [levels]list[T, R] // these
	aside  [levels]int        // tasks that no worker may take yet: behind, parked, reserved or untold
	turn   uint               // counts the tasks taken, with WithPriority
	parked [levels]int        // those of aside that wait for their next attempt
}

// queued returns how many accepted tasks no worker has.
func (c *taskChannel[T, R]) queued() int {
	return c.n + c.aside[normal] + c.aside[high] + c.aside[low]
}

func (c *taskChannel[T, R]) push(j *job[T, R]) {
	j.state = queued
	c.n++
	c.levels[j.level].push(j)
}

// pop takes the next task.
func (c *taskChannel[T, R]) pop() *job[T, R] {
	l := &c.levels[normal]
	if l.n != c.n {
		l = &c.levels[c.nextLevel()]
		c.turn++
	}
	j := l.pop()
	c.n--
	j.state = outside
	return j
}

func (c *taskChannel[T, R]) remove(j *job[T, R]) {
	j.state = outside
	c.n--
	c.levels[j.level].remove(j)
}

// setAside counts n more tasks of a level that no worker may take.
func (c *taskChannel[T, R]) setAside(l level, n int) { c.aside[l] += n }

// hasRoom reports whether one more task of a level may be accepted: the queue has room, or
// one of the free workers will take the task. A task that no worker may take yet cannot
// count on a free worker. Nor is there room if tasks that wait for their next attempt fill
// the queue.
func (c *taskChannel[T, R]) hasRoom(l level, takable bool, free int) bool {
	n := c.levels[l].n
	free = max(0, free-(c.n-n)) // tasks of other levels take some of them
	if takable && n < free {
		return c.parked[l] <= c.depth
	}
	return c.aside[l]+max(0, n-free) < c.depth
}

// first returns a task that a worker may take, or nil.
func (c *taskChannel[T, R]) first() *job[T, R] {
	for i := range c.levels {
		if c.levels[i].n > 0 {
			return c.levels[i].first
		}
	}
	return nil
}
