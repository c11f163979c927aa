package jobqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-a18b2dc9/workpool"
)

// The headers of results and dead letters.
const (
	headerWorker   = "Jobqueue-Worker"
	headerAttempt  = "Jobqueue-Attempt"
	headerReason   = "Jobqueue-Reason" // quoted as in Go
	headerPriority = "Jobqueue-Priority"
)

// A delivery is a job that a worker has been given.
type delivery struct {
	msg    jetstream.Msg // the latest, to answer to; guarded by Worker.mu
	worker *Worker
	queue  string
	data   []byte

	token      string // the escaped ID
	sequence   uint64 // of the message in the stream
	deliveries uint64 // with this one
	stored     time.Time
	level      int
	attempt    int       // 1 at the first
	began      time.Time // zero until a runner has it
}

func newDelivery(w *Worker, level int, msg jetstream.Msg) (*delivery, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	d := &delivery{
		msg:        msg,
		data:       msg.Data(),
		worker:     w,
		sequence:   meta.Sequence.Stream,
		deliveries: meta.NumDelivered,
		stored:     meta.Timestamp,
		level:      level,
		attempt:    1,
	}
	d.queue = strings.TrimSuffix(meta.Stream, "_"+kindJobs)
	if d.token = header(msg, headerID); d.token == "" {
		d.token, _, _ = strings.Cut(header(msg, jetstream.MsgIDHeader), ".")
	}
	if !isToken(d.token) { // published by other means
		d.token = "seq-" + strconv.FormatUint(d.sequence, 10)
	}
	return d, nil
}

func header(msg jetstream.Msg, key string) string {
	if values := msg.Headers()[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func (d *delivery) id() string { return unescape(d.token) }

// A Job tells a handler which job it runs.
type Job struct {
	Queue     string            // the name of the queue
	ID        string            // the same in all attempts; for side effects that must not happen twice
	Attempt   int               // 1 at the first; see WithMaxAttempts for what counts
	Priority  workpool.Priority // as submitted
	Submitted time.Time         // when the server stored the job, or when its time had come
	Worker    string            // the name of the worker
}

// JobFrom returns the job whose handler was called with ctx, or with a context
// that ctx is derived from. It reports false for any other context.
func JobFrom(ctx context.Context) (Job, bool) {
	d, ok := ctx.Value(jobKey{}).(*delivery)
	if !ok {
		return Job{}, false
	}
	return Job{
		Queue:     d.queue,
		ID:        d.id(),
		Attempt:   d.attempt,
		Priority:  priorityOf(d.level),
		Submitted: d.stored,
		Worker:    d.worker.name,
	}, true
}

// jobKey is the key under which the context of a handler has its delivery.
type jobKey struct{}

// run runs a job, and settles or hands back what becomes of it.
func (q *Queue[T, R]) run(w *Worker, pool *workpool.Pool[T, R], d *delivery) {
	if again := d.deliveries > 1; again || w.doubts() {
		if ended := q.recall(w, d, again); ended {
			return
		}
	}
	job, err := decode(q.jobCodec, d.data)
	if err != nil {
		q.bury(w, d, fmt.Errorf("decoding the job: %w", err))
		return
	}
	ctx := context.WithValue(w.aborted, jobKey{}, d)
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, w.timeout, fmt.Errorf("jobqueue: the handler took longer than %v: %w", w.timeout, context.DeadlineExceeded))
		defer cancel()
	}
	r := <-pool.DoChan(ctx, job)
	switch err := r.Err; {
	case err == nil:
		q.succeeded(w, d, r.Value)
	case w.aborted.Err() != nil:
		q.handBack(w, []*delivery{d}, true)
	case w.foreign && isRefusal(ctx, r):
		w.warn(d, "the pool of the worker has no room", err)
		if err := q.noteAttempts(w.aborted, w, d, d.attempt-1); err != nil {
			w.warn(d, "noting that a job was not run", err)
		}
		w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(fetchPause) })
	case w.foreign && isClosed(r):
		w.warn(d, "the worker stops: its pool is closed", err)
		q.handBack(w, []*delivery{d}, true)
		go w.stop()
	default:
		q.failed(w, d, err)
	}
}

// isRefusal reports whether the pool had no room for a job, and so did not run it. If a
// worker had the job, the error is the handler's, and tells of another pool. With
// CallerRuns no worker may have had it: so the error has to be the very one, unwrapped.
func isRefusal[T, R any](ctx context.Context, r workpool.Result[T, R]) bool {
	if r.Worker != 0 {
		return false
	}
	return r.Err == workpool.ErrQueueFull || r.Err == workpool.ErrDropped || //nolint:errorlint // see above
		ctx.Err() != nil && errors.Is(r.Err, workpool.ErrQueueFull) // it gave up waiting
}

