package jobqueue_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/seed-a18b2dc9/workpool"
	"github.com/seed-a18b2dc9/workpool/jobqueue"
	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

// A server, a worker and a submitter in one process. With nats.Connect in place of
// Connect, each can be in one of its own.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	server, err := embedded.Start(dir)
	if err != nil {
		panic(err)
	}
	defer server.Shutdown()
	nc, err := server.Connect()
	if err != nil {
		panic(err)
	}
	defer nc.Close()

	queue, err := jobqueue.Open[int, string](ctx, nc, "squares")
	if err != nil {
		panic(err)
	}
	worker, err := queue.Work(ctx, func(_ context.Context, n int) (string, error) {
		if n < 0 {
			return "", workpool.Permanent(errors.New("negative"))
		}
		return fmt.Sprintf("%d squared is %d", n, n*n), nil
	})
	if err != nil {
		panic(err)
	}
	defer worker.Shutdown(ctx)

	for _, n := range []int{7, -7} {
		id, err := queue.Submit(ctx, n, jobqueue.WithID(fmt.Sprintf("number %d", n)))
		if err != nil {
			panic(err)
		}
		result, err := queue.Result(ctx, id)
		fmt.Println(result.Value, err)
	}
	for letter, err := range queue.Dead(ctx) {
		fmt.Println(letter.ID, letter.Job, letter.Reason, letter.Attempts, err)
	}
	// Output:
	// 7 squared is 49 <nil>
	//  jobqueue: the job is a dead letter: job "number -7", after 1 attempts: negative
	// number -7 -7 negative 1 <nil>
}
