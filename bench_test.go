package workpool_test

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"

	"github.com/seed-a18b2dc9/workpool"
)

// The benchmarks compare numbers of workers, and the pool with what one would
// write by hand:
//
//	go test -run '^$' -bench . -count 6 | benchstat -col /workers -
//	go test -run '^$' -bench . -count 6 | benchstat -col /impl -
//
// The task does nothing, so that what is measured is the way of a task
// through the pool, with its result collected. Under b.N tasks, one operation
// is one task.

var benchmarkWorkers = []int{1, 2, 4, 8, 64, 1024}

func increment(_ context.Context, n int) (int, error) { return n + 1, nil }

// implementations run n tasks each, and call collected for every result.
var implementations = []struct {
	name string
	run  func(b *testing.B, way string, workers, n int)
}{
	{"workpool", runWorkpool},
	{"channels", runChannels},
}

func BenchmarkPool(b *testing.B) {
	for _, way := range []string{"Submit", "Stream", "Map", "Do"} {
		for _, workers := range benchmarkWorkers {
			for _, impl := range implementations {
				b.Run(fmt.Sprintf("way=%s/workers=%d/impl=%s", way, workers, impl.name), func(b *testing.B) {
					b.ReportAllocs()
					impl.run(b, way, workers, b.N)
				})
			}
		}
	}
}

func count(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func runWorkpool(b *testing.B, way string, workers, n int) {
	ctx := context.Background()
	p, err := workpool.New(increment, workpool.WithWorkers(workers))
	if err != nil {
		b.Fatal(err)
	}
	defer closed(b, p)
	b.ResetTimer()
	results := 0
	switch way {
	case "Submit":
		done := make(chan struct{})
		go func() {
			defer close(done)
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
	case "Do":
		for range n {
			if _, err := p.Do(ctx, results); err != nil {
				b.Fatal(err)
			}
			results++
		}
	}
	b.StopTimer()
	if results != n {
		b.Fatalf("%d results of %d tasks", results, n)
	}
}

// runChannels is the pool of forty lines that everybody writes: a channel of
// tasks, a channel of results and a number of workers in between.
func runChannels(b *testing.B, way string, workers, n int) {
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
				value, err := increment(ctx, t.n)
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
	b.ResetTimer()
	results := 0
	switch way {
	case "Do":
		reply := make(chan workpool.Result[int, int], 1)
		for i := range n {
			tasks <- task{n: i, index: uint64(i), reply: reply}
			<-reply
			results++
		}
	default:
		values := make([]int, n)
		go func() {
			for i := range n {
				tasks <- task{n: i, index: uint64(i)}
			}
		}()
		for range n {
			result := <-collector
			values[result.Index] = result.Value
			results++
		}
	}
	b.StopTimer()
	if results != n {
		b.Fatalf("%d results of %d tasks", results, n)
	}
}
