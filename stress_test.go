package workpool_test

import (
	"context"
	"errors"
	"flag"
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

var stressSeed = flag.Uint64("stress.seed", 0, "the only seed that the stress tests use")

// A life of a pool: random options, and many goroutines that do all that can be done with it
// at once, until it ends in one of the ways in which it can. In a bubble what hangs is a
// deadlock.
func TestStress_RandomLivesInABubble(t *testing.T) {
	eachSeed(rounds(150, 5_000), func(seed uint64) bool {
		return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newStress(t, seed, time.Millisecond).live() })
		})
	})
}

// The same with real goroutines and clocks.
func TestStress_RandomLives(t *testing.T) {
	eachSeed(rounds(150, 5_000), func(seed uint64) bool {
		return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			within(t, func() { newStress(t, seed, 10*time.Microsecond).live() })
		})
	})
}

func eachSeed(n int, run func(seed uint64) bool) {
	if *stressSeed != 0 {
		run(*stressSeed)
		return
	}
	for range n {
		if !run(rand.Uint64()) {
			return
		}
	}
}

// A stressTask is a task of a stress test.
type stressTask struct {
	id    int
	key   any // nil, or a number
	floor int // its handler uses keys from this on, so that no two wait for each other's
	kind  int
	depth int
	level workpool.Priority
}

// A stressValue says what ran where.
type stressValue struct {
	id   int
	info workpool.Info
}

type stressResult = workpool.Result[stressTask, stressValue]

type stress struct {
	t    *testing.T
	unit time.Duration
	seed uint64
	busy int // as many times as often
	pool *workpool.Pool[stressTask, stressValue]

	ids      atomic.Int64
	keys     [stressKeys]atomic.Int32 // how many run
	left     sync.WaitGroup           // goroutines that handlers leave behind
	mu       sync.Mutex
	accepted map[int]int // how often; whose results are for Results
	answered map[int]int
	rng      *rand.Rand // guarded by mu

	results, keyed bool
	workers        int
	cancel         context.CancelFunc
	mayFail        bool // the result function panics
	observed       bool

	ran, begun, ended atomic.Int64 // attempts, as handlers and the observer have counted them
}

const stressKeys = 6

func newStress(t *testing.T, seed uint64, unit time.Duration) *stress {
	return &stress{
		t: t, unit: unit, seed: seed, busy: 1, rng: rand.New(rand.NewPCG(seed, 1)),
		accepted: map[int]int{}, answered: map[int]int{}, cancel: func() {},
	}
}

// n returns a random number below most.
func (s *stress) n(most int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(most)
}

func (s *stress) oneIn(n int) bool { return s.n(n) == 0 }

func (s *stress) nap(most int) time.Duration { return time.Duration(s.n(most)) * s.unit }

func (s *stress) options() []workpool.Option {
	s.workers = 1 + s.n(5)
	opts := []workpool.Option{workpool.WithWorkers(s.workers)}
	if s.oneIn(2) {
		opts = append(opts, workpool.WithQueueDepth(s.n(4)))
	}
	switch s.n(5) {
	case 0:
		opts = append(opts, workpool.WithoutResults())
	case 1:
		s.mayFail = s.oneIn(2)
		opts = append(opts, workpool.WithResultFunc(func(r stressResult) {
			s.got(r)
			if s.mayFail && s.oneIn(5) {
				if s.oneIn(2) {
					runtime.Goexit()
				}
				panic("result function")
			}
		}))
	default:
		s.results = true
		if s.oneIn(2) {
			opts = append(opts, workpool.WithResultBuffer(s.n(4)))
		}
		if s.oneIn(3) {
			opts = append(opts, workpool.WithOrdered())
		}
	}
	if s.keyed = s.oneIn(2); s.keyed {
		opts = append(opts, workpool.WithKey(func(task stressTask) any { return task.key }))
		if s.oneIn(2) {
			opts = append(opts, workpool.WithKeyDepth(1+s.n(3)))
		}
	}
	if s.oneIn(3) {
		opts = append(opts, workpool.WithPriority(func(task stressTask) workpool.Priority { return task.level }))
	}
	if s.oneIn(3) {
		opts = append(opts, workpool.WithElastic(s.n(s.workers+1), time.Duration(1+s.n(3))*s.unit))
	}
	if s.oneIn(2) {
		opts = append(opts, workpool.WithOverflow(workpool.Overflow(s.n(5))))
	}
	if s.oneIn(2) {
		ctx, cancel := context.WithCancel(context.Background())
		s.cancel = cancel
		opts = append(opts, workpool.WithContext(ctx))
	}
	if s.oneIn(2) {
		var limit time.Duration
		if s.oneIn(2) {
			limit = time.Duration(1+s.n(20)) * s.unit
		}
		opts = append(opts, workpool.WithShutdown(workpool.ShutdownMode(s.n(3)), limit))
	}
	if s.observed = s.oneIn(3); s.observed {
		changes := s.oneIn(2)
		opts = append(opts, workpool.WithObserver(workpool.Observer{
			Submit: func(context.Context) any { return "submitted" },
			Begin: func(ctx context.Context, e workpool.Event) context.Context {
				s.begun.Add(1)
				info, inside := workpool.InfoFrom(ctx)
				assert.True(s.t, inside)
				assert.Equal(s.t, workpool.Event{Info: info, Way: e.Way, Value: "submitted", Waited: max(0, e.Waited)}, e)
				if changes {
					return context.WithValue(ctx, observedKey{}, info)
				}
				return nil
			},
			End: func(ctx context.Context, e workpool.Event) {
				s.ended.Add(1)
				info, _ := workpool.InfoFrom(ctx)
				assert.Equal(s.t, workpool.Event{Info: info, Way: e.Way, Value: "submitted", Waited: max(0, e.Waited), Took: max(0, e.Took), Panicked: e.Panicked, Err: e.Err}, e)
			},
		}))
	}
	return opts
}

