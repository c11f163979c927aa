package benchmarks

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"
)

var workerCounts = []int{1, 2, 4, 8, 64, 1024}

func noop(task int) int { return task + 1 }

// check is the receive of a run, which counts and sums up.
type check struct{ n, sum int }

func (c *check) receive(result int) {
	c.n++
	c.sum += result
}

// complete fails the benchmark unless all results of the tasks 0 to n-1 came,
// as often as there were producers.
func (c *check) complete(b *testing.B, producers, n int) {
	b.Helper()
	if c.n != producers*n || c.sum != producers*(n*(n-1)/2+n) {
		b.Fatalf("%d results with sum %d, of %d times %d tasks", c.n, c.sum, producers, n)
	}
}

// BenchmarkCollect hands in tasks that do nothing, one by one, and receives
// their results. One operation is one task.
func BenchmarkCollect(b *testing.B) {
	for _, producers := range []int{1, 8} {
		for _, workers := range workerCounts {
			for _, impl := range Collectors {
				b.Run(fmt.Sprintf("producers=%d/workers=%d/impl=%s", producers, workers, impl.Name), func(b *testing.B) {
					b.ReportAllocs()
					var c check
					n := (b.N + producers - 1) / producers
					impl.Run(workers, producers, n, noop, c.receive)
					c.complete(b, producers, n)
				})
			}
		}
	}
}

// BenchmarkBatch is BenchmarkCollect where all tasks are known at the start.
func BenchmarkBatch(b *testing.B) {
	for _, workers := range workerCounts {
		for _, impl := range Batchers {
			b.Run(fmt.Sprintf("workers=%d/impl=%s", workers, impl.Name), func(b *testing.B) {
				impl.Run(workers, b.N, noop, func(int) {}) // or what is measured is how the system hands out memory
				runtime.GC()
				b.ReportAllocs()
				b.ResetTimer()
				var c check
				impl.Run(workers, b.N, noop, c.receive)
				c.complete(b, 1, b.N)
			})
		}
	}
}

// BenchmarkCall asks and waits for the answer, from a number of callers, and
// reports how long single calls take. One operation is one call.
func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		for _, workers := range []int{2, 8, 64} {
			for _, impl := range Callers {
				b.Run(fmt.Sprintf("callers=%d/workers=%d/impl=%s", callers, workers, impl.Name), func(b *testing.B) {
					b.ReportAllocs()
					call, stop := impl.Start(workers, noop)
					defer stop()
					each := (b.N + callers - 1) / callers
					took := make([][]time.Duration, callers)
					for i := range took {
						took[i] = make([]time.Duration, 0, each/8+1)
					}
					b.ResetTimer()
					var group sync.WaitGroup
					for i := range callers {
						group.Go(func() {
							for task := range each {
								if task%8 != 0 { // the clock is as slow as a call
									call(task)
									continue
								}
								begin := time.Now()
								if r := call(task); r != task+1 {
									b.Errorf("the answer to %d is %d", task, r)
								}
								took[i] = append(took[i], time.Since(begin))
							}
						})
					}
					group.Wait()
					b.StopTimer()
					report(b, "", slices.Concat(took...))
				})
			}
		}
	}
}

// report reports percentiles as metrics.
func report(b *testing.B, prefix string, took []time.Duration) {
	slices.Sort(took)
	for _, p := range []struct {
		name string
		part float64
	}{{"p50-ns", 0.5}, {"p99-ns", 0.99}, {"p99.9-ns", 0.999}} {
		b.ReportMetric(float64(took[int(float64(len(took)-1)*p.part)]), prefix+p.name)
	}
}

// BenchmarkCPU runs tasks that compute for a time, on one worker and on two. The
// speed-up is what two take less than one.
func BenchmarkCPU(b *testing.B) {
	for _, task := range []time.Duration{time.Microsecond, 20 * time.Microsecond, 200 * time.Microsecond} {
		work := spinner(task)
		for _, workers := range []int{1, 2, 8} {
			for _, impl := range Collectors {
				b.Run(fmt.Sprintf("task=%v/workers=%d/impl=%s", task, workers, impl.Name), func(b *testing.B) {
					var c check
					impl.Run(workers, 1, b.N, work, c.receive)
					c.complete(b, 1, b.N)
				})
			}
		}
	}
}

var sink [64]uint64

// spinner returns work that takes about d on one processor.
func spinner(d time.Duration) Work {
	spin := func(rounds int, x uint64) uint64 {
		for range rounds {
			x = x*6364136223846793005 + 1442695040888963407
		}
		return x
	}
	const rounds = 1 << 20
	best := time.Duration(1 << 62)
	for range 20 {
		begin := time.Now()
		sink[0] += spin(rounds, 1)
		best = min(best, time.Since(begin))
	}
	n := int(float64(rounds) * float64(d) / float64(best))
	return func(task int) int {
		if spin(n, uint64(task)) == 0 {
			return 0
		}
		return task + 1
	}
}

// BenchmarkLanguages is what the programs in languages do in theirs.
func BenchmarkLanguages(b *testing.B) {
	for _, task := range []struct {
		name string
		work Work
	}{{"noop", noop}, {"20µs", spinner(20 * time.Microsecond)}} {
		for _, workers := range []int{1, 2, 8} {
			for _, impl := range Collectors[:2] {
				b.Run(fmt.Sprintf("task=%s/workers=%d/impl=%s", task.name, workers, impl.Name), func(b *testing.B) {
					var c check
					impl.Run(workers, 1, b.N, task.work, c.receive)
					c.complete(b, 1, b.N)
				})
			}
		}
	}
}

