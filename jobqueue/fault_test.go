package jobqueue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

func TestFault_KilledWorkerLosesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.WithListen("127.0.0.1:0"))
	r := newRun(t, s.URL(), queueOptions{MaxAttempts: 3})
	const jobs, slots = 1500, 4
	victim := r.worker(slots, 3)
	r.worker(slots, 3)
	wait := r.submit(jobs)
	r.await(jobs / 3)
	victim.kill()
	r.worker(slots, 3)
	wait()
	r.check(jobs, slots)
}

func TestFault_TerminatedWorkerRepeatsNothing(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.WithListen("127.0.0.1:0"))
	r := newRun(t, s.URL(), queueOptions{MaxAttempts: 1, AckMillis: 60_000}) // what was not handed back would take too long
	const jobs, slots = 1500, 4
	first := r.worker(slots, 3)
	wait := r.submit(jobs)
	for i := 1; i <= 3; i++ {
		r.await(i * jobs / 4)
		next := r.worker(slots, 3)
		require.NoError(t, first.terminate())
		first = next
	}
	wait()
	r.check(jobs, 0)
}

func TestFault_KilledServerLosesNothing(t *testing.T) {
	t.Parallel()
	server := role{Dir: t.TempDir(), Listen: free(t)}
	p := spawn(t, server)
	p.awaitReady()
	r := newRun(t, "nats://"+server.Listen, queueOptions{MaxAttempts: 5})
	const jobs, slots = 1500, 4
	r.worker(slots, 3)
	r.worker(slots, 3)
	wait := r.submit(jobs)
	for i := 1; i <= 2; i++ {
		r.await(i * jobs / 3)
		p.kill()
		p = spawn(t, server)
		p.awaitReady()
	}
	wait()
	// Workers live on, so a job is repeated only if it was fetched and its
	// acknowledgement lost, or the fetch itself.
	r.check(jobs, 2*2*(slots+512))
}

// The server does not know, then, whether the workers that had jobs are still there, and
// gives them to whoever asks first.
func TestFault_OutageLongerThanAckWaitRepeatsWhatWorkersHad(t *testing.T) {
	t.Parallel()
	server := role{Dir: t.TempDir(), Listen: free(t)}
	p := spawn(t, server)
	p.awaitReady()
	const jobs, slots, millis, ackMillis = 600, 4, 25, 1000
	r := newRun(t, "nats://"+server.Listen, queueOptions{MaxAttempts: 10, AckMillis: ackMillis})
	r.worker(slots, millis)
	r.worker(slots, millis)
	wait := r.submit(jobs)
	wait()
	r.await(jobs / 4)
	p.kill()
	<-time.After(2 * ackMillis * time.Millisecond)
	p = spawn(t, server)
	p.awaitReady()
	// Of each priority, a worker has what it runs and what it expects to begin within
	// a tenth of a second; the jobs are of one priority.
	const had = slots + slots*100/millis
	r.check(jobs, 2*had)
}

// cluster starts three servers, and returns them by their names.
func cluster(t *testing.T) (urls string, roles map[string]role, nodes map[string]*process) {
	t.Helper()
	const n = 3
	clients, routes := make([]string, n), make([]string, n)
	for i := range n {
		clients[i], routes[i] = free(t), free(t)
	}
	roles, nodes = map[string]role{}, map[string]*process{}
	for i := range n {
		name := fmt.Sprintf("node%d", i)
		roles[name] = role{Dir: t.TempDir(), Listen: clients[i], Name: name, Mesh: &embedded.Cluster{
			Name: "test", Listen: routes[i], Routes: routes, Secret: "between servers",
		}}
		nodes[name] = spawn(t, roles[name])
	}
	for _, p := range nodes {
		p.awaitReady()
	}
	return "nats://" + strings.Join(clients, ",nats://"), roles, nodes
}

