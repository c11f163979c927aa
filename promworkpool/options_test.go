package promworkpool_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/promworkpool"
)

func TestNew_Errors(t *testing.T) {
	for _, test := range []struct {
		option promworkpool.Option
		want   string
	}{
		{nil, "an Option is nil"},
		{promworkpool.WithBuckets(1, 1), "WithBuckets([1 1]): the bounds have to increase"},
		{promworkpool.WithBuckets(2, 1), "WithBuckets([2 1]): the bounds have to increase"},
		{promworkpool.WithBuckets(math.NaN()), "WithBuckets([NaN]): the bounds have to increase"},
		{promworkpool.WithExemplar(nil), "WithExemplar(nil): leave the option out for no exemplars"},
	} {
		_, err := promworkpool.New(test.option)
		assert.ErrorIs(t, err, workpool.ErrInvalidOption)
		assert.ErrorContains(t, err, test.want)
	}
}

func TestWithBuckets(t *testing.T) {
	for _, test := range []struct {
		name string
		opts []promworkpool.Option
		want int
	}{
		{"default", nil, 13},
		{"own", []promworkpool.Option{promworkpool.WithBuckets(1, 2, 3)}, 3},
		{"with infinity", []promworkpool.Option{promworkpool.WithBuckets(1, math.Inf(1))}, 1},
		{"none", []promworkpool.Option{promworkpool.WithBuckets()}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCollector(t, test.opts...)
			pool := newPool(t, c, "p")
			_, err := pool.Do(t.Context(), succeed)
			require.NoError(t, err)
			require.NoError(t, pool.Close())
			h := histogram(t, c, "workpool_task_run_seconds", "p")
			buckets := 0
			for _, b := range h.GetBucket() {
				if !math.IsInf(b.GetUpperBound(), 1) {
					buckets++
				}
			}
			assert.Equal(t, test.want, buckets)
			assert.NotEmpty(t, h.GetPositiveSpan(), "native buckets")
		})
	}
}

type traceKey struct{}

func traceOf(ctx context.Context) prometheus.Labels {
	if id, ok := ctx.Value(traceKey{}).(string); ok {
		return prometheus.Labels{"trace_id": id}
	}
	return nil
}

func TestWithExemplar_Context(t *testing.T) {
	c := newCollector(t, promworkpool.WithBuckets(), promworkpool.WithExemplar(traceOf))
	tracer := workpool.Observer{Begin: func(ctx context.Context, _ workpool.Event) context.Context {
		return context.WithValue(ctx, traceKey{}, "task's own")
	}}
	for name, opts := range map[string][]workpool.Option{
		"caller's":   nil,
		"task's own": {workpool.WithObserver(tracer)},
	} {
		pool := newPool(t, c, name, opts...)
		ctx := context.WithValue(t.Context(), traceKey{}, "caller's")
		require.NoError(t, pool.Submit(ctx, succeed))
		require.NoError(t, pool.Close())
		for _, of := range []string{"workpool_task_wait_seconds", "workpool_task_run_seconds"} {
			exemplars := histogram(t, c, of, name).GetExemplars()
			require.Len(t, exemplars, 1, of)
			assert.Equal(t, name, exemplars[0].GetLabel()[0].GetValue(), of)
		}
	}
}

func TestWithExemplar_Limits(t *testing.T) {
	for _, test := range []struct {
		name   string
		labels prometheus.Labels
		kept   bool
	}{
		{"nil", nil, false},
		{"empty", prometheus.Labels{}, false},
		{"one", prometheus.Labels{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}, true},
		{"without a value", prometheus.Labels{"trace_id": ""}, true},
		{"as long as may be", prometheus.Labels{"id": strings.Repeat("é", 126)}, true},
		{"too long", prometheus.Labels{"id": strings.Repeat("é", 127)}, false},
		{"too long in all", prometheus.Labels{"a": strings.Repeat("x", 64), "b": strings.Repeat("x", 63)}, false},
		{"no name", prometheus.Labels{"": "1"}, false},
		{"a name to be quoted", prometheus.Labels{"trace.id": "1"}, false},
		{"a reserved name", prometheus.Labels{"__trace": "1"}, false},
		{"a name that is not UTF-8", prometheus.Labels{"\xff": "1"}, false},
		{"a value that is not UTF-8", prometheus.Labels{"id": "\xff"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCollector(t, promworkpool.WithExemplar(func(context.Context) prometheus.Labels { return test.labels }))
			pool := newPool(t, c, "p")
			_, err := pool.Do(t.Context(), succeed)
			require.NoError(t, err)
			require.NoError(t, pool.Close())
			for _, of := range []string{"workpool_task_wait_seconds", "workpool_task_run_seconds"} {
				h := histogram(t, c, of, "p")
				assert.EqualValues(t, 1, h.GetSampleCount())
				assert.Equal(t, test.kept, len(h.GetExemplars()) == 1)
			}
		})
	}
}

func TestWithExemplar_Panic(t *testing.T) {
	c := newCollector(t, promworkpool.WithExemplar(func(context.Context) prometheus.Labels { panic("no labels") }))
	pool := newPool(t, c, "p")
	_, err := pool.Do(t.Context(), succeed)
	var panicked *workpool.PanicError
	require.ErrorAs(t, err, &panicked)
	assert.Equal(t, "no labels", panicked.Value)
}
