// Package benchmarks compares workpool with what one would use in its place:
// channels written by hand, a goroutine per task, and the pools that are in
// use. All of them do the same work, in one run.
//
//	go test -bench 'Collect/.*/workers=8/' -count 6 | GOWORK=off go tool -modfile=../tools/go.mod benchstat -col /impl -
//	go run ./cmd/report
package benchmarks

import (
	"context"
	"iter"
	"runtime"
	"sync"

	"github.com/alitto/pond/v2"
	"github.com/gammazero/workerpool"
	"github.com/panjf2000/ants/v2"
	"github.com/sourcegraph/conc/pool"
	"github.com/sourcegraph/conc/stream"
	"golang.org/x/sync/errgroup"

	conciter "github.com/sourcegraph/conc/iter"

	"github.com/seed-a18b2dc9/workpool"
)

// queue is how many tasks, and how many results, the implementations buffer
// that have a queue.
const queue = 128

// Work is what is done for each task.
type Work func(task int) int

// A Collector runs tasks that are handed in one by one, by a number of
// producers, each of which has the tasks 0 to n-1. It calls receive with each
// result, from one goroutine.
type Collector struct {
	Name string
	Run  func(workers, producers, n int, work Work, receive func(result int))
}

// A Batcher runs the tasks 0 to n-1 as one batch, and calls receive with each
// result, from one goroutine.
type Batcher struct {
	Name string
	Run  func(workers, n int, work Work, receive func(result int))
}

// A Caller starts something that answers one task at a time, to many goroutines.
type Caller struct {
	Name  string
	Start func(workers int, work Work) (call func(task int) int, stop func())
}

// Collectors are the implementations of submit here, receive there.
var Collectors = []Collector{
	{"workpool", func(workers, producers, n int, work Work, receive func(int)) {
		p := newPool(workers, work)
		produce(producers, n, func(task int) { must(p.Submit(context.Background(), task)) }, func() { must(p.Close()) })
		for r := range p.Results() {
			receive(r.Value)
		}
	}},
	{"channels", collectByChannels},
	{"goroutines", func(workers, producers, n int, work Work, receive func(int)) {
		slots, results := make(chan struct{}, workers), make(chan int, queue)
		var group sync.WaitGroup
		produce(producers, n, func(task int) {
			slots <- struct{}{}
			group.Go(func() {
				results <- work(task)
				<-slots
			})
		}, func() {
			group.Wait()
			close(results)
		})
		for r := range results {
			receive(r)
		}
	}},
	{"ants", func(workers, producers, n int, work Work, receive func(int)) {
		p := must1(ants.NewPool(workers))
		defer p.Release()
		results := newResults(producers * n)
		produce(producers, n, func(task int) { must(p.Submit(func() { results.send(work(task)) })) }, nil)
		results.receive(receive)
	}},
	{"ants-generic", func(workers, producers, n int, work Work, receive func(int)) {
		results := newResults(producers * n)
		p := must1(ants.NewPoolWithFuncGeneric(workers, func(task int) { results.send(work(task)) }))
		defer p.Release()
		produce(producers, n, func(task int) { must(p.Invoke(task)) }, nil)
		results.receive(receive)
	}},
	{"ants-multi", func(workers, producers, n int, work Work, receive func(int)) {
		pools := min(workers, runtime.GOMAXPROCS(0))
		p := must1(ants.NewMultiPool(pools, (workers+pools-1)/pools, ants.RoundRobin))
		defer p.Free()
		results := newResults(producers * n)
		produce(producers, n, func(task int) { must(p.Submit(func() { results.send(work(task)) })) }, nil)
		results.receive(receive)
	}},
	{"pond", func(workers, producers, n int, work Work, receive func(int)) {
		p := pond.NewPool(workers, pond.WithQueueSize(queue))
		defer p.StopAndWait()
		results := newResults(producers * n)
		produce(producers, n, func(task int) { must(p.Go(func() { results.send(work(task)) })) }, nil)
		results.receive(receive)
	}},
	{"conc", func(workers, producers, n int, work Work, receive func(int)) {
		p := pool.New().WithMaxGoroutines(workers)
		results := newResults(producers * n)
		var mu sync.Mutex // a conc pool is for one producer
		produce(producers, n, func(task int) {
			if producers > 1 {
				mu.Lock()
				defer mu.Unlock()
			}
			p.Go(func() { results.send(work(task)) })
		}, nil)
		results.receive(receive)
		p.Wait()
	}},
	{"gammazero", func(workers, producers, n int, work Work, receive func(int)) {
		p := workerpool.New(workers)
		defer p.StopWait()
		results := newResults(producers * n)
		produce(producers, n, func(task int) { p.Submit(func() { results.send(work(task)) }) }, nil)
		results.receive(receive)
	}},
	{"errgroup", func(workers, producers, n int, work Work, receive func(int)) {
		var group errgroup.Group
		group.SetLimit(workers)
		results := newResults(producers * n)
		produce(producers, n, func(task int) {
			group.Go(func() error {
				results.send(work(task))
				return nil
			})
		}, nil)
		results.receive(receive)
		must(group.Wait())
	}},
}

