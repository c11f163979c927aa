package workpool

// A feeder is a goroutine that has been given room for several tasks at once, and
// hands them in one by one without the mutex: the tasks of a Stream.
//
// Whoever holds the mutex and wants to know what is queued collects what feeders
// have handed in. An idle worker can't: while there is one, a flag has feeders see
// to it that somebody comes for each task. The worker sets the flag and then looks
// at the feeders, the feeder hands in a task and then looks at the flag, so one of
// them sees the other. Room that a feeder has not used yet can be taken back, and
// is as soon as another submitter finds none.
type feeder[T, R any] struct {
	progress // of the room that it was given: a claim hands in a task

	// Guarded by the pool's mutex:
	queueLocked func(first, n int) // puts tasks that were handed in into the task channel
	collected   int                // tasks that are there
}

// giveLocked gives f, which has used or lost what it had, room for n tasks at most.
// It returns for how many.
func (p *Pool[T, R]) giveLocked(f *feeder[T, R], n int) int {
	if n > 0 {
		p.settleLocked()
		p.settleSharesLocked()
	}
	n = max(0, min(n, p.seemingRoomLocked()))
	if !p.open || p.waiting.n > 0 {
		n = 0 // or it would overtake those that wait
	}
	p.granted += n
	f.open(n)
	f.collected = 0
	return n
}

// collectLocked puts what feeders have handed in into the task channel.
func (p *Pool[T, R]) collectLocked() {
	for _, f := range p.feeders {
		p.collectFromLocked(f)
	}
}

func (p *Pool[T, R]) collectFromLocked(f *feeder[T, R]) {
	claimed, _ := f.claimed()
	n := claimed - f.collected
	if n == 0 {
		return
	}
	p.granted -= n
	p.submitted += uint64(n)
	f.queueLocked(f.collected, n)
	f.collected = claimed
}

// recallRoomLocked takes back the room that feeders have not used.
func (p *Pool[T, R]) recallRoomLocked() {
	for _, f := range p.feeders {
		p.recallRoomOfLocked(f)
	}
}

func (p *Pool[T, R]) recallRoomOfLocked(f *feeder[T, R]) {
	first, end := f.takeBack(maxShare)
	p.granted -= end - first
	p.collectFromLocked(f)
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
	if !p.starved && p.wantsTasksLocked() {
		p.starved = true
		p.hungry.Store(true)
		p.collectLocked()
		if p.tasks.n > 0 {
			p.offerTaskLocked()
		}
	}
	if p.starved && !p.wantsTasksLocked() {
		p.starved = false
		p.hungry.Store(false)
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
