package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"

	"github.com/seed-a18b2dc9/workpool"
)

type options struct {
	workers, chunk, longest int
}

// A chunk is a number of whole lines, or why there are no more.
type chunk struct {
	text []byte
	err  error
}

// A masked is what becomes of a chunk.
type masked struct {
	text         []byte
	lines, found int
}

// filter writes what do makes of each line, in order. The error says why it ended before
// the input did.
func filter(ctx context.Context, in io.Reader, out io.Writer, do func(line []byte) ([]byte, int), o options) (total masked, err error) {
	// The pool holds three chunks for each worker. Besides, one is read and one is written.
	pool, err := workpool.New(func(_ context.Context, c chunk) (masked, error) {
		m := masked{text: make([]byte, 0, len(c.text))}
		for line := range bytes.Lines(c.text) {
			text, found := do(line)
			m.text = append(m.text, text...)
			m.lines++
			m.found += found
		}
		return m, c.err
	},
		workpool.WithWorkers(o.workers),
		workpool.WithQueueDepth(o.workers),
		workpool.WithResultBuffer(o.workers),
		workpool.WithOrdered())
	if err != nil {
		return total, err
	}
	defer pool.Close()
	for r := range pool.Stream(ctx, chunks(in, o)) {
		if r.Err != nil {
			return total, fmt.Errorf("after line %d: %w", total.lines, r.Err)
		}
		if _, err := out.Write(r.Value.text); err != nil {
			return total, err // to leave the loop ends the reading too
		}
		total.lines += r.Value.lines
		total.found += r.Value.found
	}
	return total, nil
}

// chunks reads chunks of about o.chunk bytes, up to the end of a line.
func chunks(in io.Reader, o options) iter.Seq[chunk] {
	return func(yield func(chunk) bool) {
		reader := bufio.NewReader(in)
		for {
			text := make([]byte, o.chunk)
			n, err := io.ReadFull(reader, text)
			text = text[:n]
			if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil // the next read says whether that is the end
			}
			last := bytes.LastIndexByte(text, '\n') + 1 // where the last line begins
			for err == nil && text[len(text)-1] != '\n' {
				var more []byte
				more, err = reader.ReadSlice('\n')
				text = append(text, more...)
				if errors.Is(err, bufio.ErrBufferFull) {
					err = nil // the line goes on
				}
				if len(text)-last > o.longest {
					text, err = text[:last], fmt.Errorf("the next line is longer than %d bytes", o.longest)
				}
			}
			if err != nil && !errors.Is(err, io.EOF) {
				text = text[:bytes.LastIndexByte(text, '\n')+1] // a part of a line may have a part of an address
			}
			if len(text) > 0 && !yield(chunk{text: text}) {
				return
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					yield(chunk{err: err})
				}
				return
			}
		}
	}
}

var address = regexp.MustCompile(`[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\b\d{1,3}(?:\.\d{1,3}){3}\b`)

// mask replaces the addresses in a line, and counts them.
func mask(line []byte) ([]byte, int) {
	found := 0
	line = address.ReplaceAllFunc(line, func([]byte) []byte {
		found++
		return []byte("***")
	})
	return line, found
}
