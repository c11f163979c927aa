package otelworkpool_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/otelworkpool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFailed = errors.New("failed")

// A telemetry is an SDK that keeps what it gets.
type telemetry struct {
	t      testing.TB
	spans  *tracetest.SpanRecorder
	traces *sdktrace.TracerProvider
	reader *metric.ManualReader
	meters *metric.MeterProvider
}

func newTelemetry(t testing.TB, opts ...sdktrace.TracerProviderOption) *telemetry {
	s, r := tracetest.NewSpanRecorder(), metric.NewManualReader()
	return &telemetry{
		t: t, spans: s, traces: sdktrace.NewTracerProvider(append(opts, sdktrace.WithSpanProcessor(s))...),
		reader: r, meters: metric.NewMeterProvider(metric.WithReader(r)),
	}
}

// options returns those that report to the SDK, and more.
func (to *telemetry) options(more ...otelworkpool.Option) []otelworkpool.Option {
	return append([]otelworkpool.Option{
		otelworkpool.WithTracerProvider(to.traces), otelworkpool.WithMeterProvider(to.meters),
	}, more...)
}

// observed is the option of a pool that is observed.
func (to *telemetry) observed(more ...otelworkpool.Option) workpool.Option {
	return workpool.WithObserver(otelworkpool.Observer(to.options(more...)...))
}

// caller returns a context with a span.
func (to *telemetry) caller() (context.Context, trace.Span) {
	return to.traces.Tracer("test").Start(to.t.Context(), "caller")
}

// attempts returns the spans that have ended of pools, in the order in which they began.
func (to *telemetry) attempts() []sdktrace.ReadOnlySpan {
	to.t.Helper()
	var spans []sdktrace.ReadOnlySpan
	ended := map[trace.SpanID]bool{}
	for _, s := range to.spans.Ended() {
		assert.False(to.t, ended[s.SpanContext().SpanID()], "a span has ended twice")
		ended[s.SpanContext().SpanID()] = true
	}
	for _, s := range to.spans.Started() {
		if s.Name() != "caller" && assert.True(to.t, ended[s.SpanContext().SpanID()], "%s has not ended", s.Name()) {
			spans = append(spans, s)
		}
	}
	return spans
}

// named returns the one span of attempts with a name.
func (to *telemetry) named(name string) sdktrace.ReadOnlySpan {
	to.t.Helper()
	spans := to.attempts()
	i := slices.IndexFunc(spans, func(s sdktrace.ReadOnlySpan) bool { return s.Name() == name })
	require.GreaterOrEqual(to.t, i, 0, name)
	return spans[i]
}

// of returns the attributes of a span.
func of(s sdktrace.ReadOnlySpan) map[string]any { return values(s.Attributes()) }

func values(attributes []attribute.KeyValue) map[string]any {
	all := map[string]any{}
	for _, a := range attributes {
		all[string(a.Key)] = a.Value.AsInterface()
	}
	return all
}

// collect returns the metrics by their name.
func (to *telemetry) collect() map[string]metricdata.Metrics {
	to.t.Helper()
	var rm metricdata.ResourceMetrics
	assert.NoError(to.t, to.reader.Collect(context.Background(), &rm))
	all := map[string]metricdata.Metrics{}
	for _, scope := range rm.ScopeMetrics {
		assert.Equal(to.t, "github.com/seed-a18b2dc9/workpool/otelworkpool", scope.Scope.Name)
		for _, m := range scope.Metrics {
			all[m.Name] = m
		}
	}
	return all
}

// numbers returns the values of all series. They are named by their metric and attributes, as in
// "workpool.task.completed workpool.task.outcome=error"; of a histogram the count.
func (to *telemetry) numbers() map[string]int {
	to.t.Helper()
	all := map[string]int{}
	for name, m := range to.collect() {
		series := func(set attribute.Set) string {
			return name + " " + set.Encoded(attribute.DefaultEncoder())
		}
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				all[series(p.Attributes)] = int(p.Value)
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				all[series(p.Attributes)] = int(p.Count)
			}
		default:
			assert.Fail(to.t, "data of another kind", "%s: %T", name, data)
		}
	}
	return all
}

func mustNew[T, R any](t testing.TB, handler workpool.Handler[T, R], opts ...workpool.Option) *workpool.Pool[T, R] {
	t.Helper()
	p, err := workpool.New(handler, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	return p
}

// double is the handler of most tests.
func double(_ context.Context, n int) (int, error) { return 2 * n, nil }
