package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
)

func TestQueue_RunsEveryJobOnce(t *testing.T) {
	t.Parallel()
	q := open[int, string](t)
	var ran atomic.Int64
	work(t, q, func(ctx context.Context, n int) (string, error) {
		ran.Add(1)
		job, ok := jobqueue.JobFrom(ctx)
		info, inPool := workpool.InfoFrom(ctx)
		if !ok || !inPool || info.Pool != "test" || job.Queue != "test" || job.ID == "" || job.Attempt != 1 || job.Submitted.IsZero() {
			return "", workpool.Permanent(fmt.Errorf("%+v %+v", job, info))
		}
		return fmt.Sprint(n * n), nil
	})
	const n = 5000
	accepted, err := q.SubmitAll(limit(t), func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	})
	require.NoError(t, err)
	require.Equal(t, n, accepted)

	want, got := make([]string, n), make([]string, 0, n)
	for i := range want {
		want[i] = fmt.Sprint(i * i)
	}
	for _, r := range results(t, q, n) {
		got = append(got, r.Value)
		assert.Equal(t, 1, r.Attempt)
		assert.NotEmpty(t, r.Worker)
	}
	assert.ElementsMatch(t, want, got)
	assert.EqualValues(t, n, ran.Load())
	eventually(t, q, func(s jobqueue.Stats) bool {
		return s == jobqueue.Stats{Results: n}
	})
}

func TestQueue_RunsOnAPoolOfTheCaller(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	pool, err := workpool.New(identity, workpool.WithWorkers(3), workpool.WithName("mine"))
	require.NoError(t, err)
	w, err := q.WorkOn(t.Context(), pool)
	require.NoError(t, err)
	for i := range 100 {
		submit(t, q, i)
	}
	assert.Len(t, results(t, q, 100), 100)
	require.NoError(t, w.Shutdown(limit(t)))
	assert.EqualValues(t, 100, pool.Stats().Succeeded, "the jobs have run there")
	require.NoError(t, pool.Close())
}

func TestSubmit_SameIDRunsOnce(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	for _, id := range []string{"order-7", "two words/and.dots*>", "ünïcode\n\x00"} {
		for i := range 3 {
			got := submit(t, q, i, jobqueue.WithID(id))
			assert.Equal(t, id, got)
		}
	}
	var ran sync.Map
	work(t, q, func(ctx context.Context, n int) (int, error) {
		job, _ := jobqueue.JobFrom(ctx)
		_, twice := ran.LoadOrStore(job.ID, true)
		assert.False(t, twice)
		return n, nil
	})
	for _, id := range []string{"order-7", "two words/and.dots*>", "ünïcode\n\x00"} {
		r, err := q.Result(limit(t), id)
		require.NoError(t, err)
		assert.Equal(t, id, r.ID)
		assert.Equal(t, 0, r.Value, "the first is the one that counts")
	}
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 3} })
}

func TestSubmit_PriorityOvertakesABacklog(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	began, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	const backlog = 2000
	accepted, err := q.SubmitAll(limit(t), slices.Values(make([]int, backlog)), jobqueue.WithPriority(workpool.Low))
	require.NoError(t, err)
	require.Equal(t, backlog, accepted)
	work(t, q, func(_ context.Context, n int) (int, error) {
		once.Do(func() { close(began) })
		<-goOn
		return n, nil
	}, jobqueue.WithConcurrency(1))

	<-began // of the backlog
	submit(t, q, 1, jobqueue.WithPriority(workpool.High))
	close(goOn)
	// The worker fetches it while it runs what it has of the backlog.
	place := slices.IndexFunc(results(t, q, backlog+1), func(r jobqueue.Result[int]) bool { return r.Value == 1 })
	assert.Less(t, place, backlog/2)
}

