package workpool

// An Overflow says what happens to a task for which there is no room. See
// [WithOverflow].
type Overflow int

const (
	// Block waits for room. It is the default.
	Block Overflow = iota
	// Reject returns ErrQueueFull at once.
	Reject
	// DropOldest accepts the task and drops the one that has been queued longest,
	// which ends with ErrDropped. Tasks of Map and Stream are not dropped. With
	// WithPriority, the dropped task has the same priority. With WithKey, it is the
	// oldest that waits behind the same key, if one of the first 32 there may be
	// dropped; if not, and unless the key has reached its WithKeyDepth, it is that of
	// any key.
	DropOldest
	// DropNewest accepts the task and ends it with ErrDropped, without running
	// it.
	DropNewest
	// CallerRuns runs the task in addition to those of the workers, before the call
	// returns; for DoChan, on a goroutine of its own. The Worker of its Result is 0.
	// If it asks for another attempt, as with RetryAfter, a worker runs that. In a
	// handler of the same pool it is the same as Block: the task runs in the handler's
	// place.
	CallerRuns
)

// String returns the name of the constant.
func (o Overflow) String() string {
	return nameOf("Overflow", int(o), "Block", "Reject", "DropOldest", "DropNewest", "CallerRuns")
}

// WithOverflow sets what [Pool.Submit], [Pool.SubmitAll], [Pool.SubmitCancel],
// [Pool.Do], [Pool.DoChan] and [Group.Submit] do when there is no room. The default
// is [Block]. TrySubmit, TryDo, Map and Stream ignore it.
//
// A dropped task still yields its [Result], and results are bounded. While there is
// no room for another one, because nobody receives them, DropOldest, DropNewest and
// CallerRuns wait as Block does. With a result buffer of 0, that is whenever no
// receiver is waiting. CallerRuns also waits if the key of the task is busy, and
// DropOldest if there is nothing to drop.
func WithOverflow(overflow Overflow) Option {
	if overflow < Block || overflow > CallerRuns {
		return mistaken("WithOverflow(%v): it is Block, Reject, DropOldest, DropNewest or CallerRuns", overflow)
	}
	return setting(func(c *config) { c.overflow = overflow })
}

// overflowLocked does what WithOverflow says with a task that has no room. done reports
// whether that settled it; if not, the task has to wait. waits reports whether the caller
// then has to wait until the task has run in its place.
func (p *Pool[T, R]) overflowLocked(j *job[T, R]) (done, waits bool, err error) {
	switch {
	case p.overflow == Reject:
		return true, false, ErrQueueFull
	case p.overflow == DropNewest && p.hasRoomForUnrunLocked(j):
		p.countLocked(j)
		p.endUnrunLocked(j, ErrDropped, dropped)
		return true, false, nil
	case p.overflow == DropOldest:
		oldest := p.oldestLocked(j)
		if oldest == nil || !p.hasRoomForUnrunLocked(oldest) {
			return false, false, nil
		}
		p.acceptLocked(j) // first, or the room could go to somebody in line
		p.endQueuedLocked(oldest, ErrDropped, dropped)
		return true, false, nil
	case p.overflow == CallerRuns && j.takable() && p.mayPassLocked(j) && p.hasRoomForUnrunLocked(j):
		p.runBesideLocked(j)
		return true, !j.isCall(), nil
	}
	return false, false, nil
}

// hasRoomForUnrunLocked reports whether there is room for the result of j if j ends without
// running. No worker could wait for room then.
func (p *Pool[T, R]) hasRoomForUnrunLocked(j *job[T, R]) bool {
	switch {
	case j.to != nil || !p.life.open:
		return true
	case p.functions.result != nil:
		return p.untold.own.n < p.resultBuffer // the default: WithResultBuffer is excluded
	case !p.results.on:
		return true
	}
	return p.results.hasRoomForUnrun(p.crew.held.n)
}

// droppable reports whether j may be dropped: it stands for itself.
func (j *job[T, R]) droppable() bool {
	switch j.to.(type) {
	case *mapping[T, R], *stream[T, R]:
		return false
	}
	return true
}

// oldestLocked returns the task to drop for j, or nil.
func (p *Pool[T, R]) oldestLocked(j *job[T, R]) *job[T, R] {
	if k := j.key; k != nil {
		oldest := k.behind.first
		for i := 0; oldest != nil && i < mostBehind; i++ {
			if oldest.level == j.level && oldest.age != nil {
				return oldest
			}
			oldest = oldest.next
		}
		if p.keys.isFull(k) {
			return nil // dropping a task of another key would not help
		}
	}
	if e := p.byAge[j.level].Front(); e != nil {
		return e.Value.(*job[T, R])
	}
	return nil
}

// mostBehind is the number of tasks of the same key that are searched for one to drop. It bounds
// the cost.
const mostBehind = 32

// markDroppableLocked notes, with DropOldest, that j waits and may be dropped, unless that is noted.
func (p *Pool[T, R]) markDroppableLocked(j *job[T, R]) {
	if j.age == nil && j.droppable() {
		j.age = p.byAge[j.level].PushBack(j)
	}
}

// unmarkDroppableLocked notes that j no longer waits.
func (p *Pool[T, R]) unmarkDroppableLocked(j *job[T, R]) {
	if j.age != nil {
		p.byAge[j.level].Remove(j.age)
		j.age = nil
	}
}
