package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain runs the tests, or plays a part for one of them.
func TestMain(m *testing.M) {
	if name := os.Getenv(partVariable); name != "" {
		if err := part(name, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func TestDirect_KilledWorkerLosesNothing(t *testing.T) {
	var out bytes.Buffer
	t.Setenv(tokenVariable, "")
	require.NoError(t, direct(t.Context(), []string{"-workers", "2", "-jobs", "600"}, &out))
	assert.Contains(t, out.String(), "has been killed after 200 results")
	assert.Contains(t, out.String(), "600 jobs, 600 results, none missing, none twice")
}

// Ctrl-C stops all parts, in order.
func TestDirect_Interrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Setenv(tokenVariable, "")
	out := &interrupter{interrupt: cancel}
	require.ErrorIs(t, direct(ctx, []string{"-workers", "2", "-jobs", "600"}, out), context.Canceled)
	assert.NotContains(t, out.String(), "none missing")
}

// An interrupter ends a context when a worker has been killed.
type interrupter struct {
	bytes.Buffer
	interrupt context.CancelFunc
}

func (w *interrupter) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "has been killed") {
		w.interrupt()
	}
	return w.Buffer.Write(b)
}

func TestDirect_RefusesWhatItCannotUse(t *testing.T) {
	for _, args := range [][]string{{"extra"}, {"-workers", "0"}, {"-workers", "1000"}, {"-jobs", "-1"}} {
		assert.Equal(t, 2, exitStatus(direct(t.Context(), args, io.Discard)), "%q", args)
	}
}
