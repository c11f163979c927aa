package workpool_test

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

var errOdd = errors.New("odd")

// moody ends in every way that a handler can.
func moody(_ context.Context, n int) (int, error) {
	switch n % 4 {
	case 1:
		return 0, errOdd
	case 2:
		panic(n)
	case 3:
		runtime.Goexit()
	}
	return n, nil
}

func checkMood(t *testing.T, r workpool.Result[int, int]) {
	t.Helper()
	var panicked *workpool.PanicError
	switch r.Task % 4 {
	case 0:
		assert.NoError(t, r.Err)
		assert.Equal(t, r.Task, r.Value)
	case 1:
		assert.Equal(t, errOdd, r.Err)
	case 2:
		if assert.ErrorAs(t, r.Err, &panicked) {
			assert.Equal(t, r.Task, panicked.Value)
		}
	case 3:
		assert.Equal(t, workpool.ErrGoexit, r.Err)
	}
}

func TestRule1_AcceptedMeansAnswered(t *testing.T) {
	const submitters, each = 4, 500
	p := mustNew(t, moody, workpool.WithWorkers(3), workpool.WithQueueDepth(5), workpool.WithResultBuffer(2))
	var wg sync.WaitGroup
	for s := range submitters {
		wg.Go(func() {
			for n := range each {
				task := s*each + n
				switch {
				case n%10 == 3:
					_, err := p.Do(context.Background(), task)
					checkMood(t, workpool.Result[int, int]{Task: task, Value: task, Err: err})
				case n%2 == 0:
					assert.NoError(t, p.Submit(context.Background(), task))
				default:
					for p.TrySubmit(task) != nil {
						runtime.Gosched()
					}
				}
			}
		})
	}
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for {
			s := p.Stats()
			assert.Equal(t, s.Submitted, uint64(s.Queued+s.Running)+s.Succeeded+s.Failed+s.Aborted)
			assert.LessOrEqual(t, s.Panicked, s.Failed)
			select {
			case <-stop:
				return
			default:
				assert.NoError(t, p.Resize(1+rand.IntN(5)))
			}
		}
	})
	go func() {
		wg.Wait()
		close(stop)
		watcher.Wait()
		assert.NoError(t, p.Shutdown(context.Background()))
	}()
	seen := map[int]bool{}
	indexes := map[uint64]bool{}
	for r := range p.Results() {
		assert.False(t, seen[r.Task], "task %d answered twice", r.Task)
		assert.False(t, indexes[r.Index], "index %d given twice", r.Index)
		seen[r.Task], indexes[r.Index] = true, true
		assert.Equal(t, 1, r.Attempt)
		checkMood(t, r)
	}
	assert.Len(t, seen, submitters*each*9/10, "Do answers to its caller alone")
	s := p.Stats()
	assert.Equal(t, uint64(submitters*each), s.Submitted)
	assert.Equal(t, s.Submitted, s.Succeeded+s.Failed)
	assert.Equal(t, s.Submitted/4, s.Panicked)
}

func TestRule1_IndexIsTheOrderOfAcceptance(t *testing.T) {
	p := mustNew(t, identity, workpool.WithWorkers(1))
	for n := range 100 {
		require.NoError(t, p.Submit(t.Context(), n))
	}
	closed(t, p)
	for i, r := range collect(p) {
		assert.Equal(t, i, r.Task, "one worker runs them in order")
		assert.Equal(t, uint64(i), r.Index)
	}
}

