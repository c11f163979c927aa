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
	{"stream-of-one-beside-queued", 40_000, func(b *testing.B, n int) {
		p, end := crowded(b, n, false)
		for b.Loop() {
			ctx, cancel := context.WithCancel(context.Background())
			go cancel()
			for r := range p.Stream(ctx, slices.Values([]closure{returning(0, nil)})) {
				_ = r
			}
		}
		b.StopTimer()
		end()
	}},
	{"map-of-one-beside-queued", 40_000, func(b *testing.B, n int) {
		p, end := crowded(b, n, false)
		for b.Loop() {
			ctx, cancel := context.WithCancel(context.Background())
			go cancel()
			_, _ = p.Map(ctx, []closure{returning(0, nil)})
		}
		b.StopTimer()
		end()
	}},
	{"do-beside-queued", 40_000, func(b *testing.B, n int) {
		p, end := crowded(b, n, false)
		for b.Loop() {
			ctx, cancel := context.WithCancel(context.Background())
			go cancel()
			_, _ = p.Do(ctx, returning(0, nil))
		}
		b.StopTimer()
		end()
	}},
	{"maps-that-end-together", 1_000, func(b *testing.B, n int) {
		endTogether(b, n, func(ctx context.Context, p *closures) {
			_, _ = p.Map(ctx, []closure{returning(0, nil), returning(0, nil)})
		})
	}},
	{"streams-that-end-together", 1_000, func(b *testing.B, n int) {
		endTogether(b, n, func(ctx context.Context, p *closures) {
			streamed(p.Stream(ctx, slices.Values([]closure{returning(0, nil)})))
		})
	}},
	{"calls-that-end-together", 1_000, func(b *testing.B, n int) {
		endTogether(b, n, func(ctx context.Context, p *closures) { _, _ = p.Do(ctx, returning(0, nil)) })
	}},
	{"groups-that-end-together", 1_000, func(b *testing.B, n int) {
		endTogether(b, n, func(ctx context.Context, p *closures) {
			g := p.Group(ctx)
			_ = g.Submit(returning(0, nil))
			_, _ = g.Wait()
		})
	}},
	{"submit-beside-silent-submitalls", 1_000, func(b *testing.B, n int) {
		silent(b, n, func(p *closures, tasks func(yield func(closure) bool)) {
			_, _ = p.SubmitAll(context.Background(), tasks)
		})
	}},
	{"submit-beside-silent-streams", 1_000, func(b *testing.B, n int) {
		silent(b, n, func(p *closures, tasks func(yield func(closure) bool)) {
			streamed(p.Stream(context.Background(), tasks))
		})
	}},
	{"submitters-in-line", 2_000, func(b *testing.B, n int) { inLine(b, n) }},
	{"submitters-in-line-with-priorities", 2_000, func(b *testing.B, n int) {
		turn := new(atomic.Int32)
		inLine(b, n, workpool.WithPriority(func(closure) workpool.Priority { return workpool.Priority(turn.Add(1)%3 - 1) }))
	}},
	{"submitters-in-line-for-one-key", 2_000, func(b *testing.B, n int) {
		inLine(b, n, workpool.WithKey(func(closure) int { return 1 }))
	}},
	{"submitters-in-line-for-a-full-key", 2_000, func(b *testing.B, n int) {
		inLine(b, n, workpool.WithKey(func(closure) int { return 1 }), workpool.WithKeyDepth(1))
	}},
	{"submitters-in-line-for-many-keys", 2_000, func(b *testing.B, n int) {
		turn := new(atomic.Int32)
		inLine(b, n, workpool.WithKey(func(closure) int32 { return turn.Add(1) }))
	}},
	{"calls-in-line-with-priorities", 2_000, func(b *testing.B, n int) {
		turn := new(atomic.Int32)
		p := newClosures(b, workpool.WithWorkers(1), workpool.WithQueueDepth(1),
			workpool.WithPriority(func(closure) workpool.Priority { return workpool.Priority(turn.Add(1)%3 - 1) }))
		all(b, n, func() {
			release := make(chan struct{})
			answers := []<-chan workpool.Result[closure, int]{p.DoChan(context.Background(), until(release))}
			for range n {
				answers = append(answers, p.DoChan(context.Background(), returning(0, nil)))
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
		release := make(chan struct{})
		p := newClosures(b, workpool.WithWorkers(n+2), workpool.WithoutResults())
		for range n {
			require.NoError(b, p.Submit(context.Background(), until(release)))
		}
		for p.Stats().Running < n {
			time.Sleep(time.Millisecond)
		}
		for b.Loop() {
			_, _ = p.Do(context.Background(), returning(0, nil))
		}
		b.StopTimer()
		close(release)
		closed(b, p)
	}},
	{"do-beside-stuck-calls-of-handlers", 1_000, func(b *testing.B, n int) {
		release := make(chan struct{})
		p := newClosures(b, workpool.WithWorkers(n+2), workpool.WithoutResults())
		for range n {
			require.NoError(b, p.Submit(context.Background(), func(ctx context.Context) (int, error) { return p.Do(ctx, until(release)) }))
		}
		for p.Stats().Running < 2*n {
			time.Sleep(time.Millisecond)
		}
		for b.Loop() {
			_, _ = p.Do(context.Background(), returning(0, nil))
		}
		b.StopTimer()
		close(release)
		closed(b, p)
	}},
	{"calls-of-one-handler", 1_000, func(b *testing.B, n int) { // by n goroutines
		p := newClosures(b, workpool.WithWorkers(1))
		all(b, n, func() {
			_, _ = p.Do(context.Background(), func(ctx context.Context) (int, error) {
				var calls sync.WaitGroup
				for range n {
					calls.Go(func() { _, _ = p.Do(ctx, returning(0, nil)) })
				}
				calls.Wait()
				return 0, nil
			})
		})
		closed(b, p)
	}},
	{"calls-of-one-handler-for-one-key", 1_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(2), workpool.WithKey(func(closure) int { return 1 }))
		all(b, n, func() {
			_, _ = p.Do(context.Background(), func(ctx context.Context) (int, error) {
				var calls sync.WaitGroup
				for range n {
					calls.Go(func() { _, _ = p.Do(ctx, returning(0, nil)) })
				}
				calls.Wait()
				return 0, nil
			})
		})
		closed(b, p)
	}},
	{"do-of-a-handler-with-parked-tasks", 1_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(1), workpool.WithQueueDepth(2*n))
		ctx, cancel := context.WithCancel(context.Background())
		_, _ = p.Do(ctx, func(ctx context.Context) (int, error) {
			g := p.Group(ctx)
			for range n {
				_ = g.Submit(returning(0, workpool.RetryAfter(time.Hour, nil)))
			}
			wait := make(chan struct{})
			go func() {
				_, _ = g.Wait()
				close(wait)
			}()
			for p.Stats().Parked < n {
				time.Sleep(time.Millisecond)
			}
			for b.Loop() {
				_, _ = p.Do(ctx, returning(0, nil))
			}
			b.StopTimer()
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
	{"drop-oldest-behind-a-stream", 10_000, func(b *testing.B, n int) {
		p, end := streaming(b, n, returning(0, nil), workpool.WithOverflow(workpool.DropOldest))
		dropOldest(b, p)
		end()
	}},
	{"drop-oldest-behind-a-stream-of-one-key", 10_000, func(b *testing.B, n int) {
		p, end := streaming(b, n, returning(0, nil), workpool.WithOverflow(workpool.DropOldest), workpool.WithKey(func(closure) int { return 1 }))
		dropOldest(b, p)
		end()
	}},
	{"drop-oldest-behind-other-keys", 10_000, func(b *testing.B, n int) {
		keys := new(atomic.Int32)
		p, end := streaming(b, n, returning(0, nil), workpool.WithOverflow(workpool.DropOldest), workpool.WithKey(func(closure) int32 { return keys.Add(1) / 2 }))
		dropOldest(b, p)
		end()
	}},
	{"drop-oldest-beside-other-priorities", 10_000, func(b *testing.B, n int) { // behind the same key
		var tasks atomic.Int64
		p := newClosures(b, workpool.WithWorkers(1), workpool.WithQueueDepth(n), workpool.WithoutResults(),
			workpool.WithOverflow(workpool.DropOldest), workpool.WithKey(func(closure) int { return 1 }),
			workpool.WithPriority(func(closure) workpool.Priority {
				if tasks.Add(1) <= int64(n) {
					return workpool.High
				}
				return workpool.Low
			}))
		release := make(chan struct{})
		require.NoError(b, p.Submit(context.Background(), until(release)))
		for range n - 1 {
			require.NoError(b, p.Submit(context.Background(), returning(0, nil)))
		}
		tasks.Add(1)
		dropOldest(b, p)
		close(release)
		closed(b, p)
	}},
	{"drop-oldest-with-nothing-to-drop", 10_000, func(b *testing.B, n int) {
		p, end := streaming(b, n, returning(0, workpool.RetryAfter(time.Hour, nil)), workpool.WithOverflow(workpool.DropOldest), workpool.WithQueueDepth(n-1))
		dropOldest(b, p)
		end()
	}},
	{"stats-after-a-large-resize", 1_600_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(4))
		before := heap()
		require.NoError(b, p.Resize(n))
		_, _ = p.Do(context.Background(), returning(0, nil))
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
		for range n {
			require.NoError(b, p.Submit(context.Background(), until(release)))
		}
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
			require.NoError(b, p.Submit(context.Background(), returning(0, nil)))
			<-received
		}
		for b.Loop() {
			require.NoError(b, p.Submit(context.Background(), returning(0, nil)))
			<-received
		}
		closed(b, p)
		all.Wait()
	}},
	{"idle-workers", 1_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(n), workpool.WithoutResults())
		release := make(chan struct{})
		for range n {
			require.NoError(b, p.Submit(context.Background(), until(release)))
		}
		close(release)
		require.NoError(b, p.Wait(context.Background()))
		for b.Loop() {
			_, _ = p.Do(context.Background(), returning(0, nil))
		}
		closed(b, p)
	}},
	{"parked-retries-aborted", 10_000, func(b *testing.B, n int) {
		all(b, n, func() {
			b.StopTimer()
			p := newClosures(b, workpool.WithWorkers(2), workpool.WithQueueDepth(n), workpool.WithoutResults())
			for range n {
				require.NoError(b, p.Submit(context.Background(), returning(0, workpool.RetryAfter(time.Hour, nil))))
			}
			for p.Stats().Parked < n {
				time.Sleep(time.Millisecond)
			}
			b.StartTimer()
			_ = p.Shutdown(endedContext())
		})
	}},
	{"parked-retries-beside-do", 10_000, func(b *testing.B, n int) {
		p := newClosures(b, workpool.WithWorkers(2), workpool.WithQueueDepth(n+10), workpool.WithoutResults())
		for range n {
			require.NoError(b, p.Submit(context.Background(), returning(0, workpool.RetryAfter(time.Hour, nil))))
		}
		for p.Stats().Parked < n {
			time.Sleep(time.Millisecond)
		}
		for b.Loop() {
			_, _ = p.Do(context.Background(), returning(0, nil))
		}
		b.StopTimer()
		_ = p.Shutdown(endedContext())
	}},
	{"keys", 10_000, func(b *testing.B, n int) {
		key := 0
		p := newClosures(b, workpool.WithWorkers(1), workpool.WithQueueDepth(n+10), workpool.WithoutResults(),
			workpool.WithKey(func(closure) int { key++; return key }))
		release := make(chan struct{})
		require.NoError(b, p.Submit(context.Background(), until(release)))
		for range n {
			require.NoError(b, p.Submit(context.Background(), returning(0, nil)))
		}
		runtime.GC() // it is not what is measured
		for b.Loop() {
			ctx, cancel := context.WithCancel(context.Background())
			answer := p.DoChan(ctx, returning(0, nil))
			cancel()
			<-answer
		}
		b.StopTimer()
		close(release)
		closed(b, p)
	}},
	{"keys-each-task-its-own", 10_000, func(b *testing.B, n int) {
		key := 0
		p := newClosures(b, workpool.WithWorkers(2), workpool.WithQueueDepth(n), workpool.WithoutResults(),
			workpool.WithKey(func(closure) int { key++; return key }))
		all(b, n, func() {
			for range n {
				_ = p.Submit(context.Background(), returning(0, nil))
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
				cancel, _ := p.SubmitCancel(context.Background(), returning(0, nil))
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
		for range n {
			require.NoError(b, p.Submit(context.Background(), returning(0, nil)))
		}
		for p.Stats().Held < n {
			time.Sleep(time.Millisecond)
		}
		next := make(chan struct{})
		var receiver sync.WaitGroup
		receiver.Go(func() {
			for range p.Results() {
				<-next
			}
		})
		for b.Loop() {
			_ = p.Submit(context.Background(), returning(0, nil))
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
		kept := heap() - before
		b.ReportMetric(float64(max(0, kept)), "B-kept")
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
		kept := heap() - before
		b.ReportMetric(float64(max(0, kept)), "B-kept")
		closed(b, p)
	}},
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
	require.NoError(b, p.Submit(context.Background(), until(release)))
	var answers []<-chan workpool.Result[closure, int]
	for range n {
		if calls {
			answers = append(answers, p.DoChan(context.Background(), returning(0, nil)))
		} else {
			require.NoError(b, p.Submit(context.Background(), returning(0, nil)))
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
	stream.Go(func() { streamed(p.Stream(ctx, slices.Values(slices.Repeat([]closure{task}, n-1)))) })
	for p.Stats().Queued < n-1 {
		time.Sleep(time.Millisecond)
	}
	for p.Stats().Running > 0 && p.Stats().Parked > 0 {
		time.Sleep(time.Millisecond)
	}
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
		answer := p.DoChan(ctx, returning(0, nil))
		cancel()
		<-answer
	}
	b.StopTimer()
}

// endTogether has n calls wait behind a stuck worker whose common context ends.
func endTogether(b *testing.B, n int, call func(ctx context.Context, p *closures)) {
	b.Helper()
	p := newClosures(b, workpool.WithWorkers(1), workpool.WithQueueDepth(n), workpool.WithoutResults())
	release := make(chan struct{})
	require.NoError(b, p.Submit(context.Background(), until(release)))
	all(b, n, func() {
		b.StopTimer()
		ctx, cancel := context.WithCancel(context.Background())
		var calls sync.WaitGroup
		for range n {
			calls.Go(func() { call(ctx, p) })
		}
		for p.Stats().Queued < n {
			time.Sleep(time.Millisecond)
		}
		b.StartTimer()
		cancel()
		calls.Wait()
	})
	close(release)
	closed(b, p)
}

// silent measures a Submit beside n inputs that do not yield.
func silent(b *testing.B, n int, feed func(p *closures, tasks func(yield func(closure) bool))) {
	b.Helper()
	p := newClosures(b, workpool.WithWorkers(1), workpool.WithoutResults())
	release := make(chan struct{})
	var blocked atomic.Int32
	var inputs sync.WaitGroup
	for range n {
		inputs.Go(func() {
			feed(p, func(yield func(closure) bool) {
				yield(returning(0, nil))
				blocked.Add(1)
				<-release
			})
		})
	}
	for int(blocked.Load()) < n {
		time.Sleep(time.Millisecond)
	}
	for b.Loop() {
		_ = p.Submit(context.Background(), returning(0, nil))
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
		require.NoError(b, p.Submit(context.Background(), until(release)))
		for p.Stats().Running == 0 {
			time.Sleep(time.Millisecond)
		}
		var submitters sync.WaitGroup
		for range n {
			submitters.Go(func() { _ = p.Submit(context.Background(), returning(0, nil)) })
		}
		for s := p.Stats(); s.Waiting+s.Queued < n; s = p.Stats() {
			time.Sleep(time.Millisecond)
		}
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
	tasks := slices.Repeat([]closure{returning(0, nil)}, n)
	all(b, n, func() {
		first := true
		for range p.Stream(context.Background(), slices.Values(tasks)) {
			if !first {
				continue
			}
			first = false
			for base := p.Stats().Submitted; ; {
				time.Sleep(time.Millisecond)
				s := p.Stats()
				if s.Queued+s.Running == 0 && s.Submitted == base {
					break
				}
				base = s.Submitted
			}
		}
	})
	closed(b, p)
}

func lateReceiver(b *testing.B, n int, opts ...workpool.Option) {
	b.Helper()
	p := newClosures(b, append([]workpool.Option{workpool.WithWorkers(2), workpool.WithResultBuffer(2 * n)}, opts...)...)
	all(b, n, func() {
		for range n {
			_ = p.Submit(context.Background(), returning(0, nil))
		}
		_ = p.Wait(context.Background())
		receiveN(p, n)
	})
	closed(b, p)
}

// BenchmarkNew is what a pool costs that hardly does anything.
func BenchmarkNew(b *testing.B) {
	once := func(b *testing.B, opts ...workpool.Option) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := workpool.New(identity, opts...)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := p.Do(context.Background(), 1); err != nil {
				b.Fatal(err)
			}
			if err := p.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("what=defaults", func(b *testing.B) { once(b) })
	b.Run("what=workers-65536", func(b *testing.B) { once(b, workpool.WithWorkers(1<<16)) })
	b.Run("what=elastic", func(b *testing.B) { once(b, workpool.WithElastic(0, time.Second)) })
	b.Run("what=context", func(b *testing.B) {
		ctx := b.Context()
		once(b, workpool.WithContext(ctx))
	})
	b.Run("what=new-alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := workpool.New(identity); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("what=map-of-8", func(b *testing.B) {
		b.ReportAllocs()
		tasks := upTo(8)
		for b.Loop() {
			if _, err := workpool.Map(context.Background(), tasks, identity); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("what=foreach-of-8", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := workpool.ForEach(context.Background(), count(8), func(context.Context, int) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
