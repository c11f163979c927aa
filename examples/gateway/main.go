// Gateway answers one request from three backends: GET /products/{id} fetches the
// price, the stock and the reviews of a product at the same time. It shows
//
//   - a fan-out with a deadline: [workpool.Map] asks all three, and the first
//     failure ends it;
//   - a limit for each backend: every backend has a pool of its own, so that a slow
//     one can't take the workers of the others;
//   - load shedding: TryDo never waits for room, and a full queue becomes a 503 with
//     Retry-After;
//   - hedging: when a backend is slow, a second request is sent, the first answer
//     wins, and the other request is cancelled;
//   - a small cache with a time to live, which also makes one request of many
//     concurrent ones for the same product;
//   - a graceful shutdown: at SIGTERM or Ctrl-C the server finishes the requests
//     that it has accepted, and then closes the pools, within -drain.
//
// Run it, and talk to it from another terminal. A backend whose URL is not given is
// simulated. It is sometimes slow and sometimes fails, so some requests do too:
//
//	go run ./examples/gateway
//	curl -i localhost:8080/products/42
//	go run ./examples/gateway -prices http://localhost:9001/prices
//
// The gateway asks a backend for its URL with the product's id at the end, and
// expects JSON.
//
// The exit status is 0 after Ctrl-C, 1 after an error, such as requests that did not end
// within -drain, and 2 for wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
	}
	os.Exit(exitStatus(err))
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("gateway", flag.ExitOnError)
	var o options
	addr := flags.String("addr", "127.0.0.1:8080", "address to listen on")
	drain := flags.Duration("drain", 10*time.Second, "time for accepted requests to end at shutdown")
	flags.IntVar(&o.workers, "workers", 16, "requests at a time to each backend")
	flags.IntVar(&o.queue, "queue", 64, "requests that wait for one of those; the next ones get a 503")
	flags.DurationVar(&o.deadline, "deadline", time.Second, "time for a request to the gateway")
	flags.DurationVar(&o.timeout, "timeout", 500*time.Millisecond, "time for a request to a backend")
	flags.DurationVar(&o.hedge, "hedge", 100*time.Millisecond, "send a second request after this time")
	flags.IntVar(&o.cached, "cached", 1000, "answers of each backend to keep")
	flags.DurationVar(&o.ttl, "ttl", 2*time.Second, "time to keep an answer")
	names := []string{"prices", "stock", "reviews"}
	addresses := make([]string, len(names))
	for i, name := range names {
		flags.StringVar(&addresses[i], name, "", "`URL` of the backend; a toy if it is empty")
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return usage("unexpected argument %q", flags.Arg(0))
	case o.cached < 1:
		return usage("-cached %d: must be 1 or more", o.cached)
	}
	for name, d := range map[string]time.Duration{"deadline": o.deadline, "timeout": o.timeout, "hedge": o.hedge, "ttl": o.ttl, "drain": *drain} {
		if d <= 0 {
			return usage("-%s %v: must be more than 0", name, d)
		}
	}
	for i, name := range names {
		if addresses[i] == "" {
			toy, err := startToy(name)
			if err != nil {
				return err
			}
			defer toy.Close()
			addresses[i] = "http://" + toy.Addr
		}
		u, err := url.Parse(addresses[i])
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return usage("-%s %q: not an http or https URL", name, addresses[i])
		}
	}

	g := &gateway{deadline: o.deadline}
	for i, name := range names {
		b, err := newBackend(name, addresses[i], o)
		if err != nil {
			return err
		}
		g.backends = append(g.backends, b)
	}
	listener, err := listen("addr", *addr)
	if err != nil {
		return err
	}
	slog.Info("listening", "addr", listener.Addr())
	return g.serve(ctx, listener, g.routes(), *drain)
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

// serve answers requests until ctx ends, and then goes down in order.
func (g *gateway) serve(ctx context.Context, listener net.Listener, handler http.Handler, drain time.Duration) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      g.deadline + 10*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    1 << 14,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	slog.Info("draining", "limit", drain)
	deadline, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	// First the requests, which need the pools, and then the pools.
	err = errors.Join(err, server.Shutdown(deadline))
	for _, b := range g.backends {
		err = errors.Join(err, b.close(deadline))
	}
	slog.Info("stopped")
	return errors.Join(err, server.Close()) // what the deadline has cut short
}
