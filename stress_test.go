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

// A lived task is one of randomLife.
type lived struct{ n, end int }

// Lives of pools: submitters, receivers that break, panic or range in a range, all
// ends of tasks, and an end of the pool at any moment. Each accepted task is
// answered once, with all that belongs to it.
func TestRule1_RandomLives(t *testing.T) {
	for seed := range 150 {
		within(t, func() { randomLife(t, rand.New(rand.NewPCG(uint64(seed), 7))) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

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
					for err = p.TrySubmit(context.Background(), task); errors.Is(err, workpool.ErrQueueFull); err = p.TrySubmit(context.Background(), task) {
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

// Traffic of all kinds at once, on real goroutines: each accepted task is
// answered once, to the one who asked.
func TestRule1_RandomTraffic(t *testing.T) {
	const producers = 8
	rounds := 4000
	if testing.Short() {
		rounds = 400
	}
	for name, opts := range map[string][]workpool.Option{
		"defaults": nil,
		"narrow":   {workpool.WithQueueDepth(3), workpool.WithResultBuffer(2)},
		"least":    {workpool.WithQueueDepth(0), workpool.WithResultBuffer(0)},
	} {
		for _, procs := range []int{1, 2, 8} {
			t.Run(fmt.Sprintf("%s/procs=%d", name, procs), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				within(t, func() { randomTraffic(t, producers, rounds, opts...) })
			})
		}
	}
}

// errMood is how one in some tasks of randomTraffic ends.
var errMood = errors.New("bad mood")

func randomTraffic(t *testing.T, producers, rounds int, opts ...workpool.Option) {
	var runs []atomic.Int32 // by task
	moods := func(ctx context.Context, n int) (int, error) {
		runs[n].Add(1)
		switch n % 61 {
		case 7:
			for range 20 {
				runtime.Gosched()
			}
		case 13:
			panic(n)
		case 23:
			runtime.Goexit()
		case 31:
			return n, errMood
		case 41:
			if info, _ := workpool.InfoFrom(ctx); info.Attempt == 1 {
				runs[n].Add(-1)
				return n, workpool.RetryAfter(0, errMood)
			}
		}
		if n%997 == 5 {
			time.Sleep(time.Millisecond)
		}
		return n, nil
	}
	right := func(n, value int, err error) bool {
		var panicked *workpool.PanicError
		switch n % 61 {
		case 13:
			return errors.As(err, &panicked) && panicked.Value == n
		case 23:
			return errors.Is(err, workpool.ErrGoexit)
		case 31:
			return errors.Is(err, errMood)
		}
		return err == nil && value == n
	}
	const size = 16 // of what a round of SubmitAll, Map or Stream hands in
	runs = make([]atomic.Int32, producers*rounds*size)
	toResults := make([]atomic.Int32, len(runs)) // 1 when accepted, 0 when answered
	p := mustNew(t, moods, append(slices.Clip(opts), workpool.WithWorkers(4))...)
	var accepted, unstarted atomic.Int64
	background := context.Background()
	enter := func(n int) { toResults[n].Add(1); accepted.Add(1) }
	retract := func(n int) { toResults[n].Add(-1); accepted.Add(-1) }

	produce := []func(first int){
		func(n int) { enter(n); assert.NoError(t, p.Submit(background, n)) },
		func(n int) {
			enter(n)
			if err := p.TrySubmit(context.Background(), n); err != nil {
				assert.ErrorIs(t, err, workpool.ErrQueueFull)
				retract(n)
			}
		},
		func(first int) {
			tasks := make([]int, size)
			for i := range tasks {
				tasks[i] = first + i
				enter(first + i)
			}
			gives(t, size)(p.SubmitAll(background, slices.Values(tasks)))
		},
		func(n int) {
			value, err := p.Do(background, n)
			assert.True(t, right(n, value, err), "%d: %d, %v", n, value, err)
		},
		func(n int) {
			ctx, cancel := context.WithCancel(background)
			go cancel()
			value, err := p.Do(ctx, n)
			assert.True(t, err != nil && errors.Is(err, context.Canceled) || right(n, value, err), "%d: %d, %v", n, value, err)
			if err != nil {
				unstarted.Add(1)
			}
		},
		func(n int) {
			r := <-p.DoChan(background, n)
			assert.True(t, right(n, r.Value, r.Err), "%+v", r)
			assert.Equal(t, n, r.Task)
		},
		func(first int) {
			tasks := make([]int, size)
			fails := false
			for i := range tasks {
				tasks[i] = first + i
				fails = fails || slices.Contains([]int{13, 23, 31}, (first+i)%61)
			}
			values, err := p.Map(background, tasks)
			assert.Equal(t, fails, err != nil, "%v", err)
			if !fails {
				assert.Equal(t, tasks, values)
			}
		},
		func(first int) {
			seen := 0
			for r := range p.Stream(background, func(yield func(int) bool) {
				for i := 0; i < size && yield(first+i); i++ {
				}
			}) {
				assert.Equal(t, first+int(r.Index), r.Task)
				assert.True(t, right(r.Task, r.Value, r.Err), "%+v", r)
				seen |= 1 << r.Index
			}
			assert.Equal(t, 1<<size-1, seen)
		},
	}
	var producing, rest sync.WaitGroup
	stop := make(chan struct{})
	for k := range producers {
		producing.Go(func() {
			for i := range rounds {
				if k >= 4 && i%8 != 0 {
					continue // those that take more
				}
				produce[k](((k*rounds + i) * size))
			}
		})
	}
	var received atomic.Int64
	for k := range 3 {
		rest.Go(func() {
			for {
				n := 0
				for r := range p.Results() {
					received.Add(1)
					assert.Zero(t, toResults[r.Task].Add(-1), "%+v", r)
					assert.True(t, right(r.Task, r.Value, r.Err), "%+v", r)
					if n++; k > 0 && n%(k*50) == 0 {
						runtime.Gosched()
						n = -1
						break
					}
				}
				if n >= 0 {
					return // they have come to their end
				}
			}
		})
	}
	var meddler sync.WaitGroup
	meddler.Go(func() { // what goes on meanwhile
		for i := 0; ; i++ {
			select {
			case <-stop:
				p.Resume()
				return
			default:
			}
			switch i % 4 {
			case 0:
				assert.NoError(t, p.Resize(1+i/4%6))
			case 1:
				p.Pause()
				runtime.Gosched()
				p.Resume()
			case 2:
				s := p.Stats()
				assert.Equal(t, s.Submitted, uint64(s.Queued+s.Running)+s.Succeeded+s.Failed+s.Aborted, "%+v", s)
				assert.GreaterOrEqual(t, min(s.Queued, s.Running, s.Undelivered), 0, "%+v", s)
			case 3:
				time.Sleep(50 * time.Microsecond)
			}
		}
	})
	producing.Wait()
	close(stop)
	meddler.Wait()
	assert.NoError(t, p.Wait(background))
	closed(t, p)
	rest.Wait()
	assert.Equal(t, accepted.Load(), received.Load())
	for n := range runs {
		if toResults[n].Load() != 0 || runs[n].Load() > 1 {
			assert.Fail(t, "not once", "task %d: ran %d times, answers missing: %d", n, runs[n].Load(), toResults[n].Load())
		}
	}
	s := p.Stats()
	assert.Equal(t, s.Submitted, s.Succeeded+s.Failed+s.Aborted)
	assert.LessOrEqual(t, int64(s.Aborted), unstarted.Load()+int64(rounds*size)) // and what Map has called off
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
}

// More workers wake at once, and more callers come at once, than are let into the
// line for the mutex: each task is answered once, to whom it belongs.
func TestRule1_ThousandsOfCallersAndWorkersAtOnce(t *testing.T) {
	synctest.Test(t, thousandsAtOnce) // where sleepers of a millisecond all wake at once
}
