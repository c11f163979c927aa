package workpool_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-a18b2dc9/workpool"
)

// FuzzPool replays random programs on a pool and compares what comes back
// with a naive reference: a table of all tasks, and what each has to end
// with if it runs.
//
// An input is a pool and up to four programs that use it at once. The bytes
// mean, and bytes that are missing are 0:
//
//	0   workers, less 1 (mod 4); a quarter of it: which features are on
//	1   queue depth (mod 5); a fifth of it: what Submit does without room (mod 5);
//	    from 125 on, with keys: how many tasks of a key there may be
//	2   result buffer (mod 5)
//	3   who gets results (mod 5): no one, one receiver, two, a result function, WithoutResults
//	4   how it ends (mod 12): an index into endings, and half of them with a timeout of Close
//	5   when it ends, in steps of 10 ms (mod 32)
//
// and then three for each operation:
//
//	0   bits 0-1: which of the programs it belongs to
//	    bits 2-6: an index into operations; numbers beyond its end do nothing
//	1   the task: bits 0-2 an index into kinds, bits 3-5 into naps,
//	    bits 6-7 the kind of the tasks that it hands in itself
//	2   bits 0-1: the context, an index into contexts
//	    bits 2-7: a number that the operation makes use of
//
// A new operation, kind or ending is added at the end of its table, so that
// the corpus in testdata keeps its meaning.
//
// It all runs in a bubble: a hang is a deadlock that the bubble reports, a
// goroutine that is left behind too, and sleeping costs nothing.
func FuzzPool(f *testing.F) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := decode(data)
		defer func() {
			if v := recover(); v != nil {
				stacks := make([]byte, 1<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				t.Errorf("%v\n%s", v, stacks)
			}
			if t.Failed() {
				t.Logf("%s", s)
			}
		}()
		synctest.Test(t, func(t *testing.T) { s.replay(t) })
	})
}

// The seeds have a program each for what fuzzing finds late.
var seeds = [][]byte{
	nil,
	// Submit of each kind, one receiver, Shutdown after 100 ms.
	{1, 1, 1, 1, 0, 10, 1 << 2, 0, 0, 1 << 2, 1, 0, 1 << 2, 2, 0, 1 << 2, 3, 0, 1 << 2, 4, 0, 1 << 2, 5, 0, 1 << 2, 6, 0, 1 << 2, 7, 0},
	// Nested tasks on one worker with depth 0.
	{0, 0, 0, 1, 0, 20, 4 << 2, 6, 0, 4 << 2, 7, 0, 3 << 2, 5, 7 << 2, 4<<2 | 1, 6 | 2<<6, 0, 4<<2 | 2, 7 | 3<<6, 0},
	// Calls, batches and a pause, from four programs; aborted after 30 ms.
	{2, 1, 1, 2, 4, 3, 4 << 2, 4 | 6<<3, 3, 6<<2 | 1, 0 | 4<<3, 7 << 2, 7<<2 | 2, 1 | 4<<3, 7 << 2, 11<<2 | 3, 0, 0, 13<<2 | 3, 0, 1, 12<<2 | 3, 0, 0},
	// No receiver: workers are held, and Submit waits, until the pool closes.
	{1, 1, 0, 0, 2, 5, 3 << 2, 0, 7 << 2, 3<<2 | 1, 1, 7 << 2, 1<<2 | 2, 0, 1, 9<<2 | 3, 0, 2 << 2, 14<<2 | 3, 0, 0},
	// Resize down and up under load, with a result function; the end of the context.
	{3, 4, 0, 3, 5, 15, 3 << 2, 0 | 5<<3, 7 << 2, 10<<2 | 1, 0, 0, 10<<2 | 1, 0, 5 << 2, 6<<2 | 2, 0 | 4<<3, 7 << 2, 10<<2 | 1, 0, 1 << 2},
	// A broken Stream, an input that panics, and a short deadline, on one worker.
	{0, 0, 0, 1, 3, 12, 8 << 2, 0 | 4<<3, 7 << 2, 17<<2 | 1, 0, 7 << 2, 7<<2 | 2, 4 | 6<<3, 7<<2 | 1, 6<<2 | 3, 4 | 6<<3, 7<<2 | 1},
	// Keys, order, priorities and retries on an elastic pool; all at once.
	{2 | 31<<2, 2, 1, 1, 0, 20, 3 << 2, 0 | 2<<3, 7 << 2, 3<<2 | 1, 1, 7 << 2, 4<<2 | 2, 2, 1 << 2, 7<<2 | 3, 0 | 3<<3, 7 << 2, 18 << 2, 4 | 6<<3, 5 << 2, 6<<2 | 2, 0, 7 << 2},
	// The oldest result in order is that of a task that comes again, and no one has room.
	{0 | 17<<2, 0, 0, 1, 0, 30, 3 << 2, 0, 7 << 2, 3<<2 | 1, 0, 7 << 2},
	// Handlers that wait for tasks of busy keys, on one worker.
	{0 | 2<<2, 1, 1, 1, 0, 20, 1 << 2, 6 | 2<<3, 1 << 2, 1<<2 | 1, 7 | 2<<3, 2 << 2, 1<<2 | 2, 5 | 2<<3, 1 << 2, 3<<2 | 3, 0 | 2<<3, 7 << 2},
	// Each way to overflow.
	{0 | 2<<2, 0 + 5*1, 1, 1, 0, 10, 3 << 2, 0 | 4<<3, 7 << 2, 3<<2 | 1, 0, 7 << 2},
	{0 | 2<<2, 1 + 5*2, 2, 1, 0, 10, 3 << 2, 0 | 4<<3, 7 << 2, 3<<2 | 1, 0, 7 << 2},
	{0 | 4<<2, 1 + 5*3, 2, 0, 0, 10, 3 << 2, 0 | 4<<3, 7 << 2, 3<<2 | 1, 0, 7 << 2},
	{0 | 1<<2, 1 + 5*4, 2, 3, 0, 10, 3 << 2, 0 | 4<<3, 7 << 2, 3<<2 | 1, 0, 7 << 2},
	// Calls and groups that find no room, in each way; and keys that are full.
	{0 | 2<<2, 0 + 5*1, 1, 1, 0, 10, 3 << 2, 0 | 4<<3, 7 << 2, 4<<2 | 1, 0, 0, 5<<2 | 2, 0, 0, 20<<2 | 3, 1, 7 << 2},
	{0, 1 + 5*2, 2, 1, 0, 10, 5 << 2, 0 | 4<<3, 0, 5 << 2, 0, 0, 5 << 2, 0, 0, 19<<2 | 1, 0, 0, 20<<2 | 2, 0 | 4<<3, 7 << 2, 20<<2 | 3, 7, 5 << 2},
	{1, 1 + 5*3, 2, 0, 4, 10, 20 << 2, 0 | 4<<3, 7 << 2, 4<<2 | 1, 0, 0, 20<<2 | 2, 4 | 6<<3, 7<<2 | 3},
	{0, 1 + 5*4, 2, 3, 0, 10, 20 << 2, 0 | 4<<3, 7 << 2, 5<<2 | 1, 0, 0, 5<<2 | 1, 7, 0, 4<<2 | 2, 6, 0},
	{1 | 18<<2, 127, 2, 1, 0, 10, 3 << 2, 0 | 4<<3, 7 << 2, 20<<2 | 1, 0 | 4<<3, 7 << 2, 6<<2 | 2, 0, 7 << 2, 19<<2 | 3, 1 | 5<<3, 0},
	// Several ends at once.
	{1, 2, 1, 1, 6, 4, 3 << 2, 4 | 7<<3, 7 << 2, 15<<2 | 1, 0, 0, 16<<2 | 2, 0, 1, 16<<2 | 3, 0, 0},
}

