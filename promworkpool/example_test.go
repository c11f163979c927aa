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
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

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
	if err := metrics.Add(pool); err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

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

// A trace ID leads from a slow bucket of a histogram to one of its tasks.
func ExampleWithExemplar() {
	type traceID struct{} // with OpenTelemetry, take it from trace.SpanContextFromContext(ctx)
	metrics, err := promworkpool.New(promworkpool.WithExemplar(func(ctx context.Context) prometheus.Labels {
		id, sampled := ctx.Value(traceID{}).(string)
		if !sampled {
			return nil
		}
		return prometheus.Labels{"trace_id": id}
	}))
	if err != nil {
		log.Fatal(err)
	}
	pool, err := workpool.New(workpool.Call[int], workpool.WithName("traced"), workpool.WithObserver(metrics.Observer()))
	if err != nil {
		log.Fatal(err)
	}
	if err := metrics.Add(pool); err != nil {
		log.Fatal(err)
	}

	ctx := context.WithValue(context.Background(), traceID{}, "4bf92f3577b34da6a3ce929d0e0e4736")
	fmt.Println(pool.Do(ctx, func(context.Context) (int, error) { return 42, nil }))
	if err := pool.Close(); err != nil {
		log.Fatal(err)
	}

	exposed, err := testutil.CollectAndFormat(metrics, expfmt.TypeOpenMetrics, "workpool_task_run_seconds")
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(string(exposed)) {
		if _, exemplar, ok := strings.Cut(line, " # "); ok {
			labels, _, _ := strings.Cut(exemplar, " ")
			fmt.Println(labels)
		}
	}

	// Output:
	// 42 <nil>
	// {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"}
}
