package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// answers runs task in each way that a pool offers, and returns what came back.
func answers(t *testing.T, p *closures, task closure) map[string]error {
	t.Helper()
	errs := map[string]error{}
	for way, run := range ways[closure, int]() {
		_, errs[way] = run(t.Context(), p, task)
	}
	submit(t, p, task)
	errs["Submit"] = receive(t, p).Err
	_, errs["Do with a deadline"] = p.Do(limited(t, time.Hour), task)
	_, errs["package Map"] = workpool.Map(t.Context(), []closure{task}, workpool.Call[int])
	_, _ = p.Do(t.Context(), func(ctx context.Context) (int, error) {
		_, errs["nested Do"] = p.Do(ctx, task)
		return 0, nil
	})
	require.Len(t, errs, 10)
	return errs
}

func TestRule7_APanicOrGoexitIsAResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1))
		for way, err := range answers(t, p, catchFire) {
			var panicked *workpool.PanicError
			require.ErrorAs(t, err, &panicked, way)
			assert.Equal(t, "on fire", panicked.Value, way)
			assert.Contains(t, string(panicked.Stack), "catchFire", "%s: the stack shows where it happened", way)
			assert.Contains(t, string(panicked.Stack), "helpers_test.go", way)
			assert.Contains(t, err.Error(), "on fire", way)
			assert.NotContains(t, err.Error(), "catchFire", "%s: the text has no stack", way)
			assert.NotContains(t, err.Error(), "\n", way)
			assert.NoError(t, panicked.Unwrap(), way)
		}
		for way, err := range answers(t, p, exit) {
			assert.ErrorIs(t, err, workpool.ErrGoexit, way)
		}
		closed(t, p)
		stats := p.Stats()
		assert.Equal(t, []uint64{9, 2 * 9}, []uint64{stats.Panicked, stats.Failed})
	})
}

func TestPanicError_Values(t *testing.T) {
	cause := errors.New("no such thing")
	for _, row := range []struct {
		name   string
		value  any
		unwrap error
	}{
		{"string", "on fire", nil},
		{"int", 42, nil},
		{"struct", message{1, 2, 3}, nil},
		{"error", cause, cause},
		{"wrapped error", fmt.Errorf("open: %w", cause), cause},
		{"an error of the package", workpool.ErrClosed, workpool.ErrClosed},
		{"nil, which is no Goexit", nil, new(runtime.PanicNilError)},
		{"another PanicError", &workpool.PanicError{Value: cause}, cause},
	} {
		bubble(t, row.name, func(t *testing.T) {
			_, err := newClosures(t).Do(t.Context(), func(context.Context) (int, error) { panic(row.value) })
			var panicked *workpool.PanicError
			require.ErrorAs(t, err, &panicked)
			assert.NotEmpty(t, panicked.Stack)
			if row.value == nil {
				assert.IsType(t, row.unwrap, panicked.Value) //nolint:testifylint // the value is the error
				return
			}
			assert.Equal(t, row.value, panicked.Value)
			assert.Contains(t, err.Error(), fmt.Sprint(row.value))
			if row.unwrap == nil {
				assert.NoError(t, errors.Unwrap(err))
			} else {
				assert.ErrorIs(t, err, row.unwrap)
			}
		})
	}
}

// The ways in which a handler may end are stacked here: what recover says in
// the pool and whether the goroutine survives are not the same question.
func TestPanic_InDeferredFunctions(t *testing.T) {
	for _, row := range []struct {
		name  string
		task  closure
		value any // of the panic, or the error
	}{
		{"panic in a deferred function", func(context.Context) (int, error) {
			defer func() { panic("late") }()
			return 1, nil
		}, "late"},
		{"panic during a panic", func(context.Context) (int, error) {
			defer func() { panic("second") }()
			panic("first")
		}, "second"},
		{"Goexit in a deferred function", func(context.Context) (int, error) {
			defer runtime.Goexit()
			return 1, nil
		}, workpool.ErrGoexit},
		{"Goexit during a panic", func(context.Context) (int, error) {
			defer runtime.Goexit()
			panic("first")
		}, workpool.ErrGoexit},
		{"panic during a Goexit", func(context.Context) (int, error) {
			defer func() { panic("second") }()
			runtime.Goexit()
			return 1, nil
		}, "second"},
		{"recovered panic", func(context.Context) (value int, err error) {
			defer func() {
				_ = recover()
				value = 5
			}()
			panic("first")
		}, nil},
	} {
		bubble(t, row.name, func(t *testing.T) {
			p := newClosures(t, workpool.WithWorkers(1))
			for range 3 {
				for way, err := range answers(t, p, row.task) {
					t.Log(way)
					if text, ok := row.value.(string); ok {
						panicked(t, text, err)
					} else if want, _ := row.value.(error); want != nil {
						require.ErrorIs(t, err, want)
					} else {
						require.NoError(t, err)
					}
				}
			}
			gives(t, 8)(p.Do(t.Context(), returning(8, nil)))
			assert.Equal(t, 1, p.Stats().Workers)
		})
	}
}

