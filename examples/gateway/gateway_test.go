package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

// A fake is a backend without a network. It is called with the number of the request.
type fake func(ctx context.Context, n int64, id string) (status int, body string)

func answers(context.Context, int64, string) (int, string) { return http.StatusOK, `"fine"` }

// hangs answers when the request is cancelled, and counts that.
func hangs(cancelled *atomic.Int64) fake {
	return func(ctx context.Context, _ int64, _ string) (int, string) {
		<-ctx.Done()
		cancelled.Add(1)
		return 0, ""
	}
}

type transport struct {
	fake fake
	sent *atomic.Int64
}

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := t.fake(r.Context(), t.sent.Add(1), strings.TrimPrefix(r.URL.Path, "/"))
	if err := r.Context().Err(); err != nil {
		return nil, context.Cause(r.Context())
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func testOptions() options {
	return options{workers: 2, queue: 2, cached: 10, deadline: time.Second, timeout: 400 * time.Millisecond, hedge: 100 * time.Millisecond, ttl: time.Minute}
}

// newGateway returns a gateway with one backend, or several of the same kind, and how
// many requests they have got. It has to be closed.
func newGateway(t *testing.T, o options, fakes ...fake) (g *gateway, sent *atomic.Int64) {
	t.Helper()
	g, sent = &gateway{deadline: o.deadline}, new(atomic.Int64)
	for i, f := range fakes {
		b, err := newBackend(fmt.Sprint("b", i), "http://backend.invalid", o)
		if err != nil {
			t.Fatal(err)
		}
		b.client.Transport = transport{f, sent}
		g.backends = append(g.backends, b)
	}
	return g, sent
}

func (g *gateway) get(id string) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	g.routes().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/products/"+id, nil))
	return recorder
}

func (g *gateway) end(t *testing.T) {
	t.Helper()
	for _, b := range g.backends {
		if err := b.close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func TestGateway_MakesOneAnswerOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGateway(t, testOptions(), answers, answers, answers)
		defer g.end(t)
		got := g.get("7")
		if want := `{"b0":"fine","b1":"fine","b2":"fine","id":"7"}` + "\n"; got.Code != http.StatusOK || got.Body.String() != want {
			t.Errorf("%d %s, want %s", got.Code, got.Body, want)
		}
	})
}

// No id leads a backend to another path than that of its products.
func TestGateway_StaysInThePathOfABackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, sent := newGateway(t, testOptions(), answers)
		defer g.end(t)
		for _, id := range []string{"%2e", "%2e%2e"} {
			if got := g.get(id); got.Code != http.StatusNotFound {
				t.Errorf("%s: %d %s", id, got.Code, got.Body)
			}
		}
		if sent.Load() != 0 {
			t.Errorf("%d requests to the backend", sent.Load())
		}
	})
}

// The first request hangs, the second answers, and the first is cancelled.
func TestGateway_HedgesASlowRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cancelled atomic.Int64
		g, sent := newGateway(t, testOptions(), func(ctx context.Context, n int64, id string) (int, string) {
			if n == 1 {
				return hangs(&cancelled)(ctx, n, id)
			}
			return http.StatusOK, `"second"`
		})
		defer g.end(t)
		begin := time.Now()
		got := g.get("7")
		if took := time.Since(begin); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), "second") || took != 100*time.Millisecond {
			t.Errorf("%d %s after %v, want the second answer after 100ms", got.Code, got.Body, took)
		}
		synctest.Wait()
		if sent.Load() != 2 || cancelled.Load() != 1 {
			t.Errorf("%d requests, %d cancelled; want 2, 1", sent.Load(), cancelled.Load())
		}
	})
}

func TestGateway_DoesNotHedgeABusyBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cancelled atomic.Int64
		g, sent := newGateway(t, testOptions(), hangs(&cancelled))
		defer g.end(t)
		for id := range 4 { // two that run, two in the queue
			go g.get(fmt.Sprint(id))
		}
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if sent.Load() != 2 {
			t.Errorf("%d requests, want 2", sent.Load())
		}
		time.Sleep(time.Hour)
	})
}

func TestGateway_RefusesWithRetryAfterWhenABackendIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cancelled atomic.Int64
		g, _ := newGateway(t, testOptions(), answers, hangs(&cancelled))
		defer g.end(t)
		for id := range 4 {
			go g.get(fmt.Sprint(id))
		}
		synctest.Wait()
		begin := time.Now()
		got := g.get("more")
		if got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") != "1" || time.Since(begin) != 0 {
			t.Errorf("%d, Retry-After %q, after %v; want 503 at once", got.Code, got.Header().Get("Retry-After"), time.Since(begin))
		}
		time.Sleep(time.Hour)
	})
}

func TestGateway_StatusOfAFailure(t *testing.T) {
	for name, test := range map[string]struct {
		fake  fake
		want  int
		after time.Duration
	}{
		"not found": {func(context.Context, int64, string) (int, string) { return http.StatusNotFound, "" }, http.StatusNotFound, 0},
		"failing":   {func(context.Context, int64, string) (int, string) { return http.StatusInternalServerError, "" }, http.StatusBadGateway, 0},
		"no JSON":   {func(context.Context, int64, string) (int, string) { return http.StatusOK, "<html>" }, http.StatusBadGateway, 0},
		"too large": {func(context.Context, int64, string) (int, string) {
			return http.StatusOK, `"` + strings.Repeat("x", maxBody) + `"`
		}, http.StatusBadGateway, 0},
		"panic":  {func(context.Context, int64, string) (int, string) { panic("out of order") }, http.StatusBadGateway, 0},
		"silent": {hangs(new(atomic.Int64)), http.StatusGatewayTimeout, 500 * time.Millisecond}, // the second request's timeout
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _ := newGateway(t, testOptions(), hangs(new(atomic.Int64)), test.fake, answers) // the first failure ends it
				defer g.end(t)
				begin := time.Now()
				got := g.get("7")
				if got.Code != test.want || time.Since(begin) != test.after {
					t.Errorf("%d after %v, want %d after %v", got.Code, time.Since(begin), test.want, test.after)
				}
				if body := got.Body.String(); body != http.StatusText(test.want)+"\n" {
					t.Errorf("the client is told %q", body)
				}
			})
		})
	}
}

