package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// warmed returns a pool whose worker has found that tasks are short, so that it
// takes several at once, which nobody may notice. Whatever is queued while the
// pool is paused is taken in one go by the worker that comes first. All workers
// are idle. It is for use in a bubble, and takes a queue depth of 4.
func warmed(t testing.TB, workers int, opts ...workpool.Option) *closures {
	t.Helper()
	const tasks = 4
	p := newClosures(t, append(slices.Clip(opts), workpool.WithWorkers(1))...)
	p.Pause()
	var answered sync.WaitGroup
	for range tasks {
		answered.Go(func() {
			_, err := p.Do(context.Background(), returning(0, nil))
			assert.NoError(t, err)
		})
	}
	synctest.Wait()
	p.Resume()
	answered.Wait()
	require.NoError(t, p.Resize(workers))
	synctest.Wait()
	return p
}

// warmTasks is how many tasks warmed has submitted.
const warmTasks = 4

// inOneGo submits the tasks, which a worker that is idle may then take at once.
func inOneGo(t testing.TB, p *closures, tasks ...closure) {
	t.Helper()
	p.Pause()
	for _, task := range tasks {
		require.NoError(t, p.TrySubmit(task))
	}
	p.Resume()
	synctest.Wait()
}

// counted is a task that counts how often it runs.
func counted(n *atomic.Int32) closure {
	return func(context.Context) (int, error) { return int(n.Add(1)), nil }
}

// waysIn are the ways to hand in a number of tasks without waiting for their ends.
// Each returns a function that waits for these, where they don't go to Results.
var waysIn = map[string]func(t testing.TB, p *closures, tasks []closure) (wait func()){
	"Submit": func(t testing.TB, p *closures, tasks []closure) func() {
		for _, task := range tasks {
			require.NoError(t, p.Submit(context.Background(), task))
		}
		return func() {}
	},
	"SubmitAll": func(t testing.TB, p *closures, tasks []closure) func() {
		accepted, err := p.SubmitAll(context.Background(), slices.Values(tasks))
		require.NoError(t, err)
		require.Len(t, tasks, accepted)
		return func() {}
	},
	"Do": func(t testing.TB, p *closures, tasks []closure) func() {
		var answers sync.WaitGroup
		for _, task := range tasks {
			answers.Go(func() {
				_, err := p.Do(context.Background(), task)
				assert.NoError(t, err)
			})
			synctest.Wait()
		}
		return answers.Wait
	},
	"DoChan": func(t testing.TB, p *closures, tasks []closure) func() {
		var answers []<-chan workpool.Result[closure, int]
		for _, task := range tasks {
			answers = append(answers, p.DoChan(context.Background(), task))
		}
		return func() {
			for _, answer := range answers {
				require.NoError(t, (<-answer).Err)
			}
		}
	},
	"Map": func(t testing.TB, p *closures, tasks []closure) func() {
		var batch sync.WaitGroup
		batch.Go(func() {
			_, err := p.Map(context.Background(), tasks)
			assert.NoError(t, err)
		})
		return batch.Wait
	},
	"Stream": func(t testing.TB, p *closures, tasks []closure) func() {
		var batch sync.WaitGroup
		batch.Go(func() {
			for r := range p.Stream(context.Background(), slices.Values(tasks)) {
				assert.NoError(t, r.Err)
			}
		})
		return batch.Wait
	},
}

func eachWayIn(t *testing.T, test func(t *testing.T, submit func(t testing.TB, p *closures, tasks []closure) (wait func()))) {
	t.Helper()
	for name, submit := range waysIn {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, submit) })
		})
	}
}

// A task blocks at every place of a burst, while all other workers are idle, or
// become so later. What is behind it runs on them.
func TestRule8_TasksBehindABlockedOneRunElsewhere(t *testing.T) {
	const burst = 5
	for _, workers := range []int{2, 3, 8} {
		for blocks := range burst {
			for _, later := range []bool{false, true} {
				t.Run(fmt.Sprintf("workers=%d/blocks=%d/later=%v", workers, blocks, later), func(t *testing.T) {
					eachWayIn(t, func(t *testing.T, submit func(t testing.TB, p *closures, tasks []closure) func()) {
						p := warmed(t, workers)
						others := func() {}
						if later {
							others = occupy(t, p, workers-1)
						}
						release := make(chan struct{})
						var ran atomic.Int32
						var tasks []closure
						for i := range burst {
							if i == blocks {
								tasks = append(tasks, until(release))
							} else {
								tasks = append(tasks, counted(&ran))
							}
						}
						p.Pause()
						wait := submit(t, p, tasks)
						synctest.Wait()
						p.Resume()
						synctest.Wait()
						if later {
							assert.Equal(t, int32(blocks), ran.Load())
							if !strings.HasSuffix(t.Name(), "/Map") { // whose tasks are accepted as they are begun
								assert.Equal(t, burst-1-blocks, p.Stats().Queued)
							}
							others()
							synctest.Wait()
						}
						assert.Equal(t, int32(burst-1), ran.Load())
						assert.Equal(t, 1, p.Stats().Running)
						close(release)
						wait()
						closed(t, p)
					})
				})
			}
		}
	}
}

