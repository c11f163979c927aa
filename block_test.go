package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// A worker that takes a run is not free any more, and those who wait for room get
// no more of it than there is.
func TestRule2_ARunGivesRoomForOneTask(t *testing.T) {
	for _, waiting := range []int{1, 2, 5} {
		t.Run(fmt.Sprintf("waiting=%d", waiting), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const depth = 4
				p := warmed(t, 1, workpool.WithQueueDepth(depth))
				release := make(chan struct{})
				p.Pause()
				for range depth {
					require.NoError(t, p.TrySubmit(until(release)))
				}
				var submitters sync.WaitGroup
				for range waiting {
					submitters.Go(func() { assert.NoError(t, p.Submit(t.Context(), until(release))) })
				}
				synctest.Wait()
				p.Resume()
				synctest.Wait()
				assert.Equal(t, depth, p.Stats().Queued)
				assert.Equal(t, 1, p.Stats().Running)
				close(release)
				submitters.Wait()
				closed(t, p)
			})
		})
	}
}

// A worker that is not started before there are tasks for it comes for those of a
// run behind a blocked one.
func TestRule8_ResizeOfALargePoolReachesTheTasksOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const eager = 1024
		p := warmed(t, eager, workpool.WithQueueDepth(2*eager))
		release := occupy(t, p, eager-1)
		end := make(chan struct{})
		var behind atomic.Int32
		inOneGo(t, p, returning(1, nil), until(end), counted(&behind), counted(&behind))
		require.Equal(t, 2, p.Stats().Queued)
		require.NoError(t, p.Resize(eager+1))
		synctest.Wait()
		assert.Equal(t, int32(2), behind.Load())
		close(end)
		release()
		closed(t, p)
	})
}

// The tasks of a Map that a handler has begun in place of itself during a pause are
// there for all after it.
func TestRule8_ResumeReachesTheTasksOfANestedMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2))
		paused, end := make(chan struct{}), make(chan struct{})
		var behind atomic.Int32
		require.NoError(t, p.TrySubmit(func(ctx context.Context) (int, error) {
			<-paused
			_, err := p.Map(ctx, []closure{until(end), counted(&behind), counted(&behind)})
			return 0, err
		}))
		synctest.Wait()
		p.Pause()
		close(paused)
		synctest.Wait()
		require.Equal(t, 2, p.Stats().Running)
		p.Resume()
		synctest.Wait()
		assert.Equal(t, int32(2), behind.Load())
		close(end)
		closed(t, p)
	})
}

// So it is where the submitter whose room the idle worker is gives up.
func TestRule8_ASubmitterThatGivesUpLeavesItsWorkerToANestedMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0))
		nest, end, giveUp := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var behind atomic.Int32
		require.NoError(t, p.TrySubmit(func(ctx context.Context) (int, error) {
			<-nest
			_, err := p.Map(ctx, []closure{until(end), counted(&behind), counted(&behind)})
			return 0, err
		}))
		synctest.Wait()
		release := make(chan struct{})
		require.NoError(t, p.TrySubmit(until(release)))
		var submitter sync.WaitGroup
		submitter.Go(func() {
			ctx := &slowToEnd{Context: t.Context(), end: giveUp}
			assert.ErrorIs(t, p.Submit(ctx, returning(0, nil)), context.Canceled)
		})
		synctest.Wait()
		close(release)
		synctest.Wait()
		close(nest)
		synctest.Wait()
		close(giveUp)
		synctest.Wait()
		assert.Equal(t, int32(2), behind.Load())
		close(end)
		submitter.Wait()
		closed(t, p)
	})
}

// slowToEnd is a context that takes until end to say, when it is asked again, that it
// has ended.
type slowToEnd struct {
	context.Context
	asked atomic.Int32
	end   <-chan struct{}
}

func (c *slowToEnd) Err() error {
	if c.asked.Add(1) == 1 { // before it waits
		return nil
	}
	<-c.end
	return context.Canceled
}

