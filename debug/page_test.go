package debug_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/debug"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A shown is what tests read of the JSON form.
type shown struct {
	Pools []struct {
		State    string
		Observed bool
		Stats    workpool.Stats
		Rate     float64
		Wait     *times
		Run      *times
		Slowest  []struct {
			Worker, Index, Attempt int
			Way                    string
			Waited, Running        float64
		}
		Failures []struct {
			Text, Stack    string
			Panic, Retried bool
			Count, Worker  int
		}
		History []*struct {
			Ended, Failed   float64
			Running, Queued int
			Run             *times
		}
	}
}

type times struct {
	Count              int
	P50, P90, P99, Max float64
}

func get(t *testing.T, h http.Handler, target string, header ...string) *http.Response {
	t.Helper()
	return ask(t, h, http.MethodGet, target, header...)
}

func ask(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(text)
}

func html(t *testing.T, page *debug.Page) string {
	t.Helper()
	return body(t, get(t, page, "/?format=html"))
}

func look(t *testing.T, page *debug.Page) (s shown) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body(t, get(t, page, "/?format=json"))), &s))
	return s
}

// mustNew returns a pool on page, which is closed at the end of the test.
func mustNew[T, R any](t *testing.T, page *debug.Page, handler workpool.Handler[T, R], opts ...workpool.Option) *workpool.Pool[T, R] {
	t.Helper()
	p, err := debug.New(page, handler, append(opts, workpool.WithoutResults())...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	return p
}

// has expects a page to contain a part. It does not print pages, which are long.
func has(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("the page has no %q", part)
	}
}

func sleep(ctx context.Context, d time.Duration) (int, error) {
	select {
	case <-time.After(d):
		return 0, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func TestPage_ShowsWhatAPoolIsAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		p := mustNew(t, page, sleep, workpool.WithName("naps"), workpool.WithWorkers(2), workpool.WithQueueDepth(8))
		for _, d := range []time.Duration{time.Second, 20 * time.Second, 30 * time.Second, time.Second} {
			require.NoError(t, p.Submit(t.Context(), d))
		}
		time.Sleep(10500 * time.Millisecond)

		s := look(t, page).Pools[0]
		assert.Equal(t, "open", s.State)
		assert.True(t, s.Observed)
		assert.Equal(t, p.Stats(), s.Stats)
		assert.InDelta(t, 0.1, s.Rate, 1e-9)
		assert.Equal(t, 1, s.Run.Count)
		assert.InDelta(t, 1, s.Run.P50, 0.125)
		assert.InDelta(t, 1, s.Run.Max, 1e-9)
		assert.Empty(t, s.Failures)
		require.Len(t, s.Slowest, 2)
		assert.Equal(t, 1, s.Slowest[0].Index)
		assert.InDelta(t, 10.5, s.Slowest[0].Running, 1e-6)
		assert.Equal(t, 2, s.Slowest[1].Index)
		assert.InDelta(t, 9.5, s.Slowest[1].Running, 1e-9)
		assert.InDelta(t, 1, s.Slowest[1].Waited, 1e-9)
		assert.Equal(t, "submit", s.Slowest[1].Way)

		text := html(t, page)
		has(t, text, "<h2>naps</h2>")
		has(t, text, "of 2 workers")
		has(t, text, ": task 2 for 9.5\u202fs\"")
	})
}

func TestPage_StatesAndNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		state := func() string { return look(t, page).Pools[0].State }
		p, err := debug.New(page, sleep, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithResultBuffer(0))
		require.NoError(t, err)
		assert.Equal(t, "open", state())
		p.Pause()
		assert.Equal(t, "paused", state())
		p.Resume()
		for range 3 {
			go func() { _ = p.Submit(t.Context(), time.Second) }()
		}
		synctest.Wait()
		has(t, html(t, page), "1 caller waits for room")
		time.Sleep(2 * time.Second)
		has(t, html(t, page), "1 worker waits for a receiver of its result")
		for range 3 {
			go func() { _ = p.Submit(t.Context(), time.Second) }()
		}
		synctest.Wait()
		go func() { _ = p.Shutdown(t.Context()) }()
		synctest.Wait()
		assert.Equal(t, "closing", state())
		for range p.Results() {
		}
		assert.Equal(t, "closed", state())
	})
}

