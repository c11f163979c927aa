package workpool_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

// The benchmarks compare numbers of workers, and the pool with what one would
// write by hand:
//
//	go test -run '^$' -bench . -count 6 > new.txt
//	GOWORK=off go tool -modfile=tools/go.mod benchstat -col /workers new.txt
//	GOWORK=off go tool -modfile=tools/go.mod benchstat -col /impl new.txt
//
// The task does nothing, so that what is measured is the way of a task
// through the pool, with its result collected. Under b.N tasks, one operation
// is one task.

var benchmarkWorkers = []int{1, 2, 4, 8, 64, 1024}

func increment(_ context.Context, n int) (int, error) { return n + 1, nil }

// implementations run n tasks of a handler, in one of several ways.
var implementations = []struct {
	name string
	run  func(b *testing.B, way string, workers, n int, handler workpool.Handler[int, int])
}{
	{"workpool", func(b *testing.B, way string, workers, n int, handler workpool.Handler[int, int]) {
		b.Helper()
		runWorkpool(b, way, workers, n, handler)
	}},
	{"channels", runChannels},
}

func BenchmarkPool(b *testing.B) {
	for _, way := range []string{"Submit", "SubmitAll", "Stream", "Map", "Do", "Do8"} {
		for _, workers := range benchmarkWorkers {
			for _, impl := range implementations {
				b.Run(fmt.Sprintf("way=%s/workers=%d/impl=%s", way, workers, impl.name), func(b *testing.B) {
					b.ReportAllocs()
					impl.run(b, way, workers, b.N, increment)
				})
			}
		}
	}
}

// BenchmarkCompute runs tasks that compute for a while, from Submit to Results.
func BenchmarkCompute(b *testing.B) {
	for _, d := range []time.Duration{time.Microsecond, 5 * time.Microsecond, 20 * time.Microsecond, 50 * time.Microsecond} {
		for _, workers := range []int{2, 8} {
			for _, impl := range implementations {
				b.Run(fmt.Sprintf("task=%v/workers=%d/impl=%s", d, workers, impl.name), func(b *testing.B) {
					b.ReportAllocs()
					impl.run(b, "Submit", workers, b.N, computing(d))
				})
			}
		}
	}
}

// computing returns a handler that computes for a time d, measured once.
func computing(d time.Duration) workpool.Handler[int, int] {
	const many = 1 << 20
	compute := func(n, rounds int) int {
		for i := range rounds {
			n = n*1103515245 + i
		}
		return n
	}
	best := time.Duration(math.MaxInt64)
	for range 5 {
		begin := time.Now()
		sink.Store(int64(compute(1, many)))
		best = min(best, time.Since(begin))
	}
	rounds := int(int64(d) * many / int64(best))
	return func(_ context.Context, n int) (int, error) { return compute(n, rounds), nil }
}

var sink atomic.Int64

// BenchmarkFeature is the way from Submit to Results with one feature on, beside
// that with none. With keys, there are as many as tasks, a thousand, or one.
func BenchmarkFeature(b *testing.B) {
	twice := func(ctx context.Context, n int) (int, error) {
		if info, _ := workpool.InfoFrom(ctx); info.Attempt < 2 {
			return 0, workpool.RetryAfter(0, nil)
		}
		return n + 1, nil
	}
	retry := workpool.Retry(increment, 3, workpool.ExponentialBackoff(time.Second, time.Minute))
	key := func(keys int) workpool.Option { return workpool.WithKey(func(n int) int { return n % keys }) }
	for _, feature := range []struct {
		name    string
		handler workpool.Handler[int, int]
		opts    []workpool.Option
	}{
		{"none", increment, nil},
		{"ordered", increment, []workpool.Option{workpool.WithOrdered()}},
		{"keys-all", increment, []workpool.Option{workpool.WithKey(func(n int) int { return n })}},
		{"keys-1000", increment, []workpool.Option{key(1000)}},
		{"keys-1", increment, []workpool.Option{key(1)}},
		{"priority", increment, []workpool.Option{workpool.WithPriority(func(n int) workpool.Priority { return workpool.Priority(n%3 - 1) })}},
		{"elastic", increment, []workpool.Option{workpool.WithElastic(0, time.Second)}},
		{"overflow", increment, []workpool.Option{workpool.WithOverflow(workpool.CallerRuns)}},
		{"observer", increment, []workpool.Option{workpool.WithObserver(workpool.Observer{
			Submit: func(context.Context) any { return nil },
			Begin:  func(ctx context.Context, _ workpool.Event) context.Context { return ctx },
			End:    func(context.Context, workpool.Event) {},
		})}},
		{"Retry", retry, nil},
		{"RetryAfter", twice, nil},
		{"Timeout", workpool.Timeout(increment, time.Minute), nil},
	} {
		for _, workers := range []int{1, 8} {
			b.Run(fmt.Sprintf("feature=%s/workers=%d", feature.name, workers), func(b *testing.B) {
				b.ReportAllocs()
				runWorkpool(b, "Submit", workers, b.N, feature.handler, feature.opts...)
			})
		}
	}
}

