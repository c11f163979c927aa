package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-a18b2dc9/workpool/jobqueue/embedded"
)

const (
	// chunkSize is how much of a stream is sent in one message: less than what servers
	// take by default, and enough to make the round trips few.
	chunkSize = 256 << 10
	// restorePatience is how long the target may take to put together a stream that it
	// has received, and to bring all its replicas up to date.
	restorePatience = 10 * time.Minute
	// leaderPatience is how long the target may take to elect a leader.
	leaderPatience = 30 * time.Second
	// replicaPause is the time between two looks whether they are.
	replicaPause = 100 * time.Millisecond
)

func copyQueues(flags *flag.FlagSet) func(ctx context.Context, args []string, out io.Writer) error {
	var t target
	t.defineServer(flags)
	dir := flags.String("dir", "jobqueue-data", "`folder` to copy from; its server is stopped")
	replicas := flags.Int("replicas", 3, "`number` of servers that are to store the queues: 1 to 5")
	return func(ctx context.Context, args []string, out io.Writer) error {
		switch {
		case len(args) > 0:
			return usage("unexpected %q", args)
		case *replicas < 1 || *replicas > 5:
			return usage("-replicas %d: the number is 1 to 5", *replicas)
		}
		if _, err := os.Stat(filepath.Join(*dir, "jetstream")); err != nil { // which Start would make
			return fmt.Errorf("-dir %s holds no queues: %w", *dir, err)
		}
		to, err := t.connect()
		if err != nil {
			return err
		}
		defer to.Close()
		// Its own server makes sure that nobody works on the queues meanwhile.
		s, err := embedded.Start(*dir)
		if err != nil {
			return err
		}
		defer s.Shutdown()
		from, err := s.Connect()
		if err != nil {
			return err
		}
		defer from.Close()
		c := copier{from: from, to: to, replicas: *replicas, timeout: t.timeout}
		return c.copyAll(ctx, out)
	}
}

// A copier copies streams from one server to another by the snapshots that JetStream
// makes for backups. They have all that a queue relies on: the sequence numbers and
// times of messages, and what its consumers have acknowledged. What they have not is
// which IDs a stream knew within its window.
type copier struct {
	from, to *nats.Conn
	replicas int
	timeout  time.Duration // for one answer
}

func (c *copier) copyAll(ctx context.Context, out io.Writer) error {
	source, err := jetstream.New(c.from)
	if err != nil {
		return err
	}
	target, err := jetstream.New(c.to)
	if err != nil {
		return err
	}
	list := source.StreamNames(ctx)
	var names []string // before the first is copied: the library gives the list five seconds
	for name := range list.Name() {
		names = append(names, name)
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("listing the streams of the folder: %w", err)
	}
	for _, name := range names {
		stream, err := source.Stream(ctx, name)
		if err != nil {
			return err
		}
		if err := c.copyOnce(ctx, target, stream); err != nil {
			return fmt.Errorf("copying stream %s: %w", name, err)
		}
		if err := c.awaitReplicas(ctx, target, name); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %d messages, %d replicas\n", name, stream.CachedInfo().State.Msgs, c.replicas)
	}
	return nil
}

// codeNameInUse is the answer to a restore where the target has a stream of that name, or
// has not yet given up one that was cut short.
const codeNameInUse jetstream.ErrorCode = 10130

