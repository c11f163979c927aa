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
	n           int // in all levels
	levels      [levels]queue[T, R]
	prioritized bool
	turn        uint // counts the tasks taken
}

// A queue is what there is for each level.
type queue[T, R any] struct {
	list[T, R]
	granted int // submitters that were given room and have not used it yet
	blocked int // accepted tasks that can't be taken: behind another of their key, or parked
}

func (c *taskChannel[T, R]) push(j *job[T, R]) {
	j.place = queued
	c.levels[j.level].push(j)
	c.n++
}

func (c *taskChannel[T, R]) remove(j *job[T, R]) {
	j.place = elsewhere
	c.levels[j.level].remove(j)
	c.n--
}

func (c *taskChannel[T, R]) pop() *job[T, R] {
	l := normal
	if c.prioritized || c.levels[urgent].n > 0 {
		l = c.nextLevel()
	}
	j := c.levels[l].pop()
	j.place = elsewhere
	c.n--
	return j
}

// nextLevel returns the level whose turn it is. Those with urgent tasks come
// before all, because a worker was free when they were accepted, and those
// that wait for them may hold all the others.
func (c *taskChannel[T, R]) nextLevel() level {
	order := [...]level{high, normal, low}
	switch {
	case c.levels[urgent].n > 0:
		return urgent
	case c.turn%16 == 15:
		order = [...]level{low, high, normal}
	case c.turn%4 == 3:
		order = [...]level{normal, high, low}
	}
	c.turn++
	for _, l := range order {
		if c.levels[l].n > 0 {
			return l
		}
	}
	panic("workpool: took a task from an empty channel")
}
