package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

// printAll submits the tasks, closes the pool and prints the results.
func printAll[T, R any](p *workpool.Pool[T, R], tasks ...T) {
	for _, task := range tasks {
		if err := p.Submit(context.Background(), task); err != nil {
			fmt.Println(err)
		}
	}
	p.Close()
	for r := range p.Results() {
		fmt.Println(r.Task, r.Err)
	}
}

func ExampleWithOrdered() {
	var others sync.WaitGroup
	others.Add(2)
	firstEndsLast := func(_ context.Context, task string) (string, error) {
		if task == "first" {
			others.Wait()
		} else {
			others.Done()
		}
		return task, nil
	}
	p, err := workpool.New(firstEndsLast, workpool.WithWorkers(3), workpool.WithOrdered())
	if err != nil {
		fmt.Println(err)
		return
	}
	printAll(p, "first", "second", "third")
	// Output:
	// first <nil>
	// second <nil>
	// third <nil>
}

// The tasks of one account run one at a time, in order.
func ExampleWithKey() {
	type transfer struct {
		account string
		amount  int
	}
	balance := map[string]*int{"ann": new(int), "bob": new(int)}
	book := func(_ context.Context, t transfer) (int, error) {
		b := balance[t.account] // no other task of this account runs now
		if *b+t.amount < 0 {
			return *b, errors.New("not enough money")
		}
		*b += t.amount
		return *b, nil
	}
	p, err := workpool.New(book, workpool.WithWorkers(4),
		workpool.WithKey(func(t transfer) string { return t.account }))
	if err != nil {
		fmt.Println(err)
		return
	}
	printAll(p, transfer{"ann", 10}, transfer{"bob", 5}, transfer{"ann", -10}, transfer{"bob", -6})
	// Unordered output:
	// {ann 10} <nil>
	// {bob 5} <nil>
	// {ann -10} <nil>
	// {bob -6} not enough money
}

func ExampleWithPriority() {
	p, err := workpool.New(upper, workpool.WithWorkers(1), workpool.WithPriority(func(s string) workpool.Priority {
		switch {
		case strings.HasSuffix(s, "!"):
			return workpool.High
		case strings.HasSuffix(s, "..."):
			return workpool.Low
		}
		return workpool.Normal
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	p.Pause() // until all are queued
	printAll(p, "some day...", "today", "now!")
	// Output:
	// now! <nil>
	// today <nil>
	// some day... <nil>
}

func ExampleWithOverflow() {
	p, err := workpool.New(upper, workpool.WithWorkers(1), workpool.WithQueueDepth(2), workpool.WithOverflow(workpool.DropOldest))
	if err != nil {
		fmt.Println(err)
		return
	}
	p.Pause() // so that the queue fills
	printAll(p, "yesterday", "today", "tomorrow")
	// Unordered output:
	// yesterday workpool: task dropped
	// today <nil>
	// tomorrow <nil>
}

func ExampleWithElastic() {
	var all sync.WaitGroup
	all.Add(3)
	together := func(context.Context, int) (int, error) {
		all.Done()
		all.Wait() // for the other two, so that each has a worker
		return 0, nil
	}
	p, err := workpool.New(together, workpool.WithWorkers(100), workpool.WithoutResults(), workpool.WithElastic(0, time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Stats().Workers)
	for task := range 3 {
		if err := p.Submit(context.Background(), task); err != nil {
			fmt.Println(err)
		}
	}
	if err := p.Wait(context.Background()); err != nil {
		fmt.Println(err)
	}
	fmt.Println(p.Stats().Workers) // they leave after a minute
	p.Close()
	// Output:
	// 0
	// 3
}

func ExamplePool_SubmitCancel() {
	p, err := workpool.New(upper)
	if err != nil {
		fmt.Println(err)
		return
	}
	p.Pause()
	cancel, err := p.SubmitCancel(context.Background(), "never mind")
	if err != nil {
		fmt.Println(err)
		return
	}
	cancel()
	printAll(p)
	// Output:
	// never mind context canceled
}

// fetch succeeds at the third attempt.
func fetch(ctx context.Context, url string) (string, error) {
	if info, _ := workpool.InfoFrom(ctx); info.Attempt < 3 {
		return "", fmt.Errorf("attempt %d failed", info.Attempt)
	}
	return "the page", nil
}

func ExampleRetryAfter() {
	polite := func(ctx context.Context, url string) (string, error) {
		page, err := fetch(ctx, url)
		if err != nil {
			return "", workpool.RetryAfter(10*time.Millisecond, err) // as the server asked for
		}
		return page, nil
	}
	p, err := workpool.New(polite)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	page, err := p.Do(context.Background(), "https://example.com")
	fmt.Println(page, err, p.Stats().Retried)
	// Output:
	// the page <nil> 2
}

func ExampleRetry() {
	backoff := workpool.ExponentialBackoff(10*time.Millisecond, time.Second)
	p, err := workpool.New(workpool.Retry(fetch, 5, backoff))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	fmt.Println(p.Do(context.Background(), "https://example.com"))
	// Output:
	// the page <nil>
}

// A wrapper of your own, which logs every attempt.
func logged(next workpool.Handler[string, string], log *slog.Logger) workpool.Handler[string, string] {
	return func(ctx context.Context, url string) (string, error) {
		page, err := next(ctx, url)
		info, _ := workpool.InfoFrom(ctx)
		log.InfoContext(ctx, "fetch", "url", url, "attempt", info.Attempt, "err", err)
		return page, err
	}
}

// Handlers nest, the outermost first: each attempt is logged and has a second.
func ExampleRetry_nested() {
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	backoff := workpool.ExponentialBackoff(time.Millisecond, time.Second)
	handler := workpool.Retry(logged(workpool.Timeout(fetch, time.Second), log), 5, backoff)
	p, err := workpool.New(handler)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	fmt.Println(p.Do(context.Background(), "https://example.com"))
	// Output:
	// level=INFO msg=fetch url=https://example.com attempt=1 err="attempt 1 failed"
	// level=INFO msg=fetch url=https://example.com attempt=2 err="attempt 2 failed"
	// level=INFO msg=fetch url=https://example.com attempt=3 err=<nil>
	// the page <nil>
}
