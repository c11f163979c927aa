package workpool_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// BenchmarkScale measures operations in a crowd: with n tasks queued, n callers in line, and
// so on. What an operation costs does not grow with n. Where the operation is that all of
// the crowd do something, ns/op is for each of them.
func BenchmarkScale(b *testing.B) {
	for _, s := range scales {
		for _, n := range []int{s.n, 10 * s.n} {
			b.Run(fmt.Sprintf("what=%s/n=%d", s.what, n), func(b *testing.B) { s.run(b, n) })
		}
	}
}

var scales = []struct {
	what string
	n    int
	run  func(b *testing.B, n int)
}{
	{"stream-of-one-beside-queued", 40_000, func(b *testing.B, n int) { besideQueued(b, n, "Stream") }},
	{"map-of-one-beside-queued", 40_000, func(b *testing.B, n int) { besideQueued(b, n, "Map") }},
	{"do-beside-queued", 40_000, func(b *testing.B, n int) { besideQueued(b, n, "Do") }},
	{"maps-that-end-together", 1_000, func(b *testing.B, n int) { endTogether(b, n, "Map", nothing, nothing) }},
	{"streams-that-end-together", 1_000, func(b *testing.B, n int) { endTogether(b, n, "Stream", nothing) }},
	{"calls-that-end-together", 1_000, func(b *testing.B, n int) { endTogether(b, n, "Do", nothing) }},
	{"groups-that-end-together", 1_000, func(b *testing.B, n int) { endTogether(b, n, "Group", nothing) }},
	{"submit-beside-silent-submitalls", 1_000, func(b *testing.B, n int) { silent(b, n, sequenceWays["SubmitAll"]) }},
	{"submit-beside-silent-streams", 1_000, func(b *testing.B, n int) { silent(b, n, sequenceWays["Stream"]) }},
	{"submitters-in-line", 2_000, func(b *testing.B, n int) { inLine(b, n) }},
	{"submitters-in-line-with-priorities", 2_000, func(b *testing.B, n int) { inLine(b, n, prioritiesInTurn()) }},
	{"submitters-in-line-for-one-key", 2_000, func(b *testing.B, n int) { inLine(b, n, oneKey) }},
	{"submitters-in-line-for-a-full-key", 2_000, func(b *testing.B, n int) { inLine(b, n, oneKey, workpool.WithKeyDepth(1)) }},
	{"submitters-in-line-for-many-keys", 2_000, func(b *testing.B, n int) { inLine(b, n, keysPerTask(1)) }},
	{"calls-in-line-with-priorities", 2_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(1), workpool.WithQueueDepth(1), prioritiesInTurn())
		all(b, n, func() {
			release := make(chan struct{})
			answers := []<-chan workpool.Result[closure, int]{p.DoChan(context.Background(), until(release))}
			for range n {
				answers = append(answers, p.DoChan(context.Background(), nothing))
			}
			close(release)
			for _, answer := range answers {
				<-answer
			}
		})
		closed(b, p)
	}},
	{"late-consumer-of-a-stream", 20_000, func(b *testing.B, n int) { lateConsumer(b, n) }},
	{"late-consumer-of-an-ordered-stream", 20_000, func(b *testing.B, n int) { lateConsumer(b, n, workpool.WithOrdered()) }},
	{"late-receiver-of-results", 20_000, func(b *testing.B, n int) { lateReceiver(b, n) }},
	{"late-receiver-of-ordered-results", 20_000, func(b *testing.B, n int) { lateReceiver(b, n, workpool.WithOrdered()) }},
	{"do-beside-stuck-workers", 1_000, func(b *testing.B, n int) {
		besideStuck(b, n, n, func(_ *closures, stuck closure) closure { return stuck })
	}},
	{"do-beside-stuck-calls-of-handlers", 1_000, func(b *testing.B, n int) {
		besideStuck(b, n, 2*n, func(p *closures, stuck closure) closure {
			return func(ctx context.Context) (int, error) { return p.Do(ctx, stuck) }
		})
	}},
	{"calls-of-one-handler", 1_000, func(b *testing.B, n int) { callsOfOneHandler(b, n, workpool.WithWorkers(1)) }},
	{"calls-of-one-handler-for-one-key", 1_000, func(b *testing.B, n int) { callsOfOneHandler(b, n, workpool.WithWorkers(2), oneKey) }},
	{"do-of-a-handler-with-parked-tasks", 1_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(1), workpool.WithQueueDepth(2*n))
		ctx, cancel := context.WithCancel(context.Background())
		_, _ = p.Do(ctx, func(ctx context.Context) (int, error) {
			g := p.Group(ctx)
			for range n {
				_ = g.Submit(parked)
			}
			wait := make(chan struct{})
			go func() {
				_, _ = g.Wait()
				close(wait)
			}()
			await(func() bool { return p.Stats().Parked == n })
			doOnes(ctx, b, p)
			cancel()
			<-wait
			return 0, nil
		})
		closed(b, p)
	}},
	{"drop-oldest-behind-calls", 10_000, func(b *testing.B, n int) {
		p, end := crowded(b, n, true, workpool.WithOverflow(workpool.DropOldest))
		dropOldest(b, p)
		end()
	}},
	{"drop-oldest-behind-a-stream", 10_000, func(b *testing.B, n int) { dropBehindStream(b, n, nothing) }},
	{"drop-oldest-behind-a-stream-of-one-key", 10_000, func(b *testing.B, n int) { dropBehindStream(b, n, nothing, oneKey) }},
	{"drop-oldest-behind-other-keys", 10_000, func(b *testing.B, n int) { dropBehindStream(b, n, nothing, keysPerTask(2)) }},
	{"drop-oldest-beside-other-priorities", 10_000, func(b *testing.B, n int) { // behind the same key
		var tasks atomic.Int64
		p := newClosures(b, workpool.WithWorkers(1), workpool.WithQueueDepth(n), workpool.WithoutResults(),
			workpool.WithOverflow(workpool.DropOldest), oneKey, workpool.WithPriority(func(closure) workpool.Priority {
				if tasks.Add(1) <= int64(n) {
					return workpool.High
				}
				return workpool.Low
			}))
		release := make(chan struct{})
		submit(b, p, until(release))
		submitN(b, p, n-1, nothing)
		tasks.Add(1)
		dropOldest(b, p)
		close(release)
		closed(b, p)
	}},
	{"drop-oldest-with-nothing-to-drop", 10_000, func(b *testing.B, n int) { dropBehindStream(b, n, parked, workpool.WithQueueDepth(n-1)) }},
	{"stats-after-a-large-resize", 1_600_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(4))
		before := heap()
		require.NoError(b, p.Resize(n))
		_, _ = p.Do(context.Background(), nothing)
		require.NoError(b, p.Resize(4))
		for b.Loop() {
			p.Stats()
		}
		b.StopTimer()
		b.ReportMetric(float64(max(0, heap()-before)), "B-kept")
		closed(b, p)
	}},
	{"resize-to-many-and-back", 1_600_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(4))
		for b.Loop() {
			require.NoError(b, p.Resize(n))
			require.NoError(b, p.Resize(4))
		}
		closed(b, p)
	}},
	{"stats-with-many-workers", 1_000, func(b *testing.B, n int) {
		release := make(chan struct{})
		p := newClosures(b, workpool.WithWorkers(n), workpool.WithoutResults())
		submitN(b, p, n, until(release))
		for b.Loop() {
			p.Stats()
		}
		b.StopTimer()
		close(release)
		closed(b, p)
	}},
	{"receivers", 1_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(1))
		received := make(chan struct{})
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				for range p.Results() {
					received <- struct{}{}
				}
			})
		}
		for range n { // until all have come
			submit(b, p, nothing)
			<-received
		}
		for b.Loop() {
			require.NoError(b, p.Submit(context.Background(), nothing))
			<-received
		}
		closed(b, p)
		all.Wait()
	}},
	{"idle-workers", 1_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(n), workpool.WithoutResults())
		release := make(chan struct{})
		submitN(b, p, n, until(release))
		close(release)
		require.NoError(b, p.Wait(context.Background()))
		doOnes(context.Background(), b, p)
		closed(b, p)
	}},
	{"parked-retries-aborted", 10_000, func(b *testing.B, n int) {
		all(b, n, func() {
			b.StopTimer()
			p := parking(b, n)
			b.StartTimer()
			_ = p.Shutdown(endedContext())
		})
	}},
	{"parked-retries-beside-do", 10_000, func(b *testing.B, n int) {
		p := parking(b, n)
		doOnes(context.Background(), b, p)
		_ = p.Shutdown(endedContext())
	}},
	{"keys", 10_000, func(b *testing.B, n int) {
		p, end := crowded(b, n, false, keysPerTask(1))
		runtime.GC() // it is not what is measured
		dropOldest(b, p)
		end()
	}},
	{"keys-each-task-its-own", 10_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(2), workpool.WithQueueDepth(n), workpool.WithoutResults(), keysPerTask(1))
		all(b, n, func() {
			for range n {
				_ = p.Submit(context.Background(), nothing)
			}
			_ = p.Wait(context.Background())
		})
		closed(b, p)
	}},
	{"cancelled", 10_000, func(b *testing.B, n int) {
		p, end := crowded(b, 1, false, workpool.WithQueueDepth(2*n))
		all(b, n, func() {
			var cancels []func()
			for range n {
				cancel, _ := p.SubmitCancel(context.Background(), nothing)
				cancels = append(cancels, cancel)
			}
			for _, cancel := range cancels {
				cancel()
			}
		})
		end()
	}},
	{"waiters", 1_000, func(b *testing.B, n int) { // for the end of all
		p := newClosures(b, workpool.WithWorkers(1), workpool.WithoutResults())
		all(b, n, func() {
			release := make(chan struct{})
			_ = p.Submit(context.Background(), until(release))
			var waits sync.WaitGroup
			for range n {
				waits.Go(func() { _ = p.Wait(context.Background()) })
			}
			close(release)
			waits.Wait()
		})
		closed(b, p)
	}},
	{"held-workers", 1_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(n), workpool.WithResultBuffer(0))
		submitN(b, p, n, nothing)
		await(func() bool { return p.Stats().Held == n })
		next := make(chan struct{})
		var receiver sync.WaitGroup
		receiver.Go(func() {
			for range p.Results() {
				<-next
			}
		})
		for b.Loop() {
			_ = p.Submit(context.Background(), nothing)
			next <- struct{}{}
		}
		b.StopTimer()
		close(next)
		closed(b, p)
		receiver.Wait()
	}},
	{"elastic-come-and-go", 1_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(n), workpool.WithElastic(0, time.Nanosecond), workpool.WithoutResults())
		all(b, n, func() {
			release := make(chan struct{})
			for range n {
				_ = p.Submit(context.Background(), until(release))
			}
			close(release)
			_ = p.Wait(context.Background())
		})
		closed(b, p)
	}},
	{"memory-after-a-burst", 10_000, func(b *testing.B, n int) {
		type page [4 << 10]byte
		p := mustNew(b, func(_ context.Context, task page) (page, error) { return task, nil },
			workpool.WithWorkers(1), workpool.WithQueueDepth(n), workpool.WithResultBuffer(n))
		before := heap()
		all(b, n, func() {
			p.Pause()
			for range n {
				_ = p.Submit(context.Background(), page{})
			}
			p.Resume()
			for range p.Results() {
				if s := p.Stats(); s.Queued+s.Running+s.Undelivered == 0 {
					break
				}
			}
		})
		b.ReportMetric(float64(max(0, heap()-before)), "B-kept")
		closed(b, p)
	}},
	{"memory-after-a-burst-of-keys", 10_000, func(b *testing.B, n int) {
		p := mustNew(b, identity, workpool.WithWorkers(1), workpool.WithQueueDepth(n), workpool.WithoutResults(),
			workpool.WithKey(func(n int) int { return n }))
		before := heap()
		all(b, n, func() {
			p.Pause()
			for i := range n {
				_ = p.Submit(context.Background(), i)
			}
			p.Resume()
			_ = p.Wait(context.Background())
		})
		b.ReportMetric(float64(max(0, heap()-before)), "B-kept")
		closed(b, p)
	}},
}

