// Package before is the code of docs/migrating.md: how one does without the library, or with another.
package before

import "context"

// A Fetch returns a page.
type Fetch = func(ctx context.Context, url string) (string, error)

// A Send sends a mail.
type Send = func(ctx context.Context, mail string) error
