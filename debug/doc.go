// Package debug shows what the pools of a program are doing, on a live web page for its engineers:
// numbers, charts of the last minute, percentiles, workers and their tasks, and the last failures
// with the stacks of panics.
//
//	var page debug.Page
//	pool, err := debug.New(&page, thumbnail, workpool.WithName("thumbs"))
//	...
//	http.Handle("/debug/workpool/", &page)
//
// [New] creates a pool as [workpool.New] does, with an observer for the page. [Page.Add] shows any
// other pool, in less detail.
//
// # Cost
//
// A page has no goroutine. Callers and workers of an observed pool record what it shows: each second
// of the last minute, and the last 16 different failures. That takes 85 kB for each pool, up to
// 150 kB more for the texts and stacks of failures, and little time beyond the cost of
// [workpool.WithObserver]: see BenchmarkNew. Other pools are read once a second while somebody
// views the page, and not at all otherwise.
//
// # Safety
//
// The page is read-only and answers only GET and HEAD. It shows error texts and stacks, so serve it
// where only engineers can reach it: on a loopback address, or behind a login. Its script and style
// come from its own address, under a Content-Security-Policy that allows nothing else.
package debug
