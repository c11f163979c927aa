//go:build !unix

package embedded

// lock does nothing where there are no locks of this kind.
func lock(string) (unlock func(), err error) { return func() {}, nil }
