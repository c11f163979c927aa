package workpool_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// A handIn is a way to run tasks. It hands them in from one goroutine, in order, and
// returns when all have ended.
type handIn func(ctx context.Context, p *closures, tasks []closure) error

// handsIn are the ways of which rule 8 promises that tasks begin in their order.
var handsIn = map[string]handIn{
	"Submit": func(ctx context.Context, p *closures, tasks []closure) error {
		var received sync.WaitGroup
		defer received.Wait()
		received.Go(func() { receiveN(p, len(tasks)) })
		for _, task := range tasks {
			if err := p.Submit(ctx, task); err != nil {
				return err
			}
		}
		return nil
	},
	"SubmitAll": func(ctx context.Context, p *closures, tasks []closure) error {
		var received sync.WaitGroup
		defer received.Wait()
		received.Go(func() { receiveN(p, len(tasks)) })
		_, err := p.SubmitAll(ctx, slices.Values(tasks))
		return err
	},
	"DoChan": func(ctx context.Context, p *closures, tasks []closure) error {
		var answers []<-chan workpool.Result[closure, int]
		for _, task := range tasks {
			answers = append(answers, p.DoChan(ctx, task))
		}
		var err error
		for _, answer := range answers {
			if r := <-answer; r.Err != nil {
				err = r.Err
			}
		}
		return err
	},
	"Map": func(ctx context.Context, p *closures, tasks []closure) error {
		_, err := p.Map(ctx, tasks)
		return err
	},
	"Stream": func(ctx context.Context, p *closures, tasks []closure) error {
		var err error
		for r := range p.Stream(ctx, slices.Values(tasks)) {
			if r.Err != nil {
				err = r.Err
			}
		}
		return err
	},
	"Group": func(ctx context.Context, p *closures, tasks []closure) error {
		g := p.Group(ctx)
		for _, task := range tasks {
			if g.Submit(task) != nil {
				break // Wait says why
			}
		}
		_, err := g.Wait()
		return err
	},
}

// receiveN receives n results.
func receiveN(p *closures, n int) {
	if n == 0 {
		return
	}
	for range p.Results() {
		if n--; n == 0 {
			return
		}
	}
}

func eachHandIn(t *testing.T, test func(t *testing.T, run handIn)) {
	t.Helper()
	for name, run := range handsIn {
		t.Run(name, func(t *testing.T) { test(t, run) })
	}
}

// busyFor returns a task that keeps a processor busy for that long.
func busyFor(d time.Duration) closure {
	return func(context.Context) (int, error) {
		for begin := time.Now(); time.Since(begin) < d; {
			continue
		}
		return 0, nil
	}
}

// Tasks are let end one by one, in any order. Each time the oldest that has not begun
// begins, and no other.
func TestRule8_TasksBeginInTheOrderOfAcceptance(t *testing.T) {
	const tasks = 24
	for _, workers := range []int{1, 2, 3, 8} {
		for _, depth := range []int{0, 1, 100} {
			t.Run(fmt.Sprintf("workers=%d/depth=%d", workers, depth), func(t *testing.T) {
				eachHandIn(t, func(t *testing.T, run handIn) {
					synctest.Test(t, func(t *testing.T) {
						p := newClosures(t, workpool.WithWorkers(workers), workpool.WithQueueDepth(depth))
						began := make(chan int, tasks)
						ends := make([]chan struct{}, tasks)
						list := make([]closure, tasks)
						for i := range list {
							ends[i] = make(chan struct{})
							list[i] = func(context.Context) (int, error) {
								began <- i
								<-ends[i]
								return 0, nil
							}
						}
						var all sync.WaitGroup
						all.Go(func() { assert.NoError(t, run(t.Context(), p, list)) })

						synctest.Wait()
						var running []int
						for range workers {
							running = append(running, <-began)
						}
						slices.Sort(running)
						require.Equal(t, upTo(workers), running)
						for next := workers; len(running) > 0; next++ {
							i := rand.IntN(len(running))
							close(ends[running[i]])
							running = slices.Delete(running, i, i+1)
							synctest.Wait()
							if next < tasks {
								require.Len(t, began, 1)
								require.Equal(t, next, <-began)
								running = append(running, next)
							}
						}
						all.Wait()
					})
				})
			})
		}
	}
}

