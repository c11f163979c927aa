//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// unreliable starts a backend that answers with the path of the request, hangs at every
// 53rd request until it is cancelled, and fails at every 13th.
func unreliable(t *testing.T) string {
	t.Helper()
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := requests.Add(1); {
		case n%53 == 0:
			<-r.Context().Done()
		case n%13 == 0:
			http.Error(w, "out of order", http.StatusInternalServerError)
		default:
			_ = json.NewEncoder(w).Encode(r.URL.Path)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// A load is many clients that send one request after the other.
type load struct {
	url       string
	client    *http.Client
	signalled atomic.Bool  // the gateway goes down: connections may be refused
	answered  atomic.Int64 // whole answers
	enough    chan struct{}

	mu    sync.Mutex
	codes map[int]int
}

// send sends requests until the gateway is gone.
func (l *load) send(t *testing.T, client int) {
	for n := 0; ; n++ {
		id := fmt.Sprint((client*31 + n) % 400)
		resp, err := l.client.Get(l.url + "/products/" + id)
		if err != nil {
			if !l.signalled.Load() {
				t.Errorf("request without an answer: %v", err)
			}
			return
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Errorf("half an answer: %v", err)
			return
		}
		if l.answered.Add(1) == 1000 {
			close(l.enough)
		}
		l.mu.Lock()
		l.codes[resp.StatusCode]++
		l.mu.Unlock()
		want := fmt.Sprintf(`{"id":%q,"prices":"/%s","reviews":"/%s","stock":"/%s"}`, id, id, id, id)
		switch resp.StatusCode {
		case http.StatusOK:
			if got := strings.TrimSpace(string(body)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		case http.StatusServiceUnavailable:
			if resp.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
		case http.StatusBadGateway, http.StatusGatewayTimeout:
		default:
			t.Errorf("status %d: %s", resp.StatusCode, body)
		}
	}
}

// Under load, with backends that hang and fail, every request gets an answer. After
// SIGTERM, so does every one that was accepted, and then nothing is left.
func TestGateway_LosesNothing(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	o := options{workers: 4, queue: 12, cached: 100, deadline: 5 * time.Second, timeout: 100 * time.Millisecond, hedge: 10 * time.Millisecond, ttl: 20 * time.Millisecond}
	g := &gateway{deadline: o.deadline}
	t.Run("load", func(t *testing.T) { // the backends end with it
		for _, name := range []string{"prices", "stock", "reviews"} {
			b, err := newBackend(name, unreliable(t), o)
			if err != nil {
				t.Fatal(err)
			}
			g.backends = append(g.backends, b)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var accepted atomic.Int64
		routes := g.routes()
		counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			accepted.Add(1)
			routes.ServeHTTP(w, r)
		})
		served := make(chan error, 1)
		go func() { served <- g.serve(ctx, listener, counting, time.Minute) }()

		l := &load{
			url: "http://" + listener.Addr().String(),
			// A connection for each request: a server that goes down may close an idle one in
			// the moment in which a request comes.
			client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
			enough: make(chan struct{}),
			codes:  make(map[int]int),
		}
		var senders sync.WaitGroup
		for client := range 40 {
			senders.Go(func() { l.send(t, client) })
		}
		<-l.enough
		l.signalled.Store(true)
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		senders.Wait()
		if accepted.Load() != l.answered.Load() {
			t.Errorf("%d requests accepted, %d answered", accepted.Load(), l.answered.Load())
		}
		if l.codes[http.StatusOK] == 0 {
			t.Errorf("no request succeeded: %v", l.codes)
		}
		t.Logf("answers by status: %v", l.codes)
		for _, b := range g.backends {
			if s := b.pool.Stats(); s.Running+s.Queued != 0 || s.Submitted != s.Succeeded+s.Failed+s.Aborted {
				t.Errorf("%s: %+v", b.name, s)
			}
		}
	})
	stop()
	goleak.VerifyNone(t, ignore)
}

// What does not end within the limit is ended.
func TestGateway_DrainIsBounded(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	asked := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	defer hanging.Close()
	o := options{workers: 1, queue: 0, cached: 1, deadline: time.Hour, timeout: time.Hour, hedge: time.Hour, ttl: time.Hour}
	b, err := newBackend("hanging", hanging.URL, o)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{backends: []*backend{b}, deadline: time.Hour}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served, answered := make(chan error, 1), make(chan struct{})
	go func() { served <- g.serve(ctx, listener, g.routes(), time.Millisecond) }()
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	go func() {
		defer close(answered)
		if resp, err := client.Get("http://" + listener.Addr().String() + "/products/7"); err == nil {
			resp.Body.Close()
		}
	}()
	<-asked
	stop()
	if err := <-served; err == nil {
		t.Error("serve did not say that requests were cut short")
	}
	<-answered
}
