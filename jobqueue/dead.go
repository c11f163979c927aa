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

// A DeadLetter is a job that will not be run again unless it is requeued.
type DeadLetter[T any] struct {
	ID       string
	Job      T         // the zero value if it can't be decoded
	Payload  []byte    // the job as it was stored
	Reason   string    // the last error, at most 2 KiB of it
	Attempts int       // that have begun
	Worker   string    // the name of the worker that gave it up
	Time     time.Time // when it was given up
}

func reasonOf(header nats.Header) string {
	quoted := header.Get(headerReason)
	if reason, err := strconv.Unquote(quoted); err == nil {
		return reason
	}
	return quoted
}

// Dead yields the dead letters that there are, the oldest first, and ends. They
// are kept until they are requeued or deleted. It asks the server for one at a time, so a
// letter that is requeued meanwhile, by the loop itself or elsewhere, disturbs
// nothing. An error of the server or of ctx ends it.
func (q *Queue[T, R]) Dead(ctx context.Context) iter.Seq2[DeadLetter[T], error] {
	return func(yield func(DeadLetter[T], error) bool) {
		if ctx == nil {
			yield(DeadLetter[T]{}, errNilContext)
			return
		}
		info, err := streamInfo(ctx, q.dead)
		if err != nil {
			yield(DeadLetter[T]{}, fmt.Errorf("jobqueue: reading the dead letters of %q: %w", q.name, err))
			return
		}
		for next := uint64(1); next <= info.State.LastSeq; {
			msg, err := patiently(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
				return q.dead.GetMsg(ctx, next, jetstream.WithGetMsgSubject(q.subject(kindDead, "*.*.*")))
			})
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(DeadLetter[T]{}, fmt.Errorf("jobqueue: reading the dead letters of %q: %w", q.name, err))
				return
			}
			if next = msg.Sequence + 1; next > info.State.LastSeq+1 {
				return // of a job that died meanwhile, which may be one that was requeued
			}
			letter := DeadLetter[T]{
				ID:      endOf(msg.Subject).id(),
				Payload: msg.Data,
				Reason:  reasonOf(msg.Header),
				Worker:  msg.Header.Get(headerWorker),
				Time:    msg.Time,
			}
			letter.Attempts, _ = strconv.Atoi(msg.Header.Get(headerAttempt))
			letter.Job, _ = alone(func() (T, error) { return q.jobCodec.Decode(msg.Data) }) // the reason tells
			if !yield(letter, nil) {
				return
			}
		}
	}
}

// Requeue makes a job of a dead letter again, with the same ID and priority and
// all its attempts before it. If there are several letters with that ID, it is of
// the newest: each call takes one.
//
// It returns an error that wraps [ErrNotFound] if there is no such letter, and one
// that matches workpool.ErrQueueFull if there is no room. If the process dies in the
// middle, the job is queued and the letter still there; to requeue it again may have
// it run twice, and end once.
func (q *Queue[T, R]) Requeue(ctx context.Context, id string) error {
	fail := func(err error) error { return fmt.Errorf("jobqueue: requeueing job %q: %w", id, err) }
	if ctx == nil {
		return errNilContext
	}
	token := escape(id)
	notFound := fmt.Errorf("%w: job %.300q is not among the dead letters of %q", ErrNotFound, id, q.name)
	if !isToken(token) {
		return notFound
	}
	var died end
	letter, err := patiently(ctx, func(ctx context.Context) (msg *jetstream.RawStreamMsg, err error) {
		died, err = q.newest(ctx, q.dead, kindDead, token, func(end) bool { return true })
		if err != nil {
			return nil, err
		}
		if died.sequence == 0 {
			return nil, jetstream.ErrMsgNotFound
		}
		return q.dead.GetLastMsgForSubject(ctx, died.subject)
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return notFound
	}
	if err != nil {
		return fail(err)
	}
	priority := letter.Header.Get(headerPriority)
	if priority == "" {
		priority = levelNames[levelOf(0)]
	}
	// Every call for this letter makes the same job. The stream may still know the ID,
	// so the message has one of its own.
	key := "r" + strconv.FormatUint(letter.Sequence, 10)
	err = q.publisher.await(&publication{ctx: ctx, job: true, msg: &nats.Msg{
		Subject: q.subject(kindJobs, priority+"."+token),
		Data:    letter.Data,
		Header:  nats.Header{jetstream.MsgIDHeader: {token + "." + key}, headerID: {token}, headerKey: {key}},
	}})
	if err != nil {
		return q.submitError(id, err)
	}
	_, err = patiently(ctx, func(ctx context.Context) (struct{}, error) {
		if err := q.forgetJob(ctx, died); err != nil { // lest the letter is stored again
			return struct{}{}, err
		}
		return struct{}{}, deleteMsg(ctx, q.dead, letter.Sequence)
	})
	if err != nil {
		return fail(err)
	}
	return nil
}
