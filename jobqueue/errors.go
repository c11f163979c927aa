package jobqueue

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The errors that a caller can test for with [errors.Is]. They come wrapped in
// a text that says which value was wrong, and what to do. A [Queue.Submit] that
// finds the queue or the server's storage full returns an error that matches
// [workpool.ErrQueueFull].
//
// [workpool.ErrQueueFull]: https://pkg.go.dev/github.com/seed-a18b2dc9/workpool#ErrQueueFull
var (
	// ErrInvalidOption is wrapped by errors of every call that takes options.
	// The text names the option and the value.
	ErrInvalidOption = errors.New("jobqueue: invalid option")

	// ErrInvalidName is wrapped by the error of [Open] for a name that JetStream
	// could not store.
	ErrInvalidName = errors.New("jobqueue: invalid name")

	// ErrConfigMismatch is wrapped by the error of [Open] when the queue exists
	// with another configuration. The text names the stream or consumer, the
	// field, and both values.
	ErrConfigMismatch = errors.New("jobqueue: the queue exists with another configuration")

	// ErrJobTooLarge is wrapped by the errors of [Queue.Submit] and
	// [Queue.SubmitAll] for a job that the server would not take.
	ErrJobTooLarge = errors.New("jobqueue: job too large")

	// ErrNoSchedules is wrapped by the errors of [Queue.Submit] and [Queue.SubmitAll]
	// with [RunAt] or [RunAfter], where the server would keep the job and never run
	// it. The text names the version of the server that is needed.
	ErrNoSchedules = errors.New("jobqueue: no scheduled jobs")

	// ErrNotFound is wrapped by the error of [Queue.Requeue] when there is no
	// dead letter with that ID, by that of [Queue.Delete] when there is no result
	// either, by that of [Queue.Result] for what can't be an ID, by that of [Open] with
	// [WithExisting] when there is no such queue, and by those of [Queue.Submit] and
	// [Queue.SubmitAll] when the stream of the jobs was deleted.
	ErrNotFound = errors.New("jobqueue: not found")

	// ErrStalled is wrapped by the error of [Worker.Err] while the worker can't do its
	// work. The text has what keeps it, and what to do.
	ErrStalled = errors.New("jobqueue: the worker stands still")

	// ErrDead is wrapped by the error of [Queue.Result] for a job that has
	// become a dead letter. The text has the reason.
	ErrDead = errors.New("jobqueue: the job is a dead letter")

	// ErrNoResults is wrapped by the errors of [Queue.Result] and [Queue.Results]
	// where the queue was created with [WithoutResults].
	ErrNoResults = errors.New("jobqueue: the queue keeps no results")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalidOption}, args...)...)
}

// The error codes of the server that the client library has no names for.
const (
	codeAccountLimit       jetstream.ErrorCode = 10002 // the account has no storage left
	codeServerLimit        jetstream.ErrorCode = 10023 // the server has no storage left
	codeStorageLimit       jetstream.ErrorCode = 10047
	codeStoreFailed        jetstream.ErrorCode = 10077 // the text says why: the stream or the disk is full, or something else
	codeDuplicateInProcess jetstream.ErrorCode = 10158
	codeTooManyRequests    jetstream.ErrorCode = 10167 // the stream has too much to store at the moment
	// A message with the same expectation is on its way to the replicas.
	codeWrongSequenceInProcess jetstream.ErrorCode = 10164
)

// isFull tells whether err says that there is no room: in the stream, by its limits,
// in the storage that the server or the account may use, or on the disk.
func isFull(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case codeAccountLimit, codeServerLimit, codeStorageLimit:
		return true
	case codeStoreFailed:
		return strings.Contains(api.Description, "maximum") || strings.Contains(api.Description, "no space left")
	}
	return false
}

// isTooLarge tells whether err says that a message is larger than the server
// or the stream takes.
func isTooLarge(err error) bool {
	return errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum)
}

// isTemporary tells whether the same message may be stored if it is sent again:
// the server or its leader was away, or the answer was lost.
func isTemporary(err error) bool {
	var api *jetstream.APIError
	switch {
	case isFull(err):
		return false
	case errors.As(err, &api):
		return api.Code == 503 && api.ErrorCode != jetstream.JSErrCodeJetStreamNotEnabled ||
			api.ErrorCode == codeDuplicateInProcess || api.ErrorCode == codeTooManyRequests
	}
	var socket net.Error
	return errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded) ||
		// of a connection that takes nothing any more, and is about to be made again
		errors.As(err, &socket) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

var errNilContext = errors.New("jobqueue: nil context: pass context.Background() where there is no other")