func TestSubmit_LowPriorityDoesNotStarve(t *testing.T) {
	t.Parallel()
	q := open[string, string](t)
	for _, level := range []struct {
		job      string
		priority workpool.Priority
	}{{"high", workpool.High}, {"normal", workpool.Normal}, {"low", workpool.Low}} {
		_, err := q.SubmitAll(limit(t), slices.Values(slices.Repeat([]string{level.job}, 400)), jobqueue.WithPriority(level.priority))
		require.NoError(t, err)
	}
	work(t, q, func(_ context.Context, job string) (string, error) { return job, nil }, jobqueue.WithConcurrency(1))
	var order []string
	for _, r := range results(t, q, 1200) {
		order = append(order, r.Value)
	}
	slices.Reverse(order)
	lastHigh := len(order) - 1 - slices.Index(order, "high")
	slices.Reverse(order)
	assert.Less(t, slices.Index(order, "low"), lastHigh)
	assert.Less(t, slices.Index(order, "normal"), lastHigh)
}

func TestSubmit_RunAt(t *testing.T) {
	t.Parallel()
	q := open[int, time.Time](t)
	work(t, q, func(context.Context, int) (time.Time, error) { return time.Now(), nil })
	submit(t, q, 1, jobqueue.RunAfter(time.Hour))
	past := submit(t, q, 2, jobqueue.RunAt(time.Now().Add(-time.Hour)))
	soon := submit(t, q, 3, jobqueue.RunAfter(0))
	for _, id := range []string{past, soon} {
		_, err := q.Result(limit(t), id)
		require.NoError(t, err)
	}
	due := time.Now().Add(1500 * time.Millisecond)
	id := submit(t, q, 4, jobqueue.RunAt(due), jobqueue.WithID("later/1"), jobqueue.WithPriority(workpool.High))
	submit(t, q, 4, jobqueue.RunAt(due), jobqueue.WithID("later/1"))
	r, err := q.Result(limit(t), id)
	require.NoError(t, err)
	assert.False(t, r.Value.Before(due), "%v early", due.Sub(r.Value))
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Scheduled: 1, Results: 3} })
}

func TestSubmit_FullQueue(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxQueued(10))
	for i := range 10 {
		submit(t, q, i)
	}
	_, err := q.Submit(limit(t), 11)
	require.ErrorIs(t, err, workpool.ErrQueueFull)
	impatient, cancel := context.WithCancel(t.Context())
	n, err := q.SubmitAll(impatient, func(yield func(int) bool) {
		defer cancel()
		for n := range 3 {
			assert.True(t, yield(n))
		}
	})
	assert.Zero(t, n)
	require.ErrorIs(t, err, workpool.ErrQueueFull)
	require.ErrorIs(t, err, context.Canceled)

	work(t, q, identity)
	n, err = q.SubmitAll(limit(t), slices.Values(make([]int, 500)))
	require.NoError(t, err)
	assert.Equal(t, 500, n, "it has waited for room")
	results(t, q, 510)
	_, err = q.Submit(limit(t), 1, jobqueue.RunAfter(time.Hour))
	require.ErrorIs(t, err, jobqueue.ErrInvalidOption)
}

func TestSubmit_JobTooLarge(t *testing.T) {
	t.Parallel()
	q := open[string, string](t)
	huge := strings.Repeat("x", 1<<20)
	id, err := q.Submit(limit(t), huge, jobqueue.WithID("huge"))
	require.ErrorIs(t, err, jobqueue.ErrJobTooLarge)
	assert.Equal(t, "huge", id)
	assert.Contains(t, err.Error(), "1048578 bytes")
	n, err := q.SubmitAll(limit(t), slices.Values([]string{"a", huge, "b"}))
	require.ErrorIs(t, err, jobqueue.ErrJobTooLarge)
	assert.Equal(t, 1, n)

	// The largest that is taken can become a dead letter, and come back.
	largest := strings.Repeat("x", 1<<20-8<<10-2)
	work(t, q, func(_ context.Context, job string) (string, error) {
		if job == "a" {
			return job, nil
		}
		return job, workpool.Permanent(errors.New(strings.Repeat("why ", 10_000)))
	})
	id = submit(t, q, largest)
	assert.Equal(t, largest, dead(t, q, 1)[0].Job)
	require.NoError(t, q.Requeue(limit(t), id))
	dead(t, q, 1)
}