// isClosed reports whether the pool takes no more jobs, or was aborted with this one in
// it. What is the handler's is told apart as in isRefusal.
func isClosed[T, R any](r workpool.Result[T, R]) bool {
	return r.Worker == 0 && r.Err == workpool.ErrClosed || errors.Is(r.Err, workpool.ErrAborted) //nolint:errorlint // see there
}

// An attemptRecord is what is stored of a job that is not at its first delivery,
// under the sequence number of its message. Without one, the first delivery
// counts as one attempt.
type attemptRecord struct {
	Attempts int       `json:"attempts"` // that have begun and count
	Worker   string    `json:"worker"`
	Time     time.Time `json:"time"`
}

// recall finds out what has become of a job that was delivered before, and notes
// that an attempt begins. It reports true if the job has ended or goes elsewhere.
// A server that was killed may have forgotten that it delivered a job: then it is
// not known to come again, and only its result is looked for.
//
// The note is what ends a job whose handler kills its worker each time. That
// deliveries alone are not counted is for the jobs beside it, which were fetched
// and lost with that worker, and for those that were handed back.
func (q *Queue[T, R]) recall(w *Worker, d *delivery, again bool) (ended bool) {
	ctx, cancel := context.WithTimeout(w.aborted, ackPatience)
	defer cancel()
	// Only a result that is newer is one of this job, and not of an earlier one
	// with the same ID.
	result, err := q.results.GetLastMsgForSubject(ctx, q.subject(kindResults, d.token))
	if err == nil && result.Time.After(d.stored) {
		w.settled(d, jetstream.Msg.Ack)
		return true
	}
	if !again && (err == nil || errors.Is(err, jetstream.ErrMsgNotFound)) {
		return false
	}
	last := attemptRecord{Attempts: 1}
	if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) {
		last, err = q.attemptsOf(ctx, d)
	}
	if err != nil {
		w.warn(d, "asking for the attempts of a job", err)
		w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(ackPatience) })
		return true
	}
	d.attempt = last.Attempts + 1
	if d.attempt > q.maxAttempts {
		d.attempt = last.Attempts
		where := "its worker"
		if last.Worker != "" {
			where = fmt.Sprintf("worker %s, which began it at %s,", last.Worker, last.Time.Format(time.RFC3339))
		}
		q.bury(w, d, fmt.Errorf("attempt %d did not end: %s was killed, crashed or was cut off", d.attempt, where))
		return true
	}
	if err := q.noteAttempts(ctx, w, d, d.attempt); err != nil {
		w.warn(d, "noting the attempts of a job", err)
		w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(ackPatience) })
		return true
	}
	return false
}

func (q *Queue[T, R]) attemptsSubject(d *delivery) string {
	return q.subject(kindAttempts, strconv.FormatUint(d.sequence, 10))
}

func (q *Queue[T, R]) attemptsOf(ctx context.Context, d *delivery) (attemptRecord, error) {
	msg, err := q.attempts.GetLastMsgForSubject(ctx, q.attemptsSubject(d))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return attemptRecord{Attempts: 1}, nil
	}
	if err != nil {
		return attemptRecord{}, err
	}
	var last attemptRecord
	return last, json.Unmarshal(msg.Data, &last)
}

func (q *Queue[T, R]) noteAttempts(ctx context.Context, w *Worker, d *delivery, attempts int) error {
	data, err := json.Marshal(attemptRecord{Attempts: attempts, Worker: w.name, Time: time.Now()})
	if err != nil {
		return err
	}
	return q.publisher.store(ctx, &nats.Msg{Subject: q.attemptsSubject(d), Data: data})
}

// handBack gives jobs back to the server at once, which count as not run. It takes
// the time that it needs: without the note, a job has used up an attempt. An abort
// leaves it handBackPatience.
func (q *Queue[T, R]) handBack(w *Worker, ds []*delivery, begun bool) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.aborted))
	defer cancel()
	defer context.AfterFunc(w.aborted, func() { time.AfterFunc(handBackPatience, cancel) })()
	var back sync.WaitGroup
	for _, d := range ds {
		back.Go(func() {
			// Without a note, a delivery counts if it was the first; with one,
			// if it has begun.
			if begun || d.deliveries == 1 {
				if err := q.noteAttempts(ctx, w, d, d.attempt-1); err != nil {
					w.warn(d, "noting that a job was handed back", err)
				}
			}
			w.settled(d, jetstream.Msg.Nak)
		})
	}
	back.Wait()
}

