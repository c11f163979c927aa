// Checksum prints an SHA-256 manifest of every regular file under the given
// folders, which sha256sum -c accepts. It is one [workpool.Pool.Stream]: a walk
// finds the files, a bounded number of them at a time, workers read them, and
// WithOrdered has the results come in the order of the walk.
//
//	go run ./examples/checksum [-workers N] [DIR...] > manifest
//	sha256sum -c manifest
//
// Files that can't be read are reported, and the rest is done; the exit status
// is then 1. Symbolic links are not followed, but for those given as DIR, and
// .git folders not entered. On a terminal, a line shows the progress; its end is
// an estimate from what the walk has found so far. Ctrl-C ends it with what is
// done.
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
//	15,036 files, 270 MB (the Go tree)        0.28       0.19       0.61
//	4 files of 256 MiB                        0.62       0.32       2.12
//
// The distance to sha256sum is one of hash implementations: crypto/sha256 uses
// the SHA instructions of the processor, coreutils without OpenSSL doesn't.
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

// ahead is how many files the walk may be ahead. As many may be done before one
// that takes long: their results wait for its.
const ahead = 4096

type (
	digest = [sha256.Size]byte
	file   struct {
		path string
		err  error // that kept the walk from it
	}
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
		if f.err != nil {
			return digest{}, f.err
		}
		return sum(ctx, f.path, progress)
	}, workpool.WithWorkers(*workers), workpool.WithQueueDepth(ahead), workpool.WithOrdered())
	if err != nil {
		fmt.Fprintln(stderr, "checksum:", err)
		return statusUsage
	}
	defer pool.Close()
	defer progress.start()()

	status, written, undone := statusOK, 0, 0
	manifest := progress.above(stdout)
	for r := range pool.Stream(ctx, walk(roots, progress)) {
		switch {
		case r.Err == nil:
			if _, err := io.WriteString(manifest, line(r.Value, r.Task.path)); err != nil {
				progress.report(fmt.Sprintf("checksum: the manifest is incomplete: %v", err))
				return statusFailed // to leave the loop ends the walk and the reading too
			}
			written++
		case errors.Is(r.Err, context.Canceled): // Ctrl-C
			if r.Attempt > 0 { // the last result is no file's: it says that the walk was ended
				undone++
			}
		default:
			status = statusFailed
			progress.report(fmt.Sprintf("checksum: %s: %v", r.Task.path, reason(r.Err)))
		}
	}
	if ctx.Err() != nil {
		progress.report(fmt.Sprintf("checksum: interrupted: %d files done, %d begun or found and not done", written, undone))
		return statusInterrupted
	}
	return status
}

// walk yields every regular file under the roots, and with its error what it can't
// look at.
func walk(roots []string, progress *progress) iter.Seq[file] {
	return func(yield func(file) bool) {
		for _, root := range roots {
			if !walkRoot(root, progress, yield) {
				return
			}
		}
	}
}

func walkRoot(root string, progress *progress, yield func(file) bool) (more bool) {
	found := func(path string, info fs.FileInfo, err error) bool {
		if err == nil {
			progress.found(info.Size())
		}
		return yield(file{path, err})
	}
	info, err := os.Stat(root)
	switch {
	case err != nil:
		return found(root, nil, err)
	case info.Mode().IsRegular(): // if only through a link
		return found(root, info, nil)
	case !info.IsDir():
		return found(root, nil, errors.New("neither a folder nor a regular file"))
	}
	if link, err := os.Lstat(root); err == nil && link.Mode()&fs.ModeSymlink != 0 && !os.IsPathSeparator(root[len(root)-1]) {
		root += string(filepath.Separator) // enter a link that was asked for
	}
	more = true
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error { // it fails only with what this returns
		switch {
		case err != nil:
			more = found(path, nil, err)
		case entry.IsDir() && entry.Name() == ".git" && path != root:
			return filepath.SkipDir
		case entry.Type().IsRegular():
			info, err := entry.Info()
			more = found(path, info, err)
		}
		if !more {
			return filepath.SkipAll
		}
		return nil
	})
	return more
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
