package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // servers that are stopped on purpose complain
	goleak.VerifyTestMain(m)
}

// A console collects what a command prints while it runs.
type console struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// command runs the program to its end.
func runCommand(t *testing.T, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	status = run(t.Context(), args, &o, &e)
	return status, o.String(), e.String()
}

func TestRun_QueueFromServeToDelete(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte("secret\n"), 0o600))

	ctx, stop := context.WithCancel(t.Context())
	out := new(console)
	served := make(chan int, 1)
	go func() {
		served <- run(ctx, []string{"serve", "-dir", filepath.Join(dir, "data"), "-listen", "127.0.0.1:0", "-token-file", token, "-sync-interval", "1m", "-health", "127.0.0.1:0"}, out, out)
	}()
	var url string
	require.Eventually(t, func() bool {
		url = regexp.MustCompile(`nats://\S+:\d+`).FindString(out.String())
		return url != ""
	}, time.Minute, time.Millisecond)

	status, _, errs := runCommand(t, "serve", "-dir", filepath.Join(dir, "data"), "-listen", "127.0.0.1:0")
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "another server uses the folder")
	status, _, errs = runCommand(t, "serve", "-dir", filepath.Join(dir, "other"), "-listen", strings.TrimPrefix(url, "nats://"))
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "address already in use")
	var health string
	require.Eventually(t, func() bool {
		health = regexp.MustCompile(`http://\S+/healthz`).FindString(out.String())
		return health != ""
	}, time.Minute, time.Millisecond)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(health)
	require.NoError(t, err)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	assert.JSONEq(t, `{"status":"ok"}`, string(text))

	nc, err := nats.Connect(url, nats.Token("secret"))
	require.NoError(t, err)
	q, err := jobqueue.Open[string, string](t.Context(), nc, "orders", jobqueue.WithMaxQueued(10))
	require.NoError(t, err)
	w, err := q.Work(t.Context(), func(context.Context, string) (string, error) {
		return "", workpool.Permanent(errors.New("no\tstock\x1b[2J"))
	})
	require.NoError(t, err)
	_, err = q.Submit(t.Context(), "chair", jobqueue.WithID("order 7"))
	require.NoError(t, err)
	_, err = q.Result(t.Context(), "order 7")
	require.ErrorIs(t, err, jobqueue.ErrDead)
	require.NoError(t, w.Shutdown(t.Context()))

	target := []string{"-server", url, "-token-file", token, "-queue", "orders"}
	status, list, errs := runCommand(t, append([]string{"dead"}, target...)...)
	require.Zero(t, status, errs)
	assert.Contains(t, list, "order 7")
	assert.Contains(t, list, `"chair"`)
	assert.Contains(t, list, "no.stock.[2J", "nothing that a terminal would obey")

	status, _, errs = runCommand(t, append(append([]string{"requeue"}, target...), "order 8")...)
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, `"order 8" is not among the dead letters`)
	status, list, errs = runCommand(t, append([]string{"requeue", "-all"}, target...)...)
	require.Zero(t, status, errs)
	assert.Equal(t, "requeued order 7\n", list)

	status, list, errs = runCommand(t, append([]string{"stats", "-once"}, target...)...)
	require.Zero(t, status, errs)
	assert.Regexp(t, `pending +1\n`, list)
	assert.Regexp(t, `dead +0\n`, list)

	status, _, errs = runCommand(t, append(append([]string{"delete"}, target...), "order 7")...)
	assert.Equal(t, 1, status, "it is a job again")
	assert.Contains(t, errs, `no result and no dead letter of job "order 7"`)
	w, err = q.Work(t.Context(), func(_ context.Context, job string) (string, error) { return job, nil })
	require.NoError(t, err)
	_, err = q.Result(t.Context(), "order 7")
	require.NoError(t, err)
	require.NoError(t, w.Shutdown(t.Context()))
	status, list, errs = runCommand(t, append(append([]string{"delete"}, target...), "order 7", "order 8")...)
	assert.Equal(t, 1, status)
	assert.Equal(t, "deleted order 7\n", list)
	assert.Contains(t, errs, `no dead letter of job "order 8"`)
	s, err := q.Stats(t.Context())
	require.NoError(t, err)
	assert.Zero(t, s)

	watching, leave := context.WithCancel(t.Context())
	live := new(console)
	watched := make(chan int, 1)
	go func() { watched <- run(watching, append([]string{"stats", "-every", "1ms"}, target...), live, live) }()
	require.Eventually(t, func() bool { return strings.Count(live.String(), "pending") > 2 }, time.Minute, time.Millisecond)
	leave()
	assert.Zero(t, <-watched)

	status, _, errs = runCommand(t, "stats", "-once", "-server", url, "-queue", "orders")
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, "Authorization Violation")
	status, _, errs = runCommand(t, append(append([]string{"stats", "-once"}, target...), "-queue", "a b")...)
	assert.Equal(t, 2, status)
	assert.Contains(t, errs, `"a b"`)
	interrupted, interrupt := context.WithCancel(t.Context())
	interrupt()
	said := new(console)
	assert.Equal(t, 130, run(interrupted, append([]string{"dead"}, target...), io.Discard, said))
	assert.Equal(t, "jobqueue dead: interrupted\n", said.String())
	status, _, errs = runCommand(t, append(append([]string{"stats", "-once"}, target...), "-queue", "others")...)
	assert.Equal(t, 1, status)
	assert.Contains(t, errs, `no queue "others" on `+url+": check -queue and -server")

	nc.Close()
	stop()
	assert.Zero(t, <-served)
}

