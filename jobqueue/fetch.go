package jobqueue

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// fetchersPerQueue is how many fetches of a priority are on the way at a time, so
	// that one's jobs are run while the other's come.
	fetchersPerQueue = 2
	// fetchWait is how long a fetch waits at the server, and so how long one may
	// be lost when a server dies, and how long a shutdown waits for it to end.
	fetchWait = time.Second
	// fetchPause is the time before the next fetch after one that failed.
	fetchPause = 200 * time.Millisecond
	// ahead is for how long the jobs that are fetched ahead should last.
	ahead = 100 * time.Millisecond
	// longestWait is how long they wait for a place.
	longestWait = time.Second
)

// A queue is what a worker has fetched of one priority and not begun.
type queue struct {
	consumer jetstream.Consumer
	level    int
	waiting  []*delivery
	asked    int       // what fetches may still bring
	room     sync.Cond // fetchers wait here for room
	fetchers int       // that wait
}

// fetch fetches jobs of one priority for as long as the worker works. It has to
// be Consumer.Fetch with a count of its own: the library's endless Consume and
// Messages can stall for half a minute with jobs waiting.
func (w *Worker) fetch(q *queue) {
	for {
		n := w.ask(q)
		if n == 0 {
			return
		}
		missing, err := n, nats.ErrDisconnected
		if w.nc.IsConnected() { // else the jobs might come when nobody waits any more
			missing, err = w.fetchBatch(q, n)
		}
		if unreached := w.lookout.check(); unreached != nil && missing == n {
			err = unreached // which says more
		}
		w.mu.Lock()
		q.asked -= missing
		if connects := w.nc.Stats().Reconnects; err != nil || connects != w.connects {
			w.connects, w.doubted = connects, time.Now().Add(w.ackWait)
		}
		w.mu.Unlock()
		switch {
		case err == nil:
			w.over(fetching + q.level)
			continue
		case errors.Is(err, nats.ErrConnectionClosed), w.nc.IsClosed():
			w.end(fmt.Errorf("jobqueue: the worker has stopped: %w: with jobqueue.Reliable() it is closed by the program alone", nats.ErrConnectionClosed))
			return
		case errors.Is(err, jetstream.ErrConsumerLeadershipChanged):
			// Another server leads now.
		default:
			w.trouble(fetching+q.level, fmt.Errorf("fetching jobs of %s priority: %w", levelNames[q.level], err))
		}
		select {
		case <-time.After(fetchPause):
		case <-w.stopped:
			return
		}
	}
}

// fetchBatch fetches up to n jobs, and returns how many of them did not come.
func (w *Worker) fetchBatch(q *queue, n int) (missing int, err error) {
	asked := time.Now()
	batch, err := q.consumer.Fetch(n, jetstream.FetchMaxWait(fetchWait))
	if err != nil {
		return n, err
	}
	for msg := range batch.Messages() {
		n--
		w.arrived(q, msg, asked)
	}
	return n, batch.Error()
}

// ask waits until there is room for jobs, and returns how many to fetch, or 0
// when the worker stops.
func (w *Worker) ask(q *queue) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.stopping {
		if n := w.roomLocked(q); n > 0 {
			q.asked += n
			return n
		}
		q.fetchers++
		q.room.Wait()
		q.fetchers--
	}
	return 0
}

// roomLocked returns how many jobs to fetch, or 0. It is for at least a quarter of
// what there may be, since tiny fetches cost as much as large ones.
func (w *Worker) roomLocked(q *queue) int {
	if w.isBusyLocked() {
		return 0
	}
	capacity := w.aheadLocked() + w.concurrency - w.running
	room := capacity - len(q.waiting) - q.asked
	if room <= 0 || room < capacity/4 {
		return 0
	}
	return min(room, (capacity+fetchersPerQueue-1)/fetchersPerQueue)
}

// wakeLocked lets fetchers go on for which there is room.
func (w *Worker) wakeLocked() {
	for i := range w.queues {
		if q := &w.queues[i]; q.fetchers > 0 && w.roomLocked(q) > 0 {
			q.room.Signal()
		}
	}
}

