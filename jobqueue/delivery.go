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

// The headers of results, marks and dead letters.
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
	key        string
	sequence   uint64    // of the message in the stream
	deliveries uint64    // with this one
	latest     uint64    // those of msg; guarded by Worker.mu
	heard      time.Time // when the server last was known to wait for this worker; guarded by Worker.mu
	stored     time.Time
	level      int
	attempt    int       // 1 at the first
	noted      bool      // there is a record of attempts
	began      time.Time // zero until a runner has it

	overtime chan struct{} // with WithTimeout: closed when the handler's time is over

	// Guarded by Worker.mu:
	left     bool // with WithTimeout: the handler has returned
	outlived bool // the attempt has ended, the handler has not, and holds its place
	overdue  bool // that place is counted as overdue
	ended    bool // the attempt has ended
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
		latest:     meta.NumDelivered,
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
	d.key = keyOf(msg.Headers(), msg.Subject(), d.sequence)
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
		q.failed(w, d, fmt.Errorf("decoding the job: %w", err))
		return
	}
	if w.timeout > 0 {
		d.overtime = make(chan struct{})
	}
	var r workpool.Result[T, R]
	select {
	case r = <-pool.DoChan(context.WithValue(w.aborted, jobKey{}, d), job):
	case <-d.overtime:
		r.Err = lateError(w.timeout)
		w.outlived(d)
	}
	switch err := r.Err; {
	case err == nil:
		q.succeeded(w, d, r.Value)
	case w.aborted.Err() != nil:
		q.handBack(w, []*delivery{d}, true)
	case w.foreign && isRefusal(r):
		w.warn(d, "the pool of the worker has no room", err)
		if err := q.noteAttempts(w.aborted, w, d, d.attempt-1); err != nil {
			w.warn(d, "noting that a job was not run", err)
		}
		w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(fetchPause) })
	case w.foreign && isClosed(r):
		go w.end(fmt.Errorf("jobqueue: the worker has stopped: its pool is closed: %w", err))
		q.handBack(w, []*delivery{d}, true)
	default:
		q.failed(w, d, err)
	}
}

// isRefusal reports whether the pool had no room for a job, and so did not run it. If a
// worker had the job, the error is the handler's, and tells of another pool. With
// CallerRuns no worker may have had it: so the error has to be the very one, unwrapped.
func isRefusal[T, R any](r workpool.Result[T, R]) bool {
	return r.Worker == 0 && (r.Err == workpool.ErrQueueFull || r.Err == workpool.ErrDropped) //nolint:errorlint // see above
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
	Delivery uint64    `json:"delivery"` // the count of that for which it was written
	Worker   string    `json:"worker"`
	Time     time.Time `json:"time"`
}

// recall finds out what has become of a job that was delivered before, and notes
// that an attempt begins. It reports true if the job has ended or goes elsewhere.
// A server that was killed may have forgotten that it delivered a job: then it is
// not known to come again, and only its end is looked for.
//
// The note is what ends a job whose handler kills its worker each time. That
// deliveries alone are not counted is for the jobs beside it, which were fetched
// and lost with that worker, and for those that were handed back.
func (q *Queue[T, R]) recall(w *Worker, d *delivery, again bool) (elsewhere bool) {
	ctx, cancel := context.WithTimeout(w.aborted, ackPatience)
	defer cancel()
	ended, err := q.finish(ctx, w, d)
	if ended {
		return true
	}
	if !again && err == nil {
		w.over(asking)
		return false
	}
	var last attemptRecord
	if err == nil {
		last, err = q.attemptsOf(ctx, d)
	}
	if err != nil {
		w.cantAsk(err)
		w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(ackPatience) })
		return true
	}
	if last.Delivery > w.latest(d) {
		w.leave(d, "a job was not begun")
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
		w.cantAsk(err)
		w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(ackPatience) })
		return true
	}
	w.over(asking)
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
	data, err := json.Marshal(attemptRecord{Attempts: attempts, Delivery: w.latest(d), Worker: w.name, Time: time.Now()})
	if err != nil {
		return err
	}
	d.noted = true
	return q.publisher.await(&publication{ctx: ctx, msg: &nats.Msg{Subject: q.attemptsSubject(d), Data: data}})
}

