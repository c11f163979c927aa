package main

import (
	"context"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newService(failures float64) *service {
	return &service{failures: failures, last: map[int]int{}}
}

// Everything is delivered, in order, though a third of the attempts fail.
func TestRun_DeliversAllInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		to := newService(0.3)
		s := settings{messages: 20_000, conversations: 2_000, workers: 50, rate: 5_000, grace: time.Hour}
		begin := time.Now()
		if err := run(t.Context(), s, to, &out); err != nil && !strings.Contains(err.Error(), "not delivered") {
			t.Fatal(err)
		}
		if n := to.outOfOrder(); n != 0 {
			t.Errorf("%d messages came out of order", n)
		}
		// With ten attempts each, some message fails for good in one of a dozen runs.
		if !strings.Contains(out.String(), "of 20000 messages of 2000 conversations") {
			t.Errorf("it printed %s", &out)
		}
		if elapsed := time.Since(begin); elapsed < 5*time.Second {
			t.Errorf("28,000 attempts at 5,000 a second took %v", elapsed)
		}
	})
}

func TestSettings_ErrorsNameTheFlag(t *testing.T) {
	good := settings{messages: 1, conversations: 1, workers: 1, rate: 1}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), settings{args: []string{"extra"}}, nil, nil); exitStatus(err) != 2 {
		t.Errorf("a surplus argument: status %d, %v", exitStatus(err), err)
	}
	for name, change := range map[string]func(*settings){
		"-messages":      func(s *settings) { s.messages = -1 },
		"-conversations": func(s *settings) { s.conversations = 0 },
		"-rate":          func(s *settings) { s.rate = math.NaN() },
		"-failures":      func(s *settings) { s.failures = 1.5 },
		"-grace":         func(s *settings) { s.grace = -time.Second },
	} {
		bad := good
		change(&bad)
		if err := bad.check(); exitStatus(err) != 2 || !strings.HasPrefix(err.Error(), name+" ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// What a service that is down does not take is reported when the grace is over.
func TestRun_AServiceThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		s := settings{messages: 300, conversations: 1, workers: 8, rate: 1e6, grace: 3 * time.Second}
		err := run(t.Context(), s, newService(1), &out)
		if err == nil || !strings.Contains(err.Error(), "not delivered") {
			t.Errorf("a service that always fails: %v", err)
		}
		if !strings.Contains(out.String(), "delivered 0 of") || !strings.Contains(out.String(), "the grace is over") {
			t.Errorf("it printed %s", &out)
		}
	})
}

// Ctrl-C ends the stream of messages; those that were accepted are delivered.
func TestRun_InterruptDeliversWhatWasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var out strings.Builder
		s := settings{messages: 1_000_000, conversations: 100, workers: 20, rate: 1_000, grace: 10 * time.Second}
		if err := run(ctx, s, newService(0), &out); err != nil {
			t.Error(err)
		}
		if !strings.Contains(out.String(), "no more messages are taken") {
			t.Errorf("it printed %s", &out)
		}
	})
}

func TestLimiter_LetsABurstThroughAndThenKeepsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(10, 5)
		begin := time.Now()
		for range 25 {
			if err := l.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if elapsed := time.Since(begin).Round(100 * time.Millisecond); elapsed != 1900*time.Millisecond {
			t.Errorf("25 attempts at 10 a second, after a burst of 5, took %v", elapsed)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := l.Wait(ctx); err == nil {
			t.Error("it waits on when the context has ended")
		}
	})
}