func TestRule7_APanicOfTheResultFunction(t *testing.T) {
	cause := errors.New("the disk is full")
	for want, end := range map[error]func(){cause: func() { panic(cause) }, workpool.ErrGoexit: runtime.Goexit} {
		bubble(t, want.Error(), func(t *testing.T) {
			var calls atomic.Int32
			p := mustNew(t, square, workpool.WithWorkers(2), workpool.WithResultFunc(func(r workpool.Result[int, int]) {
				calls.Add(1)
				if r.Task%10 == 3 {
					end()
				}
			}))
			gives(t, 50)(p.SubmitAll(t.Context(), count(50)))
			require.NoError(t, p.Wait(t.Context()), "the pool goes on")
			assert.Equal(t, int32(50), calls.Load(), "one call a task")
			gives(t, 9)(p.Do(t.Context(), 3)) // which does not go through the result function
			err := p.Close()
			require.ErrorIs(t, err, want)
			require.ErrorContains(t, err, "3")
			if want == cause {
				var panicked *workpool.PanicError
				require.ErrorAs(t, err, &panicked)
				assert.Equal(t, cause, panicked.Value)
				assert.Contains(t, string(panicked.Stack), "APanicOfTheResultFunction")
			}
			assert.Equal(t, err, p.Shutdown(t.Context()), "all report the same")
			assert.Equal(t, err, p.Close(), "all report the same")
			assert.Equal(t, uint64(51), p.Stats().Succeeded, "the tasks themselves were fine")
		})
	}
}

// A worker whose goroutine is gone is replaced: no stall, no leak, no new
// numbers.
func TestRule7_ManyPanicsInARow(t *testing.T) {
	tasks := rounds(20_000, 200_000)
	for name, task := range map[string]closure{"panic": catchFire, "Goexit": exit} {
		for _, workers := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/workers=%d", name, workers), func(t *testing.T) {
				p := newClosures(t, workpool.WithWorkers(workers))
				before := runtime.NumGoroutine()
				most, received := 0, 0
				go func() {
					gives(t, tasks)(p.SubmitAll(t.Context(), func(yield func(closure) bool) {
						for i := 0; i < tasks && yield(task); i++ {
						}
					}))
					assert.NoError(t, p.Shutdown(t.Context()))
				}()
				within(t, func() {
					for r := range p.Results() {
						received++
						assert.Error(t, r.Err)
						if r.Worker < 1 || r.Worker > workers {
							assert.Fail(t, "no such worker", "%d", r.Worker)
						}
						if received%1000 == 0 {
							most = max(most, runtime.NumGoroutine())
						}
					}
				})
				assert.Equal(t, tasks, received)
				// Besides the submitter, a goroutine that has been replaced may be on its way out.
				assert.LessOrEqual(t, most, before+2*workers+10)
			})
		}
	}
}

func TestRule7_AllWorkersPanicAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(8))
		for range 20 {
			together := make(chan struct{})
			answers := make([]<-chan workpool.Result[closure, int], 8)
			for i := range answers {
				answers[i] = p.DoChan(t.Context(), func(context.Context) (int, error) {
					<-together
					panic(i)
				})
			}
			synctest.Wait()
			close(together)
			var workers []int
			for _, answer := range answers {
				r := <-answer
				require.Error(t, r.Err)
				workers = append(workers, r.Worker)
			}
			slices.Sort(workers)
			assert.Equal(t, []int{1, 2, 3, 4, 5, 6, 7, 8}, workers)
		}
		assert.Equal(t, 8, p.Stats().Workers)
	})
}

func TestRule7_PanicWhileThePoolCloses(t *testing.T) {
	for name, end := range map[string]closure{"panic": catchFire, "Goexit": exit} {
		t.Run(name, func(t *testing.T) {
			eachOf(t, modes, func(t *testing.T, mode workpool.ShutdownMode) {
				p := newClosures(t, workpool.WithWorkers(2), workpool.WithShutdown(mode, 0))
				submitN(t, p, 6, func(ctx context.Context) (int, error) {
					time.Sleep(time.Second)
					return end(ctx)
				})
				synctest.Wait()
				closed(t, p)
				results := collect(p)
				require.Len(t, results, 6)
				for _, r := range results {
					assert.Error(t, r.Err)
				}
			})
		})
	}
}

// An attempt that panics has no value, whatever the one before returned.
func TestRule7_APanicHasNoValue(t *testing.T) {
	p := newClosures(t)
	value, err := p.Do(t.Context(), func(ctx context.Context) (int, error) {
		if info, _ := workpool.InfoFrom(ctx); info.Attempt == 1 {
			return 7, workpool.RetryAfter(0, nil)
		}
		panic("on fire")
	})
	panicked(t, "on fire", err)
	assert.Zero(t, value)
}
