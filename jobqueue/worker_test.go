package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

func TestWork_RetriesWithBackoff(t *testing.T) {
	t.Parallel()
	var asked []int
	q := open[int, int](t, jobqueue.WithMaxAttempts(4), jobqueue.WithBackoff(func(attempt int) time.Duration {
		asked = append(asked, attempt)
		return time.Duration(attempt) * 20 * time.Millisecond
	}))
	var calls []time.Time
	work(t, q, func(ctx context.Context, n int) (int, error) {
		job, _ := jobqueue.JobFrom(ctx)
		if calls = append(calls, time.Now()); job.Attempt != len(calls) {
			return 0, workpool.Permanent(fmt.Errorf("attempt %d is call %d", job.Attempt, len(calls)))
		}
		if job.Attempt < 4 {
			return 0, errors.New("not yet")
		}
		return n, nil
	})
	r, err := q.Result(limit(t), submit(t, q, 7))
	require.NoError(t, err)
	assert.Equal(t, 7, r.Value)
	assert.Equal(t, 4, r.Attempt)
	assert.Equal(t, []int{1, 2, 3}, asked)
	for i := 1; i < len(calls); i++ {
		assert.GreaterOrEqual(t, calls[i].Sub(calls[i-1]), time.Duration(i)*20*time.Millisecond)
	}
}

func TestWork_RetryAfterIsADelayedRedelivery(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	var first atomic.Pointer[time.Time]
	work(t, q, func(_ context.Context, n int) (int, error) {
		now := time.Now()
		if first.CompareAndSwap(nil, &now) {
			return 0, fmt.Errorf("wrapped: %w", workpool.RetryAfter(300*time.Millisecond, errors.New("busy")))
		}
		return n, nil
	})
	r, err := q.Result(limit(t), submit(t, q, 1))
	require.NoError(t, err)
	assert.Equal(t, 2, r.Attempt)
	assert.GreaterOrEqual(t, r.Time.Sub(*first.Load()), 300*time.Millisecond)
}

func TestWork_DeadLettersHaveTheirReason(t *testing.T) {
	t.Parallel()
	q := open[string, string](t, jobqueue.WithMaxAttempts(3), noBackoff)
	var healed atomic.Bool
	handler := func(_ context.Context, job string) (string, error) {
		if healed.Load() {
			return "well", nil
		}
		switch job {
		case "fails":
			return "", errors.New("line one\nline two")
		case "panics":
			panic("out of luck")
		case "exits":
			runtime.Goexit()
		case "permanent":
			return "", fmt.Errorf("wrapped: %w", workpool.Permanent(errors.New("hopeless")))
		}
		return "", nil
	}
	work(t, q, handler, jobqueue.WithWorkerName("doctor"))
	want := map[string]struct {
		reason   string
		attempts int
	}{
		"fails":     {"line one\nline two", 3},
		"panics":    {"workpool: panic: out of luck", 3},
		"exits":     {workpool.ErrGoexit.Error(), 3},
		"permanent": {"wrapped: hopeless", 1},
	}
	begin := time.Now().Add(-time.Second)
	for job := range want {
		submit(t, q, job, jobqueue.WithID("id of "+job), jobqueue.WithPriority(workpool.High))
	}
	for _, letter := range dead(t, q, len(want)) {
		w := want[letter.Job]
		assert.Equal(t, "id of "+letter.Job, letter.ID)
		assert.Equal(t, w.reason, letter.Reason)
		assert.Equal(t, w.attempts, letter.Attempts)
		assert.Equal(t, "doctor", letter.Worker)
		assert.Equal(t, fmt.Sprintf("%q", letter.Job), string(letter.Payload))
		assert.True(t, letter.Time.After(begin))
		_, err := q.Result(limit(t), letter.ID)
		require.ErrorIs(t, err, jobqueue.ErrDead)
		require.ErrorContains(t, err, w.reason)
	}
	healed.Store(true)
	for letter, err := range q.Dead(limit(t)) {
		require.NoError(t, err)
		require.NoError(t, q.Requeue(limit(t), letter.ID))
		r, err := q.Result(limit(t), letter.ID)
		require.NoError(t, err)
		assert.Equal(t, "well", r.Value)
		require.ErrorIs(t, q.Requeue(limit(t), letter.ID), jobqueue.ErrNotFound)
	}
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 4} })
}

