package otelworkpool_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/otelworkpool"
)

// A wayIn hands in the task 1 to a pool, and waits until it has ended.
type wayIn struct {
	name, way string
	do        func(ctx context.Context, p *workpool.Pool[int, int]) error
}

var waysIn = []wayIn{
	{"Submit", "submit", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		return errors.Join(p.Submit(ctx, 1), p.Wait(context.Background()))
	}},
	{"TrySubmit", "submit", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		return errors.Join(p.TrySubmit(ctx, 1), p.Wait(context.Background()))
	}},
	{"SubmitAll", "submit", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		_, err := p.SubmitAll(ctx, slices.Values([]int{1}))
		return errors.Join(err, p.Wait(context.Background()))
	}},
	{"SubmitCancel", "submit", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		_, err := p.SubmitCancel(ctx, 1)
		return errors.Join(err, p.Wait(context.Background()))
	}},
	{"Do", "call", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		_, err := p.Do(ctx, 1)
		return err
	}},
	{"TryDo", "call", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		_, err := p.TryDo(ctx, 1)
		return err
	}},
	{"DoChan", "call", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		return (<-p.DoChan(ctx, 1)).Err
	}},
	{"Map", "map", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		_, err := p.Map(ctx, []int{1})
		return err
	}},
	{"Stream", "stream", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		var err error
		for r := range p.Stream(ctx, slices.Values([]int{1})) {
			err = errors.Join(err, r.Err)
		}
		return err
	}},
	{"Group", "group", func(ctx context.Context, p *workpool.Pool[int, int]) error {
		g := p.Group(ctx)
		submitted := g.Submit(1)
		_, err := g.Wait()
		return errors.Join(submitted, err)
	}},
}

// belongs expects a span to be what the one of an attempt is to that of whoever handed in the
// task: by Submit linked to it, else a child of it.
func belongs(t *testing.T, s sdktrace.ReadOnlySpan, way string, to trace.SpanContext) {
	t.Helper()
	if way != "submit" {
		assert.Equal(t, trace.SpanKindInternal, s.SpanKind())
		assert.Equal(t, to.TraceID(), s.SpanContext().TraceID())
		assert.Equal(t, to.SpanID(), s.Parent().SpanID())
		assert.Empty(t, s.Links())
		return
	}
	assert.Equal(t, trace.SpanKindConsumer, s.SpanKind())
	assert.NotEqual(t, to.TraceID(), s.SpanContext().TraceID())
	assert.False(t, s.Parent().IsValid())
	if assert.Len(t, s.Links(), 1) {
		assert.Equal(t, to, s.Links()[0].SpanContext)
	}
}

func TestSpans_ChildOfCallerOrLinkToSubmitter(t *testing.T) {
	for _, in := range waysIn {
		t.Run(in.name, func(t *testing.T) {
			to := newTelemetry(t)
			var inside trace.SpanContext
			p := mustNew(t, func(ctx context.Context, n int) (int, error) {
				inside = trace.SpanContextFromContext(ctx)
				return n, nil
			}, workpool.WithName("pool"), workpool.WithWorkers(1), workpool.WithoutResults(),
				to.observed(otelworkpool.WithAttributes(attribute.String("tier", "gold"))))
			ctx, caller := to.caller()
			require.NoError(t, in.do(ctx, p))
			require.NoError(t, p.Wait(t.Context()))

			require.Len(t, to.attempts(), 1)
			s := to.named("pool")
			belongs(t, s, in.way, caller.SpanContext())
			assert.Equal(t, s.SpanContext(), inside, "the handler has it in its context")
			assert.Equal(t, codes.Unset, s.Status().Code)
			attributes := of(s)
			assert.GreaterOrEqual(t, attributes["workpool.task.wait_time"], 0.0)
			delete(attributes, "workpool.task.wait_time")
			assert.Equal(t, map[string]any{
				"tier": "gold", "workpool.name": "pool",
				"workpool.task.index": int64(0), "workpool.task.attempt": int64(1), "workpool.task.way": in.way,
				"workpool.worker.id": int64(1),
			}, attributes)
		})
	}
}

func TestSpans_RootWithoutCaller(t *testing.T) {
	for _, in := range waysIn {
		t.Run(in.name, func(t *testing.T) {
			to := newTelemetry(t)
			life, _ := to.caller() // that the pool was made in a span says nothing of its tasks
			p := mustNew(t, double, workpool.WithContext(life), workpool.WithoutResults(), to.observed())
			require.NoError(t, in.do(t.Context(), p))
			require.NoError(t, p.Wait(t.Context()))

			s := to.named("workpool")
			assert.False(t, s.Parent().IsValid())
			assert.Empty(t, s.Links())
			assert.NotContains(t, of(s), "workpool.name")
		})
	}
}

