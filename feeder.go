package workpool

import "slices"

// A feeder is a goroutine that has been given room for several tasks at once, and
// hands them in one by one without the mutex: those of SubmitAll and Stream.
//
// Whoever holds the mutex and wants to know what is queued collects what feeders
// have handed in. An idle worker can't: while there is one, a flag has feeders see
// to it that somebody comes for each task. The worker sets the flag and then looks
// at the feeders, the feeder hands in a task and then looks at the flag, so one of
// them sees the other. Room that a feeder has not used yet can be taken back, and
// is as soon as another submitter finds none.
type feeder[T, R any] struct {
	// What it uses for each task is in cache lines of its own.
	_        [64]byte
	progress     // of the room that it was given: a claim hands in a task
	filled   int // places of the block that are used; of its goroutine alone
	room     int // tasks to hand in, if none was taken back; of its goroutine alone
	_        [64]byte

	// Guarded by the pool's mutex:
	pool   *Pool[T, R]
	block  *block[T, R] // that it fills; nil where tasks are handed in one by one
	owner  blockOwner[T, R]
	accept func(first, n int) // puts tasks of the block that were handed in into the task channel
	from   int                // where in the block the room begins that it was given last
	known  int                // tasks that are in the channel, of those handed in since
}

// beginLocked makes f one of the feeders of p.
func (f *feeder[T, R]) beginLocked(p *Pool[T, R], owner blockOwner[T, R], accept func(first, n int)) {
	f.pool, f.owner, f.accept = p, owner, accept
	f.block = p.newBlockLocked(owner)
	p.feeders = append(p.feeders, f)
}

// endLocked ends what beginLocked has begun.
func (f *feeder[T, R]) endLocked() {
	if f.block == nil {
		return
	}
	p := f.pool
	f.recallLocked()
	i := slices.Index(p.feeders, f)
	p.feeders = slices.Delete(p.feeders, i, i+1)
	if n := len(f.block.tasks) - f.filled; n > 0 { // else all may have been taken, and the block be in use again
		p.takenLocked(f.block, n)
	}
	f.block = nil
	p.comeForLocked()
}

// handIn hands in a task without the mutex. It reports false if there is no room
// for it left.
func (f *feeder[T, R]) handIn(task T) bool {
	if f.room == 0 {
		return false
	}
	f.block.tasks[f.filled] = task
	if _, ok := f.claim(); !ok {
		f.block.forget(f.filled)
		f.room = 0
		return false
	}
	f.filled++
	f.room--
	return true
}

// giveLocked gives f room for n tasks at most in place of what it had. Of those
// whose tasks get an index one after the other, only one has room at a time, or
// nobody could tell in which order they have used theirs.
func (f *feeder[T, R]) giveLocked(n int) {
	p := f.pool
	p.collectLocked()
	for _, other := range p.feeders {
		if other.owner == f.owner {
			other.recallLocked()
		}
	}
	if f.filled == len(f.block.tasks) {
		f.block, f.filled = p.newBlockLocked(f.owner), 0
	}
	p.settleLocked()
	n = max(0, min(n, len(f.block.tasks)-f.filled, p.seemingRoomLocked()))
	if !p.open || p.waiting.n > 0 {
		n = 0 // or it would overtake those that wait
	}
	p.granted += n
	f.from, f.known, f.room = f.filled, 0, n
	f.open(n)
}

// recallLocked takes back the room that f has not used.
func (f *feeder[T, R]) recallLocked() {
	first, end := f.takeBack(maxRun)
	f.pool.granted -= end - first
	f.collectLocked()
}

// collectLocked puts what f has handed in into the task channel.
func (f *feeder[T, R]) collectLocked() {
	claimed, _ := f.claimed()
	n := claimed - f.known
	if n == 0 {
		return
	}
	p := f.pool
	p.granted -= n
	p.submitted += uint64(n)
	f.accept(f.from+f.known, n)
	f.known = claimed
}

// collectLocked puts what feeders have handed in into the task channel.
func (p *Pool[T, R]) collectLocked() {
	for _, f := range p.feeders {
		f.collectLocked()
	}
}

// recallRoomLocked takes back the room that feeders have not used.
func (p *Pool[T, R]) recallRoomLocked() {
	for _, f := range p.feeders {
		f.recallLocked()
	}
}

// comeForLocked sees to it that somebody comes for what feeders have handed in.
func (p *Pool[T, R]) comeForLocked() {
	p.collectLocked()
	if p.tasks.n > 0 && !p.paused {
		p.offerTaskLocked()
	}
	p.watchFeedersLocked()
}

// watchFeedersLocked has feeders tell of each task while a worker is idle, and only
// then.
func (p *Pool[T, R]) watchFeedersLocked() {
	if p.ofFeeders.setLocked(p.wantsTasksLocked()) {
		p.collectLocked()
		if p.tasks.n > 0 {
			p.offerTaskLocked()
			p.ofFeeders.setLocked(p.wantsTasksLocked())
		}
	}
}

// wantsTasksLocked tells whether there is an idle worker, or one to start, and
// nobody on the way to the tasks that feeders hand in.
func (p *Pool[T, R]) wantsTasksLocked() bool {
	if len(p.feeders) == 0 || p.paused {
		return false
	}
	return p.tasks.wantsLocked() || p.unstarted > 0 && p.starting == nil && p.elasticity == nil
}
