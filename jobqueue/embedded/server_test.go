package embedded_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
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
		"WithServerOptions(nil)":            {embedded.WithServerOptions(nil)},
		"needs WithName":                    {embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "127.0.0.1:0"})},
		"the name of the cluster":           {embedded.WithName("a"), embedded.WithCluster(embedded.Cluster{Listen: "127.0.0.1:0"})},
		"the address \"nowhere\"":           {embedded.WithName("a"), embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "127.0.0.1:0", Routes: []string{"nowhere"}})},
		"add a Secret":                      {embedded.WithName("a"), embedded.WithCluster(embedded.Cluster{Name: "c", Listen: "0.0.0.0:0"})},
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
