package jobqueue

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-a18b2dc9/workpool"
)

// The defaults of the options, and the least that the server takes for a time.
const (
	defaultAckWait      = 30 * time.Second
	defaultMaxAttempts  = 25
	defaultBackoffBase  = time.Second
	defaultBackoffLimit = 24 * time.Hour
	defaultDedupeWindow = 2 * time.Minute
	defaultResultAge    = 24 * time.Hour

	shortest    = 100 * time.Millisecond
	maxReplicas = 5
)

// An Option sets one property of a queue. [Open] checks its value and refuses
// options that contradict one another. Where an option is given twice, the last
// one holds.
//
// What is stored with the queue has to be the same wherever it is opened, or
// Open returns [ErrConfigMismatch]: the options that say so below. The others
// are for the process that gives them.
type Option interface {
	apply(c *config) error
}

// config is what the options of one queue add up to.
type config struct {
	replicas     int
	storage      jetstream.StorageType
	ackWait      time.Duration
	maxAttempts  int
	backoff      func(attempt int) time.Duration
	maxQueued    int64
	maxBytes     int64
	dedupeWindow time.Duration
	resultAge    time.Duration
	codecs       []any
	stream       []func(*jetstream.StreamConfig)
	consumer     []func(*jetstream.ConsumerConfig)
	existing     bool
	update       bool

	withoutResults bool
	stored         string // the last option given that is stored with the queue
}

type optionFunc func(c *config) error

func (f optionFunc) apply(c *config) error { return f(c) }

func newConfig(opts []Option) (config, error) {
	c := config{
		replicas:     1,
		storage:      jetstream.FileStorage,
		ackWait:      defaultAckWait,
		maxAttempts:  defaultMaxAttempts,
		backoff:      workpool.ExponentialBackoff(defaultBackoffBase, defaultBackoffLimit),
		dedupeWindow: defaultDedupeWindow,
		resultAge:    defaultResultAge,
	}
	for i, opt := range opts {
		if opt == nil {
			return c, invalid("option %d of %d is nil", i+1, len(opts))
		}
		if err := opt.apply(&c); err != nil {
			return c, err
		}
	}
	if c.existing && c.update {
		return c, invalid("WithExisting and WithUpdate exclude each other: the queue is taken as it is, or changed")
	}
	if c.existing && c.stored != "" {
		return c, invalid("WithExisting and %s exclude each other: the queue is taken as it is", c.stored)
	}
	return c, nil
}

// WithReplicas sets how many servers of a cluster store the queue: 1 to 5. The
// default is 1. A queue with 3 replicas goes on when one of the three servers is
// lost, one with 5 when two are. Stored with the queue.
func WithReplicas(n int) Option {
	return optionFunc(func(c *config) error {
		if n < 1 || n > maxReplicas {
			return invalid("WithReplicas(%d): a queue has 1 to %d replicas", n, maxReplicas)
		}
		c.replicas, c.stored = n, "WithReplicas"
		return nil
	})
}

// WithStorage sets what the queue is stored in: jetstream.FileStorage, which is
// the default, or jetstream.MemoryStorage, with which a server that stops loses
// its jobs. Stored with the queue.
func WithStorage(storage jetstream.StorageType) Option {
	return optionFunc(func(c *config) error {
		if storage != jetstream.FileStorage && storage != jetstream.MemoryStorage {
			return invalid("WithStorage(%d): the storage is jetstream.FileStorage or jetstream.MemoryStorage", storage)
		}
		c.storage, c.stored = storage, "WithStorage"
		return nil
	})
}

// WithAckWait sets how long a job stays with a worker that is not heard of any
// more, before another one gets it: 100 ms or more. The default is 30 s. It is
// no limit for the handler: a worker that is alive says so for every job that
// it has, three times in this time. Stored with the queue.
func WithAckWait(d time.Duration) Option {
	return optionFunc(func(c *config) error {
		if d < shortest {
			return invalid("WithAckWait(%v): the time is %v or more", d, shortest)
		}
		c.ackWait, c.stored = d, "WithAckWait"
		return nil
	})
}

