package before

import (
	"context"
	"iter"

	"github.com/sourcegraph/conc/panics"
	"github.com/sourcegraph/conc/pool"
	"github.com/sourcegraph/conc/stream"
)

// FetchResults returns all pages, or the first error.
func FetchResults(
	ctx context.Context, urls []string, fetch Fetch,
) ([]string, error) {
	p := pool.NewWithResults[string]().
		WithMaxGoroutines(8).
		WithContext(ctx).
		WithCancelOnError().
		WithFirstError()
	for _, url := range urls {
		p.Go(func(ctx context.Context) (string, error) {
			return fetch(ctx, url)
		})
	}
	return p.Wait()
}

// SendAllAndCollect sends everything, and returns all errors.
func SendAllAndCollect(
	ctx context.Context, mails iter.Seq[string],
	send Send,
) error {
	p := pool.New().WithErrors().WithMaxGoroutines(8)
	for mail := range mails {
		p.Go(func() error { return send(ctx, mail) })
	}
	return p.Wait()
}

// PrintAll prints pages in the order of their addresses.
func PrintAll(
	ctx context.Context, urls iter.Seq[string],
	fetch Fetch, print func(page string, err error),
) error {
	s := stream.New().WithMaxGoroutines(8)
	for url := range urls {
		s.Go(func() stream.Callback {
			page, err := fetch(ctx, url)
			return func() { print(page, err) }
		})
	}
	s.Wait()
	return nil
}

// RunSafely runs jobs and returns a panic as an error.
func RunSafely(jobs []func()) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = v.(*panics.Recovered).AsError()
		}
	}()
	p := pool.New().WithMaxGoroutines(8)
	for _, job := range jobs {
		p.Go(job)
	}
	p.Wait()
	return nil
}
