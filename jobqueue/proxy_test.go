package jobqueue_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A proxy is a link of the network that can be made a bad one: it stands before a
// server, and what its clients and the server send one another goes through it. It
// needs no rights of the system.
//
// What is held comes through later, as TCP repairs a network that was away; nothing tells
// either side. What is dropped is gone, so the connections that it was of are cut
// when the network is there again.
type proxy struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup
	sent     atomic.Int64 // bytes from clients

	mu       sync.Mutex // guards what follows
	changed  sync.Cond
	up, down way // from clients, and to them
	links    map[*link]bool
}

// A way is one of the two directions.
type way struct {
	held, dropped bool
	delay         time.Duration
	rate          int // bytes a second; 0 is no limit
}

// A link is a connection through the proxy.
type link struct {
	client, server net.Conn
	closed         chan struct{}
	once           sync.Once
	broken         bool // some of it was dropped; guarded by the proxy
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{target: target, listener: l, links: map[*link]bool{}}
	p.changed.L = &p.mu
	p.running.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.heal()
		p.cut()
		p.running.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() {
			server, err := net.DialTimeout("tcp", p.target, time.Minute)
			if err != nil {
				reset(client)
				return
			}
			l := &link{client: client, server: server, closed: make(chan struct{})}
			p.mu.Lock()
			p.links[l] = true
			p.mu.Unlock()
			p.running.Go(func() { p.pass(l, server, client, &p.up) })
			p.pass(l, client, server, &p.down)
			p.mu.Lock()
			delete(p.links, l)
			p.mu.Unlock()
		})
	}
}

// reset closes a connection so that the other side hears of it at once.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0) // it may be closed
	c.Close()
}

func (p *proxy) close(l *link) {
	l.once.Do(func() {
		close(l.closed)
		reset(l.client)
		reset(l.server)
		p.mu.Lock() // or one that is about to wait would not hear of it
		p.changed.Broadcast()
		p.mu.Unlock()
	})
}

// A chunk is what was read at once. The last one of a connection has no data.
type chunk struct {
	data []byte
	due  time.Time
}

// pass passes on what comes from one side to the other, until the connection ends.
func (p *proxy) pass(l *link, to, from net.Conn, w *way) {
	defer p.close(l)
	chunks := make(chan chunk, 256) // on their way, for the delay
	p.running.Go(func() {
		defer close(chunks)
		for {
			data := make([]byte, 16<<10)
			n, err := from.Read(data)
			p.mu.Lock()
			due, rate := time.Now().Add(w.delay), w.rate
			p.mu.Unlock()
			if w == &p.up {
				p.sent.Add(int64(n))
			}
			if n > 0 {
				select {
				case chunks <- chunk{data[:n], due}:
				case <-l.closed:
					return
				}
			}
			if err != nil { // the end is to be delayed and held as all else
				return
			}
			if rate > 0 {
				select {
				case <-time.After(time.Duration(n) * time.Second / time.Duration(rate)):
				case <-l.closed:
					return
				}
			}
		}
	})
	for c := range chunks {
		select {
		case <-time.After(time.Until(c.due)):
		case <-l.closed:
			return
		}
		if p.admit(l, w) {
			if _, err := to.Write(c.data); err != nil {
				return
			}
		}
	}
	p.admit(l, w)
}

// admit waits while the way is held, and tells whether what is there may pass.
func (p *proxy) admit(l *link, w *way) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w.held {
		select {
		case <-l.closed:
			return false
		default:
		}
		p.changed.Wait()
	}
	if w.dropped {
		l.broken = true
	}
	return !w.dropped
}

// set changes what the proxy does, for the connections that there are and new ones.
func (p *proxy) set(change func(up, down *way)) {
	p.mu.Lock()
	change(&p.up, &p.down)
	p.mu.Unlock()
	p.changed.Broadcast()
}

// heal has all pass again, at once.
func (p *proxy) heal() {
	var broken []*link
	p.mu.Lock()
	p.up, p.down = way{}, way{}
	for l := range p.links {
		if l.broken {
			broken = append(broken, l)
		}
	}
	p.mu.Unlock()
	p.changed.Broadcast()
	for _, l := range broken {
		p.close(l)
	}
}

// cut resets all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		p.close(l)
	}
}

func TestProxy_DoesWhatItIsTold(t *testing.T) {
	t.Parallel()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { defer c.Close(); _, _ = io.Copy(c, c) })
		}
	})
	t.Cleanup(serving.Wait)
	t.Cleanup(func() { echo.Close() })
	p := newProxy(t, echo.Addr().String())
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.address())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	say := func(c net.Conn, text string) {
		_, err := io.WriteString(c, text)
		require.NoError(t, err)
	}
	hear := func(c net.Conn, within time.Duration) (string, error) {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(within)))
		data := make([]byte, 100)
		n, err := c.Read(data)
		return string(data[:n]), err
	}
	const long, short = time.Minute, 50 * time.Millisecond

	c := dial()
	say(c, "a")
	text, err := hear(c, long)
	require.NoError(t, err)
	assert.Equal(t, "a", text)

	p.set(func(up, _ *way) { up.delay = short })
	begin := time.Now()
	say(c, "b")
	text, err = hear(c, long)
	require.NoError(t, err)
	assert.Equal(t, "b", text)
	assert.GreaterOrEqual(t, time.Since(begin), short)
	p.heal()

	for _, hold := range []func(up, down *way){
		func(up, _ *way) { up.held = true },
		func(_, down *way) { down.held = true },
	} {
		p.set(hold)
		say(c, "c")
		_, err = hear(c, short)
		require.Error(t, err)
		p.heal()
		text, err = hear(c, long)
		require.NoError(t, err)
		assert.Equal(t, "c", text, "it comes later")
	}

	p.set(func(_, down *way) { down.dropped = true })
	say(c, "d")
	_, err = hear(c, short)
	require.Error(t, err)
	for dropped := false; !dropped; { // a slow machine may not have come to it
		tick := time.NewTimer(time.Millisecond)
		<-tick.C
		p.mu.Lock()
		for l := range p.links {
			dropped = dropped || l.broken
		}
		p.mu.Unlock()
	}
	p.heal()
	_, err = hear(c, long)
	require.Error(t, err, "what is gone has broken the connection")
	require.NotErrorIs(t, err, io.EOF)

	c = dial()
	say(c, "e")
	_, err = hear(c, long)
	require.NoError(t, err)
	p.cut()
	_, err = hear(c, long)
	require.Error(t, err)
}
