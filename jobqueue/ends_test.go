package jobqueue_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// shortWindow is for tests that use an ID again.
var shortWindow = jobqueue.WithDedupeWindow(100 * time.Millisecond)

// submitAnew submits a job under an ID that was used before, until it is a new one.
func submitAnew[T, R any](t *testing.T, nc *nats.Conn, q *jobqueue.Queue[T, R], job T, id string, opts ...jobqueue.SubmitOption) {
	t.Helper()
	last := func() uint64 { return streamState(t, nc, "test_jobs").LastSeq }
	for before, ctx := last(), limit(t); last() == before; {
		require.NoError(t, ctx.Err())
		submit(t, q, job, append(opts, jobqueue.WithID(id))...)
	}
}

func streamState(t *testing.T, nc *nats.Conn, name string) jetstream.StreamState {
	t.Helper()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(limit(t), name)
	require.NoError(t, err)
	return stream.CachedInfo().State
}

func TestID_UsedAgainIsAnotherJobWithItsOwnResult(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, shortWindow)
	began, goOn := make(chan struct{}), make(chan struct{})
	work(t, q, func(_ context.Context, n int) (int, error) {
		if n == 2 {
			close(began)
			<-goOn
		}
		return n, nil
	})
	_, err := q.Result(limit(t), submit(t, q, 1, jobqueue.WithID("nightly")))
	require.NoError(t, err)
	submitAnew(t, nc, q, 2, "nightly")
	<-began
	impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = q.Result(impatient, "nightly")
	require.ErrorIs(t, err, context.DeadlineExceeded, "the result of the last night")
	close(goOn)
	r, err := q.Result(limit(t), "nightly")
	require.NoError(t, err)
	assert.Equal(t, 2, r.Value)
	for i, r := range results(t, q, 2) {
		assert.Equal(t, "nightly", r.ID)
		assert.Equal(t, i+1, r.Value)
	}
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 2} })
}

// The first ends last: what it leaves is not what the second ended with, and no reason
// to think that the second has ended.
func TestID_UsedAgainWhileTheFirstRuns(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, shortWindow, noBackoff)
	began, goOn := make(chan struct{}), make(chan struct{})
	work(t, q, func(ctx context.Context, n int) (int, error) {
		job, _ := jobqueue.JobFrom(ctx)
		switch {
		case n == 1:
			close(began)
			<-goOn
		case job.Attempt == 1:
			close(goOn)
			for _, err := range q.Results(ctx, 0) { // until the first has ended
				return 0, cmp.Or(err, errors.New("not yet"))
			}
		}
		return n, nil
	}, jobqueue.WithConcurrency(2))
	submit(t, q, 1, jobqueue.WithID("same"))
	<-began
	submitAnew(t, nc, q, 2, "same")
	r, err := q.Result(limit(t), "same")
	require.NoError(t, err)
	assert.Equal(t, 2, r.Value)
	assert.Equal(t, 2, r.Attempt)
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 2} })
}

// The newer ends first, and stays the one that counts.
func TestID_UsedAgainTheNewestCounts(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, shortWindow)
	began, goOn := make(chan struct{}), make(chan struct{})
	work(t, q, func(_ context.Context, n int) (int, error) {
		if n == 1 {
			close(began)
			<-goOn
		}
		return n, nil
	}, jobqueue.WithConcurrency(2))
	submit(t, q, 1, jobqueue.WithID("same"))
	<-began
	submitAnew(t, nc, q, 2, "same")
	for _, next := range []func(){
		func() { close(goOn); results(t, q, 2) }, // the first has ended, too
		func() {},
	} {
		r, err := q.Result(limit(t), "same")
		require.NoError(t, err)
		assert.Equal(t, 2, r.Value)
		next()
	}
}

func TestID_UsedAgainKeepsBothDeadLetters(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, shortWindow, jobqueue.WithMaxAttempts(1))
	var healed atomic.Bool
	work(t, q, func(_ context.Context, n int) (int, error) {
		if healed.Load() {
			return n, nil
		}
		return 0, fmt.Errorf("failure %d", n)
	})
	submit(t, q, 1, jobqueue.WithID("same"))
	submitAnew(t, nc, q, 2, "same")
	for i, letter := range dead(t, q, 2) {
		assert.Equal(t, "same", letter.ID)
		assert.Equal(t, i+1, letter.Job)
	}
	_, err := q.Result(limit(t), "same")
	require.ErrorIs(t, err, jobqueue.ErrDead)
	require.ErrorContains(t, err, "failure 2")
	healed.Store(true)
	for _, want := range []int{2, 1} {
		require.NoError(t, q.Requeue(limit(t), "same"))
		r, err := q.Result(limit(t), "same")
		require.NoError(t, err)
		assert.Equal(t, want, r.Value)
	}
	require.ErrorIs(t, q.Requeue(limit(t), "same"), jobqueue.ErrNotFound)
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 2} })
}