// rounds is how many rounds a test of hangs makes, of which each takes some tens of
// microseconds.
func rounds(few, many int) int {
	if testing.Short() {
		return few
	}
	return many
}

// One of the first tasks frees all others, after tasks that kept the workers busy for
// different times. If a younger task began while an older one was stuck behind a task
// that waits, all would hang.
func TestRule8_TasksThatWaitForAnOlderOneNeverHang(t *testing.T) {
	const tasks = 16
	for _, workers := range []int{2, 4, 8, 64} {
		frees := min(workers, tasks, 3) - 1 // the third, or the second of two workers
		t.Run(fmt.Sprintf("workers=%d", workers), func(t *testing.T) {
			eachHandIn(t, func(t *testing.T, run handIn) {
				p := newClosures(t, workpool.WithWorkers(workers))
				within(t, func() {
					for round := range rounds(300, 3_000) {
						spin := []time.Duration{0, 5, 15, 40}[round%4] * time.Microsecond
						freed := make(chan struct{})
						var list []closure
						for range round % 20 {
							list = append(list, busyFor(spin))
						}
						for i := range tasks {
							if i == frees {
								list = append(list, func(context.Context) (int, error) {
									close(freed)
									return 0, nil
								})
							} else {
								list = append(list, until(freed))
							}
						}
						if !assert.NoError(t, run(t.Context(), p, list)) {
							return
						}
					}
				})
			})
		})
	}
}

// Of many mirrors one among the first answers, and the others wait for the end of their
// context, which the first answer brings.
func TestRule8_ARaceOfMirrorsNeverHangs(t *testing.T) {
	const mirrors = 12
	races := map[string]func(p *closures, list []closure){
		"Stream": func(p *closures, list []closure) {
			for r := range p.Stream(context.Background(), slices.Values(list)) {
				if r.Err == nil {
					return
				}
			}
		},
		"Map": func(p *closures, list []closure) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_, _ = p.Map(ctx, winnerCalls(list, cancel))
		},
		"Group": func(p *closures, list []closure) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			g := p.Group(ctx)
			for _, task := range winnerCalls(list, cancel) {
				_ = g.Submit(task)
			}
			_, _ = g.Wait()
		},
		"DoChan": func(p *closures, list []closure) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			var answers []<-chan workpool.Result[closure, int]
			for _, task := range winnerCalls(list, cancel) {
				answers = append(answers, p.DoChan(ctx, task))
			}
			for _, answer := range answers {
				<-answer
			}
		},
	}
	for name, race := range races {
		for _, workers := range []int{1, 2, 4, 8} {
			t.Run(fmt.Sprintf("%s/workers=%d", name, workers), func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(workers))
				within(t, func() {
					for round := range rounds(300, 3_000) {
						spin := []time.Duration{0, 5, 15, 40}[round%4] * time.Microsecond
						list := make([]closure, mirrors)
						for i := range list {
							list[i] = untilEnd
						}
						list[rand.IntN(workers)] = busyFor(spin)
						race(p, list)
					}
				})
			})
		}
	}
}

// winnerCalls has each of the tasks that returns no error call f.
func winnerCalls(list []closure, f func()) []closure {
	calling := make([]closure, len(list))
	for i, task := range list {
		calling[i] = func(ctx context.Context) (int, error) {
			value, err := task(ctx)
			if err == nil {
				f()
			}
			return value, err
		}
	}
	return calling
}

// Several callers hand in tasks at once: those of each begin in its order, since all
// take turns.
func TestRule8_TheTasksOfEachCallerBeginInOrder(t *testing.T) {
	const callers, tasks = 4, 50
	eachHandIn(t, func(t *testing.T, run handIn) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(8))
		began := make([][]int, callers)
		var all sync.WaitGroup
		for c := range callers {
			var list []closure
			for i := range tasks {
				list = append(list, func(context.Context) (int, error) {
					began[c] = append(began[c], i) // one worker: no two at once
					return 0, nil
				})
			}
			all.Go(func() { assert.NoError(t, run(t.Context(), p, list)) })
		}
		all.Wait()
		for c := range callers {
			assert.Equal(t, upTo(tasks), began[c])
		}
	})
}
