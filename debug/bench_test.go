package debug_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/debug"
)

// BenchmarkNew compares a pool that nobody observes with one whose observer does nothing and one
// that is on a page.
func BenchmarkNew(b *testing.B) {
	nothing := func(_ context.Context, n int) (int, error) { return n, nil }
	empty := workpool.WithObserver(workpool.Observer{End: func(context.Context, workpool.Event) {}})
	for _, workers := range []int{1, 8} {
		for _, pool := range []struct {
			name string
			page *debug.Page
			opts []workpool.Option
		}{
			{"plain", nil, nil},
			{"observed", nil, []workpool.Option{empty}},
			{"page", new(debug.Page), nil},
		} {
			b.Run(fmt.Sprintf("workers=%d/pool=%s", workers, pool.name), func(b *testing.B) {
				opts := append([]workpool.Option{workpool.WithWorkers(workers), workpool.WithoutResults()}, pool.opts...)
				p, err := debug.New(pool.page, nothing, opts...)
				require.NoError(b, err)
				for n := range b.N {
					if err := p.Submit(b.Context(), n); err != nil {
						b.Fatal(err)
					}
				}
				require.NoError(b, p.Shutdown(b.Context()))
			})
		}
	}
}
