package jobqueue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// ackPatience is how long an acknowledgement may take, from when the server has
	// read the message, before the message is sent again: twice as long after the
	// first time, since a server may be slow.
	ackPatience = 2 * time.Second
	// resendPause is the time before a message that could not be stored is sent
	// again. It doubles with each time, up to longestPause, but not while the stream
	// is full: then many may wait, and each place is to be taken soon.
	resendPause  = 50 * time.Millisecond
	longestPause = time.Second
	// lookPause is the time between two looks for what is overdue.
	lookPause = 250 * time.Millisecond
	// lastAnswers is how long the answer to a message is waited for whose context has
	// ended.
	lastAnswers = time.Second
	// probePatience is how long the server may take to read what was written.
	probePatience = time.Minute
)

// A publisher stores messages in streams, many at a time, and sends a message
// again until the stream has acknowledged it. The library's own publishing gives
// up when the server or its leader goes away, and has a timer for each message.
//
// What is on its way, in a buffer of the connection or on a slow link, is not lost,
// so time counts only from when the server has read the message. A message keeps its
// number when it is sent again: an acknowledgement is never too late.
//
// While the connection can take nothing, every call of its methods blocks. So they
// are called by goroutines of the publisher alone, which run while they are needed.
type publisher struct {
	nc      *nats.Conn
	lookout *lookout
	inbox   string // what answers come to, with a number at the end

	maxPayload atomic.Int64 // of the server, when it was last looked at

	mu       sync.Mutex // guards what follows
	pending  map[uint64]*publication
	last     uint64         // number given
	queue    []*publication // to be written
	writing  bool           // by a goroutine
	looking  bool           // for what is overdue, while something is pending
	probing  bool           // whether the server has read what was written
	connects uint64         // reconnects seen
}

// A publication is a message on its way.
type publication struct {
	ctx     context.Context // how long to try
	msg     *nats.Msg
	job     bool        // it is for the stream of the jobs, and fails when that was deleted
	wait    bool        // for room in the stream
	refused func(error) // called, if it is not nil, each time before the message is sent again; must not block
	done    func(error) // called once, by any goroutine; must not block

	// Guarded by the publisher:
	number uint64
	queued bool      // to be written, now or after a pause
	sends  int       // how often it was written
	late   int       // how often it had no answer in time
	wrote  time.Time // zero until the connection has taken it
	read   time.Time // when the server was known to have read it; zero until then
	last   error     // why it is sent again
}

func newPublisher(nc *nats.Conn, lookout *lookout) (*publisher, error) {
	p := &publisher{nc: nc, lookout: lookout, inbox: nc.NewInbox() + ".", pending: map[uint64]*publication{}, connects: nc.Stats().Reconnects}
	p.maxPayload.Store(nc.MaxPayload())
	sub, err := nc.Subscribe(p.inbox+"*", p.answered)
	if err != nil {
		return nil, err
	}
	return p, sub.SetPendingLimits(-1, -1) // whoever publishes has a limit of its own
}

// send publishes a message and returns at once.
func (p *publisher) send(pub *publication) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	pub.number = p.last
	p.pending[pub.number] = pub
	p.queueLocked(pub)
	if !p.looking {
		p.looking = true
		time.AfterFunc(lookPause, p.look)
	}
}

// queueLocked has a message written.
func (p *publisher) queueLocked(pub *publication) {
	pub.queued = true
	p.queue = append(p.queue, pub)
	if !p.writing {
		p.writing = true
		go p.write()
	}
}

// write writes what is queued.
func (p *publisher) write() {
	for pub := p.next(); pub != nil; pub = p.next() {
		err := p.publish(pub)
		if err != nil {
			p.failed(pub.number, err)
			continue
		}
		p.mu.Lock()
		pub.wrote = time.Now()
		p.mu.Unlock()
	}
}

// next returns what is to be written next, or nil at the end.
func (p *publisher) next() *publication {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 {
		pub := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		if p.pending[pub.number] == pub {
			pub.queued, pub.wrote, pub.read = false, time.Time{}, time.Time{}
			pub.sends++
			return pub
		}
	}
	p.queue, p.writing = nil, false
	return nil
}

func (p *publisher) publish(pub *publication) error {
	return p.nc.PublishMsg(&nats.Msg{
		Subject: pub.msg.Subject,
		Reply:   p.inbox + strconv.FormatUint(pub.number, 36),
		Header:  pub.msg.Header,
		Data:    pub.msg.Data,
	})
}

func (p *publisher) take(number uint64) *publication {
	p.mu.Lock()
	defer p.mu.Unlock()
	pub := p.pending[number]
	delete(p.pending, number)
	return pub
}

// answered takes what a stream says of a message.
func (p *publisher) answered(answer *nats.Msg) {
	number, err := strconv.ParseUint(answer.Subject[len(p.inbox):], 36, 64)
	if err != nil {
		return
	}
	if err := answerError(answer); err != nil {
		p.failed(number, err)
		return
	}
	if pub := p.take(number); pub != nil { // else this is the answer to a message that was sent twice
		pub.done(nil)
	}
}

