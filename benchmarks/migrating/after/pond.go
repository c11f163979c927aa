package after

import (
	"context"

	"github.com/seed-a18b2dc9/workpool"
)

// FetchGroup fetches pages that belong together, on a pool that others use too.
func FetchGroup(
	ctx context.Context,
	pool *workpool.Pool[string, string], urls []string,
) ([]string, error) {
	group := pool.Group(ctx)
	for _, url := range urls {
		if group.Submit(url) != nil {
			break // Wait says why
		}
	}
	return group.Wait()
}

// Compare fetches a page while it reads the copy of it.
func Compare(
	ctx context.Context,
	pool *workpool.Pool[string, string], url string,
	readCopy func() string,
) (same bool, err error) {
	future := pool.DoChan(ctx, url)
	here := readCopy()
	there := <-future
	return here == there.Value, there.Err
}