func TestID_UsedAgainWhileTheFirstIsScheduled(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, shortWindow)
	work(t, q, identity)
	submit(t, q, 1, jobqueue.WithID("same"), jobqueue.RunAfter(time.Second))
	submitAnew(t, nc, q, 2, "same", jobqueue.RunAfter(time.Second))
	var values []int
	for _, r := range results(t, q, 2) {
		values = append(values, r.Value)
	}
	assert.ElementsMatch(t, []int{1, 2}, values)
	r, err := q.Result(limit(t), "same")
	require.NoError(t, err)
	assert.Contains(t, values, r.Value)
}

// The stream has forgotten a message when it is sent again, as after a restart.
func TestEnd_AJobThatIsStoredTwiceHasOneResult(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, shortWindow)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	var ran atomic.Int64
	work(t, q, func(_ context.Context, n int) (int, error) {
		ran.Add(1)
		return n, nil
	})
	for _, msg := range []*nats.Msg{
		{Subject: "jobqueue.test.jobs.normal.=", Header: nats.Header{jetstream.MsgIDHeader: {"random"}}},
		{Subject: "jobqueue.test.jobs.normal.chosen", Header: nats.Header{jetstream.MsgIDHeader: {"chosen"}, "Jobqueue-Key": {"ABC"}}},
	} {
		msg.Data = []byte("7")
		ctx := limit(t)
		for stored := 0; stored < 2; {
			require.NoError(t, ctx.Err())
			ack, err := js.PublishMsg(ctx, msg)
			require.NoError(t, err)
			if !ack.Duplicate {
				stored++
			}
		}
		_, err := q.Result(limit(t), msg.Header.Get(jetstream.MsgIDHeader))
		require.NoError(t, err)
	}
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 2} })
	assert.EqualValues(t, 4, ran.Load())
}

// Another worker has begun to make a dead letter of the job, and died there.
func TestEnd_AResultThatComesSecondFinishesTheLetter(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	work(t, q, func(ctx context.Context, n int) (int, error) {
		job, _ := jobqueue.JobFrom(ctx)
		_, err := js.PublishMsg(ctx, &nats.Msg{Subject: "jobqueue.test.marks." + job.ID + ".0.1", Header: nats.Header{
			"Jobqueue-Reason": {`"it was hopeless"`}, "Jobqueue-Attempt": {"3"}, "Jobqueue-Worker": {"other"}, "Jobqueue-Priority": {"normal"},
		}})
		return n, err
	})
	id := submit(t, q, 7)
	_, err = q.Result(limit(t), id)
	require.ErrorIs(t, err, jobqueue.ErrDead)
	letter := dead(t, q, 1)[0]
	assert.Equal(t, "it was hopeless", letter.Reason)
	assert.Equal(t, 3, letter.Attempts)
	assert.Equal(t, "other", letter.Worker)
	assert.Equal(t, 7, letter.Job)
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Dead: 1} })
}

// A gate dials connections on which nothing passes while it is shut: to the server, the
// program is paused.
type gate struct {
	mu   sync.Mutex
	cond sync.Cond
	shut bool
}

func newGate() *gate {
	g := new(gate)
	g.cond.L = &g.mu
	return g
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	g.cond.Broadcast()
}

func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut {
		g.cond.Wait()
	}
}

func (g *gate) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return gatedConn{c, g}, err
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.gate.wait()
	return n, err
}

func (c gatedConn) Write(p []byte) (int, error) {
	c.gate.wait()
	return c.Conn.Write(p)
}

// A pair is two workers that get the same job: the first is paused past AckWait.
type pair struct {
	t           *testing.T
	gate        *gate
	q           *jobqueue.Queue[int, int]
	first       *jobqueue.Worker
	endOfFirst  chan error // what its handler is to return
	endOfSecond chan error
	ran         atomic.Int64
}