func TestWork_UndecodableJobIsADeadLetter(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	texts := openOn[string, int](t, nc)
	id := submit(t, texts, "not a number")
	_, err := jobqueue.Open[int, int](limit(t), nc, "test")
	require.ErrorIs(t, err, jobqueue.ErrConfigMismatch)
	require.ErrorContains(t, err, `"jobqueue.type"] string, not int`)
	numbers := openOn[int, int](t, nc, jobqueue.WithExisting(), noBackoff, jobqueue.WithMaxAttempts(3))
	work(t, numbers, identity)
	letters := dead(t, numbers, 1)
	assert.Equal(t, id, letters[0].ID)
	assert.Contains(t, letters[0].Reason, "cannot unmarshal string")
	assert.Equal(t, 3, letters[0].Attempts)
	assert.Equal(t, `"not a number"`, string(letters[0].Payload))
	assert.Zero(t, letters[0].Job)
}

type fragile struct{ jobqueue.JSON[string] }

func (fragile) Encode(s string) ([]byte, error) {
	if s == "panic in Encode" {
		panic(s)
	}
	return []byte(s), nil
}

func (fragile) Decode(data []byte) (string, error) {
	if string(data) == "panic in Decode" {
		panic(string(data))
	}
	return string(data), nil
}

func TestWork_WhatCantBeStoredIsADeadLetter(t *testing.T) {
	t.Parallel()
	q := open[string, string](t, jobqueue.WithCodec(fragile{}), jobqueue.WithBackoff(func(int) time.Duration { return -1 }))
	work(t, q, func(_ context.Context, job string) (string, error) {
		switch job {
		case "encode":
			return "panic in Encode", nil
		case "large":
			return strings.Repeat("x", 1<<20), nil
		case "mistake":
			return "", errors.New("failed")
		}
		return job, nil
	})
	want := map[string]string{
		"encode":          "encoding the result: workpool: panic: panic in Encode",
		"panic in Decode": "decoding the job: workpool: panic: panic in Decode",
		"large":           "storing the result of 1048576 bytes",
		"mistake":         "WithBackoff: the function returned -1ns after attempt 1",
	}
	for job := range want {
		submit(t, q, job)
	}
	for _, letter := range dead(t, q, len(want)) {
		assert.Contains(t, letter.Reason, want[string(letter.Payload)])
	}
}

// longAckWait is for tests of heartbeats, three of which are sent in this time: on
// a slow machine, too, one has to arrive.
const longAckWait = 4 * time.Second

func TestWork_HeartbeatsKeepLongJobs(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, jobqueue.WithAckWait(longAckWait))
	const jobs, heartbeats = 2, 5 // of each job: three come in one AckWait
	kept := make(chan struct{})
	seen := map[string]int{}
	_, err := nc.Subscribe("$JS.ACK.test_jobs.>", func(m *nats.Msg) {
		if string(m.Data) != "+WPI" {
			return
		}
		if seen[m.Subject]++; seen[m.Subject] != heartbeats {
			return
		}
		for _, n := range seen {
			if n < heartbeats {
				return
			}
		}
		if len(seen) == jobs {
			close(kept)
		}
	})
	require.NoError(t, err)
	var ran atomic.Int64
	for range jobs {
		work(t, q, func(_ context.Context, n int) (int, error) {
			ran.Add(1)
			<-kept
			return n, nil
		}, jobqueue.WithConcurrency(1))
		submit(t, q, 1)
	}
	for _, r := range results(t, q, jobs) {
		assert.Equal(t, 1, r.Attempt)
	}
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: jobs} })
	assert.EqualValues(t, jobs, ran.Load())
}

