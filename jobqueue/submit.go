package jobqueue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-a18b2dc9/workpool"
)

const (
	maxIDLength = 255
	// headerRoom is what a dead letter needs in addition to the job.
	headerRoom = 8 << 10
	// submitWindow is how many jobs SubmitAll has on the way at a time. A job of more than
	// windowBytes takes the places of several.
	submitWindow = 1024
	windowBytes  = 64 << 10
)

// headerID has the ID of a job whose message has lost the one for the stream.
const headerID = "Jobqueue-Id"

// keyLength is that of a random key, in characters of 5 bits.
const keyLength = 13

// A SubmitOption sets a property of the jobs of one call. Where an option is
// given twice, the last one holds.
type SubmitOption interface {
	apply(s *submission) error
}

type submitOptionFunc func(s *submission) error

func (f submitOptionFunc) apply(s *submission) error { return f(s) }

// A submission is what the options of one call add up to.
type submission struct {
	id    string
	level int
	at    time.Time
}

func (c *config) newSubmission(opts []SubmitOption) (submission, error) {
	s := submission{level: levelOf(workpool.Normal)}
	for i, opt := range opts {
		if opt == nil {
			return s, invalid("submit option %d of %d is nil", i+1, len(opts))
		}
		if err := opt.apply(&s); err != nil {
			return s, err
		}
	}
	if !s.at.IsZero() && c.limited() {
		return s, invalid("RunAt(%v) and WithMaxQueued or WithMaxBytes exclude each other: JetStream has no scheduled messages in a stream that refuses new ones", s.at)
	}
	return s, nil
}

// lastTime is the latest that the server can store: it counts nanoseconds from 1970 in
// 64 bits. A message with a later one would be due at once.
var lastTime = time.Unix(0, math.MaxInt64).Truncate(time.Second).UTC()

// checkSchedule returns an error for a job that the stream would keep and never run.
func (q *Queue[T, R]) checkSchedule(s submission) error {
	switch {
	case !s.at.After(time.Now()):
		return nil
	case s.at.After(lastTime):
		return invalid("RunAt(%v): the server stores times up to %v", s.at.Format(time.RFC3339), lastTime.Format(time.RFC3339))
	case !q.schedules:
		return fmt.Errorf("%w: RunAt(%v): NATS has them from version 2.12 on, in queues without WithMaxQueued and WithMaxBytes: %q was made by an earlier server, or has such a limit (this server has version %s)",
			ErrNoSchedules, s.at.Format(time.RFC3339), q.name, q.nc.ConnectedServerVersion())
	}
	return nil
}

// WithID sets the ID of the job: 1 to 255 bytes, whatever they are. Without the option
// each job has a random ID. It is for [Queue.Submit] alone.
//
// An ID stands for one job for the time of [WithDedupeWindow]: submitted again within
// it, the job is not stored again, and the call succeeds. After it, the same ID makes
// another job, whatever has become of the first: both run, and each has its own result
// or dead letter. [Queue.Result] tells of the newest, [Queue.Results] and [Queue.Dead]
// of all.
//
// The server keeps in memory the ID of each such job that has not ended: some 220 bytes.
func WithID(id string) SubmitOption {
	return submitOptionFunc(func(s *submission) error {
		if id == "" || len(id) > maxIDLength {
			return invalid("WithID(%.300q): an ID has 1 to %d bytes, not %d", id, maxIDLength, len(id))
		}
		s.id = id
		return nil
	})
}

// WithPriority sets which of the jobs that wait is run first: workpool.High, Normal,
// which is the default, or Low. Of 16 jobs that a worker begins while jobs of all
// three wait, 12 are High, 3 Normal and 1 Low, so that nobody starves.
func WithPriority(priority workpool.Priority) SubmitOption {
	return submitOptionFunc(func(s *submission) error {
		if priority < workpool.Low || priority > workpool.High {
			return invalid("WithPriority(%v): a priority is High, Normal or Low", priority)
		}
		s.level = levelOf(priority)
		return nil
	})
}

// RunAt keeps the job in the stream until t, to the second: it is never run
// before, and up to a second later. A t in the past is now; one after April 11th of
// 2262 is more than the server can store, and gives an error that wraps
// [ErrInvalidOption]. It needs a NATS server of version 2.12 or later: on an earlier
// one, Submit returns an error that wraps [ErrNoSchedules]. It excludes [WithMaxQueued]
// and [WithMaxBytes].
func RunAt(t time.Time) SubmitOption {
	return submitOptionFunc(func(s *submission) error {
		if t.IsZero() {
			return invalid("RunAt: the time is zero")
		}
		s.at = t
		return nil
	})
}