func TestRule2_Bounded(t *testing.T) {
	for _, c := range []struct{ workers, depth, buffer int }{
		{1, 0, 0}, {1, 1, 0}, {2, 0, 3}, {3, 5, 2}, {8, 1, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := mustNew(t, identity,
				workpool.WithWorkers(c.workers), workpool.WithQueueDepth(c.depth), workpool.WithResultBuffer(c.buffer))
			bound := c.workers + c.depth + c.buffer
			var accepted atomic.Int64
			go func() {
				for p.Submit(context.Background(), 1) == nil {
					accepted.Add(1)
				}
			}()
			synctest.Wait() // until nothing moves any more: nobody receives
			assert.Equal(t, int64(bound), accepted.Load(), "%+v", c)
			s := p.Stats()
			assert.Equal(t, bound, s.Queued+s.Running+s.Undelivered)
			assert.Equal(t, c.buffer+c.workers, s.Undelivered)
			require.ErrorIs(t, p.TrySubmit(1), workpool.ErrQueueFull)

			for range p.Results() {
				break
			}
			synctest.Wait()
			assert.Equal(t, int64(bound+1), accepted.Load(), "one received, one more accepted")
			closed(t, p)
			assert.Len(t, collect(p), bound)
		})
	}
}

func TestRule2_MemoryStaysFlat(t *testing.T) {
	tasks := 1_000_000
	if testing.Short() {
		tasks = 50_000
	}
	p := mustNew(t, func(_ context.Context, payload []byte) ([]byte, error) { return payload, nil },
		workpool.WithWorkers(2), workpool.WithQueueDepth(8), workpool.WithResultBuffer(8))
	var live atomic.Int64 // payloads that are in the pool or with the consumer
	shared := make([]byte, 64<<10)
	go func() {
		for n := range tasks {
			live.Add(1)
			payload := shared
			if n%16 == 0 { // enough to see it if they were retained
				payload = make([]byte, 64<<10)
			}
			assert.NoError(t, p.Submit(context.Background(), payload))
		}
		assert.NoError(t, p.Close())
	}()
	n, most := 0, uint64(0)
	for r := range p.Results() {
		assert.LessOrEqual(t, live.Add(-1), int64(8+8+2+2))
		assert.Len(t, r.Value, 64<<10)
		if n++; n%(tasks/20) == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}
	assert.Equal(t, tasks, n)
	assert.Less(t, most, uint64(128<<20), "of %d MiB that went through", tasks/16/16)
}

func TestRule3_SubmitWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		p := mustNew(t, g.handle, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults())
		require.NoError(t, p.Submit(t.Context(), 1))
		require.NoError(t, p.Submit(t.Context(), 2))
		<-g.began
		submitted := make(chan error)
		go func() { submitted <- p.Submit(context.Background(), 3) }()
		synctest.Wait()
		select {
		case err := <-submitted:
			t.Fatal("did not wait for room", err)
		default:
		}
		g.end <- 1
		require.NoError(t, <-submitted)

		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { submitted <- p.Submit(ctx, 4) }()
		synctest.Wait()
		because := errors.New("no longer needed")
		cancel(because)
		err := <-submitted
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, because)
		require.ErrorIs(t, err, workpool.ErrQueueFull)
		require.ErrorContains(t, err, "1 tasks queued, 1 running, 0 of 1 workers wait for a receiver")
		require.ErrorIs(t, p.Submit(ctx, 5), context.Canceled)

		go func() { submitted <- p.Submit(context.Background(), 6) }()
		synctest.Wait()
		go func() {
			for range g.began { //revive:disable-line:empty-block // the queued task begins too
			}
		}()
		close(g.end)
		closed(t, p)
		close(g.began)
		if err := <-submitted; err != nil {
			require.ErrorIs(t, err, workpool.ErrClosed)
		}
	})
}

// The room and the end of the context come at the same time: whatever the
// submitter sees first, its task must not be accepted.
func TestRule3_EndedContextNeverEnqueues(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			g := newGate()
			p := mustNew(t, g.handle, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
			require.NoError(t, p.Submit(t.Context(), 1))
			<-g.began
			ctx, cancel := context.WithCancel(t.Context())
			submitted := make(chan error)
			go func() { submitted <- p.Submit(ctx, 2) }()
			synctest.Wait()
			cancel()
			g.end <- 1
			require.ErrorIs(t, <-submitted, context.Canceled)
			synctest.Wait()
			assert.Equal(t, uint64(1), p.Stats().Submitted)
			require.NoError(t, p.TrySubmit(3), "the room that it left is free")
			<-g.began
			g.end <- 3
			closed(t, p)
		})
	}
}

