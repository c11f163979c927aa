package workpool

import "fmt"

// An Overflow says what [Pool.Submit] does with a task for which there is no
// room. See [WithOverflow].
type Overflow int

const (
	// Block waits for room. It is the default.
	Block Overflow = iota
	// Reject returns ErrQueueFull at once.
	Reject
	// DropOldest accepts the task in place of the one that has been queued
	// longest, which ends with ErrDropped. Tasks that a caller of Do, Map or
	// Stream waits for are not dropped. With WithPriority, it is one of the
	// same priority; with WithKey, the oldest that waits behind the same key,
	// and only if there is none another one.
	DropOldest
	// DropNewest accepts the task and ends it with ErrDropped, without running
	// it.
	DropNewest
	// CallerRuns runs the task before Submit returns, beside the workers. Its
	// Worker is 0.
	CallerRuns
)

// String returns the name of the constant.
func (o Overflow) String() string {
	switch o {
	case Block:
		return "Block"
	case Reject:
		return "Reject"
	case DropOldest:
		return "DropOldest"
	case DropNewest:
		return "DropNewest"
	case CallerRuns:
		return "CallerRuns"
	}
	return fmt.Sprintf("Overflow(%d)", int(o))
}

// WithOverflow sets what [Pool.Submit], [Pool.SubmitAll] and
// [Pool.SubmitCancel] do when there is no room. The default is [Block].
//
// A dropped task still yields its [Result], and results are bounded: while
// there is no room for another one, because nobody receives them, DropOldest,
// DropNewest and CallerRuns wait as Block does. With a result buffer of 0 that is
// whenever no receiver waits for a result. CallerRuns also waits for a task whose
// key is busy, and DropOldest where there is nothing to drop.
func WithOverflow(overflow Overflow) Option {
	return optionFunc(func(c *config) error {
		if overflow < Block || overflow > CallerRuns {
			return invalid("WithOverflow(%v): it is Block, Reject, DropOldest, DropNewest or CallerRuns", overflow)
		}
		c.overflow = overflow
		return nil
	})
}

// overflowLocked does what WithOverflow says with a task that was submitted
// and has no room. It reports false if the task has to wait.
func (p *Pool[T, R]) overflowLocked(j *job[T, R]) (ended <-chan struct{}, done bool, err error) {
	switch {
	case p.overflow == Reject:
		return nil, true, ErrQueueFull
	case p.overflow == Block || !p.hasRoomForDroppedLocked():
	case p.overflow == DropNewest:
		p.countLocked(j)
		p.endUnrunLocked(j, ErrDropped)
		return nil, true, nil
	case p.overflow == DropOldest:
		oldest := p.oldestLocked(j)
		if oldest == nil {
			break
		}
		p.acceptLocked(j)
		p.endQueuedLocked(oldest, ErrDropped)
		return nil, true, nil
	case p.overflow == CallerRuns && !j.isBehindLocked():
		p.countLocked(j)
		j.takeTurnLocked()
		return p.startNestedLocked(0, j).nested, true, nil
	}
	return nil, false, nil
}

// hasRoomForDroppedLocked tells whether the result of a dropped task finds
// room.
func (p *Pool[T, R]) hasRoomForDroppedLocked() bool {
	switch {
	case p.resultFunc == nil && !p.collects:
		return true
	case p.resultFunc != nil:
		return p.unanswered.n < p.resultBuffer // the default: WithResultBuffer is excluded
	case p.resultBuffer == 0:
		return p.window == nil && p.collector.waiting > p.collector.n // somebody takes it now
	}
	return p.undeliveredLocked()-p.held < p.resultBuffer
}

// oldestLocked returns the task to drop for j, or nil.
func (p *Pool[T, R]) oldestLocked(j *job[T, R]) *job[T, R] {
	if j.lane != nil {
		if oldest := oldestOf(&j.lane.waiting, j.level); oldest != nil {
			return oldest
		}
	}
	if oldest := oldestOf(p.tasks.of(j.level), j.level); oldest != nil {
		return oldest
	}
	for _, l := range p.lanes {
		if oldest := oldestOf(&l.waiting, j.level); oldest != nil {
			return oldest
		}
	}
	return oldestOf(&p.parked, j.level)
}

// oldestOf returns the first task of a level in l that was submitted.
func oldestOf[T, R any](l *list[T, R], level level) *job[T, R] {
	for j := l.first; j != nil; j = j.next {
		if j.to == nil && j.level == level {
			return j
		}
	}
	return nil
}
