package main

import (
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// startToy starts a backend to play with. One request in ten takes a second, and one
// in fifty fails.
func startToy(name string) (*http.Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Addr:              listener.Addr().String(),
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			takes := 20 * time.Millisecond
			if rand.IntN(10) == 0 {
				takes = time.Second
			}
			select {
			case <-time.After(takes):
			case <-r.Context().Done(): // the gateway has an answer from elsewhere
				return
			}
			if rand.IntN(50) == 0 {
				http.Error(w, "out of order", http.StatusInternalServerError)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]string{"from": name, "path": r.URL.Path}) // the gateway may be gone
		}),
	}
	go func() { _ = server.Serve(listener) }() // until it is closed
	return server, nil
}
