package otelworkpool

import (
	"slices"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// scope is the name of the instrumentation.
const scope = "github.com/seed-a18b2dc9/workpool/otelworkpool"

// An Option sets one property of an [Observer] or of what [Register] reports. Where one is
// given twice, the last one holds. A nil Option is as if it were not there.
type Option interface {
	apply(c *config)
}

// config is what the options add up to.
type config struct {
	tracers    trace.TracerProvider
	meters     metric.MeterProvider
	attributes []attribute.KeyValue
	spanName   string
}

type optionFunc func(c *config)

func (f optionFunc) apply(c *config) { f(c) }

func newConfig(opts []Option) config {
	c := config{tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider()}
	for _, opt := range opts {
		if opt != nil {
			opt.apply(&c)
		}
	}
	return c
}

// of returns the attributes of what is reported of the pool with a name, followed by more.
func (c *config) of(pool string, more ...attribute.KeyValue) []attribute.KeyValue {
	attributes := make([]attribute.KeyValue, 0, len(c.attributes)+1+len(more))
	attributes = append(attributes, c.attributes...)
	if pool != "" {
		attributes = append(attributes, attribute.String("workpool.name", valid(pool)))
	}
	return append(attributes, more...)
}

// WithTracerProvider sets where spans come from. The default, and what nil stands for, is the
// global provider, otel.GetTracerProvider(). [Register] makes no spans.
func WithTracerProvider(provider trace.TracerProvider) Option {
	return optionFunc(func(c *config) {
		if provider == nil {
			provider = otel.GetTracerProvider()
		}
		c.tracers = provider
	})
}

// WithMeterProvider sets where metrics go. The default, and what nil stands for, is the global
// provider, otel.GetMeterProvider().
func WithMeterProvider(provider metric.MeterProvider) Option {
	return optionFunc(func(c *config) {
		if provider == nil {
			provider = otel.GetMeterProvider()
		}
		c.meters = provider
	})
}

// WithAttributes adds attributes to every span and every metric. Each combination of
// their values is a series of each metric of its own: let there be few. Those of this package go
// before those with the same key.
func WithAttributes(attributes ...attribute.KeyValue) Option {
	attributes = slices.Clone(attributes)
	return optionFunc(func(c *config) { c.attributes = attributes })
}

// WithSpanName sets the name of the spans. The default, and what an empty name stands for, is
// the name of the pool, or "workpool" for one without a name.
func WithSpanName(name string) Option {
	return optionFunc(func(c *config) { c.spanName = name })
}
