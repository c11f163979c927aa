package embedded

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ErrInvalidOption is wrapped by the errors of [Start] that refuse a value. The
// text names the option and the value.
var ErrInvalidOption = errors.New("embedded: invalid option")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalidOption}, args...)...)
}

const defaultSyncInterval = 100 * time.Millisecond

// An Option sets one property of a server. [Start] checks its value and refuses
// options that contradict one another. Where an option is given twice, the last
// one holds, but for [WithUser].
type Option interface {
	apply(c *config) error
}

type config struct {
	listen       string
	name         string
	token        string
	users        []user
	tls          *tls.Config
	cluster      *Cluster
	syncInterval time.Duration
	syncAlways   bool
	withInterval bool
	health       string
	log          *slog.Logger
	change       []func(*server.Options)
}

type user struct{ name, password string }

type optionFunc func(c *config) error

func (f optionFunc) apply(c *config) error { return f(c) }

func newConfig(opts []Option) (config, error) {
	c := config{syncInterval: defaultSyncInterval, log: slog.Default()}
	for i, opt := range opts {
		if opt == nil {
			return c, invalid("option %d of %d is nil", i+1, len(opts))
		}
		if err := opt.apply(&c); err != nil {
			return c, err
		}
	}
	switch {
	case c.syncAlways && c.withInterval:
		return c, invalid("WithSyncAlways and WithSyncInterval(%v) exclude each other", c.syncInterval)
	case c.token != "" && len(c.users) > 0:
		return c, invalid("WithToken and WithUser exclude each other: a server has either a token or users")
	case c.cluster != nil && c.name == "":
		return c, invalid("WithCluster needs WithName: the nodes of a cluster have names of their own, and keep them")
	case c.cluster != nil && c.listen == "":
		return c, invalid("WithCluster needs WithListen: a node that does not listen for clients, if only at 127.0.0.1:0, is not reached by the other nodes either")
	}
	return c, nil
}

// WithListen sets the address that the server listens on for clients, as
// host:port; port 0 takes a free one, which [Server.URL] tells. The default is to
// listen nowhere: [Server.Connect] needs no port. An address that is not a loopback
// one needs [WithToken] or [WithUser].
func WithListen(address string) Option {
	return optionFunc(func(c *config) error {
		if _, _, err := split(address); err != nil {
			return invalid("WithListen(%q): %v", address, err)
		}
		c.listen = address
		return nil
	})
}

// WithName sets the name of the server, which has to be unique in a cluster and
// the same after a restart. The default is a random one.
func WithName(name string) Option {
	return optionFunc(func(c *config) error {
		if name == "" {
			return invalid("WithName(%q): the name is empty", name)
		}
		c.name = name
		return nil
	})
}

// WithToken lets in only clients that connect with nats.Token(token), in-process
// ones included. It excludes [WithUser]. By default everyone is let in.
func WithToken(token string) Option {
	return optionFunc(func(c *config) error {
		if token == "" {
			return invalid("WithToken: the token is empty")
		}
		c.token = token
		return nil
	})
}

// WithUser lets in only clients that connect with nats.UserInfo(name, password),
// in-process ones included. Given again, it adds a user. The password may be a
// bcrypt hash. It excludes [WithToken].
func WithUser(name, password string) Option {
	return optionFunc(func(c *config) error {
		if name == "" || password == "" {
			return invalid("WithUser(%q): the name or the password is empty", name)
		}
		c.users = append(c.users, user{name, password})
		return nil
	})
}

// WithTLS lets in only clients that speak TLS, but for in-process ones, and takes
// those with certificates alone if tlsConfig.ClientAuth says so. By default there is
// none.
func WithTLS(tlsConfig *tls.Config) Option {
	return optionFunc(func(c *config) error {
		if tlsConfig == nil {
			return invalid("WithTLS(nil): pass a configuration with a certificate")
		}
		c.tls = tlsConfig
		return nil
	})
}

// A Cluster says how the servers of a cluster find one another. A queue with
// three replicas needs three of them, on three machines for it to mean much.
type Cluster struct {
	Name   string   // the same on all
	Listen string   // the address for the other servers, as host:port
	Routes []string // the addresses of the others, as host:port; one's own may be among them
	Secret string   // the same on all; needed if Listen is not a loopback address
}

// WithCluster makes the server one of a cluster. It needs [WithName] and [WithListen].
func WithCluster(cluster Cluster) Option {
	return optionFunc(func(c *config) error {
		if cluster.Name == "" {
			return invalid("WithCluster: the name of the cluster is empty")
		}
		for _, address := range append([]string{cluster.Listen}, cluster.Routes...) {
			if _, _, err := split(address); err != nil {
				return invalid("WithCluster: the address %q: %v", address, err)
			}
		}
		c.cluster = &cluster
		return nil
	})
}

// WithSyncInterval sets how long what is written may stay in the memory of the
// operating system before it is synced to the disk: 1 ms or more. The default is
// 100 ms. A crash of the process loses nothing of it, a power loss may. It
// excludes [WithSyncAlways].
func WithSyncInterval(d time.Duration) Option {
	return optionFunc(func(c *config) error {
		if d < time.Millisecond {
			return invalid("WithSyncInterval(%v): the interval is 1ms or more; for none see WithSyncAlways", d)
		}
		c.syncInterval, c.withInterval = d, true
		return nil
	})
}

// WithSyncAlways syncs every message to the disk before it is acknowledged, so
// that a power loss loses nothing. It is slow: a few thousand jobs a second. It
// excludes [WithSyncInterval].
func WithSyncAlways() Option {
	return optionFunc(func(c *config) error {
		c.syncAlways = true
		return nil
	})
}

// WithHealth answers HTTP requests at http://address/healthz, as host:port on a
// loopback address; port 0 takes a free one, which [Server.HealthURL] tells. The
// answer is JSON. Its status is 200, and "status" is "ok", when all streams are there
// and can be written, and in a cluster the server is up to date with a leader. Else it
// is 500 or more, and "error" says why: also while the server reads its folder, and
// from when its disk was full until it is restarted. A limit of storage that is reached
// is none of that. What else the server tells of itself, such as /varz and /jsz, is
// there too. By default it does not listen.
func WithHealth(address string) Option {
	return optionFunc(func(c *config) error {
		host, _, err := split(address)
		if err != nil {
			return invalid("WithHealth(%q): %v", address, err)
		}
		if !loopback(host) {
			return invalid("WithHealth(%q): the address is a loopback one, such as 127.0.0.1:8222: it asks for no password", address)
		}
		c.health = address
		return nil
	})
}

// WithLogger sets where the server tells of what goes wrong: errors at level Error,
// warnings at Warn, and how it starts and stops at Debug. The default is slog.Default().
func WithLogger(log *slog.Logger) Option {
	return optionFunc(func(c *config) error {
		if log == nil {
			return invalid("WithLogger(nil): pass a logger, or leave the option out for slog.Default()")
		}
		c.log = log
		return nil
	})
}

// WithServerOptions is the door to what the server can do beyond the other
// options, such as accounts, limits or monitoring. It is called last, and what it
// opens is not checked.
func WithServerOptions(change func(*server.Options)) Option {
	return optionFunc(func(c *config) error {
		if change == nil {
			return invalid("WithServerOptions(nil): pass a function that changes the options")
		}
		c.change = append(c.change, change)
		return nil
	})
}
