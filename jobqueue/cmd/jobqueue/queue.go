package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"golang.org/x/term"

	"github.com/seed-a18b2dc9/workpool/jobqueue"
)

// A target says which queue on which server a command is for.
type target struct {
	server, queue        string
	tokenFile, usersFile string
	creds, ca            string
	timeout              time.Duration
}

func (t *target) define(flags *flag.FlagSet) {
	t.defineServer(flags)
	flags.StringVar(&t.queue, "queue", "", "`name` of the queue (needed)")
}

func (t *target) defineServer(flags *flag.FlagSet) {
	flags.StringVar(&t.server, "server", "nats://127.0.0.1:4222", "`address` of the server, or several with commas between them")
	flags.StringVar(&t.tokenFile, "token-file", "", "`file` with the token for the server")
	flags.StringVar(&t.usersFile, "user-file", "", "`file` with name:password for the server")
	flags.StringVar(&t.creds, "creds", "", "`file` with NATS user credentials for the server")
	flags.StringVar(&t.ca, "ca", "", "`file` with the certificate that the server's is to be checked by; implies TLS")
	flags.DurationVar(&t.timeout, "timeout", 10*time.Second, "`time` to wait for the server")
}

// raw leaves jobs and results as they are stored, whatever their types are.
type raw struct{}

func (raw) Encode(data []byte) ([]byte, error) { return data, nil }
func (raw) Decode(data []byte) ([]byte, error) { return data, nil }

type rawQueue = jobqueue.Queue[[]byte, []byte]

// open connects to the server and opens the queue as it is there.
func (t *target) open(ctx context.Context) (*rawQueue, func(), error) {
	if t.queue == "" {
		return nil, nil, usage("-queue is missing")
	}
	nc, err := t.connect()
	if err != nil {
		return nil, nil, err
	}
	q, err := jobqueue.Open[[]byte, []byte](ctx, nc, t.queue, jobqueue.WithExisting(), jobqueue.WithCodec(raw{}))
	if err != nil {
		nc.Close()
		if errors.Is(err, jobqueue.ErrNotFound) {
			err = fmt.Errorf("there is no queue %q on %s: check -queue and -server; a program that submits or works creates it", t.queue, t.server)
		}
		return nil, nil, err
	}
	return q, nc.Close, nil
}

// connect connects to the server.
func (t *target) connect() (*nats.Conn, error) {
	if t.timeout <= 0 {
		return nil, usage("-timeout %v: the time is more than 0", t.timeout)
	}
	opts := []nats.Option{nats.Name("jobqueue command"), nats.Timeout(t.timeout), jobqueue.Reliable()}
	if t.tokenFile != "" {
		token, err := secret(t.tokenFile)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.Token(token))
	}
	if t.usersFile != "" {
		user, err := secret(t.usersFile)
		if err != nil {
			return nil, err
		}
		name, password, ok := strings.Cut(user, ":")
		if !ok || strings.Contains(user, "\n") {
			return nil, fmt.Errorf("%s has to hold one line, name:password", t.usersFile)
		}
		opts = append(opts, nats.UserInfo(name, password))
	}
	if t.creds != "" {
		opts = append(opts, nats.UserCredentials(t.creds))
	}
	if t.ca != "" {
		opts = append(opts, nats.RootCAs(t.ca))
	}
	nc, err := nats.Connect(t.server, opts...)
	switch {
	case errors.Is(err, nats.ErrNoServers):
		return nil, fmt.Errorf("connecting to %s: %w: check -server, and that it runs", t.server, err)
	case err != nil:
		return nil, fmt.Errorf("connecting to %s: %w", t.server, err)
	}
	return nc, nil
}

func stats(flags *flag.FlagSet) func(ctx context.Context, args []string, out io.Writer) error {
	var t target
	t.define(flags)
	once := flags.Bool("once", false, "show them once")
	every := flags.Duration("every", time.Second, "`time` between two looks")
	return func(ctx context.Context, args []string, out io.Writer) error {
		if len(args) > 0 {
			return usage("unexpected %q", args)
		}
		if *every <= 0 {
			return usage("-every %v: the time is more than 0", *every)
		}
		q, end, err := t.open(ctx)
		if err != nil {
			return err
		}
		defer end()
		if *once {
			s, err := t.look(ctx, q)
			if err != nil {
				return err
			}
			_, err = io.WriteString(out, t.table(s))
			return err
		}
		return t.watch(ctx, q, out, *every, terminal(out))
	}
}

