package workpool

import (
	"runtime"
	"time"
)

// A crew is the workers of a pool: how many there may be, which exist, and which are idle.
// A new worker gets the lowest free number, from 1. A worker whose number is above size,
// which Resize has lowered, exits when it has finished its task.
type crew struct {
	size    int       // how many workers there may be
	members []*waiter // worker n is at index n-1; nil where the number is free
	vacant  int       // no index before this one is free
	alive   int       // workers that exist
	within  int       // workers with a number up to size
	busy    int       // workers with a number up to size that have a task, or a result without room
	surplus int       // the same, with a number above size
	coming  int       // workers that were woken or started and have not yet looked for a task
	most    int       // the limit of coming: the number of processors
	paused  bool
	idle    waiting
	held    waiting // workers whose last result has no room
	elastic *elastic
}

func newCrew(c config) crew {
	crew := crew{size: c.workers, most: runtime.GOMAXPROCS(0)}
	if c.elastic {
		crew.elastic = &elastic{least: c.minWorkers, idle: c.idle}
	}
	return crew
}

// free returns how many workers could begin a task, including those that are not started.
func (c *crew) free() int {
	if c.paused {
		return 0
	}
	return c.size - c.busy
}

// workers returns Stats.Workers.
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
	c.idle.wakeAll() // some may have to exit
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
		c.members = nil // release the memory
	}
}

// replace puts w in the place of old, which exits. What the crew counts for old counts for
// w.
func (c *crew) replace(old, w *waiter) {
	w.number, w.seated = old.number, old.seated
	c.members[w.number-1] = w
}

// sit marks a worker as busy, and stand as no longer busy.
func (c *crew) sit(w *waiter) {
	w.seated = true
	*c.seats(w)++
}

func (c *crew) stand(w *waiter) {
	w.seated = false
	*c.seats(w)--
}

// seats returns the counter that counts w while it is busy.
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

// arrived marks a worker as no longer coming, because it looks for a task now.
func (c *crew) arrived(w *waiter) {
	if w.coming {
		w.coming = false
		c.coming--
	}
}

// rest adds a worker to the idle ones. The one that has been idle shortest is called first: its
// memory is likely to be cached, and the others may not be needed at all.
func (c *crew) rest(w *waiter) {
	if c.elastic != nil {
		w.since = time.Now()
	}
	c.idle.push(w)
}
