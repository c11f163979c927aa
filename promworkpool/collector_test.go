package promworkpool_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/promworkpool"
)

func TestCollector_Stats(t *testing.T) {
	c := newCollector(t)
	require.NoError(t, c.Add(snapshot{
		Name: "a", Size: 8, QueueDepth: 100, ResultBuffer: 50, Paused: true, Closed: true,
		Workers: 7, Running: 6, Queued: 20, Undelivered: 30, Waiting: 4, Held: 1, Parked: 2,
		Submitted: 126, Succeeded: 50, Failed: 30, Panicked: 10, Aborted: 20, Dropped: 5, Cancelled: 7,
		Refused: 9, Retried: 11,
	}))
	require.NoError(t, c.Add(snapshot{Name: "b"}))

	want := `
# HELP workpool_callers_waiting Callers that wait for room in the queue.
# TYPE workpool_callers_waiting gauge
workpool_callers_waiting{pool="a"} 4
workpool_callers_waiting{pool="b"} 0
# HELP workpool_closed Whether the pool is closed: 1 or 0.
# TYPE workpool_closed gauge
workpool_closed{pool="a"} 1
workpool_closed{pool="b"} 0
# HELP workpool_paused Whether the pool is paused: 1 or 0.
# TYPE workpool_paused gauge
workpool_paused{pool="a"} 1
workpool_paused{pool="b"} 0
# HELP workpool_queue_capacity Tasks that the queue has room for, with priorities each queue.
# TYPE workpool_queue_capacity gauge
workpool_queue_capacity{pool="a"} 100
workpool_queue_capacity{pool="b"} 0
# HELP workpool_results_capacity Results that the result buffer has room for.
# TYPE workpool_results_capacity gauge
workpool_results_capacity{pool="a"} 50
workpool_results_capacity{pool="b"} 0
# HELP workpool_results_undelivered Results that no receiver has taken.
# TYPE workpool_results_undelivered gauge
workpool_results_undelivered{pool="a"} 30
workpool_results_undelivered{pool="b"} 0
# HELP workpool_retries_total Attempts of tasks beyond the first.
# TYPE workpool_retries_total counter
workpool_retries_total{pool="a"} 11
workpool_retries_total{pool="b"} 0
# HELP workpool_tasks_parked Queued tasks that wait for their next attempt.
# TYPE workpool_tasks_parked gauge
workpool_tasks_parked{pool="a"} 2
workpool_tasks_parked{pool="b"} 0
# HELP workpool_tasks_queued Accepted tasks that no worker has begun.
# TYPE workpool_tasks_queued gauge
workpool_tasks_queued{pool="a"} 20
workpool_tasks_queued{pool="b"} 0
# HELP workpool_tasks_refused_total Tasks not accepted: no room, closed, or their caller gave up waiting.
# TYPE workpool_tasks_refused_total counter
workpool_tasks_refused_total{pool="a"} 9
workpool_tasks_refused_total{pool="b"} 0
# HELP workpool_tasks_running Tasks that a worker has begun.
# TYPE workpool_tasks_running gauge
workpool_tasks_running{pool="a"} 6
workpool_tasks_running{pool="b"} 0
# HELP workpool_tasks_submitted_total Tasks accepted.
# TYPE workpool_tasks_submitted_total counter
workpool_tasks_submitted_total{pool="a"} 126
workpool_tasks_submitted_total{pool="b"} 0
# HELP workpool_tasks_total Tasks ended. succeeded, failed and panicked ran; aborted, dropped and cancelled never ran, or were not run again.
# TYPE workpool_tasks_total counter
workpool_tasks_total{outcome="aborted",pool="a"} 8
workpool_tasks_total{outcome="cancelled",pool="a"} 7
workpool_tasks_total{outcome="dropped",pool="a"} 5
workpool_tasks_total{outcome="failed",pool="a"} 20
workpool_tasks_total{outcome="panicked",pool="a"} 10
workpool_tasks_total{outcome="succeeded",pool="a"} 50
workpool_tasks_total{outcome="aborted",pool="b"} 0
workpool_tasks_total{outcome="cancelled",pool="b"} 0
workpool_tasks_total{outcome="dropped",pool="b"} 0
workpool_tasks_total{outcome="failed",pool="b"} 0
workpool_tasks_total{outcome="panicked",pool="b"} 0
workpool_tasks_total{outcome="succeeded",pool="b"} 0
# HELP workpool_workers Workers, or the started ones of an elastic pool.
# TYPE workpool_workers gauge
workpool_workers{pool="a"} 7
workpool_workers{pool="b"} 0
# HELP workpool_workers_held Workers that wait because their result has no room.
# TYPE workpool_workers_held gauge
workpool_workers_held{pool="a"} 1
workpool_workers_held{pool="b"} 0
# HELP workpool_workers_max Workers that there may be.
# TYPE workpool_workers_max gauge
workpool_workers_max{pool="a"} 8
workpool_workers_max{pool="b"} 0
`
	names := slices.Collect(maps.Keys(gather(t, c)))
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "_seconds") })
	assert.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(want), names...))
}

