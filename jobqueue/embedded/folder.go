package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
)

// lockFile keeps two servers from writing into one folder, which would ruin it. The
// system drops the lock when the process ends, however it does.
const lockFile = "embedded.lock"

// lock makes the folder if need be, and returns the lock on it.
func lock(dir string) (*flock.Flock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded: making the folder of the server: %w", err)
	}
	l := flock.New(filepath.Join(dir, lockFile), flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	free, err := l.TryLock()
	switch {
	case err != nil:
		return nil, fmt.Errorf("embedded: the server can't write into the folder %s: %w", dir, err)
	case !free:
		return nil, fmt.Errorf("embedded: another server uses the folder %s: stop it, or give each server a folder of its own", dir)
	}
	return l, nil
}

// checkFolder refuses streams that a server with these options would delete or spoil.
//
// A cluster knows its streams from a log of its own, and half a minute after the start
// of a node it deletes from the node's folder what is not in that log: all that a server
// without a cluster has stored there. The other way round, what such a server adds to
// the folder of a node is deleted as soon as the node is one again.
func checkFolder(o *server.Options) error {
	store := filepath.Join(o.StoreDir, server.JetStreamStoreDir)
	node, err := filepath.Glob(filepath.Join(store, "*", "_js_", "_meta_"))
	if err != nil {
		return err
	}
	clustered := o.Cluster.Port != 0
	if !clustered {
		if len(node) > 0 {
			return invalid("Start without WithCluster: the folder %s is that of a node of a cluster: start it as one, or give this server another folder", o.StoreDir)
		}
		return nil
	}
	if len(node) > 0 {
		return nil
	}
	streams, err := filepath.Glob(filepath.Join(store, "*", "streams", "*"))
	if err != nil || len(streams) == 0 {
		return err
	}
	for i, stream := range streams {
		streams[i] = filepath.Base(stream)
	}
	return invalid("WithCluster: the folder %s has the streams of a server without a cluster, which the cluster would delete: %s: start the nodes on other folders, and copy the queues to them with the command jobqueue copy -dir %s",
		o.StoreDir, strings.Join(streams, ", "), o.StoreDir)
}