func TestWatch_OutlastsTheServer(t *testing.T) {
	dir := t.TempDir()
	var s *embedded.Server
	var address string
	require.Eventually(t, func() (ok bool) { // a port that nobody else gets while the server is away
		address = fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		var err error
		s, err = embedded.Start(dir, embedded.WithListen(address), embedded.WithSyncInterval(time.Minute))
		return err == nil
	}, time.Minute, time.Millisecond)
	nc, err := nats.Connect(s.URL())
	require.NoError(t, err)
	defer nc.Close()
	_, err = jobqueue.Open[int, int](t.Context(), nc, "orders")
	require.NoError(t, err)

	look := target{server: s.URL(), queue: "orders", timeout: time.Second}
	q, end, err := look.open(t.Context())
	require.NoError(t, err)
	defer end()
	ctx, leave := context.WithCancel(t.Context())
	screen, left := new(console), make(chan error, 1)
	go func() { left <- look.watch(ctx, q, screen, time.Millisecond, true) }()
	shows := func(text string) {
		t.Helper()
		require.Eventually(t, func() bool {
			looks := strings.Split(screen.String(), "\x1b[H")
			return strings.Contains(looks[len(looks)-1], text)
		}, time.Minute, time.Millisecond, text)
	}
	shows("pending")
	s.Shutdown()
	shows("no answer from the server")
	s, err = embedded.Start(dir, embedded.WithListen(address), embedded.WithSyncInterval(time.Minute))
	require.NoError(t, err)
	defer s.Shutdown()
	shows("pending")
	leave()
	require.NoError(t, <-left)
}

func TestRun_MistakesOnTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, c := range []struct {
		status int
		text   string
		args   []string
	}{
		{2, "usage: jobqueue COMMAND", nil},
		{0, "usage: jobqueue COMMAND", []string{"help"}},
		{0, "-token-file", []string{"serve", "-h"}},
		{2, `no command "sing"`, []string{"sing"}},
		{2, "flag provided but not defined", []string{"serve", "-loud"}},
		{2, "add WithToken or WithUser", []string{"serve", "-dir", dir, "-listen", "0.0.0.0:0"}},
		{2, "the address is a loopback one", []string{"serve", "-dir", dir, "-health", "0.0.0.0:8222"}},
		{1, "making the folder", []string{"serve", "-dir", filepath.Join(empty, "data"), "-listen", "127.0.0.1:0"}},
		{2, "host:port", []string{"serve", "-dir", dir, "-listen", "here"}},
		{1, "is empty", []string{"serve", "-dir", dir, "-token-file", empty}},
		{1, "has no users", []string{"serve", "-dir", dir, "-users-file", empty}},
		{2, "-queue is missing", []string{"stats"}},
		{2, "unexpected", []string{"dead", "-queue", "q", "extra"}},
		{2, "say which", []string{"requeue", "-queue", "q"}},
		{2, "say which", []string{"delete", "-queue", "q"}},
		{2, "-replicas 6", []string{"copy", "-replicas", "6"}},
		{2, "-timeout -1s", []string{"stats", "-queue", "q", "-timeout", "-1s"}},
		{1, "no servers available", []string{"stats", "-queue", "q", "-server", "nats://127.0.0.1:1"}},
	} {
		status, _, errs := runCommand(t, c.args...)
		assert.Equal(t, c.status, status, "%q", c.args)
		assert.Contains(t, errs, c.text, "%q", c.args)
	}
}

func TestUsersOf_ReadsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	require.NoError(t, os.WriteFile(file, []byte("# people\n\nada:lovelace\nalan:tu:ring\n"), 0o600))
	users, err := usersOf(file)
	require.NoError(t, err)
	assert.Len(t, users, 2)
	require.NoError(t, os.WriteFile(file, []byte("ada\n"), 0o600))
	_, err = usersOf(file)
	require.ErrorContains(t, err, "line 1")
}
