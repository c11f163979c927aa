// Checksum prints an SHA-256 manifest of every regular file under the given folders,
// in the format of sha256sum -c. It is one [workpool.Pool.Stream]: a walk finds the
// files, workers read them, and WithOrdered keeps the results in the order of the walk.
//
//	go run ./examples/checksum [-workers N] [DIR...] > manifest
//	sha256sum -c manifest
//
// Symbolic links are not followed, except those given as DIR, and .git folders are
// skipped. Files that can't be read are reported and skipped; the exit status is then 1.
// It is 2 for wrong usage, and 130 after Ctrl-C, when the manifest has the files that were
// finished.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/seed-a18b2dc9/workpool"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second Ctrl-C kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

const (
	statusOK          = 0
	statusFailed      = 1
	statusUsage       = 2
	statusInterrupted = 130
)

// A file is a task.
type file struct {
	path string
	err  error // why the walk could not read it
}

type digest = [sha256.Size]byte

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("checksum", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: checksum [-workers N] [DIR...]")
		flags.PrintDefaults()
	}
	workers := flags.Int("workers", runtime.GOMAXPROCS(0), "files that are read at a time")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return statusOK
	case err != nil:
		return statusUsage
	}
	roots := flags.Args()
	if len(roots) == 0 {
		roots = []string{"."}
	}

	progress := newProgress(stdout, stderr)
	defer progress.clear()
	// The queue bounds how far the walk may be ahead of the workers. The buffer bounds how
	// many finished files may wait for a slow one before them.
	pool, err := workpool.New(func(ctx context.Context, f file) (digest, error) { return sum(ctx, f, progress) },
		workpool.WithWorkers(*workers), workpool.WithQueueDepth(1024), workpool.WithResultBuffer(1024), workpool.WithOrdered())
	if err != nil {
		fmt.Fprintln(stderr, "checksum:", err)
		return statusUsage
	}
	defer pool.Close()
	status, written := statusOK, 0
	for r := range pool.Stream(ctx, walk(roots)) {
		switch {
		case ctx.Err() != nil && r.Err != nil: // Ctrl-C
		case r.Err != nil:
			status = statusFailed
			progress.report(r.Err)
		default:
			if _, err := io.WriteString(stdout, line(r.Value, r.Task.path)); err != nil {
				progress.report(fmt.Errorf("the manifest is incomplete: %w", err))
				return statusFailed // leaving the loop also ends the walk and the workers
			}
			written++
		}
	}
	if ctx.Err() != nil {
		progress.report(fmt.Errorf("interrupted: %d files done", written))
		return statusInterrupted
	}
	return status
}

var errEnd = errors.New("the walk is no longer wanted")

// walk yields every regular file under the roots, and what it can't read with the error.
func walk(roots []string) iter.Seq[file] {
	return func(yield func(file) bool) {
		for _, root := range roots {
			info, err := os.Stat(root)
			if err == nil && info.IsDir() {
				root += string(filepath.Separator) // so that a link is followed
			} else if err == nil && !info.Mode().IsRegular() {
				err = fmt.Errorf("%s: neither a folder nor a regular file", root)
			}
			if err != nil || !info.IsDir() {
				if !yield(file{root, err}) {
					return
				}
				continue
			}
			err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				switch {
				case err != nil:
				case entry.IsDir() && entry.Name() == ".git" && path != root:
					return filepath.SkipDir
				case !entry.Type().IsRegular():
					return nil
				}
				if !yield(file{path, err}) {
					return errEnd
				}
				return nil
			})
			if err != nil {
				return
			}
		}
	}
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// sum is the handler: it hashes one file.
func sum(ctx context.Context, f file, progress *progress) (digest, error) {
	if f.err != nil {
		return digest{}, f.err
	}
	opened, err := os.Open(f.path)
	if err != nil {
		return digest{}, err
	}
	defer opened.Close()
	buffer := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buffer)
	hash := sha256.New()
	if _, err := io.CopyBuffer(io.MultiWriter(hash, progress), contextReader{ctx, opened}, buffer[:]); err != nil {
		return digest{}, err
	}
	progress.files.Add(1)
	return digest(hash.Sum(nil)), nil
}

// A contextReader reads until ctx ends.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

var escape = strings.NewReplacer("\\", "\\\\", "\n", "\\n", "\r", "\\r")

// line returns a line of the manifest. As sha256sum does, it marks a line whose name had
// to be escaped with a backslash.
func line(d digest, path string) string {
	if path == "-" {
		path = "./-" // sha256sum -c would read its input
	}
	mark, name := "", escape.Replace(path)
	if name != path {
		mark = "\\"
	}
	return fmt.Sprintf("%s%x  %s\n", mark, d, name)
}
