package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

func serve(flags *flag.FlagSet) func(ctx context.Context, args []string, out io.Writer) error {
	dir := flags.String("dir", "jobqueue-data", "`folder` that the queues are stored in")
	listen := flags.String("listen", "127.0.0.1:4222", "`address` to listen on; port 0 takes a free one")
	tokenFile := flags.String("token-file", "", "`file` with the token that clients need")
	usersFile := flags.String("users-file", "", "`file` with a name:password for clients in each line; the password may be a bcrypt hash")
	syncAlways := flags.Bool("sync-always", false, "sync every message to the disk before it is acknowledged; slow, but a power loss loses nothing")
	syncInterval := flags.Duration("sync-interval", 100*time.Millisecond, "`time` between syncs to the disk, without -sync-always")
	health := flags.String("health", "", "loopback `address` to answer http://address/healthz on, as JSON; port 0 takes a free one")
	name := flags.String("name", "", "`name` of the server, unique in the cluster")
	cluster := flags.String("cluster", "", "`name` of the cluster; the next three are for clusters")
	clusterListen := flags.String("cluster-listen", "127.0.0.1:6222", "`address` for the other servers")
	routes := flags.String("routes", "", "`addresses` of the other servers, with commas between them")
	secretFile := flags.String("cluster-secret-file", "", "`file` with the secret that the servers share")
	return func(ctx context.Context, args []string, out io.Writer) error {
		if len(args) > 0 {
			return usage("unexpected %q", args)
		}
		opts := []embedded.Option{embedded.WithListen(*listen)}
		if *tokenFile != "" {
			token, err := secret(*tokenFile)
			if err != nil {
				return err
			}
			opts = append(opts, embedded.WithToken(token))
		}
		if *usersFile != "" {
			users, err := usersOf(*usersFile)
			if err != nil {
				return err
			}
			opts = append(opts, users...)
		}
		if *syncAlways {
			opts = append(opts, embedded.WithSyncAlways())
		} else {
			opts = append(opts, embedded.WithSyncInterval(*syncInterval))
		}
		if *health != "" {
			opts = append(opts, embedded.WithHealth(*health))
		}
		if *name != "" {
			opts = append(opts, embedded.WithName(*name))
		}
		if *cluster != "" {
			c := embedded.Cluster{Name: *cluster, Listen: *clusterListen}
			if *routes != "" {
				c.Routes = strings.Split(*routes, ",")
			}
			if *secretFile != "" {
				var err error
				if c.Secret, err = secret(*secretFile); err != nil {
					return err
				}
			}
			opts = append(opts, embedded.WithCluster(c))
		}
		s, err := embedded.Start(*dir, opts...)
		if err != nil {
			return err
		}
		defer s.Shutdown()
		fmt.Fprintf(out, "listening on %s, storing in %s\n", s.URL(), *dir)
		if url := s.HealthURL(); url != "" {
			fmt.Fprintf(out, "health at %s\n", url)
		}
		<-ctx.Done()
		fmt.Fprintln(out, "stopping")
		return nil
	}
}

// secret returns what a file holds, without the line end.
func secret(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(text))
	if s == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return s, nil
}

// usersOf reads a file of users, in which empty lines and those that begin with #
// don't count.
func usersOf(file string) ([]embedded.Option, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var users []embedded.Option
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, password, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%s, line %d: a line has the form name:password", file, n)
		}
		users = append(users, embedded.WithUser(name, password))
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("%s has no users", file)
	}
	return users, nil
}
