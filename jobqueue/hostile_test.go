package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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

// deleteStream deletes a stream of the queue, as an administrator may.
func deleteStream(t *testing.T, nc *nats.Conn, kind string) {
	t.Helper()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(limit(t), "test_"+kind))
}

func TestOpen_WhatDiffersCreatesNothing(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	openOn[int, int](t, nc)
	for _, kind := range []string{"results", "dead", "attempts"} { // as where a program was killed in the middle
		deleteStream(t, nc, kind)
	}
	_, err := jobqueue.Open[int, int](limit(t), nc, "test", jobqueue.WithDedupeWindow(time.Hour))
	require.ErrorIs(t, err, jobqueue.ErrConfigMismatch)
	openOn[int, int](t, nc)
}

func TestOpen_OneOfManyMakesTheQueue(t *testing.T) {
	t.Parallel()
	s := start(t)
	windows := []time.Duration{time.Minute, time.Hour, 2 * time.Hour}
	var connections []*nats.Conn
	for range windows {
		connections = append(connections, connect(t, s))
	}
	for round := range 10 {
		name := fmt.Sprint("round", round)
		errs := make([]error, len(windows))
		var all sync.WaitGroup
		for i, window := range windows {
			all.Go(func() {
				_, errs[i] = jobqueue.Open[int, int](limit(t), connections[i], name, jobqueue.WithDedupeWindow(window))
			})
		}
		all.Wait()
		made := 0
		for _, err := range errs {
			if err == nil {
				made++
			} else {
				require.ErrorIs(t, err, jobqueue.ErrConfigMismatch)
			}
		}
		require.Equal(t, 1, made, "%v", errs)
	}
}

func TestSubmitAll_AServerThatCantKeepUp(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.WithServerOptions(func(o *server.Options) { o.StreamMaxBufferedSize = 1 << 20 }))
	q := openOn[[]byte, int](t, connect(t, s))
	n, err := q.SubmitAll(limit(t), slices.Values(slices.Repeat([][]byte{make([]byte, 300_000)}, 100)))
	require.NoError(t, err)
	assert.Equal(t, 100, n)
}

// A worker whose places are held by a long job lets others have what it has fetched.
func TestWork_JobsBehindALongOneGoToOthers(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(1))
	began, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	first := work(t, q, func(_ context.Context, n int) (int, error) {
		once.Do(func() { close(began) })
		<-goOn
		return n, nil
	}, jobqueue.WithConcurrency(1), jobqueue.WithWorkerName("first"))
	// One of each priority: it may have asked for all.
	priorities := []workpool.Priority{workpool.High, workpool.Normal, workpool.Low}
	for _, priority := range priorities {
		submit(t, q, 1, jobqueue.WithPriority(priority))
	}
	<-began
	eventually(t, q, func(jobqueue.Stats) bool { return first.Stats().Fetched == 0 })
	work(t, q, identity, jobqueue.WithWorkerName("second"))
	for _, r := range results(t, q, len(priorities)-1) {
		assert.Equal(t, "second", r.Worker)
		assert.Equal(t, 1, r.Attempt)
	}
	close(goOn)
	results(t, q, len(priorities))
}

