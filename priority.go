package workpool

import "fmt"

// A Priority says which queued tasks are taken first. See [WithPriority].
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

// WithPriority gives each task the priority that f returns for it. Workers take
// queued tasks of the highest priority first, with a share for the others that
// keeps them from starving: of 16 tasks taken while all three priorities wait, 12
// are High, 3 Normal and 1 Low. An unused share goes to the highest. Tasks of one
// priority are taken in the order of acceptance. T must be that of the pool.
//
// Each priority has a queue of its own, of the depth set with [WithQueueDepth], so
// tasks of a lower priority never keep one of a higher from being accepted.
//
// f is called by the goroutine that submits the task, before it is accepted. A
// panic of f, or a value that is no Priority, is the error of that call.
func WithPriority[T any](f func(task T) Priority) Option {
	if f == nil {
		return mistaken("WithPriority(nil): pass a function from a task to its priority")
	}
	return setting(func(c *config) { c.priority = f })
}

// A level is one of the lists that the task channel is made of. Without WithPriority
// all tasks are normal.
type level uint8

const (
	normal level = iota
	high
	low
	levels
)

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

// nextLevel returns the level that the next task is taken from.
func (c *taskChannel[T, R]) nextLevel() level {
	order := [...]level{high, normal, low}
	switch {
	case c.turn%16 == 15:
		order = [...]level{low, high, normal}
	case c.turn%4 == 3:
		order = [...]level{normal, high, low}
	}
	for _, l := range order {
		if c.levels[l].n > 0 {
			return l
		}
	}
	panic("workpool: took a task from an empty channel")
}
