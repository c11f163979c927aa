// Package after is the code of docs/migrating.md: the same with the library.
package after

import "context"

// A Fetch returns a page.
type Fetch = func(ctx context.Context, url string) (string, error)

// A Send sends a mail.
type Send = func(ctx context.Context, mail string) error
