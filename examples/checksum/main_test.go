package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// names are hard to print, or look like something else.
var names = []string{
	"plain", "with space", " leading", "trailing ", "back\\slash", "new\nline", "carriage\rreturn",
	"\\", "-", "*star", "quote'\"", "tab\t", "ünïcode", "not utf-8 \xff\xfe", ".hidden", "sub/deep/file",
}

// writeTree makes a file of every name, with its name as content.
func writeTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func checksum(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(ctx, args, &out, &errs)
	return status, out.String(), errs.String()
}

func TestManifest(t *testing.T) {
	dir := writeTree(t)
	if err := os.Symlink("plain", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, args := range [][]string{{}, {"."}, {"-workers", "1"}, {"-workers", "7", "."}} {
		status, manifest, stderr := checksum(t.Context(), args...)
		if status != statusOK || stderr != "" {
			t.Fatalf("%q: status %d, stderr %q", args, status, stderr)
		}
		var want []string
		for _, name := range names {
			want = append(want, line(sha256.Sum256([]byte(name)), name))
		}
		got := slices.Collect(strings.Lines(manifest))
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%q: manifest\n%s\nwant\n%s", args, got, want)
		}
		verify(t, manifest)
	}
}

// verify hands the manifest to sha256sum, where there is one: the format is
// its own.
func verify(t *testing.T, manifest string) {
	t.Helper()
	program, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Log("no sha256sum here to verify the manifest with")
		return
	}
	cmd := exec.CommandContext(t.Context(), program, "-c", "--strict", "--quiet")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sha256sum -c: %v\n%s\nof\n%s", err, out, manifest)
	}
}

func TestOrderIsThatOfTheWalk(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for i := range 500 {
		path := filepath.Join(dir, fmt.Sprintf("%03d", i))
		content := bytes.Repeat([]byte("x"), (500-i)*100) // the first take longest
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		want = append(want, line(sha256.Sum256(content), path))
	}
	status, manifest, _ := checksum(t.Context(), "-workers", "8", dir)
	if got := slices.Collect(strings.Lines(manifest)); status != statusOK || !slices.Equal(got, want) {
		t.Errorf("status %d, or the lines are not in the order of the files", status)
	}
}

func TestUnreadableIsReportedAndTheRestDone(t *testing.T) {
	dir := writeTree(t)
	t.Chdir(dir)
	status, manifest, stderr := checksum(t.Context(), "missing", ".", "also\nmissing")
	if status != statusFailed {
		t.Errorf("status %d, want %d", status, statusFailed)
	}
	if lines := strings.Count(manifest, "\n"); lines != len(names) {
		t.Errorf("%d lines, want %d", lines, len(names))
	}
	if want := "checksum: missing: no such file or directory\n"; !strings.Contains(stderr, want) {
		t.Errorf("stderr %q, want it to have %q", stderr, want)
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	_, err := sum(t.Context(), t.TempDir(), newProgress(&bytes.Buffer{})) // a folder can be opened, not read
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) {
		t.Errorf("error %v, want a *fs.PathError", err)
	}
}

func TestFileAndLinkAsArgument(t *testing.T) {
	dir := writeTree(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	status, manifest, stderr := checksum(t.Context(), filepath.Join(dir, "plain"), link)
	if status != statusOK || strings.Count(manifest, "\n") != 1+len(names) {
		t.Errorf("status %d, stderr %q, manifest\n%s", status, stderr, manifest)
	}
	verify(t, manifest)
}

func TestArgumentThatHasNoFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, target := range map[string]string{"dangling": "nowhere", "toFile": "file", "device": os.DevNull} {
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("file", []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, manifest, stderr := checksum(t.Context(), "dangling", "device", "toFile")
	if want := line(sha256.Sum256([]byte("content")), "toFile"); status != statusFailed || manifest != want {
		t.Errorf("status %d, manifest %q, want %q", status, manifest, want)
	}
	if !strings.Contains(stderr, "checksum: dangling: no such file or directory\n") || !strings.Contains(stderr, "checksum: device: neither a folder") {
		t.Errorf("stderr %q", stderr)
	}
	verify(t, manifest)
}

func TestGitFolderIsLeftOut(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{".git/HEAD", "sub/.git/HEAD", ".github/workflow", "sub/file"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for root, want := range map[string][]string{
		".":    {".github/workflow", "sub/file"},
		".git": {".git/HEAD"}, // which was asked for
	} {
		status, manifest, stderr := checksum(t.Context(), root)
		var lines strings.Builder
		for _, path := range want {
			lines.WriteString(line(sha256.Sum256([]byte(path)), path))
		}
		if status != statusOK || manifest != lines.String() {
			t.Errorf("%s: status %d, stderr %q, manifest\n%swant\n%s", root, status, stderr, manifest, lines.String())
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"-workers", "0"}, statusUsage, "WithWorkers(0)"},
		{[]string{"-workers", "many"}, statusUsage, "invalid value"},
		{[]string{"-unknown"}, statusUsage, "usage:"},
		{[]string{"-h"}, statusOK, "usage:"},
	} {
		status, stdout, stderr := checksum(t.Context(), c.args...)
		if status != c.status || stdout != "" || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%q: status %d, stdout %q, stderr %q", c.args, status, stdout, stderr)
		}
	}
}

func TestInterrupt(t *testing.T) {
	dir := writeTree(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	status, manifest, stderr := checksum(ctx, dir)
	if status != statusInterrupted || manifest != "" || !strings.Contains(stderr, "interrupted: 0 files done") {
		t.Errorf("status %d, manifest %q, stderr %q", status, manifest, stderr)
	}
}

// interrupter ends the context at the first line that is written.
type interrupter struct {
	bytes.Buffer
	interrupt context.CancelFunc
}

func (w *interrupter) Write(b []byte) (int, error) {
	w.interrupt()
	return w.Buffer.Write(b)
}

func TestInterruptInTheMiddleLeavesWholeLines(t *testing.T) {
	dir := t.TempDir()
	for i := range 3_000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := &interrupter{interrupt: cancel}, &bytes.Buffer{}
	if status := run(ctx, []string{dir}, out, errs); status != statusInterrupted {
		t.Errorf("status %d, want %d", status, statusInterrupted)
	}
	lines := strings.Count(out.String(), "\n")
	if lines == 0 || lines == 3_000 || !strings.HasSuffix(out.String(), "\n") {
		t.Errorf("%d lines, the last whole: %t", lines, strings.HasSuffix(out.String(), "\n"))
	}
	if want := fmt.Sprintf("interrupted: %d files done", lines); !strings.Contains(errs.String(), want) {
		t.Errorf("stderr %q, want it to have %q", errs, want)
	}
	verify(t, out.String())
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestWriteErrorEndsTheRun(t *testing.T) {
	var stderr bytes.Buffer
	status := run(t.Context(), []string{writeTree(t)}, fullDisk{}, &stderr)
	if status != statusFailed || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("status %d, stderr %q", status, stderr.String())
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[float64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1 << 30: "1 GiB", 1 << 50: "1024 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%v) = %q, want %q", n, got, want)
		}
	}
}
