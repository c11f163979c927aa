package after

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/seed-a18b2dc9/workpool"
)

// FetchResults returns all pages, or the first error.
func FetchResults(
	ctx context.Context, urls []string, fetch Fetch,
) ([]string, error) {
	return workpool.Map(ctx, urls, fetch,
		workpool.WithWorkers(8))
}

// SendAllAndCollect sends everything, and returns all errors.
func SendAllAndCollect(
	ctx context.Context, mails iter.Seq[string],
	send Send,
) error {
	pool, err := workpool.New(workpool.NoValue(send),
		workpool.WithWorkers(8))
	if err != nil {
		return err
	}
	var errs []error
	for r := range pool.Stream(ctx, mails) {
		errs = append(errs, r.Err)
	}
	return errors.Join(append(errs, pool.Close())...)
}

// PrintAll prints pages in the order of their addresses.
func PrintAll(
	ctx context.Context, urls iter.Seq[string],
	fetch Fetch, print func(page string, err error),
) error {
	pool, err := workpool.New(fetch,
		workpool.WithWorkers(8),
		workpool.WithOrdered())
	if err != nil {
		return err
	}
	for r := range pool.Stream(ctx, urls) {
		print(r.Value, r.Err)
	}
	return pool.Close()
}

// RunSafely runs jobs and returns a panic as an error.
func RunSafely(jobs []func()) error {
	call := func(_ context.Context, job func()) error {
		job()
		return nil
	}
	ctx := context.Background()
	return workpool.ForEach(ctx, slices.Values(jobs), call,
		workpool.WithWorkers(8))
}
