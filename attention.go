package workpool

// watchLocked sees to it that goroutines at work on their runs look after each
// task while somebody waits for what they do, and only then. It is called when
// somebody begins or ceases to wait and when a run begins.
//
// The one side sets attention and then looks how far the runs are, the other
// claims and then looks for attention: so one of them sees the other.
func (p *Pool[T, R]) watchLocked() {
	p.watchFeedersLocked()
	if !p.watched && p.wantsLocked() {
		p.watched = true
		p.attention.Store(true)
		p.settleLocked()
		p.settleReceiversLocked()
		p.wakeLocked()
	}
	if p.watched && !p.wantsLocked() {
		p.watched = false
		p.attention.Store(false)
	}
}

// wantsLocked tells whether somebody waits who has not been woken.
func (p *Pool[T, R]) wantsLocked() bool {
	if p.runs.accepted == 0 && p.receivers.rest == 0 {
		return false
	}
	return p.waiting.n > 0 || p.awaited > 0 || p.collector.wantsLocked() || p.room.wantsLocked()
}

// wakeLocked wakes those whom what runs have come to lets go on. Whoever waits for
// a result has been woken when it was handed in.
func (p *Pool[T, R]) wakeLocked() {
	if p.waiting.n > 0 {
		p.grantLocked()
	}
	p.offerRoomLocked()
}
