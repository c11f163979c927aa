package debug_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/debug"
)

// A network connects clients with a server inside a bubble.
type network struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.ended:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.ended) })
	return nil
}

func (*network) Addr() net.Addr { return &net.UnixAddr{Name: "bubble"} }

func (n *network) dial() net.Conn {
	client, server := net.Pipe()
	n.conns <- server
	return client
}

// serve serves page and counts the requests that are being answered.
func serve(t *testing.T, page *debug.Page, server *http.Server) (n *network, answering func() int) {
	t.Helper()
	n = &network{conns: make(chan net.Conn), ended: make(chan struct{})}
	var mu sync.Mutex
	count := 0
	add := func(d int) { mu.Lock(); defer mu.Unlock(); count += d }
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		add(1)
		defer add(-1)
		page.ServeHTTP(w, r)
	})
	done := make(chan error)
	go func() { done <- server.Serve(n) }()
	t.Cleanup(func() {
		assert.NoError(t, server.Close())
		assert.ErrorIs(t, <-done, http.ErrServerClosed)
	})
	return n, func() int { synctest.Wait(); mu.Lock(); defer mu.Unlock(); return count }
}

// A follower reads a stream.
type follower struct {
	t    *testing.T
	conn net.Conn
	resp *http.Response
	in   *bufio.Reader
}

func (n *network) follow(t *testing.T) *follower {
	t.Helper()
	conn := n.dial()
	t.Cleanup(func() { conn.Close() })
	_, err := io.WriteString(conn, "GET /debug?format=events HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	return &follower{t, conn, resp, bufio.NewReader(resp.Body)}
}

// next returns the HTML of the next event.
func (f *follower) next() (text string, err error) {
	f.t.Helper()
	line, err := f.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	data, ok := strings.CutPrefix(line, "data: ")
	require.True(f.t, ok, line)
	require.NoError(f.t, json.Unmarshal([]byte(data), &text))
	line, err = f.in.ReadString('\n')
	require.Equal(f.t, "\n", line)
	return text, err
}

func TestStream_SendsThePageOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		p := mustNew(t, page, sleep, workpool.WithName("a\r\nb<c>"), workpool.WithWorkers(1), workpool.WithQueueDepth(100))
		// Timeouts that are for short answers do not end the stream.
		n, answering := serve(t, page, &http.Server{ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second, IdleTimeout: time.Second})
		f := n.follow(t)
		assert.Equal(t, "text/event-stream", f.resp.Header.Get("Content-Type"))
		for range 60 {
			require.NoError(t, p.Submit(t.Context(), time.Second-1))
		}
		began := time.Now()
		for i := range 30 {
			text, err := f.next()
			require.NoError(t, err)
			has(t, text, "b&lt;c&gt;")
			has(t, text, fmt.Sprintf("<dt>succeeded</dt><dd>%d<", i))
		}
		assert.InDelta(t, 29, time.Since(began).Seconds(), 1e-3)
		assert.Equal(t, 1, answering())

		f.conn.Close() // the client leaves
		assert.Zero(t, answering())
	})
}

func TestStream_SamplesPoolsThatAreNotObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		p, err := workpool.New(sleep, workpool.WithWorkers(1), workpool.WithoutResults())
		require.NoError(t, err)
		page.Add(p)
		for range 20 {
			require.NoError(t, p.Submit(t.Context(), time.Second))
		}
		n, _ := serve(t, page, &http.Server{})
		f := n.follow(t)
		for range 11 {
			_, err := f.next()
			require.NoError(t, err)
		}
		for i, at := range look(t, page).Pools[0].History[50:] {
			require.NotNil(t, at, i)
			assert.Equal(t, 1, at.Running)
		}
		f.conn.Close()
		require.NoError(t, p.Shutdown(t.Context()))
	})
}

func TestStream_EndsWhenTheServerShutsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		server := &http.Server{}
		server.RegisterOnShutdown(page.Close)
		n, answering := serve(t, page, server)
		followers := []*follower{n.follow(t), n.follow(t)}
		for _, f := range followers {
			_, err := f.next()
			require.NoError(t, err)
		}
		assert.Equal(t, 2, answering())
		shut := make(chan error)
		go func() { shut <- server.Shutdown(t.Context()) }()
		for _, f := range followers {
			_, err := f.next()
			assert.ErrorIs(t, err, io.EOF)
		}
		assert.NoError(t, <-shut)
		assert.Zero(t, answering())

		page.Close() // again
		assert.Equal(t, http.StatusServiceUnavailable, get(t, page, "/?format=events").StatusCode)
		assert.Equal(t, http.StatusOK, get(t, page, "/").StatusCode, "the page itself answers on")
	})
}

func TestStream_DropsAClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		n, answering := serve(t, page, &http.Server{})
		slow, quick := n.follow(t), n.follow(t)
		defer slow.conn.Close()
		for began := time.Now(); time.Since(began) < 2*debug.Patience; {
			_, err := quick.next() // is not held up
			require.NoError(t, err)
		}
		assert.Equal(t, 1, answering())
		quick.conn.Close()
		assert.Zero(t, answering())
	})
}

// A plain response cannot be flushed.
type plain struct{ http.ResponseWriter }

func TestStream_NeedsAServerThatCanFlush(t *testing.T) {
	w := httptest.NewRecorder()
	new(debug.Page).ServeHTTP(plain{w}, httptest.NewRequest(http.MethodGet, "/?format=events", nil))
	assert.Equal(t, http.StatusNotImplemented, w.Code)
	assert.Contains(t, w.Body.String(), http.ErrNotSupported.Error())
}