// With one worker there is nobody else, until a Resize.
func TestRule8_AStartedWorkerTakesWhatIsBehindABlockedTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := warmed(t, 1)
		release := make(chan struct{})
		var ran atomic.Int32
		inOneGo(t, p, counted(&ran), until(release), counted(&ran), counted(&ran))
		assert.Equal(t, int32(1), ran.Load())
		assert.Equal(t, 2, p.Stats().Queued)
		require.NoError(t, p.Resize(2))
		synctest.Wait()
		assert.Equal(t, int32(3), ran.Load())
		assert.Equal(t, 0, p.Stats().Queued)
		close(release)
		closed(t, p)
	})
}

// All tasks of a burst block, and all workers have to be at one.
func TestRule8_ABurstOfBlockingTasksKeepsAllWorkersBusy(t *testing.T) {
	for _, workers := range []int{2, 3, 8, 40} {
		synctest.Test(t, func(t *testing.T) {
			p := warmed(t, workers)
			release := make(chan struct{})
			inOneGo(t, p, slices.Repeat([]closure{until(release)}, workers+3)...)
			assert.Equal(t, workers, p.Stats().Running)
			assert.Equal(t, 3, p.Stats().Queued)
			close(release)
			closed(t, p)
		})
	}
}

// The results of what a worker has done are there while it is at the next task.
func TestRule8_ResultsBeforeABlockedTaskAreReceived(t *testing.T) {
	for _, buffer := range []int{0, 1, 3, 128} {
		for _, first := range []bool{false, true} {
			t.Run(fmt.Sprintf("buffer=%d/receiverFirst=%v", buffer, first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := warmed(t, 1, workpool.WithResultBuffer(buffer))
					release := make(chan struct{})
					var got []int
					var receivers sync.WaitGroup
					receiver := func() {
						for r := range p.Results() {
							got = append(got, r.Value)
						}
					}
					if first {
						receivers.Go(receiver)
						synctest.Wait()
					}
					inOneGo(t, p, returning(1, nil), returning(2, errors.New("two")), returning(3, nil), until(release), returning(5, nil))
					if !first {
						receivers.Go(receiver)
						synctest.Wait()
					}
					assert.Equal(t, []int{1, 2, 3}, got)
					s := p.Stats()
					assert.Equal(t, workpool.Stats{Workers: 1, Running: 1, Queued: 1, Submitted: warmTasks + 5, Succeeded: warmTasks + 2, Failed: 1}, s)
					close(release)
					closed(t, p)
					receivers.Wait()
					assert.Equal(t, []int{1, 2, 3, 0, 5}, got)
				})
			})
		}
	}
}

// A receiver that has taken several results and is at the first of them keeps
// none from another, by whatever its loop body ends.
func TestRule8_AnotherReceiverGetsWhatTheFirstHasNotComeTo(t *testing.T) {
	const results = 5
	ways := map[string]func(){
		"return":       func() {},
		"break":        nil,
		"panic":        func() { panic("in the loop body") },
		"Goexit":       runtime.Goexit,
		"another loop": func() {},
	}
	for name, end := range ways {
		for _, early := range []bool{false, true} { // the second is there before the first ends
			t.Run(fmt.Sprintf("%s/early=%v", name, early), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := warmed(t, 1)
					for i := range results {
						require.NoError(t, p.Submit(t.Context(), returning(1+i, nil)))
					}
					synctest.Wait()
					release := make(chan struct{})
					var mu sync.Mutex
					var first, second []int
					var receivers sync.WaitGroup
					receivers.Go(func() {
						defer func() { _ = recover() }()
						for r := range p.Results() {
							mu.Lock()
							first = append(first, r.Value)
							mu.Unlock()
							<-release
							if end == nil {
								break
							}
							if name == "another loop" && len(first) == 1 {
								for r := range p.Results() {
									first = append(first, r.Value)
								}
							}
							end()
						}
					})
					synctest.Wait()
					assert.Equal(t, results-1, p.Stats().Undelivered)
					other := func() {
						for r := range p.Results() {
							mu.Lock()
							second = append(second, r.Value)
							mu.Unlock()
						}
					}
					if early {
						receivers.Go(other)
						synctest.Wait()
						assert.ElementsMatch(t, []int{2, 3, 4, 5}, second) // the last may have been taken alone, and come first
						assert.Zero(t, p.Stats().Undelivered)
					}
					close(release)
					synctest.Wait()
					if !early {
						receivers.Go(other)
						synctest.Wait()
					}
					all := slices.Concat(first, second)
					slices.Sort(all)
					assert.Equal(t, []int{1, 2, 3, 4, 5}, all)
					assert.Zero(t, p.Stats().Undelivered)
					closed(t, p)
					receivers.Wait()
				})
			})
		}
	}
}

