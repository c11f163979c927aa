package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

const patience = 30 * time.Second

// untilReleased returns a work that ends when release is called, and the
// release for one job each.
func untilReleased() (work func(context.Context, request) (string, error), release chan<- struct{}) {
	released := make(chan struct{})
	return func(ctx context.Context, r request) (string, error) {
		select {
		case <-released:
			return "hash of " + r.Text, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}, released
}

// A client talks to one server.
type client struct {
	t   *testing.T
	url string
}

func (c client) do(method, path, body string) (*http.Response, string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(answer)
}

func (c client) status(method, path, body string) int {
	c.t.Helper()
	resp, _ := c.do(method, path, body)
	return resp.StatusCode
}

// post hands in a job that has to be accepted, and returns its location.
func (c client) post(text string) string {
	c.t.Helper()
	resp, body := c.do("POST", "/jobs", `{"text": "`+text+`", "rounds": 3}`)
	if resp.StatusCode != http.StatusAccepted {
		c.t.Fatalf("POST /jobs: %s: %s", resp.Status, body)
	}
	location := resp.Header.Get("Location")
	if j := parse(c.t, body); location != "/jobs/"+j.ID || j.State != "queued" {
		c.t.Fatalf("POST /jobs: Location %q, body %s", location, body)
	}
	return location
}

func (c client) get(location string) job {
	c.t.Helper()
	resp, body := c.do("GET", location, "")
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("GET %s: %s: %s", location, resp.Status, body)
	}
	return parse(c.t, body)
}

// await polls the job until it is in the given state, which must come.
func (c client) await(location, state string) job {
	c.t.Helper()
	var j job
	eventually(c.t, location+" "+state, func() bool {
		j = c.get(location)
		return j.State == state
	})
	return j
}

func parse(t *testing.T, body string) (j job) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &j); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return j
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// start runs a server. It goes down when begin is called, or stop, which waits
// for that and returns the error of serve.
func start(t *testing.T, s *server, drain time.Duration) (c client, begin context.CancelFunc, stop func() error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.serve(ctx, listener, drain, 0) }()
	stop = func() error {
		cancel()
		err := <-served
		served <- err
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return client{t, "http://" + listener.Addr().String()}, cancel, stop
}

