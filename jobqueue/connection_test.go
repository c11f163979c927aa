package jobqueue_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// A lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// Not parallel: it has the default logger for itself.
func TestOpen_WarnsOfConnectionsThatGiveUp(t *testing.T) {
	s := start(t, embedded.WithListen("127.0.0.1:0"))
	for name, test := range map[string]struct {
		opts []nats.Option
		want []string
	}{
		"defaults":      {nil, []string{"gives up after 60 attempts", "noticed after up to 6m0s", "given up after 1m0s"}},
		"reliable":      {[]nats.Option{jobqueue.Reliable()}, nil},
		"no reconnect":  {[]nats.Option{jobqueue.Reliable(), nats.NoReconnect()}, []string{"reconnects=never"}},
		"slow pings":    {[]nats.Option{jobqueue.Reliable(), nats.PingInterval(time.Minute)}, []string{"noticed after up to 3m0s"}},
		"no pings":      {[]nats.Option{jobqueue.Reliable(), nats.PingInterval(-1)}, []string{"never noticed"}},
		"slow by their": {[]nats.Option{jobqueue.Reliable(), nats.FlusherTimeout(time.Hour)}, []string{"given up after 1h0m0s"}},
	} {
		var log lines
		slog.SetDefault(log.logger())
		nc, err := nats.Connect(s.URL(), append(test.opts, patient)...)
		require.NoError(t, err)
		openOn[int, int](t, nc)
		nc.Close()
		openOn[int, int](t, connect(t, s))
		slog.SetDefault(quiet)
		for _, want := range test.want {
			assert.Contains(t, log.String(), want, name)
		}
		assert.Equal(t, min(1, len(test.want)), strings.Count(log.String(), "does not keep what the queue promises"), name)
	}
}

// byProxy returns a queue on a server, opened through a proxy.
func byProxy(t *testing.T, opts ...nats.Option) (*jobqueue.Queue[[]byte, int], *proxy) {
	t.Helper()
	s := start(t, embedded.WithListen("127.0.0.1:0"))
	p := newProxy(t, strings.TrimPrefix(s.URL(), "nats://"))
	nc, err := nats.Connect(p.address(), append([]nats.Option{jobqueue.Reliable(), patient}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return openOn[[]byte, int](t, nc), p
}

// hold has nothing pass.
func hold(up, down *way) { up.held, down.held = true, true }

// The acknowledgement of a message that was sent again counts, whichever it is for.
func TestSubmit_OverALongLink(t *testing.T) {
	t.Parallel()
	q, p := byProxy(t)
	p.set(func(up, down *way) { up.delay, down.delay = 1300*time.Millisecond, 1300*time.Millisecond })
	before := p.sent.Load()
	id, err := q.Submit(limit(t), make([]byte, 10_000))
	require.NoError(t, err)
	assert.NotEmpty(t, id)
	assert.Less(t, p.sent.Load()-before, int64(20_000), "it is sent once")
}

func TestSubmitAll_OverASlowLinkSendsNothingTwice(t *testing.T) {
	t.Parallel()
	q, p := byProxy(t)
	p.set(func(up, _ *way) { up.rate = 600_000 })
	const jobs, size = 12, 150_000 // 200,000 bytes each as JSON: four seconds in all
	before := p.sent.Load()
	n, err := q.SubmitAll(limit(t), slices.Values(slices.Repeat([][]byte{make([]byte, size)}, jobs)))
	require.NoError(t, err)
	assert.Equal(t, jobs, n)
	sent := p.sent.Load() - before
	t.Logf("%d bytes sent for %d", sent, jobs*size*4/3)
	assert.Less(t, sent, int64(jobs*size*4/3*11/10))
}

func TestSubmit_ReturnsWhenItsContextEndsOnAFullSocket(t *testing.T) {
	t.Parallel()
	q, p := byProxy(t, nats.FlusherTimeout(time.Minute), nats.PingInterval(time.Minute))
	p.set(hold)
	flood, end := context.WithCancel(limit(t))
	var flooded sync.WaitGroup
	flooded.Go(func() {
		_, err := q.SubmitAll(flood, slices.Values(slices.Repeat([][]byte{make([]byte, 700_000)}, 40)))
		assert.ErrorIs(t, err, context.Canceled)
	})
	for last, same := int64(-1), 0; same < 5; { // until the socket takes nothing more
		tick := time.NewTimer(50 * time.Millisecond)
		<-tick.C
		if now := p.sent.Load(); now == last {
			same++
		} else {
			last, same = now, 0
		}
	}
	for range 2 {
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		begin := time.Now()
		_, err := q.Submit(short, nil)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Less(t, time.Since(begin), 10*time.Second)
	}
	begin := time.Now()
	end()
	flooded.Wait()
	assert.Less(t, time.Since(begin), 20*time.Second)
	p.heal()
	_, err := q.Submit(limit(t), nil)
	require.NoError(t, err)
}

func TestSubmit_SaysThatTheStorageOfTheServerIsFull(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.WithServerOptions(func(o *server.Options) { o.JetStreamMaxStore = 1 << 20 }))
	q := openOn[[]byte, int](t, connect(t, s))
	var err error
	for err == nil {
		_, err = q.Submit(limit(t), make([]byte, 100_000))
	}
	require.ErrorIs(t, err, workpool.ErrQueueFull)
	require.ErrorContains(t, err, "resources")

	// Those who wait for room are told why there was none.
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = q.SubmitAll(short, slices.Values([][]byte{make([]byte, 100_000)}))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, workpool.ErrQueueFull)
}