// look asks for the numbers of the queue.
func (t *target) look(ctx context.Context, q *rawQueue) (jobqueue.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	return q.Stats(ctx)
}

// table returns the numbers of the queue for the eye.
func (t *target) table(s jobqueue.Stats) string {
	return fmt.Sprintf("%s  %s\n\npending     %12d\nscheduled   %12d\nin flight   %12d\nredelivered %12d\ndead        %12d\nresults     %12d\n",
		t.queue, time.Now().Format(time.TimeOnly), s.Pending, s.Scheduled, s.InFlight, s.Redelivered, s.Dead, s.Results)
}

// watch shows the numbers of the queue until ctx ends. On a terminal each look
// replaces the one before, and a server that is restarted does not end the watching.
func (t *target) watch(ctx context.Context, q *rawQueue, out io.Writer, every time.Duration, terminal bool) error {
	// To the upper left, and nothing below what is shown: that bears a terminal
	// with fewer lines than the table, which going up by lines would not.
	const home, toLineEnd, rest, all = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J" // the last three clear
	for first := true; ; first = false {
		s, err := t.look(ctx, q)
		if err != nil && (first || !terminal) && ctx.Err() == nil {
			return err
		}
		text := t.table(s)
		if err != nil {
			text = fmt.Sprintf("%s  %s  no answer from the server\n", t.queue, time.Now().Format(time.TimeOnly))
		}
		if terminal {
			text = home + strings.ReplaceAll(text, "\n", toLineEnd+"\n") + rest
			if first {
				text = all + text
			}
		} else {
			text += "\n"
		}
		select {
		case <-ctx.Done(): // Ctrl-C is how one leaves
			return nil
		default:
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

func terminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func dead(flags *flag.FlagSet) func(ctx context.Context, args []string, out io.Writer) error {
	var t target
	t.define(flags)
	return func(ctx context.Context, args []string, out io.Writer) error {
		if len(args) > 0 {
			return usage("unexpected %q", args)
		}
		q, end, err := t.open(ctx)
		if err != nil {
			return err
		}
		defer end()
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tTIME\tATTEMPTS\tWORKER\tREASON\tJOB")
		for letter, err := range q.Dead(ctx) {
			if err != nil {
				return err
			}
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", line([]byte(letter.ID), 255), letter.Time.Format(time.RFC3339), letter.Attempts,
				line([]byte(letter.Worker), 255), line([]byte(letter.Reason), 120), line(letter.Payload, 60))
		}
		return table.Flush()
	}
}

// line makes text that may be anything fit for a line of a terminal.
func line(text []byte, limit int) string {
	cut := len(text) > limit
	if cut {
		text = text[:limit]
	}
	text = bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || r >= 0x80 && r < 0xa0 {
			return '.'
		}
		return r
	}, text)
	if cut {
		return string(text) + "…"
	}
	return string(text)
}

func requeue(flags *flag.FlagSet) func(ctx context.Context, args []string, out io.Writer) error {
	var t target
	t.define(flags)
	all := flags.Bool("all", false, "requeue every dead letter that there is, in place of IDs")
	return func(ctx context.Context, ids []string, out io.Writer) error {
		if *all == (len(ids) > 0) {
			return usage("say which: the IDs of dead letters, or -all")
		}
		q, end, err := t.open(ctx)
		if err != nil {
			return err
		}
		defer end()
		if *all {
			for letter, err := range q.Dead(ctx) {
				if err != nil {
					return err
				}
				ids = append(ids, letter.ID)
			}
		}
		return t.forEach(ctx, ids, q.Requeue, out, "requeued")
	}
}

func deleteEnds(flags *flag.FlagSet) func(ctx context.Context, args []string, out io.Writer) error {
	var t target
	t.define(flags)
	return func(ctx context.Context, ids []string, out io.Writer) error {
		if len(ids) == 0 {
			return usage("say which: the IDs of results or dead letters")
		}
		q, end, err := t.open(ctx)
		if err != nil {
			return err
		}
		defer end()
		return t.forEach(ctx, ids, q.Delete, out, "deleted")
	}
}

// forEach does something with each ID, says so, and returns what has failed.
func (t *target) forEach(ctx context.Context, ids []string, do func(context.Context, string) error, out io.Writer, done string) error {
	var failed []error
	for _, id := range ids {
		one, cancel := context.WithTimeout(ctx, t.timeout)
		err := do(one, id)
		cancel()
		if err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintln(out, done, line([]byte(id), 255))
	}
	return errors.Join(failed...)
}
