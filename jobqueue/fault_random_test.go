package jobqueue_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

var (
	faultFor  = flag.Duration("fault.for", 0, "how long the random faults go on; 0 is one round of each kind")
	faultSeed = flag.Uint64("fault.seed", 0, "the first round of random faults; 0 is one by chance")
)

const (
	// roundLength is for how long things happen in one round. Then all is healed, and
	// the jobs have to end.
	roundLength = 5 * time.Second
	// faultAckWait is short, so that some workers are away for longer.
	faultAckWait = 1500 * time.Millisecond
	faultWorkers = 3
	faultSlots   = 8
)

// TestFault_Random has servers and workers die, freeze and be cut off at random, while
// jobs are submitted, and holds the streams against a ledger: each job that was
// accepted has one result, or one dead letter if its handler fails for good.
//
// The seed of a round is in the name of its test. With it, a round has the same faults
// at the same times; what comes of them is up to the machine.
//
//	go test -run Fault_Random . -fault.for=3h -timeout 0
//	go test -run Fault_Random . -fault.seed=7
func TestFault_Random(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string]int{"one server": 1, "cluster": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rounds(t, func(t *testing.T, seed uint64) { newWorld(t, seed, servers).round() })
		})
	}
}

// rounds runs rounds, each with a seed of its own, until -fault.for is over or one fails.
func rounds(t *testing.T, round func(t *testing.T, seed uint64)) {
	t.Helper()
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64N(1e9)
	}
	for begin := time.Now(); ; seed++ {
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { round(t, seed) })
		if !ok || time.Since(begin) >= *faultFor {
			return
		}
	}
}

// A world is what one round takes place in.
type world struct {
	t      *testing.T
	random *rand.Rand
	begin  time.Time
	ledger *ledger

	roles    []role     // of the servers
	before   [][]string // the command that each is started by
	urls     string     // of the servers, for clients
	networks []func()   // what happens to the network
	peers    [][]*proxy // of each server, those to it and from it

	servers []*process
	workers []*process
	queue   *jobqueue.Queue[string, string]
	js      jetstream.JetStream
}

// newWorld returns a world whose links all go through proxies: one before each server
// for the clients, and one for the way of each server to each other.
func newWorld(t *testing.T, seed uint64, servers int) *world {
	t.Helper()
	w := &world{t: t, before: make([][]string, servers)}
	var urls, routes []string
	var clients []*proxy
	for range servers {
		address := free(t)
		p := newProxy(t, address)
		clients = append(clients, p)
		urls = append(urls, "nats://"+p.address())
		w.roles = append(w.roles, role{Faults: true, Dir: t.TempDir(), Listen: address})
		routes = append(routes, free(t))
	}
	w.urls = strings.Join(urls, ",")
	w.networks = append(w.networks, func() {
		i := w.random.IntN(servers)
		w.bad(fmt.Sprintf("between the clients and server %d", i), clients[i])
	})
	if servers > 1 {
		w.peers = make([][]*proxy, servers)
		for i := range servers {
			w.roles[i].Name = fmt.Sprintf("node%d", i)
			w.roles[i].Mesh = &embedded.Cluster{Name: "test", Listen: routes[i], Secret: "between servers"}
			for j := range servers {
				if i != j {
					p := newProxy(t, routes[j])
					w.roles[i].Mesh.Routes = append(w.roles[i].Mesh.Routes, p.address())
					w.peers[i], w.peers[j] = append(w.peers[i], p), append(w.peers[j], p)
				}
			}
		}
		w.networks = append(w.networks, func() {
			i := w.random.IntN(servers)
			w.bad(fmt.Sprintf("between server %d and the others", i), w.peers[i]...)
		})
	}
	w.start(seed)
	return w
}

