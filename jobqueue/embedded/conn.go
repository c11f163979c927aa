package embedded

import (
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// maxUnsent is how much a client may write ahead of the server.
	maxUnsent = 1 << 20
	// closePatience is how long a Close waits for the server to take the rest.
	closePatience = time.Second
)

// inProcess makes the connections of [Server.Connect].
type inProcess struct{ server *server.Server }

// InProcessConn returns a new connection to the server.
func (p inProcess) InProcessConn() (net.Conn, error) {
	pipe, err := p.server.InProcessConn()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: pipe}
	c.changed.L = &c.mu
	go c.pump()
	return c, nil
}

// A conn is the client's end of a net.Pipe, with a buffer for what it writes. In a
// bare pipe each side waits for the other to read: a client that is refused goes on
// writing, while the server, which says why, waits for ten seconds to be heard.
type conn struct {
	net.Conn

	mu      sync.Mutex // guards the rest
	changed sync.Cond
	unsent  []byte // written by the client and not taken by the pump
	sending bool   // the pump has something in hand
	closed  bool
	err     error // of the pump
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.unsent) >= maxUnsent && c.err == nil && !c.closed {
		c.changed.Wait()
	}
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closed:
		return 0, net.ErrClosed
	}
	c.unsent = append(c.unsent, p...)
	c.changed.Broadcast()
	return len(p), nil
}

// pump passes on what is written until the connection is closed.
func (c *conn) pump() {
	var spare []byte
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil {
		if len(c.unsent) == 0 {
			if c.closed {
				return
			}
			c.changed.Wait()
			continue
		}
		data := c.unsent
		c.unsent, c.sending = spare[:0], true
		c.mu.Unlock()
		_, err := c.Conn.Write(data)
		c.mu.Lock()
		spare, c.sending, c.err = data, false, err
		c.changed.Broadcast()
	}
}

// Close closes the connection when the server has taken what was written.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.changed.Broadcast()
	late := false
	timer := time.AfterFunc(closePatience, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		late = true
		c.changed.Broadcast()
	})
	for (len(c.unsent) > 0 || c.sending) && c.err == nil && !late {
		c.changed.Wait()
	}
	timer.Stop()
	c.mu.Unlock()
	return c.Conn.Close()
}
