package jobqueue

import (
	"context"
	"fmt"
	"math"
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
)

// A publisher stores messages in streams, many at a time, and sends a message
// again until the stream has acknowledged it. The library's own publishing gives
// up when the server or its leader goes away.
type publisher struct {
	js jetstream.JetStream

	mu      sync.Mutex // guards pending
	pending map[*nats.Msg]*publication
}

// A publication is a message on its way.
type publication struct {
	ctx   context.Context // how long to try
	msg   *nats.Msg
	waits bool        // for room in the stream
	done  func(error) // called once, by any goroutine; must not block
}

func newPublisher(nc *nats.Conn) (jetstream.JetStream, *publisher, error) {
	p := &publisher{pending: map[*nats.Msg]*publication{}}
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncTimeout(ackPatience),
		jetstream.WithPublishAsyncMaxPending(math.MaxInt32), // whoever publishes has a limit of its own
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, msg *nats.Msg, _ *jetstream.PubAck) {
			if pub := p.take(msg); pub != nil {
				pub.done(nil)
			}
		}),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, msg *nats.Msg, err error) {
			if pub := p.take(msg); pub != nil {
				p.failed(pub, err)
			}
		}),
	)
	p.js = js
	return js, p, err
}

func (p *publisher) take(msg *nats.Msg) *publication {
	p.mu.Lock()
	defer p.mu.Unlock()
	pub := p.pending[msg]
	delete(p.pending, msg)
	return pub
}

// send publishes a message and returns at once.
func (p *publisher) send(pub *publication) {
	p.mu.Lock()
	p.pending[pub.msg] = pub
	p.mu.Unlock()
	if _, err := p.js.PublishMsgAsync(pub.msg); err != nil {
		if p.take(pub.msg) != nil {
			p.failed(pub, err)
		}
	}
}

// failed sends a message again, if that may help.
func (p *publisher) failed(pub *publication, err error) {
	again := isTemporary(err) || pub.waits && isFull(err)
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
