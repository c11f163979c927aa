// Checksum prints an SHA-256 manifest of every regular file under the given
// folders, which sha256sum -c accepts. It shows a bounded queue between a walk
// that finds files and workers that read them, with the results in the order of
// the walk.
//
//	go run ./examples/checksum [-workers N] [DIR...] > manifest
//	sha256sum -c manifest
//
// Files that can't be read are reported, and the rest is done; the exit status
// is then 1. Symbolic links are not followed, but for those given as DIR. On a
// terminal, a line shows the progress; its end is an estimate from what the
// walk has found so far. Ctrl-C ends it with what is done.
//
// How fast it is, files in the page cache, seconds as medians of 5 interleaved
// runs of
//
//	checksum -workers N DIR > /dev/null
//	find DIR -type f -print0 | xargs -0 sha256sum > /dev/null
//
// on two cores of an AMD EPYC, Go 1.26.8, coreutils 9.1, November 2026:
//
//	                                      1 worker  2 workers  sha256sum
//	15,036 files, 270 MB (the Go tree)        0.30       0.21       0.82
//	4 files of 256 MiB                        0.69       0.36       3.01
//
// The distance to sha256sum is one of hash implementations: crypto/sha256 uses
// the SHA instructions of the processor, coreutils without OpenSSL doesn't.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
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

// ahead is how many files may be done before one that takes long: their
// results wait, so that the manifest keeps the order of the walk.
const ahead = 4096

type (
	digest = [sha256.Size]byte
	file   struct {
		path string
		size int64
	}
	result = workpool.Result[file, digest]
)

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

	progress := newProgress(stderr)
	pool, err := workpool.New(func(ctx context.Context, f file) (digest, error) {
		return sum(ctx, f.path, progress)
	}, workpool.WithWorkers(*workers))
	if err != nil {
		fmt.Fprintln(stderr, "checksum:", err)
		return statusUsage
	}
	defer pool.Close()
	defer progress.start()()

	// A write error ends the walk and the reading too.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	// The walk starts the calls, and the loop below takes their answers in the
	// same order. The channel bounds how far the one is ahead of the other.
	answers := make(chan (<-chan result), ahead)
	go func() {
		defer close(answers)
		walk(ctx, roots, func(f file, err error) {
			if err != nil {
				failed := make(chan result, 1)
				failed <- result{Task: f, Err: err}
				answers <- failed
				return
			}
			progress.found(f.size)
			answers <- pool.DoChan(ctx, f)
		})
	}()

	status, written, undone := statusOK, 0, 0
	manifest := bufio.NewWriter(progress.above(stdout))
	var writeErr error
	for answer := range answers {
		r := <-answer
		switch {
		case r.Err == nil && writeErr == nil:
			if _, writeErr = manifest.WriteString(line(r.Value, r.Task.path)); writeErr != nil {
				cancel()
			}
			written++
		case r.Err != nil && errors.Is(r.Err, ctx.Err()):
			undone++
		case r.Err != nil:
			status = statusFailed
			progress.report(fmt.Sprintf("checksum: %s: %v", r.Task.path, reason(r.Err)))
		}
		if len(answers) == 0 && writeErr == nil { // show what there is before waiting for more
			if writeErr = manifest.Flush(); writeErr != nil {
				cancel()
			}
		}
	}
	if writeErr == nil {
		writeErr = manifest.Flush()
	}
	switch {
	case writeErr != nil:
		progress.report(fmt.Sprintf("checksum: the manifest is incomplete: %v", writeErr))
		return statusFailed
	case ctx.Err() != nil:
		progress.report(fmt.Sprintf("checksum: interrupted: %d files done, %d begun or found and not done", written, undone))
		return statusInterrupted
	}
	return status
}

// walk calls visit for every regular file under the roots, or with the error
// that kept it from one, until ctx ends.
func walk(ctx context.Context, roots []string, visit func(file, error)) {
	for _, root := range roots {
		info, err := os.Stat(root)
		switch {
		case err != nil:
			visit(file{path: root}, err)
			continue
		case info.Mode().IsRegular(): // if only through a link
			visit(file{root, info.Size()}, nil)
			continue
		case !info.IsDir():
			visit(file{path: root}, errors.New("neither a folder nor a regular file"))
			continue
		}
		if link, err := os.Lstat(root); err == nil && link.Mode()&fs.ModeSymlink != 0 && !os.IsPathSeparator(root[len(root)-1]) {
			root += string(filepath.Separator) // enter a link that was asked for
		}
		err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				visit(file{path: path}, err)
				return nil
			}
			if !entry.Type().IsRegular() {
				return nil
			}
			info, err := entry.Info()
			if err != nil {
				visit(file{path: path}, err)
				return nil
			}
			visit(file{path, info.Size()}, nil)
			return nil
		})
		if err != nil {
			return // ctx has ended
		}
	}
}

var buffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// sum is what the workers do.
func sum(ctx context.Context, path string, progress *progress) (digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return digest{}, err
	}
	defer f.Close()
	buffer := buffers.Get().(*[128 << 10]byte)
	defer buffers.Put(buffer)
	hash := sha256.New()
	for {
		if ctx.Err() != nil {
			return digest{}, ctx.Err()
		}
		n, err := f.Read(buffer[:])
		hash.Write(buffer[:n])
		progress.read(n)
		if err == io.EOF { // by contract not wrapped
			progress.done()
			return digest(hash.Sum(nil)), nil
		}
		if err != nil {
			return digest{}, err
		}
	}
}

var escape = strings.NewReplacer("\\", "\\\\", "\n", "\\n", "\r", "\\r")

// line returns a line of the manifest. As sha256sum does, it marks a line whose
// name had to be escaped with a backslash.
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

// reason returns the error without the path, which is printed before it.
func reason(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
