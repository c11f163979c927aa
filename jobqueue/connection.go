package jobqueue

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pingInterval and pingsOut are what Reliable has a connection do: after at most
	// three intervals without an answer it is given up.
	pingInterval = 3 * time.Second
	pingsOut     = 2
	// writePatience is how long it waits for a server to take what is written.
	writePatience = 10 * time.Second
	// longestSilence is what Open puts up with.
	longestSilence = 30 * time.Second
)

// Reliable returns the option for nats.Connect with which a connection keeps what this
// package promises. It reconnects for ever, which is nats.MaxReconnects(-1). And it
// notices within 6 to 10 seconds that the server does not answer, which without it takes up to
// six minutes where the server is frozen or the network drops what is sent:
// nats.PingInterval(3s), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(10s) and
// nats.ReconnectOnFlusherError(). Options that follow it can set these otherwise.
//
// A connection that reconnects for ever and knows several servers also leaves one that
// answers pings and not for the streams of a queue, as [Open] says. Pass the addresses of
// all servers to nats.Connect.
func Reliable() nats.Option {
	return func(o *nats.Options) error {
		o.AllowReconnect = true
		o.MaxReconnect = -1
		o.PingInterval, o.MaxPingsOut = pingInterval, pingsOut
		o.FlusherTimeout, o.ReconnectOnFlusherError = writePatience, true
		return nil
	}
}

// warnOf logs in which ways a connection does not keep what this package promises.
func warnOf(nc *nats.Conn, queue string) {
	o := nc.Opts
	var flaws []any
	switch {
	case !o.AllowReconnect:
		flaws = append(flaws, "reconnects", "never")
	case o.MaxReconnect >= 0:
		flaws = append(flaws, "reconnects", fmt.Sprintf("gives up after %d attempts", o.MaxReconnect))
	}
	if o.InProcessServer == nil { // which can't freeze alone
		if silence := o.PingInterval * time.Duration(o.MaxPingsOut+1); o.PingInterval <= 0 {
			flaws = append(flaws, "silent_server", "never noticed")
		} else if silence > longestSilence {
			flaws = append(flaws, "silent_server", fmt.Sprintf("noticed after up to %v", silence))
		}
		if o.FlusherTimeout <= 0 || o.FlusherTimeout > longestSilence {
			flaws = append(flaws, "blocked_writing", fmt.Sprintf("given up after %v", o.FlusherTimeout))
		}
	}
	if len(flaws) > 0 {
		slog.Default().Warn("jobqueue: the connection does not keep what the queue promises: connect with jobqueue.Reliable()", append([]any{"queue", queue}, flaws...)...)
	}
}
