package otelworkpool_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/otelworkpool"
)

// BenchmarkTask is the time of a task that does nothing, by what it is reported to.
func BenchmarkTask(b *testing.B) {
	meters := otelworkpool.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader())))
	noMeters := otelworkpool.WithMeterProvider(metricnoop.NewMeterProvider())
	noTraces := otelworkpool.WithTracerProvider(tracenoop.NewTracerProvider())
	for _, c := range []struct {
		name string
		opts func(b *testing.B) []workpool.Option
	}{
		{"none", func(*testing.B) []workpool.Option { return nil }},
		{"noop", func(*testing.B) []workpool.Option {
			return []workpool.Option{workpool.WithObserver(otelworkpool.Observer(noTraces, noMeters))}
		}},
		{"metrics", func(*testing.B) []workpool.Option {
			return []workpool.Option{workpool.WithObserver(otelworkpool.Observer(noTraces, meters))}
		}},
		{"unsampled", func(b *testing.B) []workpool.Option { return traced(b, meters, sdktrace.NeverSample()) }},
		{"sampled", func(b *testing.B) []workpool.Option { return traced(b, meters, sdktrace.AlwaysSample()) }},
	} {
		b.Run("to="+c.name, func(b *testing.B) {
			opts := append(c.opts(b), workpool.WithName("pool"), workpool.WithWorkers(2), workpool.WithoutResults())
			p := mustNew(b, double, opts...)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Submit(ctx, 1); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, p.Wait(ctx))
		})
	}
}

// traced is the option of a pool whose spans are exported in batches to nowhere.
func traced(b *testing.B, meters otelworkpool.Option, sampler sdktrace.Sampler) []workpool.Option {
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithBatcher(nowhere{}))
	b.Cleanup(func() { require.NoError(b, provider.Shutdown(context.Background())) })
	return []workpool.Option{
		workpool.WithObserver(otelworkpool.Observer(otelworkpool.WithTracerProvider(provider), meters)),
	}
}

type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                             { return nil }
