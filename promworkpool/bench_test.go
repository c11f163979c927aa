package promworkpool_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/promworkpool"
)

// BenchmarkTask is a task that does nothing, from Submit until it has ended: without an observer,
// with one that does nothing, and with that of a Collector.
func BenchmarkTask(b *testing.B) {
	exemplar := promworkpool.WithExemplar(func(context.Context) prometheus.Labels {
		return prometheus.Labels{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}
	})
	nothing := workpool.Observer{
		Begin: func(context.Context, workpool.Event) context.Context { return nil },
		End:   func(context.Context, workpool.Event) {},
	}
	for _, bench := range []struct {
		name    string
		observe func(*promworkpool.Collector) []workpool.Option
		opts    []promworkpool.Option
	}{
		{"none", func(*promworkpool.Collector) []workpool.Option { return nil }, nil},
		{"empty", func(*promworkpool.Collector) []workpool.Option {
			return []workpool.Option{workpool.WithObserver(nothing)}
		}, nil},
		{"collector", observed, nil},
		{"native", observed, []promworkpool.Option{promworkpool.WithBuckets()}},
		{"exemplar", observed, []promworkpool.Option{exemplar}},
	} {
		b.Run("observer="+bench.name, func(b *testing.B) {
			c := newCollector(b, bench.opts...)
			do := func(context.Context, int) (int, error) { return 0, nil }
			pool, err := workpool.New(do, append(bench.observe(c), workpool.WithName("p"), workpool.WithoutResults())...)
			require.NoError(b, err)
			require.NoError(b, c.Add(pool))
			b.ReportAllocs()
			for b.Loop() {
				if err := pool.Submit(b.Context(), 1); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, pool.Shutdown(b.Context()))
		})
	}
}

func observed(c *promworkpool.Collector) []workpool.Option {
	return []workpool.Option{workpool.WithObserver(c.Observer())}
}

// BenchmarkScrape gathers the metrics of pools.
func BenchmarkScrape(b *testing.B) {
	for _, pools := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("pools=%d", pools), func(b *testing.B) {
			c := newCollector(b)
			for i := range pools {
				newPool(b, c, fmt.Sprint(i))
			}
			registry := prometheus.NewRegistry()
			require.NoError(b, registry.Register(c))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := registry.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