func TestPage_RemembersAMinuteThatNobodyHasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		p := mustNew(t, page, sleep, workpool.WithWorkers(1), workpool.WithQueueDepth(100))
		time.Sleep(100 * time.Second) // idle
		for range 25 {                // ten seconds of them
			require.NoError(t, p.Submit(t.Context(), 400*time.Millisecond))
		}
		time.Sleep(30500 * time.Millisecond)

		history := look(t, page).Pools[0].History
		require.Len(t, history, 60)
		ended := 0.0
		for i, at := range history {
			require.NotNil(t, at, i)
			ended += at.Ended
			switch {
			case i < 30: // before
				assert.Zero(t, at.Ended+float64(at.Running), i)
			case i < 40:
				assert.InDelta(t, 2.5, at.Ended, 0.5, i)
				assert.Equal(t, 1, at.Running, i)
				assert.NotNil(t, at.Run, i)
			case i > 40: // the last one ends as the second begins
				assert.Zero(t, at.Ended+float64(at.Running+at.Queued), i)
				assert.Nil(t, at.Run, i)
			}
		}
		assert.InDelta(t, 25, ended, 1e-9)

		time.Sleep(time.Minute)
		s := look(t, page).Pools[0]
		assert.Nil(t, s.Run)
		for i, at := range s.History {
			assert.Zero(t, at.Ended, i)
		}
	})
}

func TestPage_AQueueThatFillsWhileNoTaskEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		p, err := debug.New(page, sleep, workpool.WithWorkers(1), workpool.WithShutdown(workpool.Abort, 0))
		require.NoError(t, err)
		for range 20 {
			require.NoError(t, p.Submit(t.Context(), time.Hour))
			time.Sleep(time.Second)
		}
		for i, at := range look(t, page).Pools[0].History[40:] {
			assert.Equal(t, i, at.Queued)
		}
		assert.NoError(t, p.Close())
	})
}

func TestPage_APoolThatIsNotObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		p, err := workpool.New(sleep, workpool.WithWorkers(1), workpool.WithoutResults())
		require.NoError(t, err)
		page.Add(p)
		for range 20 {
			require.NoError(t, p.Submit(t.Context(), time.Second))
		}
		time.Sleep(5500 * time.Millisecond) // unseen
		for range 10 {
			look(t, page)
			time.Sleep(time.Second)
		}
		s := look(t, page).Pools[0]
		assert.False(t, s.Observed)
		assert.Nil(t, s.Run)
		assert.Empty(t, s.Slowest)
		for i, at := range s.History {
			if i < 50 {
				assert.Nil(t, at, i)
				continue
			}
			require.NotNil(t, at, i)
			assert.InDelta(t, 1, at.Ended, 1e-9, i)
			assert.Equal(t, 1, at.Running, i)
		}
		text := html(t, page)
		has(t, text, "unnamed")
		has(t, text, "debug.New")
		require.NoError(t, p.Shutdown(t.Context()))
	})
}

func TestPage_WithoutPools(t *testing.T) {
	page := new(debug.Page)
	assert.Empty(t, look(t, page).Pools)
	has(t, html(t, page), "No pools yet")
}

