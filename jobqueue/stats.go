package jobqueue

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Stats is what the server says about a queue. Its numbers are asked for one
// after the other, so they need not belong to the same moment, and a job that was just
// submitted can be missing in Pending for a moment.
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
	if ctx == nil {
		return s, errNilContext
	}
	for _, consumer := range q.consumers {
		info, err := patiently(ctx, consumer.Info)
		if err != nil {
			return fail(err)
		}
		s.Pending += info.NumPending
		s.InFlight += uint64(info.NumAckPending)
		s.Redelivered += uint64(info.NumRedelivered)
	}
	jobs, err := streamInfo(ctx, q.jobs)
	if err != nil {
		return fail(err)
	}
	if known := s.Pending + s.InFlight; jobs.State.Msgs > known {
		s.Scheduled = jobs.State.Msgs - known
	}
	dead, err := streamInfo(ctx, q.dead)
	if err != nil {
		return fail(err)
	}
	results, err := streamInfo(ctx, q.results)
	if err != nil {
		return fail(err)
	}
	marks, err := patiently(ctx, q.marks.Info)
	if err != nil {
		return fail(err)
	}
	s.Dead = dead.State.Msgs
	if results.State.Msgs > marks.NumPending {
		s.Results = results.State.Msgs - marks.NumPending
	}
	return s, nil
}

func streamInfo(ctx context.Context, stream jetstream.Stream) (*jetstream.StreamInfo, error) {
	return patiently(ctx, func(ctx context.Context) (*jetstream.StreamInfo, error) { return stream.Info(ctx) })
}
