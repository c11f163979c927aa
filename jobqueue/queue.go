package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-a18b2dc9/workpool"
)

const (
	maxNameLength = 200
	// attemptsAge is how long the number of a job's attempts is kept.
	attemptsAge = 30 * 24 * time.Hour
	// maxPulls is how many fetches of all workers may wait at a consumer.
	maxPulls = 1 << 14
	// openPatience is how long Open waits for a cluster that is not ready.
	openPatience = 30 * time.Second
	// openAttempt is how long it waits for one answer.
	openAttempt = 3 * time.Second
)

// A Queue is a durable queue of jobs of type T, with results of type R. It is
// made by [Open], needs no closing, and is the same wherever it is opened under
// the same name on the same server or cluster. All its methods may be called by
// many goroutines at once. Open it once in a process: it has a subscription of
// its own, which ends with the connection.
type Queue[T, R any] struct {
	config
	name      string
	nc        *nats.Conn
	js        jetstream.JetStream
	publisher *publisher

	jobs, results, dead, attempts jetstream.Stream
	consumers                     [levels]jetstream.Consumer
	jobSubjects                   [levels]string
	ackWaitLeast                  time.Duration // of the consumers

	jobCodec    Codec[T]
	resultCodec Codec[R]
}

// The levels are the priorities as an index, the highest first.
const levels = 3

var levelNames = [levels]string{"high", "normal", "low"}

func levelOf(priority workpool.Priority) int { return int(workpool.High - priority) }

func priorityOf(level int) workpool.Priority { return workpool.High - workpool.Priority(level) }

