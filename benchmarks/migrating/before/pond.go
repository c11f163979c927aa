package before

import (
	"context"

	"github.com/alitto/pond/v2"
)

// FetchGroup fetches pages that belong together, on a pool that others use too.
func FetchGroup(
	ctx context.Context, pool pond.ResultPool[string],
	urls []string, fetch Fetch,
) ([]string, error) {
	group := pool.NewGroupContext(ctx)
	for _, url := range urls {
		group.SubmitErr(func() (string, error) {
			return fetch(ctx, url)
		})
	}
	return group.Wait()
}

// Compare fetches a page while it reads the copy of it.
func Compare(
	ctx context.Context, pool pond.ResultPool[string],
	url string, fetch Fetch,
	readCopy func() string,
) (same bool, err error) {
	future := pool.SubmitErr(func() (string, error) {
		return fetch(ctx, url)
	})
	here := readCopy()
	there, err := future.Wait()
	return here == there, err
}