// Requests that wait in the queue are bounded by the deadline of the whole.
func TestGateway_DeadlineOfTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions()
		o.workers, o.queue, o.timeout = 1, 100, time.Hour
		g, _ := newGateway(t, o, hangs(new(atomic.Int64)))
		defer g.end(t)
		codes := make(chan int, 20)
		begin := time.Now()
		for id := range cap(codes) {
			go func() { codes <- g.get(fmt.Sprint(id)).Code }()
		}
		for range cap(codes) {
			if code := <-codes; code != http.StatusGatewayTimeout {
				t.Errorf("status %d, want 504", code)
			}
		}
		if took := time.Since(begin); took != o.deadline {
			t.Errorf("took %v, want %v", took, o.deadline)
		}
	})
}

func TestCache_KeepsAnswersForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, sent := newGateway(t, testOptions(), answers)
		defer g.end(t)
		for _, step := range []struct {
			wait time.Duration
			want int64
		}{{0, 1}, {time.Minute - 1, 1}, {1, 2}, {0, 2}} {
			time.Sleep(step.wait)
			if got := g.get("7"); got.Code != http.StatusOK || sent.Load() != step.want {
				t.Errorf("after %v more: status %d, %d requests, want %d", step.wait, got.Code, sent.Load(), step.want)
			}
		}
	})
}

func TestCache_IsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, sent := newGateway(t, testOptions(), answers)
		defer g.end(t)
		for id := range 1000 {
			g.get(fmt.Sprint(id))
			synctest.Wait()
		}
		c := g.backends[0].cache
		if len(c.entries) != 10 || len(c.kept) != 10 {
			t.Errorf("%d entries, %d kept; want 10", len(c.entries), len(c.kept))
		}
		g.get("990") // the oldest that is left
		g.get("989")
		if sent.Load() != 1001 {
			t.Errorf("%d requests, want 1001", sent.Load())
		}
	})
}

func TestCache_DoesNotKeepErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, sent := newGateway(t, testOptions(), func(_ context.Context, n int64, _ string) (int, string) {
			if n == 1 {
				return http.StatusInternalServerError, ""
			}
			return http.StatusOK, `1`
		})
		defer g.end(t)
		if first, second := g.get("7").Code, g.get("7").Code; first != http.StatusBadGateway || second != http.StatusOK {
			t.Errorf("status %d, then %d", first, second)
		}
		if c := g.backends[0].cache; sent.Load() != 2 || len(c.entries) != 1 {
			t.Errorf("%d requests, %d entries", sent.Load(), len(c.entries))
		}
	})
}

// Many ask for the same at the same time. The first gives up, and the others get the answer.
func TestCache_MakesOneRequestOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, sent := newGateway(t, testOptions(), func(context.Context, int64, string) (int, string) {
			time.Sleep(50 * time.Millisecond)
			return http.StatusOK, `1`
		})
		defer g.end(t)
		b := g.backends[0]
		gaveUp := make(chan error, 1)
		first, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		go func() {
			_, err := b.get(first, "7")
			gaveUp <- err
		}()
		synctest.Wait()
		bodies := make(chan json.RawMessage, 100)
		for range cap(bodies) {
			go func() {
				body, _ := b.get(t.Context(), "7")
				bodies <- body
			}()
		}
		if err := <-gaveUp; err == nil {
			t.Error("the first got an answer before there was one")
		}
		for range cap(bodies) {
			if body := <-bodies; string(body) != "1" {
				t.Errorf("answer %q, want 1", body)
			}
		}
		if sent.Load() != 1 {
			t.Errorf("%d requests, want 1", sent.Load())
		}
	})
}

func TestRun_RefusesWhatItCannotUse(t *testing.T) {
	for _, args := range [][]string{
		{"-prices", "nowhere"},
		{"-stock", "ftp://localhost"},
		{"-reviews", "http://"},
		{"-hedge", "0"},
		{"-deadline", "-1s"},
		{"-cached", "0"},
		{"-workers", "0"},
		{"-queue", "-1"},
		{"-addr", "127.0.0.1"},
		{"-addr", "127.0.0.1:99999"},
		{"unexpected"},
	} {
		if err := run(t.Context(), args); exitStatus(err) != 2 {
			t.Errorf("run(%q): status %d, %v", args, exitStatus(err), err)
		}
	}
}

// An address in use is a failure at run time.
func TestRun_AddressInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	addr := listener.Addr().String()
	if err := run(t.Context(), []string{"-addr", addr}); exitStatus(err) != 1 || !strings.Contains(err.Error(), "-addr "+addr) {
		t.Errorf("status %d, %v", exitStatus(err), err)
	}
}

// With toys as backends, it starts and goes down.
func TestRun_GoesDown(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"-addr", "127.0.0.1:0"}); err != nil {
		t.Error(err)
	}
}
