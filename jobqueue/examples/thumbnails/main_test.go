package main

import (
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun_MakesRealImages(t *testing.T) {
	out := t.TempDir()
	require.NoError(t, run(t.Context(), []string{"-out", out, "-width", "80"}))
	thumbs, err := filepath.Glob(filepath.Join(out, "*.thumb.png"))
	require.NoError(t, err)
	require.Len(t, thumbs, 12)
	for _, path := range thumbs {
		f, err := os.Open(path)
		require.NoError(t, err)
		picture, err := png.Decode(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		assert.Equal(t, 80, picture.Bounds().Dx())
		assert.Equal(t, 50, picture.Bounds().Dy())
	}
	// Again on the same queue: the results are there.
	require.NoError(t, run(t.Context(), []string{"-out", out, "-width", "80"}))
}

func TestRun_SaysWhatIsNoImage(t *testing.T) {
	out := t.TempDir()
	text := filepath.Join(out, "text.png")
	require.NoError(t, os.WriteFile(text, []byte("no image"), 0o600))
	err := run(t.Context(), []string{"-out", out, text, filepath.Join(out, "missing.png"), out})
	require.ErrorContains(t, err, "3 of 3 images have no thumbnail")
	require.Equal(t, 1, exitStatus(err))
}

func TestRun_RefusesWhatItCannotUse(t *testing.T) {
	require.Equal(t, 2, exitStatus(run(t.Context(), []string{"-width", "0"})))
}
