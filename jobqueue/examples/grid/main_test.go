//go:build unix

package main

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain runs the tests, or plays a part for one of them.
func TestMain(m *testing.M) {
	if name := os.Getenv(partVariable); name != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := part(ctx, name); err != nil {
			panic(err)
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
