package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

func upper(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil }

func Example() {
	ctx := context.Background()
	p, err := workpool.New(upper, workpool.WithWorkers(3))
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		for _, word := range []string{"goroutines", "channels", "simplicity"} {
			if err := p.Submit(ctx, word); err != nil {
				fmt.Println(err)
			}
		}
		if err := p.Shutdown(ctx); err != nil {
			fmt.Println(err)
		}
	}()
	for r := range p.Results() {
		fmt.Println(r.Index, r.Task, r.Value, r.Err)
	}
	// Unordered output:
	// 0 goroutines GOROUTINES <nil>
	// 1 channels CHANNELS <nil>
	// 2 simplicity SIMPLICITY <nil>
}

func ExampleNew_invalidOption() {
	_, err := workpool.New(upper, workpool.WithWorkers(0))
	fmt.Println(err)
	fmt.Println(errors.Is(err, workpool.ErrInvalidOption))
	// Output:
	// workpool: invalid option: WithWorkers(0): a pool has 1 to 16777216 workers
	// true
}

func ExampleCall() {
	p, err := workpool.New(workpool.Call[int])
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	n, err := p.Do(context.Background(), func(context.Context) (int, error) { return 6 * 7, nil })
	fmt.Println(n, err)
	// Output: 42 <nil>
}

func ExamplePool_TrySubmit() {
	p, err := workpool.New(upper, workpool.WithQueueDepth(1))
	if err != nil {
		fmt.Println(err)
		return
	}
	p.Pause() // so that the queue fills
	fmt.Println(p.TrySubmit(context.Background(), "accepted"))
	fmt.Println(p.TrySubmit(context.Background(), "one too many"))
	fmt.Println(p.Close())
	for r := range p.Results() {
		fmt.Println(r.Value)
	}
	// Output:
	// <nil>
	// workpool: queue is full
	// <nil>
	// ACCEPTED
}

func ExamplePool_SubmitAll() {
	p, err := workpool.New(upper, workpool.WithWorkers(1))
	if err != nil {
		fmt.Println(err)
		return
	}
	accepted, err := p.SubmitAll(context.Background(), slices.Values([]string{"a", "b", "c"}))
	fmt.Println(accepted, err, p.Close())
	for r := range p.Results() {
		fmt.Print(r.Value, " ")
	}
	// Output: 3 <nil> <nil>
	// A B C
}

// A task may submit tasks: with the context of its handler, that can't
// deadlock, not even here, with one worker and a queue of one.
func ExamplePool_Submit_recursion() {
	var p *workpool.Pool[int, int]
	p, err := workpool.New(func(ctx context.Context, depth int) (int, error) {
		for range 2 {
			if depth == 0 {
				break
			}
			if err := p.Submit(ctx, depth-1); err != nil {
				return 0, err
			}
		}
		return depth, nil
	}, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults())
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	fmt.Println(p.Submit(ctx, 5))
	fmt.Println(p.Wait(ctx)) // a closing pool would refuse tasks that tasks submit
	fmt.Println(p.Shutdown(ctx))
	fmt.Println(p.Stats().Succeeded)
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// 63
}

func ExamplePool_Do() {
	p, err := workpool.New(upper)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	fmt.Println(p.Do(ctx, "question"))
	// Output: QUESTION <nil>
}

func ExamplePool_DoChan() {
	p, err := workpool.New(upper)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	select {
	case r := <-p.DoChan(context.Background(), "question"):
		fmt.Println(r.Value, r.Err)
	case <-time.After(time.Minute):
		fmt.Println("too late")
	}
	// Output: QUESTION <nil>
}

func ExampleMap() {
	lengths, err := workpool.Map(context.Background(), []string{"one", "three", "eleven"},
		func(_ context.Context, s string) (int, error) { return len(s), nil })
	fmt.Println(lengths, err)
	// Output: [3 5 6] <nil>
}

