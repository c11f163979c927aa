package workpool

import "sync/atomic"

// progress is how far the owner of a run or a share has come: how many items it
// has claimed, and in the lower half how many there are. A claim beyond these
// means that the owner found none.
//
// The owner claims one item after the other, each with one atomic operation,
// which also says that it is done with the one before. Whoever holds the pool's
// mutex sees from it how far the owner has come, and can take back items that
// are not claimed.
//
// The claims are those of the deque in "Dynamic Circular Work-Stealing Deque" by
// Chase and Lev, SPAA 2005; the mutex makes the other side simpler.
type progress struct{ state atomic.Uint64 }

// begin sets the number of items, the first of which is claimed.
func (p *progress) begin(n int) { p.state.Store(1<<32 | uint64(n)) }

// open sets the number of items, none of which is claimed.
func (p *progress) open(n int) { p.state.Store(uint64(n)) }

// claim claims the next item, if there is one left.
func (p *progress) claim() (item int, ok bool) {
	state := p.state.Add(1 << 32)
	claimed := state >> 32
	return int(claimed) - 1, claimed <= uint64(uint32(state))
}

// claimed returns how many items are claimed, and how many there are.
func (p *progress) claimed() (claimed, n int) {
	state := p.state.Load()
	n = int(uint32(state))
	return min(int(state>>32), n), n
}

// takeBack takes away the last items, as many as are not claimed and no more than
// limit.
func (p *progress) takeBack(limit int) (first, end int) {
	for {
		state := p.state.Load()
		claimed, n := state>>32, uint64(uint32(state))
		if claimed >= n || limit < 1 {
			return 0, 0
		}
		left := max(claimed, n-min(n, uint64(limit)))
		if p.state.CompareAndSwap(state, claimed<<32|left) {
			return int(left), int(n)
		}
	}
}
