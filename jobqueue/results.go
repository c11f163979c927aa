package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Result is what a job has ended with.
type Result[R any] struct {
	ID       string
	Value    R
	Attempt  int       // the one that succeeded, 1 at the first
	Worker   string    // the name of the worker that ran it
	Time     time.Time // when it was stored
	Sequence uint64    // its place among the results, from 1, for Results
}

const (
	// readBatch is how many results are fetched at a time.
	readBatch = 256
	// readerAge is how long the server keeps the place of a reader that is gone.
	readerAge = 10 * time.Second
	// pollLongest is how often Result asks for what it has not been told of.
	pollLongest = time.Second
)

// Results yields the results that are stored, from the one with the sequence
// number from, in the order of storing, and then each new one as it comes. Begin
// with 0 for all that are kept, or with one more than the last Sequence to go on.
// Any number of readers may do so, and each sees all of them.
//
// It waits for the next result until ctx ends, yields an error that matches
// ctx.Err(), and ends. A result that can't be decoded is yielded with its ID and
// the codec's error, and the reading goes on. Any other error ends it. While the
// server is away, it waits.
func (q *Queue[T, R]) Results(ctx context.Context, from uint64) iter.Seq2[Result[R], error] {
	return func(yield func(Result[R], error) bool) {
		if ctx == nil {
			yield(Result[R]{}, errNilContext)
			return
		}
		if q.withoutResults {
			yield(Result[R]{}, fmt.Errorf("%w: %q", ErrNoResults, q.name))
			return
		}
		from := max(from, 1) // of its own in each range
		for ctx.Err() == nil {
			_ = q.lookout.check()
			attempt, cancel := context.WithTimeout(ctx, openAttempt) // a server without a leader does not answer
			consumer, err := q.results.CreateConsumer(attempt, jetstream.ConsumerConfig{
				DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
				OptStartSeq:       from,
				FilterSubject:     q.subject(kindResults, ">"),
				AckPolicy:         jetstream.AckNonePolicy,
				InactiveThreshold: readerAge,
				MemoryStorage:     true,
				Replicas:          1,
			})
			cancel()
			switch {
			case ctx.Err() != nil:
			case err == nil:
				goOn := q.read(ctx, consumer, &from, yield)
				// Without the ctx, which may have ended; if the server is
				// away, it does so itself.
				cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchWait)
				_ = q.results.DeleteConsumer(cleanup, consumer.CachedInfo().Name)
				cancel()
				if !goOn {
					return
				}
			case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, nats.ErrConnectionClosed):
				yield(Result[R]{}, fmt.Errorf("jobqueue: reading the results of %q: %w", q.name, err))
				return
			default:
				pause(ctx, fetchPause)
			}
		}
		yield(Result[R]{}, fmt.Errorf("jobqueue: reading the results of %q: %w", q.name, contextError(ctx)))
	}
}