// What is left of the jobs of a stream that was deleted harms no job of the one that
// takes its place.
func TestQueue_TheStreamOfTheJobsIsMadeAgain(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, jobqueue.WithDedupeWindow(100*time.Millisecond))
	began, goOn := make(chan struct{}, 2), make(chan struct{})
	w := work(t, q, func(_ context.Context, n int) (int, error) {
		if n == 2 {
			began <- struct{}{}
			<-goOn
		}
		return n, nil
	})
	done := submit(t, q, 1, jobqueue.WithID("again"))
	_, err := q.Result(limit(t), done)
	require.NoError(t, err)
	submit(t, q, 2)
	<-began
	deleteStream(t, nc, "jobs")
	_, err = q.Submit(limit(t), 3)
	require.ErrorIs(t, err, jobqueue.ErrNotFound)
	require.ErrorContains(t, err, "the stream of the jobs was deleted")
	n, err := q.SubmitAll(limit(t), slices.Values([]int{3}))
	require.ErrorIs(t, err, jobqueue.ErrNotFound)
	assert.Zero(t, n)
	require.ErrorContains(t, w.Err(), "the stream of the jobs was deleted")

	openOn[int, int](t, nc, jobqueue.WithDedupeWindow(100*time.Millisecond))
	for n := range 3 { // those of the new stream that have the place of the old ones
		submit(t, q, 10+n, jobqueue.RunAfter(time.Hour))
	}
	close(goOn)
	require.NoError(t, q.Delete(limit(t), done))
	eventually(t, q, func(s jobqueue.Stats) bool { return s.Results == 1 && s.Scheduled == 3 })
	submit(t, q, 4, jobqueue.WithID("again"))
	r, err := q.Result(limit(t), "again")
	require.NoError(t, err)
	assert.Equal(t, 4, r.Value)
}

func TestWorker_SaysThatAStreamWasDeleted(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"results", "dead", "attempts"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			nc := connect(t, start(t))
			opts := []jobqueue.Option{noBackoff, jobqueue.WithMaxAttempts(2)}
			q := openOn[int, int](t, nc, opts...)
			w := work(t, q, func(context.Context, int) (int, error) { return 0, errors.New("fails") })
			deleteStream(t, nc, kind)
			submit(t, q, 1)
			for ctx := limit(t); w.Err() == nil; {
				require.NoError(t, ctx.Err())
				tick := time.NewTimer(10 * time.Millisecond)
				<-tick.C
			}
			require.ErrorIs(t, w.Err(), jobqueue.ErrStalled)
			q = openOn[int, int](t, nc, opts...) // which makes it again
			assert.Equal(t, "fails", dead(t, q, 1)[0].Reason)
			for ctx := limit(t); w.Err() != nil; {
				require.NoError(t, ctx.Err())
				tick := time.NewTimer(10 * time.Millisecond)
				<-tick.C
			}
		})
	}
}

// Whatever waits returns when the connection is closed.
func TestClose_EndsEveryCall(t *testing.T) {
	t.Parallel()
	s := start(t)
	type queue = *jobqueue.Queue[int, int]
	for name, call := range map[string]func(context.Context, queue) error{
		"Submit": func(ctx context.Context, q queue) error { _, err := q.Submit(ctx, 1); return err },
		"SubmitAll": func(ctx context.Context, q queue) error {
			_, err := q.SubmitAll(ctx, slices.Values([]int{1, 2, 3}))
			return err
		},
		"Result": func(ctx context.Context, q queue) error { _, err := q.Result(ctx, "none"); return err },
		"Results": func(ctx context.Context, q queue) error {
			for _, err := range q.Results(ctx, 0) {
				return err
			}
			return nil
		},
		"Stats": func(ctx context.Context, q queue) error { _, err := q.Stats(ctx); return err },
		"Dead": func(ctx context.Context, q queue) error {
			for _, err := range q.Dead(ctx) {
				return err
			}
			return nil
		},
		"Requeue": func(ctx context.Context, q queue) error { return q.Requeue(ctx, "none") },
		"Delete":  func(ctx context.Context, q queue) error { return q.Delete(ctx, "none") },
	} {
		nc, err := s.Connect()
		require.NoError(t, err)
		q := openOn[int, int](t, nc)
		ended := make(chan error)
		began := make(chan struct{})
		go func() {
			close(began)
			for {
				if err := call(limit(t), q); err != nil && !errors.Is(err, jobqueue.ErrNotFound) {
					ended <- err
					return
				}
			}
		}()
		<-began
		nc.Close()
		require.ErrorIs(t, <-ended, nats.ErrConnectionClosed, name)
	}
}
