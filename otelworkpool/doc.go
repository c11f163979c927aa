// Package otelworkpool reports pools of package workpool to OpenTelemetry: a span for each
// attempt of a task, and metrics.
//
//	pool, err := workpool.New(thumbnail,
//		workpool.WithName("thumbnails"),
//		workpool.WithObserver(otelworkpool.Observer()))
//	...
//	_, err = otelworkpool.Register(pool)
//
// [Observer] makes the spans and measures times; it may be given to any number of pools.
// [Register] reports the numbers of one pool's Stats. Each works without the other. Both use
// the global providers, which may be set before or after, unless options say otherwise.
//
// Give each pool a name. It is the name of its spans and an attribute of all that is
// reported. Pools with the same name, or without one, are added up.
//
// # Spans
//
// The caller of Do, TryDo, DoChan, Map, Stream, ForEach and Group waits for the outcome. The
// span of an attempt is a child of the span in the caller's context, and of kind internal.
//
// Nobody waits for the tasks of Submit, TrySubmit, SubmitAll and SubmitCancel. They may run long
// after the submitter's span has ended. The span of an attempt is the root of a trace of its own,
// has a link to the span in the submitter's context if there is one, and is of kind consumer.
//
// A handler finds the span in its context. Tasks that it submits with that context, to its own
// pool or another, belong to that span. Baggage and other values of the caller's context reach
// the handler as without this package. A handler that submits the next task of a long chain
// should pass the context that it was given. With a derived context, such as that of a further
// span, all earlier contexts stay in memory until the chain ends.
//
// A task that is retried has a span for each attempt, all with the same parent or link. A
// task that never ran has none.
//
// The attributes of a span:
//
//   - workpool.name: the name of the pool, if it has one
//   - workpool.task.index, workpool.task.attempt: as in [workpool.Info]
//   - workpool.task.way: submit, call, map, stream or group
//   - workpool.task.wait_time: the seconds that the attempt waited before it began
//   - workpool.worker.id: the number of the worker, 0 for a task that CallerRuns ran
//   - workpool.task.retry_delay: the seconds until the next attempt, if the handler has asked for one
//   - error.type: the type of the error, if the attempt has failed
//
// An attempt that fails has the status Error, and the error as an event, a panic with
// its stack. So has one that fails and is retried. A workpool.RetryAfter without an error
// is not a failure.
//
// # Metrics
//
// The names follow those that OpenTelemetry has for executors of the JVM, jvm.executor.*.
// Observer records, in seconds:
//
//   - workpool.task.wait_time: a histogram of the times from when a task was submitted, or
//     its next attempt was due, until the attempt began
//   - workpool.task.run_time: a histogram of the times that handlers ran, by
//     workpool.task.outcome: success, error or retry
//
// Both have exemplars where the span is sampled. Register reports what [workpool.Stats] has at the
// moment of the collection:
//
//   - workpool.worker.count: workers by workpool.worker.state: active, idle, or held by a
//     result that has no room. A handler that waits for a task of its own pool, which runs in
//     its place, counts as one more.
//   - workpool.worker.limit: how many workers there may be
//   - workpool.queue.size: accepted tasks that have not begun, or wait for their next attempt
//   - workpool.queue.capacity: the queue depth
//   - workpool.caller.waiting: callers that wait for room
//   - workpool.result.undelivered: results that no receiver has taken
//   - workpool.task.submitted: tasks accepted
//   - workpool.task.completed: tasks that ran, by workpool.task.outcome: success or error
//   - workpool.task.panicked: those of error that panicked
//   - workpool.task.retried: attempts beyond the first
//   - workpool.task.aborted: tasks that ended without having run, or run again, by
//     workpool.abort.reason: closed, dropped or cancelled
//   - workpool.task.rejected: tasks that were not accepted
package otelworkpool