// copyOnce copies a stream that the target does not have. A copy that was cut short can be
// made again.
func (c *copier) copyOnce(ctx context.Context, target jetstream.JetStream, stream jetstream.Stream) error {
	name := stream.CachedInfo().Config.Name
	for begin := time.Now(); ; {
		there, err := c.lookUp(ctx, target, name)
		switch {
		case err == nil && same(stream.CachedInfo().State, there.CachedInfo().State):
			return nil
		case err == nil && isLeft(there.CachedInfo().State):
			if err := target.DeleteStream(ctx, name); err != nil {
				return fmt.Errorf("deleting what is left of a copy that was cut short: %w", err)
			}
		case err == nil:
			return errors.New("the target has one with other messages: delete it there, or copy to another cluster")
		case !errors.Is(err, jetstream.ErrStreamNotFound):
			return fmt.Errorf("asking for it on the target: %w", err)
		}
		err = c.copyStream(ctx, name)
		var api *jetstream.APIError
		if !errors.As(err, &api) || api.ErrorCode != codeNameInUse || time.Since(begin) > leaderPatience {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// isLeft tells whether a stream is what a cluster makes of one whose copy was cut short. It
// never had a message, nor has it the consumers that a queue has.
func isLeft(s jetstream.StreamState) bool { return s.LastSeq == 0 && s.Consumers == 0 }

// lookUp asks for a stream, again and again while the target does not answer, as a
// cluster that has no leader yet.
func (c *copier) lookUp(ctx context.Context, js jetstream.JetStream, name string) (jetstream.Stream, error) {
	for begin := time.Now(); ; {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		stream, err := js.Stream(attempt, name)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || time.Since(begin) > leaderPatience {
			return stream, err
		}
	}
}

// same tells whether a stream is the copy of another: a command that was cut short can
// be given again, but where a scheduled job has come due since. An empty stream may have one of two numbers for its first message.
func same(a, b jetstream.StreamState) bool {
	return a.Msgs == b.Msgs && (a.FirstSeq == b.FirstSeq || a.Msgs == 0) && a.LastSeq == b.LastSeq && a.LastTime.Equal(b.LastTime)
}

// The requests and answers of the API that the library does not have.
type (
	snapshotRequest struct {
		DeliverSubject string `json:"deliver_subject"`
		ChunkSize      int    `json:"chunk_size"`
		Check          bool   `json:"jsck"` // the checksums of the messages
	}
	snapshotAnswer struct {
		Error  *jetstream.APIError        `json:"error"`
		Config map[string]json.RawMessage `json:"config"`
		State  json.RawMessage            `json:"state"`
	}
	restoreRequest struct {
		Config map[string]json.RawMessage `json:"config"`
		State  json.RawMessage            `json:"state"`
	}
	restoreAnswer struct {
		Error          *jetstream.APIError `json:"error"`
		DeliverSubject string              `json:"deliver_subject"`
	}
)

func (c *copier) copyStream(ctx context.Context, name string) error {
	inbox := c.from.NewInbox()
	chunks, err := c.from.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer chunks.Unsubscribe() //nolint:errcheck // the connection is about to be closed
	if err := chunks.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	var snapshot snapshotAnswer
	if err := c.ask(ctx, c.from, "$JS.API.STREAM.SNAPSHOT."+name, snapshotRequest{inbox, chunkSize, true}, &snapshot); err != nil {
		return err
	}
	if snapshot.Error != nil {
		return snapshot.Error
	}
	snapshot.Config["num_replicas"] = json.RawMessage(fmt.Sprint(c.replicas))
	var restore restoreAnswer
	if err := c.ask(ctx, c.to, "$JS.API.STREAM.RESTORE."+name, restoreRequest{snapshot.Config, snapshot.State}, &restore); err != nil {
		return err
	}
	if restore.Error != nil {
		return restore.Error
	}
	for {
		chunk, err := c.next(ctx, chunks)
		if err != nil {
			return err
		}
		patience := c.timeout
		if len(chunk.Data) == 0 { // the end of it, which the target answers when all is in place
			if status := chunk.Header.Get("Status"); status != "" && status != "204" {
				return fmt.Errorf("reading it: %s %s", status, chunk.Header.Get("Description"))
			}
			patience = restorePatience
		}
		answer, err := request(ctx, patience, c.to, restore.DeliverSubject, chunk.Data)
		if err != nil {
			return fmt.Errorf("the target does not take it: %w", err)
		}
		if len(answer.Data) > 0 {
			var refused restoreAnswer
			if err := json.Unmarshal(answer.Data, &refused); err != nil {
				return err
			}
			if refused.Error != nil {
				return refused.Error
			}
		}
		if len(chunk.Data) == 0 {
			return nil
		}
		if chunk.Reply != "" {
			if err := chunk.Respond(nil); err != nil { // has the next one sent
				return err
			}
		}
	}
}

func (c *copier) next(ctx context.Context, chunks *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return chunks.NextMsgWithContext(ctx)
}

// ask makes a request of the API.
func (c *copier) ask(ctx context.Context, nc *nats.Conn, subject string, question, answer any) error {
	data, err := json.Marshal(question)
	if err != nil {
		return err
	}
	msg, err := request(ctx, c.timeout, nc, subject, data)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	return json.Unmarshal(msg.Data, answer)
}

// request asks again while nobody has taken the question: the servers of a cluster may not know
// yet, or not for a moment, who takes it.
func request(ctx context.Context, patience time.Duration, nc *nats.Conn, subject string, data []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for begin := time.Now(); ; {
		answer, err := nc.RequestWithContext(ctx, subject, data)
		switch {
		case err == nil:
			return answer, nil
		case !errors.Is(err, nats.ErrNoResponders) || time.Since(begin) > leaderPatience:
			return nil, errors.Join(err, last)
		}
		last = err
		select {
		case <-time.After(replicaPause):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// awaitReplicas waits until all replicas of a stream have all of it.
func (c *copier) awaitReplicas(ctx context.Context, js jetstream.JetStream, name string) error {
	ctx, cancel := context.WithTimeout(ctx, restorePatience)
	defer cancel()
	for {
		attempt, stop := context.WithTimeout(ctx, c.timeout) // a leader that is gone does not answer
		stream, err := js.Stream(attempt, name)
		stop()
		if err == nil && current(stream.CachedInfo().Cluster) {
			return nil
		}
		select {
		case <-time.After(replicaPause):
		case <-ctx.Done():
			return fmt.Errorf("stream %s is copied, but not on all %d servers: check that they run: %w", name, c.replicas, errors.Join(ctx.Err(), err))
		}
	}
}

// current tells whether a stream has a leader, and all others follow.
func current(cluster *jetstream.ClusterInfo) bool {
	if cluster == nil { // a single server
		return true
	}
	for _, peer := range cluster.Replicas {
		if !peer.Current || peer.Offline {
			return false
		}
	}
	return cluster.Leader != ""
}