func TestCollector_Histograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(t, promworkpool.WithBuckets(0.1, 1, 10))
		pool := newPool(t, c, "clips", workpool.WithWorkers(1))
		for range 3 { // they begin after 0, 2 and 4 seconds
			require.NoError(t, pool.Submit(t.Context(), func(context.Context) (int, error) {
				time.Sleep(2 * time.Second)
				return 0, errFailed
			}))
		}
		require.NoError(t, pool.Shutdown(t.Context()))

		assert.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(`
# HELP workpool_task_run_seconds How long the handler ran for attempts of tasks.
# TYPE workpool_task_run_seconds histogram
workpool_task_run_seconds_bucket{pool="clips",le="0.1"} 0
workpool_task_run_seconds_bucket{pool="clips",le="1"} 0
workpool_task_run_seconds_bucket{pool="clips",le="10"} 3
workpool_task_run_seconds_bucket{pool="clips",le="+Inf"} 3
workpool_task_run_seconds_sum{pool="clips"} 6
workpool_task_run_seconds_count{pool="clips"} 3
# HELP workpool_task_wait_seconds How long attempts of tasks waited, from when they were handed in or due again until they began.
# TYPE workpool_task_wait_seconds histogram
workpool_task_wait_seconds_bucket{pool="clips",le="0.1"} 1
workpool_task_wait_seconds_bucket{pool="clips",le="1"} 1
workpool_task_wait_seconds_bucket{pool="clips",le="10"} 3
workpool_task_wait_seconds_bucket{pool="clips",le="+Inf"} 3
workpool_task_wait_seconds_sum{pool="clips"} 6
workpool_task_wait_seconds_count{pool="clips"} 3
`), "workpool_task_run_seconds", "workpool_task_wait_seconds"))
	})
}

func TestCollector_EndsOfTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(t)
		pool := newPool(t, c, "p", workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithOverflow(workpool.DropOldest))
		require.NoError(t, pool.Submit(t.Context(), succeed))
		_, err := pool.Do(t.Context(), func(context.Context) (int, error) { return 0, errFailed })
		require.ErrorIs(t, err, errFailed)
		_, err = pool.Do(t.Context(), func(context.Context) (int, error) { panic("!") })
		require.Error(t, err)

		// One runs, a caller gives up the second, the next two wait, and the last takes the place of one.
		require.NoError(t, pool.Submit(t.Context(), func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }))
		synctest.Wait()
		cancel, err := pool.SubmitCancel(t.Context(), succeed)
		require.NoError(t, err)
		cancel()
		for range 3 {
			require.NoError(t, pool.Submit(t.Context(), succeed))
		}
		ended, end := context.WithCancel(t.Context())
		end()
		require.Error(t, pool.Shutdown(ended)) // aborts one that runs and two that wait
		require.NoError(t, pool.Wait(t.Context()))
		require.ErrorIs(t, pool.Submit(t.Context(), succeed), workpool.ErrClosed)

		assert.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(`
# HELP workpool_tasks_refused_total Tasks not accepted: no room, closed, or their caller gave up waiting.
# TYPE workpool_tasks_refused_total counter
workpool_tasks_refused_total{pool="p"} 1
# HELP workpool_tasks_total Tasks ended. succeeded, failed and panicked ran; aborted, dropped and cancelled never ran, or were not run again.
# TYPE workpool_tasks_total counter
workpool_tasks_total{outcome="aborted",pool="p"} 2
workpool_tasks_total{outcome="cancelled",pool="p"} 1
workpool_tasks_total{outcome="dropped",pool="p"} 1
workpool_tasks_total{outcome="failed",pool="p"} 2
workpool_tasks_total{outcome="panicked",pool="p"} 1
workpool_tasks_total{outcome="succeeded",pool="p"} 1
`), "workpool_tasks_total", "workpool_tasks_refused_total"))
		assert.EqualValues(t, 4, histogram(t, c, "workpool_task_run_seconds", "p").GetSampleCount(), "those that ran")
	})
}

