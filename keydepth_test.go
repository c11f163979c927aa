package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// An order is a task of a key.
type order struct {
	key int
	run closure
}

func keyOf(o order) int { return o.key }

func runOrder(ctx context.Context, o order) (int, error) { return o.run(ctx) }

func newOrders(t testing.TB, opts ...workpool.Option) *workpool.Pool[order, int] {
	t.Helper()
	return mustNew(t, runOrder, append([]workpool.Option{workpool.WithKey(keyOf)}, opts...)...)
}

// napping is a task that takes a second.
func napping(context.Context) (int, error) {
	time.Sleep(time.Second)
	return 0, nil
}

func TestWithKeyDepth_RefusesMistakes(t *testing.T) {
	for _, depth := range []int{0, -1} {
		_, err := workpool.New(runOrder, workpool.WithKey(keyOf), workpool.WithKeyDepth(depth))
		assert.ErrorIs(t, err, workpool.ErrInvalidOption)
		assert.ErrorContains(t, err, fmt.Sprintf("WithKeyDepth(%d)", depth))
	}
	_, err := workpool.New(runOrder, workpool.WithKeyDepth(1))
	assert.ErrorIs(t, err, workpool.ErrInvalidOption)
	assert.ErrorContains(t, err, "WithKey")
}

// What is above the depth of a key waits, and keeps no task of another key from being
// accepted.
func TestWithKeyDepth_LimitsTheTasksOfAKey(t *testing.T) {
	for _, depth := range []int{1, 2, 5} {
		bubble(t, fmt.Sprint(depth), func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(3), workpool.WithKeyDepth(depth), workpool.WithoutResults())
			for range depth {
				require.NoError(t, p.TrySubmit(t.Context(), order{1, napping}))
			}
			assert.ErrorIs(t, p.TrySubmit(t.Context(), order{1, napping}), workpool.ErrQueueFull)
			fails(t, workpool.ErrQueueFull)(p.TryDo(t.Context(), order{1, napping}))
			for key := range 10 { // and they still are accepted
				require.NoError(t, p.TrySubmit(t.Context(), order{2 + key, napping}))
			}

			begin := time.Now()
			require.NoError(t, p.Submit(t.Context(), order{1, napping}))
			assert.Equal(t, time.Second, time.Since(begin), "until the first has ended")
			closed(t, p)
			s := p.Stats()
			assert.Equal(t, uint64(depth+11), s.Succeeded)
			assert.Equal(t, uint64(2), s.Refused)
		})
	}
}

// The callers for one key are accepted in the order in which they came.
func TestWithKeyDepth_CallersAreAcceptedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithKeyDepth(1), workpool.WithoutResults())
		var began []int
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				assert.NoError(t, p.Submit(t.Context(), order{1, func(context.Context) (int, error) {
					began = append(began, i) // one of a key at a time
					time.Sleep(time.Second)
					return 0, nil
				}}))
			})
			synctest.Wait()
		}
		s := p.Stats()
		assert.Equal(t, 9, s.Waiting)
		assert.Equal(t, 1, s.Running)
		all.Wait()
		closed(t, p)
		assert.Equal(t, upTo(10), began)
	})
}

// Those in line for a full key give up, or are told that the pool closes.
func TestWithKeyDepth_CallersGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithKeyDepth(1), workpool.WithoutResults())
		release := make(chan struct{})
		require.NoError(t, p.Submit(t.Context(), order{1, until(release)}))
		synctest.Wait()
		ends := make([]context.CancelFunc, 3)
		errs := make([]error, 3)
		var callers sync.WaitGroup
		for i := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			ends[i] = cancel
			callers.Go(func() {
				if i == 1 {
					_, errs[i] = p.Do(ctx, order{1, napping})
				} else {
					errs[i] = p.Submit(ctx, order{1, napping})
				}
			})
			synctest.Wait()
		}
		require.Equal(t, 3, p.Stats().Waiting)
		for n, i := range rand.Perm(2) { // in any order; the last is told by the pool
			ends[i]()
			synctest.Wait()
			assert.ErrorIs(t, errs[i], context.Canceled)
			assert.ErrorIs(t, errs[i], workpool.ErrQueueFull)
			assert.Equal(t, 2-n, p.Stats().Waiting)
		}
		close(release)
		callers.Wait()
		assert.NoError(t, errs[2])
		ends[2]()

		release = make(chan struct{})
		require.NoError(t, p.Submit(t.Context(), order{7, until(release)}))
		answer := p.DoChan(t.Context(), order{7, napping})
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Waiting)
		go func() { _ = p.Close() }()
		assert.ErrorIs(t, (<-answer).Err, workpool.ErrClosed)
		close(release)
		closed(t, p)
	})
}