func TestSpans_OfFunctions(t *testing.T) {
	to := newTelemetry(t)
	ctx, caller := to.caller()
	_, err := workpool.Map(ctx, []int{1, 2, 3}, double, to.observed(otelworkpool.WithSpanName("squares")))
	require.NoError(t, err)
	for _, s := range to.attempts() {
		assert.Equal(t, "squares", s.Name())
		belongs(t, s, "map", caller.SpanContext())
	}
	assert.Len(t, to.attempts(), 3)
	none := func(context.Context, int) error { return nil }
	require.NoError(t, workpool.ForEach(ctx, slices.Values([]int{1, 2}), none, to.observed()))
	assert.Len(t, to.attempts(), 5)
	belongs(t, to.named("workpool"), "stream", caller.SpanContext())
}

// What a handler hands in belongs to the span of the handler, and not to what that belongs to.
func TestSpans_HandlersThatUsePools(t *testing.T) {
	for _, in := range waysIn {
		if in.way == "submit" { // its Wait is not for handlers
			in.do = map[string]func(context.Context, *workpool.Pool[int, int]) error{
				"Submit":    func(ctx context.Context, p *workpool.Pool[int, int]) error { return p.Submit(ctx, 1) },
				"TrySubmit": func(ctx context.Context, p *workpool.Pool[int, int]) error { return p.TrySubmit(ctx, 1) },
				"SubmitAll": func(ctx context.Context, p *workpool.Pool[int, int]) error {
					_, err := p.SubmitAll(ctx, slices.Values([]int{1}))
					return err
				},
				"SubmitCancel": func(ctx context.Context, p *workpool.Pool[int, int]) error {
					_, err := p.SubmitCancel(ctx, 1)
					return err
				},
			}[in.name]
		}
		for _, own := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/own=%v", in.name, own), func(t *testing.T) {
				to := newTelemetry(t)
				observed := to.observed()
				var pool, other *workpool.Pool[int, int]
				handler := func(ctx context.Context, n int) (int, error) {
					switch {
					case n == 1:
						return n, nil
					case own:
						return n, in.do(ctx, pool)
					}
					return n, in.do(ctx, other)
				}
				pool = mustNew(t, handler, workpool.WithName("outer"), workpool.WithWorkers(1), workpool.WithoutResults(), observed)
				other = mustNew(t, handler, workpool.WithName("inner"), workpool.WithoutResults(), observed)
				ctx, caller := to.caller()
				_, err := pool.Do(ctx, 2)
				require.NoError(t, err)
				require.NoError(t, pool.Wait(t.Context()))
				require.NoError(t, other.Wait(t.Context()))

				spans := to.attempts()
				require.Len(t, spans, 2)
				belongs(t, spans[0], "call", caller.SpanContext())
				belongs(t, spans[1], in.way, spans[0].SpanContext())
			})
		}
	}
}

func TestSpans_Failures(t *testing.T) {
	inner := func() error { return &workpool.PanicError{Value: "of another pool", Stack: []byte("its stack")} }
	for _, c := range []struct {
		name    string
		handler workpool.Handler[int, int]
		kind    string // error.type
		message string
		stack   string // in it
	}{
		{"error", func(context.Context, int) (int, error) { return 0, fmt.Errorf("task: %w", errFailed) }, "*errors.errorString", "task: failed", ""},
		{"permanent", func(context.Context, int) (int, error) { return 0, workpool.Permanent(errFailed) }, "*workpool.permanentError", "failed", ""},
		{"panic", func(context.Context, int) (int, error) { panic("boom") }, "*workpool.PanicError", "workpool: panic: boom", "TestSpans_Failures"},
		{"goexit", func(context.Context, int) (int, error) { runtime.Goexit(); return 0, nil }, "*errors.errorString", "workpool: runtime.Goexit was called", ""},
		{"returned panic", func(context.Context, int) (int, error) { return 0, inner() }, "*workpool.PanicError", "workpool: panic: of another pool", "its stack"},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := newTelemetry(t)
			p := mustNew(t, c.handler, to.observed())
			_, err := p.Do(t.Context(), 1)
			require.Error(t, err)

			s := to.named("workpool")
			assert.Equal(t, sdktrace.Status{Code: codes.Error, Description: c.message}, s.Status())
			assert.Contains(t, of(s)["error.type"], c.kind)
			require.Len(t, s.Events(), 1)
			assert.Equal(t, "exception", s.Events()[0].Name)
			event := values(s.Events()[0].Attributes)
			assert.Equal(t, c.message, event["exception.message"])
			if c.stack == "" {
				assert.NotContains(t, event, "exception.stacktrace")
			} else {
				assert.Contains(t, event["exception.stacktrace"], c.stack)
			}
		})
	}
}