// handBack gives jobs back to the server at once, which count as not run. It takes
// the time that it needs: without the note, a job has used up an attempt. An abort
// leaves it handBackPatience. A job that may be another worker's gets no answer.
func (q *Queue[T, R]) handBack(w *Worker, ds []*delivery, begun bool) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.aborted))
	defer cancel()
	defer context.AfterFunc(w.aborted, func() { time.AfterFunc(handBackPatience, cancel) })()
	var back sync.WaitGroup
	for _, d := range ds {
		back.Go(func() {
			lost := w.lost(d)
			if lost && !q.mayFail(ctx, w, d) {
				w.leave(d, "a job was not handed back")
				return
			}
			// Without a note, a delivery counts if it was the first; with one,
			// if it has begun.
			if begun || d.deliveries == 1 {
				if err := q.noteAttempts(ctx, w, d, d.attempt-1); err != nil {
					w.warn(d, "noting that a job was handed back", err)
				}
			}
			if lost {
				w.settled(d, noAnswer)
				return
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
	if w.lost(d) {
		// The result that another worker has stored may be too old to be there.
		if gone, err := q.gone(w.aborted, d); err == nil && gone {
			w.leave(d, "a result was not stored")
			return
		}
	}
	if q.withoutResults {
		w.succeeded.Add(1)
		q.acknowledge(w, d)
		return
	}
	data, err := encode(q.resultCodec, value)
	if err != nil {
		q.bury(w, d, fmt.Errorf("encoding the result: %w", err))
		return
	}
	w.ending.Add(1)
	q.publisher.send(&publication{ctx: w.aborted, wait: true, refused: w.cantStore, msg: q.onlyEnd(d, &nats.Msg{
		Subject: q.endSubject(kindResults, d),
		Data:    data,
		Header: nats.Header{
			headerWorker:  {w.name},
			headerAttempt: {strconv.Itoa(d.attempt)},
		},
	}), done: func(err error) {
		if err == nil {
			w.over(storing)
			w.succeeded.Add(1)
			q.acknowledge(w, d)
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
	case isSecondEnd(err):
		q.refused(w, d)
	case isTooLarge(err):
		q.bury(w, d, err)
	case w.aborted.Err() != nil:
		q.handBack(w, []*delivery{d}, true)
	default:
		q.failed(w, d, err)
	}
}

// failed has a job run again later, or buries it. It does neither if another worker
// may have the job.
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
	if w.lost(d) && !q.mayFail(w.aborted, w, d) {
		w.leave(d, "a job that has failed is not retried")
		return
	}
	w.log.Info("jobqueue: an attempt has failed", "queue", d.queue, "id", d.id(), "attempt", d.attempt, "worker", w.name, "error", err, "again_in", delay)
	w.failed.Add(1)
	w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(delay) })
}

func (q *Queue[T, R]) delayAfter(attempt int) (delay time.Duration, err error) {
	if delay, err = alone(func() (time.Duration, error) { return q.backoff(attempt), nil }); err != nil {
		return 0, err
	}
	if delay < 0 {
		return 0, invalid("WithBackoff: the function returned %v after attempt %d: the delay is 0 or more", delay, attempt)
	}
	return delay, nil
}

// maxReason is how many bytes of the reason of a dead letter are kept.
const maxReason = 2 << 10

// bury makes a dead letter of a job, unless the job has ended or another worker has
// it: it stores the mark, then the letter, and then acknowledges the job.
func (q *Queue[T, R]) bury(w *Worker, d *delivery, reason error) {
	if !q.mayFail(w.aborted, w, d) {
		w.leave(d, "a job that has failed is no dead letter")
		return
	}
	w.warn(d, "a job has become a dead letter", reason)
	header := func() nats.Header {
		return nats.Header{
			headerWorker:   {w.name},
			headerAttempt:  {strconv.Itoa(d.attempt)},
			headerReason:   {quotedReason(reason)},
			headerPriority: {levelNames[d.level]},
		}
	}
	mark := &nats.Msg{Subject: q.endSubject(kindMarks, d), Header: header()}
	err := q.publisher.await(&publication{ctx: w.aborted, wait: true, refused: w.cantStore, msg: q.onlyEnd(d, mark)})
	switch {
	case err == nil, isTooLarge(err): // a stream that takes no mark takes no result
		q.storeLetter(w, d, header())
	case isSecondEnd(err):
		q.refused(w, d)
	default:
		w.warn(d, "storing the mark of a dead letter", err)
		w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(ackPatience) })
	}
}

// quotedReason returns the text of an error, made fit for a header.
func quotedReason(reason error) string {
	text, err := alone(func() (string, error) { return fmt.Sprint(reason), nil }) // which bears an error whose Error method panics
	if err != nil {
		text = err.Error()
	}
	if len(text) > maxReason {
		text = text[:maxReason] + "…"
	}
	quoted := strconv.QuoteToASCII(text)
	for len(quoted) > 2*maxReason { // of what is not ASCII, or text at all
		text = strings.ToValidUTF8(text[:len(text)/2], "�") + "…"
		quoted = strconv.QuoteToASCII(text)
	}
	return quoted
}

// storeLetter stores the dead letter of a job that has a mark, and acknowledges the job.
// Another worker may do so at the same time: it is the same letter.
func (q *Queue[T, R]) storeLetter(w *Worker, d *delivery, mark nats.Header) {
	letter := nats.Header{jetstream.MsgIDHeader: {d.token + "." + d.key}}
	for _, key := range []string{headerWorker, headerAttempt, headerReason, headerPriority} {
		letter[key] = []string{mark.Get(key)}
	}
	err := q.publisher.await(&publication{ctx: w.aborted, wait: true, refused: w.cantStore, msg: &nats.Msg{Subject: q.endSubject(kindDead, d), Data: d.data, Header: letter}})
	if err != nil {
		w.warn(d, "storing a dead letter", err)
		w.settled(d, func(msg jetstream.Msg) error { return msg.NakWithDelay(ackPatience) })
		return
	}
	w.over(storing)
	w.dead.Add(1)
	q.acknowledge(w, d)
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
