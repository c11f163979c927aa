package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func asItIs(line []byte) ([]byte, int) { return line, 0 }

// What goes in comes out, however it is cut into chunks.
func TestFilter_KeepsEveryByte(t *testing.T) {
	var junk bytes.Buffer
	for i := range 20_000 {
		junk.WriteByte(byte(i * i >> 3))
	}
	for name, text := range map[string]string{
		"empty":                  "",
		"one line":               "one\n",
		"no newline at the end":  "one\ntwo",
		"only newlines":          "\n\n\n",
		"CRLF":                   "one\r\ntwo\r\n\r\nthree",
		"longer than a chunk":    "short\n" + strings.Repeat("long", 5000) + "\nshort\n",
		"ends long":              "short\n" + strings.Repeat("long", 5000),
		"longer than the buffer": strings.Repeat(strings.Repeat("x", 4095)+"\n", 5),
		"binary":                 junk.String(),
		"zeros":                  strings.Repeat("\x00", 10_000),
		"not UTF-8":              "\xff\xfe\n\xc3\n",
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			for _, size := range []int{1, 2, 7, 4096, 1 << 20} {
				for _, in := range []io.Reader{strings.NewReader(text), iotest.DataErrReader(iotest.HalfReader(strings.NewReader(text)))} {
					var out bytes.Buffer
					total, err := filter(t.Context(), in, &out, asItIs, options{workers: 3, chunk: size, longest: 1 << 20})
					if err != nil || out.String() != text {
						t.Errorf("chunks of %d: %d bytes became %d, %v", size, len(text), out.Len(), err)
					}
					if want := len(slices.Collect(strings.Lines(text))); total.lines != want {
						t.Errorf("chunks of %d: %d lines, want %d", size, total.lines, want)
					}
				}
			}
		})
	}
}

// A numbered is a file of many lines of 16 bytes, and counts what has been read of it.
type numbered struct{ lines, read int }

func (n *numbered) Read(b []byte) (int, error) {
	if n.read == n.lines*16 {
		return 0, io.EOF
	}
	line := fmt.Sprintf("line %010d\n", n.read/16)[n.read%16:]
	copied := copy(b, line)
	n.read += copied
	return copied, nil
}

// A slowWriter takes a line only when nobody can do anything else, and checks how much
// has been read ahead.
type slowWriter struct {
	t       *testing.T
	in      *numbered
	written int
	ahead   int // at most
}

func (w *slowWriter) Write(b []byte) (int, error) {
	synctest.Wait()
	w.ahead = max(w.ahead, w.in.read-w.written)
	for line := range strings.Lines(string(b)) {
		if want := fmt.Sprintf("line %010d\n", w.written/16); line != want {
			w.t.Fatalf("%q instead of %q", line, want)
		}
		w.written += len(line)
	}
	return len(b), nil
}

// live is how many chunks there may be at a time.
func (o options) live() int { return 3*o.workers + 2 }

// Of a file that is far larger, no more chunks are in memory than promised, while the
// writer is slower than everybody else. All come out, in order.
func TestFilter_IsBounded(t *testing.T) {
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprintf("workers=%d", workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := options{workers: workers, chunk: 4096, longest: 4096}
				in := &numbered{lines: 100_000} // 1.6 MB
				out := &slowWriter{t: t, in: in}
				total, err := filter(t.Context(), in, out, asItIs, o)
				if err != nil || total.lines != in.lines || out.written != in.read {
					t.Errorf("%d lines, %d bytes of %d: %v", total.lines, out.written, in.read, err)
				}
				const buffered = 4096 // by the reader of the chunks
				if most := o.live()*o.chunk + buffered; out.ahead > most {
					t.Errorf("%d bytes were in memory, want at most %d", out.ahead, most)
				}
				if out.ahead < o.workers*o.chunk {
					t.Errorf("only %d bytes were read ahead: the workers had nothing to do", out.ahead)
				}
			})
		})
	}
}

