package workpool

import (
	"context"
	"reflect"
)

const (
	// maxBlockLength is how many tasks lie side by side at most, unless it is those
	// of a Map.
	maxBlockLength = 64

	// maxBlockSize is how many bytes a block has at most, if it has more than one
	// place: it is used again only when all that was in it has been taken, so one
	// task that is long may hold on to all of it.
	maxBlockSize = 1 << 14

	// maxSpareBlocks is how many blocks are kept for further tasks. What a deeper
	// queue has needed once is given back.
	maxSpareBlocks = 1 << 10
)

// blockLengthLocked returns how many places blocks have.
func (p *Pool[T, R]) blockLengthLocked() int {
	place := reflect.TypeFor[T]().Size() + reflect.TypeFor[R]().Size() + reflect.TypeFor[error]().Size()
	return min(maxBlockLength, p.capacityLocked(), max(1, int(maxBlockSize/place)))
}

// A block is where tasks and what became of them lie side by side: many are few
// cache lines, and go through the pool with few steps.
type block[T, R any] struct {
	owner  blockOwner[T, R]
	tasks  []T
	values []R
	errs   []error // nil for a Map, which ends with its first

	// Guarded by the pool's mutex:
	taken int          // places of which the result was taken
	spare *block[T, R] // the next of those to use again
}

// A blockOwner is a Map, a Stream, or the collector, which has what was submitted.
type blockOwner[T, R any] interface {
	// answerer returns who gets the answer of a task that has become a job of its
	// own; nil for Results.
	answerer() answerer[T, R]
	// failed is as that of an answerer.
	failed(err error)
	// doneLocked is called when a worker has done the next n tasks of r.
	doneLocked(r *run[T, R], n int)
	// answerRunLocked is called when all of r that has not ended ends with the
	// error of j, which stands for r.
	answerRunLocked(r *run[T, R], j *job[T, R])
}

// A run is a number of tasks that lie side by side in a block, in the order in
// which they were accepted. A job stands for it in the task channel, in hand of a
// worker, and, when they have ended, in the collector channel and in hand of a
// receiver, which go through it one by one and need the mutex once for all of
// them.
//
// Nobody has to wait for that. What the one who has it in hand has not claimed can
// be taken back: an idle worker does, a receiver who finds nothing else, and all
// that is about queued tasks, such as a pause or an abort. What a worker has done
// of its run is ended, as far as the pool is concerned, when somebody looks; those
// who wait for it have the worker look after each task, see watchLocked.
type run[T, R any] struct {
	progress
	*block[T, R]
	worker int32 // whose it is or was; 0 if no worker has run it

	// Guarded by the pool's mutex while nobody has the run in hand:
	first int             // place of its first task in the block
	n     int             // of tasks
	index uint64          // of its first task
	ctx   context.Context // what its tasks came with
	ended context.Context // whose end ends the tasks; nil if none does
	joins bool            // a task that comes with the same ctx may join

	// Guarded by the pool's mutex:
	job *job[T, R]
	inHand
	spare *run[T, R] // the next of those to use again
}

// accepts tells whether the tasks of the block are accepted one by one, each with
// an answer of its own.
func (b *block[T, R]) accepts() bool { return b.errs != nil }

// forget drops a task and its answer, so that the block retains neither.
func (b *block[T, R]) forget(i int) {
	var noTask T
	var noValue R
	b.tasks[i], b.values[i] = noTask, noValue
	if b.errs[i] != nil {
		b.errs[i] = nil
	}
}

// newBlockLocked returns an empty block.
func (p *Pool[T, R]) newBlockLocked(owner blockOwner[T, R]) *block[T, R] {
	b := p.spareBlocks
	if b == nil {
		n := p.blockLengthLocked()
		return &block[T, R]{owner: owner, tasks: make([]T, n), values: make([]R, n), errs: make([]error, n)}
	}
	p.spareBlocks, b.spare = b.spare, nil
	p.spareBlocksN--
	b.owner, b.taken = owner, 0
	return b
}

