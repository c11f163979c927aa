package migrating

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alitto/pond/v2"
	"github.com/panjf2000/ants/v2"
	"github.com/sourcegraph/conc/panics"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/benchmarks/migrating/after"
	"github.com/seed-a18b2dc9/workpool/benchmarks/migrating/before"
)

var errGone = errors.New("gone")

var (
	good = addresses("page", 100)
	bad  = slices.Concat(addresses("page", 50), []string{"gone"}, addresses("page", 50))
)

func addresses(name string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(name, i))
	}
	return all
}

// fetch returns the page of an address, which is the address in capitals, or errGone.
func fetch(ctx context.Context, url string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if strings.HasPrefix(url, "gone") {
		return "", fmt.Errorf("%s: %w", url, errGone)
	}
	return strings.ToUpper(url), nil
}

// same fails the test unless both sides have the same answers.
func same[T any](t *testing.T, answers func(T) string, before, after T) {
	t.Helper()
	if b, a := answers(before), answers(after); b != a || b == "" {
		t.Errorf("before: %s\nafter:  %s", b, a)
	}
}

// A record is what was reported by many goroutines.
type record struct {
	mu  sync.Mutex
	all []string
}

func (r *record) add(parts ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, fmt.Sprintln(parts...))
}

func (r *record) sorted() string {
	slices.Sort(r.all)
	return fmt.Sprint(r.all)
}

func TestFetchAll(t *testing.T) {
	for name, urls := range map[string][]string{"good": good, "bad": bad, "none": nil} {
		t.Run(name, func(t *testing.T) {
			same(t, func(fetchAll func(context.Context, []string, before.Fetch) ([]string, error)) string {
				return fmt.Sprintln(fetchAll(t.Context(), urls, fetch))
			}, before.FetchAll, after.FetchAll)
		})
	}
}

func TestSendAll(t *testing.T) {
	for name, mails := range map[string][]string{"good": good, "bad": bad} {
		t.Run(name, func(t *testing.T) {
			same(t, func(sendAll func(context.Context, iter.Seq[string], before.Send) error) string {
				var sent record
				err := sendAll(t.Context(), slices.Values(mails), func(ctx context.Context, mail string) error {
					page, err := fetch(ctx, mail)
					if err == nil {
						sent.add(page)
					}
					return err
				})
				if err != nil {
					return fmt.Sprint(err) // how many were sent until then is chance
				}
				return sent.sorted()
			}, before.SendAll, after.SendAll)
		})
	}
}

func TestCheckAll(t *testing.T) {
	same(t, func(checkAll func(context.Context, iter.Seq[string], before.Fetch, func(string, error)) error) string {
		var reported record
		err := checkAll(t.Context(), slices.Values(bad), fetch, func(url string, err error) { reported.add(url, err) })
		return fmt.Sprintln(reported.sorted(), err)
	}, before.CheckAll, after.CheckAll)
}

