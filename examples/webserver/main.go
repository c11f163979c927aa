// Webserver is an HTTP backend that accepts jobs, runs them on a pool, and
// lets clients ask for the outcome. A job hashes a text with SHA-256 again and
// again, for as many rounds as the client asks for. It shows
//
//   - how a full queue becomes a 429: TrySubmit never keeps a request waiting;
//   - how to store results without a collecting goroutine: WithResultFunc;
//   - how a server shuts down: at SIGTERM or Ctrl-C new jobs get a 503, accepted
//     jobs run until the -drain deadline while their results can be fetched,
//     and only then the server stops. Jobs that have not ended by the deadline are
//     aborted, and the exit status is 1. A second signal is an early deadline;
//   - how to see what the pool is doing: a page of package debug, beside the
//     profiles of net/http/pprof, on a loopback address.
//
// Run it, and talk to it from another terminal:
//
//	go run ./examples/webserver -workers 2 -queue 8
//	curl -i localhost:8080/jobs -d '{"text": "hello", "rounds": 20000000}'
//	curl localhost:8080/jobs/ID     # the Location of the answer
//	curl localhost:8080/stats
//	curl -i localhost:8080/healthz  # 503 while draining
//
// Watch it on http://localhost:6060/debug/workpool/ in a browser.
//
// The outcomes of the last 1000 ended jobs are kept, older ones are forgotten. The exit
// status is 0 after Ctrl-C, if all accepted jobs have ended, 1 after an error, and 2 for
// wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:], hash); err != nil {
		fmt.Fprintln(os.Stderr, "webserver:", err)
		os.Exit(exitStatus(err))
	}
}

// run is main with the work of a job as a parameter.
func run(args []string, work func(context.Context, request) (string, error)) error {
	flags := flag.NewFlagSet("webserver", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "address to listen on")
	workers := flags.Int("workers", runtime.GOMAXPROCS(0), "jobs that run at a time")
	queue := flags.Int("queue", 64, "jobs that wait for a worker; the next ones get a 429")
	drain := flags.Duration("drain", 10*time.Second, "time for accepted jobs to end at shutdown")
	debugAddr := flags.String("debug", "127.0.0.1:6060", "address of the debug page and of profiles, which must not be public; none if empty")
	linger := flags.Duration("linger", time.Second, "time to fetch the last results after that")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return usage("unexpected argument %q", flags.Arg(0))
	case *drain < 0:
		return usage("-drain %v: must be 0 or more", *drain)
	case *linger < 0:
		return usage("-linger %v: must be 0 or more", *linger)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := newServer(work, *workers, *queue)
	if err != nil {
		return err
	}
	if *debugAddr != "" {
		debugServer, err := s.serveDebug(*debugAddr)
		if err != nil {
			return errors.Join(err, s.pool.Close())
		}
		defer debugServer.Close() // Shutdown would wait for those who watch the page
	}
	listener, err := listen("addr", *addr)
	if err != nil {
		return errors.Join(err, s.pool.Close())
	}
	return s.serve(ctx, listener, *drain, *linger)
}

// listen listens on an address that was given with a flag.
func listen(name, addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	var malformed *net.AddrError
	switch {
	case errors.As(err, &malformed):
		return nil, usage("-%s %q: must be host:port, such as 127.0.0.1:8080", name, addr)
	case err != nil:
		return nil, fmt.Errorf("-%s %s: %w: choose another address", name, addr, err)
	}
	return listener, nil
}

// serve answers requests until ctx ends, and then goes down in order. It
// returns an error if jobs were cut short.
func (s *server) serve(ctx context.Context, listener net.Listener, drain, linger time.Duration) error {
	httpServer := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    1 << 14,
	}
	failed := make(chan error, 1)
	go func() { failed <- httpServer.Serve(listener) }()
	slog.Info("listening", "addr", listener.Addr())

	var serveErr error
	select {
	case serveErr = <-failed:
	case <-ctx.Done():
	}
	hurry, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	stats := s.pool.Stats()
	slog.Info("draining", "limit", drain, "running", stats.Running, "queued", stats.Queued)
	drainErr := s.drain(hurry, drain)

	if serveErr == nil {
		select {
		case serveErr = <-failed:
		case <-time.After(linger):
		case <-hurry.Done():
		}
	}
	requests, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := httpServer.Shutdown(requests)
	stats = s.pool.Stats()
	slog.Info("stopped", "succeeded", stats.Succeeded, "failed", stats.Failed, "aborted", stats.Aborted)
	return errors.Join(serveErr, drainErr, err)
}

// drain lets all accepted jobs end, or aborts them after the limit.
func (s *server) drain(ctx context.Context, limit time.Duration) error {
	s.draining.Store(true)
	deadline, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := s.pool.Shutdown(deadline)
	if err == nil {
		return nil
	}
	// The jobs that ran at the deadline have been cancelled. Shutdown did not
	// wait for them; a further call does, and returns the same error.
	cancelled, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err = s.pool.Shutdown(cancelled)
	s.giveUp()
	return err
}
