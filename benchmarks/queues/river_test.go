package queues

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
)

// Kind makes a job what River takes as arguments.
func (job) Kind() string { return "bench" }

// startRiver has a database with a write-ahead log, synced at its checkpoints, and one
// connection to it, as River's SQLite driver asks for. FetchCooldown, FetchPollInterval
// and MaxWorkers are those of River's own benchmark. InsertManyFast in thousands was as
// fast as any number, and so was any number of workers: most time goes into the driver,
// which completes jobs with a statement each.
func startRiver(b *testing.B, handle func(job)) running {
	ctx := context.Background() // its end would be the client's
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "river.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)")
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	db.SetMaxOpenConns(1)
	driver := riversqlite.New(db)
	migrator, err := rivermigrate.New(driver, nil)
	require.NoError(b, err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	require.NoError(b, err)

	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, j *river.Job[job]) error {
		handle(j.Args)
		return river.RecordOutput(ctx, j.Args)
	}))
	client, err := river.NewClient(driver, &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2000}},
		Workers:           workers,
	})
	require.NoError(b, err)
	// With room for all events, since one that finds none is dropped.
	events, cancel := client.SubscribeConfig(&river.SubscribeConfig{ChanSize: b.N, Kinds: []river.EventKind{river.EventKindJobCompleted}})
	b.Cleanup(cancel)
	var stored atomic.Int64
	go func() {
		for event := range events {
			if event.Job.Output() != nil {
				stored.Add(1)
			}
		}
	}()
	require.NoError(b, client.Start(ctx))
	b.Cleanup(func() { require.NoError(b, client.Stop(ctx)) })
	return running{
		submit: func(jobs []job) error {
			for batch := range slices.Chunk(jobs, 1000) {
				params := make([]river.InsertManyParams, len(batch))
				for i := range batch {
					params[i].Args = batch[i]
				}
				if _, err := client.InsertManyFast(ctx, params); err != nil {
					return err
				}
			}
			return nil
		},
		stored: func() (int, error) { return int(stored.Load()), nil },
	}
}