func TestNewFetcher(t *testing.T) {
	same(t, func(newFetcher func(before.Fetch) (before.Fetch, func() error, error)) string {
		limited, stop, err := newFetcher(fetch)
		if err != nil {
			t.Fatal(err)
		}
		var answers record
		var callers sync.WaitGroup
		for _, url := range bad {
			callers.Go(func() {
				page, err := limited(t.Context(), url)
				answers.add(page, err)
			})
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		callers.Go(func() {
			_, err := limited(ended, "page")
			answers.add(errors.Is(err, context.Canceled))
		})
		callers.Wait()
		return fmt.Sprintln(answers.sorted(), stop())
	}, before.NewFetcher, after.NewFetcher)
}

func TestRunAll(t *testing.T) {
	same(t, func(runAll func([]func()) error) string {
		var ran record
		err := runAll(jobsThat(100, func(i int) { ran.add(i) }))
		return fmt.Sprintln(ran.sorted(), err)
	}, before.RunAll, after.RunAll)
}

func TestRunOrRefuse(t *testing.T) {
	same(t, func(runOrRefuse func(iter.Seq[func()], func(error)) error) string {
		var ran, refused record
		release := make(chan struct{})
		jobs := func(yield func(func()) bool) {
			defer close(release) // all have been offered: the two that run may end
			for range 5 {
				if !yield(func() { <-release; ran.add("ran") }) {
					return
				}
			}
		}
		err := runOrRefuse(jobs, func(err error) {
			refused.add(errors.Is(err, ants.ErrPoolOverload) || errors.Is(err, workpool.ErrQueueFull))
		})
		return fmt.Sprintln(ran.sorted(), refused.sorted(), err)
	}, before.RunOrRefuse, after.RunOrRefuse)
}

func TestRunAndRecover(t *testing.T) {
	same(t, func(runAndRecover func([]func(), func(any)) error) string {
		var ran, panicked record
		err := runAndRecover(jobsThat(10, func(i int) {
			if i%3 == 0 {
				panic(i)
			}
			ran.add(i)
		}), func(value any) { panicked.add(value) })
		return fmt.Sprintln(ran.sorted(), panicked.sorted(), err)
	}, before.RunAndRecover, after.RunAndRecover)
}

func TestFetchGroup(t *testing.T) {
	theirs := pond.NewResultPool[string](8)
	defer theirs.StopAndWait()
	ours := newPool(t)
	for name, urls := range map[string][]string{"good": good, "bad": bad} {
		t.Run(name, func(t *testing.T) {
			same(t, func(fetchGroup func() ([]string, error)) string {
				pages, err := fetchGroup()
				if err != nil {
					return err.Error() // pond returns the values of the others as well
				}
				return fmt.Sprint(pages)
			}, func() ([]string, error) {
				return before.FetchGroup(t.Context(), theirs, urls, fetch)
			}, func() ([]string, error) {
				return after.FetchGroup(t.Context(), ours, urls)
			})
		})
	}
}

func TestCompare(t *testing.T) {
	theirs := pond.NewResultPool[string](8)
	defer theirs.StopAndWait()
	ours := newPool(t)
	for url, readCopy := range map[string]func() string{
		"same":      func() string { return "SAME" },
		"different": func() string { return "SAME" },
		"gone":      func() string { return "GONE" },
	} {
		t.Run(url, func(t *testing.T) {
			same(t, func(compare func() (bool, error)) string {
				return fmt.Sprintln(compare())
			}, func() (bool, error) {
				return before.Compare(t.Context(), theirs, url, fetch, readCopy)
			}, func() (bool, error) {
				return after.Compare(t.Context(), ours, url, readCopy)
			})
		})
	}
}

func TestFetchResults(t *testing.T) {
	for name, urls := range map[string][]string{"good": good, "bad": bad} {
		t.Run(name, func(t *testing.T) {
			same(t, func(fetchResults func(context.Context, []string, before.Fetch) ([]string, error)) string {
				pages, err := fetchResults(t.Context(), urls, fetch)
				if err != nil {
					return err.Error() // conc returns the values of the others as well
				}
				return fmt.Sprint(slices.Sorted(slices.Values(pages))) // conc's are in any order
			}, before.FetchResults, after.FetchResults)
		})
	}
}

func TestSendAllAndCollect(t *testing.T) {
	mails := slices.Concat(good, addresses("gone", 3))
	same(t, func(sendAll func(context.Context, iter.Seq[string], before.Send) error) string {
		err := sendAll(t.Context(), slices.Values(mails), func(ctx context.Context, mail string) error {
			_, err := fetch(ctx, mail)
			return err
		})
		if !errors.Is(err, errGone) {
			t.Error(err)
		}
		return fmt.Sprint(slices.Sorted(strings.Lines(err.Error() + "\n")))
	}, before.SendAllAndCollect, after.SendAllAndCollect)
}

func TestPrintAll(t *testing.T) {
	same(t, func(printAll func(context.Context, iter.Seq[string], before.Fetch, func(string, error)) error) string {
		var printed record
		err := printAll(t.Context(), slices.Values(bad), fetch, func(page string, err error) { printed.add(page, err) })
		return fmt.Sprintln(printed.all, err)
	}, before.PrintAll, after.PrintAll)
}

func TestRunSafely(t *testing.T) {
	same(t, func(runSafely func([]func()) error) string {
		var ran record
		if err := runSafely(jobsThat(10, func(i int) { ran.add(i) })); err != nil {
			t.Error(err)
		}
		err := runSafely(jobsThat(1, func(int) { panic(errGone) }))
		_, theirs := errors.AsType[*panics.ErrRecovered](err)
		_, ours := errors.AsType[*workpool.PanicError](err)
		return fmt.Sprintln(ran.sorted(), errors.Is(err, errGone), theirs || ours)
	}, before.RunSafely, after.RunSafely)
}

func jobsThat(n int, do func(i int)) (jobs []func()) {
	for i := range n {
		jobs = append(jobs, func() { do(i) })
	}
	return jobs
}

func newPool(t *testing.T) *workpool.Pool[string, string] {
	t.Helper()
	pool, err := workpool.New(fetch, workpool.WithWorkers(8))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}