var (
	nothing = returning(0, nil)
	parked  = returning(0, workpool.RetryAfter(time.Hour, nil))
	oneKey  = workpool.WithKey(func(closure) int { return 1 })
)

// keysPerTask has each n tasks in a row have a key of their own.
func keysPerTask(n int32) workpool.Option {
	var tasks atomic.Int32
	return workpool.WithKey(func(closure) int32 { return tasks.Add(1) / n })
}

// prioritiesInTurn gives each task the next of the priorities.
func prioritiesInTurn() workpool.Option {
	var turn atomic.Int32
	return workpool.WithPriority(func(closure) workpool.Priority { return workpool.Priority(turn.Add(1)%3 - 1) })
}

// await waits until something is so.
func await(is func() bool) {
	for !is() {
		runtime.Gosched()
	}
}

// doOnes measures a call.
func doOnes(ctx context.Context, b *testing.B, p *closures) {
	b.Helper()
	for b.Loop() {
		_, _ = p.Do(ctx, nothing)
	}
	b.StopTimer()
}

// besideQueued measures one task whose context ends, with n tasks queued.
func besideQueued(b *testing.B, n int, way string) {
	b.Helper()
	run := ways[closure, int]()[way]
	p, end := crowded(b, n, false)
	for b.Loop() {
		ctx, cancel := context.WithCancel(context.Background())
		go cancel()
		_, _ = run(ctx, p, nothing)
	}
	b.StopTimer()
	end()
}

