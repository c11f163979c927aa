// Pipeline makes thumbnails of images on two pools in a row: the first decodes
// and shrinks, the second encodes and stores. The images are generated as they
// are needed. It shows
//
//   - how the Stream of one pool is the input of the next;
//   - that memory is bounded: a slow second stage slows the first, and through it
//     the source of the images. There are no more images in flight for ten
//     million images than for a hundred;
//   - how the failure of one image reaches the end, and stops no other;
//   - that Ctrl-C ends all of it, since both streams have the same context.
//
// Try
//
//	go run ./examples/pipeline -n 200 -out "$(mktemp -d)"
//	go run ./examples/pipeline -n 200 -delay 20ms   # a slow second stage
//	go run ./examples/pipeline -n 200 -broken 50    # every 50th image is cut off
//
// The exit status is 1 if an image failed, 2 for wrong usage, and 130 after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"io"
	"iter"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pipeline:", err)
	}
	os.Exit(exitStatus(err))
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("pipeline", flag.ExitOnError)
	n := flags.Int("n", 200, "images to generate")
	workers := flags.Int("workers", runtime.GOMAXPROCS(0), "workers of each stage")
	dir := flags.String("out", "", "folder to write the thumbnails to; empty for none")
	delay := flags.Duration("delay", 0, "additional time to store a thumbnail, like an upload")
	broken := flags.Int("broken", 0, "cut off every n-th image; 0 for none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return usage("unexpected argument %q", flags.Arg(0))
	case *n < 0:
		return usage("-n %d: must be 0 or more", *n)
	case *delay < 0:
		return usage("-delay %v: must be 0 or more", *delay)
	case *broken < 0:
		return usage("-broken %d: must be 0 or more", *broken)
	}
	if *dir != "" {
		if err := os.MkdirAll(*dir, 0o755); err != nil {
			return fmt.Errorf("-out: %w", err)
		}
	}
	store := func(ctx context.Context, t thumbnail) error {
		select {
		case <-time.After(*delay):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if *dir == "" {
			return nil
		}
		return os.WriteFile(filepath.Join(*dir, t.name+".jpg"), t.data, 0o644)
	}

	began := time.Now()
	s, err := process(ctx, generate(*n, *broken), *workers, store)
	if errors.Is(err, workpool.ErrInvalidOption) {
		return err
	}
	for _, failure := range s.failures {
		fmt.Fprintln(out, "failed:", failure)
	}
	fmt.Fprintf(out, "%d thumbnails in %v, %d images failed\n", s.thumbnails, time.Since(began).Round(time.Millisecond), len(s.failures))
	if s.thumbnails > 0 {
		in, small := s.in.size.Div(s.thumbnails), s.out.size.Div(s.thumbnails)
		fmt.Fprintf(out, "in:  %8d bytes, on average %d x %d\n", s.in.bytes, in.X, in.Y)
		fmt.Fprintf(out, "out: %8d bytes, on average %d x %d\n", s.out.bytes, small.X, small.Y)
	}
	fmt.Fprintf(out, "peak: %d images in flight, of at most %d\n", s.peak, bound(*workers))
	if *dir != "" {
		fmt.Fprintln(out, "the thumbnails are in", *dir)
	}
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case err == nil && len(s.failures) > 0:
		return errors.New("some images failed")
	}
	return err
}

// What each of the two pools may hold, besides what its workers do.
const (
	queueDepth   = 4
	resultBuffer = 4
)

// bound is how many images can be in flight: what the two pools hold together,
// and the one that the loop over the results has in hand.
func bound(workers int) int { return 2*(queueDepth+resultBuffer+workers) + 1 }

type summary struct {
	thumbnails int
	in, out    total
	failures   []error
	peak       int // images in flight, at most
}

type total struct {
	bytes int
	size  image.Point
}

// process makes a thumbnail of every image and stores it. The error says why
// it ended early, if it did; those of single images are in the summary.
func process(ctx context.Context, images iter.Seq[source], workers int, store func(context.Context, thumbnail) error) (s summary, err error) {
	options := []workpool.Option{
		workpool.WithWorkers(workers),
		workpool.WithQueueDepth(queueDepth),
		workpool.WithResultBuffer(resultBuffer),
	}
	shrinkers, err := workpool.New(shrink, options...)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, shrinkers.Close()) }()

	// The tasks of the second pool are the results of the first, including errors. So
	// all errors arrive in one place, with the image that they belong to.
	encoders, err := workpool.New(func(ctx context.Context, r workpool.Result[source, shrunk]) (thumbnail, error) {
		if r.Err != nil {
			return thumbnail{}, r.Err
		}
		t, err := encode(r.Value)
		if err != nil {
			return thumbnail{}, err
		}
		return t, store(ctx, t)
	}, options...)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, encoders.Close()) }()

	var flying gauge
	for r := range encoders.Stream(ctx, shrinkers.Stream(ctx, flying.count(images))) {
		switch origin := r.Task.Task; {
		case r.Attempt == 0 || r.Task.Attempt == 0: // no image's: a stream ended before its input did
			err = errors.Join(err, r.Err)
			continue
		case r.Err == nil:
			s.thumbnails++
			s.in.add(len(origin.data), r.Task.Value.from)
			s.out.add(len(r.Value.data), r.Value.size)
		case ctx.Err() == nil:
			s.failures = append(s.failures, fmt.Errorf("%s: %w", origin.name, r.Err))
		}
		flying.done()
	}
	s.peak = flying.highest()
	if ctx.Err() != nil {
		return s, context.Cause(ctx)
	}
	return s, err
}

func (t *total) add(bytes int, size image.Point) {
	t.bytes += bytes
	t.size = t.size.Add(size)
}
