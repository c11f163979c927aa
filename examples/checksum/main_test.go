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
	"testing/synctest"
	"time"
)

// names are hard to print, or look like something else.
var names = []string{
	"plain", "with space", " leading", "trailing ", "back\\slash", "new\nline", "carriage\rreturn",
	"\\", "-", "*star", "quote'\"", "tab\t", "ünïcode", "not utf-8 \xff\xfe", ".hidden", "sub/deep/file",
}

// write makes files in a new folder, with their names as content, and goes there.
func write(t *testing.T, names ...string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, name := range names {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func symlink(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func checksum(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(ctx, args, &out, &errs)
	return status, out.String(), errs.String()
}

// manifest returns what is printed for files of which the content is the name.
func manifest(names ...string) string {
	var all strings.Builder
	for _, name := range names {
		all.WriteString(line(sha256.Sum256([]byte(name)), name))
	}
	return all.String()
}

// verify hands the manifest to sha256sum, where there is one: the format is its own.
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

func TestManifest(t *testing.T) {
	write(t, names...)
	symlink(t, "plain", "link")
	want := slices.Sorted(strings.Lines(manifest(names...)))
	for _, args := range [][]string{{}, {"."}, {"-workers", "1"}, {"-workers", "7", "."}} {
		status, got, stderr := checksum(t.Context(), args...)
		if status != statusOK || stderr != "" || !slices.Equal(slices.Sorted(strings.Lines(got)), want) {
			t.Errorf("%q: status %d, stderr %q, manifest\n%s\nwant\n%s", args, status, stderr, got, want)
		}
		verify(t, got)
	}
}

func TestOrderIsThatOfTheWalk(t *testing.T) {
	dir := t.TempDir()
	var want strings.Builder
	for i := range 200 {
		path := filepath.Join(dir, fmt.Sprintf("%03d", i))
		content := bytes.Repeat([]byte("x"), (200-i)*200) // the first take longest
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		want.WriteString(line(sha256.Sum256(content), path))
	}
	if status, got, _ := checksum(t.Context(), "-workers", "8", dir); status != statusOK || got != want.String() {
		t.Errorf("status %d, or the lines are not in the order of the files", status)
	}
}

func TestArguments(t *testing.T) {
	write(t, "plain", "dir/file", ".git/HEAD", "dir/.git/HEAD", ".github/workflow")
	symlink(t, "dir", "toDir")
	symlink(t, "plain", "toFile")
	symlink(t, "nowhere", "dangling")
	symlink(t, os.DevNull, "device")
	toFile := line(sha256.Sum256([]byte("plain")), "toFile")
	toDir := line(sha256.Sum256([]byte("dir/file")), "toDir/file")
	for _, test := range []struct {
		args             []string
		status           int
		manifest, stderr string
	}{
		{[]string{"."}, statusOK, manifest(".github/workflow", "dir/file", "plain"), ""},
		{[]string{".git"}, statusOK, manifest(".git/HEAD"), ""}, // which was asked for
		{[]string{"plain", "dir/"}, statusOK, manifest("plain", "dir/file"), ""},
		{[]string{"toFile", "toDir"}, statusOK, toFile + toDir, ""},
		{[]string{"dangling", "plain", "mis\nsing"}, statusFailed, manifest("plain"), "checksum: stat dangling: no such file or directory\n"},
		{[]string{"device", "plain"}, statusFailed, manifest("plain"), "checksum: device: neither a folder nor a regular file\n"},
		{[]string{"-workers", "0"}, statusUsage, "", "WithWorkers(0)"},
		{[]string{"-workers", "many"}, statusUsage, "", "invalid value"},
		{[]string{"-unknown"}, statusUsage, "", "usage:"},
		{[]string{"-h"}, statusOK, "", "usage:"},
	} {
		status, got, stderr := checksum(t.Context(), test.args...)
		if status != test.status || got != test.manifest || !strings.Contains(stderr, test.stderr) {
			t.Errorf("%q: status %d, stderr %q, manifest\n%swant\n%s", test.args, status, stderr, got, test.manifest)
		}
		if got != "" {
			verify(t, got)
		}
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	var pathErr *fs.PathError
	p := newProgress(&bytes.Buffer{}, &bytes.Buffer{})
	if _, err := sum(t.Context(), file{path: t.TempDir()}, p); !errors.As(err, &pathErr) { // a folder can be opened, not read
		t.Errorf("error %v, want a *fs.PathError", err)
	}
}

func TestInterrupt(t *testing.T) {
	write(t, names...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	status, manifest, stderr := checksum(ctx)
	if status != statusInterrupted || manifest != "" || stderr != "checksum: interrupted: 0 files done\n" {
		t.Errorf("status %d, manifest %q, stderr %q", status, manifest, stderr)
	}
}

// interrupter ends the context at the first line that is written.
type interrupter struct {
	written   bytes.Buffer
	interrupt context.CancelFunc
}

func (w *interrupter) Write(b []byte) (int, error) {
	w.interrupt()
	return w.written.Write(b)
}

func TestInterruptInTheMiddleLeavesWholeLines(t *testing.T) {
	write(t, "file")
	files := slices.Repeat([]string{"file"}, 10_000) // one is enough to be read again and again
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := &interrupter{interrupt: cancel}, &bytes.Buffer{}
	status := run(ctx, files, out, errs)
	manifest := out.written.String()
	lines := strings.Count(manifest, "\n")
	if status != statusInterrupted || lines == 0 || lines == len(files) || !strings.HasSuffix(manifest, "\n") {
		t.Errorf("status %d, %d lines, the last whole: %t", status, lines, strings.HasSuffix(manifest, "\n"))
	}
	if want := fmt.Sprintf("checksum: interrupted: %d files done\n", lines); errs.String() != want {
		t.Errorf("stderr %q, want %q", errs, want)
	}
	verify(t, manifest)
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestWriteErrorEndsTheRun(t *testing.T) {
	write(t, names...)
	var stderr bytes.Buffer
	if status := run(t.Context(), nil, fullDisk{}, &stderr); status != statusFailed || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("status %d, stderr %q", status, stderr.String())
	}
}

func TestProgressDrawsALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &progress{out: &out, draws: true}
		for range 3 {
			_, _ = p.Write(make([]byte, 1<<19))
			time.Sleep(150 * time.Millisecond)
		}
		p.report(errors.New("bad"))
		const clear = "\r\033[K"
		if want := clear + "0 files, 0.5 MiB" + clear + "0 files, 1.5 MiB" + clear + "checksum: bad\n"; out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	})
}