// newPair returns when both run the job.
func newPair(t *testing.T, id string, opts ...jobqueue.Option) *pair {
	t.Helper()
	s := start(t, embedded.WithListen("127.0.0.1:0"))
	p := &pair{t: t, gate: newGate(), endOfFirst: make(chan error), endOfSecond: make(chan error)}
	nc, err := nats.Connect(s.URL(), patient, nats.SetCustomDialer(p.gate))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	opts = append([]jobqueue.Option{jobqueue.WithAckWait(time.Second), jobqueue.WithMaxAttempts(2), noBackoff}, opts...)
	q := openOn[int, int](t, nc, opts...)
	p.q = openOn[int, int](t, connect(t, s), opts...)
	began := make(chan struct{}, 2)
	handler := func(end chan error) func(context.Context, int) (int, error) {
		return func(_ context.Context, n int) (int, error) {
			if n != 1 {
				return n, nil
			}
			p.ran.Add(1)
			began <- struct{}{}
			return n, <-end
		}
	}
	p.first, err = q.Work(context.Background(), handler(p.endOfFirst), jobqueue.WithConcurrency(1))
	require.NoError(t, err)
	submit(t, p.q, 1, jobqueue.WithID(id))
	<-began
	p.gate.set(true)
	work(t, p.q, handler(p.endOfSecond), jobqueue.WithConcurrency(1))
	<-began
	return p
}

// wake lets the first worker go on, and ends its handler and the worker.
func (p *pair) wake(end error) {
	p.t.Helper()
	p.gate.set(false)
	p.endOfFirst <- end
	require.NoError(p.t, p.first.Shutdown(limit(p.t)))
}

func TestEnd_ALateFailureDoesNotCount(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"retried": errors.New("late"),
		"dead":    workpool.Permanent(errors.New("late")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, "id")
			// A third would get the job if it were handed back.
			work(t, p.q, func(_ context.Context, n int) (int, error) {
				p.ran.Add(1)
				return n, nil
			}, jobqueue.WithConcurrency(1))
			p.wake(failure)
			_, err := p.q.Result(limit(t), submit(t, p.q, 2)) // behind it
			require.NoError(t, err)
			p.endOfSecond <- nil
			r, err := p.q.Result(limit(t), "id")
			require.NoError(t, err)
			assert.Equal(t, 2, r.Attempt)
			eventually(t, p.q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 2} })
			assert.EqualValues(t, 3, p.ran.Load(), "two of the job, and the one behind it")
		})
	}
}

func TestEnd_ALateSuccessIsNoSecondEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  error // of the second worker's run, which ends first
		want jobqueue.Stats
		opts []jobqueue.Option
	}{
		{"result", nil, jobqueue.Stats{Results: 1}, nil},
		{"old result", nil, jobqueue.Stats{}, []jobqueue.Option{jobqueue.WithResultAge(100 * time.Millisecond)}},
		{"dead", errors.New("failed"), jobqueue.Stats{Dead: 1}, nil},
		{"old dead", errors.New("failed"), jobqueue.Stats{Dead: 1}, []jobqueue.Option{jobqueue.WithResultAge(100 * time.Millisecond)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, "id", append(c.opts, shortWindow)...)
			p.endOfSecond <- c.end
			eventually(t, p.q, func(s jobqueue.Stats) bool { return s == c.want })
			p.wake(nil)
			s, err := p.q.Stats(limit(t))
			require.NoError(t, err)
			assert.Equal(t, c.want, s)
		})
	}
}

func TestEnd_ALateSuccessCountsIfItIsTheFirst(t *testing.T) {
	t.Parallel()
	p := newPair(t, "id")
	p.wake(nil)
	p.endOfSecond <- workpool.Permanent(errors.New("too late"))
	r, err := p.q.Result(limit(t), "id")
	require.NoError(t, err)
	assert.Equal(t, 1, r.Attempt)
	eventually(t, p.q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 1} })
}

func TestFault_PausedWorkerDoesNotRunWhatItHasLost(t *testing.T) {
	t.Parallel()
	s := start(t, embedded.WithListen("127.0.0.1:0"))
	r := newRun(t, s.URL(), queueOptions{MaxAttempts: 5, AckMillis: 1500})
	const jobs = 400
	paused := r.worker(1, 2) // short jobs, many of which it fetches ahead
	r.submit(jobs)()
	r.await(jobs / 10)
	require.NoError(t, paused.freeze())
	r.worker(1, 2)
	results(t, r.queue, jobs-1) // at least: the one that it ran may have to wait
	require.NoError(t, paused.thaw())
	r.check(jobs, 1)
	require.NoError(t, paused.terminate())
	r.check(jobs, 1)
}

