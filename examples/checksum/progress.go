package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A progress counts the bytes that are written to it, and draws a line about them a few
// times a second, if out is a terminal to which nothing else is printed.
type progress struct {
	out   io.Writer
	draws bool
	files atomic.Int64

	mu    sync.Mutex // guards what follows
	bytes int64
	drawn time.Time
}

func newProgress(stdout, stderr io.Writer) *progress {
	return &progress{out: stderr, draws: isTerminal(stderr) && !isTerminal(stdout)}
}

// isTerminal is near enough for an example: golang.org/x/term knows it better.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += int64(len(b))
	if p.draws && time.Since(p.drawn) > 200*time.Millisecond {
		p.drawn = time.Now()
		p.clear()
		fmt.Fprintf(p.out, "%d files, %.1f MiB", p.files.Load(), float64(p.bytes)/(1<<20))
	}
	return len(b), nil
}

// report prints an error above the line.
func (p *progress) report(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintln(p.out, "checksum:", err)
}

func (p *progress) clear() {
	if p.draws {
		fmt.Fprint(p.out, "\r\033[K")
	}
}
