package workpool_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/seed-a18b2dc9/workpool"
)

// More workers wake at once, and more callers come at once, than are let into the
// line for the mutex: each task is answered once, to whom it belongs.
func TestThousandsOfCallersAndWorkersAtOnce(t *testing.T) {
	synctest.Test(t, thousandsAtOnce) // where sleepers of a millisecond all wake at once
}

func thousandsAtOnce(t *testing.T) {
	const workers, callers, calls = 2000, 2000, 3
	sleepy := func(_ context.Context, n int) (int, error) {
		time.Sleep(time.Millisecond)
		return 2 * n, nil
	}
	p := mustNew(t, sleepy, workpool.WithWorkers(workers), workpool.WithQueueDepth(64), workpool.WithResultBuffer(64))
	var all sync.WaitGroup
	start := make(chan struct{})
	for caller := range callers {
		all.Go(func() {
			<-start
			for i := range calls {
				n := caller*calls + i
				value, err := p.Do(t.Context(), n)
				assert.NoError(t, err)
				assert.Equal(t, 2*n, value)
				if p.TrySubmit(n) != nil {
					assert.NoError(t, p.Submit(t.Context(), n))
				}
			}
		})
	}
	close(start)
	go func() {
		all.Wait()
		assert.NoError(t, p.Close())
	}()
	received := make([]int, callers*calls) // by task, how often
	for r := range p.Results() {
		assert.NoError(t, r.Err)
		assert.Equal(t, 2*r.Task, r.Value)
		received[r.Task]++
	}
	for n, times := range received {
		assert.Equal(t, 1, times, "task %d", n)
	}
	stats := p.Stats()
	assert.EqualValues(t, 2*callers*calls, stats.Succeeded)
	assert.Equal(t, stats.Submitted, stats.Succeeded)
}
