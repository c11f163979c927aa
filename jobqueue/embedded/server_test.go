package embedded_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStart_BadOptions(t *testing.T) {
	for text, opts := range map[string][]embedded.Option{
		"WithListen(\"4222\")":              {embedded.WithListen("4222")},
		"the port \"x\"":                    {embedded.WithListen("localhost:x")},
		"the host is empty":                 {embedded.WithListen(":4222")},
		"WithListen(\"0.0.0.0:0\"): others": {embedded.WithListen("0.0.0.0:0")},
		"WithListen(\"[::]:0\"): others":    {embedded.WithListen("[::]:0")},
		"WithName":                          {embedded.WithName("")},
		"WithToken":                         {embedded.WithToken("")},
		"WithUser(\"a\")":                   {embedded.WithUser("a", "")},
		"exclude each other: a server has":  {embedded.WithUser("a", "b"), embedded.WithToken("c")},
		"WithSyncInterval(0s)":              {embedded.WithSyncInterval(0)},
		"WithSyncAlways and":                {embedded.WithSyncInterval(time.Second), embedded.WithSyncAlways()},
		"WithTLS(nil)":                      {embedded.WithTLS(nil)},
		"WithLogger(nil)":                   {embedded.WithLogger(nil)},
		"WithHealth(\"8222\")":              {embedded.WithHealth("8222")},
		"WithHealth(\"0.0.0.0:8222\")":      {embedded.WithHealth("0.0.0.0:8222")},
		"WithServerOptions(nil)":            {embedded.WithServerOptions(nil)},
		"needs WithName":                    {embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "127.0.0.1:0"})},
		"needs WithListen":                  {embedded.WithName("a"), embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "127.0.0.1:0"})},
		"the name of the cluster":           {embedded.WithName("a"), embedded.WithCluster(embedded.Cluster{Listen: "127.0.0.1:0"})},
		"the address \"nowhere\"":           {embedded.WithListen("127.0.0.1:0"), embedded.WithName("a"), embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "127.0.0.1:0", Routes: []string{"nowhere"}})},
		"add a Secret":                      {embedded.WithListen("127.0.0.1:0"), embedded.WithName("a"), embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "0.0.0.0:0"})},
		"option 1 of 1 is nil":              {nil},
	} {
		_, err := embedded.Start(t.TempDir(), opts...)
		require.ErrorIs(t, err, embedded.ErrInvalidOption, text)
		assert.Contains(t, err.Error(), text)
	}
	_, err := embedded.Start("")
	require.ErrorIs(t, err, embedded.ErrInvalidOption)
}

func TestStart_ListensNowhereByDefault(t *testing.T) {
	s, err := embedded.Start(t.TempDir())
	require.NoError(t, err)
	assert.Empty(t, s.URL())
	s.Shutdown()
	s.Shutdown()
	_, err = s.Connect()
	require.Error(t, err)
}

func TestStart_FolderOfAnotherServer(t *testing.T) {
	dir := t.TempDir()
	s, err := embedded.Start(dir)
	require.NoError(t, err)
	_, err = embedded.Start(dir)
	require.ErrorContains(t, err, "another server uses the folder")
	s.Shutdown()
	s, err = embedded.Start(dir, embedded.WithSyncAlways())
	require.NoError(t, err)
	s.Shutdown()
}

func TestStart_OtherAddressWithCredentials(t *testing.T) {
	s, err := embedded.Start(t.TempDir(), embedded.WithListen("0.0.0.0:0"), embedded.WithToken("secret"))
	require.NoError(t, err)
	s.Shutdown()
}

func TestStart_StoresAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	var id string
	for round := range 2 {
		s, err := embedded.Start(dir, embedded.WithSyncInterval(time.Minute))
		require.NoError(t, err)
		nc, err := s.Connect()
		require.NoError(t, err)
		q, err := jobqueue.Open[int, int](t.Context(), nc, "kept")
		require.NoError(t, err)
		if round == 0 {
			id, err = q.Submit(t.Context(), 7)
			require.NoError(t, err)
		} else {
			w, err := q.Work(t.Context(), func(_ context.Context, n int) (int, error) { return n, nil })
			require.NoError(t, err)
			r, err := q.Result(t.Context(), id)
			require.NoError(t, err)
			assert.Equal(t, 7, r.Value)
			require.NoError(t, w.Shutdown(t.Context()))
		}
		nc.Close()
		s.Shutdown()
	}
}

func TestStart_TLSWithUserCredentials(t *testing.T) {
	certificate, pool := selfSigned(t)
	s, err := embedded.Start(t.TempDir(),
		embedded.WithSyncInterval(time.Minute),
		embedded.WithListen("127.0.0.1:0"),
		embedded.WithUser("ada", "lovelace"),
		embedded.WithTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}),
		embedded.WithServerOptions(func(o *server.Options) { o.MaxPayload = 1 << 20 }))
	require.NoError(t, err)
	defer s.Shutdown()
	trust := nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
	for _, bad := range [][]nats.Option{
		{nats.UserInfo("ada", "lovelace")}, // does not know the certificate
		{trust},
		{trust, nats.UserInfo("ada", "wrong")},
	} {
		_, err := nats.Connect(s.URL(), bad...)
		require.Error(t, err)
	}
	nc, err := nats.Connect(s.URL(), trust, nats.UserInfo("ada", "lovelace"), nats.Timeout(30*time.Second))
	require.NoError(t, err)
	defer nc.Close()
	state, err := nc.TLSConnectionState()
	require.NoError(t, err)
	assert.True(t, state.HandshakeComplete)
	_, err = jobqueue.Open[int, int](t.Context(), nc, "safe")
	require.NoError(t, err)

	_, err = s.Connect()
	require.ErrorIs(t, err, nats.ErrAuthorization)
	inside, err := s.Connect(nats.UserInfo("ada", "lovelace"))
	require.NoError(t, err)
	inside.Close()
}