// Open opens the queue called name on the server or cluster that nc is connected
// to, and creates it if it is not there. A queue is four JetStream streams and
// three consumers, with one set of options for all. If it exists with others,
// Open changes nothing and returns [ErrConfigMismatch].
//
// The name has 1 to 200 bytes, and none of whitespace, the characters . * > / \
// or what can't be printed; else the error wraps [ErrInvalidName].
//
// Credentials and TLS are those of nc. A connection for a worker should be made
// with nats.MaxReconnects(-1), so that it outlasts any outage of the server.
//
// Open waits for the server until ctx ends, and up to half a minute for a
// cluster that has no leader yet.
func Open[T, R any](ctx context.Context, nc *nats.Conn, name string, opts ...Option) (*Queue[T, R], error) {
	if ctx == nil {
		return nil, errNilContext
	}
	if nc == nil {
		return nil, errors.New("jobqueue: nil connection: pass the one that nats.Connect returned")
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if err := checkCodecs[T, R](c.codecs); err != nil {
		return nil, err
	}
	q := &Queue[T, R]{config: c, name: name, nc: nc, jobCodec: codecOf[T](c.codecs), resultCodec: codecOf[R](c.codecs)}
	for level := range levels {
		q.jobSubjects[level] = q.subject(kindJobs, levelNames[level])
	}
	if q.js, err = jetstream.New(nc); err != nil {
		return nil, err
	}
	if err := q.openStreams(ctx); err != nil {
		return nil, fmt.Errorf("jobqueue: opening %q: %w", name, err)
	}
	if q.publisher, err = newPublisher(nc); err != nil {
		return nil, fmt.Errorf("jobqueue: opening %q: %w", name, err)
	}
	return q, nil
}

func checkName(name string) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: %q %s: use letters, digits, - and _", ErrInvalidName, name, why)
	}
	switch {
	case name == "":
		return bad("is empty")
	case len(name) > maxNameLength:
		return bad(fmt.Sprintf("has %d bytes, and %d is the limit", len(name), maxNameLength))
	case !utf8.ValidString(name):
		return bad("is not valid UTF-8")
	}
	for _, r := range name {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`.*>/\`, r) {
			return bad(fmt.Sprintf("contains %q", r))
		}
	}
	return nil
}

// subject returns a subject of the queue. All begin with jobqueue and its name.
func (q *Queue[T, R]) subject(kind, rest string) string {
	return "jobqueue." + q.name + "." + kind + "." + rest
}

// The kinds of subjects. Those of jobs end in a level, the others in the ID of a
// job or, for attempts, in its sequence number.
const (
	kindJobs     = "jobs"
	kindLater    = "later" // what waits for its time, in the stream of the jobs
	kindResults  = "results"
	kindDead     = "dead"
	kindAttempts = "attempts"
)

// openStreams opens or creates the streams and consumers.
func (q *Queue[T, R]) openStreams(ctx context.Context) (err error) {
	jobs := q.streamConfig(kindJobs)
	jobs.Retention = jetstream.WorkQueuePolicy
	jobs.Discard = jetstream.DiscardNew
	jobs.Duplicates = q.dedupeWindow
	if q.maxQueued > 0 {
		jobs.MaxMsgs = q.maxQueued
	} else { // the server has no schedules with DiscardNew, and without a limit nothing is discarded
		jobs.Discard = jetstream.DiscardOld
		jobs.AllowMsgSchedules, jobs.AllowRollup = true, true
		jobs.Subjects = append(jobs.Subjects, q.subject(kindLater, "*"))
	}
	results := q.streamConfig(kindResults)
	results.MaxAge = q.resultAge
	results.Duplicates = min(q.dedupeWindow, q.resultAge)
	results.AllowDirect = true
	dead := q.streamConfig(kindDead)
	dead.MaxMsgsPerSubject = 1
	dead.Duplicates = q.dedupeWindow
	dead.AllowDirect = true
	attempts := q.streamConfig(kindAttempts) // no AllowDirect: another node than the leader may be behind
	attempts.MaxMsgsPerSubject = 1
	attempts.MaxAge = attemptsAge
	attempts.Duplicates = shortest

	for _, s := range []struct {
		stream *jetstream.Stream
		config jetstream.StreamConfig
	}{{&q.jobs, jobs}, {&q.results, results}, {&q.dead, dead}, {&q.attempts, attempts}} {
		if *s.stream, err = q.openStream(ctx, s.config); err != nil {
			return err
		}
	}
	for level := range levels {
		if q.consumers[level], err = q.openConsumer(ctx, level); err != nil {
			return err
		}
		ackWait := q.consumers[level].CachedInfo().Config.AckWait
		if level == 0 || ackWait < q.ackWaitLeast {
			q.ackWaitLeast = ackWait
		}
	}
	return nil
}

// streamConfig returns what all streams of the queue have in common.
func (q *Queue[T, R]) streamConfig(kind string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              q.name + "_" + kind,
		Subjects:          []string{q.subject(kind, "*")},
		Storage:           q.storage,
		Replicas:          q.replicas,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
	}
}

func (q *Queue[T, R]) openStream(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	if q.existing {
		s, err := patiently(ctx, func(ctx context.Context) (jetstream.Stream, error) { return q.js.Stream(ctx, want.Name) })
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, fmt.Errorf("%w: there is no stream %s: open the queue without WithExisting to create it", ErrNotFound, want.Name)
		}
		return s, err
	}
	before := want
	before.Subjects = slices.Clone(want.Subjects)
	for _, change := range q.stream {
		change(&want)
	}
	for _, field := range []string{"Name", "Subjects", "Retention"} {
		if a, b := fieldOf(before, field), fieldOf(want, field); !reflect.DeepEqual(a, b) {
			return nil, invalid("WithStreamConfig: %s of stream %s was changed from %v to %v, which the queue relies on", field, before.Name, a, b)
		}
	}
	s, err := patiently(ctx, func(ctx context.Context) (jetstream.Stream, error) { return q.js.CreateStream(ctx, want) })
	if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		if err != nil {
			err = fmt.Errorf("creating stream %s: %w", want.Name, err)
		}
		return s, err
	}
	if s, err = q.js.Stream(ctx, want.Name); err != nil {
		return nil, err
	}
	return s, mismatch("stream "+want.Name, want, s.CachedInfo().Config)
}

func (q *Queue[T, R]) openConsumer(ctx context.Context, level int) (jetstream.Consumer, error) {
	name, stream := levelNames[level], q.name+"_"+kindJobs
	if q.existing {
		return patiently(ctx, func(ctx context.Context) (jetstream.Consumer, error) { return q.js.Consumer(ctx, stream, name) })
	}
	want := jetstream.ConsumerConfig{
		Durable:       name,
		Name:          name,
		FilterSubject: q.subject(kindJobs, name),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       q.ackWait,
		MaxDeliver:    -1, // attempts are counted by the workers, before the handler runs
		MaxAckPending: -1, // jobs that wait for their next attempt would use it up
		MaxWaiting:    maxPulls,
	}
	before := want
	for _, change := range q.consumer {
		change(&want)
	}
	for _, field := range []string{"Durable", "Name", "FilterSubject", "AckPolicy", "MaxDeliver", "MaxAckPending"} {
		if a, b := fieldOf(before, field), fieldOf(want, field); !reflect.DeepEqual(a, b) {
			return nil, invalid("WithConsumerConfig: %s of consumer %s was changed from %v to %v, which the queue relies on", field, name, a, b)
		}
	}
	if want.AckWait < shortest {
		return nil, invalid("WithConsumerConfig: AckWait of consumer %s was changed to %v: the time is %v or more", name, want.AckWait, shortest)
	}
	c, err := patiently(ctx, func(ctx context.Context) (jetstream.Consumer, error) { return q.js.CreateConsumer(ctx, stream, want) })
	if !errors.Is(err, jetstream.ErrConsumerExists) {
		if err != nil {
			err = fmt.Errorf("creating consumer %s of stream %s: %w", name, stream, err)
		}
		return c, err
	}
	if c, err = q.js.Consumer(ctx, stream, name); err != nil {
		return nil, err
	}
	return c, mismatch("consumer "+name+" of stream "+stream, want, c.CachedInfo().Config)
}

// patiently calls f, again and again while the cluster is not ready. A server that
// knows of no leader does not answer at all.
func patiently[V any](ctx context.Context, f func(context.Context) (V, error)) (V, error) {
	begin := time.Now()
	for {
		attempt, cancel := context.WithTimeout(ctx, openAttempt)
		v, err := f(attempt)
		unanswered := attempt.Err() != nil
		cancel()
		if err == nil || ctx.Err() != nil || !unanswered && !isTemporary(err) || time.Since(begin) > openPatience {
			return v, err
		}
		pause(ctx, shortest)
	}
}

func fieldOf(config any, field string) any {
	return reflect.ValueOf(config).FieldByName(field).Interface()
}

// mismatch returns an error that names the first field in which the
// configuration of something on the server is not as wanted, or nil.
func mismatch(what string, want, got any) error {
	w, g := reflect.ValueOf(want), reflect.ValueOf(got)
	for i := range w.NumField() {
		field := w.Type().Field(i).Name
		a, b := w.Field(i), g.Field(i)
		if field == "Metadata" { // the server adds its own
			for _, key := range a.MapKeys() {
				if value := b.MapIndex(key); !value.IsValid() || value.String() != a.MapIndex(key).String() {
					return mismatchError(what, fmt.Sprintf("Metadata[%q]", key), a.MapIndex(key), value)
				}
			}
			continue
		}
		if !unset(a) || !unset(b) {
			if !reflect.DeepEqual(a.Interface(), b.Interface()) {
				return mismatchError(what, field, a, b)
			}
		}
	}
	return nil
}

func mismatchError(what, field string, want, got any) error {
	return fmt.Errorf("%w: %s has %s %v, not %v: open it with the same options everywhere, or with WithExisting", ErrConfigMismatch, what, field, got, want)
}

// unset tells whether v is one of the values that mean that there is none.
func unset(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Pointer:
		return v.IsNil()
	}
	return v.IsZero() || v.CanInt() && v.Int() == -1
}