// Room is given to those who wait for it with each task that is begun, and to
// TrySubmit, though a worker has taken several.
func TestRun_RoomIsExact(t *testing.T) {
	const depth = 4
	for _, blocked := range []bool{false, true} { // by Submit, or found by TrySubmit
		for _, idle := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("blocked=%v/idle=%d", blocked, idle), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := warmed(t, 1, workpool.WithQueueDepth(depth))
					began, step := make(chan struct{}, 100), make(chan struct{})
					task := func(ctx context.Context) (int, error) {
						began <- struct{}{}
						<-step
						return 0, ctx.Err()
					}
					inOneGo(t, p, task, task, task, task) // one begins: there is room for one
					require.NoError(t, p.TrySubmit(task))
					require.ErrorIs(t, p.TrySubmit(task), workpool.ErrQueueFull)
					for range 3 {
						var ended sync.WaitGroup
						if blocked {
							ended.Go(func() { assert.NoError(t, p.Submit(t.Context(), task)) })
							synctest.Wait()
						}
						step <- struct{}{}
						synctest.Wait()
						if !blocked {
							require.NoError(t, p.TrySubmit(task))
						}
						ended.Wait()
						require.ErrorIs(t, p.TrySubmit(task), workpool.ErrQueueFull)
						assert.Equal(t, depth, p.Stats().Queued)
						assert.Equal(t, 1, p.Stats().Running)
					}
					require.NoError(t, p.Resize(1+idle)) // these take what is behind, and leave room
					synctest.Wait()
					for range idle {
						require.NoError(t, p.TrySubmit(task))
						synctest.Wait()
					}
					require.ErrorIs(t, p.TrySubmit(task), workpool.ErrQueueFull)
					assert.Equal(t, 1+idle, p.Stats().Running)
					assert.Equal(t, depth, p.Stats().Queued)
					close(step)
					closed(t, p)
				})
			})
		}
	}
}

// Without a receiver, a pool takes exactly as much as it may hold, and with each
// result that is received one more.
func TestRun_HoldsExactlyWhatItMay(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		for _, depth := range []int{0, 1, 4, 9} {
			for _, buffer := range []int{0, 1, 3, 7} {
				t.Run(fmt.Sprintf("workers=%d/depth=%d/buffer=%d", workers, depth, buffer), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						opts := []workpool.Option{workpool.WithWorkers(workers), workpool.WithQueueDepth(depth), workpool.WithResultBuffer(buffer)}
						var p *closures
						if depth < warmTasks {
							p = newClosures(t, opts...)
						} else {
							p = warmed(t, workers, opts[1:]...)
						}
						before := int(p.Stats().Submitted)
						var submitter sync.WaitGroup
						submitter.Go(func() {
							for i := 0; p.Submit(t.Context(), returning(i, nil)) == nil; i++ {
							}
						})
						next, stop := make(chan struct{}), make(chan struct{})
						received := 0
						submitter.Go(func() {
							for range p.Results() { // one range, which may take several
								received++
								select {
								case <-next:
								case <-stop:
								}
							}
						})
						synctest.Wait()
						for i := range 40 {
							s := p.Stats()
							require.Equal(t, workers+depth+buffer, int(s.Submitted)-before-received, "after %d: %+v", i, s)
							require.Equal(t, depth, s.Queued)
							require.Equal(t, buffer+workers, s.Undelivered)
							next <- struct{}{}
							synctest.Wait()
							require.Equal(t, i+2, received)
						}
						close(stop)
						closed(t, p)
						submitter.Wait()
						assert.Equal(t, received, int(p.Stats().Submitted)-before)
					})
				})
			}
		}
	}
}

