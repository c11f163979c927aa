package jobqueue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
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
	lookout   *lookout
	publisher *publisher

	jobs, results, dead, attempts jetstream.Stream
	consumers                     [levels]jetstream.Consumer
	marks                         jetstream.Consumer // which nobody fetches from: the server counts for it
	jobSubjects                   [levels]string
	ackWaitLeast                  time.Duration // of the consumers
	schedules                     bool          // the stream of the jobs has them

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
// four consumers, with one set of options for all. If it exists with others, Open
// changes nothing and returns [ErrConfigMismatch], with all the differences in its
// text; to change the queue, see [WithUpdate]. The names of T and R, with their
// packages, are stored too, so that two programs which take the queue for different
// things find out here.
//
// The name has 1 to 200 bytes, and none of whitespace, the characters . * > / \
// or what can't be printed; else the error wraps [ErrInvalidName].
//
// Credentials and TLS are those of nc. Connect with [Reliable], so that nc outlasts any
// outage of the server, and notices one in seconds: by default, it gives up after some
// two minutes, and takes up to six to notice that a server is frozen or was cut
// off. Open logs a warning to slog.Default() about a connection that does so.
//
// A server that is cut from the others of its cluster still answers pings. Where it has not
// answered for the streams of the queue for 10 seconds, while somebody waits for them, nc
// is made to reconnect to another server, with all that uses it: nats.Conn.ForceReconnect.
// That is logged to slog.Default() too. Until there is an answer, the time doubles with each
// server that is left, up to 5 minutes. It is not done where nc knows one server alone, or
// does not reconnect for ever.
//
// It takes NATS servers of version 2.11 and later. Open waits for the server until ctx
// ends, and up to half a minute for a cluster that has no leader yet.
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
		q.jobSubjects[level] = q.subject(kindJobs, levelNames[level]+"."+sharedSubject)
	}
	if err := checkServer(nc.ConnectedServerVersion()); err != nil {
		return nil, fmt.Errorf("jobqueue: opening %q: %w", name, err)
	}
	if q.js, err = jetstream.New(nc); err != nil {
		return nil, err
	}
	if err := q.openStreams(ctx); err != nil {
		return nil, fmt.Errorf("jobqueue: opening %q: %w", name, err)
	}
	q.lookout = &lookout{nc: nc, queue: name, ask: askFor(q.js, name+"_"+kindJobs)}
	if q.publisher, err = newPublisher(nc, q.lookout); err != nil {
		return nil, fmt.Errorf("jobqueue: opening %q: %w", name, err)
	}
	warnOf(nc, name)
	return q, nil
}