// start starts what the world consists of.
func (w *world) start(seed uint64) {
	t := w.t
	t.Helper()
	w.random, w.ledger = rand.New(rand.NewPCG(seed, 0)), newLedger(t)
	for i := range w.roles {
		w.servers = append(w.servers, w.spawnServer(i))
	}
	for _, p := range w.servers {
		p.awaitReady()
	}
	nc, err := nats.Connect(w.urls, faultConnection()...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	w.js, err = jetstream.New(nc)
	require.NoError(t, err)
	w.queue, err = openFaults(limit(t), nc, len(w.servers))
	require.NoError(t, err)
	for range faultWorkers {
		w.workers = append(w.workers, w.spawnWorker())
	}
}

func (w *world) spawnServer(i int) *process { return spawn(w.t, w.roles[i], w.before[i]...) }

// faultConnection has the options of all connections. A server that does not answer is
// left soon.
func faultConnection() []nats.Option {
	return []nats.Option{
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.ReconnectWait(50 * time.Millisecond), nats.Timeout(2 * time.Second),
		nats.PingInterval(500 * time.Millisecond), nats.MaxPingsOutstanding(2),
	}
}

func openFaults(ctx context.Context, nc *nats.Conn, replicas int) (*jobqueue.Queue[string, string], error) {
	return jobqueue.Open[string, string](ctx, nc, "test",
		jobqueue.WithReplicas(replicas),
		jobqueue.WithAckWait(faultAckWait),
		jobqueue.WithMaxAttempts(1000), // the jobs that are to end as letters say so
		jobqueue.WithDedupeWindow(time.Hour),
		jobqueue.WithBackoff(func(int) time.Duration { return 20 * time.Millisecond }))
}

// serveFaults is a server that tells clients and other servers nothing of addresses by
// which they could get past the proxies.
func (r *role) serveFaults(term context.Context) error {
	opts := []embedded.Option{rareSync, embedded.WithListen(r.Listen), embedded.WithServerOptions(func(o *server.Options) {
		o.Cluster.NoAdvertise = true
		if r.Mesh != nil && r.Token == "" {
			o.Cluster.Advertise = "127.0.0.1:1"
		}
	})}
	if r.Mesh != nil {
		opts = append(opts, embedded.WithName(r.Name), embedded.WithCluster(*r.Mesh))
	}
	if r.Token != "" {
		opts = append(opts, embedded.WithToken(r.Token))
	}
	s, err := embedded.Start(r.Dir, opts...)
	if err != nil {
		return err
	}
	defer s.Shutdown()
	fmt.Println("ready")
	<-term.Done()
	return nil
}

// The kinds of jobs, by how their payload begins.
const (
	jobGood  = "good"  // has a result
	jobFlaky = "flaky" // has a result, at the second attempt or a later one
	jobBad   = "bad"   // has a dead letter
)

func isBad(payload string) bool { return strings.HasPrefix(payload, jobBad) }

// workFaults is a worker that writes a notebook.
func (r *role) workFaults(term context.Context) error {
	nc, err := nats.Connect(r.URLs, faultConnection()...)
	if err != nil {
		return err
	}
	defer nc.Close()
	var q *jobqueue.Queue[string, string]
	for { // whatever happens to the servers meanwhile
		if q, err = openFaults(context.Background(), nc, r.Options.Replicas); err == nil {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-term.Done():
			return nil
		}
	}
	notes, err := openNotebook(r.Log)
	if err != nil {
		return err
	}
	defer notes.file.Close()
	w, err := q.Work(context.Background(), func(ctx context.Context, payload string) (string, error) {
		job, _ := jobqueue.JobFrom(ctx)
		if err := notes.note(noteBegun, job.ID); err != nil {
			return "", err
		}
		pass(ctx, rand.N(5*time.Millisecond))
		switch {
		case isBad(payload):
			return "", errors.Join(workpool.Permanent(errors.New("for good")), notes.note(noteFailed, job.ID))
		case strings.HasPrefix(payload, jobFlaky) && job.Attempt < 2:
			return "", errors.Join(errors.New("once more"), notes.note(noteFailed, job.ID))
		}
		return payload, notes.note(noteEnded, job.ID)
	}, jobqueue.WithConcurrency(r.Concurrency))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-term.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // a server may be away
	defer cancel()
	if err := w.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (w *world) spawnWorker() *process {
	return spawn(w.t, role{Faults: true, URLs: w.urls, Concurrency: faultSlots, Options: queueOptions{Replicas: len(w.servers)}, Log: w.ledger.dir})
}

// round runs one round to its end.
func (w *world) round() {
	w.begin = time.Now()
	over, stop := context.WithCancel(w.t.Context())
	defer stop()
	var submitters sync.WaitGroup
	const parallel = 4
	for k := range parallel {
		submitters.Go(func() { w.submit(over, k) })
	}
	for time.Since(w.begin) < roundLength {
		w.fault()
		w.rest(50, 500)
	}
	stop()
	submitters.Wait()
	for _, p := range w.workers {
		select {
		case <-p.exited:
			w.t.Errorf("a worker has ended: %v", p.err)
		default:
		}
	}
	w.ledger.check(w.t, w.queue, w.js)
	w.t.Logf("%v in all", time.Since(w.begin).Round(time.Millisecond))
}

// submit submits jobs until the faults are over. A few submitters give up.
func (w *world) submit(over context.Context, k int) {
	random := rand.New(rand.NewPCG(uint64(k), 1))
	for i := 0; over.Err() == nil; i++ {
		id, payload := fmt.Sprintf("job-%d-%d", k, i), jobGood
		switch random.IntN(10) {
		case 0:
			payload = jobBad
		case 1:
			payload = jobFlaky
		}
		payload += strings.Repeat(".", random.IntN(300))
		patience := time.Minute
		if random.IntN(50) == 0 {
			patience = time.Duration(random.IntN(20)) * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), patience)
		_, err := w.queue.Submit(ctx, payload, jobqueue.WithID(id), jobqueue.WithPriority(workpool.Priority(random.IntN(3)-1)))
		cancel()
		w.ledger.submitted(id, payload, err)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("submitting %s: %v", id, err)
			return
		}
		pass(over, time.Duration(random.IntN(2000))*time.Microsecond)
	}
}

