package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"
)

// A cache keeps the last answers for a time. Callers that ask for the same key at the
// same time wait for one answer. Errors are not kept.
type cache struct {
	limit    int           // answers that are kept
	ttl      time.Duration // for how long
	deadline time.Duration // for fetch
	fetch    func(ctx context.Context, key string) (json.RawMessage, error)

	mu      sync.Mutex // guards what follows
	entries map[string]*entry
	kept    []*entry // those that have been fetched, oldest first
}

type entry struct {
	key     string
	done    chan struct{} // closed when the fields below are set
	body    json.RawMessage
	err     error
	expires time.Time
}

func newCache(limit int, ttl, deadline time.Duration, fetch func(context.Context, string) (json.RawMessage, error)) *cache {
	return &cache{limit: limit, ttl: ttl, deadline: deadline, fetch: fetch, entries: make(map[string]*entry)}
}

// get returns the answer for key, and fetches it if there is none. It waits until ctx ends.
func (c *cache) get(ctx context.Context, key string) (json.RawMessage, error) {
	c.mu.Lock()
	c.dropLocked(time.Now())
	e := c.entries[key]
	if e == nil {
		e = &entry{key: key, done: make(chan struct{})}
		c.entries[key] = e
		go c.fill(e)
	}
	c.mu.Unlock()
	select {
	case <-e.done:
		return e.body, e.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fill fetches an answer, with a context of its own: when the caller that asked first
// gives up, the others still want it.
func (c *cache) fill(e *entry) {
	ctx, cancel := context.WithTimeout(context.Background(), c.deadline)
	defer cancel()
	body, err := c.fetch(ctx, e.key)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	e.body, e.err, e.expires = body, err, now.Add(c.ttl)
	close(e.done)
	if err != nil {
		delete(c.entries, e.key)
		return
	}
	c.kept = append(c.kept, e)
	c.dropLocked(now)
}

// dropLocked drops answers that are too old or too many.
func (c *cache) dropLocked(now time.Time) {
	for len(c.kept) > 0 && (len(c.kept) > c.limit || !now.Before(c.kept[0].expires)) {
		delete(c.entries, c.kept[0].key)
		c.kept[0] = nil
		c.kept = c.kept[1:]
	}
}
