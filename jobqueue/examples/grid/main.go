// Grid shows the same handler in many processes. The program starts itself several
// times: one process that serves the queue, some that work, while it submits the jobs
// itself and reads the results. In the middle it kills one of the workers, the hard
// way, and starts another; at the end nothing is missing, and it says what happened.
// The parts end when their standard input does, which works on every system, and even
// if the program itself is killed.
//
//	go run ./examples/grid -workers 3 -jobs 2000
//
// The exit status is 1 after an error, 2 for wrong usage, and 130 after Ctrl-C.
//
// On several machines, the parts are the command jobqueue serve on one, and a program
// like work below on the others, with the address and the token of the first.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// The parts get what they need from the environment: a token on a command line could
// be read by everyone on the machine.
const (
	partVariable  = "GRID_PART"
	urlVariable   = "GRID_URL"
	tokenVariable = "GRID_TOKEN"

	ackWait     = time.Second // how long a killed worker's jobs wait for another
	concurrency = 4
	maxWorkers  = 100 // a process each
)

func main() {
	var err error
	if name := os.Getenv(partVariable); name != "" {
		// Ctrl-C reaches every process of a terminal. The parts leave it to the one that
		// directs, which stops the workers before the server.
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
		err = part(name, os.Stdin)
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop) // the second Ctrl-C kills
		err = direct(ctx, os.Args[1:], os.Stdout)
	}
	if errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "grid:", err)
	}
	os.Exit(exitStatus(err))
}

// part plays a part until in ends.
func part(name string, in io.Reader) error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, in) // nothing comes
		cancel()
	}()
	if name == "server" {
		return serve(ctx)
	}
	return work(ctx)
}

// serve runs the server until ctx ends.
func serve(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "grid")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := embedded.Start(dir, embedded.WithListen("127.0.0.1:0"), embedded.WithToken(os.Getenv(tokenVariable)))
	if err != nil {
		return err
	}
	defer s.Shutdown()
	fmt.Println(s.URL())
	<-ctx.Done()
	return nil
}

func open(ctx context.Context, url string) (*jobqueue.Queue[int, string], *nats.Conn, error) {
	nc, err := nats.Connect(url, nats.Token(os.Getenv(tokenVariable)), jobqueue.Reliable())
	if err != nil {
		return nil, nil, err
	}
	q, err := jobqueue.Open[int, string](ctx, nc, "grid", jobqueue.WithAckWait(ackWait))
	if err != nil {
		nc.Close()
	}
	return q, nc, err
}

// work runs jobs until ctx ends, and then finishes those that run.
func work(ctx context.Context) error {
	q, nc, err := open(ctx, os.Getenv(urlVariable))
	if err != nil {
		return err
	}
	defer nc.Close()
	w, err := q.Work(ctx, collatz, jobqueue.WithConcurrency(concurrency))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return w.Shutdown(limit)
}

// collatz is the handler: which number below the job's makes the longest chain.
func collatz(_ context.Context, below int) (string, error) {
	best, longest := 1, 1
	for start := 1; start < below; start++ {
		length := 1
		for n := start; n != 1; length++ {
			if n%2 == 0 {
				n /= 2
			} else {
				n = 3*n + 1
			}
		}
		if length > longest {
			best, longest = start, length
		}
	}
	return fmt.Sprintf("%d (%d steps)", best, longest), nil
}

// direct starts the parts and tells what happens.
func direct(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("grid", flag.ExitOnError)
	workers := flags.Int("workers", 3, "worker processes")
	jobs := flags.Int("jobs", 2000, "jobs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return usage("unexpected argument %q", flags.Arg(0))
	case *workers < 1 || *workers > maxWorkers:
		return usage("-workers %d: must be 1 to %d", *workers, maxWorkers)
	case *jobs < 1:
		return usage("-jobs %d: must be 1 or more", *jobs)
	}
	if err := os.Setenv(tokenVariable, rand.Text()); err != nil {
		return err
	}

	server, url, err := start(partVariable + "=server")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	fmt.Fprintf(out, "server  %d listens on %s\n", server.Process.Pid, url)
	worker := func() (*process, error) {
		p, _, err := start(urlVariable+"="+url, partVariable+"=worker")
		if err == nil {
			fmt.Fprintf(out, "worker  %d runs %d jobs at a time\n", p.Process.Pid, concurrency)
		}
		return p, err
	}
	var running []*process
	defer func() {
		for _, p := range running {
			err = errors.Join(err, p.stop())
		}
	}()
	for range *workers {
		p, err := worker()
		if err != nil {
			return err
		}
		running = append(running, p)
	}

	q, nc, err := open(ctx, url)
	if err != nil {
		return err
	}
	defer nc.Close()
	begin := time.Now()
	var submitted sync.WaitGroup
	var submitErr error
	submitted.Go(func() {
		_, submitErr = q.SubmitAll(ctx, func(yield func(int) bool) {
			for i := range *jobs {
				if !yield(2000 + i%1000) {
					return
				}
			}
		})
	})
	byWorker, again := map[string]int{}, 0
	seen := map[string]bool{}
	for r, err := range q.Results(ctx, 0) {
		if err != nil {
			return err
		}
		if seen[r.ID] {
			return fmt.Errorf("two results of job %s", r.ID)
		}
		seen[r.ID] = true
		byWorker[r.Worker]++
		if r.Attempt > 1 {
			again++
		}
		if len(seen) == (*jobs+2)/3 {
			victim := running[0]
			_ = victim.Process.Kill() // it may have failed, which shows when the next one starts
			_ = victim.Wait()
			fmt.Fprintf(out, "worker  %d has been killed after %d results\n", victim.Process.Pid, len(seen))
			if running[0], err = worker(); err != nil {
				running = running[1:]
				return err
			}
		}
		if len(seen) == *jobs {
			break
		}
	}
	submitted.Wait()
	if submitErr != nil {
		return submitErr
	}
	fmt.Fprintf(out, "%d jobs, %d results, none missing, none twice, in %v\n", *jobs, len(seen), time.Since(begin).Round(time.Millisecond))
	fmt.Fprintf(out, "%d jobs that the killed worker had fetched went to others; it had begun %d of them at most\n", again, concurrency)
	for _, name := range slices.Sorted(maps.Keys(byWorker)) {
		fmt.Fprintf(out, "%6d by %s\n", byWorker[name], name)
	}
	return nil
}

// A process plays a part.
type process struct {
	*exec.Cmd
	in io.Closer // ends it
}

// start starts this program with a part to play, and returns when it has printed a
// line, and the line.
func start(env ...string) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("a part did not start: %w", err), cmd.Wait())
	}
	return &process{cmd, in}, strings.TrimSpace(line), nil
}

// stop ends a part in an orderly way.
func (p *process) stop() error {
	_ = p.in.Close() // one that is gone shows in Wait
	return p.Wait()
}
