package debug

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/seed-a18b2dc9/workpool"
)

// A Pool is anything that a page can show, such as a *workpool.Pool of any types.
type Pool interface {
	Stats() workpool.Stats
	Working() []workpool.Event
}

// A Page is an [http.Handler] that shows pools. The zero Page is ready for use and must not be
// copied. All methods are safe for concurrent use.
type Page struct {
	mu      sync.Mutex // guards what follows
	watches []*watch   // in the order of New and Add
	made    int
	over    chan struct{} // closed by Close; nil if nobody has asked for it
	closed  bool
}

// endedPools is how many pools that have ended a page keeps.
const endedPools = 8

// New creates a pool, as [workpool.New] does, and shows it on page in full detail: run and wait
// times, what the workers are doing, and failures. It adds an observer by
// [workpool.WithObserver], besides any observers among opts. The worker gets the text of an
// error at the end of the task, so an Error method that blocks holds its worker. If page is
// nil, New is workpool.New.
func New[T, R any](page *Page, handler workpool.Handler[T, R], opts ...workpool.Option) (*workpool.Pool[T, R], error) {
	if page == nil {
		return workpool.New(handler, opts...)
	}
	w := newWatch()
	pool, err := workpool.New(handler, append(slices.Clip(opts), w.observe())...)
	if err != nil {
		return nil, err
	}
	w.pool = pool
	page.add(w)
	return pool, nil
}

// Add shows a pool that was not created by [New]: the numbers of Stats, their history while
// somebody views the page, and, if the pool has an observer, what its workers are doing. Pools
// may have the same name. Of pools that have ended, the page keeps the last eight; it drops
// the others when it is viewed or gets another pool.
func (p *Page) Add(pool Pool) {
	w := newWatch()
	w.pool, w.observed = pool, false
	p.add(w)
}

func (p *Page) add(w *watch) {
	w.sample()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made++
	w.number = p.made
	p.watches = append(p.watches, w)
	p.forgetLocked()
}

// forgetLocked drops the first pools that have ended, if there are too many.
func (p *Page) forgetLocked() {
	surplus := -endedPools
	for _, w := range p.watches {
		if w.ended = w.ended || ended(w.pool.Stats()); w.ended {
			surplus++
		}
	}
	p.watches = slices.DeleteFunc(p.watches, func(w *watch) bool {
		if surplus <= 0 || !w.ended {
			return false
		}
		surplus--
		return true
	})
}

// ended tells whether nothing happens any more in a pool.
func ended(s workpool.Stats) bool { return s.Closed && s.Queued == 0 && s.Running == 0 }

func (p *Page) list() []*watch {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked()
	return slices.Clone(p.watches)
}

// Close ends the live views and allows no new ones; the page still answers, with the state when
// it is loaded. [http.Server.Shutdown] waits for live views, so register Close with it:
//
//	server.RegisterOnShutdown(page.Close)
func (p *Page) Close() {
	done := p.done()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(done)
	}
}

// done returns a channel that Close closes.
func (p *Page) done() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over == nil {
		p.over = make(chan struct{})
	}
	return p.over
}

// policy lets a page load from its own address what it needs, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP answers with the page. It ignores the path, and links only to its own address with
// another query. So it works wherever it is mounted, also behind a proxy that adds a prefix.
//
// A client that does not ask for HTML, such as curl, gets the same as JSON, with times in
// seconds. The queries format=html and format=json override this. The query format=events is
// the stream of server-sent events that the page follows.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the page changes nothing: only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	query := r.URL.Query()
	if file := query.Get("file"); file != "" {
		serveFile(w, r, file)
		return
	}
	format := query.Get("format")
	if format == "" {
		format = "json"
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			format = "html"
		}
	}
	switch format {
	case "html":
		answer(w, "text/html; charset=utf-8", render("page.html", p.look()))
	case "json":
		body, err := json.MarshalIndent(p.look(), "", "\t")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, "application/json", append(body, '\n'))
	case "events":
		p.stream(w, r)
	default:
		http.Error(w, fmt.Sprintf("format %q is none of html, json and events", format), http.StatusBadRequest)
	}
}

func answer(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body) // an error is that the client has left
}