// besideStuck measures a call beside n tasks that are stuck, when that many run.
func besideStuck(b *testing.B, n, running int, task func(p *closures, stuck closure) closure) {
	b.Helper()
	release := make(chan struct{})
	p := newClosures(b, workpool.WithWorkers(n+2), workpool.WithoutResults())
	submitN(b, p, n, task(p, until(release)))
	await(func() bool { return p.Stats().Running == running })
	doOnes(context.Background(), b, p)
	close(release)
	closed(b, p)
}

// callsOfOneHandler measures the calls of n goroutines of one handler.
func callsOfOneHandler(b *testing.B, n int, opts ...workpool.Option) {
	b.Helper()
	p := newClosures(b, opts...)
	all(b, n, func() {
		_, _ = p.Do(context.Background(), func(ctx context.Context) (int, error) {
			var calls sync.WaitGroup
			for range n {
				calls.Go(func() { _, _ = p.Do(ctx, nothing) })
			}
			calls.Wait()
			return 0, nil
		})
	})
	closed(b, p)
}

// dropBehindStream measures a drop where the tasks of a Stream fill the queue.
func dropBehindStream(b *testing.B, n int, task closure, opts ...workpool.Option) {
	b.Helper()
	p, end := streaming(b, n, task, append(opts, workpool.WithOverflow(workpool.DropOldest))...)
	dropOldest(b, p)
	end()
}

