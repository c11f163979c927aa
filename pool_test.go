package workpool_test

import (
	"bytes"
	"context"
	"maps"
	"math"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/seed-a18b2dc9/workpool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNew_RefusesBadOptions(t *testing.T) {
	with := func(opts ...workpool.Option) []workpool.Option { return opts }
	intResult := workpool.WithResultFunc(func(workpool.Result[int, int]) {})
	byKey := workpool.WithKey(func(int) int { return 1 })
	for _, c := range []struct {
		opts []workpool.Option
		says []string
	}{
		{with(workpool.WithWorkers(0)), []string{"WithWorkers(0)"}},
		{with(workpool.WithWorkers(-3)), []string{"WithWorkers(-3)"}},
		{with(workpool.WithWorkers(math.MinInt)), []string{"WithWorkers(-"}},
		{with(workpool.WithWorkers(math.MaxInt32)), []string{"WithWorkers(2147483647)"}},
		{with(workpool.WithQueueDepth(-1)), []string{"WithQueueDepth(-1)"}},
		{with(workpool.WithResultBuffer(-1)), []string{"WithResultBuffer(-1)"}},
		{with(workpool.WithShutdown(7, 0)), []string{"WithShutdown", "7"}},
		{with(workpool.WithShutdown(-1, 0)), []string{"WithShutdown", "-1"}},
		{with(workpool.WithShutdown(workpool.Drain, -time.Second)), []string{"WithShutdown(Drain, -1s)"}},
		{with(workpool.WithContext(nil)), []string{"WithContext(nil)"}}, //nolint:staticcheck // a nil context is the point
		{with(workpool.WithResultFunc[int, int](nil)), []string{"WithResultFunc(nil)"}},
		{
			with(workpool.WithResultFunc(func(workpool.Result[string, bool]) {})),
			[]string{"WithResultFunc", "Result[string,bool]", "Result[int,int]"},
		},
		{with(workpool.WithName("x"), nil), []string{"option 2 of 2 is nil"}},
		{with(workpool.WithoutResults(), intResult), []string{"WithoutResults", "WithResultFunc"}},
		{with(workpool.WithResultBuffer(3), workpool.WithoutResults()), []string{"WithoutResults", "WithResultBuffer(3)"}},
		{with(intResult, workpool.WithResultBuffer(3)), []string{"WithResultFunc", "WithResultBuffer(3)"}},
		{with(workpool.WithOrdered(), workpool.WithoutResults()), []string{"WithOrdered", "WithoutResults"}},
		{with(intResult, workpool.WithOrdered()), []string{"WithOrdered", "WithResultFunc"}},
		{with(workpool.WithKey[int, int](nil)), []string{"WithKey(nil)"}},
		{with(workpool.WithKey(func(string) bool { return true })), []string{"WithKey(func(string) bool)", "func(int) K"}},
		{with(byKey, workpool.WithKeyDepth(0)), []string{"WithKeyDepth(0)"}},
		{with(byKey, workpool.WithKeyDepth(-1)), []string{"WithKeyDepth(-1)"}},
		{with(workpool.WithKeyDepth(3)), []string{"WithKeyDepth(3)", "WithKey"}},
		{with(workpool.WithPriority[int](nil)), []string{"WithPriority(nil)"}},
		{
			with(workpool.WithPriority(func(string) workpool.Priority { return workpool.High })),
			[]string{"WithPriority(func(string) workpool.Priority)", "func(int) workpool.Priority"},
		},
		{with(workpool.WithElastic(-1, time.Second)), []string{"WithElastic(-1, 1s)"}},
		{with(workpool.WithElastic(1, 0)), []string{"WithElastic(1, 0s)"}},
		{with(workpool.WithElastic(5, time.Second), workpool.WithWorkers(4)), []string{"WithElastic(5, 1s)", "WithWorkers(4)"}},
		{with(workpool.WithOverflow(9)), []string{"WithOverflow(Overflow(9))"}},
	} {
		t.Run(strings.Join(c.says, " "), func(t *testing.T) {
			p, err := workpool.New(identity, c.opts...)
			require.ErrorIs(t, err, workpool.ErrInvalidOption)
			assert.Nil(t, p)
			for _, text := range c.says {
				assert.ErrorContains(t, err, text)
			}
		})
	}
	fails(t, workpool.ErrInvalidOption)(workpool.New[int, int](nil))
}

func TestNew_Defaults(t *testing.T) {
	p := mustNew(t, identity)
	procs := runtime.GOMAXPROCS(0)
	assert.Equal(t, workpool.Stats{Size: procs, Workers: procs, QueueDepth: 128, ResultBuffer: 128}, p.Stats())
	p.Pause()
	accepted := 0
	for p.TrySubmit(t.Context(), accepted) == nil {
		accepted++
	}
	assert.Equal(t, 128, accepted, "the queue depth")
	closed(t, p)
	assert.Len(t, collect(p), 128)
}

func TestNew_DeepestQueueAndBuffer(t *testing.T) {
	p := mustNew(t, identity, workpool.WithQueueDepth(math.MaxInt), workpool.WithResultBuffer(math.MaxInt))
	for n := range 10_000 {
		require.NoError(t, p.TrySubmit(t.Context(), n))
	}
	assert.Len(t, slices.Collect(p.Stream(t.Context(), count(10))), 10)
	closed(t, p)
	assert.Len(t, collect(p), 10_000)
}

func TestPool_NilContext(t *testing.T) {
	p := mustNew(t, identity)
	var none context.Context
	_, allErr := p.SubmitAll(none, count(1))
	_, cancelErr := p.SubmitCancel(none, 1)
	errs := []error{p.Submit(none, 1), p.TrySubmit(none, 1), p.Wait(none), p.Shutdown(none), allErr, cancelErr}
	for _, run := range ways[int, int]() {
		_, err := run(none, p, 1)
		errs = append(errs, err)
	}
	for _, err := range errs {
		require.ErrorContains(t, err, "nil context")
	}
	closed(t, p)
	assert.Empty(t, collect(p))
}

// The runtime lists every package that does something at import. This runs
// the test binary once more, without any test, to read the list.
func TestRule9_ImportStartsNothing(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("what counts the coverage starts with the package")
	}
	command := exec.Command(os.Args[0], "-test.run=^$")
	command.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	trace, err := command.CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(trace), "init testing @", "the list is there")
	assert.NotContains(t, string(trace), "init github.com/seed-a18b2dc9/workpool @")
}