// What a task returned when it asked for another attempt is what it yields if there
// comes none.
func TestBlock_ValueOfTheLastAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("failure")
		p := newClosures(t, workpool.WithShutdown(workpool.FinishRunning, 0))
		require.NoError(t, p.TrySubmit(returning(7, workpool.RetryAfter(time.Hour, failure))))
		synctest.Wait()
		closed(t, p)
		r := receive(t, p)
		require.ErrorIs(t, r.Err, workpool.ErrAborted)
		require.ErrorIs(t, r.Err, failure)
		assert.Equal(t, 7, r.Value)
	})
}

// An attempt that panics has no value, whatever the one before returned.
func TestRule7_APanicHasNoValue(t *testing.T) {
	p := mustNew(t, func(ctx context.Context, n int) (int, error) {
		if info, _ := workpool.InfoFrom(ctx); info.Attempt == 1 {
			return 7, workpool.RetryAfter(0, nil)
		}
		panic(n)
	})
	require.NoError(t, p.TrySubmit(1))
	closed(t, p)
	r := receive(t, p)
	var panicked *workpool.PanicError
	require.ErrorAs(t, r.Err, &panicked)
	assert.Zero(t, r.Value)
}

// heap returns how many bytes are in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// What a deep queue has taken is given back, though each task came with a context
// of its own.
func TestBlock_ADeepQueueGivesItsMemoryBack(t *testing.T) {
	const tasks, sane = 400_000, 25 << 20
	type key struct{}
	before := heap()
	p := mustNew(t, identity, workpool.WithQueueDepth(tasks), workpool.WithoutResults())
	a, b := context.WithValue(t.Context(), key{}, 1), context.WithValue(t.Context(), key{}, 2)
	p.Pause()
	for i := range tasks / 2 {
		require.NoError(t, p.Submit(a, i))
		require.NoError(t, p.Submit(b, i))
	}
	p.Resume()
	require.NoError(t, p.Wait(t.Context()))
	assert.Less(t, heap()-before, sane)
	closed(t, p)
}

// A few long tasks among many short ones take the memory of a few.
func TestRule2_LongTasksDontKeepTheMemoryOfShortOnes(t *testing.T) {
	type large [16 << 10]byte
	const workers, depth, size = 32, 64, 16 << 10
	release := make(chan struct{})
	before := heap()
	p := mustNew(t, func(_ context.Context, task large) (struct{}, error) {
		if task[0] == 1 {
			<-release
		}
		return struct{}{}, nil
	}, workpool.WithQueueDepth(depth), workpool.WithWorkers(workers), workpool.WithoutResults())
	for range workers - 1 {
		require.NoError(t, p.Submit(t.Context(), large{1}))
		for range 2 * depth {
			require.NoError(t, p.Submit(t.Context(), large{}))
		}
	}
	for p.Stats().Queued > 0 {
		runtime.Gosched()
	}
	assert.Less(t, heap()-before, 3*(workers+depth)*size)
	close(release)
	closed(t, p)
}

// The context of a task that was aborted is not retained, nor the error of one that
// nobody gets.
func TestRule9_ContextsOfAbortedTasksAreNotRetained(t *testing.T) {
	type key struct{}
	for name, option := range map[string]workpool.Option{
		"Results":        workpool.WithResultBuffer(1),
		"WithoutResults": workpool.WithoutResults(),
		"WithResultFunc": workpool.WithResultFunc(func(workpool.Result[int, int]) {}),
	} {
		t.Run(name, func(t *testing.T) {
			var r remains
			p := mustNew(t, identity, workpool.WithShutdown(workpool.Abort, 0), option)
			p.Pause()
			shared := context.WithValue(context.Background(), key{}, r.payload())
			for range 5 {
				require.NoError(t, p.Submit(context.WithValue(context.Background(), key{}, r.payload()), 1))
				require.NoError(t, p.Submit(shared, 1))
				require.NoError(t, p.Submit(shared, 1))
			}
			closed(t, p)
			collect(p)
			r.assertCollected(t)
			runtime.KeepAlive(p)
		})
	}
}

