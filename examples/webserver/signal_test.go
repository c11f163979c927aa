//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const childVariable = "WEBSERVER_TEST_CHILD"

// TestMain makes the test binary a webserver if it was started as one. Its
// jobs end when the standard input does.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	err := run(os.Args[1:], func(ctx context.Context, r request) (string, error) {
		select {
		case <-ended:
			return "hash of " + r.Text, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(exitStatus(err))
}

// A process is a webserver of its own.
type process struct {
	client
	command *exec.Cmd
	release io.Closer   // lets the jobs end
	logged  chan string // all that it logged, once it has ended
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], append([]string{"-addr", "127.0.0.1:0", "-debug", "127.0.0.1:0", "-workers", "1", "-linger", "1m"}, args...)...)
	command.Env = append(os.Environ(), childVariable+"=yes")
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{command: command, release: stdin, logged: make(chan string, 1)}
	addr := make(chan string, 1)
	go func() {
		var all strings.Builder
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			all.WriteString(lines.Text() + "\n")
			if _, after, found := strings.Cut(lines.Text(), "listening addr="); found {
				addr <- after
			}
		}
		close(addr)
		p.logged <- all.String()
	}()
	listening, ok := <-addr
	if !ok {
		t.Fatalf("the server did not start:\n%s", <-p.logged)
	}
	p.client = client{t, "http://" + listening}
	return p
}

func (p *process) terminate() {
	p.t.Helper()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

// end waits for the end of the process and returns its exit status.
func (p *process) end() (status int, logged string) {
	p.t.Helper()
	logged = <-p.logged
	if err := p.command.Wait(); err != nil && p.command.ProcessState == nil {
		p.t.Fatal(err)
	}
	return p.command.ProcessState.ExitCode(), logged
}

func TestWebserver_DrainsAtSIGTERM(t *testing.T) {
	p := startProcess(t, "-drain", "1m")
	first, second := p.post("first"), p.post("second")
	p.await(first, "running")

	p.terminate()
	eventually(t, "draining", func() bool {
		return p.status("GET", "/healthz", "") == http.StatusServiceUnavailable
	})
	if got := p.get(second).State; got != "queued" {
		t.Errorf("second job: %s", got)
	}
	if err := p.release.Close(); err != nil {
		t.Fatal(err)
	}
	for _, location := range []string{first, second} {
		if got := p.await(location, "done"); !strings.HasPrefix(got.Result, "hash of ") {
			t.Errorf("%+v", got)
		}
	}
	p.terminate() // ends the time to fetch results
	if status, logged := p.end(); status != 0 || !strings.Contains(logged, "stopped") {
		t.Errorf("exit status %d:\n%s", status, logged)
	}
}

func TestWebserver_AbortsAtTheDeadlineAfterSIGTERM(t *testing.T) {
	p := startProcess(t, "-drain", "1ms")
	running, queued := p.post("running"), p.post("queued")
	p.await(running, "running")

	p.terminate()
	p.await(running, "aborted")
	p.await(queued, "aborted")
	p.terminate()
	status, logged := p.end()
	if status != 1 || strings.Count(logged, "job aborted") != 2 || !strings.Contains(logged, "shutdown cut short") {
		t.Errorf("exit status %d:\n%s", status, logged)
	}
}

func TestWebserver_SecondSIGTERMCutsTheDrainShort(t *testing.T) {
	p := startProcess(t, "-drain", "1m")
	running := p.post("running")
	p.await(running, "running")

	p.terminate()
	eventually(t, "draining", func() bool {
		return p.status("GET", "/healthz", "") == http.StatusServiceUnavailable
	})
	p.terminate()
	if status, logged := p.end(); status != 1 || !strings.Contains(logged, "job aborted") {
		t.Errorf("exit status %d:\n%s", status, logged)
	}
}
