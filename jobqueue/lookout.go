package jobqueue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// askPause is the time between two questions of a lookout, and how long the answer
	// may take in addition to that of a ping.
	askPause = 3 * time.Second
	// shortestStay is for how long a server may leave all of them unanswered. It doubles
	// each time that a server is left, up to longestStay, until there is an answer: when
	// most servers are away, none of the others is better than the one that is left.
	shortestStay = 10 * time.Second
	longestStay  = 5 * time.Minute
	// replicaSilence is for how long a leader may not have heard of a replica, which
	// tells it something each second.
	replicaSilence = 5 * time.Second
)

// A lookout leaves a server that is cut from the rest of its cluster. Such a server
// still answers pings, so the connection notices nothing, while no stream answers.
//
// It has no goroutine of its own: whoever waits for the server calls check from time to
// time.
type lookout struct {
	nc    *nats.Conn
	queue string
	ask   func(context.Context) error // for the stream of the jobs

	mu     sync.Mutex // guards what follows
	asking bool
	asked  time.Time     // when the last question was over
	since  time.Time     // when the first was asked of those with that answer
	err    error         // why the stream can't be used; nil while it can, or nothing is known
	stay   time.Duration // before the server is left
}

var (
	errUnreached = errors.New("the server answers pings, but not for the streams of the queue: it is cut from the others of its cluster, or most of them are away")
	errDeleted   = errors.New("the stream of the jobs was deleted: open the queue again to create it")
)

// check has the next question asked, if it is time, and returns what the last ones have
// shown.
func (l *lookout) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.asking && time.Since(l.asked) >= askPause {
		if time.Since(l.asked) > 3*askPause { // what was found then is too old to count
			l.since, l.err = time.Time{}, nil
		}
		l.asking = true
		go l.look()
	}
	return l.err
}

// deleted returns an error if the stream of the jobs has not been there for a while.
func (l *lookout) deleted() error {
	if err := l.check(); !errors.Is(err, errDeleted) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.since) < shortestStay { // it may be that the servers have just started
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotFound, l.err)
}

// look asks, and leaves the server if it is time.
func (l *lookout) look() {
	begin, connects := time.Now(), l.nc.Stats().Reconnects
	var err error
	ping, noPing := l.nc.RTT()
	if noPing == nil {
		ctx, cancel := context.WithTimeout(context.Background(), askPause+ping)
		err = l.ask(ctx)
		cancel()
	}
	// Where the connection was lost meanwhile, it has seen to that itself.
	silent, leave := l.note(begin, err, noPing == nil && l.nc.IsConnected() && l.nc.Stats().Reconnects == connects)
	if leave {
		slog.Default().Warn("jobqueue: leaving a server for another one", "queue", l.queue, "server", l.nc.ConnectedUrlRedacted(),
			"after", silent.Round(time.Second), "error", err)
		_ = l.nc.ForceReconnect() // one that was closed meanwhile says so elsewhere
	}
}

// note takes the answer to a question, and tells for how long there has been no better one,
// and whether to leave the server. It counts if it came from that server.
func (l *lookout) note(asked time.Time, err error, counts bool) (silent time.Duration, leave bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asking, l.asked = false, time.Now()
	l.stay = max(l.stay, shortestStay)
	switch {
	case !counts:
		l.since, l.err = time.Time{}, nil
		return 0, false
	case err == nil:
		l.since, l.err, l.stay = time.Time{}, nil, shortestStay
		return 0, false
	case l.since.IsZero() || errors.Is(err, errDeleted) != errors.Is(l.err, errDeleted):
		l.since = asked
	}
	l.err = err
	silent = time.Since(l.since)
	if leave = !errors.Is(err, errDeleted) && silent >= l.stay && canLeave(l.nc); leave {
		l.since, l.err, l.stay = time.Time{}, nil, min(2*l.stay, longestStay)
	}
	return silent, leave
}

// canLeave tells whether a connection may go to another server.
func canLeave(nc *nats.Conn) bool {
	return nc.Opts.AllowReconnect && nc.Opts.MaxReconnect < 0 && len(nc.Servers()) > 1
}

// askFor returns the question for a stream: whether it has a leader with a majority of
// the replicas. Without one, nothing is stored.
func askFor(js jetstream.JetStream, stream string) func(context.Context) error {
	return func(ctx context.Context) error {
		s, err := js.Stream(ctx, stream)
		var api *jetstream.APIError
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return errDeleted
		case errors.As(err, &api) && !isTemporary(err):
			return nil // which says that something else is wrong
		case err != nil:
			return fmt.Errorf("%w: %w", errUnreached, err)
		case !isLed(s.CachedInfo().Cluster):
			return errUnreached
		}
		return nil
	}
}

// isLed tells whether the replicas of a stream have a leader that hears of most of them.
func isLed(cluster *jetstream.ClusterInfo) bool {
	if cluster == nil { // a single server
		return true
	}
	heard := 1
	for _, replica := range cluster.Replicas {
		if !replica.Offline && replica.Active < replicaSilence {
			heard++
		}
	}
	return cluster.Leader != "" && heard > (len(cluster.Replicas)+1)/2
}