// WithMaxAttempts sets how often a job is run before it becomes a dead letter:
// 1 or more. The default is 25, which with the default of [WithBackoff] takes four
// days on average: a job outlives what it depends on being away for a night or a
// weekend. The habit is that of the field: River and Sidekiq try some 25 times, over
// about three weeks.
//
// An attempt is a call of the handler. A job that a worker has handed back
// without having run it, or cut short, as [Worker.Shutdown] does, has not used
// one up. One whose first worker was lost, killed or cut off from the server,
// has used up one, as it may have been running; later such losses count only if
// it was. With 1, workers therefore fetch a job only when they can run it at once.
func WithMaxAttempts(n int) Option {
	return optionFunc(func(c *config) error {
		if n < 1 {
			return invalid("WithMaxAttempts(%d): a job has 1 attempt or more", n)
		}
		c.maxAttempts = n
		return nil
	})
}

// WithBackoff sets how long a job that has failed waits for its next attempt:
// backoff(n) after attempt n, counted from 1. The default is
// workpool.ExponentialBackoff(time.Second, 24*time.Hour), a random time of up to a
// second, then two, four and so on, and up to a day after the 18th. A handler that returns workpool.RetryAfter sets the time itself. No
// worker is held meanwhile. A negative time is a mistake, which makes the job a
// dead letter. What is known of a job's attempts is forgotten after 30 days.
func WithBackoff(backoff func(attempt int) time.Duration) Option {
	return optionFunc(func(c *config) error {
		if backoff == nil {
			return invalid("WithBackoff(nil): pass a function from the number of the attempt to the delay after it")
		}
		c.backoff = backoff
		return nil
	})
}

// WithMaxQueued sets how many jobs the queue holds that have not ended, running
// ones included: 1 or more. [Queue.Submit] then returns an error that matches
// workpool.ErrQueueFull, and [Queue.SubmitAll] waits. The default is no limit
// but the server's disk, or [WithMaxBytes]. It excludes [RunAt] and [RunAfter],
// because JetStream has no scheduled messages in a stream that refuses new ones.
// Stored with the queue.
func WithMaxQueued(n int) Option {
	return optionFunc(func(c *config) error {
		if n < 1 {
			return invalid("WithMaxQueued(%d): the limit is 1 or more; leave the option out for none", n)
		}
		c.maxQueued, c.stored = int64(n), "WithMaxQueued"
		return nil
	})
}

// WithMaxBytes sets how many bytes the jobs that have not ended may take on the disk
// of each server that stores them: 1 or more. A job takes its payload, its ID twice, with WithID a key, and
// some 100 bytes. A queue that holds as much refuses jobs as with [WithMaxQueued], which
// it may be given with, and excludes [RunAt] and [RunAfter] as well. Results and dead
// letters don't count. The server sets the bytes aside: Open fails where it has not as
// many. Stored with the queue.
func WithMaxBytes(n int64) Option {
	return optionFunc(func(c *config) error {
		if n < 1 {
			return invalid("WithMaxBytes(%d): the limit is 1 or more; leave the option out for none", n)
		}
		c.maxBytes, c.stored = n, "WithMaxBytes"
		return nil
	})
}

// limited tells whether the queue refuses jobs when it is full.
func (c *config) limited() bool { return c.maxQueued > 0 || c.maxBytes > 0 }

// WithDedupeWindow sets for how long the queue knows the ID of a job, from when the
// job was stored: 100 ms or more. The default is 2 minutes. Within it, a job
// submitted again under the same ID is not stored again; after it, the same ID makes
// another job. A server that restarts remembers only the IDs of jobs that have not
// ended. Each ID costs the server about 113 bytes of memory for that time. Stored
// with the queue.
func WithDedupeWindow(d time.Duration) Option {
	return optionFunc(func(c *config) error {
		if d < shortest {
			return invalid("WithDedupeWindow(%v): the window is %v or more", d, shortest)
		}
		c.dedupeWindow, c.stored = d, "WithDedupeWindow"
		return nil
	})
}

