package otelworkpool_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/otelworkpool"
)

// expected is what the numbers should be of a pool with these Stats and workers.
func expected(s workpool.Stats, active, idle, held int) map[string]int {
	name := "workpool.name=" + s.Name
	return map[string]int{
		"workpool.worker.count " + name + ",workpool.worker.state=active":    active,
		"workpool.worker.count " + name + ",workpool.worker.state=idle":      idle,
		"workpool.worker.count " + name + ",workpool.worker.state=held":      held,
		"workpool.worker.limit " + name:                                      s.Size,
		"workpool.queue.size " + name:                                        s.Queued,
		"workpool.queue.capacity " + name:                                    s.QueueDepth,
		"workpool.caller.waiting " + name:                                    s.Waiting,
		"workpool.result.undelivered " + name:                                s.Undelivered,
		"workpool.task.submitted " + name:                                    int(s.Submitted),
		"workpool.task.completed " + name + ",workpool.task.outcome=success": int(s.Succeeded),
		"workpool.task.completed " + name + ",workpool.task.outcome=error":   int(s.Failed),
		"workpool.task.panicked " + name:                                     int(s.Panicked),
		"workpool.task.retried " + name:                                      int(s.Retried),
		"workpool.task.aborted workpool.abort.reason=closed," + name:         int(s.Aborted - s.Dropped - s.Cancelled),
		"workpool.task.aborted workpool.abort.reason=dropped," + name:        int(s.Dropped),
		"workpool.task.aborted workpool.abort.reason=cancelled," + name:      int(s.Cancelled),
		"workpool.task.rejected " + name:                                     int(s.Refused),
	}
}

func TestRegister_ReportsStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := newTelemetry(t)
		goOn := make(chan struct{})
		p := mustNew(t, func(_ context.Context, n int) (int, error) {
			<-goOn
			return n, nil
		}, workpool.WithName("pool"), workpool.WithWorkers(3), workpool.WithQueueDepth(2), workpool.WithResultBuffer(1))
		registered, err := otelworkpool.Register(p, to.options()...)
		require.NoError(t, err)
		assert.Equal(t, expected(p.Stats(), 0, 3, 0), to.numbers())

		require.NoError(t, p.Submit(t.Context(), 1))
		require.NoError(t, p.Submit(t.Context(), 2))
		synctest.Wait()
		assert.Equal(t, expected(p.Stats(), 2, 1, 0), to.numbers())

		for n := range 3 {
			require.NoError(t, p.Submit(t.Context(), n))
		}
		require.ErrorIs(t, p.TrySubmit(t.Context(), 6), workpool.ErrQueueFull)
		go func() { assert.NoError(t, p.Submit(t.Context(), 7)) }()
		synctest.Wait()
		numbers := to.numbers()
		assert.Equal(t, expected(p.Stats(), 3, 0, 0), numbers)
		assert.Equal(t, 2, numbers["workpool.queue.size workpool.name=pool"])
		assert.Equal(t, 1, numbers["workpool.caller.waiting workpool.name=pool"])
		assert.Equal(t, 1, numbers["workpool.task.rejected workpool.name=pool"])

		close(goOn) // one result has room
		synctest.Wait()
		assert.Equal(t, expected(p.Stats(), 0, 0, 3), to.numbers())

		require.NoError(t, p.Close())
		numbers = to.numbers()
		assert.Equal(t, expected(p.Stats(), 0, 0, 0), numbers)
		assert.Equal(t, 6, numbers["workpool.task.completed workpool.name=pool,workpool.task.outcome=success"])
		assert.Equal(t, 6, numbers["workpool.result.undelivered workpool.name=pool"])

		require.NoError(t, registered.Unregister())
		assert.Empty(t, to.numbers())
		require.NoError(t, registered.Unregister())
	})
}

// Of a handler that waits for a task in its place, both run: no worker is idle below zero.
func TestRegister_WorkersThatWaitForTheirOwnPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := newTelemetry(t)
		goOn := make(chan struct{})
		var p *workpool.Pool[int, int]
		p = mustNew(t, func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				<-goOn
				return 0, nil
			}
			return p.Do(ctx, n-1)
		}, workpool.WithName("pool"), workpool.WithWorkers(2))
		_, err := otelworkpool.Register(p, to.options()...)
		require.NoError(t, err)
		answer := p.DoChan(t.Context(), 5)
		synctest.Wait()
		assert.Equal(t, expected(p.Stats(), 2, 0, 0), to.numbers())
		close(goOn)
		require.NoError(t, (<-answer).Err)
	})
}