func TestPage_PoolsOfTheSameNameAndOnesThatHaveEnded(t *testing.T) {
	page := new(debug.Page)
	mustNew(t, page, sleep, workpool.WithName("twin"))
	mustNew(t, page, sleep, workpool.WithName("twin"))
	text := html(t, page)
	has(t, text, "<h2>twin</h2>")
	has(t, text, "<h2>twin (2)</h2>")

	for i := range 3 * debug.EndedPools {
		p, err := debug.New(page, sleep, workpool.WithName(fmt.Sprint("short-lived ", i)))
		require.NoError(t, err)
		require.NoError(t, p.Close())
	}
	mustNew(t, page, sleep, workpool.WithName("last"))
	pools := look(t, page).Pools
	require.Len(t, pools, 2+debug.EndedPools+1)
	assert.Equal(t, "twin", pools[0].Stats.Name)
	assert.Equal(t, fmt.Sprint("short-lived ", 2*debug.EndedPools), pools[2].Stats.Name)
	assert.Equal(t, "closed", pools[2].State)
	assert.Equal(t, "last", pools[len(pools)-1].Stats.Name)
}

// No other pool has to come for the page to let go of those that have ended.
func TestPage_PoolsThatEndAtOnce(t *testing.T) {
	page := new(debug.Page)
	var pools []*workpool.Pool[time.Duration, int]
	for range 3 * debug.EndedPools {
		pools = append(pools, mustNew(t, page, sleep))
	}
	require.Len(t, look(t, page).Pools, len(pools))
	for _, p := range pools[1:] {
		require.NoError(t, p.Close())
	}
	shown := look(t, page).Pools
	require.Len(t, shown, 1+debug.EndedPools)
	assert.Equal(t, "open", shown[0].State)
}

func TestNew_WithoutAPageIsWorkpoolNew(t *testing.T) {
	p := mustNew(t, nil, sleep)
	_, err := p.Do(t.Context(), 0)
	assert.NoError(t, err)
	assert.Nil(t, p.Working(), "it is not observed")
}

func TestNew_RefusesAndKeepsOptions(t *testing.T) {
	page := new(debug.Page)
	p, err := debug.New(page, sleep, workpool.WithWorkers(-1))
	require.ErrorIs(t, err, workpool.ErrInvalidOption)
	assert.Nil(t, p)
	assert.Empty(t, look(t, page).Pools)

	told := 0
	opts := make([]workpool.Option, 0, 8)
	opts = append(opts, workpool.WithObserver(workpool.Observer{End: func(context.Context, workpool.Event) { told++ }}))
	p, err = debug.New(page, sleep, opts...)
	require.NoError(t, err)
	defer p.Close()
	_, err = p.Do(t.Context(), 0)
	require.NoError(t, err)
	require.NoError(t, p.Wait(t.Context()))
	assert.Equal(t, 1, told)
	assert.Equal(t, 1, look(t, page).Pools[0].Run.Count)
	assert.Nil(t, opts[:2][1], "New must not write into the caller's slice")
}

func TestPage_ManyAtOnce(t *testing.T) {
	const goroutines, tasks = 4, 200
	page := new(debug.Page)
	p := mustNew(t, page, func(_ context.Context, n int) (int, error) {
		if n%10 == 0 {
			return 0, fmt.Errorf("error %d", n)
		}
		return n, nil
	}, workpool.WithWorkers(goroutines))
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for n := range tasks {
				assert.NoError(t, p.Submit(t.Context(), n))
			}
		})
		all.Go(func() {
			for range 10 {
				get(t, page, "/?format=html")
				short, err := debug.New(page, sleep)
				assert.NoError(t, err)
				assert.NoError(t, short.Close())
			}
		})
	}
	all.Wait()
	require.NoError(t, p.Wait(t.Context()))
	s := look(t, page).Pools[0]
	assert.Equal(t, goroutines*tasks, s.Run.Count)
	assert.Equal(t, goroutines*tasks, s.Wait.Count)
	assert.EqualValues(t, goroutines*tasks/10, s.Stats.Failed)
}

