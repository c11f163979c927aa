package workpool

import "time"

// A waiter is a goroutine that waits: an idle worker, a worker whose result has no room, a
// receiver, or a caller. Each has a Go channel of its own.
type waiter struct {
	next, prev *waiter       // in the list that it is in
	wake       chan struct{} // capacity 1

	number    int32                 // of a worker
	seated    bool                  // a worker that counts as busy
	coming    bool                  // a worker that was woken or started and has not looked for a task yet
	dismissed bool                  // a worker that is to exit if it finds no task, with WithElastic
	report    func([]Event) []Event // adds what the worker is running, in a pool with an observer
	since     time.Time             // since when the worker has been idle, with WithElastic
}

// A waiting is a list of waiters, the one that has waited longest first.
type waiting struct {
	first, last *waiter
	n           int
	woken       *waiting // those to be woken when the mutex has been unlocked
}

func (l *waiting) push(w *waiter) {
	if w.wake == nil {
		w.wake = make(chan struct{}, 1)
	}
	if l.n == 0 {
		l.first = w
	} else {
		l.last.next = w
	}
	w.prev, w.next = l.last, nil
	l.last = w
	l.n++
}

func (l *waiting) remove(w *waiter) {
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev = nil, nil
	l.n--
}

// wake removes a waiter from the list, to be woken after the mutex has been unlocked: the
// woken goroutine needs the mutex, and waking takes longer than everything else that is
// done under it.
func (l *waiting) wake(w *waiter) {
	l.remove(w)
	l.woken.push(w)
}

func (l *waiting) wakeAll() {
	for l.n > 0 {
		l.wake(l.first)
	}
}

// wakeFrom wakes w and those after it.
func wakeFrom(w *waiter) {
	for w != nil {
		next := w.next
		w.wake <- struct{}{}
		w = next
	}
}