func TestSubmit_StreamLimitOfTheDoor(t *testing.T) {
	t.Parallel()
	q := open[string, string](t, jobqueue.WithStreamConfig(func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 }))
	_, err := q.Submit(limit(t), strings.Repeat("x", 1000))
	require.ErrorIs(t, err, jobqueue.ErrJobTooLarge)
}

func TestSubmitAll_PanicOfTheSequence(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	n, err := q.SubmitAll(limit(t), func(yield func(int) bool) {
		yield(1)
		panic("no more")
	})
	var panicked *workpool.PanicError
	require.ErrorAs(t, err, &panicked)
	assert.Equal(t, "no more", panicked.Value)
	assert.Equal(t, 1, n)
	_, err = q.SubmitAll(limit(t), slices.Values([]int{1}), jobqueue.WithID("one"))
	require.ErrorIs(t, err, jobqueue.ErrInvalidOption)
}

func TestOpen_ForbiddenNames(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	for _, name := range []string{"", "a b", "a.b", "a*", ">", "a/b", `a\b`, "a\x00", "tab\t", strings.Repeat("a", 201), "\xff"} {
		_, err := jobqueue.Open[int, int](limit(t), nc, name)
		require.ErrorIs(t, err, jobqueue.ErrInvalidName, "%q", name)
	}
	for _, name := range []string{"a", "a-b_C9", "größe", strings.Repeat("a", 200)} {
		_, err := jobqueue.Open[int, int](limit(t), nc, name)
		require.NoError(t, err, "%q", name)
	}
}

func TestOpen_ConfigMismatchNamesTheField(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	base := []jobqueue.Option{jobqueue.WithMaxQueued(100), jobqueue.WithAckWait(time.Second)}
	openOn[int, int](t, nc, base...)
	openOn[int, int](t, nc, base...)
	openOn[int, int](t, nc, append(base, jobqueue.WithMaxAttempts(9))...) // is not stored
	openOn[int, int](t, nc, jobqueue.WithExisting())
	for field, opt := range map[string]jobqueue.Option{
		"MaxMsgs 100, not 50":       jobqueue.WithMaxQueued(50),
		"Storage File, not Memory":  jobqueue.WithStorage(jetstream.MemoryStorage),
		"Duplicates 2m0s, not 1m":   jobqueue.WithDedupeWindow(time.Minute),
		"MaxAge 24h0m0s, not 1h":    jobqueue.WithResultAge(time.Hour),
		"AckWait 1s, not 2s":        jobqueue.WithAckWait(2 * time.Second),
		`Description , not changed`: jobqueue.WithStreamConfig(func(c *jetstream.StreamConfig) { c.Description = "changed" }),
		"MaxRequestBatch 0, not 9":  jobqueue.WithConsumerConfig(func(c *jetstream.ConsumerConfig) { c.MaxRequestBatch = 9 }),
		`Metadata["team"]`:          jobqueue.WithStreamConfig(func(c *jetstream.StreamConfig) { c.Metadata = map[string]string{"team": "a"} }),
	} {
		_, err := jobqueue.Open[int, int](limit(t), nc, "test", append(base, opt)...)
		require.ErrorIs(t, err, jobqueue.ErrConfigMismatch, field)
		assert.Contains(t, err.Error(), field)
	}
	_, err := jobqueue.Open[int, int](limit(t), nc, "other", jobqueue.WithExisting())
	require.ErrorIs(t, err, jobqueue.ErrNotFound)
	_, err = jobqueue.Open[int, int](limit(t), nc, "replicated", jobqueue.WithReplicas(3))
	require.ErrorContains(t, err, "replicas")
}

type gob[V any] struct{ jobqueue.JSON[V] }

