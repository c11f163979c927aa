package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What a job is, and how it ends.
//
// A job is one call of Submit, or one Requeue. Three names belong to it:
//
//   - The ID is what its submitter calls it. Escaped, it is the token in subjects.
//     An ID can come again: the jobs stream knows it for the dedupe window.
//   - The key tells jobs with the same ID apart. It is random, made with the message
//     and the same each time that the message is sent. So a job that the stream has
//     stored twice, because it had forgotten the first when the second came, is still
//     one job, with one end. A random ID never comes again and needs no key.
//   - The sequence is the place of its message in the jobs stream. Of two jobs with the
//     same ID, the one with the higher sequence is the newer. Sequences of one stream
//     are compared, clocks never: they may be set back, and those of servers differ.
//
// Who writes what, under which subject, after jobqueue.NAME:
//
//	jobs.LEVEL.TOKEN              Submit, Requeue: the job; its ack deletes it
//	jobs.LEVEL.=                  the same, for random IDs, which share a subject
//	jobs.later-KEY.TOKEN          Submit: a job that waits for its time
//	results.TOKEN.KEY.SEQUENCE    a worker: the job has succeeded
//	marks.TOKEN.KEY.SEQUENCE      a worker: the job becomes a dead letter
//	dead.TOKEN.KEY.SEQUENCE       a worker: the dead letter
//	attempts.SEQUENCE             a worker: an attempt begins, of a job delivered again
//
// A job waits, is delivered to a worker, and ends with the first message that the
// results stream takes under its token and key. That is the result or the mark: the
// stream refuses the second, whoever sends it, however late. A worker that is refused
// reads the first and finishes what that one's worker may have left undone: after a
// result the ack, after a mark the dead letter and the ack. An end is final while the
// stream keeps it.
//
// A delivery may be overtaken: the server has not heard of the worker for AckWait and
// gives the job to another one. Then what the first worker says must not harm the
// second's run. Its success is welcome, if it is the first end. Its failure is not: it
// neither has the job delivered again nor makes a dead letter of it. It knows by the
// time for which nobody else can have the job, see lease.go, and asks the server
// where that does not suffice: an overtaken job is gone from the jobs stream, or its
// record of attempts has a delivery with a higher count than its own.

// headerKey has the key of a job that has an ID of the submitter's choice.
const headerKey = "Jobqueue-Key"

const (
	// sharedSubject stands in for the token in the subjects of jobs with random
	// IDs. No ID is escaped to it.
	sharedSubject = "="
	// sharedKey is the key of those jobs.
	sharedKey = "0"
)

// keyOf returns the key of a job from its message in the jobs stream.
func keyOf(header nats.Header, subject string, sequence uint64) string {
	key := header.Get(headerKey)
	switch {
	case isToken(key):
		return key
	case strings.HasSuffix(subject, "."+sharedSubject):
		return sharedKey
	}
	return strconv.FormatUint(sequence, 10) // published by other means
}

// An end is what the subject of a result, a mark or a dead letter tells.
type end struct {
	subject  string
	kind     string
	token    string
	key      string
	sequence uint64
}

func endOf(subject string) end {
	e := end{subject: subject}
	if parts := strings.Split(subject, "."); len(parts) == 6 {
		e.kind, e.token, e.key = parts[2], parts[3], parts[4]
		e.sequence, _ = strconv.ParseUint(parts[5], 10, 64)
	}
	return e
}

func (e end) id() string { return unescape(e.token) }

func (q *Queue[T, R]) endSubject(kind string, d *delivery) string {
	return q.subject(kind, d.token+"."+d.key+"."+strconv.FormatUint(d.sequence, 10))
}

// onlyEnd makes msg, for the results stream, one that is refused if the job has ended.
func (q *Queue[T, R]) onlyEnd(d *delivery, msg *nats.Msg) *nats.Msg {
	msg.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{"0"}
	msg.Header[jetstream.ExpectedLastSubjSeqSubjHeader] = []string{q.anyEnd(d)}
	return msg
}

// anyEnd returns a filter for the result and the mark of a job.
func (q *Queue[T, R]) anyEnd(d *delivery) string {
	return q.subject("*", d.token+"."+d.key+".*")
}

// isSecondEnd tells whether a stream has refused a message of onlyEnd because the job
// has ended, or is ending.
func isSecondEnd(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongSequenceInProcess)
}

// finish brings a job that has ended to its end, if it has: it reports whether it has.
func (q *Queue[T, R]) finish(ctx context.Context, w *Worker, d *delivery) (ended bool, err error) {
	first, err := q.results.GetLastMsgForSubject(ctx, q.anyEnd(d))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return false, nil
	case err != nil:
		return false, err
	case endOf(first.Subject).kind == kindMarks:
		q.storeLetter(w, d, first.Header)
	default:
		q.acknowledge(w, d)
	}
	return true, nil
}

// refused is for a job whose end was the second.
func (q *Queue[T, R]) refused(w *Worker, d *delivery) {
	w.over(storing) // the stream has answered
	ctx, cancel := context.WithTimeout(w.aborted, ackPatience)
	defer cancel()
	for ctx.Err() == nil { // the first may be on its way
		if ended, err := q.finish(ctx, w, d); ended && err == nil {
			return
		}
		pause(ctx, resendPause)
	}
	w.settled(d, noAnswer) // the next delivery will tell
}