// What else can come in the middle: each ends as it would alone, in order.
func TestRun_TasksThatEndInOtherWays(t *testing.T) {
	failure := errors.New("failure")
	kinds := []struct {
		task closure
		is   func(r workpool.Result[closure, int]) bool
	}{
		{returning(1, nil), func(r workpool.Result[closure, int]) bool { return r.Value == 1 && r.Err == nil }},
		{returning(2, failure), func(r workpool.Result[closure, int]) bool { return r.Value == 2 && r.Err == failure }},
		{catchFire, func(r workpool.Result[closure, int]) bool {
			var panicked *workpool.PanicError
			return errors.As(r.Err, &panicked) && panicked.Value == "on fire"
		}},
		{exit, func(r workpool.Result[closure, int]) bool { return errors.Is(r.Err, workpool.ErrGoexit) }},
		{func(ctx context.Context) (int, error) {
			if info, _ := workpool.InfoFrom(ctx); info.Attempt == 1 {
				return 0, workpool.RetryAfter(0, failure)
			}
			return 5, nil
		}, func(r workpool.Result[closure, int]) bool { return r.Value == 5 && r.Err == nil && r.Attempt == 2 }},
	}
	const length = 4
	n := 1
	for range length {
		n *= len(kinds)
	}
	for _, workers := range []int{1, 2} {
		for program := range n {
			synctest.Test(t, func(t *testing.T) {
				p := warmed(t, workers)
				var tasks []closure
				var want workpool.Stats
				digits := make([]int, length)
				for i, rest := 0, program; i < length; i, rest = i+1, rest/len(kinds) {
					digits[i] = rest % len(kinds)
					tasks = append(tasks, kinds[digits[i]].task)
					switch digits[i] {
					case 1, 3:
						want.Failed++
					case 2:
						want.Failed++
						want.Panicked++
					case 4:
						want.Retried++
						fallthrough
					default:
						want.Succeeded++
					}
				}
				inOneGo(t, p, tasks...)
				want.Workers, want.Undelivered = workers, length
				want.Submitted, want.Succeeded = warmTasks+length, want.Succeeded+warmTasks
				assert.Equal(t, want, p.Stats(), "%v", digits)
				closed(t, p)
				results := collect(p)
				require.Len(t, results, length)
				var order []uint64
				for _, r := range results {
					i := r.Index - warmTasks
					assert.True(t, kinds[digits[i]].is(r), "%v: %d: %+v", digits, i, r)
					assert.NotZero(t, r.Worker)
					if digits[i] != 4 {
						order = append(order, i)
					}
				}
				if workers == 1 {
					assert.True(t, slices.IsSorted(order), "%v: %v", digits, order)
				}
			})
		}
	}
}

// Do has its answer while the worker is at the next task.
func TestRule8_DoIsAnsweredBeforeABlockedTask(t *testing.T) {
	for _, workers := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			p := warmed(t, workers)
			others := occupy(t, p, workers-1)
			release := make(chan struct{})
			p.Pause()
			var answers []<-chan outcome
			for i := range 3 {
				answers = append(answers, inBackground(context.Background(), do, p, returning(i, nil)))
			}
			blocked := inBackground(context.Background(), do, p, until(release))
			last := inBackground(context.Background(), do, p, returning(9, nil))
			p.Resume()
			for i, answer := range answers {
				assert.Equal(t, i, (<-answer).value)
			}
			synctest.Wait()
			assert.Empty(t, last)
			assert.Equal(t, 1, p.Stats().Queued)
			assert.Equal(t, uint64(warmTasks+3), p.Stats().Succeeded)
			others()
			if workers > 1 {
				assert.Equal(t, 9, (<-last).value)
			}
			assert.Empty(t, blocked)
			close(release)
			<-blocked
			if workers == 1 {
				assert.Equal(t, 9, (<-last).value)
			}
			closed(t, p)
		})
	}
}

func TestRun_InfoIsThatOfTheTaskInHand(t *testing.T) {
	for _, workers := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			const tasks = 6
			p := warmed(t, workers, workpool.WithName("runs"))
			var infos sync.Map
			inOneGo(t, p, slices.Repeat([]closure{func(ctx context.Context) (int, error) {
				info, ok := workpool.InfoFrom(ctx)
				assert.True(t, ok)
				again, _ := workpool.InfoFrom(ctx)
				assert.Equal(t, info, again)
				infos.Store(info.Index, info)
				return int(info.Index), nil
			}}, tasks)...)
			closed(t, p)
			results := collect(p)
			require.Len(t, results, tasks)
			for _, r := range results {
				assert.Equal(t, uint64(r.Value), r.Index)
				info, ok := infos.Load(r.Index)
				require.True(t, ok)
				assert.Equal(t, workpool.Info{Pool: "runs", Worker: r.Worker, Index: r.Index, Attempt: 1}, info)
			}
		})
	}
}

