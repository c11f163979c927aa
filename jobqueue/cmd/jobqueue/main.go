// Jobqueue looks after queues of package jobqueue: it runs a server for them, shows
// what is in them, and brings back what has failed.
//
//	jobqueue serve -dir data -token-file token         # a server for this machine
//	jobqueue copy -dir data -server nats://10.0.0.1:4222 -token-file token # from one server to three
//	jobqueue stats -token-file token -queue thumbnails # live, or -once
//	jobqueue dead -token-file token -queue thumbnails
//	jobqueue requeue -token-file token -queue thumbnails ID...
//	jobqueue delete -token-file token -queue thumbnails ID...
//
// serve listens on 127.0.0.1:4222 unless told otherwise, and refuses to listen where
// other machines can reach it without a token or users. The exit status is 0 if all
// went well, 1 if something failed, 2 if the command line was wrong, and 130 if Ctrl-C
// cut it short, which is never so for serve and the live stats.
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

	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// A command is one of the things that the program does.
type command struct {
	name, args, summary string
	// define adds the flags, and returns what to do when they are parsed.
	define func(flags *flag.FlagSet) func(ctx context.Context, args []string, out io.Writer) error
}

var commands = []command{
	{"serve", "", "run a server for queues until a signal comes", serve},
	{"copy", "", "copy the queues of a folder to a server or a cluster", copyQueues},
	{"stats", "", "show the numbers of a queue, again and again", stats},
	{"dead", "", "list the dead letters of a queue", dead},
	{"requeue", "ID...", "make jobs of dead letters again", requeue},
	{"delete", "ID...", "delete results and dead letters, for good", deleteEnds},
}

// A usageError is a mistake on the command line.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// isMistake tells whether the command line was wrong.
func isMistake(err error) bool {
	var mistake usageError
	return errors.As(err, &mistake) || errors.Is(err, jobqueue.ErrInvalidName) ||
		errors.Is(err, jobqueue.ErrInvalidOption) || errors.Is(err, embedded.ErrInvalidOption)
}

// run is main, for tests.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help" {
		fmt.Fprintln(errs, "usage: jobqueue COMMAND [flags]; each COMMAND has -h")
		for _, c := range commands {
			fmt.Fprintf(errs, "  %-8s %s\n", c.name, c.summary)
		}
		if len(args) == 0 {
			return 2
		}
		return 0
	}
	for _, c := range commands {
		if c.name != args[0] {
			continue
		}
		flags := flag.NewFlagSet("jobqueue "+c.name, flag.ContinueOnError)
		flags.SetOutput(errs)
		flags.Usage = func() {
			fmt.Fprintf(errs, "usage: jobqueue %s [flags] %s\n%s\n", c.name, c.args, c.summary)
			flags.PrintDefaults()
		}
		do := c.define(flags)
		if err := flags.Parse(args[1:]); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return 0
			}
			return 2
		}
		err := do(ctx, flags.Args(), out)
		switch {
		case err == nil:
			return 0
		case errors.Is(err, context.Canceled):
			fmt.Fprintf(errs, "jobqueue %s: interrupted\n", c.name)
			return 130
		}
		fmt.Fprintf(errs, "jobqueue %s: %v\n", c.name, err)
		if isMistake(err) {
			return 2
		}
		return 1
	}
	fmt.Fprintf(errs, "jobqueue: there is no command %q: see jobqueue help\n", args[0])
	return 2
}
