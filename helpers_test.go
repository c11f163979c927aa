package workpool_test

import "testing"

func closed(t testing.TB, p interface{ Close() error }) {
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