// A run is interrupted, by everything that can come, while it is at its second
// task.
func TestRun_Interrupted(t *testing.T) {
	type answers map[string]int // by the kind of the end
	kindOf := func(r workpool.Result[closure, int]) string {
		switch {
		case errors.Is(r.Err, workpool.ErrAborted):
			return "aborted"
		case r.Err != nil:
			return "failed"
		}
		return "ok"
	}
	// The tasks are: one that is short, one that waits for release or its context, three short ones.
	drained, cut, cancelled := answers{"ok": 5}, answers{"ok": 2, "aborted": 3}, answers{"ok": 1, "aborted": 4}
	background := context.Background()
	ended, cancel := context.WithCancel(background)
	cancel()
	cases := []struct {
		name string
		opts []workpool.Option
		act  func(t *testing.T, p *closures, parent context.CancelFunc, release func())
		want answers
	}{
		{"Pause", nil, func(t *testing.T, p *closures, _ context.CancelFunc, release func()) {
			p.Pause()
			release()
			synctest.Wait()
			assert.Equal(t, 3, p.Stats().Queued)
			assert.Equal(t, 0, p.Stats().Running)
			assert.Equal(t, 2, p.Stats().Undelivered)
			p.Resume()
			synctest.Wait()
			assert.Equal(t, 5, p.Stats().Undelivered)
		}, drained},
		{"Pause and Close", nil, func(_ *testing.T, p *closures, _ context.CancelFunc, release func()) {
			p.Pause()
			release()
		}, drained},
		{"Resize up and down", nil, func(t *testing.T, p *closures, _ context.CancelFunc, release func()) {
			require.NoError(t, p.Resize(3))
			synctest.Wait()
			assert.Equal(t, 4, p.Stats().Undelivered)
			require.NoError(t, p.Resize(1))
			release()
			synctest.Wait()
			assert.Equal(t, 1, p.Stats().Workers)
		}, drained},
		{"Drain", nil, func(t *testing.T, p *closures, _ context.CancelFunc, release func()) {
			go func() { assert.NoError(t, p.Close()) }()
			synctest.Wait()
			assert.Equal(t, 3, p.Stats().Queued)
			require.ErrorIs(t, p.TrySubmit(nil), workpool.ErrClosed)
			release()
		}, drained},
		{"FinishRunning", []workpool.Option{workpool.WithShutdown(workpool.FinishRunning, 0)}, func(t *testing.T, p *closures, _ context.CancelFunc, release func()) {
			go func() { assert.NoError(t, p.Close()) }()
			synctest.Wait()
			assert.Equal(t, uint64(3), p.Stats().Aborted)
			release()
		}, cut},
		{"Abort", []workpool.Option{workpool.WithShutdown(workpool.Abort, 0)}, func(t *testing.T, p *closures, _ context.CancelFunc, _ func()) {
			go func() { assert.NoError(t, p.Close()) }()
		}, cancelled},
		{"timeout", []workpool.Option{workpool.WithShutdown(workpool.Drain, time.Second)}, func(t *testing.T, p *closures, _ context.CancelFunc, _ func()) {
			var e *workpool.ShutdownError
			require.ErrorAs(t, p.Close(), &e)
			assert.Equal(t, 3, e.Aborted)
			assert.Equal(t, 1, e.Running)
		}, cancelled},
		{"Shutdown with an ended context", nil, func(t *testing.T, p *closures, _ context.CancelFunc, _ func()) {
			var e *workpool.ShutdownError
			require.ErrorAs(t, p.Shutdown(ended), &e)
			assert.Equal(t, 3, e.Aborted)
			assert.Equal(t, 1, e.Running)
		}, cancelled},
		{"the end of the pool's context", nil, func(_ *testing.T, _ *closures, parent context.CancelFunc, _ func()) {
			parent()
		}, cancelled},
		{"Wait", nil, func(t *testing.T, p *closures, _ context.CancelFunc, release func()) {
			var waiting sync.WaitGroup
			waiting.Go(func() { assert.NoError(t, p.Wait(background)) })
			synctest.Wait()
			waits := p.Wait(ended)
			require.ErrorIs(t, waits, context.Canceled)
			assert.ErrorContains(t, waits, "3 tasks queued, 1 running")
			release()
			waiting.Wait()
			assert.Equal(t, 5, p.Stats().Undelivered)
		}, drained},
	}
	for _, c := range cases {
		for _, workers := range []int{1, 2} { // the second is busy, or there is none
			t.Run(fmt.Sprintf("%s/workers=%d", c.name, workers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, cancel := context.WithCancel(background)
					defer cancel()
					p := warmed(t, 1, append(slices.Clip(c.opts), workpool.WithContext(parent))...)
					var other <-chan outcome
					if workers == 2 { // a call, which says nothing to Results
						require.NoError(t, p.Resize(2))
					}
					end := make(chan struct{})
					waiting := func(ctx context.Context) (int, error) {
						select {
						case <-end:
							return 0, nil
						case <-ctx.Done():
							return 0, context.Cause(ctx)
						}
					}
					if workers == 2 && c.want["aborted"] > 0 {
						other = inBackground(background, do, p, waiting)
					}
					short := returning(1, nil)
					if workers == 2 && other == nil {
						require.NoError(t, p.Resize(1)) // after a time with two
						synctest.Wait()
					}
					inOneGo(t, p, short, waiting, short, short, short)
					if other == nil {
						require.Equal(t, 3, p.Stats().Queued)
						c.act(t, p, cancel, sync.OnceFunc(func() { close(end) }))
					} else if s := p.Stats(); s.Queued == 3 && s.Running == 2 {
						if c.name == "timeout" || c.name == "Shutdown with an ended context" {
							var e *workpool.ShutdownError
							if c.name != "timeout" {
								require.ErrorAs(t, p.Shutdown(ended), &e)
							} else {
								require.ErrorAs(t, p.Close(), &e)
							}
							assert.Equal(t, 3, e.Aborted)
							assert.Equal(t, 2, e.Running)
						} else {
							c.act(t, p, cancel, sync.OnceFunc(func() { close(end) }))
						}
					} else {
						require.Fail(t, "not in the middle", "%+v", s)
					}
					_ = p.Close()
					got := answers{}
					for _, r := range collect(p) {
						got[kindOf(r)]++
					}
					assert.Equal(t, c.want, got)
					if other != nil {
						<-other
					}
					s := p.Stats()
					assert.Equal(t, s.Submitted, s.Succeeded+s.Failed+s.Aborted)
					assert.Zero(t, s.Queued+s.Running+s.Undelivered+s.Workers)
				})
			})
		}
	}
}