func newTestServer(t *testing.T, work func(context.Context, request) (string, error), workers, queue int) *server {
	t.Helper()
	s, err := newServer(work, workers, queue)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWebserver_RunsAJob(t *testing.T) {
	s := newTestServer(t, hash, 2, 8)
	c, _, stop := start(t, s, patience)

	got := c.await(c.post("hello"), "done")
	sum := []byte("hello")
	for range 3 {
		next := sha256.Sum256(sum)
		sum = next[:]
	}
	if want := hex.EncodeToString(sum); got.Result != want || got.Error != "" {
		t.Errorf("got %+v, want the result %s", got, want)
	}
	if code := c.status("GET", "/healthz", ""); code != http.StatusOK {
		t.Errorf("GET /healthz: %d", code)
	}
	// The job is told as done before it counts as ended.
	eventually(t, "one job in the stats", func() bool {
		var stats workpool.Stats
		_, body := c.do("GET", "/stats", "")
		if err := json.Unmarshal([]byte(body), &stats); err != nil {
			t.Fatal(err)
		}
		return stats.Workers == 2 && stats.Submitted == 1 && stats.Succeeded == 1
	})
	if err := stop(); err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestWebserver_RefusesBadInput(t *testing.T) {
	s := newTestServer(t, hash, 1, 8)
	c, _, _ := start(t, s, patience)
	for _, test := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/jobs", ``, http.StatusBadRequest},
		{"POST", "/jobs", `hello`, http.StatusBadRequest},
		{"POST", "/jobs", `{"text": 1, "rounds": 1}`, http.StatusBadRequest},
		{"POST", "/jobs", `{"text": "no rounds"}`, http.StatusBadRequest},
		{"POST", "/jobs", `{"text": "many", "rounds": 1000000001}`, http.StatusBadRequest},
		{"POST", "/jobs", `{"text": "two", "rounds": 1} {}`, http.StatusBadRequest},
		{"POST", "/jobs", `{"text": "` + strings.Repeat("x", maxBody) + `", "rounds": 1}`, http.StatusRequestEntityTooLarge},
		{"GET", "/jobs/unknown", "", http.StatusNotFound},
		{"PUT", "/jobs", `{"text": "hello", "rounds": 1}`, http.StatusMethodNotAllowed},
	} {
		if got := c.status(test.method, test.path, test.body); got != test.want {
			t.Errorf("%s %s %.40q: got %d, want %d", test.method, test.path, test.body, got, test.want)
		}
	}
	if stats := s.pool.Stats(); stats.Submitted != 0 {
		t.Errorf("%d jobs accepted", stats.Submitted)
	}
}

// An argument or flag that makes no sense is an error before the server listens.
func TestRun_RefusesWhatItCannotUse(t *testing.T) {
	for _, args := range [][]string{
		{"extra"},
		{"-drain", "-1s"},
		{"-addr", "127.0.0.1"},
		{"-debug", "127.0.0.1:99999"},
		{"-linger", "-1s"},
		{"-workers", "0"},
		{"-queue", "-1"},
	} {
		if err := run(args, hash); exitStatus(err) != 2 {
			t.Errorf("run(%q): status %d, %v", args, exitStatus(err), err)
		}
	}
}

func TestWebserver_AnswersAFullQueueWith429(t *testing.T) {
	work, release := untilReleased()
	s := newTestServer(t, work, 1, 1)
	c, _, _ := start(t, s, patience)

	first, second := c.post("first"), c.post("second")
	resp, body := c.do("POST", "/jobs", `{"text": "third", "rounds": 3}`)
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" {
		t.Fatalf("third job: %s, Retry-After %q: %s", resp.Status, resp.Header.Get("Retry-After"), body)
	}
	c.await(first, "running")
	if got := c.get(second).State; got != "queued" {
		t.Errorf("second job: %s", got)
	}

	release <- struct{}{}
	c.await(first, "done")
	c.await(second, "running") // there is room again
	third := c.post("third")
	release <- struct{}{}
	release <- struct{}{}
	if got := c.await(third, "done"); got.Result != "hash of third" {
		t.Errorf("third job: %+v", got)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.jobs) != 3 {
		t.Errorf("%d jobs are kept, want 3", len(s.jobs))
	}
}

func TestWebserver_ReportsFailuresAndPanics(t *testing.T) {
	s := newTestServer(t, func(_ context.Context, r request) (string, error) {
		if r.Text == "panic" {
			panic("secret")
		}
		return "", errors.New("no luck")
	}, 1, 8)
	c, _, _ := start(t, s, patience)
	if got := c.await(c.post("fail"), "failed"); got.Error != "no luck" {
		t.Errorf("got %+v", got)
	}
	if got := c.await(c.post("panic"), "failed"); got.Error != "internal error" {
		t.Errorf("got %+v", got)
	}
}

func TestWebserver_ForgetsOldJobs(t *testing.T) {
	s := newTestServer(t, hash, 1, 2*keep)
	c, _, _ := start(t, s, patience)
	first, second := c.post("first"), c.post("second")
	var last string
	for range keep - 1 {
		last = c.post("more")
	}
	c.await(last, "done")
	if code := c.status("GET", first, ""); code != http.StatusNotFound {
		t.Errorf("GET the oldest job: %d", code)
	}
	if got := c.get(second).State; got != "done" {
		t.Errorf("the oldest but one: %s", got)
	}
}

