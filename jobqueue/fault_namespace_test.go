//go:build linux

package jobqueue_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// namespaceVariable is set in the process that has a network of its own.
const namespaceVariable = "JOBQUEUE_TEST_NAMESPACE"

// TestFault_Namespaces is [TestFault_Random] with a network interface for each of three
// servers, in namespaces of the kernel, and with packets that get lost: the servers and
// clients see what they see when a cable is drawn. It takes a kernel that lets the user
// make namespaces, and the commands ip and nsenter.
func TestFault_Namespaces(t *testing.T) {
	t.Parallel()
	if isInNamespace() {
		newCabledWorld(t, *faultSeed).round()
		return
	}
	rounds(t, func(t *testing.T, seed uint64) { inNamespace(t, fmt.Sprintf("-fault.seed=%d", seed)) })
}

// A disk that is full is told of by the server's log and health, and by Submit. The
// server stores nothing more until it is restarted; what it has accepted is there.
func TestFault_FullDisk(t *testing.T) {
	t.Parallel()
	if !isInNamespace() {
		inNamespace(t)
		return
	}
	must(t, "ip", "link", "set", "lo", "up")
	disk := t.TempDir()
	must(t, "mount", "-t", "tmpfs", "-o", "size=16m", "none", disk)
	t.Cleanup(func() { must(t, "umount", disk) })
	dir, ballast := filepath.Join(disk, "data"), filepath.Join(disk, "ballast")
	var log strings.Builder
	var mu sync.Mutex // guards log
	start := func() (*embedded.Server, *nats.Conn) {
		s, err := embedded.Start(dir, rareSync, embedded.WithHealth("127.0.0.1:0"),
			embedded.WithLogger(slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))))
		require.NoError(t, err)
		t.Cleanup(s.Shutdown)
		nc, err := s.Connect()
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return s, nc
	}
	healthy := func(s *embedded.Server) bool {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := client.Get(s.HealthURL())
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		return r.StatusCode == http.StatusOK
	}
	s, nc := start()
	q := openOn[string, int](t, nc)
	payload := strings.Repeat("x", 100_000)
	for range 10 {
		submit(t, q, payload)
	}
	require.True(t, healthy(s))
	f, err := os.Create(ballast)
	require.NoError(t, err)
	_, err = io.Copy(f, zeroes{}) // until there is no room
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Close())

	accepted := 10
	for ; ; accepted++ {
		short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		_, err := q.Submit(short, payload)
		cancel()
		if err != nil {
			break
		}
		require.Less(t, accepted, 1000)
	}
	require.Eventually(t, func() bool { return !healthy(s) }, time.Minute, 10*time.Millisecond)
	mu.Lock()
	require.Contains(t, log.String(), "no space left on device")
	mu.Unlock()
	require.NoError(t, os.Remove(ballast))
	require.False(t, healthy(s), "it needs a restart")
	nc.Close()
	s.Shutdown()

	s, nc = start()
	require.True(t, healthy(s))
	q = openOn[string, int](t, nc)
	submit(t, q, payload)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	jobs, err := js.Stream(limit(t), "test_jobs")
	require.NoError(t, err)
	require.GreaterOrEqual(t, jobs.CachedInfo().State.Msgs, uint64(accepted+1))
	eventually(t, q, func(s jobqueue.Stats) bool { return s.Pending >= uint64(accepted+1) }) // consumers count a little later
}

type lockedWriter struct {
	mu *sync.Mutex
	to io.Writer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func isInNamespace() bool { return os.Getenv(namespaceVariable) != "" }

// inNamespace runs the test again, in a process that may make networks and mount disks.
func inNamespace(t *testing.T, args ...string) {
	t.Helper()
	for _, name := range []string{"ip", "nsenter", "mount"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("there is no command %s here", name)
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), name, args...)
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		return c
	}
	if out, err := command("ip", "link", "add", "br0", "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("the system allows no networks of one's own: %v %s", err, out)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	name, _, _ := strings.Cut(t.Name(), "/")
	c := command(self, append([]string{"-test.run=^" + name + "$", "-test.v"}, args...)...)
	c.Env = append(os.Environ(), namespaceVariable+"=1")
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
}

// must runs a command of the system.
func must(t *testing.T, command ...string) {
	t.Helper()
	out, err := exec.CommandContext(context.Background(), command[0], command[1:]...).CombinedOutput() // also while it cleans up
	require.NoError(t, err, "%q: %s", command, out)
}

// newCabledWorld returns a world in which each server has a namespace, with a cable to
// a bridge that the clients are at.
func newCabledWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	const servers = 3
	const token = "secret"
	w := &world{t: t}
	address := func(i int) string { return fmt.Sprintf("10.77.0.%d", 10+i) } // which nobody else can see
	cable := func(i int) string { return fmt.Sprintf("cable%d", i) }
	must(t, "ip", "link", "set", "lo", "up")
	must(t, "ip", "link", "add", "br0", "type", "bridge")
	must(t, "ip", "addr", "add", "10.77.0.1/24", "dev", "br0")
	must(t, "ip", "link", "set", "br0", "up")
	var urls, routes []string
	for i := range servers {
		urls = append(urls, fmt.Sprintf("nats://%s@%s:4222", token, address(i)))
		routes = append(routes, address(i)+":6222")
	}
	w.urls = strings.Join(urls, ",")
	for i := range servers {
		holder := exec.Command("sleep", "infinity") // keeps the namespace while no server runs
		holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		require.NoError(t, holder.Start())
		t.Cleanup(func() {
			_ = holder.Process.Kill()
			_ = holder.Wait()
		})
		pid := fmt.Sprint(holder.Process.Pid)
		inside := []string{"nsenter", "-t", pid, "-n"}
		must(t, "ip", "link", "add", cable(i), "type", "veth", "peer", "name", "eth0", "netns", pid)
		must(t, "ip", "link", "set", cable(i), "master", "br0", "up")
		must(t, append(inside, "ip", "addr", "add", address(i)+"/24", "dev", "eth0")...)
		must(t, append(inside, "ip", "link", "set", "eth0", "up")...)
		must(t, append(inside, "ip", "link", "set", "lo", "up")...)
		w.before = append(w.before, inside)
		w.roles = append(w.roles, role{
			Faults: true, Token: token, Dir: t.TempDir(), Listen: address(i) + ":4222", Name: fmt.Sprintf("node%d", i),
			Mesh: &embedded.Cluster{Name: "test", Listen: routes[i], Routes: routes, Secret: "between servers"},
		})
	}
	w.networks = []func(){
		func() { // both ways, to all
			i := w.random.IntN(servers)
			w.say("the cable of server %d is drawn", i)
			must(t, "ip", "link", "set", cable(i), "down")
			w.rest(500, 3000)
			must(t, "ip", "link", "set", cable(i), "up")
		},
		func() { // one way
			i := w.random.IntN(servers)
			to := address((i + 1 + w.random.IntN(servers-1)) % servers)
			if w.random.IntN(3) == 0 {
				to = "10.77.0.1" // the clients
			}
			w.say("what server %d sends to %s is lost", i, to)
			must(t, append(w.before[i], "ip", "route", "add", "blackhole", to)...)
			w.rest(500, 3000)
			must(t, append(w.before[i], "ip", "route", "del", "blackhole", to)...)
		},
	}
	w.start(seed)
	return w
}
