package jobqueue_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
)

// until waits until ok, which nothing tells of.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for ctx := limit(t); !ok(); {
		require.NoError(t, ctx.Err(), "it never came")
		tick := time.NewTimer(time.Millisecond)
		<-tick.C
	}
}

// Jobs behind handlers that ignore their context were dead letters with a false reason,
// without their handler having been called.
func TestWork_WaitingForAPlaceIsNoAttempt(t *testing.T) {
	t.Parallel()
	var log lines
	q := open[int, int](t, jobqueue.WithMaxAttempts(2), jobqueue.WithBackoff(func(int) time.Duration { return time.Hour }))
	goOn := make(chan struct{})
	stuck, err := q.Work(context.Background(), func(_ context.Context, n int) (int, error) {
		if n < 0 {
			<-goOn
		}
		return n, nil
	}, jobqueue.WithConcurrency(2), jobqueue.WithTimeout(50*time.Millisecond), jobqueue.WithLogger(log.logger()))
	require.NoError(t, err)
	_, err = q.SubmitAll(limit(t), slices.Values(make([]int, 100))) // so that it fetches ahead
	require.NoError(t, err)
	results(t, q, 100)
	_, err = q.SubmitAll(limit(t), slices.Values(append([]int{-1, -1}, make([]int, 100)...)))
	require.NoError(t, err)
	until(t, func() bool { return stuck.Err() != nil })
	require.ErrorIs(t, stuck.Err(), jobqueue.ErrStalled)
	assert.ErrorContains(t, stuck.Err(), "all 2 places")
	s := stuck.Stats()
	assert.Equal(t, 2, s.Overdue)
	assert.Equal(t, 2, s.Running)
	assert.EqualValues(t, 2, s.Failed)
	assert.Contains(t, log.String(), "all 2 places are held")

	// Others get what it has fetched.
	_, err = q.SubmitAll(limit(t), slices.Values(make([]int, 10)))
	require.NoError(t, err)
	other := work(t, q, identity)
	for _, r := range results(t, q, 210) {
		assert.Equal(t, 1, r.Attempt)
	}
	assert.Positive(t, other.Stats().Succeeded)
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{InFlight: 2, Results: 210} })

	close(goOn)
	until(t, func() bool { return stuck.Err() == nil })
	until(t, func() bool { return stuck.Stats().Overdue == 0 })
	require.NoError(t, other.Shutdown(limit(t)))
	_, err = q.Result(limit(t), submit(t, q, 1))
	require.NoError(t, err, "it works again")
	require.NoError(t, stuck.Shutdown(limit(t)))
	assert.Contains(t, log.String(), "goes on")
}

// A handler that returns late, but soon, has its own words in the reason.
func TestWork_TimeoutIsThatOfTheHandler(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(1))
	w := work(t, q, func(ctx context.Context, n int) (int, error) {
		deadline, ok := ctx.Deadline()
		if !ok || time.Until(deadline) > time.Minute {
			return 0, workpool.Permanent(errors.New("no deadline"))
		}
		<-ctx.Done()
		return n, ctx.Err()
	}, jobqueue.WithTimeout(100*time.Millisecond), jobqueue.WithConcurrency(1))
	for range 3 { // each has all of the time
		submit(t, q, 1)
	}
	for _, letter := range dead(t, q, 3) {
		assert.Contains(t, letter.Reason, "longer than 100ms")
	}
	assert.NoError(t, w.Err())
	until(t, func() bool { return w.Stats() == jobqueue.WorkerStats{Concurrency: 1, Dead: 3} })
}

func TestWorkOn_RefusesATimeout(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	pool, err := workpool.New(identity)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	_, err = q.WorkOn(t.Context(), pool, jobqueue.WithTimeout(time.Second))
	require.ErrorIs(t, err, jobqueue.ErrInvalidOption)
	require.ErrorContains(t, err, "workpool.Timeout")
}

func TestWorker_SaysThatItHasStopped(t *testing.T) {
	t.Parallel()
	s := start(t)
	nc := connect(t, s)
	q := openOn[int, int](t, nc)

	w, err := q.Work(context.Background(), identity)
	require.NoError(t, err)
	select {
	case <-w.Done():
		require.Fail(t, "it has not ended")
	default:
	}
	require.NoError(t, w.Shutdown(limit(t)))
	<-w.Done()
	require.NoError(t, w.Err())

	pool, err := workpool.New(identity)
	require.NoError(t, err)
	require.NoError(t, pool.Close())
	w, err = q.WorkOn(context.Background(), pool)
	require.NoError(t, err)
	submit(t, q, 1)
	<-w.Done()
	require.ErrorIs(t, w.Err(), workpool.ErrClosed)

	w, err = q.Work(context.Background(), identity)
	require.NoError(t, err)
	nc.Close()
	<-w.Done()
	require.ErrorIs(t, w.Err(), nats.ErrConnectionClosed)
	require.NotErrorIs(t, w.Err(), jobqueue.ErrStalled)
}

