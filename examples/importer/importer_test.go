package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// file returns a CSV file of n rows, of which all have different readings.
func file(n int) string {
	var b strings.Builder
	b.WriteString(columns + "\n")
	for i := range n {
		fmt.Fprintf(&b, "s%d,2026-11-26T06:00:00Z,%d.5\n", i, i%30)
	}
	return b.String()
}

// importInto runs the program, and returns what it printed.
func importInto(t *testing.T, db, csv string, flags ...string) (stderr string, err error) {
	t.Helper()
	var out bytes.Buffer
	err = run(t.Context(), append(flags, "-", db), strings.NewReader(csv), &progress{out: &out})
	return out.String(), err
}

// readings returns what is in the database.
func readings(t *testing.T, path string) (all []string) {
	t.Helper()
	db, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT station || ' ' || time || ' ' || celsius FROM readings ORDER BY station, time")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r string
		if err := rows.Scan(&r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImporter_MayRunAgain(t *testing.T) {
	db := filepath.Join(t.TempDir(), "a name #1%.db")
	var first []string
	for range 2 {
		stderr, err := importInto(t, db, file(1234), "-batch", "100")
		if err != nil || stderr != "1234 rows imported, 0 bad, 0 retries\n" {
			t.Errorf("%v, %q", err, stderr)
		}
		got := readings(t, db)
		if len(got) != 1234 || first != nil && !slices.Equal(got, first) {
			t.Errorf("%d readings", len(got))
		}
		first = got
	}
	if _, err := importInto(t, db, columns+"\ns7,2026-11-26T07:00:00+01:00,-4\ns7,2026-11-26T06:00:00Z,99\n", "-batch", "1"); err != nil {
		t.Error(err)
	}
	if got := readings(t, db); len(got) != 1234 || !slices.Contains(got, "s7 2026-11-26T06:00:00Z 99.0") {
		t.Errorf("%d readings, or the last row does not count", len(got))
	}
}

func TestImporter_TheFileBesideIt(t *testing.T) {
	db := filepath.Join(t.TempDir(), "db")
	if err := run(t.Context(), []string{"readings.csv", db}, nil, &progress{out: io.Discard}); err != nil {
		t.Error(err)
	}
	if got := readings(t, db); len(got) != 4 || got[3] != "hill 2026-11-26T07:00:00Z -0.3" {
		t.Errorf("%q", got)
	}
}

func TestImporter_ReportsBadRowsWithTheirLines(t *testing.T) {
	db := filepath.Join(t.TempDir(), "db")
	const csv = "\ufeff" + columns + "\r\n" +
		"a,2026-11-26T06:00:00Z,1.5\r\n" +
		"\r\n" +
		"\"b\r\nc\",2026-11-26T06:00:00Z,2\r\n" +
		"c,yesterday,2\r\n" +
		"d,2026-11-26T06:00:00Z,NaN\r\n" +
		"e,2026-11-26T06:00:00Z\r\n" +
		",2026-11-26T06:00:00Z,1\r\n" +
		"\"f\"f,2026-11-26T06:00:00Z,1\r\n" +
		"g,2026-11-26T06:00:00Z,3"
	for _, batch := range []string{"1", "3", "100"} {
		stderr, err := importInto(t, db, csv, "-batch", batch)
		want := `line 6: the time "yesterday" is not like 2026-11-26T06:00:00Z
line 7: the temperature "NaN" is not a number
line 8: wrong number of fields
line 9: the station is missing
line 10: extraneous or missing " in quoted-field
3 rows imported, 5 bad, 0 retries
`
		if err == nil || !strings.Contains(err.Error(), "some rows were not imported") || stderr != want {
			t.Errorf("batches of %s: %v, %s", batch, err, stderr)
		}
		if got := readings(t, db); len(got) != 3 {
			t.Errorf("batches of %s: %q", batch, got)
		}
	}
}

// Another process writes, until the third attempt.
func TestImporter_TriesABusyDatabaseAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	release := lock(t, path)
	db, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	attempts := 0
	store := func(ctx context.Context, rows []row) (int, error) {
		if attempts++; attempts == 3 {
			release()
		}
		return db.store(ctx, rows)
	}
	var out bytes.Buffer
	s := settings{batch: 10, flush: time.Hour, attempts: 5}
	if err := load(t.Context(), strings.NewReader(file(25)), store, s, &progress{out: &out}); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if want := "25 rows imported, 0 bad, 2 retries\n"; out.String() != want || attempts != 5 {
		t.Errorf("%q after %d attempts, want %q after 5", out.String(), attempts, want)
	}
	if got := readings(t, path); len(got) != 25 {
		t.Errorf("%d readings", len(got))
	}
}

func TestImporter_GivesUpABusyDatabase(t *testing.T) {
	db := filepath.Join(t.TempDir(), "db")
	release := lock(t, db)
	defer release()
	stderr, err := importInto(t, db, file(25), "-batch", "10", "-attempts", "2")
	if err == nil || !strings.Contains(err.Error(), "lines 2 to 11: database is locked") || stderr != "0 rows imported, 0 bad, 1 retries\n" {
		t.Errorf("%v, %q", err, stderr)
	}
}

// lock begins to write to a database.
func lock(t *testing.T, path string) (release func()) {
	t.Helper()
	db, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(tx.Commit(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}

// Ctrl-C comes while a batch is stored. What the importer says is in the database.
func TestImporter_InterruptSaysWhatWasImported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	batches := 0
	store := func(ctx context.Context, rows []row) (int, error) {
		if batches++; batches == 4 {
			cancel()
		}
		return db.store(ctx, rows)
	}
	var out bytes.Buffer
	p := &progress{out: &out}
	err = load(ctx, strings.NewReader(file(10_000)), store, settings{batch: 10, flush: time.Hour, attempts: 5}, p)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if got := readings(t, path); len(got) != p.imported || len(got) != 30 || !strings.HasPrefix(out.String(), "30 rows imported") {
		t.Errorf("%d readings, %q", len(got), out.String())
	}
}

func TestImporter_SaysWhyItEnded(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "db")
	noDatabase := filepath.Join(dir, "text")
	if err := os.WriteFile(noDatabase, bytes.Repeat([]byte("no database\n"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		status int
		args   []string
		csv    string
		want   string
	}{
		{2, []string{}, "", "want a CSV file and a database"},
		{2, []string{"-"}, "", "want a CSV file and a database"},
		{2, []string{"-batch", "0", "-", db}, "", "-batch 0"},
		{2, []string{"-flush", "0", "-", db}, "", "-flush 0"},
		{2, []string{"-rate", "-1", "-", db}, "", "-rate -1"},
		{2, []string{"-rate", "NaN", "-", db}, "", "-rate NaN"},
		{2, []string{"-attempts", "0", "-", db}, "", "-attempts 0"},
		{2, []string{"-", ""}, "", "the name of the database is empty"},
		{1, []string{filepath.Join(dir, "missing"), db}, "", "missing: "},
		{1, []string{dir, db}, "", "read " + dir},
		{1, []string{"-", db}, "", "the file is empty"},
		{1, []string{"-", db}, "id,name\n1,x\n", `the first line is "id,name"`},
		{1, []string{"-", noDatabase}, file(3), "lines 2 to 4: file is not a database"},
		{1, []string{"-", filepath.Join(dir, "missing", "db")}, file(3), "unable to open database file"},
	} {
		err := run(t.Context(), test.args, strings.NewReader(test.csv), &progress{out: io.Discard})
		if exitStatus(err) != test.status || !strings.Contains(err.Error(), test.want) {
			t.Errorf("run(%q): status %d, %v, want %q", test.args, exitStatus(err), err, test.want)
		}
	}
}

func TestImporter_InterruptIsNoSuccess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := run(ctx, []string{"-", filepath.Join(t.TempDir(), "db")}, strings.NewReader(file(3)), &progress{out: io.Discard})
	if exitStatus(err) != 130 || !strings.Contains(err.Error(), "run it again") {
		t.Errorf("status %d, %v", exitStatus(err), err)
	}
}

// The rows come through a pipe. A batch that is not full is stored when its first row has
// waited long enough.
func TestImporter_FlushesPartialBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, write := io.Pipe()
		var sizes []int
		var times []time.Duration
		begin := time.Now()
		store := func(ctx context.Context, rows []row) (int, error) {
			sizes = append(sizes, len(rows))
			times = append(times, time.Since(begin))
			return len(rows), ctx.Err()
		}
		ended := make(chan error, 1)
		go func() {
			ended <- load(t.Context(), in, store, settings{batch: 3, flush: time.Minute, attempts: 1}, &progress{out: io.Discard})
		}()
		lines := strings.SplitAfter(file(7), "\n")
		for _, step := range []struct {
			lines int
			wait  time.Duration
		}{{2, 10 * time.Second}, {1, time.Hour}, {4, time.Hour}, {1, time.Second}} { // with the header
			fmt.Fprint(write, strings.Join(lines[:step.lines], ""))
			lines = lines[step.lines:]
			time.Sleep(step.wait)
		}
		write.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if want := []int{2, 3, 1, 1}; !slices.Equal(sizes, want) {
			t.Errorf("batches of %v rows, want %v", sizes, want)
		}
		fourth := time.Hour + 10*time.Second
		if want := []time.Duration{time.Minute, fourth, fourth + time.Minute, fourth + time.Hour + time.Second}; !slices.Equal(times, want) {
			t.Errorf("stored at %v, want %v", times, want)
		}
	})
}

