package main

import (
	"errors"
	"fmt"

	"github.com/seed-a18b2dc9/workpool"
)

// A usageError is a mistake on the command line.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errInterrupted is the error after Ctrl-C.
var errInterrupted = errors.New("interrupted")

// exitStatus returns 2 for wrong usage, as package flag does, 130 after Ctrl-C, as shells
// do, and 1 for any other error.
func exitStatus(err error) int {
	var mistake usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &mistake), errors.Is(err, workpool.ErrInvalidOption):
		return 2
	case errors.Is(err, errInterrupted):
		return 130
	}
	return 1
}