// A payloadError holds on to something.
type payloadError struct{ *payload }

func (payloadError) Error() string { return "failure" }

// The error of a task that nobody gets is dropped when the task has ended, though
// the one behind it is a long one.
func TestRule9_ErrorsThatNobodyGetsAreNotRetained(t *testing.T) {
	for name, option := range map[string]workpool.Option{
		"WithoutResults": workpool.WithoutResults(),
		"WithResultFunc": workpool.WithResultFunc(func(workpool.Result[closure, int]) {}),
	} {
		t.Run(name, func(t *testing.T) {
			var r remains
			synctest.Test(t, func(t *testing.T) {
				p := warmed(t, 1, option)
				release := make(chan struct{})
				fails := func(context.Context) (int, error) { return 0, payloadError{r.payload()} }
				inOneGo(t, p, fails, fails, until(release))
				r.assertCollected(t)
				close(release)
				closed(t, p)
			})
		})
	}
}

// Results of a Stream that was broken off are dropped, though its input is blocked
// and the place where they lie is not done with.
func TestRule9_AStreamThatWasBrokenOffRetainsNothing(t *testing.T) {
	type key struct{}
	var r, request remains
	p := newPayloads(t, &r, workpool.WithWorkers(1))
	first, unblock := make(chan struct{}), make(chan struct{})
	input := func(yield func(*payload) bool) {
		yield(r.payload())
		<-first
		for i := 0; i < 9 && yield(r.payload()); i++ {
		}
		<-unblock
	}
	for range p.Stream(context.WithValue(t.Context(), key{}, request.payload()), input) {
		close(first)
		for p.Stats().Succeeded < 10 {
			runtime.Gosched()
		}
		break
	}
	r.assertCollected(t)
	close(unblock)
	closed(t, p)
	request.assertCollected(t)
	runtime.KeepAlive(p)
}

// Streams whose context ends as their last block fills up: no block is used twice at
// a time.
func TestBlock_IsUsedOnceWhereAStreamEndsWithIt(t *testing.T) {
	p := mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(256), workpool.WithResultBuffer(256))
	stop := make(chan struct{})
	var meddlers sync.WaitGroup
	for range 4 {
		meddlers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					p.Stats()
					runtime.Gosched() // or it starves the others on one processor
				}
			}
		})
	}
	for round := range 300 {
		ctx, cancel := context.WithCancel(context.Background())
		for range p.Stream(ctx, func(yield func(int) bool) {
			for i := 0; i < 200 && yield(i); i++ {
				if i == 62 { // the next one fills the block
					go cancel()
				}
			}
		}) {
		}
		cancel()
		if round%100 != 99 {
			continue
		}
		for i := range 200 {
			require.NoError(t, p.TrySubmit(i))
		}
		seen := map[int]bool{}
		for range 200 {
			r := receive(t, p)
			require.False(t, seen[r.Task], "task %d after %d rounds", r.Task, round)
			seen[r.Task] = true
		}
	}
	close(stop)
	meddlers.Wait()
	closed(t, p)
}

// incomparable is a context that == panics for.
type incomparable struct {
	context.Context
	_ []int
}

// mapped is one that is no pointer, but looks like one.
type mapped map[string]context.Context

func (m mapped) Deadline() (time.Time, bool) { return m["in"].Deadline() }
func (m mapped) Done() <-chan struct{}       { return m["in"].Done() }
func (m mapped) Err() error                  { return m["in"].Err() }
func (m mapped) Value(key any) any           { return m["in"].Value(key) }

