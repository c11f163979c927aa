package before

import (
	"context"
	"iter"
	"sync"
)

// CheckAll reports for each address whether its page can be fetched.
func CheckAll(
	ctx context.Context, urls iter.Seq[string],
	fetch Fetch, report func(url string, err error),
) error {
	type result struct {
		url string
		err error
	}
	tasks := make(chan string)
	results := make(chan result)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for url := range tasks {
				_, err := fetch(ctx, url)
				results <- result{url, err}
			}
		})
	}
	go func() {
		for url := range urls {
			tasks <- url
		}
		close(tasks)
		workers.Wait()
		close(results)
	}()
	for r := range results {
		report(r.url, r.err)
	}
	return nil
}

// NewFetcher returns a Fetch that runs no more than eight at once.
func NewFetcher(fetch Fetch) (
	limited Fetch, stop func() error, err error,
) {
	type answer struct {
		page string
		err  error
	}
	type question struct {
		ctx    context.Context
		url    string
		answer chan answer
	}
	questions := make(chan question, 128)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for q := range questions {
				page, err := fetch(q.ctx, q.url)
				q.answer <- answer{page, err}
			}
		})
	}
	limited = func(
		ctx context.Context, url string,
	) (string, error) {
		q := question{ctx, url, make(chan answer, 1)}
		select {
		case questions <- q:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		select {
		case a := <-q.answer:
			return a.page, a.err
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	stop = func() error {
		close(questions)
		workers.Wait()
		return nil
	}
	return limited, stop, nil
}
