package jobqueue_test

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// TestMain runs the tests, or plays the part of another process in one of them.
func TestMain(m *testing.M) {
	slog.SetDefault(quiet) // many tests make workers complain
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	if err := flag.Set("test.parallel", "5"); err != nil { // unless the command line says so: most tests wait
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// limit bounds a test that waits for something that should come, on the slowest of
// machines.
func limit(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// start returns a server for the test, which listens nowhere unless told to.
func start(t testing.TB, opts ...embedded.Option) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.TempDir(), append([]embedded.Option{rareSync}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(s.Shutdown)
	return s
}

// rareSync is for tests, which lose no power. With the default interval, a slow
// machine may come to the first sync of a stream while the server still makes it,
// which the race detector takes amiss: a race of the server's own, for its timer.
var rareSync = embedded.WithSyncInterval(time.Minute)

func connect(t testing.TB, s *embedded.Server, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := s.Connect(opts...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// open returns a queue on a server of its own.
func open[T, R any](t testing.TB, opts ...jobqueue.Option) *jobqueue.Queue[T, R] {
	t.Helper()
	return openOn[T, R](t, connect(t, start(t)), opts...)
}

func openOn[T, R any](t testing.TB, nc *nats.Conn, opts ...jobqueue.Option) *jobqueue.Queue[T, R] {
	t.Helper()
	q, err := jobqueue.Open[T, R](limit(t), nc, "test", opts...)
	require.NoError(t, err)
	return q
}

// work runs a handler until the end of the test.
func work[T, R any](t testing.TB, q *jobqueue.Queue[T, R], handler func(context.Context, T) (R, error), opts ...jobqueue.WorkOption) *jobqueue.Worker {
	t.Helper()
	w, err := q.Work(context.Background(), handler, opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, w.Shutdown(ctx))
	})
	return w
}

func submit[T, R any](t testing.TB, q *jobqueue.Queue[T, R], job T, opts ...jobqueue.SubmitOption) string {
	t.Helper()
	id, err := q.Submit(limit(t), job, opts...)
	require.NoError(t, err)
	return id
}

// results returns the first n results.
func results[T, R any](t testing.TB, q *jobqueue.Queue[T, R], n int) []jobqueue.Result[R] {
	t.Helper()
	var all []jobqueue.Result[R]
	if n == 0 {
		return nil
	}
	for r, err := range q.Results(limit(t), 0) {
		require.NoError(t, err)
		if all = append(all, r); len(all) == n {
			break
		}
	}
	return all
}

// dead returns the dead letters as soon as there are n.
func dead[T, R any](t testing.TB, q *jobqueue.Queue[T, R], n int) []jobqueue.DeadLetter[T] {
	t.Helper()
	eventually(t, q, func(s jobqueue.Stats) bool { return s.Dead >= uint64(n) })
	var all []jobqueue.DeadLetter[T]
	for letter, err := range q.Dead(limit(t)) {
		require.NoError(t, err)
		all = append(all, letter)
	}
	require.Len(t, all, n)
	return all
}

// eventually waits until the numbers of the queue are as wanted.
func eventually[T, R any](t testing.TB, q *jobqueue.Queue[T, R], wanted func(jobqueue.Stats) bool) {
	t.Helper()
	ctx := limit(t)
	for {
		s, err := q.Stats(ctx)
		require.NoError(t, err)
		if wanted(s) {
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			require.Failf(t, "it never came", "%+v", s)
		}
	}
}

// identity is the handler of tests that are not about handlers.
func identity(_ context.Context, n int) (int, error) { return n, nil }

// at once, that is in place of the default backoff.
var noBackoff = jobqueue.WithBackoff(func(int) time.Duration { return 0 })
