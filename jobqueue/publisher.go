package jobqueue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// ackPatience is how long an acknowledgement may take before the message is
	// sent again. The stream knows its ID, so that this costs a message at worst.
	ackPatience = 2 * time.Second
	// resendPause is the time before a message that could not be stored is sent
	// again.
	resendPause = 50 * time.Millisecond
	// lookPause is the time between two looks for what is overdue.
	lookPause = 250 * time.Millisecond
)

// A publisher stores messages in streams, many at a time, and sends a message
// again until the stream has acknowledged it. The library's own publishing gives
// up when the server or its leader goes away, and has a timer for each message.
type publisher struct {
	nc    *nats.Conn
	inbox string // what answers come to, with a number at the end

	mu       sync.Mutex // guards what follows
	pending  map[uint64]*publication
	last     uint64 // number given
	looking  bool   // for what is overdue, while something is pending
	connects uint64 // reconnects seen
}

// A publication is a message on its way.
type publication struct {
	ctx  context.Context // how long to try
	msg  *nats.Msg
	wait bool        // for room in the stream
	done func(error) // called once, by any goroutine; must not block
	sent time.Time   // guarded by the publisher
}

func newPublisher(nc *nats.Conn) (*publisher, error) {
	p := &publisher{nc: nc, inbox: nc.NewInbox() + ".", pending: map[uint64]*publication{}, connects: nc.Stats().Reconnects}
	sub, err := nc.Subscribe(p.inbox+"*", p.answered)
	if err != nil {
		return nil, err
	}
	return p, sub.SetPendingLimits(-1, -1) // whoever publishes has a limit of its own
}

// send publishes a message and returns at once.
func (p *publisher) send(pub *publication) {
	p.mu.Lock()
	p.last++
	number := p.last
	pub.sent = time.Now()
	p.pending[number] = pub
	if !p.looking {
		p.looking = true
		time.AfterFunc(lookPause, p.look)
	}
	p.mu.Unlock()
	// The message may be sent again before PublishMsg returns.
	msg := &nats.Msg{Subject: pub.msg.Subject, Reply: p.inbox + strconv.FormatUint(number, 36), Header: pub.msg.Header, Data: pub.msg.Data}
	if err := p.nc.PublishMsg(msg); err != nil {
		if p.take(number) != nil {
			p.failed(pub, err)
		}
	}
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
	pub := p.take(number)
	if pub == nil {
		return // it has been sent again meanwhile
	}
	if err := answerError(answer); err != nil {
		p.failed(pub, err)
		return
	}
	pub.done(nil)
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

// look sends again what has had no answer for too long, and what was sent to a
// server before the connection to it was lost. It goes on while anything is
// pending.
func (p *publisher) look() {
	connects, closed := p.nc.Stats().Reconnects, p.nc.IsClosed()
	var lost []*publication
	p.mu.Lock()
	for number, pub := range p.pending {
		if closed || connects != p.connects || time.Since(pub.sent) > ackPatience {
			delete(p.pending, number)
			lost = append(lost, pub)
		}
	}
	p.connects = connects
	if p.looking = len(p.pending) > 0; p.looking {
		time.AfterFunc(lookPause, p.look)
	}
	p.mu.Unlock()
	why := nats.ErrTimeout
	if closed {
		why = nats.ErrConnectionClosed
	}
	for _, pub := range lost {
		p.failed(pub, why)
	}
}

// failed sends a message again, if that may help.
func (p *publisher) failed(pub *publication, err error) {
	again := isTemporary(err) || pub.wait && isFull(err)
	if !again || pub.ctx.Err() != nil {
		pub.done(err)
		return
	}
	time.AfterFunc(resendPause, func() {
		if pub.ctx.Err() != nil {
			pub.done(err)
			return
		}
		p.send(pub)
	})
}

// store publishes a message and waits until it is stored.
func (p *publisher) store(ctx context.Context, msg *nats.Msg) error {
	answer := make(chan error, 1)
	p.send(&publication{ctx: ctx, msg: msg, done: func(err error) { answer <- err }})
	select {
	case err := <-answer:
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("%w: %w", contextError(ctx), err)
		}
		return err
	case <-ctx.Done():
		return contextError(ctx)
	}
}
