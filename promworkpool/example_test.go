package promworkpool_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/promworkpool"
)

func Example() {
	metrics, err := promworkpool.New()
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry() // or prometheus.DefaultRegisterer, which has the metrics of Go too
	registry.MustRegister(metrics)

	length := func(_ context.Context, word string) (int, error) { return len(word), nil }
	pool, err := workpool.New(length,
		workpool.WithName("words"),
		workpool.WithObserver(metrics.Observer()))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if err := metrics.Add(pool); err != nil {
		log.Fatal(err)
	}

	fmt.Println(pool.Map(context.Background(), []string{"to", "be", "counted"}))

	// A server has http.Handle("/metrics", handler). Here is what Prometheus gets from it.
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	response := httptest.NewRecorder()
	handler.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(response.Body.String()) {
		if strings.HasPrefix(line, "workpool_tasks_total") || strings.Contains(line, "run_seconds_count") {
			fmt.Print(line)
		}
	}

	// Output:
	// [2 2 7] <nil>
	// workpool_task_run_seconds_count{pool="words"} 3
	// workpool_tasks_total{outcome="aborted",pool="words"} 0
	// workpool_tasks_total{outcome="cancelled",pool="words"} 0
	// workpool_tasks_total{outcome="dropped",pool="words"} 0
	// workpool_tasks_total{outcome="failed",pool="words"} 0
	// workpool_tasks_total{outcome="panicked",pool="words"} 0
	// workpool_tasks_total{outcome="succeeded",pool="words"} 3
}

// The ID of a trace leads from a slow bucket of a histogram to one of its tasks. With
// OpenTelemetry it comes from the span of the context.
func ExampleWithExemplar() {
	type traceID struct{}
	metrics, err := promworkpool.New(promworkpool.WithExemplar(func(ctx context.Context) prometheus.Labels {
		// span := trace.SpanContextFromContext(ctx)
		// if !span.IsSampled() {
		// 	return nil
		// }
		// return prometheus.Labels{"trace_id": span.TraceID().String()}
		id, ok := ctx.Value(traceID{}).(string)
		if !ok {
			return nil
		}
		return prometheus.Labels{"trace_id": id}
	}))
	fmt.Println(metrics != nil, err)
	// Output: true <nil>
}
