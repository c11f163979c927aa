package workpool_test

import (
	"context"
	"errors"
	"math"
	"runtime"
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
	intResult := func(workpool.Result[int, int]) {}
	for _, c := range []struct {
		name string
		opts []workpool.Option
		says []string
	}{
		{"no workers", []workpool.Option{workpool.WithWorkers(0)}, []string{"WithWorkers(0)"}},
		{"negative workers", []workpool.Option{workpool.WithWorkers(-3)}, []string{"WithWorkers(-3)"}},
		{"fewest workers", []workpool.Option{workpool.WithWorkers(math.MinInt)}, []string{"WithWorkers(-"}},
		{"most workers", []workpool.Option{workpool.WithWorkers(math.MaxInt)}, []string{"WithWorkers(9"}},
		{"queue depth", []workpool.Option{workpool.WithQueueDepth(-1)}, []string{"WithQueueDepth(-1)"}},
		{"result buffer", []workpool.Option{workpool.WithResultBuffer(-1)}, []string{"WithResultBuffer(-1)"}},
		{"mode", []workpool.Option{workpool.WithShutdown(7, 0)}, []string{"WithShutdown", "7"}},
		{"negative mode", []workpool.Option{workpool.WithShutdown(-1, 0)}, []string{"WithShutdown", "-1"}},
		{"timeout", []workpool.Option{workpool.WithShutdown(workpool.Drain, -time.Second)}, []string{"WithShutdown(Drain, -1s)"}},
		{"context", []workpool.Option{workpool.WithContext(nil)}, []string{"WithContext(nil)"}}, //nolint:staticcheck // a nil context is the point
		{"nil function", []workpool.Option{workpool.WithResultFunc[int, int](nil)}, []string{"WithResultFunc(nil)"}},
		{
			"function of other types",
			[]workpool.Option{workpool.WithResultFunc(func(workpool.Result[string, bool]) {})},
			[]string{"WithResultFunc", "Result[string,bool]", "Result[int,int]"},
		},
		{"nil option", []workpool.Option{workpool.WithName("x"), nil}, []string{"option 2 of 2 is nil"}},
		{
			"function without results",
			[]workpool.Option{workpool.WithoutResults(), workpool.WithResultFunc(intResult)},
			[]string{"WithoutResults", "WithResultFunc"},
		},
		{
			"buffer without results",
			[]workpool.Option{workpool.WithResultBuffer(3), workpool.WithoutResults()},
			[]string{"WithoutResults", "WithResultBuffer(3)"},
		},
		{
			"buffer and function",
			[]workpool.Option{workpool.WithResultFunc(intResult), workpool.WithResultBuffer(3)},
			[]string{"WithResultFunc", "WithResultBuffer(3)"},
		},
		{
			"order without results",
			[]workpool.Option{workpool.WithOrdered(), workpool.WithoutResults()},
			[]string{"WithOrdered", "WithoutResults"},
		},
		{
			"order and function",
			[]workpool.Option{workpool.WithResultFunc(intResult), workpool.WithOrdered()},
			[]string{"WithOrdered", "WithResultFunc"},
		},
		{"nil key", []workpool.Option{workpool.WithKey[int, int](nil)}, []string{"WithKey(nil)"}},
		{
			"key of another type",
			[]workpool.Option{workpool.WithKey(func(string) bool { return true })},
			[]string{"WithKey(func(string) bool)", "func(int) K"},
		},
		{"nil priority", []workpool.Option{workpool.WithPriority[int](nil)}, []string{"WithPriority(nil)"}},
		{
			"priority of another type",
			[]workpool.Option{workpool.WithPriority(func(string) workpool.Priority { return workpool.High })},
			[]string{"WithPriority(func(string) workpool.Priority)", "func(int) workpool.Priority"},
		},
		{"elastic minimum", []workpool.Option{workpool.WithElastic(-1, time.Second)}, []string{"WithElastic(-1, 1s)"}},
		{"elastic time", []workpool.Option{workpool.WithElastic(1, 0)}, []string{"WithElastic(1, 0s)"}},
		{
			"elastic minimum above the workers",
			[]workpool.Option{workpool.WithElastic(5, time.Second), workpool.WithWorkers(4)},
			[]string{"WithElastic(5, 1s)", "WithWorkers(4)"},
		},
		{"overflow", []workpool.Option{workpool.WithOverflow(9)}, []string{"WithOverflow(Overflow(9))"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := workpool.New(identity, c.opts...)
			require.ErrorIs(t, err, workpool.ErrInvalidOption)
			assert.Nil(t, p)
			for _, text := range c.says {
				assert.ErrorContains(t, err, text)
			}
		})
	}
	_, err := workpool.New[int, int](nil)
	require.ErrorIs(t, err, workpool.ErrInvalidOption)
}