// task returns a random task of a key from floor on.
func (s *stress) task(floor, depth int) stressTask {
	task := stressTask{id: int(s.ids.Add(1)), kind: s.n(16), depth: depth, level: workpool.Priority(s.n(3) - 1)}
	task.floor = floor
	if s.keyed && floor < stressKeys && !s.oneIn(4) {
		key := floor + s.n(stressKeys-floor)
		task.key, task.floor = key, key+1
	}
	return task
}

func (s *stress) tasks(floor, depth int) []stressTask {
	var tasks []stressTask
	for range s.n(6) {
		tasks = append(tasks, s.task(floor, depth))
	}
	return tasks
}

// handle is the handler.
func (s *stress) handle(ctx context.Context, task stressTask) (stressValue, error) {
	s.ran.Add(1)
	if k, ok := task.key.(int); ok {
		assert.Equal(s.t, int32(1), s.keys[k].Add(1), "two tasks of one key at once")
		defer s.keys[k].Add(-1)
	}
	info, inside := workpool.InfoFrom(ctx)
	assert.True(s.t, inside)
	if id, _ := ctx.Value(key{}).(int); id != 0 {
		assert.Equal(s.t, task.id, id, "the context of another task")
	}
	value := stressValue{task.id, info}
	switch task.kind {
	case 0, 1, 2, 3:
	case 4:
		return value, errFailed
	case 5:
		panic("on fire")
	case 6:
		runtime.Goexit()
	case 7:
		time.Sleep(s.nap(5))
	case 8:
		select {
		case <-ctx.Done():
			return stressValue{}, context.Cause(ctx)
		case <-time.After(s.nap(20)):
		}
	case 9:
		if info.Attempt < 3 {
			return value, workpool.RetryAfter(0, errNotYet)
		}
	case 10:
		if info.Attempt < 3 {
			return value, workpool.RetryAfter(s.nap(5), errNotYet)
		}
	case 11:
		s.left.Go(func() { // what it does is outside of the handler, or it is not
			time.Sleep(s.nap(3))
			if s.oneIn(2) {
				ctx = context.WithoutCancel(ctx)
			}
			limited, cancel := context.WithTimeout(ctx, s.nap(30))
			defer cancel()
			s.use(limited, task.floor, task.depth+2)
		})
	default:
		if task.depth < 3 {
			for range 1 + s.n(2) {
				s.use(ctx, task.floor, task.depth+1)
			}
		}
	}
	return value, nil
}

// got notes a Result of a task that was submitted, and checks all that belongs to it.
func (s *stress) got(r stressResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered[r.Task.id]++
	assert.Positive(s.t, r.Attempt)
	if gaveUp(r.Err) {
		assert.Equal(s.t, errors.Is(r.Err, errNotYet), r.Value != stressValue{}, "%+v: that of its last attempt", r)
		return
	}
	attempts, value := 1, stressValue{r.Task.id, workpool.Info{Index: r.Index, Worker: r.Worker, Attempt: r.Attempt}}
	switch r.Task.kind {
	case 5, 6:
		value = stressValue{}
	case 9, 10:
		attempts = 3
	}
	s.endedAs(r.Task, r.Err)
	assert.Equal(s.t, value, r.Value, "%+v", r)
	assert.Equal(s.t, attempts, r.Attempt, "%+v", r)
}