func TestSpans_OneForEachAttempt(t *testing.T) {
	for _, in := range waysIn {
		t.Run(in.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := newTelemetry(t)
				handler := func(ctx context.Context, n int) (int, error) {
					switch info, _ := workpool.InfoFrom(ctx); info.Attempt {
					case 1:
						return n, workpool.RetryAfter(time.Second, errFailed)
					case 2:
						return n, fmt.Errorf("not yet: %w", workpool.RetryAfter(time.Minute, nil))
					}
					return n, nil
				}
				p := mustNew(t, handler, workpool.WithName("pool"), workpool.WithoutResults(), to.observed())
				ctx, caller := to.caller()
				require.NoError(t, in.do(ctx, p))
				require.NoError(t, p.Wait(t.Context()))

				spans := to.attempts()
				require.Len(t, spans, 3)
				for i, s := range spans {
					belongs(t, s, in.way, caller.SpanContext())
					assert.Equal(t, int64(i+1), of(s)["workpool.task.attempt"])
					assert.Zero(t, of(s)["workpool.task.wait_time"], "from when the attempt was due")
				}
				assert.Equal(t, sdktrace.Status{Code: codes.Error, Description: "failed"}, spans[0].Status())
				assert.Equal(t, any(1.0), of(spans[0])["workpool.task.retry_delay"])
				assert.Equal(t, codes.Unset, spans[1].Status().Code, "a retry without an error is no failure")
				assert.Equal(t, any(60.0), of(spans[1])["workpool.task.retry_delay"])
				assert.Empty(t, spans[1].Events())
				assert.NotContains(t, of(spans[2]), "workpool.task.retry_delay")
				numbers := to.numbers()
				assert.Equal(t, 2, numbers["workpool.task.run_time workpool.name=pool,workpool.task.outcome=retry"])
				assert.Equal(t, 1, numbers["workpool.task.run_time workpool.name=pool,workpool.task.outcome=success"])
			})
		})
	}
}

func TestSpans_NoneWithoutAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := newTelemetry(t)
		p, err := workpool.New(func(ctx context.Context, n int) (int, error) {
			<-ctx.Done()
			return n, context.Cause(ctx)
		}, workpool.WithName("pool"), workpool.WithWorkers(1), to.observed())
		require.NoError(t, err)
		_, err = otelworkpool.Register(p, to.options()...)
		require.NoError(t, err)
		for n := range 3 {
			require.NoError(t, p.Submit(t.Context(), n))
		}
		synctest.Wait()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, p.Shutdown(ended))
		require.Error(t, p.Shutdown(t.Context()))

		s := to.named("pool")
		assert.Len(t, to.attempts(), 1)
		assert.Equal(t, codes.Error, s.Status().Code)
		numbers := to.numbers()
		assert.Equal(t, 1, numbers["workpool.task.completed workpool.name=pool,workpool.task.outcome=error"])
		assert.Equal(t, 2, numbers["workpool.task.aborted workpool.abort.reason=closed,workpool.name=pool"])
	})
}

func TestSpans_BaggageReachesHandlers(t *testing.T) {
	for _, in := range waysIn {
		t.Run(in.name, func(t *testing.T) {
			to := newTelemetry(t)
			var seen atomic.Value
			p := mustNew(t, func(ctx context.Context, n int) (int, error) {
				seen.Store(baggage.FromContext(ctx).Member("tenant").Value())
				return n, nil
			}, workpool.WithoutResults(), to.observed())
			tenant, err := baggage.NewMember("tenant", "acme")
			require.NoError(t, err)
			all, err := baggage.New(tenant)
			require.NoError(t, err)
			ctx, _ := to.caller()
			require.NoError(t, in.do(baggage.ContextWithBaggage(ctx, all), p))
			assert.Equal(t, "acme", seen.Load())
		})
	}
}

// A root is a context that notes how deep in contexts it lies when it is asked for a value.
type root struct {
	context.Context
	depth atomic.Int64
}

type depthKey struct{}

func (r *root) Value(key any) any {
	if key == (depthKey{}) {
		r.depth.Store(int64(runtime.Callers(0, make([]uintptr, 4096))))
	}
	return r.Context.Value(key)
}