// A script is what an input means.
type script struct {
	workers, depth, buffer int
	keyDepth               int // 0 without a limit
	features               features
	overflow               workpool.Overflow
	audience               audience
	ending                 ending
	closeTimeout           time.Duration
	endAfter               time.Duration
	programs               [4][]step
}

// features are the options that are on.
type features int

const (
	ordered features = 1 << iota
	keyed
	prioritized
	elastic
	flaky // not an option: two of three tasks ask for one or two more attempts
)

func (f features) has(one features) bool { return f&one != 0 }

func (f features) String() string {
	var names []string
	for i, name := range []string{"ordered", "keyed", "prioritized", "elastic", "flaky"} {
		if f.has(1 << i) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// An audience says who gets the results.
type audience int

const (
	nobody audience = iota
	oneReceiver
	twoReceivers
	resultFunc
	withoutResults
)

// An ending says how the pool ends.
type ending struct {
	name string
	mode workpool.ShutdownMode
	end  func(r *replay) error
}

var endings = []ending{
	{"Shutdown", workpool.Drain, func(r *replay) error { return r.pool.Shutdown(context.Background()) }},
	{"Shutdown for 20ms", workpool.Drain, func(r *replay) error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		return r.pool.Shutdown(ctx)
	}},
	{"Close to drain", workpool.Drain, closePool},
	{"Close to finish running", workpool.FinishRunning, closePool},
	{"Close to abort", workpool.Abort, closePool},
	{"end of the context", workpool.Drain, func(r *replay) error {
		r.endContext()
		return r.pool.Shutdown(context.Background())
	}},
}

func closePool(r *replay) error { return r.pool.Close() }

// A step is one operation with its arguments.
type step struct {
	operation operation
	kind      kind
	child     kind
	nap       time.Duration
	context   contextKind
	number    int   // 0..63
	parent    *deed // whose handler it is in, or nil
}

// An operation is something that a program does with the pool. Those that
// hand in tasks make them from the step.
type operation struct {
	name string
	run  func(r *replay, s step)
}

var operations = []operation{
	{"Sleep", func(_ *replay, s step) { time.Sleep(time.Duration(s.number) * time.Millisecond) }},
	{"Submit", inContext((*replay).submit)},
	{"TrySubmit", inContext((*replay).trySubmit)},
	{"SubmitAll", inContext((*replay).submitAll)},
	{"Do", inContext((*replay).do)},
	{"DoChan", (*replay).doChan},
	{"Map", inContext((*replay).runMap)},
	{"Stream", inContext(func(r *replay, ctx context.Context, s step) { r.stream(ctx, s, -1, false) })},
	{"Stream with break", inContext(func(r *replay, ctx context.Context, s step) { r.stream(ctx, s, s.number>>3, false) })},
	{"Results with break", func(r *replay, s step) { r.receive(1 + s.number%4) }},
	{"Resize", func(r *replay, s step) {
		r.check(r.pool.Resize(1+s.number%mostWorkers), mayBeClosed, func(r *replay, err error) bool {
			return 1+s.number%mostWorkers < r.minimum() && errors.Is(err, workpool.ErrInvalidOption)
		})
	}},
	{"Pause", func(r *replay, _ step) { r.pause(true) }},
	{"Resume", func(r *replay, _ step) { r.pause(false) }},
	{"Wait", inContext(func(r *replay, ctx context.Context, _ step) { r.check(r.pool.Wait(ctx), mayHaveEnded(ctx)) })},
	{"Stats", func(r *replay, _ step) { r.checkStats() }},
	{"Close", func(r *replay, _ step) { r.end(closePool) }},
	{"Shutdown", inContext(func(r *replay, ctx context.Context, _ step) {
		r.end(func(r *replay) error { return r.pool.Shutdown(ctx) })
	})},
	{"Stream of an input that panics", inContext(func(r *replay, ctx context.Context, s step) { r.stream(ctx, s, -1, true) })},
	{"SubmitCancel", inContext((*replay).submitCancel)},
	{"TryDo", inContext((*replay).tryDo)},
	{"Group", inContext((*replay).group)},
}

// inContext runs an operation with the context of its step.
func inContext(run func(r *replay, ctx context.Context, s step)) func(r *replay, s step) {
	return func(r *replay, s step) {
		ctx, cancel := r.context(s)
		defer cancel()
		run(r, ctx, s)
	}
}

// blocks tells whether an operation may take its time beside an idle pool.
func (o operation) blocks() bool {
	switch o.name {
	case "Sleep", "Results with break", "Close", "Shutdown":
		return true
	}
	return false
}

// mostWorkers is the most that Resize asks for, and no less than a pool
// starts with.
const mostWorkers = 6

// A kind says what the handler does with a task, after its nap.
type kind int

const (
	succeed kind = iota
	fail
	burn
	leave
	heed // as succeed, but the end of the context ends the nap and is the error
	nestSubmit
	nestCall
	nestBatch
)

func (k kind) String() string {
	return [...]string{"succeed", "fail", "panic", "Goexit", "heed", "nest Submit", "nest Do", "nest Map"}[k]
}

var naps = [8]time.Duration{
	0, 0, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 30 * time.Millisecond, 150 * time.Millisecond,
}

// A contextKind says what an operation uses as its context.
type contextKind int

const (
	endless contextKind = iota
	shortDeadline
	ended
	cancelled
)

func (k contextKind) String() string {
	return [...]string{"no end", "deadline in 3ms", "ended", "cancelled in 25ms"}[k]
}

func decode(data []byte) *script {
	next := func() int {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return int(b)
	}
	workers, depth := next(), next()
	s := &script{
		workers: 1 + workers%4, features: features(workers / 4 % 32),
		depth: depth % 5, overflow: workpool.Overflow(depth / 5 % 5),
		buffer: next() % 5, audience: audience(next() % 5),
	}
	if depth >= 125 && s.features.has(keyed) {
		s.keyDepth = 1 + depth/25%3
	}
	if s.audience == resultFunc || s.audience == withoutResults {
		s.features &^= ordered
	}
	how := next() % (2 * len(endings))
	s.ending = endings[how%len(endings)]
	if how >= len(endings) {
		s.closeTimeout = 15 * time.Millisecond
	}
	s.endAfter = time.Duration(next()%32) * 10 * time.Millisecond
	for steps := 0; len(data) > 0 && steps < 60; steps++ {
		which, task, arguments := next(), next(), next()
		operation := which >> 2 & 31
		if operation >= len(operations) {
			continue
		}
		s.programs[which&3] = append(s.programs[which&3], step{
			operation: operations[operation],
			kind:      kind(task & 7),
			child:     kind(task >> 6),
			nap:       naps[task>>3&7],
			context:   contextKind(arguments & 3),
			number:    arguments >> 2,
		})
	}
	return s
}

// String shows the script for whoever has to understand a failure.
func (s *script) String() string {
	var b strings.Builder
	audiences := [...]string{"no one", "one receiver", "two receivers", "a result function", "no one, dropped"}
	fmt.Fprintf(&b, "%d workers, queue depth %d, result buffer %d, results for %s\n", s.workers, s.depth, s.buffer, audiences[s.audience])
	fmt.Fprintf(&b, "features: %v; overflow: %v; key depth: %d\n", s.features, s.overflow, s.keyDepth)
	fmt.Fprintf(&b, "%s after %v, Close within %v\n", s.ending.name, s.endAfter, s.closeTimeout)
	for i, program := range s.programs {
		for _, step := range program {
			fmt.Fprintf(&b, "program %d: %-20s number %-2d task: %v (%v inside), nap %v; context: %v\n",
				i, step.operation.name, step.number, step.kind, step.child, step.nap, step.context)
		}
	}
	return b.String()
}

// nests tells whether there are tasks that hand in tasks. These may run in
// excess of all bounds.
func (s *script) nests() bool {
	return s.count(func(s step) bool { return s.kind >= nestSubmit }) > 0
}

// count counts the steps of which something is so.
func (s *script) count(is func(s step) bool) (n int) {
	for _, program := range s.programs {
		for _, step := range program {
			if is(step) {
				n++
			}
		}
	}
	return n
}

// A deed is a task, and its line in the table of the reference.
type deed struct {
	id    int
	kind  kind
	child kind
	nap   time.Duration

	ctx      context.Context // of the caller
	position int             // in its batch, or -1
	answer   answer
	key      int
	priority workpool.Priority
	attempts int // that it takes

	// Guarded by the mutex of the replay:
	accepted  bool
	cancelled bool // by the function of SubmitCancel
	again     bool // the last run has asked for another one
	ran       int  // how often its handler was called
	ended     int  // and how often that has ended
	answered  int
	info      workpool.Info // of its run
}

// An answer says where the Result of a deed goes.
type answer int

const (
	toResults answer = iota
	toCaller
)

// A deedError is what a deed of the kind fail ends with. Every other one asks for another
// attempt, and says that it would be in vain.
type deedError struct{ id int }

func (e deedError) Error() string { return fmt.Sprintf("deed %d failed", e.id) }

// value is what the handler returns for d.
func (d *deed) value() int { return 1000 + d.id }

// endedRight tells whether a run of d may have had this outcome. It is the
// reference for what a handler does.
func (d *deed) endedRight(value int, err error) bool {
	var panicked *workpool.PanicError
	switch d.kind {
	case fail:
		return errors.Is(err, deedError{d.id})
	case burn:
		return errors.As(err, &panicked) && panicked.Value == d.id && len(panicked.Stack) > 0
	case leave:
		return err == workpool.ErrGoexit
	}
	return err == nil && value == d.value()
}

// A replay is one run of a script.
type replay struct {
	*script
	t          *testing.T
	pool       *workpool.Pool[*deed, int]
	endContext context.CancelFunc
	closing    atomic.Bool // somebody has begun to close the pool
	running    atomic.Int32
	calls      atomic.Int32   // that programs wait for
	pending    sync.WaitGroup // answers of DoChan, and cancellations

	mu       sync.Mutex
	deeds    []*deed
	indexes  map[uint64]*deed
	outcomes []error // of Shutdown and Close
	paused   bool
	counts   workpool.Stats
	busy     map[int]*deed  // by key: the one that runs
	newest   map[int]uint64 // by key: the index of the last that has begun, plus 1
	received uint64         // the Index of the last result, plus 1
}

type markKey struct{}

func (s *script) replay(t *testing.T) {
	ctx, endContext := context.WithCancel(context.Background())
	defer endContext()
	r := &replay{
		script: s, t: t, endContext: endContext,
		indexes: map[uint64]*deed{}, busy: map[int]*deed{}, newest: map[int]uint64{},
	}
	opts := []workpool.Option{
		workpool.WithWorkers(s.workers), workpool.WithQueueDepth(s.depth), workpool.WithContext(ctx),
		workpool.WithShutdown(s.ending.mode, s.closeTimeout), workpool.WithName("fuzz"),
	}
	opts = append(opts, workpool.WithOverflow(s.overflow))
	for feature, option := range map[features]workpool.Option{
		ordered:     workpool.WithOrdered(),
		keyed:       workpool.WithKey(func(d *deed) int { return d.key }),
		prioritized: workpool.WithPriority(func(d *deed) workpool.Priority { return d.priority }),
		elastic:     workpool.WithElastic(s.minimum(), 20*time.Millisecond),
	} {
		if s.features.has(feature) {
			opts = append(opts, option)
		}
	}
	if s.keyDepth > 0 {
		opts = append(opts, workpool.WithKeyDepth(s.keyDepth))
	}
	switch s.audience {
	case resultFunc:
		opts = append(opts, workpool.WithResultFunc(r.receiveOne))
	case withoutResults:
		opts = append(opts, workpool.WithoutResults())
	default:
		opts = append(opts, workpool.WithResultBuffer(s.buffer))
	}
	var err error
	if r.pool, err = workpool.New(r.handle, opts...); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()

	var receivers, programs sync.WaitGroup
	if s.audience == oneReceiver || s.audience == twoReceivers {
		for range s.audience {
			receivers.Go(func() { r.receive(-1) })
		}
	}
	for _, program := range s.programs {
		programs.Go(func() {
			for _, step := range program {
				if !step.operation.blocks() {
					r.calls.Add(1)
				}
				step.operation.run(r, step)
				if !step.operation.blocks() {
					r.calls.Add(-1)
				}
			}
		})
	}
	time.Sleep(s.endAfter)
	r.checkIdle()
	r.end(s.ending.end)
	r.end(func(r *replay) error { return r.pool.Shutdown(context.Background()) }) // waits for handlers that an abort left running
	if n := r.running.Load(); n != 0 {
		t.Errorf("%d handlers run after the end", n)
	}
	programs.Wait()
	r.pending.Wait()
	receivers.Wait()
	r.receive(-1) // what is left
	if elapsed := time.Since(begin); elapsed > 10*time.Minute {
		t.Errorf("it took %v", elapsed)
	}
	r.checkEnd()
}

// minimum is that of an elastic pool.
func (s *script) minimum() int {
	if !s.features.has(elastic) {
		return 0
	}
	return s.workers / 2
}

// handle is the handler of the pool.
func (r *replay) handle(ctx context.Context, d *deed) (int, error) {
	running := r.running.Add(1)
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		d.ended++
		r.running.Add(-1)
		if r.busy[d.key] == d {
			delete(r.busy, d.key)
		}
	}()
	info, ok := workpool.InfoFrom(ctx)
	least := 1
	if r.overflow == workpool.CallerRuns {
		least = 0
	}
	r.failIf(!ok || info.Pool != "fuzz" || info.Worker < least || info.Worker > mostWorkers,
		"deed %d: InfoFrom returns %+v, %v", d.id, info, ok)
	if mark := ctx.Value(markKey{}); mark != d.ctx.Value(markKey{}) {
		r.t.Errorf("deed %d: its context has the value %v", d.id, mark)
	}
	_, hasDeadline := ctx.Deadline()
	_, callerHas := d.ctx.Deadline()
	r.failIf(hasDeadline != (callerHas && d.answer == toCaller), "deed %d: has a deadline: %v", d.id, hasDeadline)
	r.failIf(!r.nests() && int(running) > mostWorkers+r.callers(), "%d handlers run at once", running)
	r.mu.Lock()
	d.ran++
	d.info = info
	r.failIf(info.Attempt != d.ran, "deed %d: attempt %d is said to be number %d", d.id, d.ran, info.Attempt)
	r.checkTurn(d)
	if d.again = d.ran < d.attempts; d.again {
		r.mu.Unlock()
		time.Sleep(d.nap / 2)
		return 0, fmt.Errorf("deed %d: %w", d.id, workpool.RetryAfter(d.nap/2, errAgain))
	}
	r.counts.Retried += uint64(d.ran - 1)
	switch d.kind {
	case fail, leave:
		r.counts.Failed++
	case burn:
		r.counts.Failed++
		r.counts.Panicked++
	}
	r.mu.Unlock()

	value, err := r.work(ctx, d)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.counts.Succeeded++
	} else if d.kind != fail {
		r.counts.Failed++
	}
	return value, err
}

