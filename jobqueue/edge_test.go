package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
)

func TestQueue_NilContexts(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	w := work(t, q, identity)
	pool, err := workpool.New(identity)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	var none context.Context
	for name, call := range map[string]func() error{
		"Submit":    func() error { _, err := q.Submit(none, 1); return err },
		"SubmitAll": func() error { _, err := q.SubmitAll(none, slices.Values([]int{1})); return err },
		"Work":      func() error { _, err := q.Work(none, identity); return err },
		"WorkOn":    func() error { _, err := q.WorkOn(none, pool); return err },
		"Shutdown":  func() error { return w.Shutdown(none) },
		"Result":    func() error { _, err := q.Result(none, "x"); return err },
		"Results": func() (err error) {
			for _, err = range q.Results(none, 0) {
			}
			return err
		},
		"Dead": func() (err error) {
			for _, err = range q.Dead(none) {
			}
			return err
		},
		"Requeue": func() error { return q.Requeue(none, "x") },
		"Stats":   func() error { _, err := q.Stats(none); return err },
	} {
		require.ErrorContains(t, call(), "nil context", name)
	}
	_, err = q.SubmitAll(t.Context(), nil)
	require.ErrorContains(t, err, "nil sequence")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = q.SubmitAll(ended, slices.Values([]int{1}))
	require.ErrorIs(t, err, context.Canceled)
}

// The server closes the connection of a client that names such a subject.
func TestQueue_ImpossibleIDsHarmNobody(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc)
	for _, id := range []string{"", strings.Repeat("x", 10_000), strings.Repeat(" ", 256)} {
		_, err := q.Result(limit(t), id)
		require.ErrorIs(t, err, jobqueue.ErrNotFound)
		require.ErrorIs(t, q.Requeue(limit(t), id), jobqueue.ErrNotFound)
	}
	submit(t, q, 1, jobqueue.WithID(strings.Repeat(" ", 255)))
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	for _, id := range []string{"two words", "*", ">", ".", strings.Repeat("y", 5000)} {
		_, err := js.PublishMsg(limit(t), &nats.Msg{Subject: "jobqueue.test.jobs.normal.any", Data: []byte("2"), Header: nats.Header{jetstream.MsgIDHeader: {id}}})
		require.NoError(t, err)
	}
	work(t, q, identity)
	for _, r := range results(t, q, 6) {
		assert.NotEmpty(t, r.ID)
	}
	assert.Zero(t, nc.Stats().Reconnects)
}

// nothing is an error whose methods panic, as those of a nil pointer do.
type nothing struct{ text *string }

func (n nothing) Error() string { return *n.text }

func TestWork_ReasonsOfAllKinds(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(1))
	reasons := []error{nothing{}, errors.New(strings.Repeat("\xff", 5000)), errors.New(strings.Repeat("😀", 5000))}
	work(t, q, func(_ context.Context, n int) (int, error) { return 0, reasons[n] })
	for n := range reasons {
		submit(t, q, n)
	}
	for _, letter := range dead(t, q, len(reasons)) {
		assert.NotEmpty(t, letter.Reason)
		assert.LessOrEqual(t, len(letter.Reason), 2<<10+3)
	}
}

// Its IDs are known for longer than those of the jobs, as it is later.
func TestDead_OfAnIDThatWasDeadBefore(t *testing.T) {
	t.Parallel()
	const window = 400 * time.Millisecond
	q := open[int, int](t, jobqueue.WithMaxAttempts(1), jobqueue.WithDedupeWindow(window))
	var healed sync.Map
	slow := make(chan struct{})
	work(t, q, func(_ context.Context, n int) (int, error) {
		if n == 1 {
			<-slow
		}
		if _, ok := healed.Load(n); ok {
			return n, nil
		}
		return 0, errors.New("no")
	})
	submit(t, q, 1, jobqueue.WithID("same"))
	late := time.NewTimer(window - window/8)
	<-late.C
	close(slow)
	dead(t, q, 1)
	healed.Store(1, true)
	require.NoError(t, q.Requeue(limit(t), "same"))
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 1} })
	ctx := limit(t)
	for { // until the stream has forgotten the first
		submit(t, q, 2, jobqueue.WithID("same"))
		s, err := q.Stats(ctx)
		require.NoError(t, err)
		if s.Pending+s.InFlight+s.Dead > 0 {
			break
		}
		require.NoError(t, ctx.Err())
	}
	assert.Equal(t, 2, dead(t, q, 1)[0].Job)
}

func TestRequeue_WhereTheJobDiesAtOnceAndByManyAtATime(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(1))
	work(t, q, func(context.Context, int) (int, error) { return 0, errors.New("no") })
	id := submit(t, q, 1)
	for range 50 {
		dead(t, q, 1)
		var calls sync.WaitGroup
		for range 3 {
			calls.Go(func() {
				if err := q.Requeue(limit(t), id); !errors.Is(err, jobqueue.ErrNotFound) {
					assert.NoError(t, err)
				}
			})
		}
		calls.Wait()
		eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Dead: 1} })
	}
}

