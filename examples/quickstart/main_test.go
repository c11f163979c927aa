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
		var payloads []int
		for line := range strings.Lines(out.String()) {
			var worker, payload int
			if _, err := fmt.Sscanf(line, "Worker %d successfully finalized task payload %d\n", &worker, &payload); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			if worker < 1 || worker > 3 {
				t.Errorf("line %q: worker out of 1..3", line)
			}
			payloads = append(payloads, payload)
		}
		slices.Sort(payloads)
		if want := []int{1, 2, 3, 4, 5}; !slices.Equal(payloads, want) {
			t.Errorf("payloads %v, want %v", payloads, want)
		}
	})
}
