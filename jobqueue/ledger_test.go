package jobqueue_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
)

// A ledger knows what has become of the jobs of a run without asking the queue: the
// submitter notes what was accepted, and each worker, in a file of its own, what has
// begun and ended.
type ledger struct {
	dir string

	mu       sync.Mutex        // guards what follows
	accepted map[string]string // the payload of each job whose Submit returned nil
	unknown  map[string]string // of each whose Submit gave up, and may have been stored
}

func newLedger(t testing.TB) *ledger {
	t.Helper()
	return &ledger{dir: t.TempDir(), accepted: map[string]string{}, unknown: map[string]string{}}
}

func (l *ledger) submitted(id, payload string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.accepted[id] = payload
	} else {
		l.unknown[id] = payload
	}
}

// The notes of a worker: what, the ID, and for an end whether the handler succeeded.
const (
	noteBegun  = "begun"
	noteEnded  = "ended"
	noteFailed = "failed"
)

// A notebook is where a worker writes.
type notebook struct{ file *os.File }

func openNotebook(dir string) (notebook, error) {
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("worker-%d", os.Getpid())), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return notebook{f}, err
}

// note is in the file when it returns, whatever happens to the process.
func (n notebook) note(what, id string) error {
	_, err := n.file.WriteString(what + " " + id + "\n")
	return err
}

// read returns how often each job has begun and ended.
func (l *ledger) read(t testing.TB) (begun, ended, failed map[string]int) {
	t.Helper()
	begun, ended, failed = map[string]int{}, map[string]int{}, map[string]int{}
	counts := map[string]map[string]int{noteBegun: begun, noteEnded: ended, noteFailed: failed}
	files, err := filepath.Glob(filepath.Join(l.dir, "worker-*"))
	require.NoError(t, err)
	for _, name := range files {
		f, err := os.Open(name)
		require.NoError(t, err)
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			what, id, ok := strings.Cut(lines.Text(), " ")
			require.True(t, ok && counts[what] != nil, "%s: %q", name, lines.Text())
			counts[what][id]++
		}
		require.NoError(t, lines.Err())
		require.NoError(t, f.Close())
	}
	return begun, ended, failed
}

// check waits until the queue is empty, and compares what its streams hold with what
// the ledger knows.
func (l *ledger) check(t *testing.T, q *jobqueue.Queue[string, string], js jetstream.JetStream) {
	t.Helper()
	ctx := limit(t)
	l.awaitEnd(ctx, t, js)

	l.mu.Lock()
	defer l.mu.Unlock()
	begun, ended, failed := l.read(t)
	expected := func(id string) string {
		if payload, ok := l.accepted[id]; ok {
			return payload
		}
		payload, ok := l.unknown[id]
		assert.True(t, ok, "job %s ended, and nobody submitted it", id)
		return payload
	}
	results, letters := map[string]bool{}, map[string]bool{}
	for n := l.results(ctx, t, js); uint64(len(results)) < n; {
		for r, err := range q.Results(ctx, 0) {
			require.NoError(t, err, "%d results of %d read", len(results), n)
			assert.False(t, results[r.ID], "two results of job %s", r.ID)
			assert.Equal(t, expected(r.ID), r.Value, "the result of job %s", r.ID)
			assert.False(t, isBad(r.Value), "a result of job %s, whose handler fails", r.ID)
			assert.Positive(t, ended[r.ID], "a result of job %s, whose handler has not ended", r.ID)
			if results[r.ID] = true; uint64(len(results)) == n {
				break
			}
		}
	}
	for letter, err := range q.Dead(ctx) {
		require.NoError(t, err)
		assert.False(t, letters[letter.ID], "two letters of job %s", letter.ID)
		assert.Equal(t, expected(letter.ID), letter.Job, "the letter of job %s", letter.ID)
		assert.True(t, isBad(letter.Job), "job %s is dead: %s", letter.ID, letter.Reason)
		assert.Positive(t, failed[letter.ID], "a letter of job %s, whose handler has not failed", letter.ID)
		letters[letter.ID] = true
	}
	assert.Len(t, letters, int(l.messages(ctx, t, js, "dead"))) //nolint:gosec // so few
	lost := 0
	for id, payload := range l.accepted {
		if results[id] == letters[id] {
			lost++
			t.Errorf("job %s, %q: result %v, letter %v; begun %d times, ended %d, failed %d", id, payload, results[id], letters[id], begun[id], ended[id], failed[id])
		}
	}
	executions := 0
	for _, n := range begun {
		executions += n
	}
	t.Logf("%d jobs accepted, %d in doubt: %d results, %d dead letters, %d lost; %d executions", len(l.accepted), len(l.unknown), len(results), len(letters), lost, executions)
}

// awaitEnd waits until no job is left.
func (l *ledger) awaitEnd(ctx context.Context, t *testing.T, js jetstream.JetStream) {
	t.Helper()
	for l.messages(ctx, t, js, "jobs") > 0 {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			require.Failf(t, "jobs are left", "%d", l.messages(t.Context(), t, js, "jobs"))
		}
	}
}

// messages returns how many messages one of the streams has.
func (l *ledger) messages(ctx context.Context, t *testing.T, js jetstream.JetStream, kind string) uint64 {
	t.Helper()
	for {
		attempt, cancel := context.WithTimeout(ctx, 3*time.Second) // nobody answers while a leader is elected
		stream, err := js.Stream(attempt, "test_"+kind)
		cancel()
		if err == nil {
			return stream.CachedInfo().State.Msgs
		}
		require.NoError(t, ctx.Err(), "stream %s: %v", kind, err)
		select {
		case <-time.After(20 * time.Millisecond): // a connection that is closed fails at once
		case <-ctx.Done():
		}
	}
}

// results returns how many results there are, beside the marks of dead letters, which are in
// the same stream.
func (l *ledger) results(ctx context.Context, t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	l.messages(ctx, t, js, "results") // waits for a leader
	stream, err := js.Stream(ctx, "test_results")
	require.NoError(t, err)
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter("jobqueue.test.results.>"))
	require.NoError(t, err)
	return uint64(len(info.State.Subjects))
}