// checkServer returns an error for a version that would not refuse the second end of a
// job: those before 2.11 do not know how to.
func checkServer(version string) error {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && (major < 2 || major == 2 && minor < 11) {
		return fmt.Errorf("the server has version %s: a queue needs 2.11 or later", version)
	}
	return nil
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

// The kinds of subjects; see ends.go for what follows them.
const (
	kindJobs     = "jobs"
	kindResults  = "results"
	kindMarks    = "marks" // in the stream of the results
	kindDead     = "dead"
	kindAttempts = "attempts"
)

// openStreams opens or creates the streams and consumers.
func (q *Queue[T, R]) openStreams(ctx context.Context) (err error) {
	jobs := q.streamConfig(kindJobs, "*.*")
	jobs.Retention = jetstream.WorkQueuePolicy
	jobs.Discard = jetstream.DiscardNew
	jobs.Duplicates = q.dedupeWindow
	if q.limited() {
		jobs.MaxMsgs, jobs.MaxBytes = cmp.Or(q.maxQueued, -1), cmp.Or(q.maxBytes, -1)
	} else { // the server has no schedules with DiscardNew, and without a limit nothing is discarded
		jobs.Discard = jetstream.DiscardOld
		jobs.AllowMsgSchedules, jobs.AllowRollup = true, true
	}
	// No stream has AllowDirect: another node than the leader may be behind.
	results := q.streamConfig(kindResults, "*.*.*")
	results.Subjects = append(results.Subjects, q.subject(kindMarks, "*.*.*"))
	results.MaxAge = q.resultAge
	results.Duplicates = shortest
	dead := q.streamConfig(kindDead, "*.*.*")
	dead.MaxMsgsPerSubject = 1
	dead.Duplicates = q.dedupeWindow
	attempts := q.streamConfig(kindAttempts, "*")
	attempts.MaxMsgsPerSubject = 1
	attempts.MaxAge = attemptsAge
	attempts.Duplicates = shortest
	jobs.Metadata = map[string]string{metadataType: typeName[T]()}
	results.Metadata = map[string]string{metadataType: typeName[R](), metadataKept: strconv.FormatBool(!q.withoutResults)}

	var differences []string
	for _, s := range []struct {
		stream *jetstream.Stream
		config jetstream.StreamConfig
	}{{&q.jobs, jobs}, {&q.results, results}, {&q.dead, dead}, {&q.attempts, attempts}} {
		if *s.stream, err = q.openStream(ctx, s.config, &differences); err != nil {
			return err
		}
	}
	for level := range levels {
		if q.consumers[level], err = q.openConsumer(ctx, level, &differences); err != nil {
			return err
		}
	}
	if len(differences) > 0 {
		return fmt.Errorf("%w: %s: open it with the same options and types everywhere, with WithExisting, or with WithUpdate to change it", ErrConfigMismatch, strings.Join(differences, "; "))
	}
	stored := q.jobs.CachedInfo().Config
	if limit := deletingLimit(stored); limit != "" {
		return fmt.Errorf("%w: stream %s has the limit %s and would delete jobs that it has accepted: take the limit away", ErrConfigMismatch, stored.Name, limit)
	}
	q.schedules = stored.AllowMsgSchedules
	if q.existing {
		q.withoutResults = q.results.CachedInfo().Config.Metadata[metadataKept] == "false"
	}
	q.ackWaitLeast = q.consumers[0].CachedInfo().Config.AckWait
	for _, c := range q.consumers[1:] {
		q.ackWaitLeast = min(q.ackWaitLeast, c.CachedInfo().Config.AckWait)
	}
	q.marks, err = q.openMarks(ctx)
	return err
}

// The metadata of streams.
const (
	metadataType = "jobqueue.type" // of the jobs, or of the results
	metadataKept = "jobqueue.kept" // whether results are
)

// typeName returns the name of a type, with the path of its package if it has one.
func typeName[V any]() string {
	t := reflect.TypeFor[V]()
	if t.PkgPath() != "" {
		return t.PkgPath() + "." + t.Name()
	}
	return t.String()
}

// streamConfig returns what all streams of the queue have in common.
func (q *Queue[T, R]) streamConfig(kind, rest string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              q.name + "_" + kind,
		Subjects:          []string{q.subject(kind, rest)},
		Storage:           q.storage,
		Replicas:          q.replicas,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
	}
}

// openStream opens or creates a stream. What is not as wanted it changes if the queue is
// to be updated, and else adds to differences. Once there are differences, it creates
// nothing: of two calls with different options at a time, one makes the whole queue. The
// stream is nil, then, if it is not there.
func (q *Queue[T, R]) openStream(ctx context.Context, want jetstream.StreamConfig, differences *[]string) (jetstream.Stream, error) {
	if q.existing {
		s, err := patiently(ctx, func(ctx context.Context) (jetstream.Stream, error) { return q.js.Stream(ctx, want.Name) })
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, fmt.Errorf("%w: there is no stream %s: open the queue without WithExisting to create it", ErrNotFound, want.Name)
		}
		return s, err
	}
	want, err := q.changed(want)
	if err != nil {
		return nil, err
	}
	s, err := patiently(ctx, func(ctx context.Context) (jetstream.Stream, error) {
		s, err := q.js.Stream(ctx, want.Name)
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return s, err
		}
		if len(*differences) > 0 {
			return nil, nil
		}
		if want.FirstSeq, err = q.firstSequence(ctx, want.Name); err != nil {
			return nil, err
		}
		s, err = q.js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // by another call, at the same time
			return q.js.Stream(ctx, want.Name)
		}
		if err != nil {
			err = fmt.Errorf("creating stream %s: %w", want.Name, err)
		}
		return s, err
	})
	if s == nil || err != nil {
		return nil, err
	}
	got := s.CachedInfo().Config
	want.FirstSeq = got.FirstSeq
	// A server before 2.12 has left out what it does not know. The queue does without.
	want.AllowMsgSchedules = want.AllowMsgSchedules && got.AllowMsgSchedules
	found := mismatches("stream "+want.Name, want, got)
	if !q.update || len(found) == 0 {
		*differences = append(*differences, found...)
		return s, nil
	}
	if s, err = q.js.UpdateStream(ctx, want); err != nil {
		err = fmt.Errorf("updating: %s: %w", strings.Join(found, "; "), err)
	}
	return s, err
}