// gaveUp tells whether this is the error of a task that was not accepted, or did not come to
// its own end.
func gaveUp(err error) bool {
	return slices.ContainsFunc([]error{
		workpool.ErrAborted, workpool.ErrDropped, workpool.ErrClosed, workpool.ErrQueueFull, context.Canceled, context.DeadlineExceeded,
	}, func(one error) bool { return errors.Is(err, one) })
}

// endedAs checks that a task has ended as its kind does.
func (s *stress) endedAs(task stressTask, err error) {
	switch task.kind {
	case 4:
		assert.Equal(s.t, errFailed, err)
	case 5:
		panicked(s.t, "on fire", err)
	case 6:
		assert.Equal(s.t, workpool.ErrGoexit, err)
	default:
		assert.NoError(s.t, err)
	}
}

// receive receives all results, in loops that end in every way.
func (s *stress) receive() {
	for over := false; !over; {
		func() {
			defer func() { _ = recover() }()
			for r := range s.pool.Results() {
				s.got(r)
				switch s.n(60) {
				case 0, 1:
					return
				case 2, 3:
					panic("in the loop")
				case 4, 5:
					for r := range s.pool.Results() {
						s.got(r)
						break
					}
				case 6, 7, 8:
					time.Sleep(s.nap(3))
				}
			}
			over = true
		}()
	}
}

func (s *stress) submitted(err error, tasks ...stressTask) {
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, task := range tasks {
		s.accepted[task.id]++
	}
}

func (s *stress) answer(task stressTask, value stressValue, err error) {
	if !gaveUp(err) && (err == nil || task.kind != 8) { // which may return any cause
		s.endedAs(task, err)
	}
	if err == nil {
		assert.Equal(s.t, task.id, value.id)
	}
}

// answers checks what tasks that belong together have returned.
func (s *stress) answers(tasks []stressTask, values []stressValue, err error) {
	if err == nil && assert.Len(s.t, values, len(tasks)) {
		for i, value := range values {
			s.answer(tasks[i], value, nil)
		}
	} else if !gaveUp(err) {
		fails := func(task stressTask) bool { return slices.Contains([]int{4, 5, 6, 8}, task.kind) }
		assert.True(s.t, slices.ContainsFunc(tasks, fails), "%v", err)
	}
}

// use does something with the pool, and with keys from floor on.
func (s *stress) use(ctx context.Context, floor, depth int) {
	p := s.pool
	assert.NoError(s.t, p.Invariants())
	task, own := s.task(floor, depth), ctx
	if depth > 0 || s.oneIn(2) { // the context of one task has a value, which no other one sees
		own, ctx = context.WithValue(ctx, key{}, task.id), context.WithValue(ctx, key{}, 0)
	}
	switch s.n(12) {
	case 0, 1:
		s.submitted(p.Submit(own, task), task)
	case 2:
		s.submitted(p.TrySubmit(own, task), task)
	case 3:
		tasks := s.tasks(floor, depth)
		n, err := p.SubmitAll(ctx, slices.Values(tasks))
		s.submitted(nil, tasks[:n]...)
		if err == nil {
			assert.Len(s.t, tasks, n)
		}
	case 4:
		cancel, err := p.SubmitCancel(own, task)
		s.submitted(err, task)
		if s.oneIn(2) {
			time.Sleep(s.nap(3))
		}
		cancel()
	case 5:
		value, err := p.Do(own, task)
		s.answer(task, value, err)
	case 6:
		value, err := p.TryDo(own, task)
		s.answer(task, value, err)
	case 7:
		r := p.DoChan(own, task)
		if s.oneIn(4) {
			break
		}
		result := <-r
		s.answer(task, result.Value, result.Err)
		assert.Equal(s.t, task, result.Task)
	case 8:
		tasks := s.tasks(floor, depth)
		values, err := p.Map(ctx, tasks)
		s.answers(tasks, values, err)
	case 9:
		tasks := s.tasks(floor, depth)
		seen := map[uint64]bool{}
		stops, cut := s.n(8), false
		for r := range p.Stream(ctx, slices.Values(tasks)) {
			assert.False(s.t, cut, "that was the last Result")
			if cut = r.Attempt == 0; cut {
				assert.Error(s.t, r.Err)
				continue
			}
			assert.False(s.t, seen[r.Index], "twice")
			seen[r.Index] = true
			assert.Equal(s.t, tasks[r.Index], r.Task)
			s.answer(r.Task, r.Value, r.Err)
			if stops--; stops == 0 {
				return
			}
		}
		assert.True(s.t, cut || len(seen) == len(tasks), "some are missing")
	case 10:
		tasks := s.tasks(floor, depth)
		g := p.Group(ctx)
		var accepted []stressTask
		for _, task := range tasks {
			if err := g.Submit(task); err == nil {
				accepted = append(accepted, task)
			}
		}
		values, err := g.Wait()
		s.answers(accepted, values, err)
	case 11:
		if err := p.Wait(ctx); err != nil && ctx.Err() == nil {
			assert.ErrorIs(s.t, err, workpool.ErrReentrant)
		}
	}
}

