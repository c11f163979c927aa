package jobqueue_test

import (
	"bytes"
	"context"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// What would have a stream delete, alter or hide what it has accepted.
func TestOpen_RefusesConfigsThatLoseJobs(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	for text, change := range map[string]func(*jetstream.StreamConfig){
		"MaxBytes of stream test_jobs was changed from -1 to 1000": func(c *jetstream.StreamConfig) { c.MaxBytes = 1000 },
		"see WithMaxBytes":                  func(c *jetstream.StreamConfig) { c.MaxBytes, c.Discard = 1000, jetstream.DiscardNew },
		"see WithMaxQueued":                 func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 },
		"MaxAge of stream test_jobs":        func(c *jetstream.StreamConfig) { c.MaxAge = time.Second },
		"MaxMsgsPerSubject":                 func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 },
		"Discard of":                        func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardNew },
		"see WithDedupeWindow":              func(c *jetstream.StreamConfig) { c.Duplicates = time.Second },
		"NoAck":                             func(c *jetstream.StreamConfig) { c.NoAck = true },
		"Sealed":                            func(c *jetstream.StreamConfig) { c.Sealed = true },
		"DenyDelete":                        func(c *jetstream.StreamConfig) { c.DenyDelete = true },
		"PersistMode":                       func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode },
		"Subjects of":                       func(c *jetstream.StreamConfig) { c.Subjects[0] = "other" },
		"MaxMsgs of stream test_dead":       func(c *jetstream.StreamConfig) { countIf(c, "_dead") },
		"MaxAge of stream test_dead":        func(c *jetstream.StreamConfig) { limitIf(c, "_dead") },
		"MaxAge of stream test_results":     func(c *jetstream.StreamConfig) { limitIf(c, "_results") },
		"MaxAge of stream test_attempts wa": func(c *jetstream.StreamConfig) { limitIf(c, "_attempts") },
	} {
		_, err := jobqueue.Open[int, int](limit(t), nc, "test", jobqueue.WithStreamConfig(change))
		require.ErrorIs(t, err, jobqueue.ErrInvalidOption, text)
		assert.ErrorContains(t, err, text)
	}
	for text, change := range map[string]func(*jetstream.ConsumerConfig){
		"DeliverPolicy":     func(c *jetstream.ConsumerConfig) { c.DeliverPolicy = jetstream.DeliverNewPolicy },
		"InactiveThreshold": func(c *jetstream.ConsumerConfig) { c.InactiveThreshold = time.Second },
		"HeadersOnly":       func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true },
		"MemoryStorage":     func(c *jetstream.ConsumerConfig) { c.MemoryStorage = true },
	} {
		_, err := jobqueue.Open[int, int](limit(t), nc, "consumed", jobqueue.WithConsumerConfig(change))
		require.ErrorIs(t, err, jobqueue.ErrInvalidOption, text)
		assert.ErrorContains(t, err, text)
	}

	// By other means, the limit is on a queue that exists.
	openOn[int, int](t, nc)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(limit(t), "test_jobs")
	require.NoError(t, err)
	config := stream.CachedInfo().Config
	config.MaxBytes = 1000
	_, err = js.UpdateStream(limit(t), config)
	require.NoError(t, err)
	_, err = jobqueue.Open[int, int](limit(t), nc, "test", jobqueue.WithExisting())
	require.ErrorIs(t, err, jobqueue.ErrConfigMismatch)
	assert.ErrorContains(t, err, "MaxBytes 1000 and would delete jobs")
}

func limitIf(c *jetstream.StreamConfig, suffix string) {
	if strings.HasSuffix(c.Name, suffix) {
		c.MaxAge = time.Minute
	}
}

func countIf(c *jetstream.StreamConfig, suffix string) {
	if strings.HasSuffix(c.Name, suffix) {
		c.MaxMsgs = 10
	}
}

