package workpool

import "fmt"

// A Priority says which of the queued tasks is taken first. See
// [WithPriority].
type Priority int

// The priorities. Normal is the zero value.
const (
	Low Priority = iota - 1
	Normal
	High
)

// String returns the name of the constant.
func (p Priority) String() string {
	switch p {
	case Low:
		return "Low"
	case Normal:
		return "Normal"
	case High:
		return "High"
	}
	return fmt.Sprintf("Priority(%d)", int(p))
}

// WithPriority gives each task the priority that f returns for it. Of the
// queued tasks, workers take those of the highest priority first, but give the
// others a share that keeps them from starving: of 16 tasks that are taken
// while tasks of all three priorities wait, 12 are High, 3 Normal and 1 Low,
// and a share that nobody needs goes to the highest. Tasks of one priority are
// taken in the order of acceptance. T must be that of the pool.
//
// Each priority has a queue of its own, of the depth set with
// [WithQueueDepth]: so tasks of a lower priority never keep one of a higher
// from being accepted.
//
// f is called by the goroutine that hands in the task, before it is accepted.
// A panic of f, or a value that is no Priority, is the error of that call.
func WithPriority[T any](f func(task T) Priority) Option {
	return optionFunc(func(c *config) error {
		if f == nil {
			return invalid("WithPriority(nil): pass a function from a task to its priority")
		}
		c.priority = f
		return nil
	})
}

// A level is one of the queues that the task channel is made of. Without
// WithPriority, all tasks but the urgent ones are in that of the normal.
type level uint8

const (
	normal level = iota
	high
	low
	urgent // a handler waits for the task, and counts on a worker that was free
	levels
)

// levelOf returns the level of a priority.
func levelOf(priority Priority) (level, error) {
	switch priority {
	case Low:
		return low, nil
	case Normal:
		return normal, nil
	case High:
		return high, nil
	}
	return normal, invalid("WithPriority: the function returned %v: a priority is High, Normal or Low", priority)
}

// A taskChannel is a channel whose list is made of levels.
type taskChannel[T, R any] struct {
	claims
	n      int                // tasks in all levels
	normal list[T, R]         // the only level that every pool needs
	others *otherLevels[T, R] // made by WithPriority, or for the first urgent task
}

type otherLevels[T, R any] struct {
	lists       [levels]list[T, R]
	prioritized bool
	turn        uint // counts the tasks taken

	// Per level, as in the pool for all of them:
	granted, blocked [levels]int
}

// of returns the list of a level.
func (c *taskChannel[T, R]) of(l level) *list[T, R] {
	if l == normal {
		return &c.normal
	}
	if c.others == nil {
		c.others = new(otherLevels[T, R])
	}
	return &c.others.lists[l]
}

func (c *taskChannel[T, R]) push(j *job[T, R]) {
	j.place = queued
	c.n += j.tasks()
	c.of(j.level).push(j)
}

// pushFront puts back a normal task.
func (c *taskChannel[T, R]) pushFront(j *job[T, R]) {
	j.place = queued
	c.n += j.tasks()
	c.normal.pushFront(j)
}

// startsWithMap tells whether the next normal task stands for tasks of a Map.
func (c *taskChannel[T, R]) startsWithMap() bool {
	if c.normal.n == 0 || !c.normal.first.isRun {
		return false
	}
	return !c.normal.first.to.(*run[T, R]).accepts()
}

func (c *taskChannel[T, R]) remove(j *job[T, R]) {
	j.place = elsewhere
	c.n -= j.tasks()
	c.of(j.level).remove(j)
}

func (c *taskChannel[T, R]) pop() *job[T, R] {
	l := &c.normal
	if c.others != nil {
		l = c.of(c.nextLevel())
	}
	j := l.pop()
	c.n -= j.tasks()
	j.place = elsewhere
	return j
}

// nextLevel returns the level whose turn it is. Those with urgent tasks come
// before all, because a worker was free when they were accepted, and those
// that wait for them may hold all the others.
func (c *taskChannel[T, R]) nextLevel() level {
	order := [...]level{high, normal, low}
	switch {
	case c.of(urgent).n > 0:
		return urgent
	case c.others.turn%16 == 15:
		order = [...]level{low, high, normal}
	case c.others.turn%4 == 3:
		order = [...]level{normal, high, low}
	}
	c.others.turn++
	for _, l := range order {
		if c.of(l).n > 0 {
			return l
		}
	}
	panic("workpool: took a task from an empty channel")
}

// each calls f, which changes nothing, for every task in the channel.
func (c *taskChannel[T, R]) each(f func(j *job[T, R])) {
	c.normal.each(f)
	if c.others != nil {
		for i := range c.others.lists {
			c.others.lists[i].each(f)
		}
	}
}

// usageLocked returns what tells whether a level has room: its tasks, those for
// which room was granted, and those that can't be taken. Without WithPriority
// all levels are one.
func (p *Pool[T, R]) usageLocked(l level) (n, granted, blocked int) {
	o := p.tasks.others
	if o == nil || !o.prioritized {
		return p.tasks.n, p.granted, p.blocked
	}
	return p.tasks.of(l).n, o.granted[l], o.blocked[l]
}

// countGrantedLocked counts a submitter of j that has been given room, or with
// -1 has used it.
func (p *Pool[T, R]) countGrantedLocked(j *job[T, R], n int) {
	p.granted += n
	if o := p.tasks.others; o != nil {
		o.granted[j.level] += n
	}
}

// countBlockedLocked counts a task that has become one which can't be taken, or
// with -1 is one no longer.
func (p *Pool[T, R]) countBlockedLocked(j *job[T, R], n int) {
	p.blocked += n
	if o := p.tasks.others; o != nil {
		o.blocked[j.level] += n
	}
}