// Each task has the values that it was submitted with, whatever kind of context
// carries them and whichever stand beside it, and keeps its place.
func TestBlock_ContextsOfAllKindsSideBySide(t *testing.T) {
	type key struct{}
	p := mustNew(t, func(ctx context.Context, _ any) (any, error) { return ctx.Value(key{}), nil }, workpool.WithWorkers(1))
	valued := func(v any) context.Context { return context.WithValue(context.Background(), key{}, v) }
	shared := valued("shared")
	kinds := []func(i int) (context.Context, any){
		func(int) (context.Context, any) { return context.Background(), nil },
		func(int) (context.Context, any) { return context.TODO(), nil },
		func(int) (context.Context, any) { return shared, "shared" },
		func(i int) (context.Context, any) { return valued(i), i },
		func(i int) (context.Context, any) { return incomparable{Context: valued(i)}, i },
		func(i int) (context.Context, any) { return mapped{"in": valued(i)}, i },
	}
	rng := rand.New(rand.NewPCG(1, 2))
	n := uint64(0)
	for range 200 {
		p.Pause()
		size := rng.IntN(100)
		k := 0
		for i := range size {
			if rng.IntN(3) == 0 {
				k = rng.IntN(len(kinds))
			}
			ctx, want := kinds[k](i)
			require.NoError(t, p.Submit(ctx, want))
		}
		p.Resume()
		for range size {
			r := receive(t, p)
			require.Equal(t, r.Task, r.Value)
			require.Equal(t, n, r.Index)
			n++
		}
	}
	closed(t, p)
}

