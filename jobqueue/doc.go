// Package jobqueue runs the handlers of package workpool for jobs that survive the
// process, on any number of machines. The jobs are stored by NATS JetStream, in a
// server or cluster of its own or in one inside the program: see package embedded.
//
//	nc, err := nats.Connect(url, jobqueue.Reliable())
//	...
//	q, err := jobqueue.Open[Image, Thumbnail](ctx, nc, "thumbnails")
//	...
//	w, err := q.Work(ctx, makeThumbnail)         // here, and on other machines
//	...
//	id, err := q.Submit(ctx, Image{"cat.jpg"})   // there
//	...
//	r, err := q.Result(ctx, id)
//
// # What it promises
//
// Every job whose [Queue.Submit] returned nil is executed at least once, and ends as
// one stored result or one dead letter, never both. A crash or failover may repeat jobs
// that were in flight.
//
// An ID of your own stands for one job within [WithDedupeWindow]: submitted again, it is
// not stored again. After it, the same ID makes another job, which runs and has its own
// end: see [WithID]. A server that restarts remembers only the IDs of jobs that have not
// ended.
//
// A job may run twice, so side effects outside the queue have to bear that: use the ID
// that [JobFrom] tells, which is the same each time.
//
//   - A worker that is shut down in order repeats nothing.
//   - A worker that is killed repeats the jobs that it ran at that time, at most as
//     many as [WithConcurrency] says, once [WithAckWait] has passed.
//   - A server that is killed and restarted loses nothing that was acknowledged. Jobs
//     whose acknowledgement it did not see are delivered again; one whose result is
//     stored does not run again.
//   - A worker that was paused for longer than [WithAckWait], or cut off, does not begin
//     what it had fetched. What it runs may run elsewhere too: the first success counts,
//     and a failure of the one that was paused does not.
//   - A server that is away for longer than WithAckWait has workers repeat the jobs that
//     they had when it went: it gives them to whoever asks first.
//   - A job that kills its worker becomes a dead letter after [WithMaxAttempts].
//   - With three replicas, the loss of one server of three loses nothing and stops
//     nothing, after the few seconds that an election takes. If it freezes or drops off
//     the network, a connection made with [Reliable] takes up to 10 seconds more to
//     notice; if it is cut from the other servers alone, up to 20.
//   - A power loss at all servers that have a message loses what they had not synced
//     to their disks: see embedded.WithSyncAlways. The same goes for a server of its
//     own, whose default is to sync every two minutes: set sync_interval.
//
// The exception: with WithMaxAttempts(1), a job that was lost on its way to a worker, or
// with one that had not begun it, becomes a dead letter without having run, because
// nobody can know whether it has.
//
// # How it works
//
// A queue is four streams. Jobs wait in a work queue stream, on a subject and with a
// durable consumer for each of three priorities. A worker fetches as many as it is
// about to run, runs them on a [workpool.Pool], stores each result under the ID and the
// sequence of its job, and then acknowledges the job. The stream of the results takes
// one end of each job. Failed jobs are handed to the server to be delivered again after a
// delay; dead ones are stored in a stream of their own before they are acknowledged. The
// fourth stream knows how many attempts a job has had that is delivered again.
//
// # What it takes
//
// The server keeps IDs in memory for the window, and a subject of some 250 bytes for
// every result, every dead letter, and every waiting job with an ID of your own. A result
// takes some 300 bytes on the disk in addition to its own. Shorten [WithResultAge] where
// nobody reads results later, use [WithoutResults] where nobody reads them at all, and
// [Queue.Delete] for single ones. A worker and a submitter hold a bounded number of jobs.
package jobqueue