func TestWithKeyDepth_Overflows(t *testing.T) {
	for overflow, test := range map[workpool.Overflow]func(t *testing.T, p *workpool.Pool[order, int], submit func(key, value int) error, first func() int){
		workpool.Reject: func(t *testing.T, p *workpool.Pool[order, int], submit func(key, value int) error, _ func() int) {
			assert.ErrorIs(t, submit(1, 3), workpool.ErrQueueFull)
			assert.NoError(t, submit(2, 4))
		},
		workpool.DropOldest: func(t *testing.T, p *workpool.Pool[order, int], submit func(key, value int) error, first func() int) {
			assert.NoError(t, submit(1, 3))
			assert.Equal(t, 2, first(), "of the same key")
			assert.NoError(t, submit(2, 4))
			assert.Equal(t, uint64(1), p.Stats().Dropped)
		},
		workpool.DropNewest: func(t *testing.T, p *workpool.Pool[order, int], submit func(key, value int) error, first func() int) {
			assert.NoError(t, submit(1, 3))
			assert.Equal(t, 3, first())
			assert.NoError(t, submit(2, 4))
		},
		workpool.CallerRuns: func(t *testing.T, p *workpool.Pool[order, int], submit func(key, value int) error, _ func() int) {
			begin := time.Now()
			assert.NoError(t, submit(1, 3)) // it waits: the key is busy
			assert.Equal(t, time.Second, time.Since(begin))
			assert.NoError(t, submit(2, 4))
		},
	} {
		bubble(t, overflow.String(), func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(2), workpool.WithKeyDepth(2), workpool.WithOverflow(overflow))
			submit := func(key, value int) error {
				return p.Submit(t.Context(), order{key, func(ctx context.Context) (int, error) {
					time.Sleep(time.Second)
					return value, nil
				}})
			}
			require.NoError(t, submit(1, 1))
			require.NoError(t, submit(1, 2))
			synctest.Wait()
			test(t, p, submit, func() int { // the value of the first that was dropped
				r := receive(t, p)
				assert.ErrorIs(t, r.Err, workpool.ErrDropped)
				value, _ := r.Task.run(t.Context())
				return value
			})
			closed(t, p)
			s := p.Stats()
			assertSum(t, s)
			assert.Len(t, collect(p), int(s.Submitted-s.Dropped))
		})
	}
}

// However tasks come, no more of a key than its depth are accepted and not ended. Those of
// Map, Stream and Group come to an end.
func TestWithKeyDepth_OfBatches(t *testing.T) {
	const tasks, keys = 60, 4
	ways := map[string]func(ctx context.Context, p *workpool.Pool[order, int], list []order) error{
		"Map": func(ctx context.Context, p *workpool.Pool[order, int], list []order) error {
			_, err := p.Map(ctx, list)
			return err
		},
		"Stream": func(ctx context.Context, p *workpool.Pool[order, int], list []order) error {
			n := 0
			for r := range p.Stream(ctx, slices.Values(list)) {
				if r.Err != nil {
					return r.Err
				}
				n++
			}
			if n != len(list) {
				return fmt.Errorf("%d results", n)
			}
			return nil
		},
		"Do": func(ctx context.Context, p *workpool.Pool[order, int], list []order) error {
			var all sync.WaitGroup
			for _, o := range list {
				all.Go(func() { _, _ = p.Do(ctx, o) })
			}
			all.Wait()
			return nil
		},
		"Group": func(ctx context.Context, p *workpool.Pool[order, int], list []order) error {
			g := p.Group(ctx)
			for _, o := range list {
				if err := g.Submit(o); err != nil {
					return err
				}
			}
			_, err := g.Wait()
			return err
		},
		"Submit": func(ctx context.Context, p *workpool.Pool[order, int], list []order) error {
			for _, o := range list {
				if err := p.Submit(ctx, o); err != nil {
					return err
				}
			}
			return p.Wait(ctx)
		},
	}
	for name, run := range ways {
		for _, opts := range [][]workpool.Option{
			nil,
			{workpool.WithQueueDepth(0)},
			{workpool.WithQueueDepth(1), workpool.WithPriority(func(o order) workpool.Priority { return workpool.Priority(o.key%3 - 1) })},
			{workpool.WithElastic(0, time.Second)},
			{workpool.WithOverflow(workpool.CallerRuns), workpool.WithQueueDepth(1)},
		} {
			for _, depth := range []int{1, 3} {
				bubble(t, fmt.Sprintf("%s/depth=%d", name, depth), func(t *testing.T) {
					p := newOrders(t, append(opts, workpool.WithWorkers(3), workpool.WithKeyDepth(depth), workpool.WithoutResults())...)
					var running [keys]atomic.Int32
					var ran atomic.Int32
					var list []order
					for range tasks {
						key := rand.IntN(keys)
						list = append(list, order{key, func(context.Context) (int, error) {
							assert.Equal(t, int32(1), running[key].Add(1), "two of a key at once")
							defer running[key].Add(-1)
							s := p.Stats()
							assert.LessOrEqual(t, s.Queued+s.Running, depth*keys)
							assertSum(t, s)
							time.Sleep(time.Second)
							ran.Add(1)
							return 0, nil
						}})
					}
					require.NoError(t, run(t.Context(), p, list))
					assert.Equal(t, int32(tasks), ran.Load())
				})
			}
		}
	}
}