// failIf reports a mistake of the pool.
func (r *replay) failIf(wrong bool, format string, args ...any) {
	if wrong {
		r.t.Helper()
		r.t.Errorf(format, args...)
	}
}

// errAgain is why an attempt asks for another one.
var errAgain = errors.New("not yet")

// callers is how many tasks may run beside the workers.
func (s *script) callers() int {
	if s.overflow != workpool.CallerRuns {
		return 0
	}
	return len(s.programs) + s.count(func(s step) bool { return s.operation.name == "DoChan" }) // which does not wait
}

// checkTurn checks, when d begins to run, that it is the turn of d among those
// of its key. A handler may hand in tasks of its own key, out of turn.
func (r *replay) checkTurn(d *deed) {
	if !r.features.has(keyed) || r.nests() {
		return
	}
	if other := r.busy[d.key]; other != nil {
		r.t.Errorf("deeds %d and %d of key %d run at once", other.id, d.id, d.key)
	}
	r.busy[d.key] = d
	if r.features.has(prioritized) && r.overflow == workpool.Block || d.position >= 0 || d.ran > 1 {
		return
	}
	r.failIf(d.info.Index < r.newest[d.key],
		"deed %d of key %d has Index %d, and one of Index %d has begun", d.id, d.key, d.info.Index, r.newest[d.key]-1)
	r.newest[d.key] = d.info.Index + 1
}