// Batchers are the implementations of a whole batch.
var Batchers = []Batcher{
	{"workpool-SubmitAll", func(workers, n int, work Work, receive func(int)) {
		p := newPool(workers, work)
		go func() {
			must1(p.SubmitAll(context.Background(), count(n)))
			must(p.Close())
		}()
		for r := range p.Results() {
			receive(r.Value)
		}
	}},
	{"workpool-Stream", func(workers, n int, work Work, receive func(int)) {
		p := newPool(workers, work)
		for r := range p.Stream(context.Background(), count(n)) {
			receive(r.Value)
		}
		must(p.Close())
	}},
	{"workpool-Map", func(workers, n int, work Work, receive func(int)) {
		p := newPool(workers, work)
		for _, value := range must1(p.Map(context.Background(), slice(n))) {
			receive(value)
		}
		must(p.Close())
	}},
	{"workpool-Map-alone", func(workers, n int, work Work, receive func(int)) {
		handler := func(_ context.Context, task int) (int, error) { return work(task), nil }
		for _, value := range must1(workpool.Map(context.Background(), slice(n), handler, workpool.WithWorkers(workers))) {
			receive(value)
		}
	}},
	{"channels", func(workers, n int, work Work, receive func(int)) {
		collectByChannels(workers, 1, n, work, receive)
	}},
	{"pond-group", func(workers, n int, work Work, receive func(int)) {
		p := pond.NewResultPool[int](workers, pond.WithQueueSize(queue))
		group := p.NewGroup()
		for task := range n {
			group.Submit(func() int { return work(task) })
		}
		for _, r := range must1(group.Wait()) {
			receive(r)
		}
		p.StopAndWait()
	}},
	{"conc-results", func(workers, n int, work Work, receive func(int)) {
		p := pool.NewWithResults[int]().WithMaxGoroutines(workers)
		for task := range n {
			p.Go(func() int { return work(task) })
		}
		for _, r := range p.Wait() {
			receive(r)
		}
	}},
	{"conc-stream", func(workers, n int, work Work, receive func(int)) {
		s := stream.New().WithMaxGoroutines(workers)
		for task := range n {
			s.Go(func() stream.Callback {
				r := work(task)
				return func() { receive(r) }
			})
		}
		s.Wait()
	}},
	{"conc-Map", func(workers, n int, work Work, receive func(int)) {
		m := conciter.Mapper[int, int]{MaxGoroutines: workers}
		for _, r := range m.Map(slice(n), func(task *int) int { return work(*task) }) {
			receive(r)
		}
	}},
	{"errgroup", func(workers, n int, work Work, receive func(int)) {
		var group errgroup.Group
		group.SetLimit(workers)
		results := make([]int, n)
		for task := range n {
			group.Go(func() error {
				results[task] = work(task)
				return nil
			})
		}
		must(group.Wait())
		for _, r := range results {
			receive(r)
		}
	}},
}

// Callers are the implementations of question and answer.
var Callers = []Caller{
	{"workpool", func(workers int, work Work) (func(int) int, func()) {
		p := newPool(workers, work)
		return func(task int) int { return must1(p.Do(context.Background(), task)) }, func() { must(p.Close()) }
	}},
	{"channels", func(workers int, work Work) (func(int) int, func()) {
		type question struct {
			task  int
			reply chan int
		}
		questions := make(chan question, queue)
		replies := sync.Pool{New: func() any { return make(chan int, 1) }}
		var group sync.WaitGroup
		for range workers {
			group.Go(func() {
				for q := range questions {
					q.reply <- work(q.task)
				}
			})
		}
		return func(task int) int {
				reply := replies.Get().(chan int)
				questions <- question{task, reply}
				r := <-reply
				replies.Put(reply)
				return r
			}, func() {
				close(questions)
				group.Wait()
			}
	}},
	{"ants", func(workers int, work Work) (func(int) int, func()) {
		p := must1(ants.NewPool(workers))
		return func(task int) int {
			reply := make(chan int, 1)
			must(p.Submit(func() { reply <- work(task) }))
			return <-reply
		}, p.Release
	}},
	{"pond", func(workers int, work Work) (func(int) int, func()) {
		p := pond.NewResultPool[int](workers, pond.WithQueueSize(queue))
		return func(task int) int {
			return must1(p.Submit(func() int { return work(task) }).Wait())
		}, p.StopAndWait
	}},
	{"gammazero", func(workers int, work Work) (func(int) int, func()) {
		p := workerpool.New(workers)
		return func(task int) (r int) {
			p.SubmitWait(func() { r = work(task) })
			return r
		}, p.StopWait
	}},
}

// collectByChannels is the pool that one writes by hand.
func collectByChannels(workers, producers, n int, work Work, receive func(int)) {
	tasks, results := make(chan int, queue), make(chan int, queue)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for task := range tasks {
				results <- work(task)
			}
		})
	}
	produce(producers, n, func(task int) { tasks <- task }, func() {
		close(tasks)
		group.Wait()
		close(results)
	})
	for r := range results {
		receive(r)
	}
}

func newPool(workers int, work Work) *workpool.Pool[int, int] {
	return must1(workpool.New(func(_ context.Context, task int) (int, error) { return work(task), nil },
		workpool.WithWorkers(workers), workpool.WithQueueDepth(queue), workpool.WithResultBuffer(queue)))
}

// produce calls submit for the tasks 0 to n-1 on each of the producers, without
// waiting for them, and then ended, unless it is nil.
func produce(producers, n int, submit func(task int), ended func()) {
	var group sync.WaitGroup
	for range producers {
		group.Go(func() {
			for task := range n {
				submit(task)
			}
		})
	}
	if ended != nil {
		go func() {
			group.Wait()
			ended()
		}()
	}
}

// results is the channel that one gives a pool that has none.
type results struct {
	c chan int
	n int
}

func newResults(n int) results { return results{make(chan int, queue), n} }

func (r results) send(value int) { r.c <- value }

func (r results) receive(f func(int)) {
	for range r.n {
		f(<-r.c)
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

func slice(n int) []int {
	tasks := make([]int, n)
	for i := range tasks {
		tasks[i] = i
	}
	return tasks
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func must1[T any](value T, err error) T {
	must(err)
	return value
}
