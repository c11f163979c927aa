package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// rareSync is for tests, which lose no power.
var rareSync = embedded.WithSyncInterval(time.Minute)

// free returns an address that nobody listens on, of none of the ports that systems
// give to outgoing connections.
func free(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			require.NoError(t, l.Close())
			return address
		}
	}
	require.Fail(t, "no port is free")
	return ""
}

// startCluster starts three servers that need a token, and returns their addresses.
func startCluster(t *testing.T, token string) (urls string) {
	t.Helper()
	var routes, clients []string
	for range 3 {
		routes = append(routes, free(t))
	}
	for i, route := range routes {
		s, err := embedded.Start(t.TempDir(), rareSync, embedded.WithListen("127.0.0.1:0"), embedded.WithToken(token),
			embedded.WithName(fmt.Sprintf("node%d", i)), embedded.WithCluster(embedded.Cluster{Name: "grid", Listen: route, Routes: routes}))
		require.NoError(t, err)
		t.Cleanup(s.Shutdown)
		clients = append(clients, s.URL())
	}
	return strings.Join(clients, ",")
}

// A queue in all states moves from one server to three: jobs that wait, that wait for
// their time and that have failed, results and dead letters.
func TestCopy_FromOneServerToThree(t *testing.T) {
	dir := t.TempDir()
	data, token := filepath.Join(dir, "data"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("secret\n"), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	const jobs = 3000
	payload := strings.Repeat("x", 1000) // so that it takes several chunks
	options := []jobqueue.Option{jobqueue.WithMaxAttempts(3), jobqueue.WithDedupeWindow(time.Hour), jobqueue.WithAckWait(time.Second)}

	alone, err := embedded.Start(data, rareSync)
	require.NoError(t, err)
	nc, err := alone.Connect()
	require.NoError(t, err)
	q, err := jobqueue.Open[string, string](ctx, nc, "orders", options...)
	require.NoError(t, err)
	failed := make(chan int, 10)
	w, err := q.Work(ctx, func(ctx context.Context, job string) (string, error) {
		j, _ := jobqueue.JobFrom(ctx)
		switch job {
		case "dead":
			return "", workpool.Permanent(errors.New("no stock"))
		case "late":
			failed <- j.Attempt
			return "", workpool.RetryAfter([]time.Duration{0, 3 * time.Second}[j.Attempt-1], errors.New("not yet"))
		}
		return "done " + job, nil
	})
	require.NoError(t, err)
	for _, job := range []string{"first", "dead"} {
		_, err := q.Submit(ctx, job, jobqueue.WithID(job))
		require.NoError(t, err)
	}
	_, err = q.Submit(ctx, "late", jobqueue.WithID("late"))
	require.NoError(t, err)
	require.Equal(t, 1, <-failed)
	require.Equal(t, 2, <-failed) // and a third time after the copying
	_, err = q.Result(ctx, "first")
	require.NoError(t, err)
	_, err = q.Result(ctx, "dead")
	require.ErrorIs(t, err, jobqueue.ErrDead)
	require.NoError(t, w.Shutdown(ctx))
	_, err = q.Submit(ctx, "scheduled", jobqueue.WithID("scheduled"), jobqueue.RunAfter(3*time.Second))
	require.NoError(t, err)
	_, err = q.SubmitAll(ctx, func(yield func(string) bool) {
		for range jobs {
			if !yield(payload) {
				return
			}
		}
	})
	require.NoError(t, err)
	_, err = q.Submit(ctx, "waiting", jobqueue.WithID("waiting"))
	require.NoError(t, err)
	before, err := q.Stats(ctx)
	require.NoError(t, err)

	urls := startCluster(t, "secret")
	args := []string{"copy", "-dir", data, "-server", urls, "-token-file", token}
	status, _, errs := runCommand(t, args...)
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "another server uses the folder")
	nc.Close()
	alone.Shutdown()

	status, out, errs := runCommand(t, args...)
	require.Zero(t, status, errs)
	assert.Contains(t, out, fmt.Sprintf("orders_jobs: %d messages, 3 replicas\n", jobs+3))
	assert.Contains(t, out, "orders_dead: 1 messages, 3 replicas\n")

	nc, err = nats.Connect(urls, nats.Token("secret"), nats.Timeout(30*time.Second))
	require.NoError(t, err)
	defer nc.Close()
	q, err = jobqueue.Open[string, string](ctx, nc, "orders", append(options, jobqueue.WithReplicas(3))...)
	require.NoError(t, err, "the copy has the configuration of the queue")
	// A consumer that was copied counts what it has a little later.
	all := func(s jobqueue.Stats) uint64 { return s.Pending + s.Scheduled + s.InFlight }
	require.Eventually(t, func() bool {
		after, err := q.Stats(ctx)
		return err == nil && after.Results == before.Results && after.Dead == before.Dead && all(after) == all(before)
	}, time.Minute, 10*time.Millisecond)
	r, err := q.Result(ctx, "first")
	require.NoError(t, err)
	assert.Equal(t, "done first", r.Value)

	var ran atomic.Int64
	w, err = q.Work(ctx, func(ctx context.Context, job string) (string, error) {
		j, _ := jobqueue.JobFrom(ctx)
		ran.Add(1)
		return fmt.Sprintf("%.10s at attempt %d", job, j.Attempt), nil
	}, jobqueue.WithConcurrency(100))
	require.NoError(t, err)
	for id, want := range map[string]string{"waiting": "waiting at attempt 1", "scheduled": "scheduled at attempt 1", "late": "late at attempt 3"} {
		r, err := q.Result(ctx, id)
		require.NoError(t, err)
		assert.Equal(t, want, r.Value)
	}
	require.Eventually(t, func() bool {
		s, err := q.Stats(ctx)
		return err == nil && s == jobqueue.Stats{Dead: 1, Results: jobs + 4}
	}, time.Minute, 10*time.Millisecond)
	assert.EqualValues(t, jobs+3, ran.Load(), "every job once")
	require.NoError(t, w.Shutdown(ctx))

	status, _, errs = runCommand(t, args...)
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "with other messages")
}