// A handler submits and calls with its own full key and with others.
func TestWithKeyDepth_InAHandler(t *testing.T) {
	for _, workers := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(workers), workpool.WithKeyDepth(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
			ran := new(atomic.Int32)
			var inner sync.WaitGroup
			_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				_, err := p.Do(ctx, order{1, counted(ran)})
				assert.NoError(t, err)
				_, err = p.Do(ctx, order{2, counted(ran)})
				assert.NoError(t, err)
				_, err = p.Map(ctx, []order{{1, counted(ran)}, {2, counted(ran)}, {1, counted(ran)}})
				assert.NoError(t, err)
				g := p.Group(ctx)
				assert.NoError(t, g.Submit(order{1, counted(ran)}))
				assert.NoError(t, g.Submit(order{3, counted(ran)}))
				_, err = g.Wait()
				assert.NoError(t, err)
				for r := range p.Stream(ctx, slices.Values([]order{{1, counted(ran)}, {2, counted(ran)}})) {
					assert.NoError(t, r.Err)
				}
				assert.NoError(t, p.Submit(ctx, order{2, counted(ran)}))
				inner.Go(func() { _ = p.Submit(context.WithoutCancel(ctx), order{1, counted(ran)}) }) // of its own key
				return 0, nil
			}})
			require.NoError(t, err)
			inner.Wait()
			require.NoError(t, p.Wait(t.Context()))
			assert.Equal(t, int32(11), ran.Load())
		})
	}
}

// A key that is full, and one that is not, with all the rest of the queue taken.
func TestWithKeyDepth_BesideAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithKeyDepth(2), workpool.WithoutResults())
		release := make(chan struct{})
		require.NoError(t, p.TrySubmit(t.Context(), order{1, until(release)}))
		require.NoError(t, p.TrySubmit(t.Context(), order{1, napping}))
		require.NoError(t, p.TrySubmit(t.Context(), order{2, napping}))
		assert.ErrorIs(t, p.TrySubmit(t.Context(), order{2, napping}), workpool.ErrQueueFull)
		var line sync.WaitGroup
		for key := range 4 {
			line.Go(func() { assert.NoError(t, p.Submit(t.Context(), order{key, napping})) })
		}
		synctest.Wait()
		assert.Equal(t, 4, p.Stats().Waiting)
		close(release)
		line.Wait()
		closed(t, p)
		assert.Equal(t, uint64(7), p.Stats().Succeeded)
	})
}

// A key that becomes full while others of it wait in line, by a task that goes ahead of one that
// is parked. Closing the pool turns them away.
func TestWithKeyDepth_ClosedWhileAKeyIsFull(t *testing.T) {
	for name, use := range map[string]func(ctx context.Context, p *workpool.Pool[order, int], o order) error{
		"Do": func(ctx context.Context, p *workpool.Pool[order, int], o order) error {
			_, err := p.Do(ctx, o)
			return err
		},
		"Map": func(ctx context.Context, p *workpool.Pool[order, int], o order) error {
			_, err := p.Map(ctx, []order{o})
			return err
		},
		"Group": func(ctx context.Context, p *workpool.Pool[order, int], o order) error {
			g := p.Group(ctx)
			assert.NoError(t, g.Submit(o))
			_, err := g.Wait()
			return err
		},
		"Stream": func(ctx context.Context, p *workpool.Pool[order, int], o order) error {
			for r := range p.Stream(ctx, slices.Values([]order{o})) {
				assert.NoError(t, r.Err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func() {
				p := newOrders(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithKeyDepth(2), workpool.WithoutResults())
				attempts := 0
				require.NoError(t, p.Submit(t.Context(), order{1, func(context.Context) (int, error) {
					if attempts++; attempts == 1 {
						return 0, workpool.RetryAfter(50*time.Millisecond, nil)
					}
					return 0, nil
				}}))
				waiting := func(n int) func() bool { return func() bool { return p.Stats().Waiting == n } }
				require.Eventually(t, func() bool { return p.Stats().Parked == 1 }, time.Second, time.Millisecond)
				var line sync.WaitGroup
				refused := new(atomic.Int32)
				_, err := p.Do(t.Context(), order{2, func(ctx context.Context) (int, error) {
					for range 3 {
						line.Go(func() {
							if errors.Is(p.Submit(t.Context(), order{1, napping}), workpool.ErrClosed) {
								refused.Add(1)
							}
						})
					}
					assert.Eventually(t, waiting(3), time.Second, time.Millisecond)
					return 0, use(ctx, p, order{1, func(context.Context) (int, error) {
						line.Go(func() { assert.NoError(t, p.Close()) })
						assert.Eventually(t, func() bool { return p.Stats().Closed }, time.Second, time.Millisecond)
						return 0, nil
					}})
				}})
				require.NoError(t, err)
				line.Wait()
				assert.Equal(t, int32(3), refused.Load())
				assert.Equal(t, 2, attempts)
			})
		})
	}
}