// leader returns the name of the server that leads the stream of the jobs.
func (r *run) leader() string {
	r.t.Helper()
	js, err := jetstream.New(r.nc)
	require.NoError(r.t, err)
	for ctx := limit(r.t); ; {
		attempt, cancel := context.WithTimeout(ctx, 3*time.Second) // nobody answers while one is elected
		stream, err := js.Stream(attempt, "test_jobs")
		cancel()
		if err == nil && stream.CachedInfo().Cluster.Leader != "" {
			return stream.CachedInfo().Cluster.Leader
		}
		require.NoError(r.t, ctx.Err())
	}
}

func TestFault_ClusterLosesNothing(t *testing.T) {
	t.Parallel()
	urls, roles, nodes := cluster(t)
	options := queueOptions{Replicas: 3, MaxAttempts: 10}
	r := newRun(t, urls, options)
	const jobs, slots = 2000, 8
	r.worker(slots, 5)
	r.worker(slots, 5)
	wait := r.submit(jobs)
	restart := func(name string) {
		nodes[name] = spawn(t, roles[name])
		nodes[name].awaitReady()
	}

	r.await(jobs / 5) // a node that does not lead
	lead := r.leader()
	for name := range nodes {
		if name != lead {
			nodes[name].kill()
			r.await(2 * jobs / 5) // the other two go on
			restart(name)
			break
		}
	}

	lead = r.leader()
	nodes[lead].kill()
	r.await(3 * jobs / 5)
	restart(lead)

	r.await(4 * jobs / 5)
	for _, p := range nodes { // all three
		p.kill()
	}
	for name := range nodes {
		nodes[name] = spawn(t, roles[name])
	}
	wait()
	r.check(jobs, 3*2*(slots+512))
}

func TestFault_PoisonJobIsADeadLetter(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.WithListen("127.0.0.1:0"))
	r := newRun(t, s.URL(), queueOptions{MaxAttempts: 2, AckMillis: 1000})
	// The jobs behind it are fetched with it, and lost with each worker.
	const innocent = 60
	r.submit(innocent / 2)()
	_, err := r.queue.Submit(limit(t), "poison", jobqueue.WithID("poison"))
	require.NoError(t, err)
	r.submit(innocent)()
	for range 2 {
		<-r.spawnWorker(1, 1).exited // killed by the job
	}
	r.worker(1, 1)
	letter := dead(t, r.queue, 1)[0]
	assert.Equal(t, "poison", letter.Job)
	assert.Equal(t, 2, letter.Attempts)
	assert.Contains(t, letter.Reason, "attempt 2 did not end")
	for id := range r.stored {
		_, err := r.queue.Result(limit(t), id)
		require.NoError(t, err, "the innocent")
	}
	_, byID := r.executions()
	assert.Equal(t, 2, byID["poison"])

	require.NoError(t, r.queue.Requeue(limit(t), "poison"))
	for ctx := limit(t); byID["poison"] < 3; _, byID = r.executions() { // it runs again
		require.NoError(t, ctx.Err())
		pause := time.NewTimer(5 * time.Millisecond)
		<-pause.C
	}
}

func TestAuth_WrongOrMissingCredentialsAreRefused(t *testing.T) {
	t.Parallel()
	token := start(t, embedded.WithListen("127.0.0.1:0"), embedded.WithToken("secret"))
	users := start(t, embedded.WithListen("127.0.0.1:0"), embedded.WithUser("ada", "lovelace"), embedded.WithUser("alan", "turing"))
	for _, server := range []struct {
		s           *embedded.Server
		right       nats.Option
		wrong, none nats.Option
	}{
		{token, nats.Token("secret"), nats.Token("guess"), nats.Name("none")},
		{users, nats.UserInfo("alan", "turing"), nats.UserInfo("alan", "lovelace"), nats.Name("none")},
	} {
		for _, bad := range []nats.Option{server.wrong, server.none} {
			_, err := nats.Connect(server.s.URL(), bad, patient)
			require.ErrorIs(t, err, nats.ErrAuthorization)
			_, err = server.s.Connect(bad)
			require.ErrorIs(t, err, nats.ErrAuthorization)
		}
		nc, err := nats.Connect(server.s.URL(), server.right, patient)
		require.NoError(t, err)
		openOn[int, int](t, nc)
		nc.Close()
		openOn[int, int](t, connect(t, server.s, server.right))
	}
}
