package workpool

// A channel is one of the pool's two channels. What is in it lies in a list
// under the pool's mutex; the Go channel inside carries claims, each of which
// tells one receiver that there is something to take.
//
// Why not a Go channel of tasks: it locks, and often switches goroutines, for
// every element. Here a worker hands in results and takes its next tasks under
// one lock, and only who has nothing to do waits on a Go channel.
type channel[T, R any] struct {
	list[T, R]
	claims
}

// claims is a Go channel on which goroutines wait for a reason to look again.
//
// At most one claim is under way at a time. The one who receives it looks at
// the state of the pool, takes what it finds, and offers the next claim if
// there is more: so a burst wakes as many receivers as it keeps busy, and the
// sender never waits.
type claims struct {
	c       chan struct{} // capacity 1
	waiting int           // goroutines in waitLocked
	offered bool          // a claim has been sent and not yet been acted on
}

func newClaims() claims { return claims{c: make(chan struct{}, 1)} }

// offerLocked wakes one of those who wait, if there are any.
func (c *claims) offerLocked() {
	if c.wantsLocked() {
		c.sendLocked()
	}
}

func (c *claims) sendLocked() {
	c.offered = true
	c.c <- struct{}{}
}

// waitLocked unlocks the mutex, waits for a claim and locks it again. The caller
// then checks what it waited for: others may have been faster.
func (p *Pool[T, R]) waitLocked(c *claims) {
	c.waiting++
	p.watchLocked()
	waitingOn := c.c
	p.mu.Unlock()
	<-waitingOn
	p.mu.Lock()
	if waitingOn == c.c {
		c.waiting--
		c.offered = false
	}
	p.watchLocked()
}

// wantsLocked tells whether somebody waits, and no claim is on the way.
func (c *claims) wantsLocked() bool { return c.waiting > 0 && !c.offered }

// wakeAllLocked wakes all who wait.
func (c *claims) wakeAllLocked() {
	close(c.c)
	*c = newClaims()
}

// A list holds jobs, first in, first out. The jobs are linked to one another,
// so that a job can leave from anywhere, and a deep list costs no memory
// before it is used.
type list[T, R any] struct {
	first, last *job[T, R]
	n           int
}

func (l *list[T, R]) push(j *job[T, R]) {
	if l.n == 0 {
		l.first = j
	} else {
		j.previous, l.last.next = l.last, j
	}
	j.next = nil
	l.last = j
	l.n++
}

func (l *list[T, R]) pushFront(j *job[T, R]) {
	if l.n == 0 {
		j.next, l.last = nil, j
	} else {
		j.next, l.first.previous = l.first, j
	}
	l.first = j
	l.n++
}

// each calls f, which does not change the list, for every job.
func (l *list[T, R]) each(f func(j *job[T, R])) {
	for j := l.first; j != nil; j = j.next {
		f(j)
	}
}

// pop leaves the next job alone, whose previous means nothing while it is the
// first: that job may be in the cache of another processor.
func (l *list[T, R]) pop() *job[T, R] {
	j := l.first
	l.first = j.next
	if l.n--; l.n == 0 {
		l.last = nil
	}
	return j
}

// popLinked takes out the first jobs, as many as jobs has room for. They stay
// linked to one another.
func (l *list[T, R]) popLinked(jobs []*job[T, R]) {
	j := l.first
	for i := range jobs {
		jobs[i] = j
		j = j.next
	}
	l.first = j
	if l.n -= len(jobs); l.n == 0 {
		l.last = nil
	}
}

func (l *list[T, R]) remove(j *job[T, R]) {
	if j == l.first {
		l.pop()
		return
	}
	j.previous.next = j.next
	if j == l.last {
		l.last = j.previous
	} else {
		j.next.previous = j.previous
	}
	l.n--
}
