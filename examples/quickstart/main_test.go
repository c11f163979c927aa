package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		if err := run(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 200*time.Millisecond {
			t.Errorf("took %v, want 200ms: five tasks of 100 ms on three workers", took)
		}
		var numbers []int
		for line := range strings.Lines(out.String()) {
			var worker, number, square int
			if _, err := fmt.Sscanf(line, "worker %d: the square of %d is %d\n", &worker, &number, &square); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			if square != number*number {
				t.Errorf("line %q: a wrong square", line)
			}
			if worker < 1 || worker > 3 {
				t.Errorf("line %q: worker out of 1..3", line)
			}
			numbers = append(numbers, number)
		}
		slices.Sort(numbers)
		if want := []int{1, 2, 3, 4, 5}; !slices.Equal(numbers, want) {
			t.Errorf("numbers %v, want %v", numbers, want)
		}
	})
}