// Tasks that can be taken back stand among others that a worker has taken.
func TestRun_TasksAmongOthersAreTakenBack(t *testing.T) {
	ways := map[string]func(t *testing.T, ctx context.Context, p *closures, task closure) (err <-chan error){
		"SubmitCancel": func(t *testing.T, ctx context.Context, p *closures, task closure) <-chan error {
			cancel, err := p.SubmitCancel(context.Background(), task)
			require.NoError(t, err)
			context.AfterFunc(ctx, cancel)
			return nil
		},
		"Do": func(_ *testing.T, ctx context.Context, p *closures, task closure) <-chan error {
			answer := make(chan error, 1)
			go func() { _, err := p.Do(ctx, task); answer <- err }()
			return answer
		},
		"DoChan": func(_ *testing.T, ctx context.Context, p *closures, task closure) <-chan error {
			answer := make(chan error, 1)
			go func() { answer <- (<-p.DoChan(ctx, task)).Err }()
			return answer
		},
		"Map": func(_ *testing.T, ctx context.Context, p *closures, task closure) <-chan error {
			answer := make(chan error, 1)
			go func() { _, err := p.Map(ctx, []closure{task, task}); answer <- err }()
			return answer
		},
		"Stream": func(_ *testing.T, ctx context.Context, p *closures, task closure) <-chan error {
			answer := make(chan error, 1)
			go func() {
				var last error
				for r := range p.Stream(ctx, slices.Values([]closure{task, task})) {
					last = r.Err
				}
				answer <- last
			}()
			return answer
		},
	}
	for name, start := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := warmed(t, 1)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				release := make(chan struct{})
				var ran, others atomic.Int32
				p.Pause()
				require.NoError(t, p.TrySubmit(counted(&others)))
				require.NoError(t, p.TrySubmit(until(release)))
				require.NoError(t, p.TrySubmit(counted(&others)))
				answer := start(t, ctx, p, counted(&ran))
				synctest.Wait()
				require.NoError(t, p.TrySubmit(counted(&others)))
				p.Resume()
				synctest.Wait()
				require.Equal(t, 1, p.Stats().Running)
				cancel()
				synctest.Wait()
				if answer != nil {
					require.ErrorIs(t, <-answer, context.Canceled, "at once")
				}
				assert.Equal(t, 2, p.Stats().Queued)
				close(release)
				closed(t, p)
				assert.Zero(t, ran.Load())
				assert.Equal(t, int32(3), others.Load())
				results := collect(p)
				if answer == nil {
					require.Len(t, results, 5)
					results = slices.DeleteFunc(results, func(r workpool.Result[closure, int]) bool { return errors.Is(r.Err, context.Canceled) })
				}
				assert.Len(t, results, 4)
			})
		})
	}
}

// A result function, or none: the numbers are right in the middle, and each
// result is told once.
func TestRun_WithoutACollector(t *testing.T) {
	for _, tells := range []bool{false, true} {
		t.Run(fmt.Sprintf("tells=%v", tells), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := map[uint64]int{}
				opt := workpool.WithoutResults()
				if tells {
					opt = workpool.WithResultFunc(func(r workpool.Result[closure, int]) {
						told[r.Index]++
						if r.Value == 3 {
							panic("told")
						}
						if r.Value == 4 {
							runtime.Goexit()
						}
					})
				}
				p := warmed(t, 1, opt)
				release := make(chan struct{})
				failure := errors.New("failure")
				inOneGo(t, p, returning(1, nil), returning(2, failure), returning(3, nil), returning(4, nil), catchFire, returning(6, nil), until(release), returning(7, nil))
				assert.Equal(t, workpool.Stats{
					Workers: 1, Running: 1, Queued: 1, Submitted: warmTasks + 8, Succeeded: warmTasks + 4, Failed: 2, Panicked: 1,
				}, p.Stats())
				close(release)
				require.NoError(t, p.Wait(t.Context()))
				if !tells {
					closed(t, p)
					return
				}
				assert.ErrorContains(t, p.Close(), "result function")
				for i := range 8 {
					assert.Equal(t, 1, told[uint64(warmTasks+i)], "task %d", i)
				}
				assert.Len(t, told, 8)
			})
		})
	}
}

