// Quickstart is the smallest whole program: three workers, five tasks, and
// the results as they arrive.
//
//	go run ./examples/quickstart
//
// Each task takes 100 ms, so the three workers need about 200 ms for the five.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("quickstart: ")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Printf("unexpected argument %q", flag.Arg(0))
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	pool, err := workpool.New(square, workpool.WithWorkers(3))
	if err != nil {
		return err
	}

	// One goroutine submits the tasks and then closes the pool.
	ended := make(chan error, 1)
	go func() {
		for number := 1; number <= 5; number++ {
			if err := pool.Submit(ctx, number); err != nil {
				log.Print(err)
			}
		}
		ended <- pool.Shutdown(ctx)
	}()

	// Another one, here this one, receives the results, until there are no more.
	for r := range pool.Results() {
		if r.Err != nil {
			fmt.Fprintf(out, "worker %d: task %d failed: %v\n", r.Worker, r.Task, r.Err)
			continue
		}
		fmt.Fprintf(out, "worker %d: the square of %d is %d\n", r.Worker, r.Task, r.Value)
	}
	return <-ended
}

// square is the work: a function from a task to a value or an error.
func square(ctx context.Context, number int) (int, error) {
	select {
	case <-time.After(100 * time.Millisecond):
		return number * number, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