func TestNew_Defaults(t *testing.T) {
	p := mustNew(t, identity)
	assert.Equal(t, workpool.Stats{Workers: runtime.GOMAXPROCS(0)}, p.Stats())
	p.Pause()
	accepted := 0
	for p.TrySubmit(accepted) == nil {
		accepted++
	}
	assert.Equal(t, 128, accepted, "the queue depth")
	closed(t, p)
	assert.Len(t, collect(p), 128)
}

func TestNew_DeepestQueueAndBuffer(t *testing.T) {
	p := mustNew(t, identity, workpool.WithQueueDepth(math.MaxInt), workpool.WithResultBuffer(math.MaxInt))
	for n := range 10_000 {
		require.NoError(t, p.TrySubmit(n))
	}
	n := 0
	for range p.Stream(t.Context(), count(10)) {
		n++
	}
	assert.Equal(t, 10, n)
	closed(t, p)
	assert.Len(t, collect(p), 10_000)
}

func TestPool_ZeroIsClosed(t *testing.T) {
	var p workpool.Pool[int, int]
	ctx := t.Context()
	require.ErrorIs(t, p.Submit(ctx, 1), workpool.ErrClosed)
	require.ErrorIs(t, p.TrySubmit(1), workpool.ErrClosed)
	require.ErrorIs(t, p.Resize(3), workpool.ErrClosed)
	assert.Empty(t, collect(&p))
	p.Pause()
	p.Resume()
	require.NoError(t, p.Wait(ctx))
	require.NoError(t, p.Shutdown(ctx))
	require.NoError(t, p.Close())
}

func TestPool_NilContext(t *testing.T) {
	p := mustNew(t, identity)
	var none context.Context
	_, doErr := p.Do(none, 1)
	_, mapErr := p.Map(none, []int{1})
	_, allErr := p.SubmitAll(none, count(1))
	var streamErr error
	for r := range p.Stream(none, count(1)) {
		streamErr = r.Err
	}
	for _, err := range []error{
		p.Submit(none, 1), p.Wait(none), p.Shutdown(none), doErr, mapErr, allErr, streamErr, (<-p.DoChan(none, 1)).Err,
	} {
		require.ErrorContains(t, err, "nil context")
	}
	closed(t, p)
	assert.Empty(t, collect(p))
}

func TestResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		p := mustNew(t, g.handle, workpool.WithWorkers(4), workpool.WithoutResults())
		for n := range 12 {
			require.NoError(t, p.Submit(t.Context(), n))
		}
		for range 4 {
			<-g.began
		}
		require.NoError(t, p.Resize(2))
		assert.Equal(t, 4, p.Stats().Workers, "the surplus ones still work")
		for range 4 {
			g.end <- 0
		}
		for range 2 {
			<-g.began
		}
		synctest.Wait()
		assert.Equal(t, 2, p.Stats().Workers)
		assert.Equal(t, 2, p.Stats().Running)
		require.NoError(t, p.Resize(6))
		for range 4 {
			<-g.began
		}
		assert.Equal(t, 6, p.Stats().Running)
		for _, n := range []int{0, -1, math.MaxInt} {
			require.ErrorIs(t, p.Resize(n), workpool.ErrInvalidOption)
		}
		go func() {
			for range g.began { //revive:disable-line:empty-block // the others may begin too
			}
		}()
		close(g.end)
		closed(t, p)
		close(g.began)
		require.ErrorIs(t, p.Resize(1), workpool.ErrClosed)
		assert.Equal(t, uint64(12), p.Stats().Succeeded)
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, identity, workpool.WithWorkers(2), workpool.WithQueueDepth(3))
		p.Pause()
		for n := range 3 {
			require.NoError(t, p.TrySubmit(n))
		}
		require.ErrorIs(t, p.TrySubmit(3), workpool.ErrQueueFull)
		synctest.Wait()
		assert.Equal(t, 3, p.Stats().Queued)
		p.Resume()
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, 3, p.Stats().Undelivered)

		p.Pause()
		require.NoError(t, p.Resize(1), "while paused")
		require.NoError(t, p.TrySubmit(4))
		closed(t, p) // ends the pause
		assert.Len(t, collect(p), 4)
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, func(context.Context, int) (int, error) {
			time.Sleep(time.Second)
			return 0, nil
		}, workpool.WithWorkers(1))
		require.NoError(t, p.Wait(t.Context()), "nothing was submitted")
		for n := range 3 {
			require.NoError(t, p.Submit(t.Context(), n))
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 1500*time.Millisecond, errors.New("impatient"))
		defer cancel()
		err := p.Wait(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "impatient")
		require.ErrorContains(t, err, "1 tasks queued, 1 running")
		start := time.Now()
		require.NoError(t, p.Wait(t.Context()))
		assert.Equal(t, 1500*time.Millisecond, time.Since(start))
		require.NoError(t, p.Submit(t.Context(), 4), "the pool is still open")
		closed(t, p)
	})
}
