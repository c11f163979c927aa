package debug_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/debug"
)

func Example() {
	var page debug.Page
	square := func(_ context.Context, n int) (int, error) { return n * n, nil }
	pool, err := debug.New(&page, square, workpool.WithName("squares")) // instead of workpool.New
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/debug/workpool/", &page) // on an address that only engineers can reach
	server := httptest.NewServer(mux)
	server.Config.RegisterOnShutdown(page.Close) // or Shutdown would wait for the viewers

	if _, err := pool.Map(context.Background(), []int{1, 2, 3}); err != nil {
		log.Fatal(err)
	}
	if err := pool.Close(); err != nil {
		log.Fatal(err)
	}

	// A browser gets HTML from this address, other clients get JSON.
	resp, err := http.Get(server.URL + "/debug/workpool/")
	if err != nil {
		log.Fatal(err)
	}
	var got struct {
		Pools []struct {
			State string
			Stats workpool.Stats
		}
	}
	err = json.NewDecoder(resp.Body).Decode(&got)
	resp.Body.Close()
	server.Close()
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range got.Pools {
		fmt.Println(p.Stats.Name, p.State, p.Stats.Succeeded)
	}
	// Output: squares closed 3
}