func TestCollector_Lint(t *testing.T) {
	c := newCollector(t)
	newPool(t, c, "a")
	newPool(t, c, "b")
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

func TestREADME_HasEveryMetric(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(readme), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	c := newCollector(t)
	newPool(t, c, "p")
	assert.ElementsMatch(t, slices.Collect(maps.Keys(gather(t, c))),
		regexp.MustCompile(`\bworkpool_\w+`).FindAllString(section, -1))
}

// counted is a Pool that counts the calls of its Stats.
type counted struct {
	promworkpool.Pool
	calls int
}

func (c *counted) Stats() workpool.Stats {
	c.calls++
	return c.Pool.Stats()
}

func TestCollector_OneStatsPerScrape(t *testing.T) {
	c := newCollector(t)
	pool := &counted{Pool: snapshot{Name: "a"}}
	require.NoError(t, c.Add(pool))
	pool.calls = 0
	gather(t, c)
	assert.Equal(t, 1, pool.calls)
}

func TestCollector_OneMoment(t *testing.T) {
	c := newCollector(t)
	pool := newPool(t, c, "busy", workpool.WithWorkers(2))
	var submitter sync.WaitGroup
	var stop atomic.Bool
	submitter.Go(func() {
		for !stop.Load() {
			assert.NoError(t, pool.Submit(t.Context(), succeed))
		}
	})
	for range 100 {
		families := gather(t, c)
		assert.Equal(t, sum(families, "workpool_tasks_submitted_total"),
			sum(families, "workpool_tasks_queued")+sum(families, "workpool_tasks_running")+sum(families, "workpool_tasks_total"))
	}
	stop.Store(true)
	submitter.Wait()
	require.NoError(t, pool.Shutdown(t.Context()))

	families := gather(t, c)
	ended := sum(families, "workpool_tasks_total")
	assert.Equal(t, sum(families, "workpool_tasks_submitted_total"), ended)
	assert.Equal(t, ended, histogram(t, c, "workpool_task_wait_seconds", "busy").GetSampleCount())
	assert.Equal(t, ended, histogram(t, c, "workpool_task_run_seconds", "busy").GetSampleCount())
}

// sum returns the sum of the gauges or counters with the given name.
func sum(families map[string]*dto.MetricFamily, name string) (sum uint64) {
	for _, m := range families[name].GetMetric() {
		sum += uint64(m.GetGauge().GetValue() + m.GetCounter().GetValue())
	}
	return sum
}

func TestAdd_Errors(t *testing.T) {
	c := newCollector(t)
	require.NoError(t, c.Add(snapshot{Name: "taken", Submitted: 1}))
	var none *workpool.Pool[int, int]
	for _, test := range []struct {
		name string
		pool promworkpool.Pool
		want string
	}{
		{"nil", nil, "promworkpool: Add of a nil pool"},
		{"nil in an interface", none, "promworkpool: Add of a nil pool"},
		{"zero", &workpool.Pool[int, int]{}, "promworkpool: the pool has no name for the label pool: give it one with workpool.WithName"},
		{"no name", snapshot{}, "promworkpool: the pool has no name for the label pool: give it one with workpool.WithName"},
		{"not UTF-8", snapshot{Name: "\xff"}, `promworkpool: the name of the pool, "\xff", is not valid UTF-8, as a label has to be`},
		{"twice", snapshot{Name: "taken", Submitted: 2}, `promworkpool: a pool named "taken" has been added already: give each its own name, or call Remove("taken") first if that pool is gone`},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.EqualError(t, c.Add(test.pool), test.want)
		})
	}
	families := gather(t, c)
	assert.Len(t, families["workpool_tasks_submitted_total"].GetMetric(), 1)
	assert.EqualValues(t, 1, sum(families, "workpool_tasks_submitted_total"), "of the first")
}

func TestRemove(t *testing.T) {
	c := newCollector(t)
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	for range 2 {
		pool := newPool(t, c, "again")
		_, err := pool.Do(t.Context(), succeed)
		require.NoError(t, err)
		require.NoError(t, pool.Close())
		assert.EqualValues(t, 1, histogram(t, c, "workpool_task_run_seconds", "again").GetSampleCount(), "a closed pool is still there")

		c.Remove("again")
		gathered, err := registry.Gather()
		require.NoError(t, err)
		assert.Empty(t, gathered)
		c.Remove("again")
	}
}

func TestObserver_OfPoolNotAdded(t *testing.T) {
	c := newCollector(t)
	pool, err := workpool.New(workpool.Call[int], workpool.WithName("p"), workpool.WithObserver(c.Observer()))
	require.NoError(t, err)
	_, err = pool.Do(t.Context(), succeed)
	require.NoError(t, err)
	require.NoError(t, c.Add(pool))
	_, err = pool.Do(t.Context(), succeed)
	require.NoError(t, err)
	require.NoError(t, pool.Close())
	assert.EqualValues(t, 1, histogram(t, c, "workpool_task_wait_seconds", "p").GetSampleCount())
	assert.EqualValues(t, 1, histogram(t, c, "workpool_task_run_seconds", "p").GetSampleCount())
}

func TestCollector_ManyGoroutines(t *testing.T) {
	c := newCollector(t, promworkpool.WithExemplar(func(context.Context) prometheus.Labels {
		return prometheus.Labels{"trace_id": "1"}
	}))
	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(c))
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 20 {
				name := fmt.Sprint(i)
				pool, err := workpool.New(workpool.Call[int], workpool.WithName(name), workpool.WithObserver(c.Observer()))
				assert.NoError(t, err)
				assert.NoError(t, c.Add(pool))
				_, err = pool.Do(t.Context(), succeed)
				assert.NoError(t, err)
				assert.NoError(t, pool.Close())
				c.Remove(name)
			}
		})
		all.Go(func() {
			for range 20 {
				_, err := registry.Gather()
				assert.NoError(t, err)
			}
		})
	}
	all.Wait()
}
