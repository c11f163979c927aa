package before

import (
	"iter"
	"sync"
	"time"

	"github.com/panjf2000/ants/v2"
)

// RunAll runs jobs that have no answer, and waits for them.
func RunAll(jobs []func()) error {
	pool, err := ants.NewPool(8)
	if err != nil {
		return err
	}
	defer pool.Release()
	var running sync.WaitGroup
	for _, job := range jobs {
		running.Add(1)
		err := pool.Submit(func() {
			defer running.Done()
			job()
		})
		if err != nil {
			running.Done()
			return err
		}
	}
	running.Wait()
	return nil
}

// RunOrRefuse runs a job if a worker is free, and refuses it otherwise.
func RunOrRefuse(
	jobs iter.Seq[func()],
	refused func(error),
) error {
	pool, err := ants.NewPool(2,
		ants.WithNonblocking(true))
	if err != nil {
		return err
	}
	for job := range jobs {
		if err := pool.Submit(job); err != nil {
			refused(err) // ants.ErrPoolOverload
		}
	}
	return pool.ReleaseTimeout(time.Minute)
}

// RunAndRecover runs jobs and reports those that panic.
func RunAndRecover(
	jobs []func(),
	panicked func(value any),
) error {
	var running sync.WaitGroup
	report := func(value any) {
		defer running.Done()
		panicked(value)
	}
	pool, err := ants.NewPool(8,
		ants.WithPanicHandler(report))
	if err != nil {
		return err
	}
	defer pool.Release()
	for _, job := range jobs {
		running.Add(1)
		err := pool.Submit(func() {
			job()
			running.Done()
		})
		if err != nil {
			running.Done()
			return err
		}
	}
	running.Wait()
	return nil
}