func TestWebserver_ShowsItsPoolOnAnotherAddress(t *testing.T) {
	s := newTestServer(t, hash, 2, 8)
	c, _, _ := start(t, s, patience)
	c.await(c.post("hello"), "done")
	if code := c.status("GET", "/debug/workpool/", ""); code != http.StatusNotFound {
		t.Errorf("GET /debug/workpool/ on the public address: %d", code)
	}

	mux := debugRoutes(&s.page)
	for _, path := range []string{"/debug/workpool/?format=html", "/debug/pprof/", "/debug/pprof/cmdline"} {
		recorder := httptest.NewRecorder()
		mux.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
		if recorder.Code != http.StatusOK {
			t.Errorf("GET %s: %d", path, recorder.Code)
		}
		if path == "/debug/workpool/?format=html" && !strings.Contains(recorder.Body.String(), "<h2>jobs</h2>") {
			t.Error("the page does not show the pool")
		}
	}
}

func TestWebserver_DrainsAndKeepsAnswering(t *testing.T) {
	work, release := untilReleased()
	s := newTestServer(t, work, 1, 1)
	c, begin, stop := start(t, s, patience)
	first, second := c.post("first"), c.post("second")
	c.await(first, "running")

	begin()
	eventually(t, "503 for new jobs", func() bool {
		return c.status("POST", "/jobs", `{"text": "late", "rounds": 3}`) == http.StatusServiceUnavailable
	})
	if code := c.status("GET", "/healthz", ""); code != http.StatusServiceUnavailable {
		t.Errorf("GET /healthz: %d", code)
	}
	if got := c.get(second).State; got != "queued" {
		t.Errorf("second job: %s", got)
	}
	release <- struct{}{}
	if got := c.await(first, "done"); got.Result != "hash of first" {
		t.Errorf("first job: %+v", got)
	}
	release <- struct{}{}
	if err := stop(); err != nil {
		t.Errorf("serve: %v", err)
	}
	if got := statusAfter(t, s, second); got.State != "done" {
		t.Errorf("second job: %+v", got)
	}
	if resp, err := http.Get(c.url + "/healthz"); err == nil {
		resp.Body.Close()
		t.Error("the server still answers")
	}
}

// statusAfter asks a server that has stopped listening.
func statusAfter(t *testing.T, s *server, location string) job {
	t.Helper()
	recorder := httptest.NewRecorder()
	s.routes().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, location, nil))
	return parse(t, recorder.Body.String())
}

func TestWebserver_AbortsAtTheDeadline(t *testing.T) {
	work, _ := untilReleased()
	s := newTestServer(t, work, 1, 1)
	c, _, stop := start(t, s, time.Millisecond)
	running, queued := c.post("running"), c.post("queued")
	c.await(running, "running")

	var cut *workpool.ShutdownError
	if err := stop(); !errors.As(err, &cut) || cut.Running != 1 || cut.Aborted != 1 {
		t.Errorf("serve: %v", err)
	}
	for _, location := range []string{running, queued} {
		if got := statusAfter(t, s, location); got.State != "aborted" {
			t.Errorf("%+v", got)
		}
	}
}

func TestWebserver_GivesUpJobsThatIgnoreTheirContext(t *testing.T) {
	t.Parallel()
	released := make(chan struct{})
	s := newTestServer(t, func(context.Context, request) (string, error) {
		<-released
		return "late", nil
	}, 1, 1)
	c, _, stop := start(t, s, time.Millisecond)
	stubborn := c.post("stubborn")
	c.await(stubborn, "running")

	var cut *workpool.ShutdownError
	if err := stop(); !errors.As(err, &cut) || cut.Running != 1 {
		t.Errorf("serve: %v", err)
	}
	if got := statusAfter(t, s, stubborn); got.State != "aborted" {
		t.Errorf("%+v", got)
	}
	close(released)
	if err := s.pool.Shutdown(t.Context()); !errors.Is(err, cut) {
		t.Errorf("Shutdown: %v, want %v", err, cut)
	}
}