// BenchmarkSleepers runs a million tasks that sleep for 10 ms on 50,000
// workers, and reports the most memory that heap and stacks took.
func BenchmarkSleepers(b *testing.B) {
	sleep := func(_ context.Context, n int) (int, error) {
		time.Sleep(10 * time.Millisecond)
		return n + 1, nil
	}
	for _, impl := range implementations {
		b.Run(fmt.Sprintf("workers=50000/impl=%s", impl.name), func(b *testing.B) {
			for range b.N {
				runtime.GC()
				stop, peak := make(chan struct{}), make(chan uint64)
				go watchMemory(stop, peak)
				impl.run(b, "Submit", 50_000, 1_000_000, sleep)
				close(stop)
				b.ReportMetric(float64(<-peak)/(1<<20), "peak-MiB")
			}
		})
	}
}

// BenchmarkNaps runs 200,000 tasks that sleep for 10 ms on 10,000 workers.
func BenchmarkNaps(b *testing.B) {
	nap := func(_ context.Context, n int) (int, error) {
		time.Sleep(10 * time.Millisecond)
		return n + 1, nil
	}
	for _, impl := range implementations {
		b.Run(fmt.Sprintf("workers=10000/impl=%s", impl.name), func(b *testing.B) {
			for range b.N {
				impl.run(b, "Submit", 10_000, 200_000, nap)
			}
		})
	}
}

// watchMemory sends to peak, after stop is closed, by how much memory in use
// has risen since the call at most.
func watchMemory(stop <-chan struct{}, peak chan<- uint64) {
	inUse := func() uint64 {
		samples := []metrics.Sample{
			{Name: "/memory/classes/heap/objects:bytes"},
			{Name: "/memory/classes/heap/unused:bytes"},
			{Name: "/memory/classes/heap/stacks:bytes"},
		}
		metrics.Read(samples)
		var sum uint64
		for _, sample := range samples {
			sum += sample.Value.Uint64()
		}
		return sum
	}
	base, highest := inUse(), uint64(0)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		highest = max(highest, inUse())
		select {
		case <-tick.C:
		case <-stop:
			peak <- highest - min(base, highest)
			return
		}
	}
}

// calls makes n calls by a number of callers at once, and returns n.
func calls(callers, n int, caller func() func(i int)) int {
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			call := caller()
			for i := c; i < n; i += callers {
				call(i)
			}
		})
	}
	wg.Wait()
	return n
}

func runWorkpool(b *testing.B, way string, workers, n int, handler workpool.Handler[int, int], opts ...workpool.Option) {
	b.Helper()
	b.StopTimer()
	ctx := context.Background()
	p, err := workpool.New(handler, append(opts, workpool.WithWorkers(workers))...)
	if err != nil {
		b.Fatal(err)
	}
	defer closed(b, p)
	b.StartTimer()
	results := 0
	switch way {
	case "Submit", "SubmitAll":
		done := make(chan struct{})
		go func() {
			defer close(done)
			if way == "SubmitAll" {
				if _, err := p.SubmitAll(ctx, count(n)); err != nil {
					b.Error(err)
				}
				return
			}
			for i := range n {
				if err := p.Submit(ctx, i); err != nil {
					b.Error(err)
				}
			}
		}()
		for range p.Results() {
			if results++; results == n {
				break
			}
		}
		<-done
	case "Stream":
		for range p.Stream(ctx, count(n)) {
			results++
		}
	case "Map":
		tasks := make([]int, n)
		values, err := p.Map(ctx, tasks)
		if err != nil {
			b.Fatal(err)
		}
		results = len(values)
	case "Do", "Do8":
		callers := 1
		if way == "Do8" {
			callers = 8
		}
		results = calls(callers, n, func() func(i int) {
			return func(i int) {
				if _, err := p.Do(ctx, i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.StopTimer()
	if results != n {
		b.Fatalf("%d results of %d tasks", results, n)
	}
}

// runChannels is the pool of forty lines that everybody writes: a channel of
// tasks, a channel of results and a number of workers in between.
func runChannels(b *testing.B, way string, workers, n int, handler workpool.Handler[int, int]) {
	b.Helper()
	b.StopTimer()
	type task struct {
		n     int
		index uint64
		reply chan workpool.Result[int, int] // of a call
	}
	ctx := context.Background()
	tasks := make(chan task, 128)
	collector := make(chan workpool.Result[int, int], 128)
	var wg sync.WaitGroup
	for id := range workers {
		wg.Go(func() {
			for t := range tasks {
				value, err := handler(ctx, t.n)
				result := workpool.Result[int, int]{Index: t.index, Task: t.n, Value: value, Err: err, Worker: id + 1, Attempt: 1}
				if t.reply != nil {
					t.reply <- result
				} else {
					collector <- result
				}
			}
		})
	}
	defer wg.Wait()
	defer close(tasks)
	b.StartTimer()
	results := 0
	switch way {
	case "Do", "Do8":
		callers := 1
		if way == "Do8" {
			callers = 8
		}
		results = calls(callers, n, func() func(i int) {
			reply := make(chan workpool.Result[int, int], 1)
			return func(i int) {
				tasks <- task{n: i, index: uint64(i), reply: reply}
				<-reply
			}
		})
	default:
		var values []int
		if way == "Map" {
			values = make([]int, n)
		}
		go func() {
			for i := range n {
				tasks <- task{n: i, index: uint64(i)}
			}
		}()
		for range n {
			result := <-collector
			if values != nil {
				values[result.Index] = result.Value
			}
			results++
		}
	}
	b.StopTimer()
	if results != n {
		b.Fatalf("%d results of %d tasks", results, n)
	}
}
