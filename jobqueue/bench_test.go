package jobqueue_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
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
// stored result, and is acknowledged when that is stored. Beside it are two loops as
// one would write them with the library: way=bare publishes, fetches and acknowledges
// the same payloads, and way=results does all that the queue has to do, with IDs and
// stored results. An operation is a job, from before it is submitted until it has
// been acknowledged.
func BenchmarkQueue(b *testing.B) {
	s := start(b, embedded.WithListen("127.0.0.1:0"), embedded.WithSyncInterval(100*time.Millisecond)) // the default
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
	}{{"bare", bare}, {"results", bareWithResults}, {"jobqueue", func(b *testing.B, nc, worker *nats.Conn, n int) { endToEnd(b, nc, worker, n, func(int) {}) }}} {
		b.Run("way="+bench.way, func(b *testing.B) {
			b.ReportAllocs()
			bench.run(b, nc, worker, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

// endToEnd runs n jobs, and calls submitting before each is submitted.
func endToEnd(b *testing.B, nc, worker *nats.Conn, n int, submitting func(job int)) {
	name := fmt.Sprintf("bench%d", time.Now().UnixNano())
	q, err := jobqueue.Open[payload, payload](limit(b), nc, name)
	require.NoError(b, err)
	q2, err := jobqueue.Open[payload, payload](limit(b), worker, name)
	require.NoError(b, err)
	w, err := q2.Work(context.Background(), func(_ context.Context, p payload) (payload, error) { return p, nil }, jobqueue.WithConcurrency(512))
	require.NoError(b, err)
	b.ResetTimer()
	accepted, err := q.SubmitAll(limit(b), func(yield func(payload) bool) {
		for p := range jobs(n) {
			submitting(p.ID)
			if !yield(p) {
				return
			}
		}
	})
	require.NoError(b, err)
	require.Equal(b, n, accepted)
	eventually(b, q, func(s jobqueue.Stats) bool { return s.Results == uint64(n) && s.InFlight == 0 })
	b.StopTimer()
	require.NoError(b, w.Shutdown(limit(b)))
}

// bare is the loop that one would write by hand, with the library's advice: many
// publishes on the way, and two fetches.
func bare(b *testing.B, nc, worker *nats.Conn, n int) { byHand(b, nc, worker, n, false) }

// bareWithResults is bare with all that the queue promises where nothing goes wrong:
// a job and its result are stored under an ID, and a job is acknowledged when its
// result has been.
func bareWithResults(b *testing.B, nc, worker *nats.Conn, n int) { byHand(b, nc, worker, n, true) }

func byHand(b *testing.B, nc, worker *nats.Conn, n int, withResults bool) {
	ctx := limit(b)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1024))
	require.NoError(b, err)
	name := fmt.Sprintf("bare%d", time.Now().UnixNano())
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Retention: jetstream.WorkQueuePolicy})
	require.NoError(b, err)
	_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "all", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	require.NoError(b, err)
	results, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name + "_results", Subjects: []string{name + ".results.*"}})
	require.NoError(b, err)
	receiver, err := jetstream.New(worker, jetstream.WithPublishAsyncMaxPending(1024))
	require.NoError(b, err)
	consumer, err := receiver.Consumer(ctx, name, "all")
	require.NoError(b, err)
	b.ResetTimer()
	acked := make(chan int)
	type result struct {
		job    jetstream.Msg
		future jetstream.PubAckFuture
	}
	stored := make(chan result, 1024)
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
					if json.Unmarshal(msg.Data(), &p) != nil {
						continue
					}
					if !withResults {
						if msg.Ack() == nil {
							n++
						}
						continue
					}
					id := msg.Headers().Get(jetstream.MsgIDHeader)
					data, _ := json.Marshal(p)
					future, err := receiver.PublishAsync(name+".results."+id, data, jetstream.WithMsgID(id), jetstream.WithStallWait(time.Minute))
					if err != nil {
						b.Error(err)
						return
					}
					stored <- result{msg, future}
				}
				select {
				case acked <- n:
				case <-done.Done():
				}
			}
		})
	}
	fetchers.Go(func() {
		for {
			select {
			case r := <-stored:
				select {
				case <-r.future.Ok():
				case <-done.Done():
				}
				if r.job.Ack() == nil {
					acked <- 1
				}
			case <-done.Done():
				return
			}
		}
	})
	go func() {
		for p := range jobs(n) {
			data, _ := json.Marshal(p)
			opts := []jetstream.PublishOpt{jetstream.WithStallWait(time.Minute)}
			if withResults {
				opts = append(opts, jetstream.WithMsgID(rand.Text()))
			}
			if _, err := js.PublishAsync(name, data, opts...); err != nil {
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
	if withResults {
		require.EqualValues(b, b.N, streamLength(b, results))
	}
	require.NoError(b, js.DeleteStream(ctx, name))
	require.NoError(b, js.DeleteStream(ctx, name+"_results"))
	js.CleanupPublisher()
	receiver.CleanupPublisher()
}

func streamLength(b *testing.B, stream jetstream.Stream) uint64 {
	b.Helper()
	info, err := stream.Info(limit(b))
	require.NoError(b, err)
	return info.State.Msgs
}

// BenchmarkHeap runs jobs as BenchmarkQueue does, with the server in a process of its
// own, and tells what the submitter and the worker hold in memory, after a garbage
// collection at the end of each fifth of the jobs. It should be the same each time.
func BenchmarkHeap(b *testing.B) {
	server := role{Dir: b.TempDir(), Listen: free(b)}
	p := spawn(b, server)
	p.awaitReady()
	nc, err := nats.Connect("nats://" + server.Listen)
	require.NoError(b, err)
	defer nc.Close()
	const fifths = 5
	var heap [fifths]uint64
	endToEnd(b, nc, nc, b.N, func(job int) {
		if fifth := (job + 1) * fifths / b.N; fifth > job*fifths/b.N {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heap[fifth-1] = m.HeapAlloc
		}
	})
	for i, bytes := range heap {
		b.ReportMetric(float64(bytes)/1e6, fmt.Sprintf("MB-after-%d/%d", i+1, fifths))
	}
}