// A task with others behind it uses its own pool.
func TestRun_ATaskInTheMiddleUsesItsPool(t *testing.T) {
	uses := map[string]func(t *testing.T, ctx context.Context, p *closures){
		"Submit": func(t *testing.T, ctx context.Context, p *closures) {
			for range 20 {
				assert.NoError(t, p.Submit(ctx, returning(1, nil)))
			}
		},
		"Do": func(t *testing.T, ctx context.Context, p *closures) {
			for i := range 20 {
				n, err := p.Do(ctx, returning(i, nil))
				assert.NoError(t, err)
				assert.Equal(t, i, n)
			}
		},
		"DoChan": func(t *testing.T, ctx context.Context, p *closures) {
			for i := range 20 {
				assert.Equal(t, i, (<-p.DoChan(ctx, returning(i, nil))).Value)
			}
		},
		"Map": func(t *testing.T, ctx context.Context, p *closures) {
			values, err := p.Map(ctx, slices.Repeat([]closure{returning(1, nil)}, 20))
			assert.NoError(t, err)
			assert.Len(t, values, 20)
		},
		"Stream": func(t *testing.T, ctx context.Context, p *closures) {
			n := 0
			for r := range p.Stream(ctx, slices.Values(slices.Repeat([]closure{returning(1, nil)}, 20))) {
				assert.NoError(t, r.Err)
				n++
			}
			assert.Equal(t, 20, n)
		},
		"Wait and Shutdown": func(t *testing.T, ctx context.Context, p *closures) {
			assert.ErrorIs(t, p.Wait(ctx), workpool.ErrReentrant)
			assert.ErrorIs(t, p.Shutdown(ctx), workpool.ErrReentrant)
		},
		"Results": func(t *testing.T, _ context.Context, p *closures) {
			assert.Equal(t, 1, receive(t, p).Value, "that of the task before")
		},
		"Pause": func(t *testing.T, _ context.Context, p *closures) {
			p.Pause()
			assert.Equal(t, 2, p.Stats().Queued)
			time.AfterFunc(time.Second, p.Resume)
		},
	}
	for name, use := range uses {
		for _, workers := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/workers=%d", name, workers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := warmed(t, workers, workpool.WithQueueDepth(4))
					release := occupy(t, p, workers-1)
					var behind atomic.Int32
					inOneGo(t, p, returning(1, nil), func(ctx context.Context) (int, error) {
						use(t, ctx, p)
						return 2, nil
					}, counted(&behind), counted(&behind))
					time.Sleep(2 * time.Second)
					assert.Equal(t, int32(2), behind.Load())
					release()
					closed(t, p)
					s := p.Stats()
					assert.Equal(t, s.Submitted, s.Succeeded)
				})
			})
		}
	}
}

// A task that takes no memory, and one that takes much.
func TestRun_SizesOfTasks(t *testing.T) {
	type large [2000]int
	run := func(t *testing.T, test func(t *testing.T)) { synctest.Test(t, test) }
	run(t, func(t *testing.T) {
		p := mustNew(t, func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil }, workpool.WithWorkers(2))
		for range 100 {
			p.Pause()
			for range 100 {
				require.NoError(t, p.TrySubmit(struct{}{}))
			}
			p.Resume()
			for range 100 {
				receive(t, p)
			}
		}
		closed(t, p)
		assert.Equal(t, uint64(10_000), p.Stats().Succeeded)
	})
	run(t, func(t *testing.T) {
		p := mustNew(t, func(_ context.Context, l large) (large, error) { slices.Reverse(l[:]); return l, nil }, workpool.WithWorkers(2))
		for range 3 {
			p.Pause()
			for i := range 100 {
				require.NoError(t, p.TrySubmit(large{i, 1}))
			}
			p.Resume()
			seen := map[int]bool{}
			for range 100 {
				r := receive(t, p)
				assert.Equal(t, r.Task[0], r.Value[len(r.Value)-1])
				seen[r.Task[0]] = true
			}
			assert.Len(t, seen, 100)
		}
		closed(t, p)
	})
}

