package jobqueue

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Until AckWait has passed since the server heard of a delivery, nobody else gets the
// job. So a worker knows for each of its jobs when it last did something that the
// server has answered: it asked for the job, or sent a heartbeat. A worker that was
// paused, or whose server was, finds at once which of its jobs it may have lost,
// whatever lies in its buffers.

// lostLocked reports whether another worker may have been given the job.
func (w *Worker) lostLocked(d *delivery) bool { return elapsed(d.heard) >= w.ackWait }

func (w *Worker) lost(d *delivery) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lostLocked(d)
}

// elapsed is time.Since by the clock that has gone further: one of them stands still
// while a machine sleeps, the other may be set back.
func elapsed(since time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}

// latest returns the count of the latest delivery of a job to this worker.
func (w *Worker) latest(d *delivery) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return d.latest
}

// beat tells the server, three times per AckWait, that the jobs that the worker
// has are not lost. It lets others have those that it can't begin.
func (w *Worker) beat(ctx context.Context) {
	tick := time.NewTicker(w.ackWait / 3)
	defer tick.Stop()
	wait := time.NewTicker(longestWait)
	defer wait.Stop()
	var yielding sync.WaitGroup
	defer yielding.Wait()
	for {
		select {
		case <-tick.C:
			w.beatOnce(ctx)
		case <-wait.C:
			yielding.Go(w.yield) // which waits for the server, as the next beat must not
		case <-ctx.Done():
			return
		}
	}
}

func (w *Worker) beatOnce(ctx context.Context) {
	_ = w.lookout.check() // for a worker that does not fetch, as its places are taken
	type beat struct {
		d   *delivery
		msg jetstream.Msg
	}
	var held [levels][]beat
	w.mu.Lock()
	began := time.Now()
	for _, d := range w.held {
		if !w.lostLocked(d) { // else it would be another worker's time that is prolonged
			held[d.level] = append(held[d.level], beat{d, d.msg})
		}
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, w.ackWait/3)
	defer cancel()
	var answers sync.WaitGroup
	for _, beats := range held {
		if len(beats) == 0 {
			continue
		}
		last := len(beats) - 1
		for _, b := range beats[:last] {
			// A job that has ended meanwhile needs none, and while the server is
			// away, it is known from the fetching.
			_ = b.msg.InProgress()
		}
		answers.Go(func() {
			// A consumer takes them in this order, and so has all when it answers the last.
			if _, err := w.nc.RequestWithContext(ctx, beats[last].msg.Reply(), []byte("+WPI")); err != nil {
				return
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, b := range beats {
				if !w.lostLocked(b.d) && began.After(b.d.heard) { // or it came too late
					b.d.heard = began
				}
			}
		})
	}
	answers.Wait()
}
