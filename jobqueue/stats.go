package jobqueue

import (
	"context"
	"fmt"
)

// Stats is what the server says about a queue. Its numbers are asked for one
// after the other, so they need not belong to the same moment.
type Stats struct {
	Pending     uint64 // jobs that no worker has had
	Scheduled   uint64 // jobs whose time, by RunAt or RunAfter, has not come
	InFlight    uint64 // jobs that a worker has, or that wait for their next attempt
	Redelivered uint64 // those of InFlight that have been delivered more than once
	Dead        uint64 // dead letters
	Results     uint64 // results that are kept
}

// Stats asks the server for the numbers of the queue.
func (q *Queue[T, R]) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	fail := func(err error) (Stats, error) {
		return Stats{}, fmt.Errorf("jobqueue: asking for the statistics of %q: %w", q.name, err)
	}
	for _, consumer := range q.consumers {
		info, err := consumer.Info(ctx)
		if err != nil {
			return fail(err)
		}
		s.Pending += info.NumPending
		s.InFlight += uint64(info.NumAckPending)
		s.Redelivered += uint64(info.NumRedelivered)
	}
	jobs, err := q.jobs.Info(ctx)
	if err != nil {
		return fail(err)
	}
	if known := s.Pending + s.InFlight; jobs.State.Msgs > known {
		s.Scheduled = jobs.State.Msgs - known
	}
	dead, err := q.dead.Info(ctx)
	if err != nil {
		return fail(err)
	}
	results, err := q.results.Info(ctx)
	if err != nil {
		return fail(err)
	}
	s.Dead, s.Results = dead.State.Msgs, results.State.Msgs
	return s, nil
}