// RunAfter is [RunAt] with the time in d from now: 0 or more.
func RunAfter(d time.Duration) SubmitOption {
	return submitOptionFunc(func(s *submission) error {
		if d < 0 {
			return invalid("RunAfter(%v): the time is 0 or more", d)
		}
		s.at = time.Now().Add(d)
		return nil
	})
}

// Submit stores a job, and returns its ID when the stream has acknowledged it:
// on all of a majority of its replicas. From then on the job is executed at least
// once, and ends as a result or a dead letter.
//
// While the server or its leader is away, Submit sends the job again, under the
// same ID, until ctx ends. Then it returns, whatever the connection does. Its error
// matches ctx.Err() and has what the server has answered, if it has, and the job may
// have been stored or not: submit it again under the same ID to be sure. The ID is
// returned for that with an error too.
//
// It does not wait for room: its error matches workpool.ErrQueueFull where there is
// none, by [WithMaxQueued] or because the storage of the server is full. It returns an error that wraps
// [ErrJobTooLarge] for a job that the server would not take, one that wraps
// [ErrNotFound] when the stream of the jobs was deleted, and the error of the codec for
// one that can't be encoded.
func (q *Queue[T, R]) Submit(ctx context.Context, job T, opts ...SubmitOption) (id string, err error) {
	s, err := q.newSubmission(opts)
	if err != nil {
		return s.id, err
	}
	if ctx == nil {
		return s.id, errNilContext
	}
	if err := ctx.Err(); err != nil {
		return s.id, fmt.Errorf("jobqueue: submitting to %q: %w", q.name, contextError(ctx))
	}
	if err := q.checkSchedule(s); err != nil {
		return s.id, err
	}
	msg, id, err := q.jobMessage(s, job)
	if err != nil {
		return id, err
	}
	return id, q.submitError(id, q.publisher.await(&publication{ctx: ctx, msg: msg, job: true}))
}

// jobMessage returns the message of a job, and its ID.
func (q *Queue[T, R]) jobMessage(s submission, job T) (*nats.Msg, string, error) {
	id := s.id
	if id == "" {
		id = rand.Text()
	}
	data, err := encode(q.jobCodec, job)
	if err != nil {
		return nil, id, fmt.Errorf("jobqueue: encoding the job %q for %q: %w", id, q.name, err)
	}
	if limit := q.publisher.maxPayload.Load() - headerRoom; int64(len(data)) > limit {
		return nil, id, fmt.Errorf("%w: job %q has %d bytes, and %d is what the server takes: store the data elsewhere and submit where it is, or raise the server's limit", ErrJobTooLarge, id, len(data), limit)
	}
	token := escape(id)
	msg := &nats.Msg{Data: data, Header: nats.Header{jetstream.MsgIDHeader: {token}}}
	target, key := q.jobSubjects[s.level], ""
	if s.id != "" {
		key = rand.Text()[:keyLength]
		msg.Header[headerKey] = []string{key}
		target = q.subject(kindJobs, levelNames[s.level]+"."+token)
	}
	if !s.at.After(time.Now()) {
		msg.Subject = target
		return msg, id, nil
	}
	// The server truncates to whole seconds, and drops the ID of the message.
	at := s.at.Add(time.Second - 1).Truncate(time.Second).UTC()
	// On this subject, a second job with the same ID would take the place of the first.
	msg.Subject = q.subject(kindJobs, "later-"+key+"."+token)
	msg.Header[jetstream.ScheduleHeader] = []string{"@at " + at.Format(time.RFC3339)}
	msg.Header[jetstream.ScheduleTargetHeader] = []string{target}
	msg.Header[headerID] = []string{token}
	return msg, id, nil
}

// submitError says what has become of a job.
func (q *Queue[T, R]) submitError(id string, err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return fmt.Errorf("jobqueue: submitting job %q: %w: there is no room for %q: try again later, or raise what limits it, WithMaxQueued, WithMaxBytes or the storage of the server, which says: %w", id, workpool.ErrQueueFull, q.name, err)
	case isTooLarge(err):
		return fmt.Errorf("%w: job %q: %w", ErrJobTooLarge, id, err)
	}
	return fmt.Errorf("jobqueue: submitting job %q to %q: %w", id, q.name, err)
}