type key struct{}

func TestRule3_ValuesReachTheHandlerAndTheEndDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := context.WithValue(t.Context(), key{}, "of the pool")
		p := mustNew(t, func(ctx context.Context, _ int) (any, error) {
			time.Sleep(time.Second) // the submitter's context ends meanwhile
			_, limited := ctx.Deadline()
			assert.False(t, limited)
			return ctx.Value(key{}), ctx.Err()
		}, workpool.WithContext(base))
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "of the task"), time.Minute)
		require.NoError(t, p.Submit(ctx, 0))
		cancel()
		require.NoError(t, p.TrySubmit(1))
		closed(t, p)
		for _, r := range collect(p) {
			require.NoError(t, r.Err)
			assert.Equal(t, []string{"of the task", "of the pool"}[r.Task], r.Value)
		}
	})
}

func TestSubmitAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithQueueDepth(1), workpool.WithResultBuffer(0), workpool.WithWorkers(1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		accepted, err := p.SubmitAll(ctx, count(10))
		assert.Equal(t, 2, accepted, "nobody receives")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = p.SubmitAll(t.Context(), nil)
		require.Error(t, err)
		go func() {
			accepted, err := p.SubmitAll(context.Background(), panicAfter(3))
			assert.Equal(t, 3, accepted)
			var panicked *workpool.PanicError
			assert.ErrorAs(t, err, &panicked)
			assert.NoError(t, p.Close())
			accepted, err = p.SubmitAll(context.Background(), count(3))
			assert.Equal(t, 0, accepted)
			assert.ErrorIs(t, err, workpool.ErrClosed)
		}()
		assert.Len(t, collect(p), 5)
	})
}

// panicAfter yields n numbers and panics.
func panicAfter(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
		panic("no more")
	}
}

// Handlers that hand on their context make no chain of contexts: each lookup of
// a value would take longer than the one before.
func TestSubmit_GenerationsDoNotAddUp(t *testing.T) {
	const generations = 100_000
	var p *workpool.Pool[int, int]
	contexts := make(map[context.Context]bool)
	p = mustNew(t, func(ctx context.Context, n int) (int, error) {
		contexts[ctx] = true
		if n == 0 {
			return n, nil
		}
		return n, p.Submit(ctx, n-1)
	}, workpool.WithWorkers(1), workpool.WithoutResults())
	require.NoError(t, p.Submit(context.WithValue(t.Context(), key{}, 1), generations))
	require.NoError(t, p.Wait(t.Context()))
	closed(t, p)
	assert.Len(t, contexts, 1, "one worker, one context of the first submit")
}

// A task that nobody waits for is not inside the handler that submitted it.
func TestSubmit_LeavesTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b *workpool.Pool[int, int]
		var running, most atomic.Int64
		a = mustNew(t, func(ctx context.Context, n int) (int, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Second)
			return n, b.Submit(ctx, n)
		}, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		b = mustNew(t, func(ctx context.Context, n int) (int, error) {
			assert.NoError(t, a.Wait(ctx), "it is not a handler of a")
			type derived struct{}
			if n == 0 {
				return n, nil
			}
			return n, a.Submit(context.WithValue(ctx, derived{}, 1), n-1)
		}, workpool.WithWorkers(9), workpool.WithQueueDepth(0), workpool.WithoutResults())
		for range 3 {
			require.NoError(t, a.Submit(t.Context(), 3))
		}
		for a.Stats().Submitted < 12 {
			time.Sleep(time.Second)
		}
		require.NoError(t, a.Wait(t.Context()))
		require.NoError(t, b.Wait(t.Context()))
		closed(t, a)
		closed(t, b)
		assert.Equal(t, int64(1), most.Load(), "handlers of a at the same time")
	})
}
