package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

const sitePages = 2000

// A site has sitePages numbered pages, and counts the visits of each path.
//
// Page n links to 2n+1 and 2n+2, back to the start, to the page before and to
// itself, so that no page can only be reached by way of one other. Every page whose number ends in 00 also links to a missing page, to
// one that fails, and to a redirect to the page after.
type site struct {
	*httptest.Server
	visit func(path string) // called during a visit, if it is not nil

	mu     sync.Mutex
	visits map[string]int
}

func newSite(t *testing.T, visit func(path string)) *site {
	t.Helper()
	s := &site{visit: visit, visits: make(map[string]int)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { numbered(w, 0) })
	mux.HandleFunc("GET /{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || n >= sitePages {
			http.NotFound(w, r)
			return
		}
		numbered(w, n)
	})
	mux.HandleFunc("GET /failing/{n}", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "out of order", http.StatusInternalServerError)
	})
	mux.HandleFunc("GET /moved/{n}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/"+r.PathValue("n"), http.StatusMovedPermanently)
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.visits[r.URL.Path]++
		s.mu.Unlock()
		if s.visit != nil {
			s.visit(r.URL.Path)
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func numbered(w io.Writer, n int) {
	fmt.Fprintf(w, "<!DOCTYPE html><title>%d</title><a href=/>start</a>", n)
	for _, target := range []int{2*n + 1, 2*n + 2, n - 1, n} {
		if target > 0 && target < sitePages {
			fmt.Fprintf(w, `<a class="x" href="%d#here">%d</a> <a href='mailto:%d@example.com'>write</a>`, target, target, target)
		}
	}
	if n%100 == 0 && n > 0 {
		fmt.Fprintf(w, `<a href="/missing-%d">a</a><a href="/failing/%d">b</a><a href="/moved/%d">c</a>`, n, n, n+1)
	}
	fmt.Fprint(w, `<a href="http://elsewhere.invalid/">elsewhere</a>`)
}

// once checks that every path of the site was visited exactly once.
func (s *site) once(t *testing.T) {
	t.Helper()
	want := map[string]bool{"/": true}
	for n := 1; n < sitePages; n++ {
		want["/"+strconv.Itoa(n)] = true
		if n%100 == 0 {
			want[fmt.Sprintf("/missing-%d", n)] = true
			want[fmt.Sprintf("/failing/%d", n)] = true
			want[fmt.Sprintf("/moved/%d", n+1)] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for path := range want {
		if s.visits[path] != 1 {
			t.Errorf("%s visited %d times", path, s.visits[path])
		}
	}
	if len(s.visits) != len(want) {
		t.Errorf("%d paths visited, want %d", len(s.visits), len(want))
	}
}

const (
	hundreds    = sitePages/100 - 1
	brokenLinks = 2 * hundreds
	allPaths    = sitePages + 3*hundreds
)

func start(t *testing.T, s *site) *url.URL {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return clean(u)
}

func TestCrawler_VisitsEveryPageOnce(t *testing.T) {
	for _, o := range []options{
		{workers: 1, queue: 1},
		{workers: 1, queue: 0},
		{workers: 8, queue: 1},
		{workers: 8, queue: 1000},
	} {
		t.Run(fmt.Sprintf("workers=%d/queue=%d", o.workers, o.queue), func(t *testing.T) {
			o.max, o.timeout = 100_000, time.Minute
			s := newSite(t, nil)
			var out bytes.Buffer
			got, err := crawl(t.Context(), &out, start(t, s), o)
			if err != nil {
				t.Fatal(err)
			}
			s.once(t)
			if got.pages != allPaths || len(got.broken) != brokenLinks || got.unvisited != 0 {
				t.Errorf("%d pages, %d broken, %d not visited; want %d, %d, 0", got.pages, len(got.broken), got.unvisited, allPaths, brokenLinks)
			}
			want := fmt.Sprintf("%s/missing-100, linked from %s/100: 404 Not Found", s.URL, s.URL)
			if !slices.Contains(got.broken, want) {
				t.Errorf("%q is not among the broken links", want)
			}
			if lines := strings.Count(out.String(), "\n"); lines != allPaths {
				t.Errorf("%d lines of output, want %d", lines, allPaths)
			}
		})
	}
}

// One page answers only when all others have been visited, by the other worker.
func TestCrawler_SlowPageHoldsNobodyBack(t *testing.T) {
	var mu sync.Mutex
	others := allPaths - 1
	allOthers := make(chan struct{})
	s := newSite(t, func(path string) {
		if path == "/1" {
			select {
			case <-allOthers:
			case <-time.After(time.Minute):
				t.Error("the other pages were not visited")
			}
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if others--; others == 0 {
			close(allOthers)
		}
	})
	o := options{workers: 2, queue: 100_000, max: 100_000, timeout: 2 * time.Minute}
	got, err := crawl(t.Context(), io.Discard, start(t, s), o)
	if err != nil {
		t.Fatal(err)
	}
	if got.pages != allPaths {
		t.Errorf("%d pages, want %d", got.pages, allPaths)
	}
	s.once(t)
}

func TestCrawler_ReportsAPageThatNeverAnswers(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/never" {
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, `<html><a href="/never">never</a> <a href="/other">other</a>`)
	}))
	defer s.Close()
	var out bytes.Buffer
	err := run(t.Context(), []string{"-workers", "1", "-timeout", "100ms", s.URL}, &out)
	if err == nil || err.Error() != "there are broken links" {
		t.Errorf("run: %v", err)
	}
	for _, want := range []string{"3 pages, 1 broken links, 0 not visited", "broken: " + s.URL + "/never, linked from " + s.URL + "/: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestCrawler_StopsAtTheMaximum(t *testing.T) {
	s := newSite(t, nil)
	got, err := crawl(t.Context(), io.Discard, start(t, s), options{workers: 2, queue: 1, max: 50, timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if got.pages != 50 || got.unvisited == 0 || len(s.visits) != 50 {
		t.Errorf("%+v, %d paths visited", got, len(s.visits))
	}
}

func TestCrawler_EndsEarlyWithItsContext(t *testing.T) {
	for _, queue := range []int{1, 10_000} {
		t.Run(fmt.Sprintf("queue=%d", queue), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var visited atomic.Int64
			s := newSite(t, func(string) {
				if visited.Add(1) == 100 {
					cancel()
				}
			})
			got, err := crawl(ctx, io.Discard, start(t, s), options{workers: 2, queue: queue, max: 100_000, timeout: time.Minute})
			var cut *workpool.ShutdownError
			if !errors.Is(err, context.Canceled) || !errors.As(err, &cut) {
				t.Errorf("crawl: %v", err)
			}
			if got.pages >= allPaths || got.unvisited == 0 || len(got.broken) > brokenLinks {
				t.Errorf("%d pages, %d not visited, broken: %v", got.pages, got.unvisited, got.broken)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for path, visits := range s.visits {
				if visits != 1 {
					t.Errorf("%s visited %d times", path, visits)
				}
			}
		})
	}
}

func TestCrawler_RefusesWhatItCannotUse(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"http://one.invalid/", "http://two.invalid/"},
		{"ftp://localhost/"},
		{"/page"},
		{"127.0.0.1:8000"},
		{"-workers", "0", "http://localhost/"},
		{"-max", "0", "http://localhost/"},
		{"-timeout", "-1s", "http://localhost/"},
	} {
		if err := run(t.Context(), args, io.Discard); exitStatus(err) != 2 {
			t.Errorf("run(%q): status %d, %v", args, exitStatus(err), err)
		}
	}
}

func TestRun_Interrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newSite(t, func(string) { cancel() })
	if err := run(ctx, []string{s.URL}, io.Discard); exitStatus(err) != 130 {
		t.Errorf("status %d, %v", exitStatus(err), err)
	}
}

func TestExtract(t *testing.T) {
	base, err := url.Parse("http://example.com/a/b?c=d")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ text, want string }{
		{`<a href="x">`, "http://example.com/a/x"},
		{`<A  class="y"` + "\n" + `HREF = '/x?a=1&amp;b=2#c'>`, "http://example.com/x?a=1&b=2"},
		{`<a href=//Other.example>`, "http://other.example/"},
		{`<a href="x">1</a><a href="x#2">2</a>`, "http://example.com/a/x"},
		{`<a href="">`, "http://example.com/a/b?c=d"},
		{`<a href="mailto:me@example.com">`, ""},
		{`<a href="javascript:void(0)">`, ""},
		{`<a href="http://[">`, ""},
		{`<abbr href="x">`, ""},
		{`<a data-href="x">`, ""},
	} {
		if got := strings.Join(extract(base, test.text), " "); got != test.want {
			t.Errorf("extract(%q): got %q, want %q", test.text, got, test.want)
		}
	}
}