// Whatever a pool does takes no time of the clock, so that a program under
// test can run in a bubble. Only Close's timeout, and a Stream whose input is
// blocked, look at it.
func TestRule10_APoolLivesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := newClosures(t, workpool.WithWorkers(2), workpool.WithQueueDepth(2), workpool.WithShutdown(workpool.Drain, time.Minute))
		require.NoError(t, p.Submit(t.Context(), returning(1, nil)))
		require.NoError(t, p.TrySubmit(t.Context(), catchFire))
		require.NoError(t, p.Wait(t.Context()))
		receive(t, p)
		receive(t, p)
		gives(t, 2)(p.Do(t.Context(), returning(2, nil)))
		fails(t, workpool.ErrGoexit)(p.Map(t.Context(), []closure{returning(1, nil), exit, returning(3, nil)}))
		for range p.Stream(t.Context(), slices.Values([]closure{returning(1, nil), returning(2, nil), returning(3, nil)})) {
			break
		}
		p.Pause()
		queued := p.DoChan(t.Context(), returning(3, nil))
		p.Resume()
		assert.Equal(t, 3, (<-queued).Value)
		require.NoError(t, p.Resize(5))
		require.NoError(t, p.Resize(1))
		require.NoError(t, p.Shutdown(t.Context()))
		closed(t, p)
		assert.Zero(t, time.Since(begin))
	})
}

