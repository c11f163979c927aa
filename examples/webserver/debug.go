package main

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"
)

func debugRoutes(page http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/debug/workpool/", page)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// serveDebug serves the page of the pool and the profiles, for engineers only. It listens on an
// address of its own, so that requests from outside cannot reach it.
func (s *server) serveDebug(addr string) (*http.Server, error) {
	listener, err := listen("debug", addr)
	if err != nil {
		return nil, err
	}
	debugServer := &http.Server{Handler: debugRoutes(&s.page), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := debugServer.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("no debug page any more", "error", err)
		}
	}()
	slog.Info("debug page", "url", "http://"+listener.Addr().String()+"/debug/workpool/")
	return debugServer, nil
}
