package debug_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/debug"
)

func TestFailures_AreToldApartByTheirText(t *testing.T) {
	page := new(debug.Page)
	p := mustNew(t, page, func(ctx context.Context, text string) (int, error) {
		if info, _ := workpool.InfoFrom(ctx); text == "again" && info.Attempt == 1 {
			return 0, workpool.RetryAfter(0, errors.New(text))
		}
		return 0, errors.New(text)
	}, workpool.WithWorkers(1))
	for _, text := range []string{"a", "b", "a", "a", "again"} {
		_, err := p.Do(t.Context(), text)
		require.Error(t, err)
	}
	require.NoError(t, p.Wait(t.Context()))
	got := look(t, page).Pools[0].Failures
	require.Len(t, got, 4)
	assert.Equal(t, "again", got[0].Text)
	assert.False(t, got[0].Retried)
	assert.Contains(t, got[1].Text, "again")
	assert.True(t, got[1].Retried)
	assert.Equal(t, "a", got[2].Text)
	assert.Equal(t, 3, got[2].Count)
	assert.Equal(t, "b", got[3].Text)
	assert.Equal(t, 1, got[3].Count)
	assert.Equal(t, 1, got[3].Worker)
	has(t, html(t, page), "3 times, last")
}

func explode() { panic("boom") }

func TestFailures_APanicHasItsStack(t *testing.T) {
	page := new(debug.Page)
	p := mustNew(t, page, func(context.Context, int) (int, error) { explode(); return 0, nil })
	_, err := p.Do(t.Context(), 0)
	require.Error(t, err)
	require.NoError(t, p.Wait(t.Context()))
	got := look(t, page).Pools[0].Failures
	require.Len(t, got, 1)
	assert.True(t, got[0].Panic)
	assert.Contains(t, got[0].Text, "boom")
	first, _, _ := strings.Cut(got[0].Stack, "\n")
	assert.Contains(t, first, "debug_test.explode", "the stack begins where the panic did")
	has(t, html(t, page), "<details><summary>stack</summary>")

	// One that another error wraps has it too.
	var f debug.Failures
	f.Add(fmt.Errorf("wrapped: %w", err))
	assert.Contains(t, f.Latest()[0].Stack, "explode")
}

func TestFailures_AreBounded(t *testing.T) {
	var f debug.Failures
	long := strings.Repeat("ü", 1<<15)
	for i := range 10 * debug.MaxFailures {
		f.Add(fmt.Errorf("%d %s", i, long))
		f.Add(&workpool.PanicError{Value: i, Stack: []byte(long)})
	}
	list := f.Latest()
	require.Len(t, list, debug.MaxFailures)
	for _, one := range list {
		assert.Less(t, len(one.Text), 1<<10+8)
		assert.Less(t, len(one.Stack), 8<<10+8)
		assert.True(t, utf8.ValidString(one.Text+one.Stack))
	}
	assert.LessOrEqual(t, debug.WatchSize, uintptr(100<<10))
}

// A hostile is an error whose methods are not what they ought to be.
type hostile struct {
	text func() string
	is   func() bool
}

func (h hostile) Error() string   { return h.text() }
func (h hostile) Is(error) bool   { return h.is() }
func (h hostile) As(any) bool     { return h.is() }
func (h hostile) String() string  { return h.text() }
func (h hostile) Unwrap() []error { return []error{nil} }

func TestFailures_ErrorsWithMethodsThatPanic(t *testing.T) {
	page := new(debug.Page)
	p := mustNew(t, page, func(_ context.Context, err error) (int, error) { return 0, err })
	panics := func() string { panic("Error panics") }
	for _, err := range []error{
		hostile{text: panics},
		hostile{text: func() string { return "Is panics" }},
		&workpool.PanicError{Value: hostile{text: panics}},
		(*nilError)(nil),
	} {
		require.NoError(t, p.Submit(t.Context(), err))
	}
	require.NoError(t, p.Wait(t.Context()))
	assert.EqualValues(t, 4, p.Stats().Failed)
	text := html(t, page)
	has(t, text, "an error of type debug_test.hostile, a method of which panics")
	has(t, text, "an error of type *debug_test.nilError, a method of which panics")
	has(t, text, "Is panics")
	assert.Len(t, look(t, page).Pools[0].Failures, 4)
}

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func TestFailures_AnErrorMethodThatBlocksHoldsItsWorkerOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := new(debug.Page)
		p := mustNew(t, page, func(_ context.Context, err error) (int, error) { return 0, err }, workpool.WithWorkers(2))
		release := make(chan struct{})
		require.NoError(t, p.Submit(t.Context(), hostile{
			text: func() string { <-release; return "late" },
			is:   func() bool { return false },
		}))
		require.NoError(t, p.Submit(t.Context(), errors.New("ordinary")))
		require.NoError(t, p.Submit(t.Context(), hostile{
			text: func() string { return html(t, page)[:15] }, // uses the page
			is:   func() bool { return p.Stats().Closed },
		}))
		synctest.Wait()
		s := look(t, page).Pools[0]
		assert.Len(t, s.Failures, 2)
		assert.Equal(t, 1, s.Stats.Running)
		close(release)
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, "late", look(t, page).Pools[0].Failures[0].Text)
	})
}

func TestFailures_AnErrorMethodThatEndsItsGoroutine(t *testing.T) {
	page := new(debug.Page)
	p := mustNew(t, page, func(_ context.Context, err error) (int, error) { return 0, err }, workpool.WithWorkers(1))
	_, err := p.Do(t.Context(), hostile{text: func() string { runtime.Goexit(); return "" }})
	require.Error(t, err)
	_, err = p.Do(t.Context(), nil)
	require.NoError(t, err)
	assert.Len(t, look(t, page).Pools, 1)
}

func TestHistogram(t *testing.T) {
	for d := time.Duration(1); d < 2*time.Hour; d = d*9/8 + 1 {
		p50, p99, most := debug.Percentiles(d, d+1)
		assert.Equal(t, d+1, most)
		assert.Equal(t, p50, p99)
		if d >= 256 && d < time.Hour {
			assert.InEpsilon(t, float64(d), float64(p50), 0.126, d)
		}
	}
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(i+1)*time.Millisecond)
	}
	p50, p99, most := debug.Percentiles(all...)
	assert.InEpsilon(t, float64(50*time.Millisecond), float64(p50), 0.125)
	assert.InEpsilon(t, float64(99*time.Millisecond), float64(p99), 0.125)
	assert.Equal(t, 100*time.Millisecond, most)
	_, p99, most = debug.Percentiles(-1, 0)
	assert.Zero(t, p99+most)
}

func TestDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0 ns":       0,
		"999 ns":     999,
		"1.0 µs":     time.Microsecond,
		"10 ms":      9990 * time.Microsecond,
		"1.2 s":      1234 * time.Millisecond,
		"59 s":       59400 * time.Millisecond,
		"1 min 0 s":  time.Minute - 1,
		"1.0 ms":     time.Millisecond - 1,
		"1 h 0 min":  time.Hour - 1,
		"2 h 5 min":  125 * time.Minute,
		"59 min 1 s": time.Hour - 59*time.Second,
	} {
		assert.Equal(t, want, strings.ReplaceAll(debug.Duration(d), "\u202f", " "))
	}
}
