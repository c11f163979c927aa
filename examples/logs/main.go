// Logs prints a log file with its e-mail addresses and IPv4 addresses masked, so that it
// can be shared. It works in parallel, keeps the order, and needs little memory. It shows
//
//   - how to combine small tasks: a task is a chunk of whole lines, because a single
//     line is too little work to pass from one goroutine to another;
//   - [workpool.Pool.Stream] with WithOrdered: chunks are masked in parallel, and
//     written in the order of the file;
//   - bounded memory: chunks are read only as fast as they are written, so memory does
//     not grow with the file.
//
// Try
//
//	go run ./examples/logs access.log > masked.log
//	journalctl | go run ./examples/logs | less
//
// Everything else is unchanged: line endings, a last line without one, and bytes that
// are not text. A line has to fit into memory: one longer than -longest is an error. The
// exit status is 1 after an error, 2 for wrong usage, and 130 after Ctrl-C; the output
// ends with a whole line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/seed-a18b2dc9/workpool"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "logs:", err)
	}
	os.Exit(exitStatus(err))
}

const maxChunk = 1 << 30 // bytes; there are three chunks for each worker

func run(ctx context.Context, args []string, in io.Reader, out, stderr io.Writer) error {
	flags := flag.NewFlagSet("logs", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: logs [flags] [FILE]    (without FILE, the standard input)")
		flags.PrintDefaults()
	}
	var o options
	flags.IntVar(&o.workers, "workers", runtime.GOMAXPROCS(0), "chunks that are masked at a time")
	flags.IntVar(&o.chunk, "chunk", 256<<10, "`bytes` of a chunk, which goes on to the end of its last line")
	flags.IntVar(&o.longest, "longest", 16<<20, "`bytes` that a line may have")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case o.chunk < 1 || o.chunk > maxChunk:
		return usage("-chunk %d: must be 1 to %d", o.chunk, maxChunk)
	case o.longest < o.chunk:
		return usage("-longest %d: must be -chunk, which is %d, or more", o.longest, o.chunk)
	case flags.NArg() > 1:
		return usage("one file at a time, not %d", flags.NArg())
	case flags.NArg() == 1:
		file, err := os.Open(flags.Arg(0))
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	total, err := filter(ctx, in, out, mask, o)
	if errors.Is(err, workpool.ErrInvalidOption) {
		return err
	}
	fmt.Fprintf(stderr, "%d lines, %d addresses masked\n", total.lines, total.found)
	if errors.Is(err, context.Canceled) {
		return errInterrupted
	}
	return err
}
