package workpool

import "fmt"

// Invariants returns which of the rules between the parts of a pool does not hold, or nil. They
// hold whenever nobody has the mutex.
func (p *Pool[T, R]) Invariants() error {
	p.lock()
	defer p.unlock()
	for level, l := range p.tasks.levels {
		for j := l.first; j != nil; j = j.next {
			switch {
			case j.state != queued:
				return fmt.Errorf("a task in the channel is in state %d", j.state)
			case j.batch.isIdle():
				return fmt.Errorf("a handler waits for a queued task of level %d and does not run it", level)
			case j.key != nil && j.key.turn != j:
				return fmt.Errorf("a queued task of key %v has not its turn", j.key.key)
			}
		}
	}
	for _, k := range p.keys.queue {
		if err := k.invariants(p); err != nil {
			return fmt.Errorf("key %v: %w", k.key, err)
		}
	}
	return p.countInvariantsLocked()
}

func (k *keyQueue[T, R]) invariants(p *Pool[T, R]) error {
	switch {
	case k.turn == nil && k.ahead.n+k.behind.n > 0:
		return fmt.Errorf("%d tasks wait ahead and %d behind, and none has its turn", k.ahead.n, k.behind.n)
	case k.head == nil && k.after.n > 0:
		return fmt.Errorf("%d callers wait in line after nobody", k.after.n)
	case k.turn != nil && k.turn.waits() && k.firstIdle() != nil:
		return fmt.Errorf("a handler waits for a task and does not run it, though no other task runs")
	case k.head == nil:
		return nil
	}
	want := p.line.laneOf(k.head)
	if p.keys.isFull(k) {
		want = noLane
	}
	if k.head.state != inLine || k.head.lane != want {
		return fmt.Errorf("the first in line is in state %d and lane %d instead of %d", k.head.state, k.head.lane, want)
	}
	return nil
}

func (p *Pool[T, R]) countInvariantsLocked() error {
	n, aside := 0, p.untold.own.n+p.parking.n
	for _, l := range p.tasks.levels {
		n += l.n
	}
	inLine := 0
	for _, waiting := range p.line.lists {
		inLine += waiting.n
	}
	for _, k := range p.keys.queue {
		aside += k.ahead.n + k.behind.n + k.reserved.n
		inLine += k.after.n
		if k.head != nil && p.keys.isFull(k) {
			inLine++
		}
	}
	switch counted := p.tasks.queued() - p.tasks.n; {
	case n != p.tasks.n:
		return fmt.Errorf("%d tasks in the channel, %d counted", n, p.tasks.n)
	case counted != aside:
		return fmt.Errorf("%d tasks aside, %d counted", aside, counted)
	case inLine != p.line.n:
		return fmt.Errorf("%d in line, %d counted", inLine, p.line.n)
	case p.crew.busy < 0 || p.crew.surplus < 0 || p.crew.coming < 0 || p.count.running < 0 || p.crew.within > p.crew.size:
		return fmt.Errorf("wrong counts of workers: %+v, %d running", p.crew, p.count.running)
	}
	return nil
}