// One chunk that takes long holds up the writing, and in the end the reading.
func TestFilter_IsBoundedByASlowChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options{workers: 4, chunk: 4096, longest: 4096}
		in := &numbered{lines: 100_000}
		release := make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			_, err := filter(t.Context(), in, io.Discard, func(line []byte) ([]byte, int) {
				if bytes.Equal(line, []byte("line 0000000000\n")) {
					<-release
				}
				return line, 0
			}, o)
			ended <- err
		}()
		synctest.Wait()
		if most := (o.live() + 1) * 4096; in.read > most {
			t.Errorf("%d bytes were read, want at most %d", in.read, most)
		}
		close(release)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestFilter_SaysWhereItEnded(t *testing.T) {
	text := "one\ntwo\n" + strings.Repeat("long", 100) + "\nfour\n"
	o := options{workers: 2, chunk: 6, longest: 20}
	var out bytes.Buffer
	_, err := filter(t.Context(), strings.NewReader(text), &out, asItIs, o)
	if err == nil || !strings.Contains(err.Error(), "after line 2: the next line is longer than 20 bytes") || out.String() != "one\ntwo\n" {
		t.Errorf("a long line: %v, written %q", err, out.String())
	}

	broken := errors.New("the disk is broken")
	for _, reason := range []error{broken, io.ErrUnexpectedEOF} {
		out.Reset()
		in := io.MultiReader(strings.NewReader("one\ntwo\nfrom me@exam"), iotest.ErrReader(reason))
		_, err := filter(t.Context(), in, &out, asItIs, o)
		if !errors.Is(err, reason) || out.String() != "one\ntwo\n" {
			t.Errorf("a read error: %v, written %q", err, out.String())
		}
	}

	_, err = filter(t.Context(), strings.NewReader("one\n"), fullDisk{}, asItIs, o)
	if !errors.Is(err, errFull) {
		t.Errorf("a write error: %v", err)
	}
}

var errFull = errors.New("no space left on device")

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

// An interrupter ends a context when something is written.
type interrupter struct {
	bytes.Buffer
	interrupt context.CancelFunc
}

func (w *interrupter) Write(b []byte) (int, error) {
	w.interrupt()
	return w.Buffer.Write(b)
}

func TestFilter_InterruptLeavesWholeLines(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &interrupter{interrupt: cancel}
	in := &numbered{lines: 100_000}
	total, err := filter(ctx, in, out, asItIs, options{workers: 2, chunk: 100, longest: 100})
	if !errors.Is(err, context.Canceled) || total.lines == 0 || total.lines == in.lines || out.Len() != 16*total.lines {
		t.Errorf("%d lines, %d bytes written, %v", total.lines, out.Len(), err)
	}
}

func TestMask(t *testing.T) {
	for line, want := range map[string]string{
		"":                                  "",
		"nothing here\n":                    "nothing here\n",
		"from 192.0.2.1 to 198.51.100.20\r": "from *** to ***\r",
		"<a.b+c@mail.example.org>, x@y":     "<***>, x@y",
		"\xffme@example.com\xff":            "\xff***\xff",
		"version 1.2.3":                     "version 1.2.3",
	} {
		got, found := mask([]byte(line))
		if string(got) != want || found != strings.Count(want, "***") {
			t.Errorf("mask(%q) = %q, %d; want %q", line, got, found, want)
		}
	}
}

func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("192.0.2.1 -\nme@example.com"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{path}, {"-workers", "1", "-chunk", "1", path}, {}} {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var out, stderr bytes.Buffer
		err = run(t.Context(), args, file, &out, &stderr)
		file.Close()
		if err != nil || out.String() != "*** -\n***" || stderr.String() != "2 lines, 2 addresses masked\n" {
			t.Errorf("run(%q): %v, %q, %q", args, err, &out, &stderr)
		}
	}
	for _, test := range []struct {
		status int
		args   []string
	}{
		{1, []string{filepath.Join(t.TempDir(), "missing")}},
		{1, []string{t.TempDir()}},
		{2, []string{path, path}},
		{2, []string{"-chunk", "0"}},
		{2, []string{"-chunk", "2000000000", "-longest", "3000000000"}},
		{2, []string{"-longest", "0"}},
		{2, []string{"-chunk", "2", "-longest", "1"}},
		{2, []string{"-workers", "0"}},
	} {
		if err := run(t.Context(), test.args, strings.NewReader(""), io.Discard, io.Discard); exitStatus(err) != test.status {
			t.Errorf("run(%q): status %d, %v", test.args, exitStatus(err), err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{path}, nil, io.Discard, io.Discard); exitStatus(err) != 130 {
		t.Errorf("interrupted: status %d, %v", exitStatus(err), err)
	}
}