// passes submits a job and waits for its result, and returns how long that took.
func passes(t *testing.T, q *jobqueue.Queue[string, string]) time.Duration {
	t.Helper()
	begin := time.Now()
	id, err := q.Submit(limit(t), "job")
	if assert.NoError(t, err) {
		_, err = q.Result(limit(t), id)
		assert.NoError(t, err)
	}
	return time.Since(begin)
}

// client returns the queue as a client with a worker has it that connects to url.
func (r *run) client(url string, opts ...nats.Option) *jobqueue.Queue[string, string] {
	r.t.Helper()
	// The timeout is what it takes to leave a frozen server that was tried again.
	nc, err := nats.Connect(url, append([]nats.Option{jobqueue.Reliable(), nats.Timeout(5 * time.Second)}, opts...)...)
	require.NoError(r.t, err)
	r.t.Cleanup(nc.Close)
	q, err := jobqueue.Open[string, string](limit(r.t), nc, "test", r.options.options()...)
	require.NoError(r.t, err)
	work(r.t, q, func(_ context.Context, s string) (string, error) { return s, nil })
	passes(r.t, q)
	return q
}

func TestFault_FrozenLeaderIsLeft(t *testing.T) {
	t.Parallel()
	urls, _, nodes := cluster(t)
	r := newRun(t, urls, queueOptions{Replicas: 3, MaxAttempts: 10})
	lead := r.leader()
	clients := map[string]*jobqueue.Queue[string, string]{}
	for node := range nodes {
		clients[node] = r.client("nats://" + r.addressOf(node))
	}
	require.NoError(t, nodes[lead].freeze())
	var all sync.WaitGroup
	for node, q := range clients {
		all.Go(func() {
			took := passes(t, q)
			t.Logf("the leader was frozen, the client connected to it: %v; its next job ended after %v", node == lead, took.Round(100*time.Millisecond))
			assert.Less(t, took, time.Minute)
		})
	}
	all.Wait()
}

// addressOf returns the address for clients of a server of the cluster.
func (r *run) addressOf(name string) string {
	r.t.Helper()
	for url := range strings.SplitSeq(r.urls, ",") {
		nc, err := nats.Connect(url, patient)
		require.NoError(r.t, err)
		is := nc.ConnectedServerName()
		nc.Close()
		if is == name {
			return strings.TrimPrefix(url, "nats://")
		}
	}
	require.Fail(r.t, "there is no server "+name)
	return ""
}

func TestFault_BlackHoleIsLeft(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.WithListen("127.0.0.1:0"))
	r := newRun(t, s.URL(), queueOptions{MaxAttempts: 10})
	p := newProxy(t, strings.TrimPrefix(s.URL(), "nats://"))
	q := r.client("nats://"+p.address()+","+s.URL(), nats.DontRandomize())
	p.set(hold)
	took := passes(t, q)
	t.Logf("the network swallowed everything: the next job ended after %v", took.Round(100*time.Millisecond))
	assert.Less(t, took, time.Minute)
}

// A server that is cut from the others alone still answers its clients' pings. They leave
// it for one of the others.
func TestFault_ServerCutFromItsPeers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 3)
	stream, err := w.js.Stream(limit(t), "test_jobs")
	require.NoError(t, err)
	lead := stream.CachedInfo().Cluster.Leader
	for i := range w.roles {
		if w.roles[i].Name == lead {
			w.cutFromPeers(i, "the leader")
			w.cutFromPeers((i+1)%len(w.roles), "another server")
			return
		}
	}
	require.Fail(t, "no server leads", lead)
}

// cutFromPeers cuts a server from the others, has a client of each server go on, and ends
// the cut.
func (w *world) cutFromPeers(cut int, which string) {
	t := w.t
	t.Helper()
	var clients []*jobqueue.Queue[string, string]
	var connections []*nats.Conn
	urls := strings.Split(w.urls, ",")
	for i := range urls {
		nc, err := nats.Connect(strings.Join(slices.Concat(urls[i:], urls[:i]), ","), jobqueue.Reliable(), nats.DontRandomize(), nats.Timeout(5*time.Second))
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		q, err := openFaults(limit(t), nc, len(w.roles))
		require.NoError(t, err)
		passes(t, q)
		clients, connections = append(clients, q), append(connections, nc)
	}
	for _, p := range w.peers[cut] {
		p.set(hold)
	}
	var all sync.WaitGroup
	for i, q := range clients {
		all.Go(func() {
			took := passes(t, q)
			t.Logf("%s was cut from the others, the client connected to it: %v; its next job ended after %v, reconnects: %d",
				which, i == cut, took.Round(100*time.Millisecond), connections[i].Stats().Reconnects)
			assert.Less(t, took, time.Minute)
		})
	}
	all.Wait()
	for _, p := range w.peers[cut] {
		p.heal()
	}
	for _, nc := range connections {
		nc.Close()
	}
}
