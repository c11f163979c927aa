package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-a18b2dc9/workpool"
)

// mustNew returns a pool. One that a test leaves open has to close without an error at its end.
func mustNew[T, R any](t testing.TB, handler workpool.Handler[T, R], opts ...workpool.Option) *workpool.Pool[T, R] {
	t.Helper()
	p, err := workpool.New(handler, opts...)
	require.NoError(t, err)
	if _, measures := t.(*testing.B); !measures {
		t.Cleanup(func() {
			if !p.Stats().Closed {
				assert.NoError(t, p.Close())
			}
		})
	}
	return p
}

// bubble runs test as a subtest in a bubble.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// eachOf runs test for each of the rows, in a bubble.
func eachOf[V any](t *testing.T, rows []V, test func(t *testing.T, row V)) {
	t.Helper()
	for _, row := range rows {
		bubble(t, fmt.Sprint(row), func(t *testing.T) { test(t, row) })
	}
}

// eachNamed runs test for each of the rows, in a bubble.
func eachNamed[V any](t *testing.T, rows map[string]V, test func(t *testing.T, name string, row V)) {
	t.Helper()
	for name, row := range rows {
		bubble(t, name, func(t *testing.T) { test(t, name, row) })
	}
}

var (
	eitherWay = []bool{false, true}
	modes     = []workpool.ShutdownMode{workpool.Drain, workpool.FinishRunning, workpool.Abort}
	overflows = []workpool.Overflow{workpool.Block, workpool.Reject, workpool.DropOldest, workpool.DropNewest, workpool.CallerRuns}
)

// submit submits the tasks one by one.
func submit[T, R any](t testing.TB, p *workpool.Pool[T, R], tasks ...T) {
	t.Helper()
	for _, task := range tasks {
		require.NoError(t, p.Submit(t.Context(), task))
	}
}

// submitN submits a task n times.
func submitN[T, R any](t testing.TB, p *workpool.Pool[T, R], n int, task T) {
	t.Helper()
	submit(t, p, slices.Repeat([]T{task}, n)...)
}

// fill hands in a task n times, for which there is room at once, and expects none for another.
func fill[T, R any](t testing.TB, p *workpool.Pool[T, R], n int, task T) {
	t.Helper()
	for i := range n {
		require.NoError(t, p.TrySubmit(t.Context(), task), "%d of %d", i, n)
	}
	require.ErrorIs(t, p.TrySubmit(t.Context(), task), workpool.ErrQueueFull)
}