// What is no folder of a server does not become one.
func TestCopy_RefusesOtherFolders(t *testing.T) {
	dir := t.TempDir()
	for _, other := range []string{dir, filepath.Join(dir, "none")} {
		status, _, errs := runCommand(t, "copy", "-dir", other)
		assert.Equal(t, 1, status)
		assert.Contains(t, errs, "holds no queues")
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A copy that was cut short in the middle of a stream can be given again at once, also
// where a stream has never had a message.
func TestCopy_AgainAfterItWasCutShort(t *testing.T) {
	dir := t.TempDir()
	data, token := filepath.Join(dir, "data"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("secret\n"), 0o600))
	s, err := embedded.Start(data, rareSync)
	require.NoError(t, err)
	nc, err := s.Connect()
	require.NoError(t, err)
	q, err := jobqueue.Open[string, string](t.Context(), nc, "orders")
	require.NoError(t, err)
	_, err = q.Submit(t.Context(), "waiting")
	require.NoError(t, err)
	nc.Close()
	s.Shutdown()

	urls := startCluster(t, "secret")
	watch, err := nats.Connect(urls, nats.Token("secret"), nats.Timeout(30*time.Second))
	require.NoError(t, err)
	defer watch.Close()
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	_, err = watch.Subscribe("$JS.API.STREAM.RESTORE.orders_jobs", func(*nats.Msg) { cut() })
	require.NoError(t, err)
	require.NoError(t, watch.Flush())
	args := []string{"copy", "-dir", data, "-server", urls, "-token-file", token}
	require.Equal(t, 130, run(ctx, args, io.Discard, io.Discard))
	require.Error(t, ctx.Err())
	status, out, errs := runCommand(t, args...)
	require.Zero(t, status, errs)
	assert.Contains(t, out, "orders_attempts: 0 messages, 3 replicas\n")
	assert.Contains(t, out, "orders_jobs: 1 messages, 3 replicas\n")
	status, again, errs := runCommand(t, args...)
	require.Zero(t, status, errs)
	assert.Equal(t, out, again, "what is there already is no mistake")
}

// The servers of a cluster may not know yet who takes a question.
func TestRequest_AsksAgainWhileNobodyTakesIt(t *testing.T) {
	s, err := embedded.Start(t.TempDir(), rareSync)
	require.NoError(t, err)
	defer s.Shutdown()
	nc, err := s.Connect()
	require.NoError(t, err)
	defer nc.Close()
	_, err = nc.Request("nobody", nil, time.Minute)
	require.ErrorIs(t, err, nats.ErrNoResponders)
	time.AfterFunc(3*replicaPause, func() {
		_, err := nc.Subscribe("nobody", func(m *nats.Msg) { assert.NoError(t, m.Respond([]byte("here"))) })
		assert.NoError(t, err)
	})
	answer, err := request(t.Context(), time.Minute, nc, "nobody", nil)
	require.NoError(t, err)
	assert.Equal(t, "here", string(answer.Data))

	ctx, cancel := context.WithTimeout(t.Context(), 20*replicaPause) // in which it asks at least once, on the slowest of machines
	defer cancel()
	_, err = request(ctx, time.Minute, nc, "somebody", nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, nats.ErrNoResponders)
}