func TestRegister_SeveralPools(t *testing.T) {
	to := newTelemetry(t)
	for _, workers := range []int{1, 2} {
		_, err := otelworkpool.Register(mustNew(t, double, workpool.WithWorkers(workers)), to.options()...)
		require.NoError(t, err)
		named := mustNew(t, double, workpool.WithWorkers(workers), workpool.WithName(fmt.Sprintf("pool%d", workers)))
		_, err = otelworkpool.Register(named, to.options(otelworkpool.WithAttributes(
			attribute.String("tier", "gold"), attribute.String("workpool.name", "hidden")))...)
		require.NoError(t, err)
	}
	numbers := to.numbers()
	assert.Equal(t, 1, numbers["workpool.worker.limit tier=gold,workpool.name=pool1"])
	assert.Equal(t, 2, numbers["workpool.worker.limit tier=gold,workpool.name=pool2"])
	assert.Equal(t, 3, numbers["workpool.worker.limit "], "pools without a name are added up")
}

func TestRegister_RefusesNil(t *testing.T) {
	_, err := otelworkpool.Register(nil)
	assert.EqualError(t, err, "otelworkpool: Register(nil): pass a pool")
	_, err = otelworkpool.Register((*workpool.Pool[int, int])(nil))
	assert.EqualError(t, err, "otelworkpool: Register(nil): pass a pool")
}

// A fixed pool has Stats that do not change.
type fixed workpool.Stats

func (f fixed) Stats() workpool.Stats { return workpool.Stats(f) }

// global is an SDK, and the option of an observer that was made before it became the global one.
var global = sync.OnceValues(func() (*telemetry, workpool.Option) {
	none := []otelworkpool.Option{otelworkpool.WithMeterProvider(nil), nil, otelworkpool.WithTracerProvider(nil)}
	observed := workpool.WithObserver(otelworkpool.Observer(none...))
	if _, err := otelworkpool.Register(fixed{Size: 17}, none...); err != nil {
		panic(err)
	}
	to := newTelemetry(nil)
	otel.SetTracerProvider(to.traces)
	otel.SetMeterProvider(to.meters)
	return to, observed
})

func TestProviders_GlobalOnesMayComeLater(t *testing.T) {
	to, observed := global()
	to.t = t
	spans := len(to.attempts())
	ran := to.numbers()["workpool.task.run_time workpool.task.outcome=success"]
	_, err := workpool.Map(t.Context(), []int{1}, double, observed)
	require.NoError(t, err)
	assert.Len(t, to.attempts(), spans+1)
	assert.Equal(t, ran+1, to.numbers()["workpool.task.run_time workpool.task.outcome=success"])
	assert.Equal(t, 17, to.numbers()["workpool.worker.limit "])
}

func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := newTelemetry(t)
		p := mustNew(t, func(_ context.Context, n int) (int, error) {
			time.Sleep(20 * time.Millisecond)
			return n, nil
		}, workpool.WithName("pool"), workpool.WithWorkers(1), to.observed())
		ctx, caller := to.caller()
		_, err := p.Map(ctx, []int{1, 2, 3})
		require.NoError(t, err)

		for name, sum := range map[string]float64{"workpool.task.run_time": 0.06, "workpool.task.wait_time": 0.06} {
			m := to.collect()[name]
			assert.Equal(t, "s", m.Unit)
			points := m.Data.(metricdata.Histogram[float64]).DataPoints
			require.Len(t, points, 1)
			assert.Equal(t, uint64(3), points[0].Count)
			assert.InDelta(t, sum, points[0].Sum, 1e-9)
			assert.Equal(t, []float64{0.00001, 0.0001, 0.001}, points[0].Bounds[:3])
			require.NotEmpty(t, points[0].Exemplars)
			for _, e := range points[0].Exemplars {
				assert.Equal(t, caller.SpanContext().TraceID(), trace.TraceID(e.TraceID))
			}
		}
	})
}

