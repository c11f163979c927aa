// Package embedded runs a NATS server with JetStream inside the process: the real
// one, which stores in a folder, and by default listens on no port.
//
//	s, err := embedded.Start("data")
//	...
//	defer s.Shutdown()
//	nc, err := s.Connect()
//	...
//	defer nc.Close()
//	q, err := jobqueue.Open[Job, Answer](ctx, nc, "thumbnails")
//
// With [WithListen], workers in other processes and on other machines connect to
// it, and with [WithCluster] three of them survive the loss of one. Programs that
// only connect don't import this package, and so don't link a server.
package embedded

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// startPatience is how long a server may take until it accepts connections. It
// reads the state of its streams before.
const startPatience = 60 * time.Second

// startPoll is the time between two looks whether it can't. The server looks on its
// own every 25 ms whether it does.
const startPoll = 50 * time.Millisecond

// connectPatience is how long a connection in this process may take to be made.
const connectPatience = 10 * time.Second

// A Server is a NATS server in this process. It is made by [Start] and ended by
// [Server.Shutdown].
type Server struct {
	server *server.Server
	lock   *flock.Flock
}

// Start starts a server that stores in dir, which is created if need be, and
// returns when it accepts connections. After a crash or a kill it goes on where it
// was. Only one server at a time may use dir: a second one gets an error, and so does
// one that can't write there, or whose port is taken.
//
// It returns an error that wraps [ErrInvalidOption] for addresses that others than
// this machine can reach, unless clients need a token or a password, and servers of
// a cluster a secret. So it does with [WithCluster] on a folder in which a server
// without it has stored, and the other way round: each would lose the other's streams.
// The command jobqueue copy brings the queues of a folder to a cluster.
func Start(dir string, opts ...Option) (*Server, error) {
	if dir == "" {
		return nil, invalid("Start: the folder is empty")
	}
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	o, err := c.serverOptions(dir)
	if err != nil {
		return nil, err
	}
	lock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	started := &Server{lock: lock}
	if err := started.start(o, newLogger(c.log)); err != nil {
		started.Shutdown()
		return nil, err
	}
	return started, nil
}

func (s *Server) start(o *server.Options, log *logger) (err error) {
	if err := checkFolder(o); err != nil {
		return err
	}
	if s.server, err = server.NewServer(o); err != nil {
		return fmt.Errorf("embedded: making the server: %w", err)
	}
	if o.NoLog {
		s.server.SetLogger(log, false, false)
	} else { // WithServerOptions asks for the server's own
		s.server.ConfigureLogger()
	}
	s.server.Start()
	for begin := time.Now(); time.Since(begin) < startPatience; {
		select {
		case why := <-log.fatal:
			return fmt.Errorf("embedded: the server in %s can't start: %s", o.StoreDir, why)
		default:
		}
		if s.server.ReadyForConnections(startPoll) {
			return nil
		}
	}
	return fmt.Errorf("embedded: the server in %s does not accept connections after %v", o.StoreDir, startPatience)
}

func (c *config) serverOptions(dir string) (*server.Options, error) {
	o := &server.Options{
		ServerName:   c.name,
		DontListen:   c.listen == "",
		JetStream:    true,
		StoreDir:     dir,
		SyncInterval: c.syncInterval,
		SyncAlways:   c.syncAlways,
		NoSigs:       true, // they are the program's
		NoLog:        true, // but for what goes to WithLogger
		TLSConfig:    c.tls,
		TLSTimeout:   5,
		AuthTimeout:  10, // the server's two seconds are too short for a machine under full load
	}
	if c.listen != "" {
		var err error
		if o.Host, o.Port, err = split(c.listen); err != nil {
			return nil, err
		}
		if !loopback(o.Host) && c.token == "" && len(c.users) == 0 {
			return nil, invalid("WithListen(%q): others than this machine can reach that address: add WithToken or WithUser", c.listen)
		}
	}
	if c.health != "" {
		var err error
		if o.HTTPHost, o.HTTPPort, err = split(c.health); err != nil {
			return nil, err
		}
	}
	o.Authorization = c.token
	for _, u := range c.users {
		o.Users = append(o.Users, &server.User{Username: u.name, Password: u.password})
	}
	if c.tls != nil {
		o.TLS = true
		o.TLSVerify = c.tls.ClientAuth >= tls.RequireAndVerifyClientCert
	}
	if c.cluster != nil {
		if err := c.cluster.apply(o); err != nil {
			return nil, err
		}
	}
	for _, change := range c.change {
		change(o)
	}
	return o, nil
}

func (cl *Cluster) apply(o *server.Options) error {
	host, port, err := split(cl.Listen)
	if err != nil {
		return err
	}
	if !loopback(host) && cl.Secret == "" {
		return invalid("WithCluster: others than this machine can reach the address %q: add a Secret", cl.Listen)
	}
	o.Cluster = server.ClusterOpts{Name: cl.Name, Host: host, Port: port, ConnectRetries: 120}
	var account *url.Userinfo
	if cl.Secret != "" {
		o.Cluster.Username, o.Cluster.Password = cl.Name, cl.Secret
		account = url.UserPassword(cl.Name, cl.Secret)
	}
	for _, address := range cl.Routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: address, User: account})
	}
	return nil
}

// split parses an address. Port 0 is the server's for a free one.
func split(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errors.New("an address has the form host:port")
	}
	p, err := strconv.ParseUint(text, 10, 16)
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("the port %q is not a number from 0 to 65535", text)
	case host == "":
		return "", 0, errors.New("the host is empty; 0.0.0.0 stands for all addresses")
	case p == 0:
		return host, server.RANDOM_PORT, nil
	}
	return host, int(p), nil
}

// loopback tells whether only this machine can reach a host.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Connect returns a connection that uses no network. It needs the same
// credentials as any other, given as options, and is closed by the caller: by itself
// it never gives up.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	// The library gives it two seconds, which a machine under full load may need for
	// other things.
	opts = append([]nats.Option{nats.InProcessServer(inProcess{s.server}), nats.Timeout(connectPatience), nats.MaxReconnects(-1)}, opts...)
	nc, err := nats.Connect("", opts...)
	if err != nil {
		return nil, fmt.Errorf("embedded: connecting to the server in this process: %w", err)
	}
	return nc, nil
}

// URL returns the address for clients on this machine or others, or "" if the
// server does not listen.
func (s *Server) URL() string {
	if s.server.Addr() == nil {
		return ""
	}
	return s.server.ClientURL()
}

// HealthURL returns the address of [WithHealth], or "" without the option.
func (s *Server) HealthURL() string {
	address := s.server.MonitorAddr()
	if address == nil {
		return ""
	}
	return "http://" + address.String() + "/healthz"
}

// Shutdown stops the server, and returns when no goroutine of it is left. What
// is stored stays stored. It may be called any number of times.
func (s *Server) Shutdown() {
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	_ = s.lock.Unlock() // which closing the file does in any case
}
