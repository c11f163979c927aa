package otelworkpool_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/otelworkpool"
)

func thumbnail(_ context.Context, photo string) (string, error) { return "small-" + photo, nil }

// What the caller waits for is a child of the caller's span; what it submits has a link to it. A
// program that has set the global providers needs no options.
func ExampleObserver() {
	exporter := tracetest.NewInMemoryExporter() // in a program, one that sends to a collector
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))

	pool, err := workpool.New(thumbnail,
		workpool.WithName("thumbnails"),
		workpool.WithoutResults(),
		workpool.WithObserver(otelworkpool.Observer(otelworkpool.WithTracerProvider(provider))))
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, request := provider.Tracer("example").Start(context.Background(), "POST /photos")
	_, called := pool.Do(ctx, "cat.jpg")
	submitted := pool.Submit(ctx, "dog.jpg")
	fmt.Println(called, submitted, pool.Close())

	for _, span := range exporter.GetSpans() {
		switch id := request.SpanContext().SpanID(); {
		case span.Parent.SpanID() == id:
			fmt.Println(span.Name, "is a child")
		case span.Links[0].SpanContext.SpanID() == id:
			fmt.Println(span.Name, "has a link")
		}
	}
	// Output:
	// <nil> <nil> <nil>
	// thumbnails is a child
	// thumbnails has a link
}

// Register reports how many workers there are and what they do, what is queued, and how tasks
// ended.
func ExampleRegister() {
	reader := metric.NewManualReader() // in a program, a PeriodicReader with an exporter
	provider := metric.NewMeterProvider(metric.WithReader(reader))

	pool, err := workpool.New(thumbnail, workpool.WithName("thumbnails"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	if _, err := otelworkpool.Register(pool, otelworkpool.WithMeterProvider(provider)); err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(pool.Do(context.Background(), "cat.jpg"))

	var collected metricdata.ResourceMetrics
	fmt.Println(reader.Collect(context.Background(), &collected))
	for _, m := range collected.ScopeMetrics[0].Metrics {
		if m.Name == "workpool.task.completed" {
			for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
				fmt.Println(point.Attributes.Encoded(attribute.DefaultEncoder()), point.Value)
			}
		}
	}
	// Unordered output:
	// small-cat.jpg <nil>
	// <nil>
	// workpool.name=thumbnails,workpool.task.outcome=success 1
	// workpool.name=thumbnails,workpool.task.outcome=error 0
}