func TestWorkOn_APoolWithoutRoomCostsNoAttempt(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(1))
	goOn := make(chan struct{})
	pool, err := workpool.New(func(_ context.Context, n int) (int, error) {
		<-goOn
		return n, nil
	}, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithResultFunc(func(workpool.Result[int, int]) {}))
	require.NoError(t, err)
	require.NoError(t, pool.Submit(t.Context(), 0)) // a task of somebody else
	w, err := q.WorkOn(t.Context(), pool, jobqueue.WithConcurrency(4))
	require.NoError(t, err)
	for n := range 8 {
		submit(t, q, n)
	}
	until(t, func() bool { return w.Stats().Running == 4 }) // in line, at the pool
	short, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, w.Shutdown(short), context.Canceled)
	require.NoError(t, w.Shutdown(limit(t)))
	close(goOn)
	w, err = q.WorkOn(t.Context(), pool, jobqueue.WithConcurrency(4))
	require.NoError(t, err)
	for _, r := range results(t, q, 8) {
		assert.Equal(t, 1, r.Attempt)
	}
	require.NoError(t, w.Shutdown(limit(t)))
	require.NoError(t, pool.Close())
}

func TestWorkOn_GrowsAnElasticPool(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	const workers = 4
	var all sync.WaitGroup
	all.Add(workers)
	pool, err := workpool.New(func(_ context.Context, n int) (int, error) {
		all.Done()
		all.Wait() // until as many run
		return n, nil
	}, workpool.WithWorkers(workers), workpool.WithElastic(1, time.Minute))
	require.NoError(t, err)
	w, err := q.WorkOn(t.Context(), pool)
	require.NoError(t, err)
	for n := range workers {
		submit(t, q, n)
	}
	require.Len(t, results(t, q, workers), workers)
	require.NoError(t, w.Shutdown(limit(t)))
	require.NoError(t, pool.Close())
}

func TestWorkOn_StopsWithItsPool(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(1))
	pool, err := workpool.New(identity)
	require.NoError(t, err)
	require.NoError(t, pool.Close())
	w, err := q.WorkOn(t.Context(), pool)
	require.NoError(t, err)
	id := submit(t, q, 3)
	eventually(t, q, func(s jobqueue.Stats) bool { return s.Pending+s.InFlight == 1 })
	// What another pool says is an error like any other.
	work(t, q, func(_ context.Context, n int) (int, error) {
		if n == 4 {
			return 0, workpool.ErrClosed
		}
		return n, nil
	})
	r, err := q.Result(limit(t), id)
	require.NoError(t, err)
	assert.Equal(t, 1, r.Attempt)
	submit(t, q, 4)
	assert.Equal(t, workpool.ErrClosed.Error(), dead(t, q, 1)[0].Reason)
	require.NoError(t, w.Shutdown(limit(t)))
}

func TestWorkOn_WhatAHandlerSaysOfAnotherPoolIsAnError(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxAttempts(2), noBackoff)
	errs := []error{
		workpool.ErrDropped,
		workpool.ErrClosed,
		workpool.ErrQueueFull,
		fmt.Errorf("the pool of a friend: %w", workpool.ErrClosed),
		fmt.Errorf("the pool of a friend: %w", workpool.ErrQueueFull),
	}
	pool, err := workpool.New(func(_ context.Context, n int) (int, error) {
		if n < len(errs) {
			return 0, errs[n]
		}
		return n, nil
	})
	require.NoError(t, err)
	w, err := q.WorkOn(t.Context(), pool)
	require.NoError(t, err)
	for n := range errs {
		submit(t, q, n)
	}
	for _, letter := range dead(t, q, len(errs)) {
		assert.Equal(t, errs[letter.Job].Error(), letter.Reason)
		assert.Equal(t, 2, letter.Attempts)
	}
	_, err = q.Result(limit(t), submit(t, q, len(errs)))
	require.NoError(t, err, "the worker goes on")
	require.NoError(t, w.Shutdown(limit(t)))
	require.NoError(t, pool.Close())
}

// What a pool does with tasks for which it has no room, it does with jobs too: they
// come again, and have not used up their attempt.
func TestWorkOn_APoolThatDropsOrRejectsLosesNoJob(t *testing.T) {
	t.Parallel()
	for _, overflow := range []workpool.Overflow{workpool.Reject, workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns} {
		t.Run(overflow.String(), func(t *testing.T) {
			t.Parallel()
			q := open[int, int](t, jobqueue.WithMaxAttempts(1))
			began, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			pool, err := workpool.New(func(_ context.Context, n int) (int, error) {
				once.Do(func() { close(began) })
				<-goOn
				return n, nil
			}, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithOverflow(overflow), workpool.WithoutResults())
			require.NoError(t, err)
			w, err := q.WorkOn(t.Context(), pool, jobqueue.WithConcurrency(4))
			require.NoError(t, err)
			for n := range 8 {
				submit(t, q, n)
			}
			<-began
			if overflow != workpool.CallerRuns { // which runs them all
				eventually(t, q, func(s jobqueue.Stats) bool { return s.Redelivered > 0 || s.Dead > 0 })
			}
			var others sync.WaitGroup
			for range 20 {
				others.Go(func() {
					if err := pool.Submit(t.Context(), 0); overflow != workpool.Reject {
						assert.NoError(t, err)
					}
				})
			}
			close(goOn)
			for _, r := range results(t, q, 8) {
				assert.Equal(t, 1, r.Attempt)
			}
			others.Wait()
			require.NoError(t, w.Shutdown(limit(t)))
			require.NoError(t, pool.Close())
		})
	}
}

func TestSubmit_PanicOfTheCodec(t *testing.T) {
	t.Parallel()
	q := open[string, string](t, jobqueue.WithCodec(fragile{}))
	_, err := q.Submit(limit(t), "panic in Encode")
	var panicked *workpool.PanicError
	require.ErrorAs(t, err, &panicked)
}
