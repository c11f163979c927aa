// Package browsertest looks at the page of package debug in a headless Chromium.
package browsertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/debug"
)

// patience is for a browser on a busy machine.
const patience = 2 * time.Minute

var browsers = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell"}

// start returns the context of a browser.
func start(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range browsers {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skipf("no browser: none of %s is installed", strings.Join(browsers, ", "))
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path)}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // in which root can't run it
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithAllocatorOptions(options...))
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx), "the browser has to start")
	return ctx
}

// A tab is one of the browser's, with what was written to its console.
type tab struct {
	t       *testing.T
	ctx     context.Context
	console chan string
}

const lastMessage = "the test has ended"

func open(t *testing.T, browser context.Context, address string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	tab := &tab{t, ctx, make(chan string, 1)}
	messages := chromedp.Console(ctx)
	go func() {
		var all strings.Builder
		defer func() { tab.console <- all.String() }()
		for m, err := range messages {
			if err != nil || m.Text == lastMessage {
				return
			}
			fmt.Fprintln(&all, m)
		}
	}()
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(address)))
	tab.await(`document.getElementById('live').textContent === 'live'`)
	return tab
}

// written returns what the console has.
func (tab *tab) written() string {
	tab.t.Helper()
	eval[any](tab, `console.log('`+lastMessage+`')`)
	return <-tab.console
}

// eval returns the value of an expression in the page.
func eval[T any](tab *tab, expression string) T {
	tab.t.Helper()
	value, err := chromedp.Run(tab.ctx, chromedp.Evaluate[T](expression))
	require.NoError(tab.t, err, expression)
	return value
}

// await waits until an expression is true.
func (tab *tab) await(expression string) {
	tab.t.Helper()
	_, err := chromedp.Run(tab.ctx, chromedp.Poll[any](expression, chromedp.WithPollingTimeout(patience)))
	require.NoError(tab.t, err, expression)
}

// counter is an expression for a counter of the first pool.
func counter(name string) string {
	return `Number([...document.querySelectorAll('#pool-1 .counters div')].` +
		`find(d => d.firstChild.textContent === '` + name + `').lastChild.textContent.replaceAll(',', ''))`
}

// A site is a page behind a proxy that serves it under a prefix of its own.
type site struct {
	address string
	page    *debug.Page
	pool    *workpool.Pool[string, int]
}

const evil = `<script>document.title = 'broken'</script><img src=x onerror="document.title = 'broken'">`

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{page: new(debug.Page)}
	var err error
	s.pool, err = debug.New(s.page, func(ctx context.Context, task string) (int, error) {
		switch task {
		case "fail":
			return 0, errors.New(strings.Repeat("x", 500) + evil)
		case "panic":
			panic(evil)
		case "block":
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return 0, nil
	}, workpool.WithName("thumbnails"), workpool.WithWorkers(8), workpool.WithoutResults(), workpool.WithShutdown(workpool.Abort, 0))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.pool.Close()) })
	for _, task := range []string{"fail", "panic"} {
		_, err := s.pool.Do(t.Context(), task)
		require.Error(t, err)
	}
	for range 2 {
		require.NoError(t, s.pool.Submit(t.Context(), "block"))
	}
	other, err := workpool.New(workpool.NoValue(func(context.Context, int) error { return nil }),
		workpool.WithName(strings.Repeat("long", 50)+evil))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, other.Close()) })
	s.page.Add(other)

	mux := http.NewServeMux()
	mux.Handle("/debug/workpool", s.page)
	backend := httptest.NewServer(mux)
	t.Cleanup(backend.Close)
	t.Cleanup(s.page.Close)
	to, err := url.Parse(backend.URL)
	require.NoError(t, err)
	proxy := httptest.NewServer(http.StripPrefix("/team/tools", &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
	}))
	t.Cleanup(proxy.Close)
	s.address = proxy.URL + "/team/tools/debug/workpool"
	return s
}

func TestPage(t *testing.T) {
	browser := start(t)
	s := newSite(t)

	t.Run("NumbersMove", func(t *testing.T) {
		tab := open(t, browser, s.address)
		before := eval[int](tab, counter("succeeded"))
		for range 100 {
			require.NoError(t, s.pool.Submit(t.Context(), "work"))
		}
		tab.await(fmt.Sprint(counter("succeeded"), " === ", before+100))
		tab.await(`document.querySelector('#pool-1 .line').getAttribute('d').includes('L')`)
		assert.Equal(t, 2, eval[int](tab, `document.querySelectorAll('#pool-1 .cell:is(.busy, .long)').length`))
		assert.Empty(t, tab.written())
	})

	t.Run("NamesAndErrorsAreText", func(t *testing.T) {
		tab := open(t, browser, s.address)
		assert.Equal(t, 3, eval[int](tab, `document.querySelector('main').textContent.split("<script>document.title").length - 1`))
		assert.Zero(t, eval[int](tab, `document.querySelectorAll('main script, main img').length`))
		assert.NotEqual(t, "broken", eval[string](tab, `document.title`))
		assert.Empty(t, tab.written())
	})

	t.Run("WhatIsOpenStaysOpen", func(t *testing.T) {
		tab := open(t, browser, s.address)
		eval[any](tab, `window.details = document.querySelector('details'); details.open = true; getSelection().selectAllChildren(details); null`)
		selected := eval[string](tab, `String(getSelection())`)
		assert.Contains(t, selected, "browsertest")
		before := `document.querySelector('#pool-1 .failures b').closest('li').previousElementSibling`
		_, err := s.pool.Do(t.Context(), "fail") // goes to the top of the list
		require.Error(t, err)
		tab.await(before + ` !== null`)
		assert.Equal(t, selected, eval[string](tab, `String(getSelection())`))
		_, err = s.pool.Do(t.Context(), "panic")
		require.Error(t, err)
		tab.await(before + ` === null`)
		assert.True(t, eval[bool](tab, `details.isConnected && details.open`))
		assert.Equal(t, 2, eval[int](tab, `document.querySelectorAll('#pool-1 .failures li').length`), "both have happened before")
		assert.Empty(t, tab.written())
	})

	t.Run("DarkAndLight", func(t *testing.T) {
		tab := open(t, browser, s.address)
		// brightness of a colour such as rgb(1, 2, 3)
		brightness := func(scheme, property string) int {
			_, err := chromedp.Call(tab.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
			})
			require.NoError(t, err)
			return eval[int](tab, `getComputedStyle(document.body).`+property+`.match(/\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)`)
		}
		assert.Greater(t, brightness("light", "backgroundColor"), 600)
		assert.Less(t, brightness("light", "color"), 200)
		assert.Less(t, brightness("dark", "backgroundColor"), 100)
		assert.Greater(t, brightness("dark", "color"), 600)
		assert.Empty(t, tab.written())
	})

	t.Run("OnAPhone", func(t *testing.T) {
		tab := open(t, browser, s.address)
		for _, width := range []int64{320, 375, 700, 1000} {
			require.NoError(t, chromedp.Do(tab.ctx, chromedp.EmulateViewport(width, 800, chromedp.EmulateMobile)))
			eval[any](tab, `document.querySelectorAll('details').forEach(d => d.open = true)`)
			assert.LessOrEqual(t, eval[int64](tab, `document.documentElement.scrollWidth`), width)
		}
		assert.Empty(t, tab.written())
	})

	t.Run("SaysWhenTheServerIsGone", func(t *testing.T) {
		tab := open(t, browser, s.address)
		s.page.Close()
		tab.await(`document.getElementById('live').textContent === 'no connection'`)
	})
}