func ExamplePool_Map() {
	p, err := workpool.New(func(_ context.Context, n int) (int, error) {
		if n == 0 {
			return 0, errors.New("division by zero")
		}
		return 100 / n, nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	fmt.Println(p.Map(context.Background(), []int{1, 2, 5}))
	fmt.Println(p.Map(context.Background(), []int{1, 0, 5}))
	// Output:
	// [100 50 20] <nil>
	// [] division by zero
}

func ExamplePool_Stream() {
	p, err := workpool.New(func(_ context.Context, n int) (int, error) {
		if n == 2 {
			panic("two")
		}
		return n * n, nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	for r := range p.Stream(context.Background(), slices.Values([]int{1, 2, 3})) {
		fmt.Println(r.Index, r.Task, r.Value, r.Err)
	}
	// Unordered output:
	// 0 1 1 <nil>
	// 1 2 0 workpool: panic: two
	// 2 3 9 <nil>
}

// Two pools in a row: the results of the first are the tasks of the second,
// including errors, and a slow second stage slows the first.
func ExamplePool_Stream_stages() {
	parse, err := workpool.New(func(_ context.Context, s string) (int, error) { return strconv.Atoi(s) })
	if err != nil {
		fmt.Println(err)
		return
	}
	defer parse.Close()
	square, err := workpool.New(func(_ context.Context, r workpool.Result[string, int]) (int, error) {
		return r.Value * r.Value, r.Err
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer square.Close()
	ctx := context.Background()
	for r := range square.Stream(ctx, parse.Stream(ctx, slices.Values([]string{"3", "four", "5"}))) {
		fmt.Println(r.Task.Task, r.Value, r.Err)
	}
	// Unordered output:
	// 3 9 <nil>
	// four 0 strconv.Atoi: parsing "four": invalid syntax
	// 5 25 <nil>
}

func ExamplePool_Results() {
	p, err := workpool.New(upper, workpool.WithWorkers(1))
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := p.SubmitAll(context.Background(), slices.Values([]string{"a", "b", "c"})); err != nil {
		fmt.Println(err)
	}
	for r := range p.Results() {
		fmt.Println("first range:", r.Value)
		break
	}
	fmt.Println(p.Close()) // needs no receiver
	for r := range p.Results() {
		fmt.Println("second range:", r.Value)
	}
	// Output:
	// first range: A
	// <nil>
	// second range: B
	// second range: C
}

func ExamplePool_Wait() {
	p, err := workpool.New(upper, workpool.WithoutResults())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	for _, word := range []string{"a", "b"} {
		if err := p.Submit(context.Background(), word); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(p.Wait(context.Background()))
	fmt.Println(p.Stats().Succeeded)
	// Output:
	// <nil>
	// 2
}

func ExamplePool_Shutdown() {
	started := make(chan struct{})
	p, err := workpool.New(func(ctx context.Context, _ string) (string, error) {
		close(started)
		<-ctx.Done() // a task without end
		return "", context.Cause(ctx)
	}, workpool.WithWorkers(1))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"running", "queued"} {
		if err := p.Submit(context.Background(), name); err != nil {
			fmt.Println(err)
		}
	}
	<-started
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	err = p.Shutdown(ctx)
	fmt.Println(err)
	fmt.Println(errors.Is(p.Close(), err)) // waits for the handler to return
	for r := range p.Results() {
		fmt.Println(r.Task, r.Worker, r.Err)
	}
	// Unordered output:
	// workpool: shutdown cut short: 1 queued tasks aborted, 1 still running: context deadline exceeded
	// true
	// queued 0 workpool: task aborted
	// running 1 workpool: task aborted
}

func ExampleInfoFrom() {
	p, err := workpool.New(func(ctx context.Context, _ string) (string, error) {
		info, _ := workpool.InfoFrom(ctx)
		return fmt.Sprintf("task %d on worker %d of %s", info.Index, info.Worker, info.Pool), nil
	}, workpool.WithWorkers(1), workpool.WithName("thumbnails"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	fmt.Println(p.Do(context.Background(), "a"))
	// Output: task 0 on worker 1 of thumbnails <nil>
}

func ExampleWithResultFunc() {
	p, err := workpool.New(upper, workpool.WithResultFunc(func(r workpool.Result[string, string]) {
		fmt.Println(r.Task, "->", r.Value)
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := p.Submit(context.Background(), "a"); err != nil {
		fmt.Println(err)
	}
	fmt.Println(p.Close())
	// Output:
	// a -> A
	// <nil>
}
