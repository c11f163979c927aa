package main

import (
	"errors"
	"fmt"

	"github.com/seed-a18b2dc9/workpool"
)

// A usageError is a mistake on the command line.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitStatus returns 2 for wrong usage, as package flag does, and 1 for any other error.
func exitStatus(err error) int {
	var mistake usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &mistake), errors.Is(err, workpool.ErrInvalidOption):
		return 2
	}
	return 1
}