// selfSigned returns a certificate for the loopback address, and what trusts it.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// serve returns a server, which the end of the test stops.
func serve(t *testing.T, dir string, opts ...embedded.Option) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(dir, append([]embedded.Option{embedded.WithSyncInterval(time.Minute)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(s.Shutdown)
	return s
}

// The cluster would delete the streams half a minute later.
func TestStart_ClusterOnTheFolderOfOneServer(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	nc, err := s.Connect()
	require.NoError(t, err)
	_, err = jobqueue.Open[int, int](t.Context(), nc, "orders")
	require.NoError(t, err)
	nc.Close()
	s.Shutdown()
	node := []embedded.Option{embedded.WithListen("127.0.0.1:0"), embedded.WithName("a"), embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "127.0.0.1:0", Routes: []string{"127.0.0.1:1"}})}
	_, err = embedded.Start(dir, node...)
	require.ErrorIs(t, err, embedded.ErrInvalidOption)
	for _, text := range []string{"orders_jobs", "orders_dead", "would delete", "jobqueue copy -dir " + dir} {
		assert.ErrorContains(t, err, text)
	}
	s = serve(t, dir) // alone again, with all that it had
	nc, err = s.Connect()
	require.NoError(t, err)
	defer nc.Close()
	_, err = jobqueue.Open[int, int](t.Context(), nc, "orders", jobqueue.WithExisting())
	require.NoError(t, err)

	dir = t.TempDir()
	serve(t, dir, node...).Shutdown()
	_, err = embedded.Start(dir)
	require.ErrorIs(t, err, embedded.ErrInvalidOption)
	require.ErrorContains(t, err, "a node of a cluster")
	serve(t, dir, node...).Shutdown()
}

// What keeps a server from starting is said at once.
func TestStart_SaysWhyItCant(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	address := taken.Addr().String()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	spoilt := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(spoilt, "jetstream"), nil, 0o600))
	for name, c := range map[string]struct {
		dir, text string
		opts      []embedded.Option
	}{
		"port":         {t.TempDir(), address, []embedded.Option{embedded.WithListen(address)}},
		"health":       {t.TempDir(), "address already in use", []embedded.Option{embedded.WithHealth(address)}},
		"cluster port": {t.TempDir(), "address already in use", []embedded.Option{embedded.WithListen("127.0.0.1:0"), embedded.WithName("a"), embedded.WithCluster(embedded.Cluster{Name: "c", Listen: address, Routes: []string{"127.0.0.1:1"}})}},
		"file":         {file, "making the folder", nil},
		"below a file": {filepath.Join(file, "data"), "making the folder", nil},
		"store":        {spoilt, "storage directory", nil},
	} {
		begin := time.Now()
		_, err := embedded.Start(c.dir, c.opts...)
		require.ErrorContains(t, err, c.text, name)
		assert.Less(t, time.Since(begin), 20*time.Second, name)
	}
}

func TestStart_FolderThatCantBeWritten(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "embedded.lock"), 0o700)) // which root can't open either
	_, err := embedded.Start(dir)
	require.ErrorContains(t, err, "can't write into the folder "+dir)
}

func TestHealth_FollowsTheServer(t *testing.T) {
	s := serve(t, t.TempDir(), embedded.WithHealth("127.0.0.1:0"))
	require.Regexp(t, `^http://127\.0\.0\.1:\d+/healthz$`, s.HealthURL())
	ask := func() (code int, answer struct{ Status, Error string }) {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := client.Get(s.HealthURL())
		require.NoError(t, err)
		defer r.Body.Close()
		assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
		require.NoError(t, json.NewDecoder(r.Body).Decode(&answer))
		return r.StatusCode, answer
	}
	code, answer := ask()
	assert.Equal(t, http.StatusOK, code)
	assert.Equal(t, "ok", answer.Status)
	s.Shutdown()
	assert.Empty(t, s.HealthURL())

	// A node alone has no leader.
	s = serve(t, t.TempDir(), embedded.WithHealth("localhost:0"), embedded.WithListen("127.0.0.1:0"), embedded.WithName("a"),
		embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "127.0.0.1:0", Routes: []string{"127.0.0.1:1"}}))
	code, answer = ask()
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.NotEmpty(t, answer.Error)
	s.Shutdown()

	none := serve(t, t.TempDir())
	assert.Empty(t, none.HealthURL())
}

func TestLogger_HearsOfWarningsAndErrors(t *testing.T) {
	var text lockedBuffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	serve(t, t.TempDir(), embedded.WithLogger(log)).Shutdown()
	assert.Empty(t, text.String(), "nothing to tell")
	serve(t, t.TempDir(), embedded.WithLogger(log), embedded.WithListen("127.0.0.1:0"), embedded.WithName("a"),
		embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "127.0.0.1:0", Routes: []string{"127.0.0.1:1"}}))
	require.Eventually(t, func() bool {
		return strings.Contains(text.String(), "level=WARN") && strings.Contains(text.String(), "level=ERROR")
	}, time.Minute, time.Millisecond)
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
