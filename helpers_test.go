package workpool_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// mustNew returns a pool, which the test closes.
func mustNew[T, R any](t testing.TB, handler workpool.Handler[T, R], opts ...workpool.Option) *workpool.Pool[T, R] {
	t.Helper()
	p, err := workpool.New(handler, opts...)
	require.NoError(t, err)
	return p
}

// collect receives results until they end.
func collect[T, R any](p *workpool.Pool[T, R]) []workpool.Result[T, R] {
	var results []workpool.Result[T, R]
	for r := range p.Results() {
		results = append(results, r)
	}
	return results
}

// closed closes the pool and expects no error.
func closed(t testing.TB, p interface{ Close() error }) {
	t.Helper()
	require.NoError(t, p.Close())
}

// identity is the handler of tests that are not about handlers.
func identity(_ context.Context, n int) (int, error) { return n, nil }

// gate is a handler that tells of each task that it has begun, and ends them
// one by one, or all when it is closed.
type gate struct{ began, end chan int }

func newGate() gate { return gate{began: make(chan int), end: make(chan int)} }

func (g gate) handle(_ context.Context, n int) (int, error) {
	g.began <- n
	<-g.end
	return n, nil
}