// A task that submits the next one makes no chain of contexts, and each span has a link
// to the one before.
func TestSpans_ChainsDoNotGrow(t *testing.T) {
	const generations = 5000
	to := newTelemetry(t)
	r := &root{Context: t.Context()}
	var depths []int64
	var p *workpool.Pool[int, int]
	p = mustNew(t, func(ctx context.Context, n int) (int, error) {
		ctx.Value(depthKey{})
		depths = append(depths, r.depth.Load())
		if n == generations {
			return n, nil
		}
		return n, p.Submit(ctx, n+1)
	}, workpool.WithWorkers(1), workpool.WithoutResults(), to.observed())
	require.NoError(t, p.Submit(r, 1))
	require.NoError(t, p.Wait(t.Context()))

	require.Len(t, depths, generations)
	assert.Positive(t, depths[0])
	assert.Equal(t, depths[0], slices.Max(depths))
	spans := to.attempts()
	require.Len(t, spans, generations)
	for i, s := range spans[1:] {
		require.Len(t, s.Links(), 1)
		require.Equal(t, spans[i].SpanContext(), s.Links()[0].SpanContext)
	}
}

// Each ends its own span, though the context that it gets at the end has that of the other.
func TestSpans_SeveralObservers(t *testing.T) {
	first, second := newTelemetry(t), newTelemetry(t)
	p := mustNew(t, double, first.observed(otelworkpool.WithSpanName("first")), second.observed(otelworkpool.WithSpanName("second")))
	_, err := p.Do(t.Context(), 1)
	require.NoError(t, err)
	assert.Len(t, first.attempts(), 1)
	assert.Equal(t, "first", first.attempts()[0].Name())
	assert.Len(t, second.attempts(), 1)
	assert.Equal(t, "second", second.attempts()[0].Name())

	lost := workpool.Observer{Begin: func(context.Context, workpool.Event) context.Context { return context.Background() }}
	p = mustNew(t, double, first.observed(), workpool.WithObserver(lost))
	_, err = p.Do(t.Context(), 1)
	require.NoError(t, err, "an observer that loses the context does no other harm")
}

func TestSpans_NotSampled(t *testing.T) {
	to := newTelemetry(t, sdktrace.WithSampler(sdktrace.NeverSample()))
	p := mustNew(t, func(ctx context.Context, n int) (int, error) {
		assert.True(t, trace.SpanContextFromContext(ctx).IsValid())
		return n, errFailed
	}, to.observed())
	_, err := p.Do(t.Context(), 1)
	require.ErrorIs(t, err, errFailed)
	assert.Empty(t, to.attempts())
	assert.Equal(t, 1, to.numbers()["workpool.task.run_time workpool.task.outcome=error"])
}

// What a sampler is told can decide: name, kind and the attributes that all tasks have.
func TestSpans_SamplerKnowsThePool(t *testing.T) {
	var parameters sdktrace.SamplingParameters
	to := newTelemetry(t, sdktrace.WithSampler(samplerFunc(func(p sdktrace.SamplingParameters) { parameters = p })))
	p := mustNew(t, double, workpool.WithName("pool"), workpool.WithoutResults(), to.observed())
	require.NoError(t, p.Submit(t.Context(), 1))
	require.NoError(t, p.Wait(t.Context()))
	assert.Equal(t, "pool", parameters.Name)
	assert.Equal(t, trace.SpanKindConsumer, parameters.Kind)
	assert.Equal(t, []attribute.KeyValue{attribute.String("workpool.name", "pool")}, parameters.Attributes)
}

type samplerFunc func(sdktrace.SamplingParameters)

func (f samplerFunc) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	f(p)
	return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
}
func (samplerFunc) Description() string { return "samplerFunc" }

// One string that is not valid UTF-8 would keep an exporter from sending all that it has.
func TestTexts_AreValidUTF8(t *testing.T) {
	to := newTelemetry(t)
	p := mustNew(t, func(_ context.Context, n int) (int, error) {
		err := errors.New("read \xff\xfe")
		if n == 1 {
			panic(err)
		}
		return 0, err
	}, to.observed(), workpool.WithName("pool \xff"))
	_, err := otelworkpool.Register(p, to.options()...)
	require.NoError(t, err)
	for n := range 2 {
		_, err := p.Do(t.Context(), n)
		require.Error(t, err)
	}

	reported := []any{to.numbers()}
	for _, s := range to.attempts() {
		reported = append(reported, s.Name(), s.Status().Description, s.Attributes(), s.Events())
	}
	texts := fmt.Sprint(reported...)
	assert.True(t, utf8.ValidString(texts), "%q", texts)
	assert.Contains(t, texts, "read \uFFFD")
	assert.Contains(t, texts, "pool \uFFFD")
}

type hostileError struct{}

func (hostileError) Error() string { panic("in Error") }

func TestSpans_ErrorThatPanics(t *testing.T) {
	to := newTelemetry(t)
	p := mustNew(t, func(context.Context, int) (int, error) { return 0, hostileError{} }, to.observed())
	_, err := p.Do(t.Context(), 1)
	var panicked *workpool.PanicError
	require.ErrorAs(t, err, &panicked)
	assert.Equal(t, "in Error", panicked.Value)
	assert.Len(t, to.attempts(), 1, "its span has ended")
}
