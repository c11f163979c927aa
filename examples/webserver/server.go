package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/debug"
)

const (
	maxBody   = 64 << 10 // bytes
	maxRounds = 1_000_000_000
	keep      = 1000 // ended jobs
)

// A request is the body of POST /jobs.
type request struct {
	Text   string `json:"text"`
	Rounds int    `json:"rounds"`
}

// A job is the body of GET /jobs/{id}.
type job struct {
	ID     string `json:"id"`
	State  string `json:"state"` // queued, running, done, failed or aborted
	Result string `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
}

// A task is what the pool gets.
type task struct {
	id      string
	request request
}

type server struct {
	pool     *workpool.Pool[task, string]
	page     debug.Page // shows the pool
	work     func(context.Context, request) (string, error)
	draining atomic.Bool

	mu    sync.Mutex     // guards what follows
	jobs  map[string]job // the accepted ones, which the pool bounds, and the last that ended
	ended []string       // their ids, oldest first
}

func newServer(work func(context.Context, request) (string, error), workers, queue int) (*server, error) {
	s := &server{work: work, jobs: make(map[string]job)}
	var err error
	s.pool, err = debug.New(&s.page, s.handle, // as workpool.New, and on the page
		workpool.WithName("jobs"),
		workpool.WithWorkers(workers),
		workpool.WithQueueDepth(queue),
		workpool.WithResultFunc(s.finish))
	return s, err
}

// handle is called by the pool's workers.
func (s *server) handle(ctx context.Context, t task) (string, error) {
	s.set(job{ID: t.id, State: "running"})
	result, err := s.work(ctx, t.request)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // ErrAborted rather than context.Canceled
	}
	return result, err
}

// finish is called with the answer to every accepted job, even to one that
// never ran or that panicked.
func (s *server) finish(r workpool.Result[task, string]) {
	j := job{ID: r.Task.id, State: "done", Result: r.Value}
	var panicked *workpool.PanicError
	switch {
	case r.Err == nil:
		slog.Info("job done", "id", j.ID)
	case errors.Is(r.Err, workpool.ErrAborted):
		j = job{ID: j.ID, State: "aborted", Error: "the server went down"}
		slog.Warn("job aborted", "id", j.ID)
	case errors.As(r.Err, &panicked):
		j = job{ID: j.ID, State: "failed", Error: "internal error"}
		slog.Error("job panicked", "id", j.ID, "value", panicked.Value, "stack", string(panicked.Stack))
	default:
		j = job{ID: j.ID, State: "failed", Error: r.Err.Error()}
		slog.Error("job failed", "id", j.ID, "error", r.Err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[j.ID] = j
	s.ended = append(s.ended, j.ID)
	if len(s.ended) > keep {
		delete(s.jobs, s.ended[0])
		s.ended = s.ended[1:]
	}
}

// giveUp reports the jobs whose work ignores its context as aborted too.
func (s *server) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, j := range s.jobs {
		if j.State == "queued" || j.State == "running" {
			s.jobs[id] = job{ID: id, State: "aborted", Error: "the server went down"}
			slog.Warn("job aborted, but does not stop", "id", id)
		}
	}
}

func (s *server) set(j job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[j.ID] = j
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /jobs", s.postJob)
	mux.HandleFunc("GET /jobs/{id}", s.getJob)
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.pool.Stats())
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if s.draining.Load() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

func (s *server) postJob(w http.ResponseWriter, r *http.Request) {
	var req request
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(body, &req)
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, "bad request: "+err.Error(), http.StatusBadRequest)
		return
	case req.Rounds < 1 || req.Rounds > maxRounds:
		http.Error(w, fmt.Sprintf("rounds must be 1 to %d", maxRounds), http.StatusBadRequest)
		return
	}

	j := job{ID: rand.Text(), State: "queued"}
	s.set(j) // first, since the job may have ended before TrySubmit returns
	if err := s.pool.TrySubmit(r.Context(), task{j.ID, req}); err != nil {
		s.mu.Lock()
		delete(s.jobs, j.ID)
		s.mu.Unlock()
		code := http.StatusServiceUnavailable
		if errors.Is(err, workpool.ErrQueueFull) {
			code = http.StatusTooManyRequests
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, err.Error(), code)
		return
	}
	w.Header().Set("Location", "/jobs/"+j.ID)
	writeJSON(w, http.StatusAccepted, j)
}

func (s *server) getJob(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	j, ok := s.jobs[r.PathValue("id")]
	s.mu.Unlock()
	if !ok {
		http.Error(w, "no such job, or forgotten", http.StatusNotFound)
		return
	}
	writeJSON(w, http.StatusOK, j)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Warn("answer not sent", "error", err)
	}
}

// hash is the work of a job.
func hash(ctx context.Context, r request) (string, error) {
	sum := sha256.Sum256([]byte(r.Text))
	for round := 1; round < r.Rounds; round++ {
		if round%10_000 == 0 && ctx.Err() != nil {
			return "", ctx.Err()
		}
		sum = sha256.Sum256(sum[:])
	}
	return hex.EncodeToString(sum[:]), nil
}