// Ten batches at two a second. The third has to wait for its next attempt, and the others
// wait behind it.
func TestImporter_KeepsTheRateAndTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []int
		failed := false
		store := func(_ context.Context, rows []row) (int, error) {
			if rows[0].line == 4 && !failed {
				failed = true
				return 0, errors.New("busy")
			}
			lines = append(lines, rows[0].line)
			return len(rows), nil
		}
		begin := time.Now()
		err := load(t.Context(), strings.NewReader(file(10)), store, settings{batch: 1, flush: time.Hour, rate: 2, attempts: 2}, &progress{out: io.Discard})
		if err != nil || !slices.IsSorted(lines) || len(lines) != 10 {
			t.Errorf("%v, lines %v", err, lines)
		}
		if took := time.Since(begin); took < 5*time.Second || took > 5*time.Second+50*time.Millisecond {
			t.Errorf("eleven attempts at two a second took %v", took)
		}
	})
}

// Nothing comes through the pipe any more when Ctrl-C does.
func TestImporter_InterruptWhileItWaitsForRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		in, write := io.Pipe()
		store := func(ctx context.Context, rows []row) (int, error) { return len(rows), ctx.Err() }
		ended := make(chan error, 1)
		go func() {
			ended <- load(ctx, in, store, settings{batch: 3, flush: time.Second, attempts: 1}, &progress{out: io.Discard})
		}()
		fmt.Fprint(write, file(5))
		time.Sleep(time.Minute)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		write.Close() // the program would be over
	})
}

func TestProgress_DrawsALineOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &progress{out: &out, terminal: true}
		p.imported = 5
		for range 3 {
			p.draw(0)
			time.Sleep(150 * time.Millisecond)
		}
		p.report(errors.New("line 7: bad"))
		p.end(1)
		const clear = "\r\033[K"
		want := strings.Repeat(clear+"5 rows imported, 0 bad, 0 retries", 2) + clear + "line 7: bad\n" + clear + "5 rows imported, 1 bad, 1 retries\n"
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	})
}