func TestWorker_StopsWithAConnectionThatGivesUp(t *testing.T) {
	t.Parallel()
	s := start(t)
	q := openOn[int, int](t, connect(t, s, nats.MaxReconnects(2), nats.ReconnectWait(10*time.Millisecond)))
	var log lines
	w, err := q.Work(context.Background(), identity, jobqueue.WithLogger(log.logger()))
	require.NoError(t, err)
	s.Shutdown()
	<-w.Done()
	require.ErrorIs(t, w.Err(), nats.ErrConnectionClosed)
	assert.Contains(t, log.String(), "Reliable")
}

func TestWorker_SaysThatItCantFetch(t *testing.T) {
	t.Parallel()
	s := start(t)
	nc := connect(t, s, nats.ReconnectWait(10*time.Millisecond))
	q := openOn[int, int](t, nc)
	var log lines
	w, err := q.Work(context.Background(), identity, jobqueue.WithLogger(log.logger()))
	require.NoError(t, err)
	require.NoError(t, w.Err())
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(limit(t), "test_jobs"))
	until(t, func() bool { return w.Err() != nil })
	require.ErrorIs(t, w.Err(), jobqueue.ErrStalled)
	assert.Contains(t, log.String(), "fetching jobs of")
	assert.LessOrEqual(t, strings.Count(log.String(), "\n"), 6, "not more than one line for each priority, and each minute")
	nc.Close()
	<-w.Done()
	require.ErrorIs(t, w.Err(), nats.ErrConnectionClosed)
}

func TestWork_LogsEachFailedAttempt(t *testing.T) {
	t.Parallel()
	var log lines
	q := open[int, int](t, jobqueue.WithMaxAttempts(3), noBackoff)
	work(t, q, func(context.Context, int) (int, error) { return 0, errors.New("out of paper") }, jobqueue.WithLogger(log.logger()))
	submit(t, q, 1, jobqueue.WithID("letter"))
	dead(t, q, 1)
	for _, want := range []string{"attempt=1", "attempt=2", "attempt=3"} {
		assert.Regexp(t, `id=letter `+want+` .*error="out of paper"`, log.String())
	}
	assert.Equal(t, 2, strings.Count(log.String(), "level=INFO msg=\"jobqueue: an attempt has failed\""))
}

func TestWork_DefaultRetriesOutliveANight(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, noBackoff)
	work(t, q, func(context.Context, int) (int, error) { return 0, errors.New("no") })
	submit(t, q, 1)
	assert.Equal(t, 25, dead(t, q, 1)[0].Attempts)

	backoff := jobqueue.BackoffOf(open[int, int](t))
	for range 1000 {
		var all time.Duration
		for attempt := 1; attempt < 25; attempt++ {
			all += backoff(attempt)
		}
		assert.Greater(t, all, 16*time.Hour)
	}
}

// A worker keeps what it can't store, and says so, and runs nothing twice for it.
func TestWork_WaitsForRoomForItsResults(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, jobqueue.WithMaxAttempts(2), noBackoff, jobqueue.WithStreamConfig(func(c *jetstream.StreamConfig) {
		if strings.HasSuffix(c.Name, "_results") {
			c.MaxMsgs, c.Discard = 1, jetstream.DiscardNew
		}
	}))
	var log lines
	var ran atomic.Int64
	w := work(t, q, func(_ context.Context, n int) (int, error) {
		ran.Add(1)
		return n, nil
	}, jobqueue.WithLogger(log.logger()))
	_, err := q.Result(limit(t), submit(t, q, 1))
	require.NoError(t, err)
	id := submit(t, q, 2)
	until(t, func() bool { return w.Err() != nil })
	require.ErrorIs(t, w.Err(), jobqueue.ErrStalled)
	require.ErrorIs(t, w.Err(), workpool.ErrQueueFull)
	assert.Contains(t, log.String(), "results and dead letters are not stored")
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(limit(t), "test_results")
	require.NoError(t, err)
	require.NoError(t, stream.Purge(limit(t)))
	r, err := q.Result(limit(t), id)
	require.NoError(t, err)
	assert.Equal(t, 1, r.Attempt)
	until(t, func() bool { return w.Err() == nil })
	assert.EqualValues(t, 2, ran.Load())
}
