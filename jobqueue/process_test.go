package jobqueue_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// roleVariable has the part that the test binary plays in a process of its own,
// as JSON.
const roleVariable = "JOBQUEUE_TEST_ROLE"

// A role is what a process is to do: serve in Dir, or work.
type role struct {
	Dir    string            // of a server
	Listen string            // of a server
	Name   string            // of a server in a cluster
	Mesh   *embedded.Cluster // of a server in a cluster

	URLs        string // for a worker
	Concurrency int
	Options     queueOptions
	Log         string // where to note each execution
	Millis      int    // that a job takes

	Faults bool   // it is one of those of a random run
	Token  string // of a server there that has a network of its own
}

// queueOptions are those that the processes of a test have to agree on.
type queueOptions struct {
	Replicas    int
	AckMillis   int
	MaxAttempts int
}

func (o queueOptions) options() []jobqueue.Option {
	return []jobqueue.Option{
		jobqueue.WithReplicas(max(1, o.Replicas)),
		jobqueue.WithAckWait(time.Duration(cmp.Or(o.AckMillis, 4000)) * time.Millisecond), // on a slow machine, too, a heartbeat comes in time
		jobqueue.WithMaxAttempts(max(1, o.MaxAttempts)),
		noBackoff,
	}
}

// play plays a part until SIGTERM.
func play(text string) int {
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		fmt.Println(err)
		return 2
	}
	go func() { // ends when the test does, if it can't end its processes any more
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	part := r.work
	switch {
	case r.Faults && r.Dir != "":
		part = r.serveFaults
	case r.Faults:
		part = r.workFaults
	case r.Dir != "":
		part = r.serve
	}
	if err := part(term); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func (r *role) serve(term context.Context) error {
	opts := []embedded.Option{rareSync, embedded.WithListen(r.Listen)}
	if r.Mesh != nil {
		opts = append(opts, embedded.WithName(r.Name), embedded.WithCluster(*r.Mesh))
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

func (r *role) work(term context.Context) error {
	nc, err := nats.Connect(r.URLs, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true), patient)
	if err != nil {
		return err
	}
	defer nc.Close()
	q, err := jobqueue.Open[string, string](context.Background(), nc, "test", r.Options.options()...)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(r.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	w, err := q.Work(context.Background(), func(ctx context.Context, payload string) (string, error) {
		job, _ := jobqueue.JobFrom(ctx)
		if _, err := fmt.Fprintf(log, "%s %d\n", job.ID, os.Getpid()); err != nil {
			return "", err
		}
		if payload == "poison" {
			if self, err := os.FindProcess(os.Getpid()); err == nil {
				_ = self.Kill()
			}
		}
		pass(ctx, time.Duration(r.Millis)*time.Millisecond)
		return payload, nil
	}, jobqueue.WithConcurrency(r.Concurrency))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-term.Done()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return w.Shutdown(ctx)
}

// pass lets some time pass, in a process that is no bubble, or returns when ctx ends.
func pass(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// patient is for a machine on which a server needs more than the two seconds that
// the library gives it.
var patient = nats.Timeout(30 * time.Second)

// A process plays a part.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	ready  chan struct{}
	exited chan struct{} // closed at its end, when err is set
	err    error
}

// spawn starts a process, which the end of the test kills. A command before it is one
// that becomes the process.
func spawn(t testing.TB, r role, before ...string) *process {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a process of this test is told by SIGTERM to end, which Windows does not have")
	}
	text, err := json.Marshal(r)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	command := slices.Concat(before, []string{self})
	p := &process{t: t, cmd: exec.Command(command[0], command[1:]...), ready: make(chan struct{}), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	p.cmd.Stderr = os.Stderr
	_, err = p.cmd.StdinPipe() // which is closed when this process ends
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.exited)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				close(p.ready)
			} else {
				fmt.Fprintln(os.Stderr, "process:", lines.Text())
			}
		}
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) awaitReady() {
	p.t.Helper()
	select {
	case <-p.ready:
	case <-p.exited:
		select {
		case <-p.ready: // both meanwhile
		default:
			require.Fail(p.t, "a process has ended before it was ready")
		}
	case <-limit(p.t).Done():
		require.Fail(p.t, "a process is not ready")
	}
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

// terminate sends SIGTERM and waits for the end.
func (p *process) terminate() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-p.exited
	return p.err
}

