package queues

import (
	"context"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// startJobqueue has the embedded server, in files, which it syncs each 100 ms, and a
// connection each to submit and to work, over TCP like those to Redis. WithConcurrency
// is what the README of jobqueue asks for where handlers are trivial; all else is as it
// comes.
func startJobqueue(b *testing.B, handle func(job)) running {
	ctx := b.Context()
	server, err := embedded.Start(b.TempDir(), embedded.WithListen("127.0.0.1:0"))
	require.NoError(b, err)
	b.Cleanup(server.Shutdown)
	open := func() *jobqueue.Queue[job, job] {
		nc, err := nats.Connect(server.URL())
		require.NoError(b, err)
		b.Cleanup(nc.Close)
		queue, err := jobqueue.Open[job, job](ctx, nc, "bench")
		require.NoError(b, err)
		return queue
	}
	queue := open()
	worker, err := open().Work(ctx, func(_ context.Context, j job) (job, error) {
		handle(j)
		return j, nil
	}, jobqueue.WithConcurrency(512))
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, worker.Shutdown(context.Background())) })
	return running{
		submit: func(jobs []job) error {
			_, err := queue.SubmitAll(ctx, slices.Values(jobs))
			return err
		},
		stored: func() (int, error) {
			stats, err := queue.Stats(ctx)
			return int(stats.Results) - int(stats.InFlight), err // without those not yet acknowledged
		},
	}
}
