// Thumbnails makes small images of large ones, as jobs that survive the process. It
// is one program with everything in it: a server that listens nowhere, a submitter,
// workers, and a reader of results.
//
//	go run ./examples/thumbnails                 # images that it draws itself
//	go run ./examples/thumbnails *.png           # images of yours
//
// It says where it puts the thumbnails, and the queue beside them: a folder among the
// temporary files, unless -out names one.
//
// Stop it in the middle, with Ctrl-C or kill -9, and start it again: jobs that were
// stored and not done go on where they were. A job's ID is the path of its image, so
// submitting again what is queued or done within the last two minutes does nothing.
//
// The exit status is 1 if an image has no thumbnail, 2 for wrong usage, and 130 after
// Ctrl-C.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	_ "image/gif"
	_ "image/jpeg"
	"image/png"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/image/draw"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// A Job names an image, and where its thumbnail goes.
type Job struct {
	Source, Target string
	Width          int
}

// A Thumbnail is what has become of it.
type Thumbnail struct {
	Path          string
	Width, Height int
	Bytes         int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	err := run(ctx, os.Args[1:])
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w; run it again to do the rest", errInterrupted)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "thumbnails:", err)
	}
	os.Exit(exitStatus(err))
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("thumbnails", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: thumbnails [flags] [IMAGE...]    (without IMAGE, some that it draws)")
		flags.PrintDefaults()
	}
	out := flags.String("out", filepath.Join(os.TempDir(), "workpool-thumbnails"), "folder for the thumbnails")
	data := flags.String("data", "", "folder for the queue (default: a folder queue in -out)")
	width := flags.Int("width", 160, "width of a thumbnail")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *width < 1 {
		return usage("-width %d: a thumbnail is 1 pixel wide or more", *width)
	}
	if *data == "" {
		*data = filepath.Join(*out, "queue")
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	fmt.Println("thumbnails go to", *out)
	var sources []string
	for _, arg := range flags.Args() {
		path, err := filepath.Abs(arg) // the job may be done by a later run, in another folder
		if err != nil {
			return err
		}
		sources = append(sources, path)
	}
	if len(sources) == 0 {
		if sources, err = pictures(filepath.Join(*out, "originals"), 12); err != nil {
			return err
		}
	}

	server, err := embedded.Start(*data)
	if err != nil {
		return err
	}
	defer server.Shutdown()
	nc, err := server.Connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	queue, err := jobqueue.Open[Job, Thumbnail](ctx, nc, "thumbnails")
	if err != nil {
		return err
	}
	worker, err := queue.Work(ctx, shrink)
	if err != nil {
		return err
	}
	defer func() { // at Ctrl-C too: what runs is finished, what waits stays stored
		limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = errors.Join(err, worker.Shutdown(limit))
	}()

	for _, source := range sources {
		target := filepath.Join(*out, filepath.Base(source)+".thumb.png")
		if _, err := queue.Submit(ctx, Job{source, target, *width}, jobqueue.WithID(source)); err != nil {
			return err
		}
	}
	failed := 0
	for _, source := range sources {
		r, err := queue.Result(ctx, source)
		switch {
		case errors.Is(err, jobqueue.ErrDead):
			fmt.Println(err)
			failed++
		case err != nil:
			return err
		default:
			fmt.Printf("%s  %d x %d, %d bytes, attempt %d\n", r.Value.Path, r.Value.Width, r.Value.Height, r.Value.Bytes, r.Attempt)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d images have no thumbnail", failed, len(sources))
	}
	return nil
}

// shrink is the handler. To run it twice does no harm: it writes the same file.
func shrink(ctx context.Context, job Job) (Thumbnail, error) {
	info, err := os.Stat(job.Source)
	if err == nil && !info.Mode().IsRegular() {
		return Thumbnail{}, workpool.Permanent(fmt.Errorf("%s is no regular file", job.Source))
	}
	data, err := os.ReadFile(job.Source)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return Thumbnail{}, workpool.Permanent(err)
	}
	if err != nil {
		return Thumbnail{}, err // perhaps the disk is away for a moment
	}
	source, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return Thumbnail{}, workpool.Permanent(fmt.Errorf("%s: %w", job.Source, err))
	}
	small := scale(source, job.Width)
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, small); err != nil {
		return Thumbnail{}, err
	}
	if err := ctx.Err(); err != nil {
		return Thumbnail{}, err
	}
	// Under another name first, so that nobody ever sees half an image.
	if err := os.WriteFile(job.Target+".tmp", encoded.Bytes(), 0o644); err != nil {
		return Thumbnail{}, err
	}
	if err := os.Rename(job.Target+".tmp", job.Target); err != nil {
		return Thumbnail{}, err
	}
	return Thumbnail{job.Target, small.Bounds().Dx(), small.Bounds().Dy(), encoded.Len()}, nil
}

// scale returns the image in a smaller size, and leaves one that is small enough as it is.
func scale(source image.Image, width int) image.Image {
	b := source.Bounds()
	if b.Dx() <= width {
		return source
	}
	small := image.NewRGBA(image.Rect(0, 0, width, max(1, b.Dy()*width/b.Dx())))
	draw.BiLinear.Scale(small, small.Bounds(), source, b, draw.Src, nil)
	return small
}

// pictures makes n images to work with, and returns their paths.
func pictures(dir string, n int) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var paths []string
	for k := range n {
		picture := image.NewRGBA(image.Rect(0, 0, 640, 400))
		for y := range 400 {
			for x := range 640 {
				picture.SetRGBA(x, y, color.RGBA{R: uint8(x * (k + 1) / 4), G: uint8(y * (k + 2) / 5), B: uint8((x ^ y) * (k + 1)), A: 255})
			}
		}
		path := filepath.Join(dir, fmt.Sprintf("picture%02d.png", k))
		f, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(png.Encode(f, picture), f.Close()); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}
