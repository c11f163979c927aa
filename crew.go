package workpool

import (
	"runtime"
	"time"
)

// A crew is the workers of a pool: how many there may be, which there are, and which of
// them have nothing to do. Each has the lowest number from 1 that was vacant when it
// started. One with a number above the size, which Resize has made smaller, leaves when it has
// nothing in hand.
type crew struct {
	size    int       // how many workers there may be
	members []*waiter // by number, from 1 at index 0; nil where there is none
	vacant  int       // no index before this one is vacant
	alive   int       // how many there are
	within  int       // those of them with a number within the size
	busy    int       // those of these that have a task in hand, or a result that found no room
	surplus int       // those with a number beyond it that have
	coming  int       // how many were woken or started, and have not yet looked for a task
	most    int       // how many of these there are at most: one for each processor
	paused  bool
	idle    waiting
	held    waiting // workers whose last result has no room
	elastic *elastic
	resized chan struct{} // closed when the size changes; nil if nobody waits for that
}

func newCrew(c config) crew {
	crew := crew{size: c.workers, most: runtime.GOMAXPROCS(0)}
	if c.elastic {
		crew.elastic = &elastic{least: c.minWorkers, idle: c.idle}
	}
	return crew
}

// free returns how many workers could begin a task, those that are not started included.
func (c *crew) free() int {
	if c.paused {
		return 0
	}
	return c.size - c.busy
}

// workers returns what Stats tells of their number.
func (c *crew) workers(open bool) int {
	switch {
	case !open:
		return c.alive
	case c.elastic != nil:
		return max(c.alive, c.elastic.least)
	}
	return c.size + c.surplus
}

func (c *crew) resize(size int) {
	c.size, c.within, c.busy, c.surplus = size, 0, 0, 0
	for i, w := range c.members {
		if w == nil {
			continue
		}
		if i < size {
			c.within++
		}
		if w.seated {
			*c.seats(w)++
		}
	}
	c.vacant = 0
	if c.resized != nil {
		close(c.resized)
		c.resized = nil
	}
	c.idle.wakeAll() // some may be to leave
}

// onResize returns a channel that is closed when the size changes.
func (c *crew) onResize() <-chan struct{} {
	if c.resized == nil {
		c.resized = make(chan struct{})
	}
	return c.resized
}

// join gives a worker a number.
func (c *crew) join(w *waiter) {
	for c.vacant < len(c.members) && c.members[c.vacant] != nil {
		c.vacant++
	}
	if c.vacant == len(c.members) {
		c.members = append(c.members, nil)
	}
	c.members[c.vacant] = w
	w.number = int32(c.vacant + 1)
	c.alive++
	c.within++
}

func (c *crew) leave(w *waiter) {
	i := int(w.number) - 1
	c.members[i] = nil
	c.vacant = min(c.vacant, i)
	for n := len(c.members); n > 0 && c.members[n-1] == nil; n-- {
		c.members = c.members[:n-1]
	}
	c.alive--
	if i < c.size {
		c.within--
	}
	if c.alive == 0 {
		c.members = nil // let the memory go
	}
}

// replace puts one worker in the place of another, which leaves. All that the crew counts by
// worker moves with it.
func (c *crew) replace(old, w *waiter) {
	w.number, w.seated = old.number, old.seated
	c.members[w.number-1] = w
}

// sit and stand note that a worker has something in hand, or no more.
func (c *crew) sit(w *waiter) {
	w.seated = true
	*c.seats(w)++
}

func (c *crew) stand(w *waiter) {
	w.seated = false
	*c.seats(w)--
}

// seats returns the number that w counts in while it has something in hand.
func (c *crew) seats(w *waiter) *int {
	if int(w.number) <= c.size {
		return &c.busy
	}
	return &c.surplus
}

// call wakes an idle worker to look for a task.
func (c *crew) call(w *waiter) {
	w.coming = true
	c.coming++
	c.idle.wake(w)
}

// arrived notes that a worker looks for a task.
func (c *crew) arrived(w *waiter) {
	if w.coming {
		w.coming = false
		c.coming--
	}
}

// rest adds a worker to the idle ones. The one that has rested shortest is called first:
// its memory is in a cache, and the others may turn out not to be needed.
func (c *crew) rest(w *waiter) {
	if c.elastic != nil {
		w.since = time.Now()
	}
	c.idle.push(w)
}
