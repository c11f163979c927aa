package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

// A gateway combines the answers of all backends into one.
type gateway struct {
	backends []*backend
	deadline time.Duration // for all of them together
}

func (g *gateway) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /products/{id}", g.product)
	return mux
}

func (g *gateway) product(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if id == "." || id == ".." { // no name in a backend's path, but the way out of it
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.deadline)
	defer cancel()
	parts, err := workpool.Map(ctx, g.backends, func(ctx context.Context, b *backend) (json.RawMessage, error) {
		return b.get(ctx, id)
	}, workpool.WithWorkers(len(g.backends)))
	if err != nil {
		refuse(w, id, err)
		return
	}
	product := map[string]any{"id": id}
	for i, b := range g.backends {
		product[b.name] = parts[i]
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(product); err != nil {
		slog.Warn("answer not sent", "product", id, "error", err)
	}
}

// refuse answers with a status for err. The details are for the log, not for the client.
func refuse(w http.ResponseWriter, id string, err error) {
	code := http.StatusBadGateway
	var status statusError
	switch {
	case errors.Is(err, workpool.ErrQueueFull), errors.Is(err, workpool.ErrClosed), errors.Is(err, workpool.ErrAborted):
		code = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	case errors.Is(err, context.DeadlineExceeded):
		code = http.StatusGatewayTimeout
	case errors.As(err, &status) && status == http.StatusNotFound:
		code = http.StatusNotFound
	}
	slog.Warn("refused", "product", id, "status", code, "error", err)
	http.Error(w, http.StatusText(code), code)
}
