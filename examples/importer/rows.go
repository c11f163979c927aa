package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

const columns = "station,time,celsius"

// A row is a line of the file, or several if a field goes over lines.
type row struct {
	line   int // the first
	fields []string
	err    error // why it is no row
}

// read sends the rows of a CSV file, until it or ctx ends.
func read(ctx context.Context, in io.Reader, rows chan<- row) error {
	file := csv.NewReader(in)
	header, err := file.Read()
	switch got := strings.TrimPrefix(strings.Join(header, ","), "\ufeff"); { // some programs write that mark
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the file is empty: its first line must be %s", columns)
	case err != nil:
		return err
	case got != columns:
		return fmt.Errorf("the first line is %q, and must be %s", got, columns)
	}
	for {
		fields, err := file.Read()
		next := row{fields: fields}
		var bad *csv.ParseError
		switch {
		case err == nil:
			next.line, _ = file.FieldPos(0)
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad):
			next.line, next.err = bad.StartLine, bad.Err
		default:
			return err
		}
		select {
		case rows <- next:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// batches groups rows. A batch ends with its size, or when its first row has waited for
// the given time, or when there are no more rows.
func batches(ctx context.Context, rows <-chan row, size int, wait time.Duration) iter.Seq[[]row] {
	return func(yield func([]row) bool) {
		var batch []row
		var due <-chan time.Time
		for {
			select {
			case r, more := <-rows:
				if !more {
					if len(batch) > 0 {
						yield(batch)
					}
					return
				}
				if len(batch) == 0 {
					due = time.After(wait)
				}
				if batch = append(batch, r); len(batch) < size {
					continue
				}
			case <-due:
			case <-ctx.Done():
				return
			}
			if !yield(batch) {
				return
			}
			batch, due = nil, nil
		}
	}
}