// BenchmarkMixed asks from 16 callers, of whose tasks one in a hundred sleeps for
// a millisecond, and reports how long the answers to the others take. One
// operation is one call.
func BenchmarkMixed(b *testing.B) {
	const callers = 16
	for _, workers := range []int{2, 8, 64} {
		for _, impl := range Callers {
			b.Run(fmt.Sprintf("workers=%d/impl=%s", workers, impl.Name), func(b *testing.B) {
				call, stop := impl.Start(workers, func(task int) int {
					if task%100 == 99 {
						time.Sleep(time.Millisecond)
					}
					return task + 1
				})
				defer stop()
				took := make([][]time.Duration, callers)
				b.ResetTimer()
				var group sync.WaitGroup
				for i := range callers {
					group.Go(func() {
						for task := range (b.N + callers - 1) / callers {
							begin := time.Now()
							if r := call(task + i); r != task+i+1 {
								b.Errorf("the answer to %d is %d", task+i, r)
							}
							if (task+i)%100 != 99 {
								took[i] = append(took[i], time.Since(begin))
							}
						}
					})
				}
				group.Wait()
				b.StopTimer()
				report(b, "fast-", slices.Concat(took...))
			})
		}
	}
}

// BenchmarkRequests asks from 10,000 callers at once, whose tasks wait for 10 ms each,
// as requests do that ask another service. One operation is one call.
func BenchmarkRequests(b *testing.B) {
	const callers, workers = 10_000, 10_000
	for _, impl := range Callers {
		b.Run(fmt.Sprintf("workers=%d/impl=%s", workers, impl.Name), func(b *testing.B) {
			b.ReportAllocs()
			call, stop := impl.Start(workers, func(task int) int {
				time.Sleep(10 * time.Millisecond)
				return task + 1
			})
			defer stop()
			each := (b.N + callers - 1) / callers
			took := make([][]time.Duration, callers)
			b.ResetTimer()
			var group sync.WaitGroup
			for i := range callers {
				group.Go(func() {
					for task := range each {
						begin := time.Now()
						if r := call(task + i); r != task+i+1 {
							b.Errorf("the answer to %d is %d", task+i, r)
						}
						took[i] = append(took[i], time.Since(begin))
					}
				})
			}
			group.Wait()
			b.StopTimer()
			report(b, "", slices.Concat(took...))
		})
	}
}

// BenchmarkSleepers runs a million tasks that sleep for 10 ms on 50,000 workers,
// and reports the most memory that heap and stacks took. It is one operation. With
// -short, which is for whether it works, there are a hundred thousand.
func BenchmarkSleepers(b *testing.B) {
	tasks := 1_000_000
	if testing.Short() {
		tasks = 100_000
	}
	for _, impl := range Collectors {
		b.Run("workers=50000/impl="+impl.Name, func(b *testing.B) {
			for range b.N {
				runtime.GC()
				stop, peak := make(chan struct{}), make(chan uint64)
				go watchMemory(stop, peak)
				var c check
				impl.Run(50_000, 1, tasks, func(task int) int {
					time.Sleep(10 * time.Millisecond)
					return task + 1
				}, c.receive)
				c.complete(b, 1, tasks)
				close(stop)
				b.ReportMetric(float64(<-peak)/(1<<20), "peak-MiB")
			}
		})
	}
}

// watchMemory sends to peak, after stop is closed, by how much memory in use has
// risen since the call at most.
func watchMemory(stop <-chan struct{}, peak chan<- uint64) {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
	}
	inUse := func() (sum uint64) {
		metrics.Read(samples)
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

// BenchmarkFew runs eight tasks that are known at the start, with all that has to be made for
// them. One operation is all eight.
func BenchmarkFew(b *testing.B) {
	for _, workers := range []int{2, 8} {
		for _, impl := range Batchers {
			b.Run(fmt.Sprintf("workers=%d/impl=%s", workers, impl.Name), func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					var c check
					impl.Run(workers, 8, noop, c.receive)
					c.complete(b, 1, 8)
				}
			})
		}
	}
}

// BenchmarkLife makes a pool of eight workers, runs eight tasks and closes it.
// It is one operation.
func BenchmarkLife(b *testing.B) {
	for _, impl := range Collectors {
		b.Run("workers=8/impl="+impl.Name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				var c check
				impl.Run(8, 1, 8, noop, c.receive)
				c.complete(b, 1, 8)
			}
		})
	}
}

// TestImplementations_AreComplete runs each of them once, small.
func TestImplementations_AreComplete(t *testing.T) {
	for _, workers := range []int{1, 8} {
		for _, producers := range []int{1, 4} {
			for _, impl := range Collectors {
				var c check
				impl.Run(workers, producers, 1000, noop, c.receive)
				if c.n != producers*1000 || c.sum != producers*500_500 {
					t.Errorf("%s, %d workers, %d producers: %+v", impl.Name, workers, producers, c)
				}
			}
		}
		for _, impl := range Batchers {
			var c check
			impl.Run(workers, 1000, noop, c.receive)
			if c != (check{1000, 500_500}) {
				t.Errorf("%s, %d workers: %+v", impl.Name, workers, c)
			}
		}
		for _, impl := range Callers {
			call, stop := impl.Start(workers, noop)
			if r := call(41); r != 42 {
				t.Errorf("%s, %d workers: the answer is %d", impl.Name, workers, r)
			}
			stop()
		}
	}
}
