package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const content = "the file"

func newMirror(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL + "/file"
}

func has(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, content) }

// hangs sends half of the file, and ends when the request is cancelled.
func hangs(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	fmt.Fprint(w, content[:4])
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// get runs the program in a folder of its own, in which nothing but the file may be left.
func get(t *testing.T, ctx context.Context, args ...string) (file, out string, err error) {
	t.Helper()
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	var stdout strings.Builder
	err = run(ctx, append([]string{"-o", target}, args...), &stdout)
	data, readErr := os.ReadFile(target)
	entries, listErr := os.ReadDir(dir)
	if listErr != nil || (readErr == nil) != (len(entries) == 1) || (err == nil) != (readErr == nil) {
		t.Errorf("run: %v; the folder has %v, the file: %v", err, entries, readErr)
	}
	return string(data), stdout.String(), err
}

// The first two hang, the third fails and the fourth wins. The first two are cancelled.
func TestMirrors_TheFirstSuccessWins(t *testing.T) {
	begun, cancelled := make(chan bool, 2), make(chan bool, 2)
	slow := func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		hangs(w, r)
		cancelled <- true
	}
	winner := newMirror(t, func(w http.ResponseWriter, r *http.Request) {
		<-begun
		<-begun
		has(w, r)
	})
	file, out, err := get(t, t.Context(), "-parallel", "3", newMirror(t, slow), newMirror(t, slow), newMirror(t, http.NotFound), winner)
	if err != nil || file != content || !strings.HasSuffix(out, "target: from "+winner+"\n") {
		t.Errorf("%v, %q, %q", err, file, out)
	}
	<-cancelled
	<-cancelled
}

func TestMirrors_InterruptLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := get(t, ctx, newMirror(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		hangs(w, r)
	}), newMirror(t, hangs))
	if exitStatus(err) != 130 {
		t.Errorf("status %d, %v", exitStatus(err), err)
	}
}

func TestMirrors_SaysWhyAllFailed(t *testing.T) {
	gone := httptest.NewServer(http.HandlerFunc(has))
	gone.Close()
	short := newMirror(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, content)
	})
	missing, silent := newMirror(t, http.NotFound), newMirror(t, hangs)
	_, out, err := get(t, t.Context(), "-timeout", "100ms", missing, gone.URL, short, silent)
	if err == nil || out != "" {
		t.Fatalf("%v, %q", err, out)
	}
	for _, want := range []string{missing + ": 404 Not Found", gone.URL, short + ": unexpected EOF", silent + ": ", "deadline exceeded"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
}

func TestMirrors_AWrongSumIsAFailure(t *testing.T) {
	wrong := newMirror(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "another file") })
	right := newMirror(t, has)
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
	file, out, err := get(t, t.Context(), "-parallel", "1", "-sha256", sum, wrong, right)
	if err != nil || file != content || !strings.Contains(out, right) {
		t.Errorf("%v, %q, %q", err, file, out)
	}
	if _, _, err := get(t, t.Context(), "-sha256", sum, wrong); err == nil || !strings.Contains(err.Error(), "has the sum") {
		t.Errorf("%v", err)
	}
}

func TestMirrors_LimitsTheAttemptsAtATime(t *testing.T) {
	var now, all atomic.Int64
	pair := make(chan bool)
	failing := func(w http.ResponseWriter, r *http.Request) {
		all.Add(1)
		if n := now.Add(1); n > 2 {
			t.Errorf("%d attempts at a time", n)
		}
		select { // meets another attempt
		case pair <- true:
		case <-pair:
		}
		now.Add(-1)
		http.NotFound(w, r)
	}
	args := []string{"-parallel", "2"}
	for range 20 {
		args = append(args, newMirror(t, failing))
	}
	if _, _, err := get(t, t.Context(), args...); err == nil || all.Load() != 20 {
		t.Errorf("%v; %d attempts", err, all.Load())
	}
}

func TestMirrors_RefusesWhatItCannotUse(t *testing.T) {
	for _, test := range []struct {
		status int
		args   []string
	}{
		{2, []string{}},
		{2, []string{"-o", "x"}},
		{2, []string{"http://localhost/"}},
		{2, []string{"-o", "x", "ftp://localhost/"}},
		{2, []string{"-o", "x", "file"}},
		{2, []string{"-o", "x", "-sha256", "abc", "http://localhost/"}},
		{2, []string{"-o", "x", "-sha256", "ab", "http://localhost/"}},
		{2, []string{"-o", "x", "-timeout", "0", "http://localhost/"}},
		{2, []string{"-o", "x", "-parallel", "0", "http://localhost/"}},
		{1, []string{"-o", filepath.Join(t.TempDir(), "missing", "x"), "http://localhost/"}},
		{1, []string{"-o", t.TempDir(), "http://localhost/"}},
	} {
		t.Chdir(t.TempDir())
		if err := run(t.Context(), test.args, io.Discard); exitStatus(err) != test.status {
			t.Errorf("run(%q): status %d, %v", test.args, exitStatus(err), err)
		}
		if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
			t.Errorf("run(%q) left %v, %v", test.args, left, err)
		}
	}
}