// aheadLocked returns how many jobs of a priority to have in addition to those
// that can begin at once.
func (w *Worker) aheadLocked() int {
	if w.average == 0 { // nothing is known yet
		return 0
	}
	return min(w.prefetch, int(time.Duration(w.concurrency)*ahead/w.average))
}

// endedLocked notes that a job that has begun has ended.
func (w *Worker) endedLocked(d *delivery) {
	took := time.Since(d.began)
	if w.average == 0 {
		w.average = took
	}
	w.average = max(1, w.average+(took-w.average)/8)
	d.ended = true
	if !d.outlived { // else the handler's return does
		w.freeLocked()
	}
}

// freeLocked gives a place to the next job.
func (w *Worker) freeLocked() {
	w.running--
	w.wakeLocked()
	w.jobs.Signal()
}

// arrived puts a job into its queue, or hands it back when the worker stops. It was
// asked for at a time that is not after the server's delivery.
func (w *Worker) arrived(q *queue, msg jetstream.Msg, asked time.Time) {
	d, err := newDelivery(w, q.level, msg)
	if err != nil { // of a server that speaks another protocol
		w.log.Error("jobqueue: a message that is no job", "worker", w.name, "error", err)
	}
	w.mu.Lock()
	q.asked--
	if err != nil {
		w.mu.Unlock()
		return
	}
	if known := w.held[d.sequence]; known != nil {
		// The server does not know any more that this worker has the job. It is
		// to hear of it under the name of the later delivery.
		known.msg, known.latest, known.heard = msg, d.deliveries, asked
		w.mu.Unlock()
		return
	}
	d.heard = asked
	w.held[d.sequence] = d
	if w.stopping || w.isBusyLocked() {
		w.mu.Unlock()
		w.ending.Go(func() { w.handBack([]*delivery{d}) }) // the next one may be there
		return
	}
	q.waiting = append(q.waiting, d)
	w.mu.Unlock()
	w.jobs.Signal()
}

// next waits for a job to run, and returns nil when the worker stops.
func (w *Worker) next() *delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.stopping {
		if q := w.turnLocked(); q != nil {
			d := q.waiting[0]
			q.waiting[0] = nil
			q.waiting = q.waiting[1:]
			if w.lostLocked(d) {
				w.wakeLocked()
				w.ending.Go(func() { w.handBack([]*delivery{d}) })
				continue
			}
			d.began, d.deliveries = time.Now(), d.latest // which may have come while it waited
			w.turn, w.lastBegan = w.turn+1, d.began
			w.running++
			w.wakeLocked()
			return d
		}
		w.jobs.Wait()
	}
	return nil
}

// isBusyLocked tells whether long jobs have all the places, so that others had better not
// wait here.
func (w *Worker) isBusyLocked() bool {
	return w.running >= w.concurrency && time.Since(w.lastBegan) >= longestWait
}

// yield hands back what waits while long jobs have all the places: other workers may have
// one for it.
func (w *Worker) yield() {
	w.mu.Lock()
	if w.stopping || !w.isBusyLocked() {
		w.mu.Unlock()
		return
	}
	back := w.takeWaitingLocked()
	w.mu.Unlock()
	w.handBack(back)
}

// doubts tells whether the server was away a short time ago.
func (w *Worker) doubts() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.doubted.IsZero() && time.Now().Before(w.doubted)
}

// turnLocked returns the queue whose turn it is, or nil if no job can begin: of 16
// turns 12 begin with the highest priority, 3 with the normal, 1 with the lowest.
func (w *Worker) turnLocked() *queue {
	if w.running >= w.concurrency {
		return nil
	}
	order := [levels]int{0, 1, 2}
	switch {
	case w.turn%16 == 15:
		order = [levels]int{2, 0, 1}
	case w.turn%4 == 3:
		order = [levels]int{1, 0, 2}
	}
	for _, level := range order {
		if q := &w.queues[level]; len(q.waiting) > 0 {
			return q
		}
	}
	return nil
}