func TestWork_RecordsOfAttemptsGoWithTheirJob(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, jobqueue.WithMaxAttempts(2), noBackoff)
	work(t, q, func(ctx context.Context, n int) (int, error) {
		if job, _ := jobqueue.JobFrom(ctx); n == 0 || job.Attempt == 1 {
			return 0, errors.New("no")
		}
		return n, nil
	})
	jobs := make([]int, 100)
	jobs[50] = 1
	_, err := q.SubmitAll(limit(t), slices.Values(jobs))
	require.NoError(t, err)
	eventually(t, q, func(s jobqueue.Stats) bool {
		return s == jobqueue.Stats{Results: 1, Dead: 99} && streamState(t, nc, "test_attempts").Msgs == 0
	})
	assert.NotZero(t, streamState(t, nc, "test_attempts").LastSeq)
}

func TestWithoutResults_KeepsNone(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	none := openOn[int, int](t, nc, jobqueue.WithoutResults(), jobqueue.WithMaxAttempts(1))
	for _, q := range []*jobqueue.Queue[int, int]{none, openOn[int, int](t, nc, jobqueue.WithExisting(), jobqueue.WithMaxAttempts(1))} {
		var ran atomic.Int64
		w := work(t, q, func(_ context.Context, n int) (int, error) {
			ran.Add(1)
			if n == 1 {
				return 0, errors.New("no")
			}
			return n, nil
		})
		submit(t, q, 0)
		id := submit(t, q, 1)
		eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Dead: 1} })
		assert.EqualValues(t, 2, ran.Load())
		_, err := q.Result(limit(t), id)
		require.ErrorIs(t, err, jobqueue.ErrNoResults)
		for _, err := range q.Results(limit(t), 0) {
			require.ErrorIs(t, err, jobqueue.ErrNoResults)
		}
		require.NoError(t, q.Delete(limit(t), id))
		require.NoError(t, w.Shutdown(limit(t)))
		stats := w.Stats()
		assert.Equal(t, [2]uint64{1, 1}, [2]uint64{stats.Succeeded, stats.Dead})
	}
	_, err := jobqueue.Open[int, int](limit(t), nc, "test")
	require.ErrorIs(t, err, jobqueue.ErrConfigMismatch)
	require.ErrorContains(t, err, `Metadata["jobqueue.kept"] false, not true`)
}

func TestDelete_DeletesWhatHasEnded(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc, jobqueue.WithMaxAttempts(1), shortWindow)
	goOn := make(chan struct{})
	work(t, q, func(_ context.Context, n int) (int, error) {
		switch n {
		case 2:
			return 0, errors.New("no")
		case 3:
			<-goOn
		}
		return n, nil
	})
	submit(t, q, 9, jobqueue.WithID("other"))
	submit(t, q, 1, jobqueue.WithID("a b"))
	submitAnew(t, nc, q, 2, "a b")
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 2, Dead: 1} })
	submitAnew(t, nc, q, 3, "a b")
	require.NoError(t, q.Delete(limit(t), "a b"))
	require.ErrorIs(t, q.Delete(limit(t), "a b"), jobqueue.ErrNotFound)
	require.ErrorIs(t, q.Delete(limit(t), ""), jobqueue.ErrNotFound)
	close(goOn)
	r, err := q.Result(limit(t), "a b")
	require.NoError(t, err)
	assert.Equal(t, 3, r.Value, "the one that ran")
	eventually(t, q, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{Results: 2} })
}

// A server of an earlier version would take two ends of a job.
func TestOpen_AServerThatIsTooOld(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var served sync.WaitGroup
	served.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, `INFO {"version":"2.10.29","headers":true,"max_payload":1048576}`+"\r\n")
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			if lines.Text() == "PING" {
				fmt.Fprint(conn, "PONG\r\n")
			}
		}
	})
	nc, err := nats.Connect("nats://"+listener.Addr().String(), patient)
	require.NoError(t, err)
	_, err = jobqueue.Open[int, int](limit(t), nc, "test")
	require.ErrorContains(t, err, "version 2.10.29: a queue needs 2.11 or later")
	nc.Close()
	require.NoError(t, listener.Close())
	served.Wait()
}

