package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/seed-a18b2dc9/workpool"
)

const (
	schema = `CREATE TABLE IF NOT EXISTS readings (
		station TEXT NOT NULL, time TEXT NOT NULL, celsius REAL NOT NULL,
		PRIMARY KEY (station, time)) WITHOUT ROWID`
	upsert = `INSERT INTO readings (station, time, celsius) VALUES (?, ?, ?)
		ON CONFLICT (station, time) DO UPDATE SET celsius = excluded.celsius`
)

type database struct{ *sql.DB }

// open opens a database, which is made with the first batch if there is none.
func open(path string) (database, error) {
	// With a log (WAL) readers keep nobody from writing. A transaction that begins as
	// IMMEDIATE is busy then or never.
	file := url.URL{Path: filepath.ToSlash(path)}
	db, err := sql.Open("sqlite", "file:"+file.EscapedPath()+"?_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		return database{}, err
	}
	db.SetMaxOpenConns(1)
	return database{db}, nil
}

// A rowErrors says why rows of a batch were not stored. The others were.
type rowErrors []error

func (b rowErrors) Error() string { return errors.Join(b...).Error() }

// store is what the worker does: it stores a batch in a transaction, and returns how
// many rows that were.
func (db database) store(ctx context.Context, rows []row) (stored int, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, unlessBusy(err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit, it does nothing
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return 0, unlessBusy(err)
	}
	insert, err := tx.PrepareContext(ctx, upsert)
	if err != nil {
		return 0, unlessBusy(err)
	}
	defer insert.Close()
	var bad rowErrors
	for _, r := range rows {
		reading, err := parse(r)
		if err != nil {
			bad = append(bad, fmt.Errorf("line %d: %w", r.line, err))
			continue
		}
		if _, err := insert.ExecContext(ctx, reading.station, reading.time, reading.celsius); err != nil {
			return 0, unlessBusy(err)
		}
	}
	if err := tx.Commit(); err != nil {
		return 0, unlessBusy(err)
	}
	if len(bad) > 0 {
		err = workpool.Permanent(bad) // another attempt would not mend them
	}
	return len(rows) - len(bad), err
}

// unlessBusy makes err one that Retry does not try again, unless it says that another
// process writes to the database.
func unlessBusy(err error) error {
	var failure *sqlite.Error
	if errors.As(err, &failure) && failure.Code()&0xff == sqlite3.SQLITE_BUSY {
		return err
	}
	return workpool.Permanent(err)
}

type reading struct {
	station string
	time    string // in UTC, so that one time is written in one way
	celsius float64
}

func parse(r row) (reading, error) {
	if r.err != nil {
		return reading{}, r.err
	}
	station := r.fields[0]
	if station == "" {
		return reading{}, errors.New("the station is missing")
	}
	at, err := time.Parse(time.RFC3339, r.fields[1])
	if err != nil {
		return reading{}, fmt.Errorf("the time %q is not like 2026-11-26T06:00:00Z", r.fields[1])
	}
	celsius, err := strconv.ParseFloat(r.fields[2], 64)
	if err != nil || math.IsNaN(celsius) || math.IsInf(celsius, 0) {
		return reading{}, fmt.Errorf("the temperature %q is not a number", r.fields[2])
	}
	return reading{station, at.UTC().Format(time.RFC3339), celsius}, nil
}
