package workpool_test

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// payload is large enough to be worth letting go of, and has no pointers, so
// that it is an allocation of its own.
type payload struct{ content [4096]byte }

// remains counts payloads that can still be reached.
type remains struct {
	mu    sync.Mutex
	weaks []weak.Pointer[payload]
}

// payload returns a new payload.
func (r *remains) payload() *payload {
	p := new(payload)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.weaks = append(r.weaks, weak.Make(p))
	return p
}

func (r *remains) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, w := range r.weaks {
		if w.Value() != nil {
			n++
		}
	}
	return n
}

// assertCollected waits for the collector, within reason.
func (r *remains) assertCollected(t *testing.T) {
	t.Helper()
	require.NotEmpty(t, r.weaks)
	for range 20 {
		if runtime.GC(); r.count() == 0 {
			return
		}
	}
	assert.Fail(t, "the pool retains payloads", "%d of %d", r.count(), len(r.weaks))
}

type payloads = workpool.Pool[*payload, *payload]

// The uses of a pool that a payload may get stuck in. Each returns with an
// idle pool that is open.
var payloadUses = map[string]func(t *testing.T, p *payloads, r *remains){
	"Submit": func(t *testing.T, p *payloads, r *remains) {
		for range 10 {
			submit(t, p, r.payload())
		}
		for range 10 {
			require.NotNil(t, receive(t, p).Value)
		}
	},
	"Submit, one after the other": func(t *testing.T, p *payloads, r *remains) {
		for range 10 {
			submit(t, p, r.payload())
			require.NotNil(t, receive(t, p).Value)
		}
	},
	"TrySubmit": func(t *testing.T, p *payloads, r *remains) {
		require.NoError(t, p.TrySubmit(context.Background(), r.payload()))
		require.NotNil(t, receive(t, p).Value)
	},
	"Stream, broken off": func(t *testing.T, p *payloads, r *remains) {
		for range p.Stream(t.Context(), func(yield func(*payload) bool) {
			for yield(r.payload()) {
			}
		}) {
			break
		}
	},
	"Do, given up while queued": func(t *testing.T, p *payloads, r *remains) {
		p.Pause()
		ctx, cancel := context.WithCancel(t.Context())
		answer := p.DoChan(ctx, r.payload())
		cancel()
		require.ErrorIs(t, (<-answer).Err, context.Canceled)
		p.Resume()
	},
	"Do, given up while running": func(t *testing.T, p *payloads, r *remains) {
		ctx, cancel := context.WithCancel(t.Context())
		task := r.payload()
		task.content[0] = 5
		answer := p.DoChan(ctx, task)
		cancel()
		if err := (<-answer).Err; err != nil { // the handler may be faster
			require.ErrorIs(t, err, context.Canceled)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := p.Do(ctx, task); err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	},
	"Submit, given up": func(t *testing.T, p *payloads, r *remains) {
		p.Pause()
		for p.TrySubmit(context.Background(), r.payload()) == nil {
		}
		require.ErrorIs(t, p.Submit(limited(t, time.Millisecond), r.payload()), context.DeadlineExceeded)
		stats := p.Stats()
		p.Resume()
		for range stats.Queued {
			receive(t, p)
		}
	},
	"nested":                                calling(1, false),
	"panic":                                 calling(2, true),
	"Goexit":                                calling(3, true),
	"Do with a context that was waited for": calling(4, false),
}

// calling is the use of a call whose handler does what the content of its task says.
func calling(content byte, fails bool) func(t *testing.T, p *payloads, r *remains) {
	return func(t *testing.T, p *payloads, r *remains) {
		task := r.payload()
		task.content[0] = content
		_, err := p.Do(t.Context(), task)
		require.Equal(t, fails, err != nil, "%v", err)
	}
}

// newPayloads makes a pool whose values are payloads of r too.
func newPayloads(t *testing.T, r *remains, opts ...workpool.Option) *payloads {
	return newSelfUsing(t, func(ctx context.Context, p *payloads, task *payload) (*payload, error) {
		switch task.content[0] {
		case 1:
			return p.Do(ctx, r.payload())
		case 2:
			panic(task)
		case 3:
			runtime.Goexit()
		case 4:
			stop := context.AfterFunc(ctx, func() { task.content[0] = 9 })
			child, cancel := context.WithTimeout(ctx, time.Hour)
			_ = child.Done()
			cancel()
			stop()
		case 5:
			<-ctx.Done()
			runtime.Gosched() // the caller gives up first, most of the time
		}
		return r.payload(), nil
	}, opts...)
}

func TestRule9_TasksAndValuesAreNotRetained(t *testing.T) {
	uses := maps.Clone(payloadUses)
	for name, run := range ways[*payload, *payload]() {
		uses[name] = func(t *testing.T, p *payloads, r *remains) {
			for _, ctx := range []context.Context{context.Background(), t.Context()} {
				values, err := run(ctx, p, r.payload(), r.payload(), r.payload())
				require.NoError(t, err)
				require.Len(t, values, 3)
			}
		}
	}
	for name, use := range uses {
		for _, workers := range []int{1, 3} {
			t.Run(name, func(t *testing.T) {
				var r remains
				p := newPayloads(t, &r, workpool.WithWorkers(workers), workpool.WithQueueDepth(5))
				use(t, p, &r)
				require.NoError(t, p.Wait(t.Context()))
				r.assertCollected(t)
			})
		}
	}
}

// A task that was aborted is not retained, nor its context, nor the error of one that
// nobody gets.
func TestRule9_AbortedTasksAreNotRetained(t *testing.T) {
	for name, option := range map[string]workpool.Option{
		"Results":        workpool.WithResultBuffer(1),
		"WithoutResults": workpool.WithoutResults(),
		"WithResultFunc": workpool.WithResultFunc(func(workpool.Result[*payload, *payload]) {}),
	} {
		t.Run(name, func(t *testing.T) {
			var r remains
			p := newPayloads(t, &r, workpool.WithShutdown(workpool.Abort, 0), option)
			p.Pause()
			shared := context.WithValue(context.Background(), key{}, r.payload())
			for range 5 {
				require.NoError(t, p.Submit(context.WithValue(context.Background(), key{}, r.payload()), r.payload()))
				require.NoError(t, p.Submit(shared, r.payload()))
				require.NoError(t, p.Submit(shared, r.payload()))
			}
			answer := p.DoChan(t.Context(), r.payload())
			closed(t, p)
			require.ErrorIs(t, (<-answer).Err, workpool.ErrAborted)
			assert.Equal(t, name == "Results", len(collect(p)) == 15)
			r.assertCollected(t)
			runtime.KeepAlive(p)
		})
	}
}

// A payloadError holds on to something.
type payloadError struct{ *payload }

func (payloadError) Error() string { return "failure" }

// Results of a Stream that was broken off are dropped, though its input is blocked
// and the place where they lie is not done with.
func TestRule9_AStreamThatWasBrokenOffRetainsNothing(t *testing.T) {
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

func TestRule9_AClosedPoolCanBeCollected(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p, err := workpool.New(workpool.Call[int], workpool.WithContext(ctx)) // not of newClosures, which closes it
	require.NoError(t, err)
	gives(t, 1)(p.Do(ctx, returning(1, nil)))
	closed(t, p)
	pool := weak.Make(p)
	for range 20 {
		if runtime.GC(); pool.Value() == nil {
			return
		}
	}
	assert.Fail(t, "something retains the pool: its context, or that of a call")
}

// What a deep queue has taken is given back, though each task came with a context
// of its own.
func TestRule2_ADeepQueueGivesItsMemoryBack(t *testing.T) {
	const tasks, sane = 400_000, 25 << 20
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
		submitN(t, p, 2*depth, large{})
	}
	for p.Stats().Queued > 0 {
		runtime.Gosched()
	}
	assert.Less(t, heap()-before, 3*(workers+depth)*size)
	close(release)
}

func TestRule2_MemoryStaysFlat(t *testing.T) {
	tasks := rounds(50_000, 1_000_000)
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

// The hot path allocates nothing, and a call without a context that can end
// next to nothing.
func TestSubmit_AllocatesNothing(t *testing.T) {
	shared := context.WithValue(t.Context(), key{}, "shared by many tasks")
	for name, ctx := range map[string]context.Context{"Background": context.Background(), "t.Context": t.Context(), "WithValue": shared} {
		t.Run(name, func(t *testing.T) {
			p := mustNew(t, square, workpool.WithWorkers(2))
			received := make(chan struct{}, 128)
			go func() {
				for range p.Results() {
					received <- struct{}{}
				}
				close(received)
			}()
			for _, burst := range []int{1, 50} {
				assert.Zero(t, testing.AllocsPerRun(2000/burst, func() {
					for range burst {
						if err := p.Submit(ctx, 3); err != nil {
							t.Error(err)
						}
					}
					for range burst {
						<-received
					}
				}), "%d at a time", burst)
			}
			closed(t, p)
			<-received
		})
	}
}

func TestTrySubmit_AllocatesNothing(t *testing.T) {
	done := make(chan struct{}, 1)
	p := mustNew(t, square, workpool.WithResultFunc(func(workpool.Result[int, int]) { done <- struct{}{} }))
	assert.Zero(t, testing.AllocsPerRun(2000, func() {
		if err := p.TrySubmit(context.Background(), 3); err != nil {
			t.Error(err)
		}
		<-done
	}))
}

func TestDo_AllocatesNextToNothing(t *testing.T) {
	p := mustNew(t, square, workpool.WithWorkers(2))
	assert.LessOrEqual(t, testing.AllocsPerRun(2000, func() {
		if _, err := p.Do(context.Background(), 3); err != nil {
			t.Error(err)
		}
	}), 1.0)
}

// What a task was and ended with is let go though its worker is at a long task, and nobody
// gets the result.
func TestRule9_TasksAreNotRetainedWithoutAReceiver(t *testing.T) {
	for name, option := range map[string]workpool.Option{
		"WithoutResults": workpool.WithoutResults(),
		"WithResultFunc": workpool.WithResultFunc(func(workpool.Result[*payload, int]) {}),
	} {
		t.Run(name, func(t *testing.T) {
			var r remains
			started, release := make(chan struct{}), make(chan struct{})
			p := mustNew(t, func(_ context.Context, task *payload) (int, error) {
				if task == nil {
					close(started)
					<-release
				}
				return 0, payloadError{r.payload()}
			}, workpool.WithWorkers(1), option)
			for range 50 {
				submit(t, p, r.payload())
			}
			submit(t, p, nil)
			<-started
			r.assertCollected(t)
			close(release)
		})
	}
}

// What an observer has given to a task is let go when that has ended, though nobody has received
// its result.
func TestRule9_ValuesOfObserversAreNotRetained(t *testing.T) {
	for name, options := range map[string][]workpool.Option{"as they come": nil, "WithOrdered": {workpool.WithOrdered()}} {
		t.Run(name, func(t *testing.T) {
			var r remains
			observer := workpool.Observer{Submit: func(context.Context) any { return r.payload() }}
			p := mustNew(t, identity, append(options, workpool.WithObserver(observer), workpool.WithResultBuffer(20))...)
			submitN(t, p, 10, 1)
			require.NoError(t, p.Wait(t.Context()))
			r.assertCollected(t)
			assert.Equal(t, 10, p.Stats().Undelivered)
		})
	}
}

// A context holds on to what it carries, such as all that belongs to a request. It must
// not outlive its request in an idle pool.
func TestRule9_ContextOfARequestIsNotRetained(t *testing.T) {
	calls := map[string]caller{
		"Submit": func(ctx context.Context, p *closures, task closure) error { return p.Submit(ctx, task) },
		"SubmitAll": func(ctx context.Context, p *closures, task closure) error {
			return sequenceWays["SubmitAll"](ctx, p, slices.Values([]closure{task}))
		},
		"Wait": func(ctx context.Context, p *closures, _ closure) error { return p.Wait(ctx) },
	}
	for name, run := range ways[closure, int]() {
		calls[name] = errorOf(run)
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			p := newClosures(t, workpool.WithoutResults())
			var r remains
			for range 5 {
				require.NoError(t, call(context.WithValue(context.Background(), key{}, r.payload()), p, returning(1, nil)))
				ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, r.payload()))
				require.NoError(t, call(ctx, p, returning(1, nil)))
				cancel()
				require.NoError(t, p.Wait(context.Background()))
			}
			r.assertCollected(t)
		})
	}
}

