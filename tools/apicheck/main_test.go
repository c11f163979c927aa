package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestIdentifier(t *testing.T) {
	for _, test := range []struct{ pkg, message, want string }{
		{"workpool", "Map: removed", "Map"},
		{"workpool", "(*Pool[T, R]).Submit: changed from func(context.Context, T) error to func(T) error", "Pool.Submit"},
		{"workpool", "Pool[T, R].Size: removed", "Pool.Size"},
		{"workpool", "Stats.Parked: removed", "Stats.Parked"},
		{"workpool", "Pool, method set: removed", "Pool"},
		{"jobqueue", "(*Queue[T, R]).Submit: removed", "jobqueue.Queue.Submit"},
		{"embedded", "Start: changed from func(string) to func()", "embedded.Start"},
	} {
		assert.Equal(t, test.want, identifier(test.pkg, test.message), test.message)
	}
}

func TestChangelog(t *testing.T) {
	const text = "# Changelog\n" +
		"## [Unreleased]\n" +
		"### Added\n- `Added`\n" +
		"### Changed\n- `Pool.Submit` and `Map` take `Retry(handler, 5)`.\n" +
		"### Removed\n- `jobqueue.Old`\n" +
		"### Fixed\n- `Fixed`\n" +
		"## [0.1.0] - 2027-01-01\n" +
		"### Changed\n- `Before`\n"
	sorted := func(named map[string]bool) []string { return slices.Sorted(maps.Keys(named)) }
	want := []string{"Map", "Pool.Submit", "Retry(handler, 5)", "jobqueue.Old"}
	assert.Equal(t, want, sorted(changelog(text, "v0.1.0")))
	assert.Equal(t, append([]string{"Before"}, want...), sorted(changelog(text, "")), "before the first release")
}
