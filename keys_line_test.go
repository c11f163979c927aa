package workpool_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// A handler has submitted a task of its own key in excess of the queue's depth. That keeps no
// other key's task from an idle worker.
func TestRule8_ATaskBehindItsKeyKeepsNoOtherKeyFromAnIdleWorker(t *testing.T) {
	for _, depth := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(3), workpool.WithQueueDepth(depth), workpool.WithoutResults())
			_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				for range depth + 1 {
					assert.NoError(t, p.Submit(ctx, order{1, returning(0, nil)}))
				}
				return p.Do(context.WithoutCancel(t.Context()), order{2, returning(0, nil)}) // as somebody else
			}})
			require.NoError(t, err)
			require.NoError(t, p.Wait(t.Context()))
			closed(t, p)
			assert.Equal(t, uint64(depth+3), p.Stats().Succeeded)
		})
	}
}

// The key of a task that a handler waits for is busy at first, and idle later, when no worker is.
func TestRule6_ATaskInLineRunsInPlaceWhenItsKeyIsIdle(t *testing.T) {
	uses := map[string]func(ctx context.Context, p *workpool.Pool[order, int], o order) error{
		"Group": func(ctx context.Context, p *workpool.Pool[order, int], o order) error {
			g := p.Group(ctx)
			if err := g.Submit(o); err != nil {
				return err
			}
			_, err := g.Wait()
			return err
		},
		"Stream": func(ctx context.Context, p *workpool.Pool[order, int], o order) error {
			for r := range p.Stream(ctx, func(yield func(order) bool) { yield(o) }) {
				if r.Err != nil {
					return r.Err
				}
			}
			return nil
		},
		"Map": func(ctx context.Context, p *workpool.Pool[order, int], o order) error {
			_, err := p.Map(ctx, []order{o})
			return err
		},
		"Do": func(ctx context.Context, p *workpool.Pool[order, int], o order) error {
			_, err := p.Do(ctx, o)
			return err
		},
	}
	for name, use := range uses {
		bubble(t, name, func(t *testing.T) {
			p := newOrders(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0), workpool.WithKeyDepth(1), workpool.WithoutResults())
			release, held := make(chan struct{}), make(chan struct{})
			require.NoError(t, p.Submit(t.Context(), order{2, until(release)}))
			var all sync.WaitGroup
			all.Go(func() {
				_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
					return 0, use(ctx, p, order{2, returning(0, nil)})
				}})
				assert.NoError(t, err)
			})
			synctest.Wait()
			all.Go(func() { assert.NoError(t, p.Submit(t.Context(), order{3, until(held)})) }) // which takes the worker
			synctest.Wait()
			close(release)
			synctest.Wait()
			assert.Equal(t, 1, p.Stats().Running, "the other one alone")
			close(held)
			all.Wait()
		})
	}
}

// The same, where somebody else is in line for the key before it.
func TestRule6_ATaskInLineRunsInPlaceBehindAnotherOfItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithQueueDepth(0), workpool.WithoutResults())
		release, held := make(chan struct{}), make(chan struct{})
		require.NoError(t, p.Submit(t.Context(), order{2, until(release)}))
		var all sync.WaitGroup
		first := make(chan struct{})
		all.Go(func() {
			_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				<-first
				_, err := p.Map(ctx, []order{{2, returning(0, nil)}})
				return 0, err
			}})
			assert.NoError(t, err)
		})
		synctest.Wait()
		all.Go(func() { assert.NoError(t, p.Submit(t.Context(), order{2, returning(0, nil)})) })
		synctest.Wait()
		close(first)
		synctest.Wait()
		all.Go(func() { assert.NoError(t, p.Submit(t.Context(), order{3, until(held)})) })
		synctest.Wait()
		close(release) // the worker takes the task of key 3, while key 2 is idle
		synctest.Wait()
		assert.Equal(t, 1, p.Stats().Running, "the one of key 3")
		close(held)
		all.Wait()
	})
}

// The task whose turn it is asks for another attempt. Until that begins, a handler that waits
// for one of the same key runs it in its place: no worker may be left for either.
func TestRule6_ATaskGoesAheadOfOneThatIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newOrders(t, workpool.WithWorkers(2), workpool.WithoutResults())
		fails, held := make(chan struct{}), make(chan struct{})
		require.NoError(t, p.Submit(t.Context(), order{2, func(ctx context.Context) (int, error) {
			if info, _ := workpool.InfoFrom(ctx); info.Attempt == 1 {
				<-fails
				return 0, workpool.RetryAfter(time.Second, nil)
			}
			return 0, nil
		}}))
		synctest.Wait()
		answer := make(chan error, 1)
		go func() {
			_, err := p.Do(t.Context(), order{1, func(ctx context.Context) (int, error) {
				return p.Do(ctx, order{2, returning(0, nil)})
			}})
			answer <- err
		}()
		synctest.Wait()
		require.NoError(t, p.Submit(t.Context(), order{3, until(held)})) // for the worker that the first one leaves
		close(fails)
		synctest.Wait()
		select {
		case err := <-answer:
			require.NoError(t, err)
		default:
			t.Error("it waits for the next attempt of another one")
		}
		close(held)
	})
}