// parking returns a pool with n parked tasks.
func parking(b *testing.B, n int) *closures {
	b.Helper()
	p := newClosures(b, workpool.WithWorkers(2), workpool.WithQueueDepth(n+10), workpool.WithoutResults())
	submitN(b, p, n, parked)
	await(func() bool { return p.Stats().Parked == n })
	return p
}

// all has n of a crowd do something, again and again. The time is that of one.
func all(b *testing.B, n int, f func()) {
	b.Helper()
	loops := 0
	for b.Loop() {
		f()
		loops++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(loops)/float64(n), "ns/op")
}

// crowded returns a pool with n tasks in the queue, and none running but one that is stuck.
func crowded(b *testing.B, n int, calls bool, opts ...workpool.Option) (p *closures, end func()) {
	b.Helper()
	depth := n + 1000
	if calls {
		depth = n
	}
	p = newClosures(b, append([]workpool.Option{workpool.WithWorkers(1), workpool.WithQueueDepth(depth), workpool.WithoutResults()}, opts...)...)
	release := make(chan struct{})
	submit(b, p, until(release))
	var answers []<-chan workpool.Result[closure, int]
	for range n {
		if calls {
			answers = append(answers, p.DoChan(context.Background(), nothing))
		} else {
			require.NoError(b, p.Submit(context.Background(), nothing))
		}
	}
	return p, func() {
		close(release)
		for _, answer := range answers {
			<-answer
		}
		closed(b, p)
	}
}

// streaming returns a full pool whose tasks are those of a Stream, and may not be dropped.
func streaming(b *testing.B, n int, task closure, opts ...workpool.Option) (p *closures, end func()) {
	b.Helper()
	p = newClosures(b, append([]workpool.Option{workpool.WithWorkers(1), workpool.WithQueueDepth(n), workpool.WithoutResults()}, opts...)...)
	ctx, cancel := context.WithCancel(context.Background())
	release := make(chan struct{})
	if _, err := task(ctx); err == nil {
		require.NoError(b, p.Submit(ctx, until(release)))
	}
	var stream sync.WaitGroup
	stream.Go(func() { _ = slices.Collect(p.Stream(ctx, slices.Values(slices.Repeat([]closure{task}, n-1)))) })
	await(func() bool { return p.Stats().Queued >= n-1 })
	await(func() bool { return p.Stats().Running == 0 || p.Stats().Parked == 0 })
	if p.Stats().Running == 0 {
		require.NoError(b, p.Submit(ctx, until(release)))
	}
	return p, func() {
		cancel()
		stream.Wait()
		close(release)
		closed(b, p)
	}
}

// dropOldest measures a call that finds the queue full, and is itself what may be dropped. Its
// context ends, since it waits if it finds nothing to drop.
func dropOldest(b *testing.B, p *closures) {
	b.Helper()
	for b.Loop() {
		ctx, cancel := context.WithCancel(context.Background())
		answer := p.DoChan(ctx, nothing)
		cancel()
		<-answer
	}
	b.StopTimer()
}