// WithResultAge sets how long results are kept: 100 ms or more. The default is
// 24 hours. Make it longer than [WithAckWait]: a worker that was paused for longer
// than both may else store the second result of a job. Stored with the queue.
func WithResultAge(d time.Duration) Option {
	return optionFunc(func(c *config) error {
		if d < shortest {
			return invalid("WithResultAge(%v): the age is %v or more", d, shortest)
		}
		c.resultAge, c.stored = d, "WithResultAge"
		return nil
	})
}

// WithoutResults keeps no results: a job that succeeds is acknowledged and gone, and
// what its handler returns is dropped. That spares the server what a result costs,
// and the worker to wait until it is stored. [Queue.Result] and [Queue.Results]
// return [ErrNoResults]. A job whose acknowledgement is lost runs again, as nothing
// tells that it has ended. Stored with the queue.
func WithoutResults() Option {
	return optionFunc(func(c *config) error {
		c.withoutResults, c.stored = true, "WithoutResults"
		return nil
	})
}

// WithCodec sets how values of type V are stored. V has to be the type of the
// jobs or that of the results, and is both if these are the same. The default is
// [JSON].
func WithCodec[V any](codec Codec[V]) Option {
	return optionFunc(func(c *config) error {
		if codec == nil {
			return invalid("WithCodec(nil): pass a codec, or leave the option out for JSON")
		}
		c.codecs = append(c.codecs, codec)
		return nil
	})
}

// WithStreamConfig is the door to what JetStream can do beyond the other options, such
// as placement and compression. The function is called for each of the four streams of
// the queue, whose names end in _jobs, _results, _dead and _attempts. It may change
// Description, Metadata, Storage, Replicas, Placement, Compression, MaxMsgSize,
// RePublish and AllowMsgTTL, and with Discard set to jetstream.DiscardNew also MaxMsgs
// and MaxBytes of the streams other than that of the jobs, for which [WithMaxQueued] and
// [WithMaxBytes] are. A change of anything else gives an error that wraps
// [ErrInvalidOption]: without DiscardNew, for one, a limit would have the stream delete
// what it has accepted. Stored with the queue.
func WithStreamConfig(change func(*jetstream.StreamConfig)) Option {
	return optionFunc(func(c *config) error {
		if change == nil {
			return invalid("WithStreamConfig(nil): pass a function that changes the configuration")
		}
		c.stream, c.stored = append(c.stream, change), "WithStreamConfig"
		return nil
	})
}

// WithConsumerConfig is [WithStreamConfig] for the three consumers, whose names are
// high, normal and low. It may change Description, Metadata, Replicas, AckWait,
// MaxWaiting, MaxRequestBatch, MaxRequestExpires, MaxRequestMaxBytes and
// SampleFrequency. Stored with the queue.
func WithConsumerConfig(change func(*jetstream.ConsumerConfig)) Option {
	return optionFunc(func(c *config) error {
		if change == nil {
			return invalid("WithConsumerConfig(nil): pass a function that changes the configuration")
		}
		c.consumer, c.stored = append(c.consumer, change), "WithConsumerConfig"
		return nil
	})
}

// WithUpdate has [Open] change what is stored with the queue to the options and types
// that it is given, which are the defaults where an option is left out. Open without
// it first: the text of [ErrConfigMismatch] says what would change. Some things the
// server does not change, such as the storage; then Open returns its error, and may
// have changed others. Workers and submitters that run go on with what they were
// opened with: restart them. It excludes [WithExisting].
func WithUpdate() Option {
	return optionFunc(func(c *config) error {
		c.update = true
		return nil
	})
}

// WithExisting opens a queue that another process has created, as it is: Open
// then creates nothing, and returns [ErrNotFound] if there is none. It does not
// compare types. It excludes the options that are stored with the queue.
func WithExisting() Option {
	return optionFunc(func(c *config) error {
		c.existing = true
		return nil
	})
}