// firstSequence returns the sequence that a stream begins with, or 0 where it does not
// matter. A stream of jobs that was deleted by itself and is made again must not use
// the sequences of the first: what is left of its jobs, and acknowledgements on their
// way, would be taken for those of new ones. It has counted less than one job for each
// microsecond.
func (q *Queue[T, R]) firstSequence(ctx context.Context, stream string) (uint64, error) {
	if stream != q.name+"_"+kindJobs {
		return 0, nil
	}
	for _, kind := range []string{kindResults, kindDead, kindAttempts} {
		_, err := q.js.Stream(ctx, q.name+"_"+kind)
		switch {
		case err == nil:
			return uint64(time.Now().UnixMicro()), nil
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return 0, err
		}
	}
	return 0, nil
}

// changed returns the configuration of a stream as [WithStreamConfig] changes it.
func (q *Queue[T, R]) changed(want jetstream.StreamConfig) (jetstream.StreamConfig, error) {
	before := want
	before.Subjects = slices.Clone(want.Subjects)
	metadata := maps.Clone(want.Metadata)
	for _, change := range q.stream {
		change(&want)
	}
	if len(metadata) > 0 { // the function may have set its own
		all := map[string]string{}
		maps.Copy(all, want.Metadata)
		maps.Copy(all, metadata)
		want.Metadata = all
	}
	changeable := streamChangeable
	if want.Discard == jetstream.DiscardNew && !want.AllowMsgSchedules { // which the server refuses together
		changeable = slices.Concat(changeable, []string{"Discard", "MaxMsgs", "MaxBytes"})
	}
	return want, checkChange("WithStreamConfig", "stream "+before.Name, before, want, changeable)
}

// The fields that a caller may change: those by which no message is lost, altered or
// kept from the workers. There will be more fields in later versions of the server.
var (
	streamChangeable   = []string{"Description", "Metadata", "Storage", "Replicas", "Placement", "Compression", "MaxMsgSize", "RePublish", "AllowMsgTTL"}
	consumerChangeable = []string{"Description", "Metadata", "Replicas", "AckWait", "MaxWaiting", "MaxRequestBatch", "MaxRequestExpires", "MaxRequestMaxBytes", "SampleFrequency"}
)

// instead says which option is for a field that is not changeable.
var instead = map[string]string{
	"MaxMsgs":    "; see WithMaxQueued",
	"MaxBytes":   "; see WithMaxBytes",
	"Discard":    "; see WithMaxQueued and WithMaxBytes",
	"MaxAge":     "; see WithResultAge",
	"Duplicates": "; see WithDedupeWindow",
}

// checkChange returns an error for the first field that was changed and must not be.
func checkChange(option, what string, before, after any, changeable []string) error {
	config := reflect.TypeOf(before)
	for field := range config.Fields() {
		field := field.Name
		if slices.Contains(changeable, field) {
			continue
		}
		if a, b := fieldOf(before, field), fieldOf(after, field); !reflect.DeepEqual(a, b) {
			return invalid("%s: %s of %s was changed from %v to %v, which the queue relies on: what may be changed is %s%s",
				option, field, what, a, b, strings.Join(changeable, ", "), instead[field])
		}
	}
	return nil
}

