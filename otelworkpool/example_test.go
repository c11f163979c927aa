package otelworkpool_test

import (
	"context"
	"fmt"
	"log"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/otelworkpool"
)

func thumbnail(_ context.Context, photo string) (string, error) { return "small-" + photo, nil }

// A call is a child of the span of its caller. A program that has set the global providers needs
// no options.
func ExampleObserver() {
	exporter := tracetest.NewInMemoryExporter() // in a program, one that sends to a collector
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))

	pool, err := workpool.New(thumbnail,
		workpool.WithName("thumbnails"),
		workpool.WithObserver(otelworkpool.Observer(otelworkpool.WithTracerProvider(provider))))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	ctx, request := provider.Tracer("example").Start(context.Background(), "GET /gallery")
	if _, err := pool.Map(ctx, []string{"cat.jpg", "dog.jpg"}); err != nil {
		log.Fatal(err)
	}
	request.End()

	for _, span := range exporter.GetSpans() {
		fmt.Println(span.Name, span.Parent.SpanID() == request.SpanContext().SpanID())
	}
	// Output:
	// thumbnails true
	// thumbnails true
	// GET /gallery false
}

// Register reports how many workers there are and what they do, what is queued, and how tasks
// ended.
func ExampleRegister() {
	reader := metric.NewManualReader() // in a program, a PeriodicReader with an exporter
	provider := metric.NewMeterProvider(metric.WithReader(reader))

	pool, err := workpool.New(thumbnail, workpool.WithName("thumbnails"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if _, err := otelworkpool.Register(pool, otelworkpool.WithMeterProvider(provider)); err != nil {
		log.Fatal(err)
	}

	if _, err := pool.Do(context.Background(), "cat.jpg"); err != nil {
		log.Fatal(err)
	}

	var collected metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &collected); err != nil {
		log.Fatal(err)
	}
	for _, m := range collected.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "workpool.task.completed" {
			for _, point := range sum.DataPoints {
				fmt.Println(point.Attributes.Encoded(attribute.DefaultEncoder()), point.Value)
			}
		}
	}
	// Unordered output:
	// workpool.name=thumbnails,workpool.task.outcome=success 1
	// workpool.name=thumbnails,workpool.task.outcome=error 0
}
