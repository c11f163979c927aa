// Chat delivers the messages of thousands of conversations to a service that is
// slow, limits its callers and fails now and then. It shows
//
//   - WithKey: the messages of one conversation are delivered one at a time, in
//     order, those of different conversations in parallel. A message that waits
//     for another attempt holds up only its own conversation;
//   - wrapped handlers: Retry with exponential backoff, Limit with a limiter of
//     its own (that of golang.org/x/time/rate fits too), Timeout, and a log of
//     failed attempts;
//   - a shutdown that delivers what was accepted, within a deadline: Ctrl-C ends
//     the stream of messages, not the messages.
//
// Try
//
//	go run ./examples/chat -messages 20000 -conversations 2000
//	go run ./examples/chat -failures 0.2 -verbose
//	go run ./examples/chat -rate 500 -workers 100    # then Ctrl-C
//
// The exit status is 1 if a message that was accepted was not delivered, and 2 for wrong
// usage. Ctrl-C alone is no failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

// A message is the nth of its conversation.
type message struct {
	conversation, n int
	text            string
}

func (m message) key() int { return m.conversation }

type settings struct {
	messages, conversations int
	workers                 int
	rate, failures          float64
	grace                   time.Duration
	verbose                 bool
	args                    []string // besides the flags
}

func main() {
	var s settings
	flag.IntVar(&s.messages, "messages", 20_000, "how many messages are sent")
	flag.IntVar(&s.conversations, "conversations", 2_000, "how many conversations they belong to")
	flag.IntVar(&s.workers, "workers", 64, "how many messages are delivered at a time")
	flag.Float64Var(&s.rate, "rate", 10_000, "attempts a second that the service allows")
	flag.Float64Var(&s.failures, "failures", 0.05, "the share of attempts that fail, 0 to 1")
	flag.DurationVar(&s.grace, "grace", 10*time.Second, "how long to go on delivering at the end, or after Ctrl-C")
	flag.BoolVar(&s.verbose, "verbose", false, "log every attempt that fails")
	flag.Parse()
	s.args = flag.Args()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	err := run(ctx, s, &service{failures: s.failures, last: map[int]int{}}, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
	}
	os.Exit(exitStatus(err))
}

// check returns an error that names the first setting out of range. A NaN is out of any range.
func (s settings) check() error {
	switch {
	case len(s.args) > 0:
		return usage("unexpected argument %q", s.args[0])
	case s.messages < 0:
		return usage("-messages %d: must be 0 or more", s.messages)
	case s.conversations < 1:
		return usage("-conversations %d: must be 1 or more", s.conversations)
	case !(s.rate >= 0.001):
		return usage("-rate %v: must be 0.001 or more", s.rate)
	case !(s.failures >= 0 && s.failures <= 1):
		return usage("-failures %v: must be 0 to 1", s.failures)
	case s.grace < 0:
		return usage("-grace %v: must be 0 or more", s.grace)
	}
	return nil
}

// run delivers messages until all are, or ctx ends.
func run(ctx context.Context, s settings, to *service, out io.Writer) error {
	if err := s.check(); err != nil {
		return err
	}
	level := slog.LevelInfo
	if s.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))

	// Each attempt passes through all of them. Retry is outermost, so that it also
	// retries an attempt that took too long.
	deliver := workpool.Timeout(workpool.NoValue(to.deliver), time.Second)
	attempt := logged(workpool.Limit(deliver, newLimiter(s.rate, 100)), log)
	handler := workpool.Retry(attempt, 10, workpool.ExponentialBackoff(20*time.Millisecond, time.Second))
	var undelivered atomic.Int64
	pool, err := workpool.New(handler,
		workpool.WithWorkers(s.workers),
		workpool.WithKey(message.key),
		workpool.WithResultFunc(func(r workpool.Result[message, struct{}]) {
			if r.Err != nil {
				undelivered.Add(1)
				log.Warn("not delivered", "conversation", r.Task.conversation, "n", r.Task.n, "attempts", r.Attempt, "err", r.Err)
			}
		}))
	if err != nil {
		return err
	}

	begin := time.Now()
	accepted, err := pool.SubmitAll(ctx, conversations(s.messages, s.conversations))
	if err != nil {
		log.Info("no more messages are taken", "accepted", accepted, "err", err)
	}
	grace, cancel := context.WithTimeout(context.Background(), s.grace)
	defer cancel()
	var cut *workpool.ShutdownError
	if err := pool.Shutdown(grace); errors.As(err, &cut) {
		log.Warn("the grace is over", "aborted", cut.Aborted, "running", cut.Running)
		_ = pool.Shutdown(context.Background()) // waits for the cancelled handlers; the error is the same
	} else if err != nil {
		return err
	}
	stats := pool.Stats()
	fmt.Fprintf(out, "delivered %d of %d messages of %d conversations in %v, with %d further attempts\n",
		stats.Succeeded, accepted, s.conversations, time.Since(begin).Round(time.Millisecond), stats.Retried)
	if n := to.outOfOrder(); n > 0 {
		return fmt.Errorf("%d messages came out of order", n)
	}
	if n := undelivered.Load(); n > 0 {
		return fmt.Errorf("%d messages were not delivered", n)
	}
	return nil
}

// conversations is the stream of all messages.
func conversations(messages, conversations int) iter.Seq[message] {
	return func(yield func(message) bool) {
		sent := make(map[int]int)
		for i := range messages {
			to := rand.IntN(conversations)
			sent[to]++
			if !yield(message{conversation: to, n: sent[to], text: fmt.Sprintf("message %d", i)}) {
				return
			}
		}
	}
}

// logged returns a handler that logs the attempts of next that fail.
func logged[R any](next workpool.Handler[message, R], log *slog.Logger) workpool.Handler[message, R] {
	return func(ctx context.Context, m message) (R, error) {
		value, err := next(ctx, m)
		if err != nil {
			info, _ := workpool.InfoFrom(ctx)
			log.DebugContext(ctx, "attempt failed", "conversation", m.conversation, "n", m.n, "attempt", info.Attempt, "err", err)
		}
		return value, err
	}
}

// A service is where messages go to.
type service struct {
	failures float64

	mu        sync.Mutex
	last      map[int]int // of each conversation, the last message
	disorders int
}

var errUnavailable = errors.New("service unavailable")

// deliver takes a millisecond or two, and fails now and then.
func (s *service) deliver(ctx context.Context, m message) error {
	select {
	case <-time.After(time.Millisecond + rand.N(time.Millisecond)):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if rand.Float64() < s.failures {
		return errUnavailable
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.n <= s.last[m.conversation] {
		s.disorders++
	}
	s.last[m.conversation] = m.n
	return nil
}

func (s *service) outOfOrder() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disorders
}