// Traffic of all kinds at once, on real goroutines: each accepted task is
// answered once, to the one who asked.
func TestRun_RandomTraffic(t *testing.T) {
	const producers = 8
	rounds := 4000
	if testing.Short() {
		rounds = 400
	}
	narrow := []workpool.Option{workpool.WithQueueDepth(3), workpool.WithResultBuffer(2)}
	for name, opts := range map[string][]workpool.Option{"defaults": nil, "narrow": narrow} {
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
			return errors.As(err, &panicked)
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
			if err := p.TrySubmit(n); err != nil {
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
			n, err := p.SubmitAll(background, slices.Values(tasks))
			assert.NoError(t, err)
			assert.Equal(t, size, n)
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

func TestRun_TasksOfAMapInsideAHandlerMeet(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			p := warmed(t, 2)
			var meeting sync.WaitGroup
			meeting.Add(2)
			p.Pause()
			for range 3 {
				require.NoError(t, p.TrySubmit(returning(1, nil)))
			}
			require.NoError(t, p.TrySubmit(func(ctx context.Context) (int, error) {
				meet := func(context.Context) (int, error) { meeting.Done(); meeting.Wait(); return 0, nil }
				_, err := p.Map(ctx, []closure{meet, meet})
				return 0, err
			}))
			p.Resume()
			synctest.Wait()
			assert.Equal(t, 0, p.Stats().Running)
			closed(t, p)
		})
	}
}

func TestRule9_TasksOfARunAreNotRetainedWhereNobodyGetsThem(t *testing.T) {
	type payload [1 << 16]byte
	for name, opt := range map[string]workpool.Option{
		"WithoutResults": workpool.WithoutResults(),
		"WithResultFunc": workpool.WithResultFunc(func(workpool.Result[*payload, int]) {}),
	} {
		t.Run(name, func(t *testing.T) {
			started, release := make(chan struct{}), make(chan struct{})
			p := mustNew(t, func(_ context.Context, b *payload) (int, error) {
				if b == nil {
					close(started)
					<-release
				}
				return 0, nil
			}, workpool.WithWorkers(1), opt)
			for range 10 { // until runs are long
				p.Pause()
				for range 100 {
					require.NoError(t, p.TrySubmit(new(payload)))
				}
				p.Resume()
				require.NoError(t, p.Wait(t.Context()))
			}
			var weaks []weak.Pointer[payload]
			p.Pause()
			for range 10 {
				b := new(payload)
				weaks = append(weaks, weak.Make(b))
				require.NoError(t, p.TrySubmit(b))
			}
			require.NoError(t, p.TrySubmit(nil))
			p.Resume()
			<-started
			runtime.GC()
			for i, w := range weaks {
				assert.Nil(t, w.Value(), "task %d", i)
			}
			close(release)
			closed(t, p)
		})
	}
}

// Two workers; the first one is at a long task, with a run behind it. The other always finds
// one new task when it has ended one.
func TestRule8_TasksBehindALongOneAreNotOvertakenForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := warmed(t, 2)
		g2 := make(chan struct{})
		require.NoError(t, p.Submit(t.Context(), func(context.Context) (int, error) { g2 <- struct{}{}; return 0, nil })) // W2's current
		synctest.Wait()
		release := make(chan struct{})
		var behind atomic.Int32
		p.Pause()
		require.NoError(t, p.TrySubmit(until(release)))
		for range 3 {
			require.NoError(t, p.TrySubmit(func(context.Context) (int, error) { behind.Add(1); return 0, nil }))
		}
		p.Resume()
		synctest.Wait()
		time.Sleep(time.Second)
		n := 0
		for n < 100 && behind.Load() == 0 {
			n++
			require.NoError(t, p.Submit(t.Context(), func(context.Context) (int, error) { g2 <- struct{}{}; return 0, nil }))
			<-g2
			synctest.Wait()
			time.Sleep(time.Second)
		}
		assert.Less(t, n, 5)
		go func() {
			for range g2 {
			}
		}()
		close(release)
		closed(t, p)
		close(g2)
	})
}

// R1 blocks in its body with several; R2 always finds another in the channel
func TestRule8_ResultsOfAReceiverThatIsStuckAreNotOvertakenForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := warmed(t, 1)
		for i := range 5 {
			require.NoError(t, p.Submit(t.Context(), returning(1+i, nil)))
		}
		synctest.Wait()
		release := make(chan struct{})
		go func() {
			for range p.Results() {
				<-release
				break
			}
		}()
		synctest.Wait()
		seen := 0
		for n := range 100 {
			require.NoError(t, p.Submit(t.Context(), returning(100+n, nil)))
			synctest.Wait()
			for r := range p.Results() {
				if r.Value < 100 {
					seen++
				}
				break
			}
		}
		assert.Equal(t, 4, seen)
		close(release)
		closed(t, p)
	})
}