// takenLocked notes that n results of a block were taken, and keeps it for further
// tasks when these are all.
func (p *Pool[T, R]) takenLocked(b *block[T, R], n int) {
	if b.taken += n; b.taken == len(b.tasks) && p.spareBlocksN < maxSpareBlocks {
		b.owner = nil // a Stream, with all that it holds on to
		b.spare, p.spareBlocks = p.spareBlocks, b
		p.spareBlocksN++
	}
}

// newRunLocked returns a run and the job that stands for it.
func (p *Pool[T, R]) newRunLocked(b *block[T, R], first, n int, index uint64) (*run[T, R], *job[T, R]) {
	r := p.spareRuns
	if r == nil {
		r = new(run[T, R])
	} else {
		p.spareRuns, r.spare = r.spare, nil
		p.spareRunsN--
	}
	j := p.newJobLocked()
	r.block, r.first, r.n, r.index, r.job, r.at = b, first, n, index, j, -1
	j.to, j.isRun = r, true
	j.index, j.positioned, j.attempt = index, true, 1
	return r, j
}

// freeRunLocked keeps a run, for which no job stands any more, for further tasks.
func (p *Pool[T, R]) freeRunLocked(r *run[T, R]) {
	r.block, r.job, r.ctx, r.ended, r.joins, r.worker, r.done = nil, nil, nil, nil, false, 0, 0
	if p.spareRunsN < maxSpares {
		r.spare, p.spareRuns = p.spareRuns, r
		p.spareRunsN++
	}
}

// partLocked returns a run of n tasks of r, and the job that stands for it.
func (p *Pool[T, R]) partLocked(r *run[T, R], from, n int) (*run[T, R], *job[T, R]) {
	part, j := p.newRunLocked(r.block, r.first+from, n, r.index+uint64(from))
	part.ctx, part.ended = r.ctx, r.ended
	j.ctx, j.bound, j.inside = r.job.ctx, r.job.bound, r.job.inside
	return part, j
}

// dissolveLocked returns jobs of their own for the tasks of a queued run.
func (p *Pool[T, R]) dissolveLocked(r *run[T, R]) []*job[T, R] {
	jobs := make([]*job[T, R], r.n)
	for i := range jobs {
		j := p.newJobLocked()
		j.ctx, j.task, j.index, j.attempt = r.job.ctx, r.tasks[r.first+i], r.index+uint64(i), 1
		r.forget(r.first + i)
		jobs[i] = j
	}
	p.takenLocked(r.block, r.n)
	r.job.ctx = nil
	p.freeLocked(r.job)
	p.freeRunLocked(r)
	return jobs
}

// shrinkLocked takes the first n tasks away from a run that nobody has in hand.
func (r *run[T, R]) shrinkLocked(n int) {
	r.first += n
	r.index += uint64(n)
	r.n -= n
	r.job.index = r.index
}

// goesOnWith tells whether the tasks from first on, which worker has ended, are those
// after r.
func (r *run[T, R]) goesOnWith(b *block[T, R], first int, index uint64, worker int32) bool {
	return r.block == b && r.first+r.n == first && r.index+uint64(r.n) == index && r.worker == worker
}

func (r *run[T, R]) failed(err error) { r.owner.failed(err) }

func (r *run[T, R]) answerLocked(j *job[T, R]) { r.owner.answerRunLocked(r, j) }

// countDoneLocked counts the next n tasks of r, which have run.
func (p *Pool[T, R]) countDoneLocked(r *run[T, R], n int) {
	at := r.first + r.done
	failed := 0
	for _, err := range r.errs[at : at+n] {
		if err != nil {
			failed++
		}
	}
	p.failed += uint64(failed)
	p.succeeded += uint64(n - failed)
}

// restLocked ends what has not ended of r with err, unless that is nil. It returns
// how many tasks these are.
func (r *run[T, R]) restLocked(err error) (n int) {
	n = r.n - r.done
	if err != nil {
		for i := range n {
			r.errs[r.first+r.done+i] = err
		}
	}
	return n
}
