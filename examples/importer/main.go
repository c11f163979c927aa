// Importer loads readings of weather stations from a CSV file into an SQLite database.
// It is a module of its own, since it needs more than the standard library. It shows
//
//   - batches by size and time: a batch is stored when it has -batch rows, or when its
//     first row has waited for -flush, as happens when the rows come through a pipe;
//   - retries: [workpool.Retry] tries again while the database is busy, but not for a
//     row that can't be imported ([workpool.Permanent]), which is reported with its line;
//   - a rate limit: [workpool.Limit] takes a limiter of golang.org/x/time/rate;
//   - order with retries: WithKey stores one batch at a time, even while one waits for
//     its next attempt, so of several rows for one reading the last one wins;
//   - a clean end: Ctrl-C ends the import between two batches, and the program prints how
//     much was imported. It is safe to run again: existing readings are replaced.
//
// In this folder, run
//
//	go run . readings.csv weather.db
//	some-command | go run . -flush 5s - weather.db
//
// The first line of the file is station,time,celsius. A time is like 2026-11-26T06:00:00Z.
// The last line of readings.csv has the time of the one before, and replaces it.
// The exit status is 1 after an error, even of a single row, 2 for wrong usage, and 130
// after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
	"golang.org/x/time/rate"

	"github.com/seed-a18b2dc9/workpool"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	p := &progress{out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
	err := run(ctx, os.Args[1:], os.Stdin, p)
	if err != nil {
		fmt.Fprintln(os.Stderr, "importer:", err)
	}
	os.Exit(exitStatus(err))
}

type settings struct {
	batch    int
	flush    time.Duration
	rate     float64 // batches a second; 0 for no limit
	attempts int
}

func run(ctx context.Context, args []string, in io.Reader, p *progress) error {
	flags := flag.NewFlagSet("importer", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: importer [flags] FILE.csv DATABASE    (- for the standard input)")
		flags.PrintDefaults()
	}
	var s settings
	flags.IntVar(&s.batch, "batch", 500, "rows that are stored at a time, at most")
	flags.DurationVar(&s.flush, "flush", time.Second, "time that a row waits for a batch to be full, at most")
	flags.Float64Var(&s.rate, "rate", 0, "batches a second, at most; 0 for no limit")
	flags.IntVar(&s.attempts, "attempts", 12, "how often a batch is tried when the database is busy")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() != 2:
		return usage("want a CSV file and a database, got %d arguments", flags.NArg())
	case flags.Arg(1) == "": // SQLite would use a temporary database
		return usage("the name of the database is empty")
	case s.batch < 1:
		return usage("-batch %d: must be 1 or more", s.batch)
	case s.attempts < 1:
		return usage("-attempts %d: must be 1 or more", s.attempts)
	case s.flush <= 0:
		return usage("-flush %v: must be more than 0", s.flush)
	case !(s.rate >= 0): // a NaN is not
		return usage("-rate %v: must be 0 or more", s.rate)
	}
	if name := flags.Arg(0); name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	db, err := open(flags.Arg(1))
	if err != nil {
		return err
	}
	err = load(ctx, in, db.store, s, p)
	switch {
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("%w; run it again to import the rest", errInterrupted)
	case err != nil:
		err = fmt.Errorf("from %s to %s: %w", flags.Arg(0), flags.Arg(1), err)
	}
	return errors.Join(err, db.Close())
}

// load stores all rows. It returns an error if it ends early, or rows were bad.
func load(ctx context.Context, in io.Reader, store workpool.Handler[[]row, int], s settings, p *progress) error {
	limiter := rate.NewLimiter(rate.Inf, 1)
	if s.rate > 0 {
		limiter.SetLimit(rate.Limit(s.rate))
	}
	backoff := workpool.ExponentialBackoff(50*time.Millisecond, 2*time.Second)
	pool, err := workpool.New(workpool.Retry(workpool.Limit(store, limiter), s.attempts, backoff),
		workpool.WithWorkers(1), // SQLite has one writer at a time
		workpool.WithQueueDepth(8),
		workpool.WithKey(func([]row) bool { return true })) // all batches have the same
	if err != nil {
		return err
	}
	defer pool.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	rows, ended := make(chan row), make(chan error, 1)
	go func() {
		ended <- read(ctx, in, rows)
		close(rows)
	}()
	for r := range pool.Stream(ctx, batches(ctx, rows, s.batch, s.flush)) {
		p.imported += r.Value
		var bad rowErrors
		switch {
		case errors.As(r.Err, &bad):
			for _, err := range bad {
				p.report(err)
			}
		case r.Err != nil && r.Attempt == 0: // no batch's: the stream has ended early
			cancel(r.Err)
		case r.Err != nil:
			// Cancel, and not break: what has been stored meanwhile is still to be counted.
			cancel(fmt.Errorf("%s: %w", lines(r.Task), r.Err))
		}
		p.draw(pool.Stats().Retried)
	}
	p.end(pool.Stats().Retried)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.bad > 0:
		err = errors.New("some rows were not imported")
	}
	return errors.Join(<-ended, err)
}

// lines says which lines of the file a batch has.
func lines(batch []row) string {
	first, last := batch[0].line, batch[len(batch)-1].line
	if first == last {
		return fmt.Sprintf("line %d", first)
	}
	return fmt.Sprintf("lines %d to %d", first, last)
}

// A progress counts rows, and on a terminal draws a line about it.
type progress struct {
	out      io.Writer
	terminal bool
	imported int
	bad      int
	drawn    time.Time
}

// draw is called after each batch, and draws the line a few times a second.
func (p *progress) draw(retries uint64) {
	if p.terminal && time.Since(p.drawn) > 200*time.Millisecond {
		p.drawn = time.Now()
		p.clear()
		fmt.Fprintf(p.out, "%d rows imported, %d bad, %d retries", p.imported, p.bad, retries)
	}
}

func (p *progress) report(bad error) {
	p.bad++
	p.clear()
	fmt.Fprintln(p.out, bad)
}

func (p *progress) end(retries uint64) {
	p.clear()
	fmt.Fprintf(p.out, "%d rows imported, %d bad, %d retries\n", p.imported, p.bad, retries)
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\033[K")
	}
}
