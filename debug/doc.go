// Package debug shows what the pools of a program are at, on a web page for its engineers:
// numbers, the last minute as charts, percentiles, workers and their tasks, and the last failures
// with the stacks of panics. The page follows the pools live.
//
//	var page debug.Page
//	pool, err := debug.New(&page, thumbnail, workpool.WithName("thumbs"))
//	...
//	http.Handle("/debug/workpool/", &page)
//
// [New] makes a pool as [workpool.New] does and has it observed. [Page.Add] shows a pool that was
// made otherwise, with less to see.
//
// # Cost
//
// A page has no goroutine. What it keeps of an observed pool is written down by the callers and
// workers as they go: the last minute by seconds, and the last 16 different failures. That takes 85 kB
// for each pool, up to 150 kB more for the texts and stacks of failures, and little time beyond what
// [workpool.WithObserver] costs: see BenchmarkNew. Other pools are looked at once a second while
// somebody looks at the page, and not at all otherwise.
//
// # Safety
//
// The page changes nothing, and answers only GET and HEAD. It shows texts of errors and stacks, so
// serve it where only engineers get at it: on a loopback address, or behind a login. Its script
// and style come from its own address, under a Content-Security-Policy that allows nothing else.
package debug
