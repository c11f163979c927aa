package workpool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// The first task is slow, and 100,000 fast ones stand behind it.
func TestOrdered_ASlowTaskHoldsUpItsFollowersAndKeepsTheWindow(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 16} {
		synctest.Test(t, func(t *testing.T) {
			const tasks, depth, buffer = 100_000, 8, 5
			slow := func(_ context.Context, n int) (int, error) {
				if n == 0 {
					time.Sleep(time.Hour)
				}
				return n, nil
			}
			p := mustNew(t, slow, workpool.WithOrdered(), workpool.WithWorkers(workers),
				workpool.WithQueueDepth(depth), workpool.WithResultBuffer(buffer))
			go func() {
				gives(t, tasks)(p.SubmitAll(t.Context(), count(tasks)))
				assert.NoError(t, p.Shutdown(t.Context()))
			}()
			time.Sleep(time.Minute)
			synctest.Wait()
			stats := p.Stats()
			assert.LessOrEqual(t, stats.Submitted, uint64(depth+buffer+workers), "what is accepted fits the window")
			if workers > 1 {
				assert.Positive(t, stats.Undelivered, "tasks behind the slow one have run")
			}
			next := uint64(0)
			for r := range p.Results() {
				if r.Index != next {
					t.Fatalf("result %d comes as number %d", r.Index, next)
				}
				next++
			}
			assert.EqualValues(t, tasks, next)
		})
	}
}

func TestOrdered_StreamYieldsInTheOrderOfItsInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nap := func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			return n, nil
		}
		p := mustNew(t, nap, workpool.WithOrdered(), workpool.WithWorkers(7), workpool.WithQueueDepth(3))
		next := 0
		for r := range p.Stream(t.Context(), count(1000)) {
			require.NoError(t, r.Err)
			require.Equal(t, next, r.Value)
			next++
		}
		assert.Equal(t, 1000, next)
	})
}

// Failures, panics, Goexit, retries and cancellations at random places.
func TestOrdered_WhateverBecomesOfTheTasks(t *testing.T) {
	for _, workers := range []int{1, 2, 5} {
		for seed := range uint64(20) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				fates := make([]int, 500)
				for i := range fates {
					fates[i] = random.IntN(10)
				}
				handle := func(ctx context.Context, n int) (int, error) {
					info, _ := workpool.InfoFrom(ctx)
					switch fates[n] {
					case 0:
						panic(n)
					case 1:
						runtime.Goexit()
					case 2:
						return 0, errors.New("failed")
					case 3:
						if info.Attempt < 3 {
							return 0, workpool.RetryAfter(time.Duration(n%7)*time.Millisecond, errors.New("not yet"))
						}
					case 4, 5:
						time.Sleep(time.Duration(n%11) * time.Millisecond)
					case 6:
						<-ctx.Done()
						return 0, context.Cause(ctx)
					}
					return n, nil
				}
				p := mustNew(t, handle, workpool.WithOrdered(), workpool.WithWorkers(workers),
					workpool.WithQueueDepth(random.IntN(4)), workpool.WithResultBuffer(random.IntN(4)),
					workpool.WithShutdown(workpool.ShutdownMode(random.IntN(3)), time.Second))
				end := random.IntN(2 * len(fates))
				accepted := 0
				var submitter sync.WaitGroup
				submitter.Go(func() {
					for n := range fates {
						if n == end {
							assert.NoError(t, p.Close())
						}
						cancel, err := p.SubmitCancel(t.Context(), n)
						if err != nil {
							assert.ErrorIs(t, err, workpool.ErrClosed)
							break
						}
						accepted++
						if fates[n] == 6 {
							time.AfterFunc(time.Duration(n%13)*time.Millisecond, cancel)
						}
					}
					assert.NoError(t, p.Shutdown(t.Context()))
				})
				next := 0
				for r := range p.Results() {
					require.EqualValues(t, next, r.Index)
					require.Equal(t, next, r.Task)
					next++
				}
				submitter.Wait()
				assert.Equal(t, accepted, next)
			})
		}
	}
}

// The task that all wait for comes again when every worker has a result that
// finds no room in the window.
func TestOrdered_TheOldestTaskIsTakenByAWorkerThatIsHeldBack(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		synctest.Test(t, func(t *testing.T) {
			handle := func(ctx context.Context, n int) (int, error) {
				info, _ := workpool.InfoFrom(ctx)
				if n%10 == 0 && info.Attempt < 4 {
					return 0, workpool.RetryAfter(time.Second, nil)
				}
				return n, nil
			}
			p := mustNew(t, handle, workpool.WithOrdered(), workpool.WithWorkers(workers),
				workpool.WithQueueDepth(2), workpool.WithResultBuffer(1))
			go func() {
				_, err := p.SubmitAll(t.Context(), count(100))
				assert.NoError(t, err)
				assert.NoError(t, p.Wait(t.Context()))
				assert.NoError(t, p.Close())
			}()
			next := 0
			for r := range p.Results() {
				require.Equal(t, next, r.Value)
				next++
			}
			assert.Equal(t, 100, next)
		})
	}
}

func TestOrdered_CallsTakeNoPlaceInTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithOrdered(), workpool.WithWorkers(2))
		for n := range 10 {
			require.NoError(t, p.Submit(t.Context(), n))
			gives(t, 100+n)(p.Do(t.Context(), 100+n))
		}
		closed(t, p)
		for i, r := range collect(p) {
			assert.Equal(t, i, r.Value)
		}
	})
}
