package jobqueue

import (
	"fmt"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

// WorkerStats is what a worker does, and what it has done.
type WorkerStats struct {
	Concurrency int // places for jobs that run
	Running     int // places that are taken, by handlers or by results that are being stored
	Fetched     int // jobs that it has fetched and not begun
	Overdue     int // those of Running whose handler has not returned, a second or more after WithTimeout

	Succeeded uint64 // jobs whose result is stored, or that need none
	Failed    uint64 // attempts that have failed, after which the job runs again
	Dead      uint64 // dead letters stored
}

// Stats returns the numbers of this worker alone. It asks no server.
func (w *Worker) Stats() WorkerStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := WorkerStats{
		Concurrency: w.concurrency,
		Running:     w.running,
		Overdue:     w.overdue,
		Succeeded:   w.succeeded.Load(),
		Failed:      w.failed.Load(),
		Dead:        w.dead.Load(),
	}
	for i := range w.queues {
		s.Fetched += len(w.queues[i].waiting)
	}
	return s
}

// Done returns a channel that is closed when the worker has ended: it fetches nothing,
// no handler runs, and what they returned is stored or handed back. [Worker.Err] then
// tells whether it ended by itself.
func (w *Worker) Done() <-chan struct{} { return w.done }

// Err returns what keeps the worker from its work, or nil.
//
// A worker stops by itself when its connection is closed, also because it gave up
// reconnecting, and when the pool of [Queue.WorkOn] is closed. The error then matches
// nats.ErrConnectionClosed or workpool.ErrClosed, and stays. After [Worker.Shutdown],
// or the end of the context of [Queue.Work], it is nil.
//
// While the worker works, the error wraps [ErrStalled], and goes when its reason does:
//   - jobs can't be fetched, as the server is away, say
//   - results or dead letters are not stored; it matches workpool.ErrQueueFull where there
//     is no room for them. The worker keeps them, and their places, until they are stored
//   - it can't find out what became of jobs that were delivered before
//   - every place is held by a handler that has not returned, a second or more after
//     [WithTimeout]
//
// The same is logged when it begins, each minute, and when it is over; what comes and goes
// more often is logged once a minute.
func (w *Worker) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stoppedBy != nil {
		return w.stoppedBy
	}
	if w.isDone() {
		return nil
	}
	for _, t := range w.troubles {
		if t.err != nil {
			return t.err
		}
	}
	return nil
}

func (w *Worker) isDone() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// end stops the worker by itself.
func (w *Worker) end(why error) {
	w.mu.Lock()
	first := !w.stopping && w.stoppedBy == nil
	if first {
		w.stoppedBy = why
	}
	w.mu.Unlock()
	if first {
		w.log.Error("jobqueue: the worker stops", "worker", w.name, "error", why)
	}
	w.stop()
}

// The troubles of a worker are what keeps it from its work and may pass.
const (
	storing  = iota // results and dead letters
	asking          // what became of jobs that were delivered before
	stuck           // all places are held by handlers whose time is over
	fetching        // and one for each level
	troubles = fetching + levels
)

// tellAgain is the time between two lines of the log about one trouble.
const tellAgain = time.Minute

// A trouble is one of them.
type trouble struct {
	err  error     // nil while there is none
	told time.Time // when it was logged last
	tell bool      // it was logged, so its end is to be too
}

// trouble notes what keeps the worker from its work.
func (w *Worker) trouble(kind int, err error) {
	w.mu.Lock()
	t := &w.troubles[kind]
	t.err = fmt.Errorf("%w: %w", ErrStalled, err)
	tell := time.Since(t.told) > tellAgain
	if tell {
		t.told, t.tell = time.Now(), true
	}
	w.troubled.Store(true)
	w.mu.Unlock()
	if tell {
		w.log.Warn("jobqueue: the worker can't go on", "worker", w.name, "error", err)
	}
}

// over notes that there is no such trouble any more.
func (w *Worker) over(kind int) {
	if !w.troubled.Load() { // which spares the mutex in most cases
		return
	}
	w.mu.Lock()
	t := &w.troubles[kind]
	was, tell := t.err, t.tell
	t.err, t.tell = nil, false
	left := false
	for _, t := range w.troubles {
		left = left || t.err != nil
	}
	w.troubled.Store(left)
	w.mu.Unlock()
	if tell {
		w.log.Info("jobqueue: the worker goes on", "worker", w.name, "after", was)
	}
}

// cantStore notes that the server has refused a result or a dead letter.
func (w *Worker) cantStore(err error) {
	if isFull(err) {
		err = fmt.Errorf("%w: raise the limit of the stream or of the server's storage, or free its disk: %w", workpool.ErrQueueFull, err)
	}
	w.trouble(storing, fmt.Errorf("results and dead letters are not stored: %w", err))
}

// cantAsk notes that the server does not tell or take what is known of a job, which is
// handed back.
func (w *Worker) cantAsk(err error) {
	if w.aborted.Err() == nil {
		w.trouble(asking, fmt.Errorf("jobs that were delivered before can't run: what is known of their attempts is not read or stored: %w", err))
	}
}

// isStuckLocked tells whether no job can begin, since every place is held by a handler
// whose time is over.
func (w *Worker) isStuckLocked() bool { return w.overdue == w.concurrency }

// outlived notes that the time of a handler is over. If that does not return soon, its
// place is counted as overdue.
func (w *Worker) outlived(d *delivery) {
	w.mu.Lock()
	d.outlived = !d.left
	w.mu.Unlock()
	time.AfterFunc(overdueGrace, func() { w.isOverdue(d) })
}

// isOverdue counts the place of d as overdue if its handler still has it. If that was the
// last place, others get the jobs that wait.
func (w *Worker) isOverdue(d *delivery) {
	w.mu.Lock()
	if !d.outlived {
		w.mu.Unlock()
		return
	}
	d.overdue = true
	w.overdue++
	if !w.isStuckLocked() || w.stopping {
		w.mu.Unlock()
		return
	}
	back := w.takeWaitingLocked()
	w.ending.Add(1)
	w.mu.Unlock()
	defer w.ending.Done()
	w.trouble(stuck, fmt.Errorf("all %d places are held by handlers that have not returned after WithTimeout(%v): have them return when their context ends", w.concurrency, w.timeout))
	w.mu.Lock()
	still := w.isStuckLocked()
	w.mu.Unlock()
	if !still { // one has returned before that was noted
		w.over(stuck)
	}
	w.handBack(back)
}

// left notes that the handler of d has returned, late or not.
func (w *Worker) left(d *delivery) {
	w.mu.Lock()
	wasStuck := w.isStuckLocked()
	d.left = true
	if d.overdue {
		w.overdue--
	}
	if d.outlived {
		d.outlived = false
		if d.ended { // else the end of the attempt frees the place
			w.freeLocked()
		}
	}
	w.mu.Unlock()
	if wasStuck {
		w.over(stuck)
	}
}

// takeWaitingLocked takes all that the worker has fetched and not begun.
func (w *Worker) takeWaitingLocked() []*delivery {
	var waiting []*delivery
	for level := range w.queues {
		waiting = append(waiting, w.queues[level].waiting...)
		w.queues[level].waiting = nil
	}
	return waiting
}