// Many goroutines use several pools with one observer: each task has its span, and metrics and
// Stats agree.
func TestMetrics_AgreeWithStats(t *testing.T) {
	to := newTelemetry(t)
	observer := to.observed()
	handler := func(ctx context.Context, n int) (int, error) {
		switch info, _ := workpool.InfoFrom(ctx); {
		case n%7 == 0 && info.Attempt == 1:
			return n, workpool.RetryAfter(0, errFailed)
		case n%5 == 0:
			return n, errFailed
		case n%11 == 0:
			panic("boom")
		}
		return n, nil
	}
	var pools []*workpool.Pool[int, int]
	for i := range 3 {
		p := mustNew(t, handler, workpool.WithName(fmt.Sprintf("pool%d", i)), workpool.WithWorkers(4), workpool.WithQueueDepth(8),
			workpool.WithoutResults(), observer)
		_, err := otelworkpool.Register(p, to.options()...)
		require.NoError(t, err)
		pools = append(pools, p)
	}
	ctx, caller := to.caller()
	var wg sync.WaitGroup
	for _, p := range pools {
		for _, in := range []func(n int){
			func(n int) { assert.NoError(t, p.Submit(ctx, n)) },
			func(n int) { _ = p.TrySubmit(ctx, n) },
			func(n int) { _, _ = p.Do(ctx, n) },
			func(n int) { _, _ = p.Map(ctx, []int{n, n + 1, n + 2}) },
			func(n int) {
				for range p.Stream(ctx, slices.Values([]int{n, n + 1})) {
				}
			},
		} {
			wg.Go(func() {
				for n := range 100 {
					in(n)
				}
			})
		}
	}
	wg.Go(func() {
		for range 20 {
			to.numbers()
		}
	})
	wg.Wait()

	for _, p := range pools {
		require.NoError(t, p.Wait(t.Context()))
	}
	numbers := to.numbers()
	var spans uint64
	for _, p := range pools {
		s := p.Stats()
		for series, n := range expected(s, 0, s.Workers, 0) {
			assert.Equal(t, n, numbers[series], series)
		}
		name := "workpool.name=" + s.Name
		runTime := "workpool.task.run_time " + name + ",workpool.task.outcome="
		assert.Equal(t, int(s.Succeeded), numbers[runTime+"success"])
		assert.Equal(t, int(s.Failed), numbers[runTime+"error"])
		attempts := s.Succeeded + s.Failed + uint64(numbers[runTime+"retry"])
		assert.Equal(t, int(attempts), numbers["workpool.task.wait_time "+name])
		assert.GreaterOrEqual(t, uint64(numbers[runTime+"retry"]), s.Retried, "some were taken back instead")
		spans += attempts
	}
	all := to.attempts()
	assert.Len(t, all, int(spans))
	for _, span := range all {
		belongs(t, span, of(span)["workpool.task.way"].(string), caller.SpanContext())
	}
}

// README and package documentation name what is reported, and nothing else.
func TestDocumentation_NamesAllThatIsReported(t *testing.T) {
	to := newTelemetry(t)
	p := mustNew(t, func(ctx context.Context, n int) (int, error) {
		if info, _ := workpool.InfoFrom(ctx); info.Attempt == 1 {
			return n, workpool.RetryAfter(0, errFailed)
		}
		return n, nil
	}, workpool.WithName("pool"), to.observed())
	_, err := otelworkpool.Register(p, to.options()...)
	require.NoError(t, err)
	_, err = p.Do(t.Context(), 1)
	require.NoError(t, err)

	reported := map[string]bool{}
	for name, m := range to.collect() {
		reported[name] = true
		var attributes attribute.Set
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			attributes = data.DataPoints[0].Attributes
		case metricdata.Histogram[float64]:
			attributes = data.DataPoints[0].Attributes
		}
		for _, a := range attributes.ToSlice() {
			reported[string(a.Key)] = true
		}
	}
	for _, s := range to.attempts() {
		for name := range of(s) {
			if strings.HasPrefix(name, "workpool.") {
				reported[name] = true
			}
		}
	}
	for _, file := range []string{"doc.go", "README.md"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		named := map[string]bool{}
		for _, name := range regexp.MustCompile(`\bworkpool\.[a-z_]+[a-z_.]*[a-z]\b`).FindAllString(string(text), -1) {
			named[name] = true
		}
		assert.ElementsMatch(t, slices.Collect(maps.Keys(reported)), slices.Collect(maps.Keys(named)), file)
	}
}
