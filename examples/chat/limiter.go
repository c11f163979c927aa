package main

import (
	"context"
	"sync"
	"time"
)

// A limiter lets attempts begin at a rate, after a burst. It is a token bucket
// that hands out the times at which tokens will be there: whoever waits, waits
// for its own, in the order of arrival.
type limiter struct {
	every time.Duration
	burst int

	mu   sync.Mutex
	next time.Time // when the next attempt may begin
}

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{every: time.Duration(float64(time.Second) / perSecond), burst: burst}
}

// Wait returns nil when the next attempt may begin.
func (l *limiter) Wait(ctx context.Context) error {
	l.mu.Lock()
	now := time.Now()
	if full := now.Add(-time.Duration(l.burst) * l.every); l.next.Before(full) {
		l.next = full
	}
	at := l.next
	l.next = at.Add(l.every)
	l.mu.Unlock()
	wait := at.Sub(now)
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
