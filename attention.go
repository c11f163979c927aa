package workpool

import "sync/atomic"

// An attention is a flag that has goroutines at work on their runs look after each
// task or result, while somebody waits for what they do and only then.
//
// The one side sets the flag and then looks how far the runs are, the other claims
// and then looks at the flag: so one of them sees the other.
type attention struct {
	flag atomic.Bool
	on   bool // what flag says; guarded by the pool's mutex
}

// setLocked sets the flag, and tells whether somebody has to look at the runs now.
func (a *attention) setLocked(wanted bool) (look bool) {
	if a.on != wanted {
		a.on = wanted
		a.flag.Store(wanted)
		return wanted
	}
	return false
}

// watchLocked sets the flags. It is called when somebody begins or ceases to wait
// and when a run begins.
func (p *Pool[T, R]) watchLocked() {
	p.watchFeedersLocked()
	if p.ofWorkers.setLocked(p.wantsWorkersLocked()) {
		p.settleLocked()
		if p.waiting.n > 0 {
			p.grantLocked()
		}
		p.ofWorkers.setLocked(p.wantsWorkersLocked())
	}
	if p.ofReceivers.setLocked(p.wantsReceiversLocked()) {
		p.settleReceiversLocked()
		p.offerRoomLocked()
		p.ofReceivers.setLocked(p.wantsReceiversLocked())
	}
}

// wantsWorkersLocked tells whether somebody who has not been woken waits for what
// workers do: for room, or for a result.
func (p *Pool[T, R]) wantsWorkersLocked() bool {
	return p.runs.accepted > 0 && (p.waiting.n > 0 || p.awaited > 0 || p.collector.wantsLocked())
}

// wantsReceiversLocked tells whether somebody who has not been woken waits for what
// receivers do: a worker for room, or another receiver.
func (p *Pool[T, R]) wantsReceiversLocked() bool {
	return p.receivers.rest > 0 && (p.room.wantsLocked() || p.collector.wantsLocked())
}