func TestOpen_WithUpdateChangesWhatIsStored(t *testing.T) {
	t.Parallel()
	nc := connect(t, start(t))
	q := openOn[int, int](t, nc)
	id := submit(t, q, 1)
	changed := []jobqueue.Option{jobqueue.WithAckWait(time.Second), jobqueue.WithResultAge(time.Hour), jobqueue.WithoutResults()}
	_, err := jobqueue.Open[int, string](limit(t), nc, "test", changed...)
	require.ErrorIs(t, err, jobqueue.ErrConfigMismatch)
	for _, difference := range []string{
		"stream test_results has MaxAge 24h0m0s, not 1h0m0s",
		`Metadata["jobqueue.type"] int, not string`,
		`Metadata["jobqueue.kept"] true, not false`,
		"consumer high of stream test_jobs has AckWait 30s, not 1s",
		"consumer low of stream test_jobs has AckWait 30s, not 1s",
	} {
		assert.Contains(t, err.Error(), difference)
	}
	_, err = jobqueue.Open[int, int](limit(t), nc, "test", jobqueue.WithStorage(jetstream.MemoryStorage), jobqueue.WithUpdate())
	require.ErrorContains(t, err, "updating: stream test_jobs has Storage File, not Memory")

	updated := openOn[int, string](t, nc, append(changed, jobqueue.WithUpdate())...)
	openOn[int, string](t, nc, changed...)
	_, err = jobqueue.Open[int, int](limit(t), nc, "test")
	require.ErrorIs(t, err, jobqueue.ErrConfigMismatch)
	work(t, updated, func(_ context.Context, n int) (string, error) { return fmt.Sprint(n), nil })
	eventually(t, updated, func(s jobqueue.Stats) bool { return s == jobqueue.Stats{} })
	_, err = updated.Result(limit(t), id)
	require.ErrorIs(t, err, jobqueue.ErrNoResults)
	_, err = jobqueue.Open[int, int](limit(t), nc, "test", jobqueue.WithUpdate(), jobqueue.WithExisting())
	require.ErrorIs(t, err, jobqueue.ErrInvalidOption)
}

// moody is a codec that does what the value says.
type moody struct {
	jobqueue.JSON[string]
	healed *atomic.Bool
}

func (c moody) Encode(s string) ([]byte, error) {
	if s == "exit in Encode" {
		runtime.Goexit()
	}
	return c.JSON.Encode(s)
}

func (c moody) Decode(data []byte) (string, error) {
	s, err := c.JSON.Decode(data)
	switch {
	case c.healed.Load():
	case s == "exit in Decode":
		runtime.Goexit()
	case s == "not yet":
		return "", errors.New("unknown version")
	case s == "never":
		return "", workpool.Permanent(errors.New("no job at all"))
	}
	return s, err
}

func TestCodec_FailuresAreRetriedAndGoexitCostsNoRunner(t *testing.T) {
	t.Parallel()
	var healed atomic.Bool
	var failed atomic.Int64
	q := open[string, string](t, jobqueue.WithCodec(moody{healed: &healed}), jobqueue.WithMaxAttempts(3), jobqueue.WithBackoff(func(attempt int) time.Duration {
		if failed.Add(1) > 1000 {
			runtime.Goexit()
		}
		return 0
	}))
	work(t, q, func(_ context.Context, s string) (string, error) {
		switch s {
		case "encode":
			return "exit in Encode", nil
		case "backoff":
			failed.Store(1000)
			return "", errors.New("no")
		}
		return s, nil
	}, jobqueue.WithConcurrency(1))
	want := map[string]struct {
		reason   string
		attempts int
	}{
		`"exit in Decode"`: {"a codec: " + workpool.ErrGoexit.Error(), 3},
		`"encode"`:         {"a codec: " + workpool.ErrGoexit.Error(), 3},
		`"not yet"`:        {"decoding the job: unknown version", 3},
		`"never"`:          {"decoding the job: no job at all", 1},
		`"backoff"`:        {workpool.ErrGoexit.Error() + ": no", 1},
	}
	for _, job := range []string{"exit in Decode", "encode", "not yet", "never"} {
		submit(t, q, job)
	}
	dead(t, q, len(want)-1)
	submit(t, q, "backoff")
	ids := map[string]string{}
	for _, letter := range dead(t, q, len(want)) {
		w := want[string(letter.Payload)]
		assert.Equal(t, w.reason, letter.Reason)
		assert.Equal(t, w.attempts, letter.Attempts)
		ids[string(letter.Payload)] = letter.ID
	}
	healed.Store(true) // the new version
	require.NoError(t, q.Requeue(limit(t), ids[`"not yet"`]))
	r, err := q.Result(limit(t), ids[`"not yet"`])
	require.NoError(t, err)
	assert.Equal(t, "not yet", r.Value)
}

func TestSubmitAll_InAHandlerOfAFullQueueFails(t *testing.T) {
	t.Parallel()
	q := open[int, int](t, jobqueue.WithMaxQueued(10), jobqueue.WithMaxAttempts(1))
	work(t, q, func(ctx context.Context, n int) (int, error) {
		if n == 0 {
			return 0, nil
		}
		return q.SubmitAll(ctx, slices.Values(make([]int, 1000)))
	}, jobqueue.WithConcurrency(1))
	submit(t, q, 1)
	assert.Contains(t, dead(t, q, 1)[0].Reason, workpool.ErrQueueFull.Error())
}
