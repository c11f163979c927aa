package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// progress counts, and on a terminal draws a line about it.
type progress struct {
	terminal bool
	began    time.Time

	filesFound, bytesFound atomic.Int64 // by the walk, so far
	filesDone, bytesDone   atomic.Int64

	mu    sync.Mutex // guards what follows
	out   io.Writer
	drawn bool // the line is on the screen
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, began: time.Now()}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	return p
}

func (p *progress) found(size int64) { p.filesFound.Add(1); p.bytesFound.Add(size) }
func (p *progress) read(n int)       { p.bytesDone.Add(int64(n)) }
func (p *progress) done()            { p.filesDone.Add(1) }

// start draws the line a few times a second until the function that it
// returns is called.
func (p *progress) start() (stop func()) {
	if !p.terminal {
		return func() {}
	}
	quit, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.draw()
			case <-quit:
				p.mu.Lock()
				p.clear()
				p.mu.Unlock()
				return
			}
		}
	}()
	return func() { close(quit); <-left }
}

// report prints a message above the line.
func (p *progress) report(message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintln(p.out, message)
}

// above returns a writer to out that clears the line first, since out may be
// the same terminal.
func (p *progress) above(out io.Writer) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.clear()
		return out.Write(b)
	})
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (p *progress) draw() {
	files, bytes := p.filesDone.Load(), p.bytesDone.Load()
	elapsed := time.Since(p.began)
	rate := float64(bytes) / elapsed.Seconds()
	text := fmt.Sprintf("%d of %d files  %s  %s/s", files, p.filesFound.Load(), size(float64(bytes)), size(rate))
	if left := p.bytesFound.Load() - bytes; left > 0 && rate > 0 {
		eta := time.Duration(float64(left) / rate * float64(time.Second))
		text += fmt.Sprintf("  ETA %v", eta.Round(time.Second))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprint(p.out, text)
	p.drawn = true
}

func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\033[K")
		p.drawn = false
	}
}

func size(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 {
			return fmt.Sprintf("%.4g %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.4g TiB", n)
}