// A worker whose only place is held by a long job lets others have what it has fetched.
func TestWork_PrefetchedJobsGoToOthers(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(1))
	began, goOn := make(chan struct{}), make(chan struct{})
	first := work(t, q, func(_ context.Context, n int) (int, error) {
		if n == 1 {
			close(began)
			<-goOn
		}
		return n, nil
	}, jobqueue.WithConcurrency(1), jobqueue.WithWorkerName("first"))
	// Short jobs let the worker fetch ahead, then one blocks the others.
	jobs := make([]int, 400)
	jobs[200] = 1
	_, err := q.SubmitAll(limit(t), slices.Values(jobs))
	require.NoError(t, err)
	<-began
	eventually(t, q, func(jobqueue.Stats) bool { return first.Stats().Fetched == 0 })
	work(t, q, identity, jobqueue.WithConcurrency(1))
	for _, r := range results(t, q, len(jobs)-1) {
		assert.Equal(t, 1, r.Attempt)
	}
	close(goOn)
	for _, r := range results(t, q, len(jobs)) {
		assert.Equal(t, 1, r.Attempt)
	}
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: uint64(len(jobs))} })
}

func TestWork_TimeoutEndsAnAttempt(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(2), noBackoff)
	work(t, q, func(ctx context.Context, n int) (int, error) {
		<-ctx.Done()
		return n, context.Cause(ctx)
	}, jobqueue.WithTimeout(30*time.Millisecond))
	submit(t, q, 1)
	letter := dead(t, q, 1)[0]
	assert.Equal(t, 2, letter.Attempts)
	assert.Contains(t, letter.Reason, "longer than 30ms")
}

func TestWork_DelayedRetriesDontKeepFreshJobsWaiting(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	work(t, q, func(_ context.Context, n int) (int, error) {
		if n == 0 {
			return 0, workpool.RetryAfter(time.Hour, errors.New("later"))
		}
		return n, nil
	})
	const delayed = 10_000
	_, err := q.SubmitAll(limit(t), slices.Values(make([]int, delayed)))
	require.NoError(t, err)
	eventually(t, q, func(s jobqueue.Stats) bool { return s.Pending == 0 })
	for n := 1; n <= 10; n++ {
		r, err := q.Result(limit(t), submit(t, q, n))
		require.NoError(t, err)
		assert.Equal(t, n, r.Value)
	}
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{InFlight: delayed, Results: 10} })
}

func TestWork_DelayedRetriesAllRunAgain(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithBackoff(func(int) time.Duration { return 500 * time.Millisecond }))
	work(t, q, func(ctx context.Context, n int) (int, error) {
		if job, _ := jobqueue.JobFrom(ctx); job.Attempt == 1 {
			return 0, errors.New("at first")
		}
		return n, nil
	})
	const n = 3000
	_, err := q.SubmitAll(limit(t), slices.Values(make([]int, n)))
	require.NoError(t, err)
	for _, r := range results(t, q, n) {
		assert.Equal(t, 2, r.Attempt)
	}
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: n} })
}

// The library's endless consumers stalled for up to half a minute here, in one of
// some twenty-five runs. What is a stall on this machine is measured by what else it
// does meanwhile.
func TestWork_TinyFetchesDontStall(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	for range 3 {
		work(t, q, identity, jobqueue.WithPrefetch(0), jobqueue.WithConcurrency(1))
	}
	const n = 20_000
	_, err := q.SubmitAll(limit(t), slices.Values(make([]int, n)))
	require.NoError(t, err)
	const stall = 10_000 // questions to the server
	var stored uint64
	asked := 0
	eventually(t, q, func(s jobqueue.Stats) bool {
		if asked++; s.Results > stored {
			stored, asked = s.Results, 0
		}
		require.Less(t, asked, stall, "%+v", s)
		return s.Results == n
	})
}