// endTogether has n calls wait behind a stuck worker whose common context ends.
func endTogether(b *testing.B, n int, way string, tasks ...closure) {
	b.Helper()
	run := ways[closure, int]()[way]
	p := newClosures(b, workpool.WithWorkers(1), workpool.WithQueueDepth(n), workpool.WithoutResults())
	release := make(chan struct{})
	submit(b, p, until(release))
	all(b, n, func() {
		b.StopTimer()
		ctx, cancel := context.WithCancel(context.Background())
		var calls sync.WaitGroup
		for range n {
			calls.Go(func() { _, _ = run(ctx, p, tasks...) })
		}
		await(func() bool { return p.Stats().Queued >= n })
		b.StartTimer()
		cancel()
		calls.Wait()
	})
	close(release)
	closed(b, p)
}

// silent measures a Submit beside n inputs that do not yield.
func silent(b *testing.B, n int, feed sequenceWay) {
	b.Helper()
	p := newClosures(b, workpool.WithWorkers(1), workpool.WithoutResults())
	release := make(chan struct{})
	var blocked atomic.Int32
	var inputs sync.WaitGroup
	for range n {
		inputs.Go(func() {
			_ = feed(context.Background(), p, func(yield func(closure) bool) {
				yield(nothing)
				blocked.Add(1)
				<-release
			})
		})
	}
	await(func() bool { return int(blocked.Load()) == n })
	for b.Loop() {
		_ = p.Submit(context.Background(), nothing)
	}
	b.StopTimer()
	close(release)
	inputs.Wait()
	closed(b, p)
}

// inLine has n submitters wait in line, who are then accepted one after the other.
func inLine(b *testing.B, n int, opts ...workpool.Option) {
	b.Helper()
	p := newClosures(b, append([]workpool.Option{workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults()}, opts...)...)
	all(b, n, func() {
		b.StopTimer()
		release := make(chan struct{})
		submit(b, p, until(release))
		await(func() bool { return p.Stats().Running > 0 })
		var submitters sync.WaitGroup
		for range n {
			submitters.Go(func() { _ = p.Submit(context.Background(), nothing) })
		}
		await(func() bool { return p.Stats().Waiting+p.Stats().Queued >= n })
		b.StartTimer()
		close(release)
		submitters.Wait()
		_ = p.Wait(context.Background())
	})
	closed(b, p)
}

// lateConsumer lets n results of a stream be ready before they are consumed.
func lateConsumer(b *testing.B, n int, opts ...workpool.Option) {
	b.Helper()
	p := newClosures(b, append([]workpool.Option{workpool.WithWorkers(2), workpool.WithResultBuffer(2 * n)}, opts...)...)
	tasks := slices.Repeat([]closure{nothing}, n)
	all(b, n, func() {
		first := true
		for range p.Stream(context.Background(), slices.Values(tasks)) {
			if !first {
				continue
			}
			first = false
			last := uint64(0) // as it was a millisecond before
			await(func() bool {
				s := p.Stats()
				before := last
				last = s.Submitted
				return s.Queued+s.Running == 0 && s.Submitted == before
			})
		}
	})
	closed(b, p)
}

func lateReceiver(b *testing.B, n int, opts ...workpool.Option) {
	b.Helper()
	p := newClosures(b, append(opts, workpool.WithWorkers(2), workpool.WithResultBuffer(2*n))...)
	all(b, n, func() {
		for range n {
			_ = p.Submit(context.Background(), nothing)
		}
		_ = p.Wait(context.Background())
		receiveN(p, n)
	})
	closed(b, p)
}

// BenchmarkNew is what a pool costs that hardly does anything.
func BenchmarkNew(b *testing.B) {
	measure := func(what string, f func() error) {
		b.Run("what="+what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	once := func(what string, opts ...workpool.Option) {
		measure(what, func() error {
			p, err := workpool.New(identity, opts...)
			if err != nil {
				return err
			}
			if _, err := p.Do(context.Background(), 1); err != nil {
				return err
			}
			return p.Close()
		})
	}
	once("defaults")
	once("workers-65536", workpool.WithWorkers(1<<16))
	once("elastic", workpool.WithElastic(0, time.Second))
	once("context", workpool.WithContext(b.Context()))
	measure("new-alone", func() error {
		_, err := workpool.New(identity)
		return err
	})
	tasks := upTo(8)
	measure("map-of-8", func() error {
		_, err := workpool.Map(context.Background(), tasks, identity)
		return err
	})
	measure("foreach-of-8", func() error {
		return workpool.ForEach(context.Background(), count(8), func(context.Context, int) error { return nil })
	})
}
