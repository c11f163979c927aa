package workpool

// WithOrdered makes [Pool.Results] yield results in the order in which the tasks
// were accepted, and [Pool.Stream] in the order of its input. A result that is
// ready early waits for those before it. The pool holds no more tasks than without
// the option: Submit waits when queue depth + result buffer + workers tasks are
// accepted and not received.
//
// A slow task holds up all results behind it; the tasks themselves run on until
// there is no more room. WithOrdered conflicts with [WithoutResults] and
// [WithResultFunc].
func WithOrdered() Option {
	return setting(func(c *config) { c.ordered = true })
}

// An order is a reorder buffer: jobs end in any order and leave it in the order in which
// they were added.
type order[T, R any] struct {
	slots    []*job[T, R] // in order, from first on
	first    int
	finished int // how many of them have ended
}

func (o *order[T, R]) n() int { return len(o.slots) - o.first }

// push adds the next job.
func (o *order[T, R]) push(j *job[T, R]) {
	if o.first > len(o.slots)/2 {
		n := copy(o.slots, o.slots[o.first:])
		clear(o.slots[n:])
		o.slots, o.first = o.slots[:n], 0
	}
	o.slots = append(o.slots, j)
}

// finish marks j as ended, and moves to out all those whose turn has come.
func (o *order[T, R]) finish(j *job[T, R], out *list[T, R]) {
	j.state = finished
	o.finished++
	for o.n() > 0 && o.slots[o.first].state == finished {
		next := o.slots[o.first]
		next.state = outside
		o.slots[o.first] = nil
		o.first++
		o.finished--
		out.push(next)
	}
	if o.n() == 0 { // after a burst, let its memory go
		o.first = 0
		if o.slots = o.slots[:0]; cap(o.slots) > 1<<10 {
			o.slots = nil
		}
	}
}
