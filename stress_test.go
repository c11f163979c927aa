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

type stress struct {
	t    *testing.T
	unit time.Duration
	seed uint64
	pool *workpool.Pool[stressTask, int]

	ids      atomic.Int64
	keys     [stressKeys]atomic.Int32 // how many run
	left     sync.WaitGroup           // goroutines that handlers leave behind
	mu       sync.Mutex
	accepted map[int]bool // whose results are for Results
	answered map[int]int
	rng      *rand.Rand // guarded by mu

	results, ordered, keyed bool
	next                    uint64
	workers                 int
	cancel                  context.CancelFunc
	mayFail                 bool // the result function panics
}

const stressKeys = 6

func newStress(t *testing.T, seed uint64, unit time.Duration) *stress {
	s := &stress{t: t, unit: unit, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), accepted: map[int]bool{}, answered: map[int]int{}}
	s.cancel = func() {}
	return s
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
		opts = append(opts, workpool.WithResultFunc(func(r workpool.Result[stressTask, int]) {
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
			s.ordered = true
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
func (s *stress) handle(ctx context.Context, task stressTask) (int, error) {
	if k, ok := task.key.(int); ok {
		assert.Equal(s.t, int32(1), s.keys[k].Add(1), "two tasks of one key at once")
		defer s.keys[k].Add(-1)
	}
	info, inside := workpool.InfoFrom(ctx)
	assert.True(s.t, inside)
	switch task.kind {
	case 0, 1, 2, 3:
	case 4:
		return 0, errors.New("failed")
	case 5:
		panic("on fire")
	case 6:
		runtime.Goexit()
	case 7:
		time.Sleep(s.nap(5))
	case 8:
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(s.nap(20)):
		}
	case 9:
		if info.Attempt < 3 {
			return 0, workpool.RetryAfter(0, errors.New("again"))
		}
	case 10:
		if info.Attempt < 3 {
			return 0, workpool.RetryAfter(s.nap(5), errors.New("later"))
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
	return task.id, nil
}

// got notes a Result of a task that was submitted.
func (s *stress) got(r workpool.Result[stressTask, int]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered[r.Task.id]++
	if r.Err == nil && r.Value != r.Task.id {
		assert.Equal(s.t, r.Task.id, r.Value)
	}
	assert.Positive(s.t, r.Attempt)
	if s.ordered {
		assert.GreaterOrEqual(s.t, r.Index, s.next)
	}
}

func (s *stress) submitted(err error, tasks ...stressTask) {
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, task := range tasks {
		s.accepted[task.id] = true
	}
}

func (s *stress) answer(task stressTask, value int, err error) {
	if err == nil {
		assert.Equal(s.t, task.id, value)
	}
}

// use does something with the pool, and with keys from floor on.
func (s *stress) use(ctx context.Context, floor, depth int) {
	p := s.pool
	assert.NoError(s.t, p.Invariants())
	task := s.task(floor, depth)
	switch s.n(12) {
	case 0, 1:
		s.submitted(p.Submit(ctx, task), task)
	case 2:
		s.submitted(p.TrySubmit(ctx, task), task)
	case 3:
		tasks := s.tasks(floor, depth)
		n, err := p.SubmitAll(ctx, slices.Values(tasks))
		s.submitted(nil, tasks[:n]...)
		if err == nil {
			assert.Len(s.t, tasks, n)
		}
	case 4:
		cancel, err := p.SubmitCancel(ctx, task)
		s.submitted(err, task)
		if s.oneIn(2) {
			time.Sleep(s.nap(3))
		}
		cancel()
	case 5:
		value, err := p.Do(ctx, task)
		s.answer(task, value, err)
	case 6:
		value, err := p.TryDo(ctx, task)
		s.answer(task, value, err)
	case 7:
		r := p.DoChan(ctx, task)
		if s.oneIn(4) {
			break
		}
		result := <-r
		s.answer(task, result.Value, result.Err)
		assert.Equal(s.t, task, result.Task)
	case 8:
		tasks := s.tasks(floor, depth)
		values, err := p.Map(ctx, tasks)
		if err == nil && assert.Len(s.t, values, len(tasks)) {
			for i, value := range values {
				s.answer(tasks[i], value, nil)
			}
		}
	case 9:
		tasks := s.tasks(floor, depth)
		seen := map[uint64]bool{}
		stops := s.n(8)
		for r := range p.Stream(ctx, slices.Values(tasks)) {
			if r.Attempt == 0 {
				assert.Error(s.t, r.Err)
				continue
			}
			assert.False(s.t, seen[r.Index], "twice")
			seen[r.Index] = true
			assert.Equal(s.t, tasks[r.Index], r.Task)
			s.answer(r.Task, r.Value, r.Err)
			if stops--; stops == 0 {
				break
			}
		}
	case 10:
		tasks := s.tasks(floor, depth)
		g := p.Group(ctx)
		var refused error
		for _, task := range tasks {
			if err := g.Submit(task); err != nil {
				refused = err
			}
		}
		values, err := g.Wait()
		if err == nil && refused == nil && assert.Len(s.t, values, len(tasks)) {
			for i, value := range values {
				s.answer(tasks[i], value, nil)
			}
		}
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
		for range 1 + s.n(2) {
			watchers.Go(func() {
				for r := range p.Results() {
					s.got(r)
					if s.oneIn(20) {
						time.Sleep(s.nap(3))
					}
				}
			})
		}
		for range s.n(2) { // one who comes and goes
			watchers.Go(func() {
				for range 5 {
					for r := range p.Results() {
						s.got(r)
						break
					}
				}
			})
		}
	}
	watchers.Go(func() {
		for range 10_000 { // and no longer, so that a deadlock shows
			select {
			case <-over:
				return
			case <-time.After(s.unit):
				assert.NoError(s.t, p.Invariants())
				stats := p.Stats()
				assertSum(s.t, stats)
				assert.LessOrEqual(s.t, stats.Parked, stats.Queued)
				assert.LessOrEqual(s.t, stats.Panicked, stats.Failed)
				assert.LessOrEqual(s.t, stats.Dropped+stats.Cancelled, stats.Aborted)
			}
		}
	})
	for range 2 + s.n(5) {
		users.Go(func() {
			for range 3 + s.n(10) {
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
		for range s.n(8) {
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
	for id := range s.accepted {
		if s.results || len(s.answered) > 0 {
			if !assert.Equal(s.t, 1, s.answered[id], "answers to task %d", id) {
				break
			}
		}
	}
	for id, n := range s.answered {
		if !s.accepted[id] || n != 1 {
			assert.Fail(s.t, "wrong answer", "task %d was accepted: %v; answered %d times", id, s.accepted[id], n)
			break
		}
	}
	if s.t.Failed() {
		s.t.Logf("seed %d: %+v", s.seed, after)
	}
	require.False(s.t, s.t.Failed())
}
