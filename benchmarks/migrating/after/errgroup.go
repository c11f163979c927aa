package after

import (
	"context"
	"iter"

	"github.com/seed-a18b2dc9/workpool"
)

// FetchAll returns all pages in the order of their addresses, or the first error.
func FetchAll(
	ctx context.Context, urls []string, fetch Fetch,
) ([]string, error) {
	return workpool.Map(ctx, urls, fetch,
		workpool.WithWorkers(8))
}

// SendAll sends everything, or stops at the first error.
func SendAll(
	ctx context.Context, mails iter.Seq[string],
	send Send,
) error {
	return workpool.ForEach(ctx, mails, send,
		workpool.WithWorkers(8))
}