func TestOptions_BadValues(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	for text, opt := range map[string]jobqueue.Option{
		"WithReplicas(0)":          jobqueue.WithReplicas(0),
		"WithReplicas(6)":          jobqueue.WithReplicas(6),
		"WithStorage(7)":           jobqueue.WithStorage(7),
		"WithAckWait(1ms)":         jobqueue.WithAckWait(time.Millisecond),
		"WithMaxAttempts(0)":       jobqueue.WithMaxAttempts(0),
		"WithBackoff(nil)":         jobqueue.WithBackoff(nil),
		"WithMaxQueued(0)":         jobqueue.WithMaxQueued(0),
		"WithMaxBytes(0)":          jobqueue.WithMaxBytes(0),
		"WithDedupeWindow(-1s)":    jobqueue.WithDedupeWindow(-time.Second),
		"WithResultAge(0s)":        jobqueue.WithResultAge(0),
		"WithCodec(nil)":           jobqueue.WithCodec[int](nil),
		"gob[float64]":             jobqueue.WithCodec(gob[float64]{}),
		"WithStreamConfig(nil)":    jobqueue.WithStreamConfig(nil),
		"WithConsumerConfig(nil)":  jobqueue.WithConsumerConfig(nil),
		"WithStreamConfig: Name":   jobqueue.WithStreamConfig(func(c *jetstream.StreamConfig) { c.Name = "mine" }),
		"WithConsumerConfig: AckP": jobqueue.WithConsumerConfig(func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckAllPolicy }),
		"option 1 of 1 is nil":     nil,
	} {
		_, err := jobqueue.Open[int, string](limit(t), nc, "test", opt)
		require.ErrorIs(t, err, jobqueue.ErrInvalidOption, text)
		assert.Contains(t, err.Error(), text)
	}
	_, err := jobqueue.Open[int, int](limit(t), nc, "test", jobqueue.WithExisting(), jobqueue.WithReplicas(1))
	require.ErrorIs(t, err, jobqueue.ErrInvalidOption)

	q := openOn[int, string](t, nc, jobqueue.WithCodec(gob[int]{}), jobqueue.WithCodec(gob[string]{}))
	for text, opt := range map[string]jobqueue.SubmitOption{
		"WithID":                    jobqueue.WithID(""),
		"not 256":                   jobqueue.WithID(strings.Repeat("x", 256)),
		"Priority(9)":               jobqueue.WithPriority(9),
		"RunAt":                     jobqueue.RunAt(time.Time{}),
		"RunAfter(-1s)":             jobqueue.RunAfter(-time.Second),
		"submit option 1 of 1 is n": nil,
	} {
		_, err := q.Submit(limit(t), 1, opt)
		require.ErrorIs(t, err, jobqueue.ErrInvalidOption, text)
		assert.Contains(t, err.Error(), text)
	}
	for text, opt := range map[string]jobqueue.WorkOption{
		"WithConcurrency(0)":      jobqueue.WithConcurrency(0),
		"WithPrefetch(-1)":        jobqueue.WithPrefetch(-1),
		"WithTimeout(0s)":         jobqueue.WithTimeout(0),
		"WithWorkerName":          jobqueue.WithWorkerName("a\nb"),
		"WithLogger(nil)":         jobqueue.WithLogger(nil),
		"work option 1 of 1 is n": nil,
	} {
		_, err := q.Work(limit(t), func(context.Context, int) (string, error) { return "", nil }, opt)
		require.ErrorIs(t, err, jobqueue.ErrInvalidOption, text)
		assert.Contains(t, err.Error(), text)
	}
	_, err = q.Work(limit(t), nil)
	require.ErrorIs(t, err, jobqueue.ErrInvalidOption)
	_, err = q.WorkOn(limit(t), nil)
	require.ErrorIs(t, err, jobqueue.ErrInvalidOption)
}

func TestResult_WaitsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := q.Result(ctx, "nobody")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Contains(t, err.Error(), `"nobody"`)
	for _, err := range q.Results(ctx, 0) {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

func TestResults_GoOnWhereTheyWere(t *testing.T) {
	t.Parallel()
	q := open[int, int](t)
	work(t, q, identity, jobqueue.WithConcurrency(1))
	_, err := q.SubmitAll(limit(t), slices.Values(make([]int, 1000)))
	require.NoError(t, err)
	seen := map[string]bool{}
	var next uint64
	for len(seen) < 1000 {
		n := 0
		for r, err := range q.Results(limit(t), next) {
			require.NoError(t, err)
			require.False(t, seen[r.ID])
			seen[r.ID] = true
			next = r.Sequence + 1
			if n++; n == 300 || len(seen) == 1000 {
				break
			}
		}
	}
}
