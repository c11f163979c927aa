package workpool

// A collector is the collector channel: results that no receiver has taken. It is not a
// bare Go channel, because it has no limit once the pool is closing, and because a receiver
// takes several results at once.
type collector[T, R any] struct {
	on      bool // results are collected
	buffer  int
	list    list[T, R]
	order   *order[T, R] // with WithOrdered
	readers waiting
	called  *waiter         // the one of them that was woken and has not looked yet
	ranges  int             // over Results
	ahead   *receiver[T, R] // the only one, if it has taken several results
}

func newCollector[T, R any](p *Pool[T, R]) collector[T, R] {
	c := collector[T, R]{on: p.functions.result == nil && !p.withoutResults && !p.own, buffer: p.resultBuffer}
	if p.ordered {
		c.order = new(order[T, R])
	}
	return c
}

// undelivered returns how many results no receiver has taken.
func (c *collector[T, R]) undelivered() int {
	n := c.list.n
	if c.ahead != nil {
		n += c.ahead.inHand()
	}
	if c.order != nil {
		n += c.order.finished
	}
	return n
}

// isOverfull reports whether a worker that has added a result has to wait for room. Each
// held worker stands for one result without room. With WithOrdered no worker is held: all
// of them could be waiting for a result whose task is still queued. There the number of
// accepted tasks is bounded instead.
func (c *collector[T, R]) isOverfull(held int) bool {
	return c.order == nil && c.list.n+maxTake > c.buffer && c.undelivered()-held > c.buffer
}

// hasRoom reports whether a held worker can go on.
func (c *collector[T, R]) hasRoom(held int) bool { return c.undelivered()-held < c.buffer }

// hasRoomForUnrun reports whether there is room for the result of a task that has not run.
func (c *collector[T, R]) hasRoomForUnrun(held int) bool {
	if c.buffer == 0 {
		return c.order == nil && c.readers.n > c.list.n // a waiting receiver takes it now
	}
	return c.hasRoom(held)
}

// callReceiver wakes a receiver, unless one is on its way already. That one calls the next.
func (c *collector[T, R]) callReceiver() {
	if c.called == nil {
		c.called = c.readers.first
		c.readers.wake(c.called)
	}
}

// recall takes back the results that the only receiver has taken and not claimed. That
// receiver then enters the mutex for each of its next results.
func (c *collector[T, R]) recall() {
	r := c.ahead
	if r == nil {
		return
	}
	c.ahead = nil
	yielded := int(r.yielded.Swap(maxTake))
	for i := r.n - 1; i >= yielded; i-- {
		c.list.pushFront(r.jobs[i])
	}
}