// acknowledge deletes a job that has ended, and then the record of its attempts.
func (q *Queue[T, R]) acknowledge(w *Worker, d *delivery) {
	w.settled(d, jetstream.Msg.Ack)
	if d.deliveries == 1 && !d.noted {
		return
	}
	w.ending.Go(func() {
		w.tidying <- struct{}{} // the server drops questions of which it has too many
		defer func() { <-w.tidying }()
		ctx, cancel := context.WithTimeout(w.aborted, ackPatience)
		defer cancel()
		if err := q.attempts.Purge(ctx, jetstream.WithPurgeSubject(q.attemptsSubject(d))); err != nil && w.aborted.Err() == nil {
			w.log.Debug("jobqueue: deleting the record of attempts, which ends by its age", "queue", q.name, "id", d.id(), "error", err)
		}
	})
}

// mayFail reports whether what a worker says of the failure of a job counts. It does
// not if the job has ended, or a later delivery has begun.
func (q *Queue[T, R]) mayFail(ctx context.Context, w *Worker, d *delivery) bool {
	ctx, cancel := context.WithTimeout(ctx, ackPatience)
	defer cancel()
	gone, err := q.gone(ctx, d)
	if err == nil && !gone {
		var last attemptRecord
		if last, err = q.attemptsOf(ctx, d); err == nil && last.Delivery <= w.latest(d) {
			return true
		}
	}
	if err != nil {
		w.warn(d, "asking whether a job is still this worker's", err)
	}
	return false
}

// gone reports whether a job is no more in the jobs stream.
func (q *Queue[T, R]) gone(ctx context.Context, d *delivery) (bool, error) {
	_, err := q.jobs.GetMsg(ctx, d.sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	return false, err
}

// leave lets go of a job that another worker has or has ended, or whose state the server
// does not tell.
func (w *Worker) leave(d *delivery, what string) {
	w.log.Info("jobqueue: "+what+": the job is left to other workers, as this one was not heard of", "queue", d.queue, "id", d.id(), "attempt", d.attempt, "worker", w.name)
	w.settled(d, noAnswer)
}

// noAnswer leaves a job to whoever has it, or to the end of AckWait.
func noAnswer(jetstream.Msg) error { return nil }

// newest returns the newest end of a kind that a stream has for an ID, among those
// that wanted takes. Its sequence is 0 if there is none.
func (q *Queue[T, R]) newest(ctx context.Context, stream jetstream.Stream, kind, token string, wanted func(end) bool) (newest end, err error) {
	all, err := q.endsOf(ctx, stream, kind, token)
	for _, e := range all {
		if wanted(e) && e.sequence > newest.sequence {
			newest = e
		}
	}
	return newest, err
}

func (q *Queue[T, R]) endsOf(ctx context.Context, stream jetstream.Stream, kind, token string) ([]end, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(q.subject(kind, token+".*.*")))
	if err != nil {
		return nil, err
	}
	ends := make([]end, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		ends = append(ends, endOf(subject))
	}
	return ends, nil
}

// forgetJob deletes the message of a job that has ended, which may have been left by
// a worker that was killed before its ack.
func (q *Queue[T, R]) forgetJob(ctx context.Context, e end) error {
	return deleteMsg(ctx, q.jobs, e.sequence)
}

// deleteMsg deletes a message that may be gone.
func deleteMsg(ctx context.Context, stream jetstream.Stream, sequence uint64) error {
	err := stream.DeleteMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		if _, gone := stream.GetMsg(ctx, sequence); errors.Is(gone, jetstream.ErrMsgNotFound) {
			return nil
		}
	}
	return err
}

// Delete deletes all results and dead letters that the queue has under an ID, and
// returns when they are gone. It does not touch jobs with that ID that have not ended.
// If there is nothing to delete, the error wraps [ErrNotFound]. After an error in the
// middle, some may be left: call it again.
func (q *Queue[T, R]) Delete(ctx context.Context, id string) error {
	if ctx == nil {
		return errNilContext
	}
	notFound := fmt.Errorf("%w: %q has no result and no dead letter of job %.300q", ErrNotFound, q.name, id)
	token := escape(id)
	if !isToken(token) {
		return notFound
	}
	found := false
	for _, in := range []struct {
		stream jetstream.Stream
		kind   string
	}{{q.results, kindResults}, {q.dead, kindDead}} {
		_, err := patiently(ctx, func(ctx context.Context) (struct{}, error) {
			ends, err := q.endsOf(ctx, in.stream, in.kind, token)
			if err != nil || len(ends) == 0 {
				return struct{}{}, err
			}
			found = true
			for _, e := range ends {
				if err := q.forgetJob(ctx, e); err != nil {
					return struct{}{}, err
				}
			}
			return struct{}{}, in.stream.Purge(ctx, jetstream.WithPurgeSubject(q.subject(in.kind, token+".*.*")))
		})
		if err != nil {
			return fmt.Errorf("jobqueue: deleting what is left of job %q of %q: %w", id, q.name, err)
		}
	}
	if !found {
		return notFound
	}
	return nil
}