func TestPage_EscapesEverything(t *testing.T) {
	const evil = `"'></pre></title><script>alert(1)</script><img src=x onerror=alert(1)>` + "\r\ndata: x\xff\u2028"
	page := new(debug.Page)
	p := mustNew(t, page, func(_ context.Context, panics bool) (int, error) {
		if panics {
			panic(evil)
		}
		return 0, errors.New(evil)
	}, workpool.WithName(evil))
	for _, panics := range []bool{true, false} {
		_, err := p.Do(t.Context(), panics)
		require.Error(t, err)
	}
	require.NoError(t, p.Wait(t.Context()))
	failures := look(t, page).Pools[0].Failures
	require.Len(t, failures, 2)
	assert.Contains(t, failures[0].Text, "<script>alert(1)")

	text := html(t, page)
	assert.Equal(t, 1, strings.Count(text, "<script"), "its own")
	assert.NotContains(t, text, "<img")
	assert.Equal(t, 3, strings.Count(text, "&lt;script&gt;alert(1)"))
	assert.Equal(t, 1, strings.Count(text, "</title>"))
	assert.NotContains(t, body(t, get(t, page, "/?format=json")), "<script>")
}

func TestPage_ChangesNothing(t *testing.T) {
	page := new(debug.Page)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "X"} {
		for _, query := range []string{"", "?format=events", "?file=style.css"} {
			r := ask(t, page, method, "/"+query)
			assert.Equal(t, http.StatusMethodNotAllowed, r.StatusCode, method)
			assert.Equal(t, "GET, HEAD", r.Header.Get("Allow"))
		}
	}
	for _, query := range []string{"", "?format=html", "?format=events", "?file=style.css"} {
		assert.Equal(t, http.StatusOK, ask(t, page, http.MethodHead, "/"+query).StatusCode, query)
	}
}

func TestPage_Formats(t *testing.T) {
	page := new(debug.Page)
	for _, test := range []struct {
		target, accept, contentType string
		code                        int
	}{
		{"/", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8", 200},
		{"/", "*/*", "application/json", 200},
		{"/", "", "application/json", 200},
		{"/?format=json", "text/html", "application/json", 200},
		{"/?format=html", "", "text/html; charset=utf-8", 200},
		{"/?format=xml", "", "text/plain; charset=utf-8", 400},
		{"/?file=style.css", "", "text/css; charset=utf-8", 200},
		{"/?file=script.js", "", "text/javascript; charset=utf-8", 200},
		{"/?file=icon.svg", "", "image/svg+xml", 200},
		{"/?file=page.html", "", "text/plain; charset=utf-8", 404},
		{"/?file=../page.go", "", "text/plain; charset=utf-8", 404},
		{"/?file=.css", "", "text/plain; charset=utf-8", 404},
	} {
		r := get(t, page, test.target, "Accept", test.accept)
		assert.Equal(t, test.code, r.StatusCode, test)
		assert.Equal(t, test.contentType, r.Header.Get("Content-Type"), test)
		csp := r.Header.Get("Content-Security-Policy")
		assert.Contains(t, csp, "default-src 'none'")
		assert.NotContains(t, csp, "unsafe")
		assert.Equal(t, "nosniff", r.Header.Get("X-Content-Type-Options"))
		assert.Equal(t, "no-store", r.Header.Get("Cache-Control"))
	}
}

var link = regexp.MustCompile(`(?:href|src)="([^"]*)"`)

func TestPage_WorksWhereverItIsMounted(t *testing.T) {
	page := new(debug.Page)
	mux := http.NewServeMux()
	mux.Handle("/debug/workpool", page)
	mux.Handle("/debug/slash/", page)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", page))
	for _, at := range []string{"/debug/workpool", "/debug/slash/", "/stripped/"} {
		r := get(t, mux, at, "Accept", "text/html")
		require.Equal(t, 200, r.StatusCode, at)
		base, err := url.Parse(at)
		require.NoError(t, err)
		links := link.FindAllStringSubmatch(body(t, r), -1)
		assert.Len(t, links, 3)
		for _, l := range links {
			to, err := base.Parse(l[1])
			require.NoError(t, err)
			assert.Equal(t, 200, get(t, mux, to.String()).StatusCode, to)
		}
	}
	// No style and no script stand in the page itself, which the policy would refuse.
	assert.NotRegexp(t, `style=|<style| on\w+=|<script[^>]*>[^<]`, html(t, page))
}