// Every method of a zero Pool returns, as that of a closed one does.
func TestPool_TheZeroOneBehavesAsAClosedOne(t *testing.T) {
	within(t, func() {
		var p closures
		task := returning(1, nil)
		for _, ctx := range []context.Context{context.Background(), t.Context()} {
			assert.ErrorIs(t, p.Submit(ctx, task), workpool.ErrClosed)
			assert.ErrorIs(t, p.TrySubmit(ctx, task), workpool.ErrClosed)
			accepted, err := p.SubmitAll(ctx, slices.Values([]closure{task}))
			assert.ErrorIs(t, err, workpool.ErrClosed)
			assert.Zero(t, accepted)
			cancel, err := p.SubmitCancel(ctx, task)
			assert.ErrorIs(t, err, workpool.ErrClosed)
			cancel()
			for _, run := range ways[closure, int]() {
				fails(t, workpool.ErrClosed)(run(ctx, &p, task))
			}
			fails(t, workpool.ErrClosed)(p.Map(ctx, nil))
			for _, tasks := range [][]closure{nil, {task}} {
				results := slices.Collect(p.Stream(ctx, slices.Values(tasks)))
				require.NotEmpty(t, results)
				assert.ErrorIs(t, results[len(results)-1].Err, workpool.ErrClosed)
				assert.Zero(t, results[len(results)-1].Attempt)
			}
			fails(t, workpool.ErrClosed)(p.Group(ctx).Wait())
			assert.NoError(t, p.Wait(ctx))
			assert.NoError(t, p.Shutdown(ctx))
		}
		assert.Empty(t, collect(&p))
		assert.ErrorIs(t, p.Resize(3), workpool.ErrClosed)
		p.Pause()
		p.Resume()
		s := p.Stats()
		assert.True(t, s.Closed)
		assert.False(t, s.Paused)
		assertSum(t, s)
		assert.NoError(t, p.Shutdown(endedContext()))
		assert.NoError(t, p.Close())
		assert.NoError(t, p.Close())
	})
}

// What a zero Pool refuses counts as refused, as with a closed one.
func TestStats_OfTheZeroPool(t *testing.T) {
	var zero closures
	shut := newClosures(t)
	closed(t, shut)
	uses := maps.Clone(callers)
	delete(uses, "Stream")
	uses["TrySubmit"] = func(ctx context.Context, p *closures, task closure) error { return p.TrySubmit(ctx, task) }
	uses["TryDo"] = errorOf(ways[closure, int]()["TryDo"])
	for name, use := range uses {
		for _, p := range []*closures{&zero, shut} {
			was := p.Stats().Refused
			assert.ErrorIs(t, use(context.Background(), p, returning(1, nil)), workpool.ErrClosed, name)
			assert.Equal(t, was+1, p.Stats().Refused, name)
		}
	}
}

// labels returns the goroutines of the process, with their labels.
func labels(t *testing.T) string {
	t.Helper()
	var text bytes.Buffer
	assert.NoError(t, pprof.Lookup("goroutine").WriteTo(&text, 1))
	return text.String()
}

// Workers have a label of their own, whoever started them.
func TestPool_WorkersCarryItsNameAsALabel(t *testing.T) {
	release := make(chan struct{})
	var running sync.WaitGroup
	running.Add(3)
	task := func(ctx context.Context) (int, error) {
		running.Done()
		return until(release)(ctx)
	}
	named := newClosures(t, workpool.WithWorkers(2), workpool.WithName("letters"))
	unnamed := newClosures(t, workpool.WithWorkers(1))
	pprof.Do(t.Context(), pprof.Labels("of", "somebody else"), func(ctx context.Context) {
		require.NoError(t, named.Submit(ctx, task))
		require.NoError(t, named.Submit(ctx, task))
		require.NoError(t, unnamed.Submit(ctx, task))
	})
	running.Wait()
	text := labels(t)
	assert.Contains(t, text, `{"workpool":"letters"}`)
	assert.NotContains(t, text, "somebody else", "this goroutine has its old labels, and the workers never had those")
	close(release)
}

// A worker has its label after a task that panicked or exited its goroutine, too.
func TestPool_WorkersKeepTheirLabel(t *testing.T) {
	p := newClosures(t, workpool.WithWorkers(1), workpool.WithName("letters"))
	for _, task := range []closure{catchFire, exit} {
		_, err := p.Do(t.Context(), task)
		require.Error(t, err)
		gives(t, 0)(p.Do(t.Context(), func(context.Context) (int, error) {
			assert.Contains(t, labels(t), `{"workpool":"letters"}`)
			return 0, nil
		}))
	}
}

func TestStats_Waiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(0), workpool.WithoutResults())
		release := occupy(t, p, 1)
		waiting := 0
		var all sync.WaitGroup
		for _, run := range callers {
			all.Go(func() { assert.NoError(t, run(t.Context(), p, returning(0, nil))) })
			synctest.Wait()
			waiting++
			assert.Equal(t, waiting, p.Stats().Waiting)
		}
		release()
		all.Wait()
		assert.Zero(t, p.Stats().Waiting)
		assert.Zero(t, p.Stats().Refused)
	})
}

