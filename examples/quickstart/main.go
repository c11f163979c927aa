// Quickstart is the smallest whole program: three workers, five payloads, and
// the results as they arrive.
//
//	go run ./examples/quickstart
//
// Each task takes 100 ms, so the three workers need about 200 ms for the five.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	pool, err := workpool.New(process, workpool.WithWorkers(3))
	if err != nil {
		return err
	}

	// One goroutine submits the tasks and then closes the pool.
	ended := make(chan error, 1)
	go func() {
		for payload := 1; payload <= 5; payload++ {
			if err := pool.Submit(ctx, payload); err != nil {
				log.Print(err)
			}
		}
		ended <- pool.Shutdown(ctx)
	}()

	// Another one, here this one, receives the results, until there are no more.
	for r := range pool.Results() {
		if r.Err != nil {
			fmt.Fprintf(out, "Worker %d failed at task payload %d: %v\n", r.Worker, r.Task, r.Err)
			continue
		}
		fmt.Fprintf(out, "Worker %d successfully finalized task payload %d\n", r.Worker, r.Value)
	}
	return <-ended
}

// process is the work: a function from a task to a value or an error.
func process(ctx context.Context, payload int) (int, error) {
	select {
	case <-time.After(100 * time.Millisecond):
		return payload, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