// succeeded stores the result of a job, and then acknowledges the job. Until then
// the job has its place among those that run: so a worker that is killed has run no
// more jobs in vain than it runs at a time.
func (q *Queue[T, R]) succeeded(w *Worker, d *delivery, value R) {
	data, err := encode(q.resultCodec, value)
	if err != nil {
		q.bury(w, d, fmt.Errorf("encoding the result: %w", err))
		return
	}
	w.ending.Add(1)
	q.publisher.send(&publication{ctx: w.aborted, msg: &nats.Msg{
		Subject: q.subject(kindResults, d.token),
		Data:    data,
		Header: nats.Header{
			jetstream.MsgIDHeader: {d.token},
			headerWorker:          {w.name},
			headerAttempt:         {strconv.Itoa(d.attempt)},
		},
	}, done: func(err error) {
		if err == nil {
			w.settled(d, jetstream.Msg.Ack)
			w.ending.Done()
			return
		}
		go func() {
			defer w.ending.Done()
			q.notStored(w, d, len(data), err)
		}()
	}})
}

// notStored says what becomes of a job whose result was refused.
func (q *Queue[T, R]) notStored(w *Worker, d *delivery, size int, err error) {
	err = fmt.Errorf("storing the result of %d bytes: %w", size, err)
	switch {
	case isTooLarge(err):
		q.bury(w, d, err)
	case w.aborted.Err() != nil:
		q.handBack(w, []*delivery{d}, true)
	default:
		w.warn(d, "a result was not stored", err)
		q.failed(w, d, err)
	}
}

// failed has a job run again later, or buries it.
func (q *Queue[T, R]) failed(w *Worker, d *delivery, err error) {
	var later *laterError
	if errors.As(err, &later) {
		err = later.err
	}
	if d.attempt >= q.maxAttempts || workpool.IsPermanent(err) {
		q.bury(w, d, err)
		return
	}
	delay, ok := workpool.RetryDelay(err)
	if !ok {
		var mistake error
		delay, mistake = q.delayAfter(d.attempt)
		if mistake != nil {
			q.bury(w, d, fmt.Errorf("%w: %w", mistake, err))
			return
		}
	}
	w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(delay) })
}

func (q *Queue[T, R]) delayAfter(attempt int) (delay time.Duration, err error) {
	defer catch(&err)
	if delay = q.backoff(attempt); delay < 0 {
		return 0, invalid("WithBackoff: the function returned %v after attempt %d: the delay is 0 or more", delay, attempt)
	}
	return delay, nil
}

// maxReason is how many bytes of the reason of a dead letter are kept.
const maxReason = 2 << 10

// bury makes a dead letter of a job, and then acknowledges the job.
func (q *Queue[T, R]) bury(w *Worker, d *delivery, reason error) {
	w.warn(d, "a job has become a dead letter", reason)
	text := fmt.Sprint(reason) // which bears an error whose Error method panics
	if len(text) > maxReason {
		text = text[:maxReason] + "…"
	}
	quoted := strconv.QuoteToASCII(text)
	for len(quoted) > 2*maxReason { // of what is not ASCII, or text at all
		text = strings.ToValidUTF8(text[:len(text)/2], "�") + "…"
		quoted = strconv.QuoteToASCII(text)
	}
	err := q.publisher.store(w.aborted, &nats.Msg{
		Subject: q.subject(kindDead, d.token),
		Data:    d.data,
		Header: nats.Header{
			// A job that is submitted again under its ID can die again, and so can
			// one that is requeued.
			jetstream.MsgIDHeader: {d.token + "." + strconv.FormatUint(d.sequence, 10)},
			headerWorker:          {w.name},
			headerAttempt:         {strconv.Itoa(d.attempt)},
			headerReason:          {quoted},
			headerPriority:        {levelNames[d.level]},
		},
	})
	if err != nil {
		w.warn(d, "storing a dead letter", err)
		w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(ackPatience) })
		return
	}
	w.settled(d, jetstream.Msg.Ack)
}

// settled tells the server what became of a job, after which the worker has it no
// more. If the answer is lost, the job is delivered again.
func (w *Worker) settled(d *delivery, answer func(jetstream.Msg) error) {
	w.mu.Lock()
	delete(w.held, d.sequence)
	msg := d.msg
	if !d.began.IsZero() {
		w.endedLocked(d)
	}
	w.mu.Unlock()
	if err := answer(msg); err != nil {
		w.warn(d, "telling the server what became of a job", err)
	}
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
