package queues

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// startAsynq has a redis-server of its own. What is set was the fastest on two cores:
//
//   - 64 goroutines that enqueue, since there is no call for many tasks at once, and
//     as many connections
//   - three servers with Concurrency 64, since each takes tasks one by one, and a
//     fourth makes it slower
//   - TaskCheckInterval 2 ms, for the default of a second is what a server sleeps
//     when it has caught up with who submits
//
// Retention is what keeps results at all.
func startAsynq(b *testing.B, handle func(job)) running {
	const submitters, servers = 64, 3
	redis := startRedis(b)
	redis.PoolSize = submitters
	client := asynq.NewClient(redis)
	b.Cleanup(func() { require.NoError(b, client.Close()) })
	require.Eventually(b, func() bool { return client.Ping() == nil }, 10*time.Second, 10*time.Millisecond, "redis-server does not answer")
	inspector := asynq.NewInspector(redis)
	b.Cleanup(func() { require.NoError(b, inspector.Close()) })
	handler := asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		var j job
		if err := json.Unmarshal(task.Payload(), &j); err != nil {
			return err
		}
		handle(j)
		result, err := json.Marshal(j)
		if err != nil {
			return err
		}
		_, err = task.ResultWriter().Write(result)
		return err
	})
	for range servers {
		server := asynq.NewServer(redis, asynq.Config{
			Concurrency:       64,
			TaskCheckInterval: 2 * time.Millisecond,
			LogLevel:          asynq.ErrorLevel,
		})
		require.NoError(b, server.Start(handler))
		b.Cleanup(server.Shutdown)
	}
	enqueue := func(j job) error {
		payload, err := json.Marshal(j)
		if err != nil {
			return err
		}
		_, err = client.Enqueue(asynq.NewTask("bench", payload), asynq.Retention(time.Hour))
		return err
	}
	return running{
		submit: func(jobs []job) error {
			var group errgroup.Group
			group.SetLimit(submitters)
			for _, j := range jobs {
				group.Go(func() error { return enqueue(j) })
			}
			return group.Wait()
		},
		stored: func() (int, error) {
			info, err := inspector.GetQueueInfo("default")
			if err != nil {
				return 0, err
			}
			return info.Completed, nil
		},
	}
}

// startRedis runs redis-server on a free port of the loopback address, in a folder
// of its own. It appends each write to a file that is synced each second, and takes
// no snapshots beside.
func startRedis(b *testing.B) asynq.RedisClientOpt {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		b.Skip("redis-server is not installed; on Debian: apt-get install redis-server")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	address := l.Addr().String()
	require.NoError(b, l.Close())
	host, port, err := net.SplitHostPort(address)
	require.NoError(b, err)
	cmd := exec.Command(path, "--bind", host, "--port", port, "--dir", b.TempDir(),
		"--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
	cmd.Stderr = os.Stderr
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		require.NoError(b, cmd.Process.Kill())
		_ = cmd.Wait() // which says that it was killed
	})
	return asynq.RedisClientOpt{Addr: address}
}
