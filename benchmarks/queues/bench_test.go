package queues

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A job has some sixty bytes as JSON.
type job struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// running is a queue with a worker, whose handler ends with the job as its result.
type running struct {
	submit func([]job) error   // returns when all of them are stored
	stored func() (int, error) // how many jobs have ended with a stored result
}

// BenchmarkQueues submits jobs and runs them at the same time. An operation is a
// job, from before it is submitted until its result is stored. Each has the ID
// that the queue gives to jobs without one.
func BenchmarkQueues(b *testing.B) {
	for _, impl := range []struct {
		name  string
		start func(b *testing.B, handle func(job)) running // until b ends
	}{
		{"jobqueue", startJobqueue},
		{"asynq", startAsynq},
		{"river-sqlite", startRiver},
	} {
		b.Run("impl="+impl.name, func(b *testing.B) {
			jobs := make([]job, b.N)
			for i := range jobs {
				jobs[i] = job{ID: i, Name: fmt.Sprintf("some text %020d", i)}
			}
			var executed atomic.Int64
			runs := make([]atomic.Int32, b.N)
			queue := impl.start(b, func(j job) {
				if runs[j.ID].Add(1) == 1 {
					executed.Add(1)
				}
			})
			b.ResetTimer()
			require.NoError(b, queue.submit(jobs))
			// Only then what costs the queue something to answer.
			await(b, "executed", func() (int, error) { return int(executed.Load()), nil })
			await(b, "stored", queue.stored)
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
			for id := range runs {
				if n := runs[id].Load(); n > 1 { // all three promise at least once
					b.Logf("job %d ran %d times", id, n)
				}
			}
		})
	}
}

// await waits until count says that it is all jobs.
func await(b *testing.B, what string, count func() (int, error)) {
	b.Helper()
	const patience = 5 * time.Minute
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		n, err := count()
		require.NoError(b, err)
		if n == b.N {
			return
		}
		if n > b.N || time.Since(begin) > patience {
			b.Fatalf("%d of %d jobs are %s", n, b.N, what)
		}
	}
}
