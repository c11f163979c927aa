package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// While an input is blocked, all room that there is can be had by others.
func TestRule2_RoomBesideABlockedInputIsThereForOthers(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct{ workers, depth, busy, fed int }{
		{1, 0, 0, 0}, {1, 0, 1, 0}, {2, 0, 1, 0}, {2, 0, 0, 1}, {1, 1, 1, 0}, {1, 1, 1, 1}, {2, 2, 2, 1}, {2, 2, 1, 3}, {1, 128, 1, 70}, {2, 128, 2, 128},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			eachSequenceWay(t, func(t *testing.T, feed sequenceWay) {
				p := newClosures(t, workpool.WithWorkers(c.workers), workpool.WithQueueDepth(c.depth), workpool.WithoutResults())
				release := make(chan struct{})
				for range c.busy {
					require.NoError(t, p.Submit(ctx, until(release)))
				}
				tasks, end := feeding(t, p, feed)
				for range c.fed {
					tasks <- until(release)
				}
				synctest.Wait()
				free := c.depth + c.workers - c.busy - c.fed
				for i := range free {
					require.NoError(t, p.TrySubmit(t.Context(), until(release)), "%d of %d", i, free)
				}
				require.ErrorIs(t, p.TrySubmit(t.Context(), until(release)), workpool.ErrQueueFull)
				synctest.Wait()
				s := p.Stats()
				assert.Equal(t, []int{c.depth, c.workers}, []int{s.Queued, s.Running})
				assert.EqualValues(t, c.depth+c.workers, s.Submitted)

				short, cancel := context.WithTimeout(ctx, time.Second)
				assert.ErrorIs(t, p.Wait(short), context.DeadlineExceeded)
				cancel()
				close(release)
				synctest.Wait()
				require.NoError(t, p.Wait(ctx))
				end()
			})
		})
	}
}

// Cancelled tasks leave no more results behind than others.
func TestRule2_CancelledTasksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		p := mustNew(t, g.handle, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithResultBuffer(1))
		require.NoError(t, p.Submit(t.Context(), 0))
		<-g.began
		ctx, giveUp := context.WithCancel(t.Context())
		var loop sync.WaitGroup
		accepted := 1
		loop.Go(func() {
			for n := 1; ; n++ {
				cancel, err := p.SubmitCancel(ctx, n)
				if err != nil {
					return
				}
				accepted++
				cancel()
			}
		})
		synctest.Wait()
		s := p.Stats()
		assert.LessOrEqual(t, s.Queued+s.Running+s.Undelivered, 2+1+1)
		giveUp()
		loop.Wait()
		close(g.end)
		closed(t, p)
		results := collect(p)
		assert.Len(t, results, accepted)
		for _, r := range results {
			assert.Equal(t, r.Task > 0, errors.Is(r.Err, context.Canceled))
		}
	})
}

// Without a receiver a pool takes exactly as much as it may hold, and one more with each
// result that is received.
func TestRule2_HoldsExactlyWhatItMay(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		for _, depth := range []int{0, 1, 4, 9} {
			for _, buffer := range []int{0, 1, 3, 7} {
				bubble(t, fmt.Sprintf("workers=%d/depth=%d/buffer=%d", workers, depth, buffer), func(t *testing.T) {
					p := newClosures(t, workpool.WithWorkers(workers), workpool.WithQueueDepth(depth), workpool.WithResultBuffer(buffer))
					var others sync.WaitGroup
					others.Go(func() {
						for i := 0; p.Submit(t.Context(), returning(i, nil)) == nil; i++ {
						}
					})
					synctest.Wait()
					for received := range 40 {
						s := p.Stats()
						require.Equal(t, workers+depth+buffer, int(s.Submitted)-received, "%+v", s)
						require.Equal(t, []int{depth, 0, buffer + workers, workers, 1}, []int{s.Queued, s.Running, s.Undelivered, s.Held, s.Waiting})
						require.ErrorIs(t, p.TrySubmit(t.Context(), returning(0, nil)), workpool.ErrQueueFull)
						receive(t, p)
						synctest.Wait()
					}
					closed(t, p)
					others.Wait()
					assert.Len(t, collect(p), int(p.Stats().Submitted)-40)
				})
			}
		}
	}
}

// The same with one range over all results, which may take several at once.
func TestRule2_AReceiverThatIsAheadHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(4), workpool.WithResultBuffer(3))
		var submitter sync.WaitGroup
		submitter.Go(func() {
			for p.Submit(t.Context(), 1) == nil {
			}
		})
		received := 0
		for range p.Results() {
			synctest.Wait()
			received++
			require.Equal(t, 2+4+3, int(p.Stats().Submitted)-received)
			if received == 100 {
				break
			}
		}
		closed(t, p)
		submitter.Wait()
	})
}

// Each task that begins leaves room for one: for who waits in line, or for TrySubmit.
func TestRule2_EachTaskThatBeginsLeavesRoomForOne(t *testing.T) {
	const depth = 4
	for _, waiting := range []int{0, 1, 5} {
		bubble(t, fmt.Sprintf("waiting=%d", waiting), func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(depth), workpool.WithoutResults())
			step := make(chan struct{})
			task := func(context.Context) (int, error) { //nolint:unparam // a task
				<-step
				return 0, nil
			}
			full := func() {
				t.Helper()
				synctest.Wait()
				require.ErrorIs(t, p.TrySubmit(t.Context(), task), workpool.ErrQueueFull)
				require.Equal(t, depth, p.Stats().Queued)
			}
			p.Pause()
			for range depth {
				require.NoError(t, p.TrySubmit(t.Context(), task))
			}
			full()
			var submitters sync.WaitGroup
			for range waiting {
				submitters.Go(func() { assert.NoError(t, p.Submit(t.Context(), task)) })
			}
			synctest.Wait()
			require.Equal(t, waiting, p.Stats().Waiting)
			p.Resume()
			for begun := 1; begun <= 7; begun++ {
				synctest.Wait()
				require.Equal(t, max(0, waiting-begun), p.Stats().Waiting)
				if begun > waiting {
					require.NoError(t, p.TrySubmit(t.Context(), task))
				}
				full()
				step <- struct{}{}
			}
			synctest.Wait()
			require.NoError(t, p.Resize(3))
			for range 3 {
				require.NoError(t, p.TrySubmit(t.Context(), task))
			}
			full()
			close(step)
			submitters.Wait()
		})
	}
}

// What an input may hand in is what there is room for at that moment.
func TestRule2_APauseAndAResizeTakeRoomFromABlockedInput(t *testing.T) {
	for name, shrink := range map[string]func(p *closures){
		"Pause":  func(p *closures) { p.Pause() },
		"Resize": func(p *closures) { _ = p.Resize(1) },
	} {
		t.Run(name, func(t *testing.T) {
			eachSequenceWay(t, func(t *testing.T, feed sequenceWay) {
				const depth = 2
				p := newClosures(t, workpool.WithWorkers(8), workpool.WithQueueDepth(depth), workpool.WithoutResults())
				release := make(chan struct{})
				tasks, end := feeding(t, p, feed)
				shrink(p)
				go func() {
					for range 8 {
						tasks <- until(release)
					}
					end()
				}()
				synctest.Wait()
				assert.Equal(t, depth, p.Stats().Queued)
				p.Resume()
				close(release)
				synctest.Wait()
				assert.EqualValues(t, 8, p.Stats().Succeeded)
			})
		})
	}
}
