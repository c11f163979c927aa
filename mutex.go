package workpool

import (
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// mutexLine is how many goroutines may be on their way into the line for the
	// mutex, or in it, before others yield.
	mutexLine = 32

	// mutexYields is how often they do at most, before they join the line.
	mutexYields = 4
)

// A mutex is a sync.Mutex that thousands of goroutines may want at once.
//
// As soon as someone has waited a millisecond in its line, a sync.Mutex goes from
// hand to hand in the order of the line, with a switch of goroutines each time,
// until the line has ended. Where thousands of workers wake within milliseconds, as
// they do after sleeps and requests, it never ends, and processors idle. So of
// workers and of those who submit, which may be many, only some are let into the
// line.
type mutex struct {
	sync.Mutex              // of the line, for those of whom there are few, such as receivers
	crowd      atomic.Int32 // goroutines in lockSlow
}

// lockYielding is Lock for those of whom there may be many.
func (m *mutex) lockYielding() {
	if !m.TryLock() {
		m.lockSlow()
	}
}

func (m *mutex) lockSlow() {
	defer m.crowd.Add(-1)
	if m.crowd.Add(1) > mutexLine {
		for range mutexYields {
			runtime.Gosched()
			if m.TryLock() {
				return
			}
		}
	}
	m.Lock()
}