func (s *stress) live() {
	p := mustNew(s.t, s.handle, s.options()...)
	s.pool = p
	var users, watchers sync.WaitGroup
	over := make(chan struct{})
	if s.results {
		for range 1 + s.n(3) {
			watchers.Go(s.receive)
		}
	}
	watchers.Go(func() {
		var last workpool.Stats
		for range 10_000 { // and no longer, so that a deadlock shows
			select {
			case <-over:
				return
			case <-time.After(s.unit):
				assert.NoError(s.t, p.Invariants())
				last = assertFollows(s.t, last, p.Stats())
				for _, e := range p.Working() {
					assert.Equal(s.t, "submitted", e.Value)
					assert.GreaterOrEqual(s.t, e.Took, time.Duration(0))
				}
			}
		}
	})
	for range 2 + s.n(5) {
		users.Go(func() {
			for range s.busy * (3 + s.n(10)) {
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				if !s.oneIn(3) {
					ctx, cancel = context.WithTimeout(ctx, s.nap(50))
				}
				s.use(ctx, 0, 0)
				cancel()
			}
		})
	}
	users.Go(func() {
		for range s.busy * s.n(8) {
			switch s.n(3) {
			case 0:
				_ = p.Resize(1 + s.n(6))
			case 1:
				p.Pause()
				time.Sleep(s.nap(5))
				p.Resume()
			case 2:
				time.Sleep(s.nap(5))
			}
		}
	})

	if s.oneIn(2) {
		users.Wait()
	} else {
		time.Sleep(s.nap(60))
	}
	for range 1 + s.n(2) {
		switch s.n(4) {
		case 0:
			_ = p.Shutdown(context.Background())
		case 1:
			ctx, cancel := context.WithTimeout(context.Background(), s.nap(10))
			_ = p.Shutdown(ctx)
			cancel()
		case 2:
			_ = p.Close()
		case 3:
			s.cancel()
		}
	}
	_ = p.Close()
	_ = p.Shutdown(context.Background())
	stats := p.Stats()
	users.Wait()
	s.left.Wait()
	close(over)
	watchers.Wait()
	s.cancel()
	for r := range p.Results() {
		s.got(r)
	}

	assertSum(s.t, stats)
	assert.True(s.t, stats.Closed)
	assert.Zero(s.t, stats.Running+stats.Queued+stats.Waiting+stats.Held+stats.Parked+stats.Workers, "%+v", stats)
	after := p.Stats()
	assert.Zero(s.t, after.Undelivered)
	stats.Refused, stats.Undelivered = after.Refused, after.Undelivered // the rest stands still
	assert.Equal(s.t, stats, after)
	assert.Empty(s.t, p.Working())
	if s.observed {
		assert.Equal(s.t, [2]int64{s.ran.Load(), s.ran.Load()}, [2]int64{s.begun.Load(), s.ended.Load()}, "attempts begun and ended")
	}
	if s.results || len(s.answered) > 0 {
		assert.Equal(s.t, s.accepted, s.answered, "how often each task was accepted, and answered")
	}
	if s.t.Failed() {
		s.t.Logf("seed %d: %+v", s.seed, after)
	}
	require.False(s.t, s.t.Failed())
}

// The same lives of each run, with more to do in each, on few and on many processors.
func TestRule1_RandomLives(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for seed := range uint64(150) {
		runtime.GOMAXPROCS([]int{1, 2, 8}[seed%3])
		within(t, func() {
			s := newStress(t, seed, 10*time.Microsecond)
			s.busy = 8
			s.live()
		})
	}
}

// More workers wake at once, and more callers come at once, than are let into the
// line for the mutex: each task is answered once, to whom it belongs.
func TestRule1_ThousandsOfCallersAndWorkersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where sleepers of a millisecond all wake at once
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
					gives(t, 2*n)(p.Do(t.Context(), n))
					if p.TrySubmit(context.Background(), n) != nil {
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
	})
}
