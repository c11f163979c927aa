package workpool

import "context"

// A batch is the tasks of one Map or Stream on their way through the pool.
type batch[T, R any] struct {
	pool   *Pool[T, R]
	self   batchOwner[T, R] // what embeds the batch
	ctx    *batchContext
	inside *worker[T, R]
	cancel context.CancelCauseFunc
	unlink func() bool   // from the abort of the pool
	signal chan struct{} // capacity 1; sent when the one who waits for answers should look again

	// Guarded by the pool's mutex:
	pending int           // accepted and not ended
	window  *window[T, R] // of the Stream of an ordered pool
}

// A batchOwner is what embeds a batch.
type batchOwner[T, R any] interface {
	answerer[T, R]
	blockOwner[T, R]
}

func (b *batch[T, R]) begin(ctx context.Context, p *Pool[T, R], self batchOwner[T, R]) {
	b.pool, b.self, b.inside = p, self, p.inside(ctx)
	b.signal = make(chan struct{}, 1)
	ctx, b.cancel = context.WithCancelCause(ctx)
	b.ctx = &batchContext{ctx}
	b.unlink = context.AfterFunc(p.abortContext, func() { b.cancel(context.Cause(p.abortContext)) })
}

func (b *batch[T, R]) end() {
	b.unlink()
	b.cancel(nil)
}

// submit gets one task accepted, and waits for its end if it had to run in
// place of the calling one. It calls entered, unless that is nil, under the mutex
// when the task has been accepted or not.
func (b *batch[T, R]) submit(position uint64, task T, entered func(err error)) error {
	if b.ctx.Err() != nil {
		return contextError(b.ctx)
	}
	p := b.pool
	class, err := p.classify(task)
	if err != nil {
		return err
	}
	p.mu.Lock()
	j := p.newJobLocked()
	j.ctx, j.task, j.to, j.bound = b.ctx, task, b.self, true
	j.index, j.positioned = position, true
	p.joinLocked(j, class)
	b.pending++
	ended, err := p.enterLocked(b.ctx, b.inside, j)
	switch {
	case err != nil:
		b.pending--
	case b.window != nil:
		b.window.push(j)
	}
	if entered != nil {
		entered(err)
	}
	p.mu.Unlock()
	if ended != nil {
		<-ended
	}
	if err == nil && b.ctx.Err() != nil {
		b.takeBack() // the one who did so when the context ended was faster
	}
	return err
}

func (b *batch[T, R]) wakeLocked() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// await waits until every task of the batch has ended. When the context ends,
// it takes back those that are queued. Inside a handler it calls help, unless that
// is nil, before it waits.
func (b *batch[T, R]) await(help func()) {
	p := b.pool
	ended := b.ctx.Done()
	if b.ctx.Err() != nil {
		b.takeBack()
		ended = nil
	}
	p.mu.Lock()
	p.awaited++
	p.watchLocked()
	for b.pending > 0 {
		p.mu.Unlock()
		if b.inside != nil && help != nil {
			help()
		}
		select {
		case <-b.signal:
		case <-ended:
			ended = nil
			b.takeBack()
		}
		p.mu.Lock()
	}
	p.awaited--
	p.watchLocked()
	p.mu.Unlock()
}

// takeBack ends the tasks of the batch that no worker has taken.
func (b *batch[T, R]) takeBack() {
	err := contextError(b.ctx)
	p := b.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recallLocked()
	p.recallRoomLocked()
	var own []*job[T, R]
	p.eachQueuedLocked(func(j *job[T, R]) {
		if r, ok := j.to.(*run[T, R]); j.to == b.self || ok && r.owner == b.self {
			own = append(own, j)
		}
	})
	for _, j := range own {
		if j.waits() { // and did not get its turn by the end of another
			p.endQueuedLocked(j, err)
		}
	}
}
