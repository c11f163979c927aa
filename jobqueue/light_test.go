package jobqueue_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A program that only submits or works does not link the server.
func TestPackage_DoesNotImportTheServer(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	assert.NotContains(t, string(out), "nats-server")
	assert.Contains(t, string(out), "github.com/nats-io/nats.go/jetstream")
}