// deletingLimit returns the limit by which a stream deletes messages, or "".
func deletingLimit(c jetstream.StreamConfig) string {
	refuses := c.Discard == jetstream.DiscardNew // what is too much
	switch {
	case c.MaxAge > 0:
		return fmt.Sprintf("MaxAge %v", c.MaxAge)
	case c.MaxMsgs > 0 && !refuses:
		return fmt.Sprintf("MaxMsgs %d", c.MaxMsgs)
	case c.MaxBytes > 0 && !refuses:
		return fmt.Sprintf("MaxBytes %d", c.MaxBytes)
	case c.MaxMsgsPerSubject > 0 && !c.DiscardNewPerSubject:
		return fmt.Sprintf("MaxMsgsPerSubject %d", c.MaxMsgsPerSubject)
	}
	return ""
}

// openMarks opens or creates the consumer that has the server count the marks among
// the results.
func (q *Queue[T, R]) openMarks(ctx context.Context) (jetstream.Consumer, error) {
	return patiently(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
		if q.existing {
			return q.results.Consumer(ctx, kindMarks)
		}
		return q.results.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable:       kindMarks,
			FilterSubject: q.subject(kindMarks, "*.*.*"),
			AckPolicy:     jetstream.AckNonePolicy,
		})
	})
}

func (q *Queue[T, R]) openConsumer(ctx context.Context, level int, differences *[]string) (jetstream.Consumer, error) {
	name, stream := levelNames[level], q.name+"_"+kindJobs
	if q.existing {
		return patiently(ctx, func(ctx context.Context) (jetstream.Consumer, error) { return q.js.Consumer(ctx, stream, name) })
	}
	want := jetstream.ConsumerConfig{
		Durable:       name,
		Name:          name,
		FilterSubject: q.subject(kindJobs, name+".*"),
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
	if err := checkChange("WithConsumerConfig", "consumer "+name, before, want, consumerChangeable); err != nil {
		return nil, err
	}
	if want.AckWait < shortest {
		return nil, invalid("WithConsumerConfig: AckWait of consumer %s was changed to %v: the time is %v or more", name, want.AckWait, shortest)
	}
	c, err := patiently(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
		c, err := q.js.Consumer(ctx, stream, name)
		if !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return c, err
		}
		if len(*differences) > 0 {
			return nil, nil
		}
		c, err = q.js.CreateConsumer(ctx, stream, want)
		if errors.Is(err, jetstream.ErrConsumerExists) {
			return q.js.Consumer(ctx, stream, name)
		}
		if err != nil {
			err = fmt.Errorf("creating consumer %s of stream %s: %w", name, stream, err)
		}
		return c, err
	})
	if c == nil || err != nil {
		return nil, err
	}
	found := mismatches("consumer "+name+" of stream "+stream, want, c.CachedInfo().Config)
	if !q.update || len(found) == 0 {
		*differences = append(*differences, found...)
		return c, nil
	}
	if c, err = q.js.UpdateConsumer(ctx, stream, want); err != nil {
		err = fmt.Errorf("updating: %s: %w", strings.Join(found, "; "), err)
	}
	return c, err
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

// mismatches says in which fields the configuration of something on the server is not
// as wanted.
func mismatches(what string, want, got any) (found []string) {
	w, g := reflect.ValueOf(want), reflect.ValueOf(got)
	add := func(field string, want, got any) {
		found = append(found, fmt.Sprintf("%s has %s %v, not %v", what, field, got, want))
	}
	for i := range w.NumField() {
		field := w.Type().Field(i).Name
		a, b := w.Field(i), g.Field(i)
		if field == "Metadata" { // the server adds its own
			for _, key := range slices.Sorted(maps.Keys(a.Interface().(map[string]string))) {
				value, ok := b.Interface().(map[string]string)[key]
				if wanted := a.Interface().(map[string]string)[key]; !ok || value != wanted {
					add(fmt.Sprintf("Metadata[%q]", key), wanted, value)
				}
			}
			continue
		}
		if (!unset(a) || !unset(b)) && !reflect.DeepEqual(a.Interface(), b.Interface()) {
			add(field, a, b)
		}
	}
	return found
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
