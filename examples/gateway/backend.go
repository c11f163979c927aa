package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

const maxBody = 1 << 20 // bytes

type options struct {
	workers, queue, cached        int
	deadline, timeout, hedge, ttl time.Duration
}

// A backend is one of the services behind the gateway. A task of its pool is the id
// of a product.
type backend struct {
	name   string
	url    string
	client *http.Client
	hedge  time.Duration
	pool   *workpool.Pool[string, json.RawMessage]
	cache  *cache
}

func newBackend(name, address string, o options) (*backend, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = max(1, o.workers)
	b := &backend{name: name, url: address, client: &http.Client{Transport: transport}, hedge: o.hedge}
	b.cache = newCache(o.cached, o.ttl, o.deadline, b.ask)
	var err error
	b.pool, err = workpool.New(workpool.Timeout(b.fetch, o.timeout),
		workpool.WithName(name),
		workpool.WithWorkers(o.workers),
		workpool.WithQueueDepth(o.queue))
	return b, err
}

// get returns what the backend has about a product.
func (b *backend) get(ctx context.Context, id string) (json.RawMessage, error) {
	body, err := b.cache.get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	return body, nil
}

// ask sends a request, and another one when the first is slow. The first answer wins.
func (b *backend) ask(ctx context.Context, id string) (json.RawMessage, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the slower request
	type answer struct {
		body json.RawMessage
		err  error
	}
	answers := make(chan answer, 2)
	send := func() {
		body, err := b.pool.TryDo(ctx, id)
		answers <- answer{body, err}
	}
	go send()
	slow := time.After(b.hedge)
	var err error
	for pending := 1; pending > 0; {
		select {
		case <-slow:
			// If requests are queued, the backend is busy, and one more would not help.
			if b.pool.Stats().Queued == 0 {
				pending++
				go send()
			}
		case a := <-answers:
			if a.err == nil {
				return a.body, nil
			}
			err = a.err
			pending--
		}
	}
	return nil, err
}

// A statusError is the status of an answer that is not 200.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("status %d %s", int(e), http.StatusText(int(e)))
}

// fetch is the handler: it sends one request.
func (b *backend) fetch(ctx context.Context, id string) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/"+url.PathEscape(id), nil)
	if err != nil {
		return nil, err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, statusError(resp.StatusCode)
	case len(body) > maxBody:
		return nil, fmt.Errorf("an answer of more than %d bytes", maxBody)
	case !json.Valid(body):
		return nil, errors.New("an answer that is not JSON")
	}
	return body, nil
}

// close waits for the requests under way until ctx ends.
func (b *backend) close(ctx context.Context) error {
	defer b.client.CloseIdleConnections()
	if err := b.pool.Shutdown(ctx); err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	return nil
}