// Lives of pools: submitters, receivers that break, panic or range in a range, all
// ends of tasks, and an end of the pool at any moment. Each accepted task is
// answered once, with all that belongs to it.
func TestBlock_RandomLives(t *testing.T) {
	for seed := range 150 {
		within(t, func() { randomLife(t, rand.New(rand.NewPCG(uint64(seed), 7))) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// A lived task is one of randomLife.
type lived struct{ n, end int }

func randomLife(t *testing.T, rng *rand.Rand) {
	const submitters, each = 4, 150
	type key struct{}
	parent, cancel := context.WithCancel(context.Background())
	defer cancel()
	failure := errors.New("failure")
	handler := func(ctx context.Context, task lived) (workpool.Info, error) {
		info, ok := workpool.InfoFrom(ctx)
		if v, _ := ctx.Value(key{}).(int); !ok || v != 0 && v != task.n {
			return info, errors.New("not its context")
		}
		switch task.end {
		case 1:
			return info, failure
		case 2:
			panic(task.n)
		case 3:
			runtime.Goexit()
		case 4:
			if info.Attempt < 3 {
				return info, workpool.RetryAfter(time.Duration(task.n%2), failure)
			}
		case 6:
			time.Sleep(10 * time.Microsecond)
		}
		return info, nil
	}
	var answers [submitters*each + 1]atomic.Int32 // 1 when accepted, 0 when answered
	var received, accepted atomic.Int64
	check := func(r workpool.Result[lived, workpool.Info]) {
		received.Add(1)
		answers[r.Task.n].Add(-1)
		attempts := 1
		var panicked *workpool.PanicError
		switch aborted := errors.Is(r.Err, workpool.ErrAborted); {
		case aborted:
			assert.Equal(t, errors.Is(r.Err, failure), r.Value != workpool.Info{}, "%+v: those of its last attempt", r)
			return
		case r.Task.end == 1:
			assert.Equal(t, failure, r.Err)
		case r.Task.end == 2:
			assert.True(t, errors.As(r.Err, &panicked) && panicked.Value == r.Task.n, "%+v", r)
			return
		case r.Task.end == 3:
			assert.Equal(t, workpool.ErrGoexit, r.Err)
			return
		case r.Task.end == 4:
			attempts = 3
			fallthrough
		default:
			assert.NoError(t, r.Err)
		}
		assert.Equal(t, workpool.Info{Index: r.Index, Worker: r.Worker, Attempt: r.Attempt}, r.Value, "%+v", r)
		assert.Equal(t, attempts, r.Attempt)
	}
	depth, buffer := []int{0, 1, 2, 5, 100, 1000}[rng.IntN(6)], []int{0, 1, 2, 50}[rng.IntN(4)]
	opts := []workpool.Option{
		workpool.WithWorkers(1 + rng.IntN(5)), workpool.WithQueueDepth(depth), workpool.WithContext(parent),
		workpool.WithShutdown([]workpool.ShutdownMode{workpool.Drain, workpool.FinishRunning, workpool.Abort}[rng.IntN(3)], 0),
	}
	collects := rng.IntN(3) > 0
	if collects {
		opts = append(opts, workpool.WithResultBuffer(buffer))
	} else {
		opts = append(opts, workpool.WithResultFunc(func(r workpool.Result[lived, workpool.Info]) {
			check(r)
			switch r.Task.n % 13 {
			case 5:
				panic("told")
			case 7:
				runtime.Goexit()
			}
		}))
	}
	p := mustNew(t, handler, opts...)
	var all sync.WaitGroup
	for s := range submitters {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 1))
		wild := rng.IntN(3) > 0
		next := func(i int) lived {
			task := lived{n: 1 + s*each + i}
			if wild && rng.IntN(4) == 0 {
				task.end = rng.IntN(7)
			}
			return task
		}
		all.Go(func() {
			for i := 0; i < each; i++ {
				task := next(i)
				var err error
				n := 1
				switch rng.IntN(6) {
				case 0:
					err = p.Submit(context.WithValue(context.Background(), key{}, task.n), task)
				case 1:
					for err = p.TrySubmit(task); errors.Is(err, workpool.ErrQueueFull); err = p.TrySubmit(task) {
						runtime.Gosched()
					}
				case 2:
					tasks := []lived{task}
					for i++; i < each && rng.IntN(30) > 0; i++ {
						tasks = append(tasks, next(i))
					}
					i--
					n, err = p.SubmitAll(context.Background(), slices.Values(tasks))
					for _, task := range tasks[:n] {
						answers[task.n].Add(1)
					}
					accepted.Add(int64(n))
					n = 0
				case 3:
					_, err = p.SubmitCancel(context.Background(), task)
				default:
					err = p.Submit(context.Background(), task)
				}
				if err != nil {
					assert.ErrorIs(t, err, workpool.ErrClosed)
					return
				}
				if n > 0 {
					accepted.Add(1)
					answers[task.n].Add(1)
				}
			}
		})
	}
	for range 1 + rng.IntN(3) {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 2))
		all.Go(func() {
			for over := !collects; !over; {
				func() {
					defer func() { _ = recover() }()
					for r := range p.Results() {
						check(r)
						switch rng.IntN(30) {
						case 0:
							return
						case 1:
							panic("in the loop")
						case 2:
							for r := range p.Results() {
								check(r)
								break
							}
						case 3:
							runtime.Gosched()
						}
					}
					over = true
				}()
			}
		})
	}
	for range rng.IntN(200) {
		s := p.Stats()
		assert.Equal(t, s.Submitted, uint64(s.Queued+s.Running)+s.Succeeded+s.Failed+s.Aborted, "%+v", s)
		assert.GreaterOrEqual(t, min(s.Queued, s.Running, s.Undelivered), 0, "%+v", s)
		switch rng.IntN(8) {
		case 0:
			assert.NoError(t, p.Resize(1+rng.IntN(6)))
		case 1:
			p.Pause()
			runtime.Gosched()
			p.Resume()
		case 2:
			time.Sleep(20 * time.Microsecond)
		}
	}
	switch rng.IntN(6) {
	case 0:
		cancel()
	case 1:
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Microsecond)
		defer cancel()
		_ = p.Shutdown(ctx)
	}
	_ = p.Close()
	all.Wait()
	assert.Equal(t, accepted.Load(), received.Load())
	for i := range answers {
		assert.Zero(t, answers[i].Load(), i)
	}
	s := p.Stats()
	assert.Equal(t, s.Submitted, s.Succeeded+s.Failed+s.Aborted, "%+v", s)
	assert.Zero(t, s.Queued+s.Running+s.Undelivered+s.Workers)
	assert.Equal(t, uint64(accepted.Load()), s.Submitted)
}
