package jobqueue_test

import (
	"context"
	"crypto/rand"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// BenchmarkKept tells what a server keeps for each job: on its heap after a garbage
// collection, and in the files of the stream. what=results is for jobs that have ended
// with a result of 100 bytes, what=none the same with WithoutResults. what=queued is for
// jobs of 100 bytes that wait, with random IDs; in what=queued-ids they have IDs of 26
// bytes from WithID. The window of the IDs is over when it measures.
func BenchmarkKept(b *testing.B) {
	for _, bench := range []struct {
		what, stream string
		run          func(b *testing.B, q *jobqueue.Queue[string, string], job string)
		opts         []jobqueue.Option
	}{
		{"results", "_results", runAll, nil},
		{"none", "_results", runAll, []jobqueue.Option{jobqueue.WithoutResults()}},
		{"queued", "_jobs", submitEach, nil},
		{"queued-ids", "_jobs", func(b *testing.B, q *jobqueue.Queue[string, string], job string) {
			var submitters sync.WaitGroup
			const parallel = 64
			ctx := limit(b)
			for k := range parallel {
				submitters.Go(func() {
					for range (b.N + parallel - 1 - k) / parallel {
						if _, err := q.Submit(ctx, job, jobqueue.WithID(rand.Text())); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			submitters.Wait()
		}, nil},
	} {
		b.Run("what="+bench.what, func(b *testing.B) {
			dir := b.TempDir()
			s, err := embedded.Start(dir)
			require.NoError(b, err)
			b.Cleanup(s.Shutdown)
			q := openOn[string, string](b, connect(b, s), append(bench.opts, jobqueue.WithDedupeWindow(time.Second))...)
			before := leastHeap()
			bench.run(b, q, strings.Repeat("x", 98)) // and the quotes of JSON
			b.StopTimer()
			b.ReportMetric(float64(leastHeap()-before)/float64(b.N), "heap-B/job")
			b.ReportMetric(float64(sizeOf(b, dir, bench.stream))/float64(b.N), "disk-B/job")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func submitEach(b *testing.B, q *jobqueue.Queue[string, string], job string) {
	b.Helper()
	_, err := q.SubmitAll(limit(b), slices.Values(slices.Repeat([]string{job}, b.N)))
	require.NoError(b, err)
}

func runAll(b *testing.B, q *jobqueue.Queue[string, string], job string) {
	b.Helper()
	w, err := q.Work(context.Background(), func(_ context.Context, s string) (string, error) { return s, nil }, jobqueue.WithConcurrency(512))
	require.NoError(b, err)
	submitEach(b, q, job)
	eventually(b, q, func(s jobqueue.Stats) bool { return s.Pending+s.InFlight == 0 })
	require.NoError(b, w.Shutdown(limit(b)))
}

// leastHeap returns the least of what is on the heap in the next half minute, in which
// the server gives up what it holds only for a while. With -short it looks at a second.
func leastHeap() int64 {
	patience := 30 * time.Second
	if testing.Short() {
		patience = time.Second
	}
	least := int64(1 << 62)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Second) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		least = min(least, int64(m.HeapAlloc))
	}
	return least
}

// sizeOf returns the bytes in the files of a stream.
func sizeOf(b *testing.B, dir, stream string) (size int64) {
	b.Helper()
	require.NoError(b, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.Contains(path, stream+string(filepath.Separator)) {
			info, err := entry.Info()
			if err != nil {
				return err
			}
			size += info.Size()
		}
		return err
	}))
	return size
}
