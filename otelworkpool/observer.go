package otelworkpool

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed-a18b2dc9/workpool"
)

// The bounds of the histograms, in seconds: tasks take from microseconds to minutes.
var bounds = []float64{0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300}

// Observer returns an observer, to be given to pools with [workpool.WithObserver], that makes
// a span for each attempt of a task, and measures how long it waited and ran. See the
// package documentation. One observer may be given to several pools. It keeps something for each
// name of a pool, so let there be few names.
func Observer(opts ...Option) workpool.Observer {
	o := &observer{config: newConfig(opts)}
	o.tracer = o.tracers.Tracer(scope)
	meter := o.meters.Meter(scope)
	o.waitTime = seconds(meter, "workpool.task.wait_time", "How long attempts of tasks waited to begin.")
	o.runTime = seconds(meter, "workpool.task.run_time", "How long handlers ran.")
	o.pools.Store(new(map[string]*pool))
	return workpool.Observer{Submit: submit, Begin: o.begin, End: o.end}
}

// seconds returns a histogram of times. That its name is valid is known; another error is
// the provider's, and the instrument that comes with it does nothing.
func seconds(meter metric.Meter, name, description string) metric.Float64Histogram {
	h, err := meter.Float64Histogram(name, metric.WithUnit("s"),
		metric.WithDescription(description), metric.WithExplicitBucketBoundaries(bounds...))
	if err != nil {
		otel.Handle(err)
	}
	return h
}

// An observer makes the spans and measures the times of the tasks of any number of pools.
type observer struct {
	config
	tracer            trace.Tracer
	waitTime, runTime metric.Float64Histogram

	mu    sync.Mutex                       // held while pools is replaced
	pools atomic.Pointer[map[string]*pool] // by name
}

// A pool is what is the same for all tasks of the pools with one name.
type pool struct {
	spanName          string
	called, submitted []trace.SpanStartOption
	waited            []metric.RecordOption
	outcomes          [3][]metric.RecordOption
}

// An outcome is how an attempt has ended.
type outcome int

const (
	success outcome = iota
	failure
	retry
)

func (o *observer) newPool(name string) *pool {
	p := &pool{
		spanName: valid(cmp.Or(o.spanName, name, "workpool")),
		called:   []trace.SpanStartOption{trace.WithAttributes(o.of(name)...)},
		waited:   []metric.RecordOption{metric.WithAttributes(o.of(name)...)},
	}
	p.submitted = append(slices.Clone(p.called), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithNewRoot())
	for i, outcome := range []string{success: "success", failure: "error", retry: "retry"} {
		p.outcomes[i] = []metric.RecordOption{
			metric.WithAttributes(o.of(name, attribute.String("workpool.task.outcome", outcome))...),
		}
	}
	return p
}

func (o *observer) pool(name string) *pool {
	if p := (*o.pools.Load())[name]; p != nil {
		return p
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	pools := *o.pools.Load()
	if p := pools[name]; p != nil {
		return p
	}
	pools = maps.Clone(pools)
	if pools == nil {
		pools = map[string]*pool{}
	}
	p := o.newPool(name)
	pools[name] = p
	o.pools.Store(&pools)
	return p
}

// An attempt is the context of the handler of one attempt. The observer finds it by itself as
// the key: another observer may have put a span of its own into a context derived from it.
type attempt struct {
	context.Context // has the span
	observer        *observer
	pool            *pool
	span            trace.Span
}

func (a *attempt) Value(key any) any {
	if key == any(a.observer) {
		return a
	}
	return a.Context.Value(key)
}

// submit returns the span context of whoever hands in a task, or nil.
func submit(ctx context.Context) any {
	if from := trace.SpanContextFromContext(ctx); from.IsValid() {
		return from
	}
	return nil
}

func (o *observer) begin(ctx context.Context, e workpool.Event) context.Context {
	p := o.pool(e.Pool)
	from, _ := e.Value.(trace.SpanContext)
	start := p.called
	switch {
	case e.Way == workpool.BySubmit:
		start = p.submitted
		if from.IsValid() {
			start = append(slices.Clip(start), trace.WithLinks(trace.Link{SpanContext: from}))
		}
	case !from.Equal(trace.SpanContextFromContext(ctx)):
		// The caller is itself a handler, or has no span and ctx has that of the pool's context.
		ctx = trace.ContextWithSpanContext(ctx, from)
	}
	ctx, span := o.tracer.Start(ctx, p.spanName, start...)
	if span.IsRecording() {
		span.SetAttributes(
			attribute.Int64("workpool.task.index", int64(e.Index)),
			attribute.Int("workpool.task.attempt", e.Attempt),
			attribute.Stringer("workpool.task.way", e.Way),
			attribute.Float64("workpool.task.wait_time", e.Waited.Seconds()),
			attribute.Int("workpool.worker.id", e.Worker),
		)
	}
	o.waitTime.Record(ctx, e.Waited.Seconds(), p.waited...)
	return &attempt{ctx, o, p, span}
}

func (o *observer) end(ctx context.Context, e workpool.Event) {
	a, ok := ctx.Value(o).(*attempt)
	if !ok {
		return // another observer has not derived its context from ours
	}
	defer a.span.End() // also if a method of the error panics
	delay, again := workpool.RetryDelay(e.Err)
	how := success
	switch {
	case again:
		how = retry
	case e.Err != nil:
		how = failure
	}
	o.runTime.Record(ctx, e.Took.Seconds(), a.pool.outcomes[how]...)
	if how == success || !a.span.IsRecording() {
		return
	}
	if again {
		a.span.SetAttributes(attribute.Float64("workpool.task.retry_delay", delay.Seconds()))
	}
	if err := reason(e.Err); err != nil {
		record(a.span, err)
	}
}

// reason returns err, or if that asks for another attempt why, which may be nil.
func reason(err error) error {
	for {
		_, again := workpool.RetryDelay(err)
		wrapper, ok := err.(interface{ Unwrap() error })
		if !again || !ok {
			return err
		}
		err = wrapper.Unwrap()
	}
}

// record records the failure of an attempt, as RecordError does but for texts that are not valid UTF-8.
func record(span trace.Span, err error) {
	text, kind := valid(err.Error()), semconv.ErrorType(err)
	exception := []attribute.KeyValue{semconv.ExceptionType(kind.Value.AsString()), semconv.ExceptionMessage(text)}
	if p, ok := err.(*workpool.PanicError); ok { //nolint:errorlint // one that is wrapped is of another task
		exception = append(exception, semconv.ExceptionStacktrace(valid(string(p.Stack))))
	}
	span.AddEvent(semconv.ExceptionEventName, trace.WithAttributes(exception...))
	span.SetAttributes(kind)
	span.SetStatus(codes.Error, text)
}

// valid makes text valid UTF-8. With one string that is not, OTLP exporters lose the whole batch
// that it is in, of all spans and metrics of the program.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
