package after

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

func run(_ context.Context, job func()) (struct{}, error) {
	job()
	return struct{}{}, nil
}

// RunAll runs jobs that have no answer, and waits for them.
func RunAll(jobs []func()) error {
	pool, err := workpool.New(run,
		workpool.WithWorkers(8),
		workpool.WithoutResults())
	if err != nil {
		return err
	}
	ctx := context.Background()
	_, err = pool.SubmitAll(ctx, slices.Values(jobs))
	return errors.Join(err, pool.Close())
}

// RunOrRefuse runs a job if a worker is free, and refuses it otherwise.
func RunOrRefuse(
	jobs iter.Seq[func()],
	refused func(error),
) error {
	pool, err := workpool.New(run,
		workpool.WithWorkers(2),
		workpool.WithQueueDepth(0),
		workpool.WithoutResults())
	if err != nil {
		return err
	}
	ctx := context.Background()
	for job := range jobs {
		if err := pool.TrySubmit(ctx, job); err != nil {
			refused(err) // workpool.ErrQueueFull
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return pool.Shutdown(ctx)
}

// RunAndRecover runs jobs and reports those that panic.
func RunAndRecover(
	jobs []func(),
	panicked func(value any),
) error {
	report := func(r workpool.Result[func(), struct{}]) {
		var p *workpool.PanicError
		if errors.As(r.Err, &p) {
			panicked(p.Value)
		}
	}
	pool, err := workpool.New(run,
		workpool.WithWorkers(8),
		workpool.WithResultFunc(report))
	if err != nil {
		return err
	}
	ctx := context.Background()
	_, err = pool.SubmitAll(ctx, slices.Values(jobs))
	return errors.Join(err, pool.Close())
}
