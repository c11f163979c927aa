package before

import (
	"context"
	"iter"

	"golang.org/x/sync/errgroup"
)

// FetchAll returns all pages in the order of their addresses, or the first error.
func FetchAll(
	ctx context.Context, urls []string, fetch Fetch,
) ([]string, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	pages := make([]string, len(urls))
	for i, url := range urls {
		group.Go(func() (err error) {
			pages[i], err = fetch(ctx, url)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return pages, nil
}

// SendAll sends everything, or stops at the first error.
func SendAll(
	ctx context.Context, mails iter.Seq[string],
	send Send,
) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for mail := range mails {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return send(ctx, mail) })
	}
	return group.Wait()
}
