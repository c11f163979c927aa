package after

import (
	"context"
	"iter"

	"github.com/seed-a18b2dc9/workpool"
)

// CheckAll reports for each address whether its page can be fetched.
func CheckAll(
	ctx context.Context, urls iter.Seq[string],
	fetch Fetch, report func(url string, err error),
) error {
	pool, err := workpool.New(fetch,
		workpool.WithWorkers(8))
	if err != nil {
		return err
	}
	for r := range pool.Stream(ctx, urls) {
		report(r.Task, r.Err)
	}
	return pool.Close()
}

// NewFetcher returns a Fetch that runs no more than eight at once.
func NewFetcher(fetch Fetch) (
	limited Fetch, stop func() error, err error,
) {
	pool, err := workpool.New(fetch,
		workpool.WithWorkers(8))
	if err != nil {
		return nil, nil, err
	}
	return pool.Do, pool.Close, nil
}