// gives expects a call to return a value and no error, as in gives(t, 7)(p.Do(ctx, task)).
func gives(t testing.TB, want any) func(got any, err error) {
	t.Helper()
	return func(got any, err error) {
		t.Helper()
		assert.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

// succeeds expects a call to return no error.
func succeeds(t testing.TB) func(_ any, err error) {
	t.Helper()
	return func(_ any, err error) {
		t.Helper()
		assert.NoError(t, err)
	}
}

// fails expects a call to return an error that is each of these.
func fails(t testing.TB, want ...error) func(_ any, err error) {
	t.Helper()
	return func(_ any, err error) {
		t.Helper()
		for _, one := range want {
			assert.ErrorIs(t, err, one)
		}
	}
}

// panicked expects the error of a panic with this value.
func panicked(t testing.TB, value any, err error) {
	t.Helper()
	var e *workpool.PanicError
	if assert.ErrorAs(t, err, &e) {
		assert.Equal(t, value, e.Value)
	}
}

// cutShort expects the error of a Shutdown that has aborted so many tasks and left so many
// running, for these causes.
func cutShort(t testing.TB, aborted, running int, err error, causes ...error) {
	t.Helper()
	var cut *workpool.ShutdownError
	require.ErrorAs(t, err, &cut)
	assert.Equal(t, []int{aborted, running}, []int{cut.Aborted, cut.Running})
	fails(t, causes...)(nil, err)
}

// limited returns the context of t with a deadline.
func limited(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// collect receives results until they end.
func collect[T, R any](p *workpool.Pool[T, R]) []workpool.Result[T, R] {
	return slices.Collect(p.Results())
}

// closed closes the pool and expects no error.
func closed(t testing.TB, p interface{ Close() error }) {
	t.Helper()
	require.NoError(t, p.Close())
}

// identity is the handler of tests that are not about handlers.
func identity(_ context.Context, n int) (int, error) { return n, nil }

// counts returns the numbers of s that count tasks.
func counts(s workpool.Stats) workpool.Stats {
	return workpool.Stats{
		Running: s.Running, Queued: s.Queued, Undelivered: s.Undelivered,
		Submitted: s.Submitted, Succeeded: s.Succeeded, Failed: s.Failed, Panicked: s.Panicked, Aborted: s.Aborted, Retried: s.Retried,
	}
}

// Most tests in these files use pools of closures, so that each task stands
// where the test hands it in.
type (
	closure  = workpool.Func[int]
	closures = workpool.Pool[closure, int]
)

func newClosures(t testing.TB, opts ...workpool.Option) *closures {
	t.Helper()
	return mustNew(t, workpool.Call[int], opts...)
}

// returning is the task that ends with value and err at once.
func returning(value int, err error) closure {
	return func(context.Context) (int, error) { return value, err }
}

// until is the task that runs until release is closed, whatever its context says.
func until(release <-chan struct{}) closure {
	return func(context.Context) (int, error) {
		<-release
		return 0, nil
	}
}

// untilEnd is the task that runs until its context ends, and says why it did.
func untilEnd(ctx context.Context) (int, error) {
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

// lasting is the task that takes d and returns value, or sooner, when its context ends, why.
func lasting(d time.Duration, value int) closure {
	return func(ctx context.Context) (int, error) {
		select {
		case <-time.After(d):
			return value, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// sleeping is the task that takes d and returns value, whatever its context says.
func sleeping(d time.Duration, value int) closure {
	return func(context.Context) (int, error) {
		time.Sleep(d)
		return value, nil
	}
}

// occupy keeps n workers of p busy until release is called. It is for use in
// a bubble.
func occupy(t testing.TB, p *closures, n int) (release func()) {
	t.Helper()
	released := make(chan struct{})
	for range n {
		require.NoError(t, p.TrySubmit(context.Background(), until(released)))
	}
	synctest.Wait()
	require.Equal(t, n, p.Stats().Running)
	return sync.OnceFunc(func() { close(released) })
}

// counted is a task that counts how often it runs.
func counted(n *atomic.Int32) closure {
	return func(context.Context) (int, error) { return int(n.Add(1)), nil }
}

func catchFire(context.Context) (int, error) { panic("on fire") }

func exit(context.Context) (int, error) {
	runtime.Goexit()
	return 0, nil
}

// from is the sequence of what comes from a channel, which blocks in between.
func from[T any](c <-chan T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for task := range c {
			if !yield(task) {
				return
			}
		}
	}
}

type sequenceWay = func(ctx context.Context, p *closures, tasks iter.Seq[closure]) error

// sequenceWays are the ways to hand in the tasks of a sequence. Each returns when all have
// been handed in, and those of a Stream have ended.
var sequenceWays = map[string]sequenceWay{
	"SubmitAll": func(ctx context.Context, p *closures, tasks iter.Seq[closure]) error {
		_, err := p.SubmitAll(ctx, tasks)
		return err
	},
	"Stream": func(ctx context.Context, p *closures, tasks iter.Seq[closure]) (err error) {
		for r := range p.Stream(ctx, tasks) {
			err = errors.Join(err, r.Err)
		}
		return err
	},
}

// A way runs tasks, and returns their values when all have ended.
type way[T, R any] = func(ctx context.Context, p *workpool.Pool[T, R], tasks ...T) ([]R, error)

// ways are the ways to run tasks that are answered to their caller: all, or those of these names.
func ways[T, R any](names ...string) map[string]way[T, R] {
	// each calls call for every task, one after the other.
	each := func(call func(p *workpool.Pool[T, R], ctx context.Context, task T) (R, error)) way[T, R] {
		return func(ctx context.Context, p *workpool.Pool[T, R], tasks ...T) (values []R, err error) {
			for _, task := range tasks {
				value, doErr := call(p, ctx, task)
				values, err = append(values, value), errors.Join(err, doErr)
			}
			return values, err
		}
	}
	all := map[string]way[T, R]{
		"Do":    each((*workpool.Pool[T, R]).Do),
		"TryDo": each((*workpool.Pool[T, R]).TryDo),
		"DoChan": func(ctx context.Context, p *workpool.Pool[T, R], tasks ...T) (values []R, err error) {
			var answers []<-chan workpool.Result[T, R]
			for _, task := range tasks {
				answers = append(answers, p.DoChan(ctx, task))
			}
			for _, answer := range answers {
				r := <-answer
				values, err = append(values, r.Value), errors.Join(err, r.Err)
			}
			return values, err
		},
		"Map": func(ctx context.Context, p *workpool.Pool[T, R], tasks ...T) ([]R, error) { return p.Map(ctx, tasks) },
		"Stream": func(ctx context.Context, p *workpool.Pool[T, R], tasks ...T) (values []R, err error) {
			for r := range p.Stream(ctx, slices.Values(tasks)) {
				values, err = append(values, r.Value), errors.Join(err, r.Err)
			}
			return values, err
		},
		"Group": func(ctx context.Context, p *workpool.Pool[T, R], tasks ...T) (values []R, err error) {
			g := p.Group(ctx)
			for _, task := range tasks {
				err = errors.Join(err, g.Submit(task))
			}
			values, waitErr := g.Wait()
			return values, errors.Join(err, waitErr)
		},
	}
	if len(names) > 0 {
		maps.DeleteFunc(all, func(name string, _ way[T, R]) bool { return !slices.Contains(names, name) })
	}
	return all
}

// doAtOnce calls Do for each task from a goroutine of its own.
func doAtOnce[T, R any](ctx context.Context, p *workpool.Pool[T, R], tasks ...T) (values []R, err error) {
	var mu sync.Mutex
	var calls sync.WaitGroup
	for _, task := range tasks {
		calls.Go(func() {
			value, doErr := p.Do(ctx, task)
			mu.Lock()
			defer mu.Unlock()
			values, err = append(values, value), errors.Join(err, doErr)
		})
	}
	calls.Wait()
	return values, err
}

// feeding hands in what comes from the channel that it returns. The function closes that
// and waits for the end.
func feeding(t testing.TB, p *closures, feed sequenceWay) (tasks chan closure, end func()) {
	t.Helper()
	tasks = make(chan closure)
	done := make(chan error, 1)
	go func() { done <- feed(context.Background(), p, from(tasks)) }()
	synctest.Wait()
	return tasks, func() {
		t.Helper()
		close(tasks)
		require.NoError(t, <-done)
	}
}

// receive returns the next of Results. In a bubble, one that never comes is a
// deadlock.
func receive[T, R any](t *testing.T, p *workpool.Pool[T, R]) (result workpool.Result[T, R]) {
	t.Helper()
	for r := range p.Results() {
		return r
	}
	require.Fail(t, "Results ended")
	return result
}

// byIndex sorts results by index and asserts that these are 0, 1, ...
func byIndex[T, R any](t *testing.T, results []workpool.Result[T, R]) []workpool.Result[T, R] {
	t.Helper()
	slices.SortFunc(results, func(a, b workpool.Result[T, R]) int { return int(a.Index) - int(b.Index) })
	for i, r := range results {
		assert.Equal(t, uint64(i), r.Index, "each position once")
	}
	return results
}

// upTo returns 0, 1, ... n-1.
func upTo(n int) []int { return slices.Collect(count(n)) }

func square(_ context.Context, n int) (int, error) { return n * n, nil }

// shapes are pools that are narrow in one place each.
var shapes = map[string][]workpool.Option{
	"defaults":           nil,
	"one worker":         {workpool.WithWorkers(1)},
	"hand-over":          {workpool.WithWorkers(2), workpool.WithQueueDepth(0), workpool.WithResultBuffer(0)},
	"all at their least": {workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithResultBuffer(0)},
	"many workers":       {workpool.WithWorkers(50), workpool.WithQueueDepth(1)},
}

// within fails the test, with the stacks of all goroutines, if f takes longer
// than a minute. It is for tests outside a bubble, which would find a deadlock.
func within(t *testing.T, f func()) {
	const limit = time.Minute
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		require.Fail(t, "it hangs", "%s", stacks)
	}
}

// crowd counts how many of its tasks run at once.
type crowd struct{ now, most atomic.Int32 }

func (c *crowd) task(ctx context.Context) (int, error) {
	now := c.now.Add(1)
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
	}
	time.Sleep(time.Second)
	c.now.Add(-1)
	return 0, nil
}

var errOdd = errors.New("odd")

// moody ends in every way that a handler can.
func moody(_ context.Context, n int) (int, error) {
	switch n % 4 {
	case 1:
		return 0, errOdd
	case 2:
		panic(n)
	case 3:
		runtime.Goexit()
	}
	return n, nil
}

// goroutinesOfBubble counts the goroutines in the bubble of its caller. Others
// belong to tests that have just ended.
func goroutinesOfBubble() int {
	buffer := make([]byte, 1<<20)
	stacks := string(buffer[:runtime.Stack(buffer, true)]) // its caller's comes first
	_, rest, _ := strings.Cut(stacks, "synctest bubble ")
	bubble, _, _ := strings.Cut(rest, "]")
	return strings.Count(stacks, "synctest bubble "+bubble+"]")
}

type key struct{}

// A wayIn hands in tasks without waiting for their ends, in a bubble. It returns a function
// that waits for these, where they do not go to Results.
type wayIn = func(t testing.TB, p *closures, tasks []closure) (wait func())

// oneByOne is a way in that submits each task.
func oneByOne(submit func(p *closures, task closure) error) wayIn {
	return func(t testing.TB, p *closures, tasks []closure) func() {
		for _, task := range tasks {
			require.NoError(t, submit(p, task))
		}
		return func() {}
	}
}

// allAtOnce is a way in that returns when all tasks have ended.
func allAtOnce(name string) wayIn {
	run := ways[closure, int]()[name]
	return func(t testing.TB, p *closures, tasks []closure) func() {
		done := make(chan error, 1)
		go func() {
			_, err := run(context.Background(), p, tasks...)
			done <- err
		}()
		return func() { require.NoError(t, <-done) }
	}
}

var waysIn = map[string]wayIn{
	"Submit":    oneByOne(func(p *closures, task closure) error { return p.Submit(context.Background(), task) }),
	"TrySubmit": oneByOne(func(p *closures, task closure) error { return p.TrySubmit(context.Background(), task) }),
	"SubmitCancel": oneByOne(func(p *closures, task closure) error {
		_, err := p.SubmitCancel(context.Background(), task)
		return err
	}),
	"SubmitAll": func(t testing.TB, p *closures, tasks []closure) func() {
		gives(t, len(tasks))(p.SubmitAll(context.Background(), slices.Values(tasks)))
		return func() {}
	},
	"Do": func(t testing.TB, p *closures, tasks []closure) func() {
		var answers sync.WaitGroup
		for _, task := range tasks {
			answers.Go(func() {
				_, err := p.Do(context.Background(), task)
				assert.NoError(t, err)
			})
			synctest.Wait()
		}
		return answers.Wait
	},
	"DoChan": allAtOnce("DoChan"),
	"Map":    allAtOnce("Map"),
	"Stream": allAtOnce("Stream"),
	"Group":  allAtOnce("Group"),
}

// inOneGo submits the tasks before a worker can begin the first.
func inOneGo(t testing.TB, p *closures, tasks ...closure) {
	t.Helper()
	p.Pause()
	for _, task := range tasks {
		require.NoError(t, p.TrySubmit(context.Background(), task))
	}
	p.Resume()
	synctest.Wait()
}

// eachShape runs test with each of shapes, in a bubble.
func eachShape(t *testing.T, test func(t *testing.T, opts []workpool.Option)) {
	t.Helper()
	eachNamed(t, shapes, func(t *testing.T, _ string, opts []workpool.Option) { test(t, opts) })
}

// panicAfter yields 0 to n-1, and then panics.
func panicAfter(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
		panic("no more")
	}
}

// endedContext returns a context that has ended.
func endedContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// assertSum checks that a snapshot adds up.
func assertSum(t testing.TB, s workpool.Stats) {
	t.Helper()
	assert.Equal(t, s.Submitted, uint64(s.Queued)+uint64(s.Running)+s.Succeeded+s.Failed+s.Aborted, "%+v", s)
}

// assertFollows checks that a snapshot adds up, and that no counter has gone back since the last
// one. It returns the snapshot.
func assertFollows(t testing.TB, last, s workpool.Stats) workpool.Stats {
	t.Helper()
	assertSum(t, s)
	was := []uint64{last.Submitted, last.Succeeded, last.Failed, last.Panicked, last.Aborted, last.Dropped, last.Cancelled, last.Refused, last.Retried}
	is := []uint64{s.Submitted, s.Succeeded, s.Failed, s.Panicked, s.Aborted, s.Dropped, s.Cancelled, s.Refused, s.Retried}
	for i := range is {
		assert.GreaterOrEqual(t, is[i], was[i], i)
	}
	assert.LessOrEqual(t, s.Dropped+s.Cancelled, s.Aborted)
	assert.LessOrEqual(t, s.Panicked, s.Failed)
	assert.LessOrEqual(t, s.Parked, s.Queued)
	assert.GreaterOrEqual(t, min(s.Queued, s.Running, s.Undelivered), 0, "%+v", s)
	return s
}

// A caller has one task answered to itself. A context belongs to it.
type caller = func(ctx context.Context, p *closures, task closure) error

var callers = func() map[string]caller {
	all := map[string]caller{
		"Submit": func(ctx context.Context, p *closures, task closure) error {
			if err := p.Submit(ctx, task); err != nil {
				return err
			}
			return p.Wait(context.Background())
		},
		"SubmitCancel": func(ctx context.Context, p *closures, task closure) error {
			cancel, err := p.SubmitCancel(ctx, task)
			if err != nil {
				return err
			}
			defer cancel()
			return p.Wait(ctx)
		},
	}
	for name, run := range ways[closure, int]("Do", "DoChan", "Map", "Stream", "Group") {
		all[name] = errorOf(run)
	}
	return all
}()

// errorOf is the caller that runs a task in this way.
func errorOf(run way[closure, int]) caller {
	return func(ctx context.Context, p *closures, task closure) error {
		_, err := run(ctx, p, task)
		return err
	}
}

// A selfUser is a handler that gets the pool it runs on.
type selfUser[T, R any] func(ctx context.Context, p *workpool.Pool[T, R], task T) (R, error)

// newSelfUsing makes a pool whose handler uses the pool itself.
func newSelfUsing[T, R any](t testing.TB, handler selfUser[T, R], opts ...workpool.Option) *workpool.Pool[T, R] {
	t.Helper()
	var p *workpool.Pool[T, R]
	p = mustNew(t, func(ctx context.Context, task T) (R, error) { return handler(ctx, p, task) }, opts...)
	return p
}

// tight are the pools on which a task that waits for a worker waits for
// itself: nearly all is taken by the task.
var tight = map[string][]workpool.Option{
	"one worker, depth 0":  {workpool.WithWorkers(1), workpool.WithQueueDepth(0)},
	"one worker, depth 1":  {workpool.WithWorkers(1), workpool.WithQueueDepth(1)},
	"two workers, depth 1": {workpool.WithWorkers(2), workpool.WithQueueDepth(1)},
	"elastic":              {workpool.WithWorkers(3), workpool.WithQueueDepth(1), workpool.WithElastic(0, 5*time.Millisecond)},
	"defaults":             nil,
}

func eachTight(t *testing.T, test func(t *testing.T, opts []workpool.Option)) {
	t.Helper()
	eachNamed(t, tight, func(t *testing.T, _ string, opts []workpool.Option) { test(t, opts) })
}

// nested are the ways in which a handler runs tasks of its own pool and waits for them. Each
// returns the sum of their values.
var nested = func() map[string]func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) (sum int, err error) {
	sums := map[string]func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) (sum int, err error){}
	all := ways[int, int]()
	all["Do from goroutines of its own"] = doAtOnce[int, int]
	for name, run := range all {
		sums[name] = func(ctx context.Context, p *workpool.Pool[int, int], tasks ...int) (sum int, err error) {
			values, err := run(ctx, p, tasks...)
			for _, value := range values {
				sum += value
			}
			return sum, err
		}
	}
	return sums
}()

var errFailed = errors.New("failed")

// failing returns a handler that fails before a number of the attempt.
func failing(attempts int) workpool.Handler[int, int] {
	return func(ctx context.Context, n int) (int, error) {
		if info, _ := workpool.InfoFrom(ctx); info.Attempt < attempts {
			return 0, errFailed
		}
		return n, nil
	}
}

func seconds(attempt int) time.Duration { return time.Duration(attempt) * time.Second }

var errNotYet = errors.New("not yet")

// after returns a handler that succeeds at a number of the attempt, and asks for
// each further one after d.
func after(attempts int, d time.Duration) workpool.Handler[int, int] {
	return func(ctx context.Context, n int) (int, error) {
		if info, _ := workpool.InfoFrom(ctx); info.Attempt < attempts {
			return 0, workpool.RetryAfter(d, errNotYet)
		}
		return n, nil
	}
}

// A call is one of the two ways to run a task and get its answer.
type call func(ctx context.Context, p *closures, task closure) (int, error)

func do(ctx context.Context, p *closures, task closure) (int, error) { return p.Do(ctx, task) }

func doChan(ctx context.Context, p *closures, task closure) (int, error) {
	r := <-p.DoChan(ctx, task)
	return r.Value, r.Err
}

func tryDo(ctx context.Context, p *closures, task closure) (int, error) { return p.TryDo(ctx, task) }

// outcome is what a call came back with, and when.
type outcome struct {
	value int
	err   error
	after time.Duration
}

// inBackground starts the call and waits until everything in the bubble stands still.
func inBackground(ctx context.Context, call call, p *closures, task closure) <-chan outcome {
	done := make(chan outcome, 1)
	begin := time.Now()
	go func() {
		value, err := call(ctx, p, task)
		done <- outcome{value, err, time.Since(begin)}
	}()
	synctest.Wait()
	return done
}

// assertSilent asserts that the channel holds nothing and is not closed.
func assertSilent[T, R any](t *testing.T, answer <-chan workpool.Result[T, R]) {
	t.Helper()
	synctest.Wait()
	select {
	case r, open := <-answer:
		assert.Fail(t, "one Result is all there is", "got %v, open: %v", r, open)
	default:
	}
}

// eachCall runs test for Do, TryDo and DoChan, in a bubble each.
func eachCall(t *testing.T, test func(t *testing.T, call call)) {
	t.Helper()
	eachWaitingCall(t, test)
	bubble(t, "TryDo", func(t *testing.T) { test(t, tryDo) })
}

// eachWaitingCall runs test for those that wait for room.
func eachWaitingCall(t *testing.T, test func(t *testing.T, call call)) {
	t.Helper()
	bubble(t, "Do", func(t *testing.T) { test(t, do) })
	bubble(t, "DoChan", func(t *testing.T) { test(t, doChan) })
}

// An order is a task of a key.
type order struct {
	key int
	run closure
}

func newOrders(t testing.TB, opts ...workpool.Option) *workpool.Pool[order, int] {
	t.Helper()
	run := func(ctx context.Context, o order) (int, error) { return o.run(ctx) }
	return mustNew(t, run, append(opts, workpool.WithKey(func(o order) int { return o.key }))...)
}

// napping is a task that takes a second.
var napping = sleeping(time.Second, 0)

// receiveN receives n results.
func receiveN(p *closures, n int) {
	if n == 0 {
		return
	}
	for range p.Results() {
		if n--; n == 0 {
			return
		}
	}
}

// handsIn are the ways of which rule 8 promises that tasks begin in their order: they hand
// them in from one goroutine, and return when all have ended.
var handsIn = func() map[string]way[closure, int] {
	all := ways[closure, int]("DoChan", "Map", "Stream", "Group")
	oneByOne := func(ctx context.Context, p *closures, tasks iter.Seq[closure]) (err error) {
		for task := range tasks {
			err = errors.Join(err, p.Submit(ctx, task))
		}
		return err
	}
	for name, feed := range map[string]sequenceWay{"Submit": oneByOne, "SubmitAll": sequenceWays["SubmitAll"]} {
		all[name] = func(ctx context.Context, p *closures, tasks ...closure) ([]int, error) {
			var received sync.WaitGroup
			defer received.Wait()
			received.Go(func() { receiveN(p, len(tasks)) })
			return nil, feed(ctx, p, slices.Values(tasks))
		}
	}
	return all
}()

// rounds is how many rounds a test of hangs makes, of which each takes some tens of
// microseconds.
func rounds(few, many int) int {
	if testing.Short() {
		return few
	}
	return many
}

// heap returns how many bytes are in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func count(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// derivations are ways to derive a context that ends with another one.
var derivations = map[string]func(ctx context.Context) (context.Context, context.CancelFunc){
	"its own context": func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} },
	"WithCancel":      context.WithCancel,
	"WithTimeout": func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, time.Hour)
	},
	"WithValue": func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithCancel(context.WithValue(ctx, key{}, 1))
	},
	"WithoutCancel and AfterFunc": func(ctx context.Context) (context.Context, context.CancelFunc) {
		child, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
		return child, func() { cancel(nil) }
	},
}