func TestShutdown_FinishesWhatRunsAndHandsBackTheRest(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(1), jobqueue.WithConsumerConfig(func(c *jetstream.ConsumerConfig) { c.Description = "long AckWait" }))
	began, goOn := make(chan struct{}, 1000), make(chan struct{})
	w, err := q.Work(context.Background(), func(_ context.Context, n int) (int, error) {
		began <- struct{}{}
		<-goOn
		return n, nil
	}, jobqueue.WithConcurrency(2), jobqueue.WithWorkerName("first"))
	require.NoError(t, err)
	for _, priority := range []workpool.Priority{workpool.Low, workpool.Normal, workpool.High} {
		_, err = q.SubmitAll(limit(t), slices.Values(make([]int, 50)), jobqueue.WithPriority(priority))
		require.NoError(t, err)
	}
	<-began
	<-began
	stopped := make(chan error)
	go func() { stopped <- w.Shutdown(limit(t)) }()
	work(t, q, identity, jobqueue.WithWorkerName("second"))
	// Everything but the two that run comes to the other worker long before
	// AckWait is over, although jobs have one attempt each.
	for _, r := range results(t, q, 148) {
		assert.Equal(t, "second", r.Worker)
		assert.Equal(t, 1, r.Attempt)
	}
	close(goOn)
	require.NoError(t, <-stopped)
	first := 0
	for _, r := range results(t, q, 150) {
		if r.Worker == "first" {
			first++
		}
	}
	assert.Equal(t, 2, first)
	assert.Empty(t, began)
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 150} })
}

func TestShutdown_CutShortHandsBackWhatRuns(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(1))
	began, causes := make(chan struct{}), make(chan error, 1)
	w, err := q.Work(context.Background(), func(ctx context.Context, n int) (int, error) {
		close(began)
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return n, ctx.Err()
	}, jobqueue.WithConcurrency(1))
	require.NoError(t, err)
	id := submit(t, q, 1)
	<-began
	short, cancel := context.WithCancel(t.Context())
	cancel()
	err = w.Shutdown(short)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "handed back (1)")
	require.ErrorIs(t, <-causes, workpool.ErrAborted)
	require.NoError(t, w.Shutdown(limit(t)), "the second waits")

	work(t, q, identity)
	r, err := q.Result(limit(t), id)
	require.NoError(t, err)
	assert.Equal(t, 1, r.Attempt, "the attempt that was cut short does not count")
}

func TestShutdown_ByTheContextAndFromInside(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	ctx, cancel := context.WithCancel(t.Context())
	var w *jobqueue.Worker
	ready := make(chan struct{})
	w, err := q.Work(ctx, func(ctx context.Context, n int) (int, error) {
		<-ready
		cancel() // a signal comes: what runs is finished
		if err := w.Shutdown(ctx); !errors.Is(err, workpool.ErrReentrant) {
			return 0, workpool.Permanent(fmt.Errorf("Shutdown returned %w", err))
		}
		return n, ctx.Err()
	}, jobqueue.WithConcurrency(1))
	require.NoError(t, err)
	close(ready)
	r, err := q.Result(limit(t), submit(t, q, 5))
	require.NoError(t, err)
	assert.Equal(t, 5, r.Value)
	require.NoError(t, w.Shutdown(limit(t)))
}

func TestWork_StopsWithItsConnection(t *testing.T) {
	t.Parallel()
	s := start(t)
	nc := connect(t, s)
	q := openOn[int, int](t, nc)
	w, err := q.Work(context.Background(), identity)
	require.NoError(t, err)
	nc.Close()
	require.NoError(t, w.Shutdown(limit(t)))
	_, err = q.Submit(limit(t), 1)
	require.ErrorContains(t, err, "connection closed")
	_, err = q.Result(limit(t), "x")
	require.ErrorContains(t, err, "connection closed")
}
