// Package migrating tests the code of docs/migrating.md, which is in the packages
// before and after: both sides do the same, and the page has them as they are.
package migrating