// work does what d asks for.
func (r *replay) work(ctx context.Context, d *deed) (int, error) {
	if d.kind != heed {
		time.Sleep(d.nap)
	}
	inside := step{child: succeed, kind: d.child, nap: d.nap / 4, number: d.id % 8, parent: d}
	switch d.kind {
	case fail:
		if d.id%2 == 1 {
			return 0, workpool.Permanent(workpool.RetryAfter(0, deedError{d.id}))
		}
		return 0, deedError{d.id}
	case burn:
		panic(d.id)
	case leave:
		runtime.Goexit()
	case heed:
		select {
		case <-time.After(d.nap):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	case nestSubmit:
		r.submit(ctx, inside)
		r.submitAll(ctx, inside)
	case nestCall:
		r.do(ctx, inside)
		if answer := r.startDoChan(ctx, inside); d.id%4 == 3 {
			r.pending.Go(answer) // nobody waits for it here
		} else {
			answer()
		}
		for _, err := range []error{r.pool.Wait(ctx), r.pool.Shutdown(ctx)} {
			r.failIf(!errors.Is(err, workpool.ErrReentrant), "deed %d: waiting for itself returns %v", d.id, err)
		}
	case nestBatch:
		r.runMap(ctx, inside)
		r.stream(ctx, inside, d.id%3, false)
		r.group(ctx, inside)
	}
	return d.value(), nil
}

// context returns the context of s.
func (r *replay) context(s step) (context.Context, context.CancelFunc) {
	ctx := context.WithValue(context.Background(), markKey{}, s.number)
	switch s.context {
	case shortDeadline:
		return context.WithTimeout(ctx, 3*time.Millisecond)
	case ended:
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx, cancel
	case cancelled:
		ctx, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(25*time.Millisecond, func() { cancel(errors.New("no longer needed")) })
		return ctx, func() {
			timer.Stop()
			cancel(nil)
		}
	}
	return ctx, func() {}
}

// deed enters a new deed into the table.
func (r *replay) deed(ctx context.Context, s step, answer answer, position int) *deed {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := &deed{id: len(r.deeds), kind: s.kind, child: s.child, nap: s.nap, ctx: ctx, answer: answer, position: position}
	d.key, d.priority, d.attempts = d.id%3, workpool.Priority(d.id%3-1), 1
	if r.features.has(flaky) {
		d.attempts += d.id % 3
	}
	if r.features.has(prioritized) {
		d.key = d.id / 3 % 3
	}
	if s.parent != nil { // or handlers of two keys might wait for each other, for ever
		d.key = max(d.key, s.parent.key)
	}
	r.deeds = append(r.deeds, d)
	return d
}

// runs returns how often d has begun and ended, and whether it has asked for another attempt.
func (r *replay) runs(d *deed) (ran, ended int, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return d.ran, d.ended, d.again
}

func (r *replay) accept(d *deed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.accepted = true
}

// An excuse is a reason for an operation to return an error.
type excuse func(r *replay, err error) bool

func mayBeClosed(r *replay, err error) bool {
	return r.closing.Load() && errors.Is(err, workpool.ErrClosed)
}

func mayBeAborted(r *replay, err error) bool {
	return r.closing.Load() && errors.Is(err, workpool.ErrAborted)
}

func mayBeFull(_ *replay, err error) bool { return errors.Is(err, workpool.ErrQueueFull) }

// mayHaveEnded accepts an error of ctx, if it has ended. The context of a
// handler also ends with the pool.
func mayHaveEnded(ctx context.Context) excuse {
	return func(_ *replay, err error) bool {
		return ctx.Err() != nil && errors.Is(err, ctx.Err()) && errors.Is(err, context.Cause(ctx))
	}
}

// check reports an error that has no excuse.
func (r *replay) check(err error, excuses ...excuse) {
	if err == nil {
		return
	}
	for _, excuse := range excuses {
		if excuse(r, err) {
			return
		}
	}
	r.t.Errorf("no reason for this error: %v", err)
}

// checkAnswer reports an answer that d may not have. An answer to a deed that
// ran has to be what the handler did; the excuses are for those that did not.
func (r *replay) checkAnswer(d *deed, value int, err error, excuses ...excuse) {
	r.mu.Lock()
	d.answered++
	ran, answered, again, cancelled := d.ran, d.answered, d.again, d.cancelled
	r.mu.Unlock()
	r.failIf(answered > 1, "deed %d: answer %d: %d, %v", d.id, answered, value, err)
	if ran > 0 && !again && d.endedRight(value, err) {
		return
	}
	if cancelled && errors.Is(err, context.Canceled) && (ran == 0 || again || d.kind == heed) {
		return
	}
	r.failIf(again && !errors.Is(err, errAgain) && d.answer == toResults,
		"deed %d has asked for another attempt, and ends without the reason: %v", d.id, err)
	for _, excuse := range excuses {
		if err != nil && excuse(r, err) {
			return
		}
	}
	if d.kind == heed && ran > 0 && (mayBeAborted(r, err) || d.answer == toCaller && d.ctx.Err() != nil && err == context.Cause(d.ctx)) {
		return
	}
	r.t.Errorf("deed %d (%v) ran %d times and is answered with %d, %v", d.id, d.kind, ran, value, err)
}

func (r *replay) submit(ctx context.Context, s step) {
	d := r.deed(ctx, s, toResults, -1)
	err := r.pool.Submit(ctx, d)
	if err == nil {
		r.accept(d)
	}
	r.check(err, mayBeClosed, mayHaveEnded(ctx), mayBeRejected)
}

// mayBeRejected accepts ErrQueueFull from a pool that rejects.
func mayBeRejected(r *replay, err error) bool {
	return r.overflow == workpool.Reject && errors.Is(err, workpool.ErrQueueFull)
}

func (r *replay) submitCancel(ctx context.Context, s step) {
	d := r.deed(ctx, s, toResults, -1)
	cancel, err := r.pool.SubmitCancel(ctx, d)
	r.check(err, mayBeClosed, mayHaveEnded(ctx), mayBeRejected)
	if err != nil {
		cancel()
		return
	}
	r.accept(d)
	r.pending.Go(func() {
		time.Sleep(time.Duration(s.number) * time.Millisecond / 2)
		r.mu.Lock()
		d.cancelled = true
		r.mu.Unlock()
		cancel()
		cancel()
	})
}

func (r *replay) trySubmit(ctx context.Context, s step) {
	d := r.deed(ctx, s, toResults, -1)
	err := r.pool.TrySubmit(ctx, d)
	if err == nil {
		r.accept(d)
	}
	r.check(err, mayBeClosed, mayBeFull, mayHaveEnded(ctx))
}

func (r *replay) submitAll(ctx context.Context, s step) {
	var pulled []*deed
	accepted, err := r.pool.SubmitAll(ctx, func(yield func(*deed) bool) {
		for range s.number % 8 {
			d := r.deed(ctx, s, toResults, -1)
			pulled = append(pulled, d)
			if !yield(d) {
				return
			}
		}
	})
	r.check(err, mayBeClosed, mayHaveEnded(ctx), mayBeRejected)
	r.failIf(accepted > len(pulled) || accepted < len(pulled)-1 || err == nil && accepted < s.number%8,
		"SubmitAll accepted %d of %d, and took %d: %v", accepted, s.number%8, len(pulled), err)
	for _, d := range pulled[:min(accepted, len(pulled))] {
		r.accept(d)
	}
}

func (r *replay) do(ctx context.Context, s step) {
	d := r.deed(ctx, s, toCaller, -1)
	value, err := r.pool.Do(ctx, d)
	r.checkAnswer(d, value, err, mayNotHaveRun(d), mayHaveEnded(ctx), mayBeRejected, mayBeDropped(d))
}

func (r *replay) tryDo(ctx context.Context, s step) {
	d := r.deed(ctx, s, toCaller, -1)
	value, err := r.pool.TryDo(ctx, d)
	r.checkAnswer(d, value, err, mayNotHaveRun(d), mayHaveEnded(ctx), mayBeFull, mayBeDropped(d))
}

// group runs a group of tasks, of which every other one succeeds.
func (r *replay) group(ctx context.Context, s step) {
	var deeds []*deed // that were accepted
	g := r.pool.Group(ctx)
	isOver := func(_ *replay, err error) bool { return errors.Is(err, workpool.ErrClosed) }
	why := func(_ *replay, err error) bool { // the end of one of them
		for _, d := range deeds {
			if ran, _, _ := r.runs(d); ran > 0 && (d.endedRight(0, err) || d.kind == leave && errors.Is(err, workpool.ErrGoexit)) || mayBeDropped(d)(r, err) {
				return true
			}
		}
		return false
	}
	for i := range s.number % 8 {
		d := r.deed(ctx, r.nth(s, i), toCaller, len(deeds))
		err := g.Submit(d)
		switch {
		case err == nil:
			deeds = append(deeds, d)
		case errors.Is(err, workpool.ErrClosed):
			r.check(err, mayBeClosed, mayHaveEnded(ctx), mayBeAborted, why)
		default:
			r.check(err, mayBeRejected, mayHaveEnded(ctx))
		}
	}
	values, err := g.Wait()
	r.check(err, mayBeClosed, mayBeAborted, mayHaveEnded(ctx), why)
	r.checkValues(deeds, values, err)
	r.check(g.Submit(r.deed(ctx, s, toCaller, -1)), isOver)
}

// mayBeDropped accepts ErrDropped for a deed that did not run, from a pool that drops.
func mayBeDropped(d *deed) excuse {
	return func(r *replay, err error) bool {
		ran, _, again := r.runs(d)
		return (ran == 0 || again) && errors.Is(err, workpool.ErrDropped) &&
			(r.overflow == workpool.DropOldest || r.overflow == workpool.DropNewest)
	}
}

// mayNotHaveRun accepts ErrClosed and ErrAborted for a deed that did not run.
func mayNotHaveRun(d *deed) excuse {
	return func(r *replay, err error) bool {
		ran, _, again := r.runs(d)
		return (ran == 0 || again) && (mayBeClosed(r, err) || mayBeAborted(r, err))
	}
}

func (r *replay) doChan(s step) {
	ctx, cancel := r.context(s)
	r.pending.Add(1)
	answer := r.startDoChan(ctx, s)
	go func() {
		defer r.pending.Done()
		defer cancel()
		answer()
	}()
}

// startDoChan returns a function that waits for the answer.
func (r *replay) startDoChan(ctx context.Context, s step) (wait func()) {
	d := r.deed(ctx, s, toCaller, -1)
	answer := r.pool.DoChan(ctx, d)
	return func() {
		result := <-answer
		r.failIf(result.Task != d || result.Attempt < 1 || result.Attempt > d.attempts, "deed %d: DoChan yields %+v", d.id, result)
		r.checkAnswer(d, result.Value, result.Err, mayNotHaveRun(d), mayHaveEnded(ctx), mayBeRejected, mayBeDropped(d))
	}
}

// runMap alternates the kind of s with tasks that succeed.
func (r *replay) runMap(ctx context.Context, s step) {
	deeds := make([]*deed, s.number%8)
	for i := range deeds {
		deeds[i] = r.deed(ctx, r.nth(s, i), toCaller, i)
	}
	values, err := r.pool.Map(ctx, deeds)
	r.checkValues(deeds, values, err)
	r.check(err, mayBeClosed, mayBeAborted, mayHaveEnded(ctx), func(_ *replay, err error) bool {
		for _, d := range deeds {
			if d.ran > 0 && d.endedRight(0, err) {
				return true
			}
		}
		return false
	})
}

// checkValues checks what a Map or a group returns when its deeds have ended.
func (r *replay) checkValues(deeds []*deed, values []int, err error) {
	if err == nil && len(values) != len(deeds) || err != nil && values != nil {
		r.t.Errorf("a batch of %d returns %v, %v", len(deeds), values, err)
		return
	}
	for _, d := range deeds {
		ran, ended, _ := r.runs(d)
		r.failIf(err == nil && (ran != d.attempts || values[d.position] != d.value()) || ran != ended,
			"deed %d ran %d times and ended %d times, and its batch returns %v, %v", d.id, ran, ended, values, err)
	}
}

// nth returns the step for one task of a batch: those at odd positions
// succeed.
func (r *replay) nth(s step, i int) step {
	if i%2 == 1 {
		s.kind = succeed
	}
	return s
}

// stream ranges over a Stream. It breaks after breakAfter results, unless
// that is negative, and the input panics at its end if panics says so.
func (r *replay) stream(ctx context.Context, s step, breakAfter int, panics bool) {
	var pulled []*deed // of the goroutine of the input, until Stream has returned
	var mu sync.Mutex
	input := func(yield func(*deed) bool) {
		for i := range s.number % 8 {
			d := r.deed(ctx, r.nth(s, i), toCaller, i)
			mu.Lock()
			pulled = append(pulled, d)
			mu.Unlock()
			if !yield(d) {
				return
			}
		}
		if panics {
			panic("the input")
		}
	}
	var panicked *workpool.PanicError
	yielded, broken := 0, false
	var last error // that comes without a task
	for result := range r.pool.Stream(ctx, iter.Seq[*deed](input)) {
		r.failIf(last != nil, "Stream goes on after the last Result: %+v", result)
		d := result.Task
		if d == nil {
			last = result.Err
			r.check(last, mayBeClosed, mayBeAborted, mayHaveEnded(ctx), func(_ *replay, err error) bool {
				return panics && errors.As(err, &panicked) && panicked.Value == "the input"
			})
			continue
		}
		yielded++
		r.failIf(r.features.has(ordered) && d.position != yielded-1, "deed %d is at position %d, and yielded at %d", d.id, d.position, yielded-1)
		r.failIf(result.Index != uint64(d.position), "deed %d is at position %d, and its Index is %d", d.id, d.position, result.Index)
		r.checkAnswer(d, result.Value, result.Err, mayNotHaveRun(d), mayHaveEnded(ctx))
		if yielded == breakAfter {
			broken = true
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	r.failIf(!broken && yielded != len(pulled), "Stream took %d tasks and yielded %d results", len(pulled), yielded)
	r.failIf(!broken && last == nil && !r.closing.Load() && ctx.Err() == nil && (panics || len(pulled) != s.number%8),
		"Stream took %d of %d tasks and does not say why", len(pulled), s.number%8)
	for _, d := range pulled {
		if ran, ended, _ := r.runs(d); ran != ended {
			r.t.Errorf("deed %d still runs when Stream has returned", d.id)
		}
	}
}

// receive receives results: n, or all that come if n is negative.
func (r *replay) receive(n int) {
	for result := range r.pool.Results() {
		r.receiveOne(result)
		if n--; n == 0 {
			break
		}
	}
}

func (r *replay) receiveOne(result workpool.Result[*deed, int]) {
	d := result.Task
	r.failIf(d.answer != toResults, "deed %d: its answer is for its caller alone", d.id)
	r.checkAnswer(d, result.Value, result.Err, mayNotHaveRun(d), mayBeDropped(d))
	r.mu.Lock()
	defer r.mu.Unlock()
	if other := r.indexes[result.Index]; other != nil {
		r.t.Errorf("deeds %d and %d have the Index %d", other.id, d.id, result.Index)
	}
	r.indexes[result.Index] = d
	r.failIf(r.features.has(ordered) && r.audience == oneReceiver && r.receivesAlone() && result.Index < r.received,
		"the result of Index %d comes after that of %d", result.Index, r.received-1)
	r.received = result.Index + 1
	r.failIf(d.ran > 0 && (result.Worker != d.info.Worker || result.Index != d.info.Index) || d.ran == 0 && result.Worker != 0 || result.Attempt < max(1, d.ran),
		"deed %d ran as %+v, and its Result is %+v", d.id, d.info, result)
}

// receivesAlone tells whether no program receives results too.
func (s *script) receivesAlone() bool {
	return s.count(func(s step) bool { return s.operation.name == "Results with break" }) == 0
}

// end ends the pool, and keeps the outcome.
func (r *replay) end(end func(r *replay) error) {
	r.closing.Store(true)
	err := end(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes = append(r.outcomes, err)
}

func (r *replay) pause(paused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused = paused; paused {
		r.pool.Pause()
	} else {
		r.pool.Resume()
	}
}

// checkIdle reports a call that waits for an open pool that has nothing to do, or
// a task that waits for an idle worker. The end of the pool would set it free, and
// hide that it was forgotten.
func (r *replay) checkIdle() {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	stats := r.pool.Stats()
	idle := stats.Queued+stats.Running == 0 && stats.Undelivered <= r.buffer
	r.failIf(idle && !r.paused && !r.closing.Load() && r.calls.Load() > 0, "%d calls wait beside an idle pool: %+v", r.calls.Load(), stats)
	// A task of a busy key, and one that is to run again, count as queued too.
	if r.features.has(keyed) || r.features.has(flaky) || r.paused || r.closing.Load() {
		return
	}
	held := max(0, stats.Undelivered-r.buffer)
	r.failIf(stats.Queued > 0 && stats.Running+held < stats.Workers || stats.Queued > 0 && stats.Workers == 0,
		"%d tasks are queued beside an idle worker: %+v", stats.Queued, stats)
}

// checkStats compares the numbers of Stats with one another.
func (r *replay) checkStats() {
	stats := r.pool.Stats()
	if stats.Submitted != uint64(stats.Queued+stats.Running)+stats.Succeeded+stats.Failed+stats.Aborted ||
		stats.Panicked > stats.Failed || stats.Dropped+stats.Cancelled > stats.Aborted || stats.Parked > stats.Queued || stats.Held > stats.Workers {
		r.t.Errorf("Stats do not add up: %+v", stats)
	}
	if r.nests() {
		return
	}
	held := stats.Queued + stats.Running + stats.Undelivered
	depth := r.depth
	if r.features.has(prioritized) {
		depth *= 3
	}
	buffer := r.buffer
	if r.audience == resultFunc {
		buffer = 128 // for dropped tasks that the function has not been told of
	}
	r.failIf(held > depth+buffer+mostWorkers+2*r.callers() || stats.Running > mostWorkers+r.callers() || stats.Workers > 2*mostWorkers,
		"the pool is not bounded: %+v", stats)
}

// retries counts the attempts beyond the first.
func (r *replay) retries() (n uint64) {
	for _, d := range r.deeds {
		n += uint64(max(0, d.attempts-1))
	}
	return n
}

// checkEnd goes through the table when all is over.
func (r *replay) checkEnd() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, outcome := range r.outcomes {
		r.failIf(outcome != r.outcomes[0], "Shutdown and Close do not agree: %v", r.outcomes)
	}
	var cutShort *workpool.ShutdownError
	if err := r.outcomes[0]; err != nil && !errors.As(err, &cutShort) {
		r.t.Errorf("Shutdown returns %v", err)
	}
	for _, d := range r.deeds {
		want := 0
		if d.accepted && r.audience != withoutResults {
			want = 1
		}
		r.failIf(d.answer == toResults && d.answered != want,
			"deed %d (%v) was accepted: %v, and answered %d times", d.id, d.kind, d.accepted, d.answered)
		r.failIf(d.ran > d.attempts || d.answer == toResults && d.ran > 0 && !d.accepted,
			"deed %d was accepted: %v, and ran %d times", d.id, d.accepted, d.ran)
		r.failIf(d.position >= 0 && d.ran > 0 && d.info.Index != uint64(d.position),
			"deed %d is at position %d, and ran as %+v", d.id, d.position, d.info)
		if d.position < 0 && d.ran > 0 {
			if other := r.indexes[d.info.Index]; other != nil && other != d {
				r.t.Errorf("deeds %d and %d have the Index %d", other.id, d.id, d.info.Index)
			}
			r.indexes[d.info.Index] = d
		}
	}
	stats := r.pool.Stats()
	if stats.Submitted != stats.Succeeded+stats.Failed+stats.Aborted || !stats.Closed || stats.Paused ||
		stats.Workers+stats.Queued+stats.Running+stats.Undelivered+stats.Waiting+stats.Held+stats.Parked != 0 {
		r.t.Errorf("Stats at the end: %+v", stats)
	}
	r.failIf(stats.Retried > r.retries() || stats.Retried < r.counts.Retried,
		"Stats at the end: %+v, and there were %d further attempts", stats, r.retries())
	r.failIf(stats.Succeeded != r.counts.Succeeded || stats.Failed != r.counts.Failed || stats.Panicked != r.counts.Panicked,
		"Stats at the end: %+v, and the handlers counted %+v", stats, r.counts)
}