// free returns an address that nobody listens on at the moment. Its port is none of
// those that systems give to outgoing connections, one of which could have taken it
// before a server listens there, or listens there again.
func free(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			require.NoError(t, l.Close())
			return address
		}
	}
	require.Fail(t, "no port is free")
	return ""
}

// A run is a number of jobs on workers that things happen to.
type run struct {
	t       *testing.T
	urls    string
	options queueOptions
	log     string
	nc      *nats.Conn
	queue   *jobqueue.Queue[string, string]

	mu     sync.Mutex
	stored map[string]bool // the jobs whose Submit returned nil
}

func newRun(t *testing.T, urls string, options queueOptions) *run {
	t.Helper()
	nc, err := nats.Connect(urls, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), patient)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	q, err := jobqueue.Open[string, string](limit(t), nc, "test", options.options()...)
	require.NoError(t, err)
	return &run{t: t, urls: urls, options: options, log: filepath.Join(t.TempDir(), "executions"), nc: nc, queue: q, stored: map[string]bool{}}
}

func (r *run) worker(concurrency, millis int) *process {
	r.t.Helper()
	p := r.spawnWorker(concurrency, millis)
	p.awaitReady()
	return p
}

// spawnWorker is worker for one that may be killed by a job before it says that it
// is ready.
func (r *run) spawnWorker(concurrency, millis int) *process {
	r.t.Helper()
	return spawn(r.t, role{URLs: r.urls, Concurrency: concurrency, Options: r.options, Log: r.log, Millis: millis})
}

// submit stores n jobs, from several goroutines, whatever happens meanwhile.
func (r *run) submit(n int) (wait func()) {
	var submitters sync.WaitGroup
	ctx := limit(r.t)
	const parallel = 8
	for k := range parallel {
		submitters.Go(func() {
			for i := k; i < n; i += parallel {
				id, err := r.queue.Submit(ctx, "job", jobqueue.WithID(fmt.Sprintf("job-%d", i)))
				if err != nil {
					r.t.Error(err)
					return
				}
				r.mu.Lock()
				r.stored[id] = true
				r.mu.Unlock()
			}
		})
	}
	return submitters.Wait
}

// executions returns how often each job was begun.
func (r *run) executions() (all int, byID map[string]int) {
	text, err := os.ReadFile(r.log)
	if err != nil && !os.IsNotExist(err) {
		require.NoError(r.t, err)
	}
	byID = map[string]int{}
	for line := range strings.Lines(string(text)) {
		id, _, _ := strings.Cut(line, " ")
		byID[id]++
		all++
	}
	return all, byID
}

// await waits until so many jobs have been begun.
func (r *run) await(executions int) {
	r.t.Helper()
	ctx := limit(r.t)
	for {
		if n, _ := r.executions(); n >= executions {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			require.Fail(r.t, "the jobs are not run")
		}
	}
}

// check waits until n jobs have ended, and expects every one to have one result,
// and no more executions in vain than extra.
func (r *run) check(n, extra int) {
	r.t.Helper()
	require.Len(r.t, r.stored, n)
	seen := map[string]bool{}
	for result, err := range r.queue.Results(limit(r.t), 0) {
		if err != nil {
			s, statsErr := r.queue.Stats(r.t.Context())
			require.NoError(r.t, err, "%d results of %d read; %+v %v", len(seen), n, s, statsErr)
		}
		require.False(r.t, seen[result.ID], "two results of %s", result.ID)
		require.True(r.t, r.stored[result.ID], "a result of %s, which nobody submitted", result.ID)
		if seen[result.ID] = true; len(seen) == n {
			break
		}
	}
	// A job may still be with a worker again, in vain; then it ends soon.
	ctx := limit(r.t)
	for {
		s, err := r.queue.Stats(ctx)
		if err == nil && s == (jobqueue.Stats{Results: uint64(n)}) {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			require.Failf(r.t, "the queue does not become empty", "%+v %v", s, err)
		}
	}
	all, byID := r.executions()
	require.Len(r.t, byID, n)
	r.t.Logf("%d jobs, 0 missing, 0 duplicate results, %d extra executions", n, all-n)
	require.LessOrEqual(r.t, all-n, extra, "executions in vain")
}