// Cancelled are the tasks whose caller gave up before they ran, and Refused those that were
// not accepted.
func TestStats_CancelledAndRefused(t *testing.T) {
	uses := maps.Clone(callers)
	delete(uses, "Submit") // whose context bounds the wait for room alone
	eachNamed(t, uses, func(t *testing.T, way string, run caller) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults())
		release := occupy(t, p, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 2 { // one is queued, the other one in line
			all.Go(func() { assert.Error(t, run(ctx, p, returning(0, nil))) })
			synctest.Wait()
			assert.Equal(t, []int{1, i}, []int{p.Stats().Queued, p.Stats().Waiting})
		}
		cancel()
		all.Wait()
		s := p.Stats()
		assert.Positive(t, s.Cancelled)
		assert.Equal(t, uint64(2), s.Cancelled+s.Refused, "the one in line may have got the room of the other")
		assert.Equal(t, s.Cancelled, s.Aborted)
		assert.Zero(t, s.Queued+s.Waiting)
		assertSum(t, s)
		if way != "Stream" { // which takes no task then
			assert.Error(t, run(ctx, p, returning(0, nil)), "its context has ended")
			s.Refused++
			assert.Equal(t, s, p.Stats())
		}
		release()
		closed(t, p)
		assert.ErrorIs(t, run(t.Context(), p, returning(0, nil)), workpool.ErrClosed)
		assert.Equal(t, []uint64{s.Refused + 1, s.Cancelled}, []uint64{p.Stats().Refused, p.Stats().Cancelled})
	})
}

// What an abort has ended is neither dropped nor cancelled.
func TestStats_AbortedIsNotCancelled(t *testing.T) {
	eachNamed(t, callers, func(t *testing.T, _ string, run caller) {
		p := newClosures(t, workpool.WithWorkers(1), workpool.WithQueueDepth(1), workpool.WithoutResults())
		submit(t, p, untilEnd)
		synctest.Wait()
		var all sync.WaitGroup
		all.Go(func() { _ = run(t.Context(), p, returning(0, nil)) })
		synctest.Wait()
		require.Equal(t, 1, p.Stats().Queued)
		_ = p.Shutdown(endedContext())
		all.Wait()
		s := p.Stats()
		assert.Equal(t, []uint64{1, 0, 0}, []uint64{s.Aborted, s.Dropped, s.Cancelled})
		_ = p.Close()
	})
}

func TestStats_SaysWhatThePoolIsAndWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newClosures(t, workpool.WithName("thumbnails"), workpool.WithWorkers(2), workpool.WithQueueDepth(3), workpool.WithResultBuffer(0))
		want := workpool.Stats{Name: "thumbnails", Size: 2, QueueDepth: 3, Workers: 2}
		is := func() {
			t.Helper()
			assert.Equal(t, want, p.Stats())
		}
		is()
		submit(t, p, parked)
		synctest.Wait()
		want.Submitted, want.Queued, want.Parked = 1, 1, 1
		is()

		for range 4 { // two have results that nobody takes
			submit(t, p, returning(1, nil))
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			go func() { assert.ErrorIs(t, p.Submit(ctx, returning(1, nil)), workpool.ErrQueueFull) }()
		}
		fill(t, p, 0, returning(1, nil))
		synctest.Wait()
		want.Submitted, want.Succeeded, want.Queued, want.Undelivered, want.Held, want.Waiting, want.Refused = 5, 2, 3, 2, 2, 3, 1
		is()
		cancel()
		synctest.Wait()
		want.Waiting, want.Refused = 0, 4
		is()

		p.Pause()
		assert.True(t, p.Stats().Paused)
		p.Resume()
		assert.False(t, p.Stats().Paused)
		p.Pause()
		require.NoError(t, p.Resize(1))
		want.Paused, want.Size = true, 1
		want.Workers = 2 // until the other one is free
		is()

		require.Error(t, p.Shutdown(endedContext()))
		require.Error(t, p.Close())
		p.Pause() // does nothing now
		want = workpool.Stats{
			Name: "thumbnails", Size: 1, QueueDepth: 3, Closed: true, Undelivered: 5, Submitted: 5, Succeeded: 2, Aborted: 3, Refused: 4,
		}
		is()
	})
}