// SubmitAll stores the jobs of a sequence, up to 1024 or some 64 MB at a time, and returns
// how many the stream has acknowledged when it has acknowledged all. It waits for room
// where [Queue.Submit] would fail with workpool.ErrQueueFull, and sends again as
// Submit does.
//
// It stops at the first error, a job that can't be encoded or is too large, the
// end of ctx, or a panic of the sequence, which becomes a *workpool.PanicError.
// Then, as many are on the way at a time, the jobs that were stored need not be
// the first of the sequence. The options hold for every job; [WithID] is an error.
//
// In a handler of the same queue, called with the handler's context, it does not wait
// for room, which all handlers could do at once and for ever: its error matches
// workpool.ErrQueueFull, as that of Submit.
func (q *Queue[T, R]) SubmitAll(ctx context.Context, jobs iter.Seq[T], opts ...SubmitOption) (accepted int, err error) {
	if ctx == nil {
		return 0, errNilContext
	}
	if jobs == nil {
		return 0, errors.New("jobqueue: nil sequence of jobs")
	}
	s, err := q.newSubmission(opts)
	if err != nil {
		return 0, err
	}
	if s.id != "" {
		return 0, invalid("WithID(%q): the jobs of SubmitAll can't have the same ID: call Submit for each", s.id)
	}
	if err := q.checkSchedule(s); err != nil {
		return 0, err
	}
	var (
		mu     sync.Mutex // guards stored and last
		stored int
		last   error // of a job that was on the way when it was over
		ended  sync.WaitGroup
		window = make(chan struct{}, submitWindow)
	)
	running, inHandler := JobFrom(ctx)
	wait := !inHandler || running.Queue != q.name
	trying, fail := context.WithCancelCause(ctx) // the first failure counts
	defer fail(nil)
	submit := func(job T) bool {
		if trying.Err() != nil {
			return false
		}
		msg, id, err := q.jobMessage(s, job)
		if err != nil {
			fail(err)
			return false
		}
		places := min(1+len(msg.Data)/windowBytes, submitWindow)
		for range places {
			select {
			case window <- struct{}{}:
			case <-trying.Done():
				return false
			}
		}
		ended.Add(1)
		q.publisher.send(&publication{ctx: trying, msg: msg, job: true, wait: wait, done: func(err error) {
			mu.Lock()
			if err = q.submitError(id, err); err == nil {
				stored++
			} else if last = err; trying.Err() == nil {
				fail(err)
			}
			mu.Unlock()
			for range places {
				<-window
			}
			ended.Done()
		}})
		return true
	}
	if err := each(jobs, submit); err != nil {
		fail(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended.Wait()
	}()
	select {
	case <-done:
	case <-trying.Done(): // the last answers are still counted
		select {
		case <-done:
		case <-time.After(2 * lastAnswers):
		}
	}
	mu.Lock()
	defer mu.Unlock()
	switch {
	case trying.Err() == nil:
		return stored, nil
	case ctx.Err() == nil:
		return stored, context.Cause(trying)
	case last != nil:
		return stored, fmt.Errorf("%w: %w", contextError(ctx), last)
	}
	return stored, fmt.Errorf("jobqueue: submitting to %q: %w", q.name, contextError(ctx))
}

// each calls f for the jobs of a sequence until it returns false, and returns a
// panic as an error.
func each[T any](jobs iter.Seq[T], f func(T) bool) (err error) {
	defer catch(&err)
	for job := range jobs {
		if !f(job) {
			break
		}
	}
	return nil
}

// An ID may hold any bytes, a subject and a header may not. escape leaves what
// most IDs are made of as it is, and no token has a dot.

const hexDigits = "0123456789ABCDEF"

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// maxTokenLength is that of the longest ID, escaped. The server closes the
// connection of a client whose subjects are a few times as long.
const maxTokenLength = 3 * maxIDLength

// isToken tells whether escape may have returned token.
func isToken(token string) bool {
	for i := range len(token) {
		if !plain(token[i]) && token[i] != '=' {
			return false
		}
	}
	return token != "" && len(token) <= maxTokenLength
}

func escape(id string) string {
	i := 0
	for i < len(id) && plain(id[i]) {
		i++
	}
	if i == len(id) {
		return id
	}
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'=', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

func unescape(token string) string {
	if !strings.Contains(token, "=") {
		return token
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] == '=' && i+2 < len(token) {
			hi, lo := strings.IndexByte(hexDigits, token[i+1]), strings.IndexByte(hexDigits, token[i+2])
			if hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 2
				continue
			}
		}
		b.WriteByte(token[i])
	}
	return b.String()
}

// contextError returns why ctx ended: an error that matches both its cause and
// ctx.Err().
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || errors.Is(cause, err) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