func TestSubmit_FullQueueByBytes(t *testing.T) {
	t.Parallel()
	q := open[string, int](t, jobqueue.WithMaxBytes(20_000))
	job := strings.Repeat("x", 1000)
	accepted := 0
	for {
		_, err := q.Submit(limit(t), job)
		if err != nil {
			require.ErrorIs(t, err, workpool.ErrQueueFull)
			break
		}
		accepted++
	}
	assert.InDelta(t, 17, accepted, 1, "a job takes little more than its payload")
	eventually(t, q, func(s jobqueue.Stats) bool { return s.Pending == uint64(accepted) })
	_, err := q.Submit(limit(t), job, jobqueue.RunAfter(time.Hour))
	require.ErrorIs(t, err, jobqueue.ErrInvalidOption)

	work(t, q, func(_ context.Context, job string) (int, error) { return len(job), nil }) // which makes room
	n, err := q.SubmitAll(limit(t), slices.Values(slices.Repeat([]string{job}, 100)))
	require.NoError(t, err)
	assert.Equal(t, 100, n, "it has waited for room")
	results(t, q, accepted+100)

	both := open[string, int](t, jobqueue.WithMaxBytes(20_000), jobqueue.WithMaxQueued(1))
	submit(t, both, job)
	_, err = both.Submit(limit(t), job)
	require.ErrorIs(t, err, workpool.ErrQueueFull)
}

func TestSubmit_RunAtBeyondWhatTheServerStores(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	last := time.Unix(0, math.MaxInt64).Truncate(time.Second)
	for _, far := range []jobqueue.SubmitOption{
		jobqueue.RunAt(last.Add(time.Nanosecond)),
		jobqueue.RunAt(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)),
		jobqueue.RunAt(time.Date(300_000, 1, 1, 0, 0, 0, 0, time.UTC)),
		jobqueue.RunAfter(math.MaxInt64),
	} {
		_, err := q.Submit(limit(t), 1, far)
		require.ErrorIs(t, err, jobqueue.ErrInvalidOption)
		assert.ErrorContains(t, err, "up to 2262-04-11T")
		_, err = q.SubmitAll(limit(t), slices.Values([]int{1}), far)
		require.ErrorIs(t, err, jobqueue.ErrInvalidOption)
	}
	ran := make(chan int, 1)
	work(t, q, func(_ context.Context, n int) (int, error) { ran <- n; return n, nil })
	submit(t, q, 1, jobqueue.RunAt(last))
	submit(t, q, 2, jobqueue.RunAt(time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC)))
	assert.Equal(t, 2, <-ran)
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Scheduled: 1, Results: 1} })
}

// An oldConn makes a server into one that does not know schedules: it takes away the
// field by which a stream is to have them.
type oldConn struct{ net.Conn }

func (c oldConn) Write(p []byte) (int, error) {
	return c.Conn.Write(bytes.ReplaceAll(p, []byte(`"allow_msg_schedules"`), []byte(`"xllow_msg_schedules"`)))
}

func (c oldConn) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	return oldConn{conn}, err
}

func TestSubmit_RunAtOnAServerWithoutSchedules(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.WithListen("127.0.0.1:0"), embedded.WithServerOptions(func(o *server.Options) { o.NoJetStreamStrict = true }))
	nc, err := nats.Connect(s.URL(), nats.SetCustomDialer(oldConn{}), patient)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	for range 2 { // made, and as it is there
		q := openOn[int, int](t, nc)
		id, err := q.Submit(limit(t), 1, jobqueue.RunAfter(time.Second), jobqueue.WithID("later"))
		require.ErrorIs(t, err, jobqueue.ErrNoSchedules)
		assert.ErrorContains(t, err, "2.12")
		assert.Equal(t, "later", id)
		_, err = q.SubmitAll(limit(t), slices.Values([]int{1}), jobqueue.RunAfter(time.Second))
		require.ErrorIs(t, err, jobqueue.ErrNoSchedules)
		submit(t, q, 1, jobqueue.RunAt(time.Now().Add(-time.Hour))) // is now
	}

	// Opened as it is, a queue with a limit has none either.
	limited, err := jobqueue.Open[int, int](limit(t), nc, "limited", jobqueue.WithMaxQueued(9))
	require.NoError(t, err)
	submit(t, limited, 1)
	limited, err = jobqueue.Open[int, int](limit(t), nc, "limited", jobqueue.WithExisting())
	require.NoError(t, err)
	_, err = limited.Submit(limit(t), 1, jobqueue.RunAfter(time.Second))
	require.ErrorIs(t, err, jobqueue.ErrNoSchedules)
}
