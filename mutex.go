package workpool

import (
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// mutexLine is how many goroutines may wait for a mutex before more of them
	// yield.
	mutexLine = 64

	// mutexYields is how often they do before they wait as well, so that nobody
	// is overtaken for ever.
	mutexYields = 8
)

// A mutex is a sync.Mutex for which not many goroutines wait in line. Where
// thousands of workers wake at once, as they do after a sleep, a line never ends:
// as soon as someone has waited a millisecond, a sync.Mutex goes from hand to hand
// in the order of the line, with a switch of goroutines each time, and the other
// processors have nothing to do meanwhile.
type mutex struct {
	sync.Mutex
	waiting atomic.Int32 // goroutines in lockSlow
}

func (m *mutex) Lock() {
	if !m.TryLock() {
		m.lockSlow()
	}
}

func (m *mutex) lockSlow() {
	defer m.waiting.Add(-1)
	if m.waiting.Add(1) > mutexLine {
		for range mutexYields {
			runtime.Gosched()
			if m.TryLock() {
				return
			}
		}
	}
	m.Mutex.Lock()
}
