// Package workpool runs tasks on a fixed number of goroutines.
//
// A [Pool] has one [Handler], a function from a task to a value or an error.
// Its workers drain a buffered task channel and push typed results onto a
// collector channel:
//
//	p, err := workpool.New(thumbnail, workpool.WithWorkers(8))
//	...
//	go func() {
//		for _, file := range files {
//			p.Submit(ctx, file)
//		}
//		p.Shutdown(ctx)
//	}()
//	for r := range p.Results() {
//		fmt.Println(r.Task, r.Value, r.Err)
//	}
//
// # Which call to use
//
// The shape of the work decides:
//
//   - A stream in, a stream out, in different places: [Pool.Submit],
//     [Pool.TrySubmit] or [Pool.SubmitAll] on one side, [Pool.Results] on the
//     other, with [Pool.SubmitCancel] where a single task may have to be
//     cancelled. [WithResultFunc] replaces the other side by a function,
//     [WithoutResults] by nothing.
//   - A question and its answer, as in a web server: [Pool.Do], or
//     [Pool.DoChan] in a select.
//   - A slice of tasks, all or nothing: [Pool.Map], or the function [Map],
//     which needs no pool.
//   - A sequence of tasks, each with its own outcome: [Pool.Stream].
//   - Tasks that are closures: New([Call][R]).
//
// All of them may be used on one pool at once. Do, DoChan, Map and Stream
// answer to their caller alone, never to Results.
//
// # The rules
//
// 1. Accepted means answered. A task whose Submit returned nil yields exactly
// one [Result], whatever becomes of it: a value, an error, a panic, a
// runtime.Goexit, an abort. [Pool.Stats] counts each in one place: Submitted
// is at any moment the sum of Queued, Running, Succeeded, Failed and Aborted.
//
// 2. The pool is bounded. While it is open, it holds at most queue depth,
// result buffer and workers together; with [WithPriority] each priority has a
// queue of that depth. A task is accepted if there is room in
// the queue or a worker has nothing in hand. When nobody receives results and
// their buffer is full, workers wait with the result that did not fit, the
// queue fills, and Submit waits. Memory stays flat however many tasks go
// through.
//
// 3. Submit waits for room until its context ends or the pool closes, and its
// context bounds nothing else: its values reach the handler, its end does
// not. Do, DoChan, Map and Stream hand on their whole context. When it ends, a
// queued task is taken back at once, a running one is cancelled, and Do
// returns without waiting for it; Map and Stream wait for the handlers that
// they started.
//
// 4. Closing never waits for a receiver. As soon as the pool begins to close,
// finished results that find no room in the buffer are kept, and Results
// yields them all, then ends. It may be ranged over before, during and after,
// and a break loses nothing.
//
// 5. [Pool.Shutdown] runs everything that was accepted and returns nil when
// no code of a task runs and no goroutine of the pool is left. If its context
// ends first, what runs is cancelled, what is queued ends with [ErrAborted],
// and it returns a [*ShutdownError] at once. [Pool.Close] does what
// [WithShutdown] says. Both may be called at any time, any number of times,
// and agree on the outcome. A Map that has begun is accepted as a whole, a Stream
// task by task.
//
// 6. A task may use its own pool, with the context that its handler got.
// Where it would have to wait for a worker, and so perhaps for itself, the
// new task runs at once in its place. Shutdown and Wait return
// [ErrReentrant] to a handler. A handler that passes on another context is
// not known as one, and may wait for itself.
//
// 7. A panic is a result, a [*PanicError] with the stack, and so is a
// runtime.Goexit, [ErrGoexit]. Neither takes the process, the worker or
// another task along. A panic of a result function is reported by Shutdown
// and Close, one of an input sequence by the call that it was given to.
//
// 8. Nobody waits without need. A task never waits behind a running one while
// another worker is idle, and a finished result never waits while someone
// would receive it. Workers and receivers take several small ones at once, and
// whoever has nothing to do takes over what they have not come to.
//
// 9. Importing the package starts nothing. A task and its value are not
// retained by the pool after the task has been answered. A context that
// several tasks were submitted with may be kept until the next task.
//
// 10. A pool works inside a testing/synctest bubble, and uses no timers but
// for a timeout of Close, at the end of a Stream whose input is blocked, and
// for what is about time: RetryAfter, WithElastic and Timeout.
//
// # Flow
//
// What follows is off unless it is asked for, and then costs nothing.
//
//   - Order. With [WithOrdered], Results and Stream yield in the order of
//     submission. Results that are ready before their turn wait in a window,
//     which is bounded as the pool is, and no number of workers, retries, panics
//     or aborts can block it.
//   - Keys. With [WithKey], tasks of one key run one at a time, in order, while
//     different keys share all workers. A key that is busy may fill the queue,
//     but keeps no other from an idle worker, and one that is idle takes no
//     memory.
//   - Priorities. With [WithPriority], tasks of a higher [Priority] are taken
//     first, 12 of 16, then 3 Normal and 1 Low, so that nobody starves. Each
//     has a queue of its own.
//   - Retries. A handler that returns [RetryAfter] is called again for the same
//     task when the time has passed. Until then the task holds no worker, counts
//     as queued, and is waited for by Shutdown. An abort answers it with
//     ErrAborted and the error of its last attempt.
//   - Middleware. [Retry], [Timeout] and [Limit] make a handler of a handler, as
//     does one's own [Middleware]. [Chain] puts them together, the first
//     outermost; every attempt passes through all.
//   - Elastic size. With [WithElastic], workers start when tasks wait and leave
//     when they have not been needed for a time. A submit that meets a worker on
//     its way out is not stranded.
//   - Overflow. [WithOverflow] makes Submit reject, drop or run what finds no
//     room, in place of waiting. A dropped task still yields its Result, with
//     [ErrDropped].
//   - Cancellation. The task of a Do, DoChan, Map or Stream ends with the context
//     of the call; that of [Pool.SubmitCancel] with a function. Either way it
//     never runs if it was queued, and its handler's context ends if it was
//     running.
//
// All of them may be combined, but for WithOrdered with WithoutResults or
// WithResultFunc, which [New] refuses.
//
// # Memory order
//
// What a goroutine did before it handed in a task happens before the handler
// is called, and what the handler did happens before its result is received,
// Do, Map or Wait return, or the result function is called. The end of
// everything happens before Shutdown and Close return nil.
//
// # Inside
//
// Everything is in one of two channels, the task channel and the collector
// channel, under one mutex, for a few nanoseconds at a time. What is in a
// channel lies in a list; the Go channel inside carries claims, on which
// workers and receivers wait when they have nothing to do. The handler is
// called without a deferred function around it.
//
// Where tasks are short, a worker takes a run of them under one lock, and a
// receiver a run of results. Each goes through its run with one atomic operation
// a task, which tells others how far it is, and lets them take back the rest. The
// tasks of a Map lie in the slice that they came in: what is in the channel is a
// share of it, of which each worker takes as much as makes a run.
package workpool
