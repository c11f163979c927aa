package jobqueue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

type payload struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// jobs yields n jobs of some sixty bytes.
func jobs(n int) func(yield func(payload) bool) {
	return func(yield func(payload) bool) {
		for i := range n {
			if !yield(payload{ID: i, Name: fmt.Sprintf("some text %020d", i)}) {
				return
			}
		}
	}
}

// BenchmarkQueue submits jobs and runs them at the same time, on a server in the
// same process that stores in files. With way=jobqueue each job has an ID and a
// stored result, and is acknowledged when that is stored. Beside it, way=bare is a
// loop that publishes, fetches and acknowledges, with the same payloads, and has
// none of that. An operation is a job, from before it is submitted until it has
// been acknowledged.
func BenchmarkQueue(b *testing.B) {
	s := start(b, embedded.WithListen("127.0.0.1:0"))
	dial := func() *nats.Conn {
		if os.Getenv("TCP") == "" {
			return connect(b, s)
		}
		nc, err := nats.Connect(s.URL())
		require.NoError(b, err)
		b.Cleanup(nc.Close)
		return nc
	}
	nc, worker := dial(), dial()
	for _, bench := range []struct {
		way string
		run func(b *testing.B, nc, worker *nats.Conn, n int)
	}{{"bare", bare}, {"jobqueue", endToEnd}} {
		b.Run("way="+bench.way, func(b *testing.B) {
			b.ReportAllocs()
			bench.run(b, nc, worker, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

func endToEnd(b *testing.B, nc, worker *nats.Conn, n int) {
	name := fmt.Sprintf("bench%d", time.Now().UnixNano())
	q, err := jobqueue.Open[payload, payload](limit(b), nc, name)
	require.NoError(b, err)
	q2, err := jobqueue.Open[payload, payload](limit(b), worker, name)
	require.NoError(b, err)
	w, err := q2.Work(context.Background(), func(_ context.Context, p payload) (payload, error) { return p, nil }, jobqueue.WithConcurrency(512))
	require.NoError(b, err)
	b.ResetTimer()
	accepted, err := q.SubmitAll(limit(b), jobs(n))
	require.NoError(b, err)
	require.Equal(b, n, accepted)
	eventually(b, q, func(s jobqueue.Stats) bool { return s.Results == uint64(n) && s.InFlight == 0 })
	b.StopTimer()
	require.NoError(b, w.Shutdown(limit(b)))
}

// bare is the loop that one would write by hand, with the library's advice: many
// publishes on the way, and two fetches.
func bare(b *testing.B, nc, worker *nats.Conn, n int) {
	ctx := limit(b)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1024))
	require.NoError(b, err)
	name := fmt.Sprintf("bare%d", time.Now().UnixNano())
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Retention: jetstream.WorkQueuePolicy})
	require.NoError(b, err)
	_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "all", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	require.NoError(b, err)
	receiver, err := jetstream.New(worker)
	require.NoError(b, err)
	consumer, err := receiver.Consumer(ctx, name, "all")
	require.NoError(b, err)
	b.ResetTimer()
	acked := make(chan int)
	done, end := context.WithCancel(ctx)
	var fetchers sync.WaitGroup
	for range 2 {
		fetchers.Go(func() {
			for done.Err() == nil {
				batch, err := consumer.Fetch(256, jetstream.FetchMaxWait(time.Second))
				if err != nil {
					return
				}
				n := 0
				for msg := range batch.Messages() {
					var p payload
					if json.Unmarshal(msg.Data(), &p) == nil && msg.Ack() == nil {
						n++
					}
				}
				select {
				case acked <- n:
				case <-done.Done():
				}
			}
		})
	}
	go func() {
		for p := range jobs(n) {
			data, _ := json.Marshal(p)
			if _, err := js.PublishAsync(name, data, jetstream.WithStallWait(time.Minute)); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for n > 0 {
		select {
		case got := <-acked:
			n -= got
		case <-ctx.Done():
			b.Fatal("jobs are missing: ", n)
		}
	}
	b.StopTimer()
	end()
	fetchers.Wait()
	require.NoError(b, js.DeleteStream(ctx, name))
	js.CleanupPublisher()
}