// rest lets some time pass.
func (w *world) rest(least, most int) {
	pass(w.t.Context(), time.Duration(least+w.random.IntN(most-least))*time.Millisecond)
}

// fault has one thing happen, from its beginning to its end.
func (w *world) fault() {
	faults := []func(){w.killWorker, w.terminateWorker, w.freezeWorker, w.killServer, w.killAll, w.freezeServer}
	for _, network := range w.networks {
		faults = append(faults, network, network) // there are many kinds of each
	}
	faults[w.random.IntN(len(faults))]()
}

func (w *world) say(format string, args ...any) {
	w.t.Logf("%6d ms: "+format, append([]any{time.Since(w.begin).Milliseconds()}, args...)...)
}

func (w *world) killWorker() {
	i := w.random.IntN(len(w.workers))
	w.say("worker %d is killed", i)
	w.workers[i].kill()
	w.workers[i] = w.spawnWorker()
}

func (w *world) terminateWorker() {
	i := w.random.IntN(len(w.workers))
	w.say("worker %d is terminated", i)
	ready := false
	select {
	case <-w.workers[i].ready:
		ready = true
	default: // SIGTERM may end it as it does any process
	}
	if err := w.workers[i].terminate(); err != nil && ready {
		w.t.Errorf("a terminated worker: %v", err)
	}
	w.workers[i] = w.spawnWorker()
}

// pause freezes a process for some time, which may be longer than AckWait.
func (w *world) pause(p *process) {
	_ = p.freeze() // it may have ended
	w.rest(100, 2500)
	_ = p.thaw()
}

func (w *world) freezeWorker() {
	i := w.random.IntN(len(w.workers))
	w.say("worker %d freezes", i)
	w.pause(w.workers[i])
}

func (w *world) freezeServer() {
	i := w.random.IntN(len(w.servers))
	w.say("server %d freezes", i)
	w.pause(w.servers[i])
}

func (w *world) killServer() {
	i := w.random.IntN(len(w.servers))
	w.say("server %d is killed", i)
	w.servers[i].kill()
	w.rest(0, 2000)
	w.servers[i] = w.spawnServer(i)
	w.servers[i].awaitReady()
}

func (w *world) killAll() {
	w.say("all servers are killed")
	for _, p := range w.servers {
		p.kill()
	}
	for i := range w.servers {
		w.servers[i] = w.spawnServer(i)
	}
	for _, p := range w.servers {
		p.awaitReady()
	}
}

// badNetworks are the ways in which a network can be bad for some time.
var badNetworks = []struct {
	what string
	set  func(up, down *way)
}{
	{"nothing gets through", func(up, down *way) { up.held, down.held = true, true }},
	{"nothing gets through upwards", func(up, _ *way) { up.held = true }},
	{"nothing gets through downwards", func(_, down *way) { down.held = true }},
	{"what goes up is lost", func(up, _ *way) { up.dropped = true }},
	{"what comes down is lost", func(_, down *way) { down.dropped = true }},
	{"all takes 50 ms", func(up, down *way) { up.delay, down.delay = 50*time.Millisecond, 50*time.Millisecond }},
}

func (w *world) bad(where string, links ...*proxy) {
	kind := w.random.IntN(len(badNetworks) + 1)
	if kind == len(badNetworks) {
		w.say("all connections are cut %s", where)
		for _, p := range links {
			p.cut()
		}
		return
	}
	w.say("%s %s", badNetworks[kind].what, where)
	for _, p := range links {
		p.set(badNetworks[kind].set)
	}
	w.rest(100, 2500)
	for _, p := range links {
		p.heal()
	}
}
