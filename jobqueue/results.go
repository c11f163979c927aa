package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
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
		from := max(from, 1) // of its own in each range
		for ctx.Err() == nil {
			attempt, cancel := context.WithTimeout(ctx, openAttempt) // a server without a leader does not answer
			consumer, err := q.results.CreateConsumer(attempt, jetstream.ConsumerConfig{
				DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
				OptStartSeq:       from,
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
	r := Result[R]{ID: idOf(subject), Worker: header.Get(headerWorker), Time: stored, Sequence: sequence}
	r.Attempt, _ = strconv.Atoi(header.Get(headerAttempt))
	var err error
	if r.Value, err = decode(q.resultCodec, data); err != nil {
		err = fmt.Errorf("jobqueue: decoding the result of job %q: %w", r.ID, err)
	}
	return r, err
}

// idOf returns the ID in the last part of a subject.
func idOf(subject string) string {
	return unescape(subject[strings.LastIndexByte(subject, '.')+1:])
}

// Result waits until the job with that ID has ended, and returns its result. If
// it has become a dead letter, the error wraps [ErrDead] and has the reason. If
// ctx ends first, the error matches ctx.Err().
//
// An ID that no job can have gives an error that wraps [ErrNotFound]. It waits for an ID that the queue has never seen, and for one whose result
// has been dropped because of its age.
func (q *Queue[T, R]) Result(ctx context.Context, id string) (Result[R], error) {
	none := Result[R]{ID: id}
	if ctx == nil {
		return none, errNilContext
	}
	token := escape(id)
	if !isToken(token) {
		return none, fmt.Errorf("%w: no job has the ID %.300q: an ID has 1 to %d bytes", ErrNotFound, id, maxIDLength)
	}
	resultSubject, deadSubject := q.subject(kindResults, token), q.subject(kindDead, token)
	// A result passes by on its subject when it is about to be stored. That spares
	// asking all the time; what is lost on this way is found a little later.
	passing := make(chan *nats.Msg, 16)
	for _, subject := range []string{resultSubject, deadSubject} {
		sub, err := q.nc.ChanSubscribe(subject, passing)
		if err != nil {
			return none, fmt.Errorf("jobqueue: waiting for the result of job %q: %w", id, err)
		}
		defer sub.Unsubscribe() //nolint:errcheck // of a connection that is closed, it is gone
	}
	const shortestPoll = time.Millisecond
	for poll := shortestPoll; ctx.Err() == nil; poll = min(2*poll, pollLongest) {
		msg, err := lastMsg(ctx, q.results, resultSubject)
		if err == nil {
			return q.result(msg.Subject, msg.Data, msg.Header, msg.Sequence, msg.Time)
		}
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			if msg, err = lastMsg(ctx, q.dead, deadSubject); err == nil {
				return none, fmt.Errorf("%w: job %q, after %s attempts: %s", ErrDead, id, msg.Header.Get(headerAttempt), reasonOf(msg.Header))
			}
		}
		if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, jetstream.ErrStreamNotFound) {
			return none, fmt.Errorf("jobqueue: waiting for the result of job %q: %w", id, err)
		}
		select {
		case <-passing:
			poll = shortestPoll
		case <-time.After(poll):
		case <-ctx.Done():
		}
	}
	return none, fmt.Errorf("jobqueue: waiting for the result of job %q: %w", id, contextError(ctx))
}

// lastMsg returns the last message on a subject, or an error when the answer takes
// too long.
func lastMsg(ctx context.Context, stream jetstream.Stream, subject string) (*jetstream.RawStreamMsg, error) {
	attempt, cancel := context.WithTimeout(ctx, openAttempt)
	defer cancel()
	return stream.GetLastMsgForSubject(attempt, subject)
}