// read yields what a consumer delivers, until something may be missing. It reports
// false if the reading is over.
func (q *Queue[T, R]) read(ctx context.Context, consumer jetstream.Consumer, from *uint64, yield func(Result[R], error) bool) bool {
	var last uint64 // delivered by this consumer
	connection := q.nc.Stats().Reconnects
	for q.nc.Stats().Reconnects == connection {
		_ = q.lookout.check()
		batch, err := consumer.Fetch(readBatch, jetstream.FetchMaxWait(fetchWait))
		if err != nil {
			pause(ctx, fetchPause)
			return true
		}
		for more := true; more; {
			var msg jetstream.Msg
			select {
			case msg, more = <-batch.Messages():
			case <-ctx.Done():
				return true
			}
			if !more {
				break
			}
			meta, err := msg.Metadata()
			if err != nil || meta.Sequence.Consumer != last+1 {
				return true // one was lost on the way: begin again where it was
			}
			last, *from = meta.Sequence.Consumer, meta.Sequence.Stream+1
			if !yield(q.result(msg.Subject(), msg.Data(), msg.Headers(), meta.Sequence.Stream, meta.Timestamp)) {
				return false
			}
		}
		if batch.Error() != nil {
			pause(ctx, fetchPause)
			return true
		}
	}
	return true
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (q *Queue[T, R]) result(subject string, data []byte, header nats.Header, sequence uint64, stored time.Time) (Result[R], error) {
	r := Result[R]{ID: endOf(subject).id(), Worker: header.Get(headerWorker), Time: stored, Sequence: sequence}
	r.Attempt, _ = strconv.Atoi(header.Get(headerAttempt))
	var err error
	if r.Value, err = decode(q.resultCodec, data); err != nil {
		err = fmt.Errorf("jobqueue: decoding the result of job %q: %w", r.ID, err)
	}
	return r, err
}

// Result waits until the job with that ID has ended, and returns its result. If
// it has become a dead letter, the error wraps [ErrDead] and has the reason. If
// ctx ends first, the error matches ctx.Err().
//
// Where an ID was used again, the newest job counts: once its [Queue.Submit] or
// [Queue.Requeue] has returned, nobody is told what an earlier one ended with.
//
// An ID that no job can have gives an error that wraps [ErrNotFound]. It waits for an
// ID that the queue has never seen, and for one whose result or letter has been deleted
// or was dropped because of its age.
func (q *Queue[T, R]) Result(ctx context.Context, id string) (Result[R], error) {
	none := Result[R]{ID: id}
	if ctx == nil {
		return none, errNilContext
	}
	token := escape(id)
	if !isToken(token) {
		return none, fmt.Errorf("%w: no job has the ID %.300q: an ID has 1 to %d bytes", ErrNotFound, id, maxIDLength)
	}
	if q.withoutResults {
		return none, fmt.Errorf("%w: %q", ErrNoResults, q.name)
	}
	// An end passes by on its subject when it is about to be stored. That spares
	// asking all the time; what is lost on this way is found a little later.
	passing := make(chan *nats.Msg, 16)
	sub, err := q.nc.ChanSubscribe(q.subject("*", token+".*.*"), passing)
	if err != nil {
		return none, fmt.Errorf("jobqueue: waiting for the result of job %q: %w", id, err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // of a connection that is closed, it is gone
	const shortestPoll = time.Millisecond
	var last error
	for poll := shortestPoll; ctx.Err() == nil; poll = min(2*poll, pollLongest) {
		unreached := q.lookout.check()
		msg, err := q.lastEnd(ctx, token)
		switch {
		case err != nil:
		case endOf(msg.Subject).kind == kindDead:
			return none, fmt.Errorf("%w: job %q, after %s attempts: %s", ErrDead, id, msg.Header.Get(headerAttempt), reasonOf(msg.Header))
		default:
			return q.result(msg.Subject, msg.Data, msg.Header, msg.Sequence, msg.Time)
		}
		if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, jetstream.ErrStreamNotFound) {
			return none, fmt.Errorf("jobqueue: waiting for the result of job %q: %w", id, err)
		}
		if last = unreached; last == nil && !errors.Is(err, jetstream.ErrMsgNotFound) && ctx.Err() == nil {
			last = err
		}
		select {
		case <-passing:
			poll = shortestPoll
		case <-time.After(poll):
		case <-ctx.Done():
		}
	}
	if last != nil {
		return none, fmt.Errorf("jobqueue: waiting for the result of job %q: %w: %w", id, contextError(ctx), last)
	}
	return none, fmt.Errorf("jobqueue: waiting for the result of job %q: %w", id, contextError(ctx))
}

// lastEnd returns the result or the dead letter of the newest job with an ID, or an error
// that matches jetstream.ErrMsgNotFound while that job has not ended. It looks for jobs
// first, as one that ends meanwhile leaves its end before it goes.
func (q *Queue[T, R]) lastEnd(ctx context.Context, token string) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, openAttempt)
	defer cancel()
	ofNewest := func(end) bool { return true }
	job, err := q.jobs.GetLastMsgForSubject(ctx, q.subject(kindJobs, "*."+token))
	switch {
	case err == nil:
		// One with the same key is the same job, stored twice, or moved when its time came.
		key := keyOf(job.Header, job.Subject, job.Sequence)
		ofNewest = func(e end) bool { return e.sequence >= job.Sequence || e.key == key }
	case !errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, err
	}
	result, err := q.newest(ctx, q.results, kindResults, token, ofNewest)
	if err != nil {
		return nil, err
	}
	letter, err := q.newest(ctx, q.dead, kindDead, token, ofNewest)
	switch {
	case err != nil:
		return nil, err
	case result.sequence > letter.sequence:
		return q.results.GetLastMsgForSubject(ctx, result.subject)
	case letter.sequence > 0:
		return q.dead.GetLastMsgForSubject(ctx, letter.subject)
	}
	return nil, jetstream.ErrMsgNotFound
}
