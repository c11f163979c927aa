package promworkpool_test

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/promworkpool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFailed = errors.New("failed")

func newCollector(t testing.TB, opts ...promworkpool.Option) *promworkpool.Collector {
	t.Helper()
	c, err := promworkpool.New(opts...)
	require.NoError(t, err)
	return c
}

// newPool returns a pool of functions that c observes and collects.
func newPool(t testing.TB, c *promworkpool.Collector, name string, opts ...workpool.Option) *workpool.Pool[workpool.Func[int], int] {
	t.Helper()
	p, err := workpool.New(workpool.Call[int],
		append(opts, workpool.WithName(name), workpool.WithoutResults(), workpool.WithObserver(c.Observer()))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	require.NoError(t, c.Add(p))
	return p
}

func succeed(context.Context) (int, error) { return 1, nil }

// A snapshot is a Pool whose Stats are what it says.
type snapshot workpool.Stats

func (s snapshot) Stats() workpool.Stats { return workpool.Stats(s) }

// gather returns the metric families that c has, by name.
func gather(t testing.TB, c prometheus.Collector) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	gathered, err := registry.Gather()
	require.NoError(t, err)
	families := map[string]*dto.MetricFamily{}
	for _, f := range gathered {
		families[f.GetName()] = f
	}
	return families
}

// label returns the value of a label of m.
func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// histogram returns the histogram with the given name of a pool, or nil.
func histogram(t testing.TB, c prometheus.Collector, name, pool string) *dto.Histogram {
	t.Helper()
	for _, m := range gather(t, c)[name].GetMetric() {
		if label(m, "pool") == pool {
			return m.GetHistogram()
		}
	}
	return nil
}