var errNoAnswer = errors.New("what the server answered is no acknowledgement of a stream")

func answerError(answer *nats.Msg) error {
	if len(answer.Data) == 0 {
		return nats.ErrNoResponders
	}
	// As a server writes it. That spares the decoding where all is well.
	if bytes.HasPrefix(answer.Data, []byte(`{"stream":"`)) && !bytes.Contains(answer.Data, []byte(`"error"`)) {
		return nil
	}
	var ack struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if ack.Error != nil {
		return ack.Error
	}
	if ack.Stream == "" {
		return errNoAnswer
	}
	return nil
}

// look sends again what has had no answer for too long. It goes on while anything is
// pending.
func (p *publisher) look() {
	now := time.Now()
	deleted := p.lookout.deleted()
	var ended, refused []*publication
	p.mu.Lock()
	for number, pub := range p.pending {
		switch {
		case pub.ctx.Err() != nil:
			if pub.sends > 0 && (pub.queued || now.Sub(pub.wrote) > lastAnswers) {
				delete(p.pending, number)
				ended = append(ended, pub)
			}
		case deleted != nil && pub.job && errors.Is(pub.last, nats.ErrNoResponders):
			delete(p.pending, number)
			refused = append(refused, pub)
		case !pub.queued && !pub.read.IsZero() && now.Sub(pub.read) > ackPatience<<min(pub.late, 1):
			pub.last = nats.ErrTimeout
			pub.late++
			p.queueLocked(pub)
		}
	}
	if p.looking = len(p.pending) > 0; p.looking {
		time.AfterFunc(lookPause, p.look)
		if !p.probing {
			p.probing = true
			go p.probe()
		}
	}
	p.mu.Unlock()
	for _, pub := range ended {
		pub.done(pub.endError())
	}
	for _, pub := range refused {
		pub.done(deleted)
	}
}

// probe finds out whether the server has read what was written, and has written again
// what went to a connection that was lost.
func (p *publisher) probe() {
	begin := time.Now()
	connects, closed := p.nc.Stats().Reconnects, p.nc.IsClosed()
	p.maxPayload.Store(p.nc.MaxPayload())
	p.mu.Lock()
	reconnected := connects != p.connects
	p.connects = connects
	p.mu.Unlock()
	answered := !closed && !reconnected && p.nc.IsConnected() && p.nc.FlushTimeout(probePatience) == nil
	now := time.Now()
	var lost []*publication
	p.mu.Lock()
	p.probing = false
	for number, pub := range p.pending {
		switch {
		case closed:
			delete(p.pending, number)
			lost = append(lost, pub)
		case pub.queued || pub.wrote.IsZero():
		case reconnected:
			pub.last = nats.ErrDisconnected
			p.queueLocked(pub)
		case answered && pub.read.IsZero() && pub.wrote.Before(begin):
			pub.read = now
		}
	}
	p.mu.Unlock()
	for _, pub := range lost {
		pub.done(nats.ErrConnectionClosed)
	}
}

// failed sends a message again, if that may help.
func (p *publisher) failed(number uint64, err error) {
	p.mu.Lock()
	pub := p.pending[number]
	if pub == nil {
		p.mu.Unlock()
		return
	}
	full := isFull(err)
	if again := isTemporary(err) || pub.wait && full; !again || pub.ctx.Err() != nil {
		delete(p.pending, number)
		p.mu.Unlock()
		pub.done(err)
		return
	}
	pub.last = err
	if !pub.queued { // else an earlier answer has done so
		pub.queued = true
		pause := resendPause
		if !full {
			pause = min(resendPause<<min(pub.sends, 5), longestPause)
		}
		time.AfterFunc(pause, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.pending[number] == pub {
				p.queueLocked(pub)
			}
		})
	}
	p.mu.Unlock()
	if pub.refused != nil {
		pub.refused(err)
	}
}

// endError says why a message was not stored whose context has ended. It is for one
// that is not pending any more.
func (pub *publication) endError() error {
	if pub.last == nil {
		return contextError(pub.ctx)
	}
	return fmt.Errorf("%w: %w", contextError(pub.ctx), pub.last)
}

// await sends a message, sets its done, and waits until it is stored, or its context ends.
func (p *publisher) await(pub *publication) error {
	answer := make(chan error, 1)
	pub.done = func(err error) { answer <- err }
	p.send(pub)
	select {
	case err := <-answer:
		if err != nil && pub.ctx.Err() != nil && !errors.Is(err, pub.ctx.Err()) {
			return fmt.Errorf("%w: %w", contextError(pub.ctx), err)
		}
		return err
	case <-pub.ctx.Done():
		if p.take(pub.number) == nil {
			return <-answer // which has come meanwhile
		}
		return pub.endError()
	}
}