// A chain is tasks each of which is handed in by the one before. Memory and stacks don't grow
// with its length.
func TestRule2_ChainsOfTasksTakeNoMemory(t *testing.T) {
	type (
		ints    = workpool.Pool[int, int]
		hand    = func(ctx context.Context, p *ints, n int) error
		handler = workpool.Handler[int, int]
	)
	hands := map[string]hand{
		"Submit":    func(ctx context.Context, p *ints, n int) error { return p.Submit(ctx, n) },
		"TrySubmit": func(ctx context.Context, p *ints, n int) error { return p.TrySubmit(ctx, n) },
		"SubmitAll": func(ctx context.Context, p *ints, n int) error {
			_, err := p.SubmitAll(ctx, slices.Values([]int{n}))
			return err
		},
		"SubmitCancel": func(ctx context.Context, p *ints, n int) error {
			_, err := p.SubmitCancel(ctx, n)
			return err
		},
		"DoChan": func(ctx context.Context, p *ints, n int) error {
			p.DoChan(ctx, n)
			return nil
		},
	}
	if testing.Short() {
		delete(hands, "SubmitCancel")
	}
	starts := map[string]func(p *ints) error{
		"Submit": func(p *ints) error { return p.Submit(context.Background(), 0) },
		"values": func(p *ints) error { return p.Submit(context.WithValue(context.Background(), key{}, "v"), 0) },
	}
	for name, run := range ways[int, int]("Do", "Map", "Group") {
		starts[name] = func(p *ints) error {
			ctx, cancel := context.Background(), func() {}
			if name == "Do" {
				ctx, cancel = context.WithCancel(ctx)
			}
			defer cancel()
			_, err := run(ctx, p, 0)
			return err
		}
	}
	timeout := func(h handler) handler { return workpool.Timeout(h, time.Minute) }
	arounds := map[string]func(h handler) handler{
		"directly":     func(h handler) handler { return h },
		"Timeout":      timeout,
		"two Timeouts": func(h handler) handler { return workpool.Retry(timeout(timeout(h)), 2, seconds) },
	}
	generations, sane := rounds(20_000, 100_000), 1<<20
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 20))
	for handed, hand := range hands {
		for started, start := range starts {
			for around, wrap := range arounds {
				if handed == "DoChan" && (around != "directly" || started != "Submit" && started != "values") {
					continue // the next task would end with the handler, or with the first caller
				}
				t.Run(handed+"/"+started+"/"+around, func(t *testing.T) {
					var p *ints
					half, done := make(chan int, 1), make(chan struct{})
					p = mustNew(t, wrap(func(ctx context.Context, n int) (int, error) {
						switch n {
						case 100:
							half <- heap()
						case generations:
							close(done)
							return 0, nil
						}
						err := hand(ctx, p, n+1)
						for errors.Is(err, workpool.ErrQueueFull) {
							err = hand(ctx, p, n+1)
						}
						return 0, err
					}), workpool.WithoutResults(), workpool.WithWorkers(2))
					within(t, func() {
						require.NoError(t, start(p))
						before := <-half
						<-done
						assert.Less(t, heap()-before, sane)
					})
				})
			}
		}
	}
}

// The same with calls and batches in each handler, whose own tasks do nothing.
func TestRule2_ChainsThroughBatchesTakeNoMemory(t *testing.T) {
	generations, sane := rounds(10_000, 100_000), 1<<20
	for name, run := range ways[int, int]("Do", "Map", "Group", "Stream") {
		t.Run(name, func(t *testing.T) {
			first, last := make(chan int, 1), make(chan struct{})
			p := newSelfUsing(t, func(ctx context.Context, p *workpool.Pool[int, int], n int) (int, error) {
				switch n {
				case -1:
					return 0, nil
				case 100:
					first <- heap()
				case generations:
					close(last)
					return 0, nil
				}
				if _, err := run(ctx, p, -1, -1, -1); err != nil {
					return 0, err
				}
				return 0, p.Submit(ctx, n+1)
			}, workpool.WithoutResults(), workpool.WithWorkers(2))
			within(t, func() {
				require.NoError(t, p.Submit(context.Background(), 0))
				before := <-first
				<-last
				assert.Less(t, heap()-before, sane)
			})
			closed(t, p)
			assert.Zero(t, p.Stats().Failed)
		})
	}
}
