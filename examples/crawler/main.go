// Crawler follows the links of a web site from a start page, within its host,
// and prints the status, the number of links and the time of each page, then
// the broken links. It shows tasks that submit tasks: the handler of a page
// submits the pages that it links to.
//
// That can't deadlock, not even with one worker and a queue of one: inside a
// handler, Submit with the handler's context never waits for room. If the queue
// is full, the new page is fetched at once, in place of the page that submits it,
// which continues afterwards. A larger queue keeps this rare.
//
// It also shows how to know that such a crawl is finished, and how Ctrl-C ends
// it early: see [crawl].
//
//	go run ./examples/crawler -workers 8 -max 500 http://localhost:8000/
//
// The exit status is 1 if there are broken links, 2 for wrong usage, and 130 after
// Ctrl-C. The crawler ignores robots.txt and makes no pauses, so point it at a site
// of your own. To serve a folder as one, run python3 -m http.server --bind 127.0.0.1
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "crawler:", err)
	}
	os.Exit(exitStatus(err))
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("crawler", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: crawler [flags] URL")
		flags.PrintDefaults()
	}
	var o options
	flags.IntVar(&o.workers, "workers", 8, "pages that are fetched at a time")
	flags.IntVar(&o.queue, "queue", 1000, "links that wait for a worker")
	flags.IntVar(&o.max, "max", 1000, "pages to visit at most")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Second, "limit for one page")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() != 1:
		return usage("give one URL to start from, not %d", flags.NArg())
	case o.max < 1:
		return usage("-max %d: must be 1 or more", o.max)
	case o.timeout <= 0:
		return usage("-timeout %v: must be more than 0", o.timeout)
	}
	start, err := url.Parse(flags.Arg(0))
	if err != nil || !followable(start) {
		return usage("%q is no http or https URL, such as http://localhost:8000/", flags.Arg(0))
	}
	began := time.Now()
	s, err := crawl(ctx, out, clean(start), o)
	if errors.Is(err, workpool.ErrInvalidOption) {
		return err
	}
	fmt.Fprintf(out, "\n%d pages, %d broken links, %d not visited, in %v\n",
		s.pages, len(s.broken), s.unvisited, time.Since(began).Round(time.Millisecond))
	for _, b := range s.broken {
		fmt.Fprintln(out, "  broken:", b)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return errInterrupted
	case err == nil && len(s.broken) > 0:
		return errors.New("there are broken links")
	}
	return err
}

type options struct {
	workers, queue, max int
	timeout             time.Duration
}

type summary struct {
	pages     int
	broken    []string
	unvisited int // because the crawl ended early, or found more than the maximum
}

// A link is a task.
type link struct {
	url  string
	from string // the page that it was first seen on
}

// A page is what the handler returns.
type page struct {
	status int
	links  []string
	took   time.Duration
}

type crawler struct {
	client *http.Client
	host   string
	max    int
	pool   *workpool.Pool[link, page]

	mu      sync.Mutex // guards what follows
	seen    map[string]bool
	skipped map[string]bool // beyond max, or found too late
}

// crawl visits every page that can be reached from start, once.
//
// The crawl is finished when nothing is queued and nothing runs, which is what
// Wait waits for. Shutdown must follow only then: from its beginning nothing is
// accepted, so pages that are still being visited could not submit their links.
// Results, and with it the loop, ends after Shutdown.
//
// When ctx ends, the pool is aborted, since it was made WithContext: requests
// under way are cancelled, and queued links come back with ErrAborted.
func crawl(ctx context.Context, out io.Writer, start *url.URL, o options) (summary, error) {
	c := &crawler{
		client:  newClient(o),
		host:    start.Host,
		max:     o.max,
		seen:    map[string]bool{start.String(): true},
		skipped: make(map[string]bool),
	}
	defer c.client.CloseIdleConnections()
	var err error
	c.pool, err = workpool.New(c.visit,
		workpool.WithWorkers(o.workers),
		workpool.WithQueueDepth(o.queue),
		workpool.WithContext(ctx))
	if err != nil {
		return summary{}, err
	}
	finished := make(chan error, 1)
	submitErr := c.pool.Submit(ctx, link{start.String(), "the command line"})
	go func() {
		waitErr := c.pool.Wait(ctx)
		finished <- cmp.Or(c.pool.Shutdown(context.Background()), waitErr, submitErr)
	}()

	var s summary
	for r := range c.pool.Results() {
		switch p := r.Value; {
		case r.Err != nil && ctx.Err() != nil:
			s.unvisited++
			continue
		case r.Err != nil:
			fmt.Fprintf(out, "error %3d links %8v  %s\n", len(p.links), p.took.Round(time.Microsecond), r.Task.url)
			s.broken = append(s.broken, fmt.Sprintf("%s, linked from %s: %v", r.Task.url, r.Task.from, r.Err))
		default:
			fmt.Fprintf(out, "%5d %3d links %8v  %s\n", p.status, len(p.links), p.took.Round(time.Microsecond), r.Task.url)
			if p.status >= 400 {
				s.broken = append(s.broken, fmt.Sprintf("%s, linked from %s: %d %s", r.Task.url, r.Task.from, p.status, http.StatusText(p.status)))
			}
		}
		s.pages++
	}
	s.unvisited += len(c.skipped)
	return s, <-finished
}

// visit is the handler: it fetches one page and submits what that links to.
func (c *crawler) visit(ctx context.Context, l link) (page, error) {
	began := time.Now()
	status, links, err := c.fetch(ctx, l.url)
	p := page{status, links, time.Since(began)}
	if err != nil {
		return p, err
	}
	for _, target := range links {
		if c.isNew(target) {
			// ctx tells Submit that this is a handler of its own pool.
			if err := c.pool.Submit(ctx, link{target, l.url}); err != nil {
				c.skip(target) // the crawl ends early
			}
		}
	}
	return p, nil
}

// isNew reports whether target is to be visited, which it says once.
func (c *crawler) isNew(target string) bool {
	u, err := url.Parse(target)
	if err != nil || u.Host != c.host {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.seen[target]:
		return false
	case len(c.seen) >= c.max:
		c.skipped[target] = true
		return false
	}
	c.seen[target] = true
	return true
}

func (c *crawler) skip(target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped[target] = true
}
